"""The small modules that the networks are wired from; each is right in 2D and in 3D."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitslib.networks.cpu import Conv3d, InstanceNorm, PReLU

CONV = {2: nn.Conv2d, 3: Conv3d}
UP_CONV = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
TRANSPOSED = tuple(UP_CONV.values())
WEIGHTED = (nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
LEAK = 0.1  # below zero, so that none of the few hidden units of a mechanism can die


class Unit(nn.Sequential):
    """A convolution to `out` channels, instance norm where `norm` says so, PReLU.

    With the norm, a bias of the convolution would change nothing: give it none.
    """

    def __init__(self, conv: nn.Module, out: int, norm: bool) -> None:
        super().__init__(conv, InstanceNorm(out) if norm else nn.Identity(), PReLU(out))


class ConvUnit(Unit):
    """Convolution that keeps the size, norm and PReLU."""

    def __init__(
        self, dims: int, channels: int, out: int, *, kernel: int = 3, dilation: int = 1, norm: bool
    ) -> None:
        keep = {"padding": dilation * (kernel - 1) // 2, "dilation": dilation}
        super().__init__(CONV[dims](channels, out, kernel, bias=not norm, **keep), out, norm)


class DownUnit(Unit):
    """Halves every axis by a convolution of width and stride 2, then norm and PReLU."""

    def __init__(self, dims: int, channels: int, out: int, *, norm: bool) -> None:
        super().__init__(CONV[dims](channels, out, 2, stride=2, bias=not norm), out, norm)


class UpUnit(Unit):
    """Doubles every axis by a transposed convolution of width and stride 2, then norm and PReLU.

    Its weights are left to `initialise`.
    """

    def __init__(self, dims: int, channels: int, out: int, *, norm: bool) -> None:
        options = {"stride": 2, "bias": not norm}
        with torch.random.fork_rng(devices=[]):  # `initialise` draws its weights
            conv = UP_CONV[dims](channels, out, 2, **options)
        super().__init__(conv, out, norm)


class Level(nn.Sequential):
    """As many `ConvUnit`s as there are dilations; the first changes the channel count."""

    def __init__(
        self, dims: int, channels: int, out: int, *, dilations: Sequence[int], kernel: int = 3,
        norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        for dilation in dilations:
            options = {"kernel": kernel, "dilation": dilation, "norm": norm}
            self.append(ConvUnit(dims, channels, out, **options))
            channels = out


class SqueezeExcite(nn.Module):
    """Weighs every channel, in (0, 1), by the means of all channels over the whole image.

    The hidden layer has a sixteenth of the channels, never under 4 units.
    Source: Hu et al. 2018, arXiv 1709.01507.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        squeeze = (nn.Linear(channels, hidden), nn.LeakyReLU(LEAK))
        self.weights = nn.Sequential(*squeeze, nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=tuple(range(2, x.ndim)))
        return x * self.weights(means).to(x.dtype).reshape(*means.shape, *[1] * (x.ndim - 2))


class ConcatGate(nn.Module):
    """The skip times one map in [0, 1] that skip and decoder give: the paper's attention.

    Shapes: `skip` (B, S, ...) and `decoder` (B, C, ...) on the same grid; returns (B, S, ...).
    `map` is its own module, so that a forward hook on it catches the map (B, 1, ...).
    """

    def __init__(self, dims: int, skip: int, decoder: int) -> None:
        super().__init__()
        hidden = max(skip // 2, 4)
        self.map = nn.Sequential(
            CONV[dims](skip + decoder, hidden, 1),
            PReLU(hidden),
            CONV[dims](hidden, 1, 1),
            nn.Sigmoid(),
        )

    def forward(self, skip: Tensor, decoder: Tensor) -> Tensor:
        return skip * self.map(torch.cat([skip, decoder], dim=1)).to(skip.dtype)


class AdditiveGate(nn.Module):
    """Gate of the Attention U-Net: both inputs projected and added; else as `ConcatGate`.

    Source: Oktay et al. 2018, arXiv 1804.03999, eq. 1.
    """

    def __init__(self, dims: int, skip: int, decoder: int) -> None:
        super().__init__()
        hidden = max(skip // 2, 4)
        self.from_skip = CONV[dims](skip, hidden, 1, bias=False)
        self.from_decoder = CONV[dims](decoder, hidden, 1)
        self.map = nn.Sequential(nn.LeakyReLU(LEAK), CONV[dims](hidden, 1, 1), nn.Sigmoid())

    def forward(self, skip: Tensor, decoder: Tensor) -> Tensor:
        return skip * self.map(self.from_skip(skip) + self.from_decoder(decoder)).to(skip.dtype)


class HybridDilated(nn.Module):
    """Successive dilated 3-wide convolutions with a residual sum (HDC).

    Dilations 2, 3, 5 fill each other's holes; equal ones leave a grid, see `hdc_coverage`.
    Source: Wang et al. 2018, arXiv 1702.08502.
    """

    def __init__(
        self, dims: int, channels: int, *, dilations: Sequence[int] = (2, 3, 5), norm: bool = False
    ):
        super().__init__()
        self.layers = Level(dims, channels, channels, dilations=dilations, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class PyramidJoin(nn.Module):
    """One level of the multi-scale input: the image at this scale, convolved and joined.

    Shapes: `features` (B, C, ...) and `image` (B, I, ...) on the same grid; returns (B, C, ...).
    """

    def __init__(self, dims: int, image: int, channels: int, *, norm: bool = False) -> None:
        super().__init__()
        self.branch = ConvUnit(dims, image, channels, norm=norm)
        self.fuse = ConvUnit(dims, 2 * channels, channels, kernel=1, norm=norm)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        return self.fuse(torch.cat([features, self.branch(image)], dim=1))


class AnySize(nn.Module):
    """A network for batches (B, in_channels, spatial axes) whose axes have any size."""

    def __init__(self, axes: int, in_channels: int, divisor: int) -> None:
        super().__init__()
        self.axes, self.in_channels, self.divisor = axes, in_channels, divisor

    def padded(self, x: Tensor) -> Tensor:
        """`x` with its last voxels repeated until `divisor` divides every axis; see `crop_to`.

        Raises ValueError for another number of axes or channels and for an empty axis.
        """
        if x.ndim != self.axes + 2 or x.shape[1] != self.in_channels or 0 in x.shape:
            axes = "D, H, W" if self.axes == 3 else "H, W"
            raise ValueError(
                f"{type(self).__name__} expects a batch (B, {self.in_channels}, {axes}) with no"
                f" empty axis, got {tuple(x.shape)}; add the missing axes or build the network for"
                " this number of channels"
            )
        after = [-size % self.divisor for size in x.shape[2:]]
        if not any(after):
            return x
        return F.pad(x, [n for missing in reversed(after) for n in (0, missing)], mode="replicate")


class TumorNetwork(AnySize):
    """A network that is "2d", "2.5d" (`slices` are its input channels) or "3d" and halves so often.

    Raises ValueError for options out of range; `widths` has at least `least` channel counts.
    """

    def __init__(
        self, dims: str, slices: int, widths: Sequence[int], *, least: int, halvings: int
    ) -> None:
        layouts = {"2d": (2, 1), "2.5d": (2, slices), "3d": (3, 1)}
        if dims not in layouts:
            raise ValueError(f"dims: expected '2d', '2.5d' or '3d', got {dims!r}")
        if slices < 1 or slices % 2 == 0:
            raise ValueError(
                f"slices: expected an odd number, so that one slice is the centre, got {slices!r}"
            )
        if len(widths) < least:
            counts = f"at least {least} channel counts, one per level"
            raise ValueError(f"widths: expected {counts}, got {tuple(widths)}")
        super().__init__(*layouts[dims], divisor=2**halvings)


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` voxels of every spatial axis: the inverse of `AnySize.padded`."""
    return x[(..., *map(slice, size))]


def average_pool(x: Tensor) -> Tensor:
    """Halves every spatial axis by averaging."""
    return F.avg_pool2d(x, 2) if x.ndim == 4 else F.avg_pool3d(x, 2)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation of (B, C, ...) to the spatial `size`, as `F.interpolate` does it.

    One matrix product per axis: on a CPU quicker for few channels, on a GPU deterministic.
    """
    for axis, new in enumerate(size, start=2):
        old = x.shape[axis]
        position = ((torch.arange(new) + 0.5) * old / new - 0.5).clamp(0, old - 1)
        distance = (position - torch.arange(old)[:, None]).abs()
        weights = (
            (1 - distance).clamp(min=0).to(x)
        )  # (old, new): of the old samples around each new
        x = torch.movedim(torch.movedim(x, axis, -1) @ weights, -1, axis)
    return x


def initialise(network: nn.Module) -> None:
    """Kaiming-normal convolution and linear weights for a PReLU slope of 0.25, zero biases."""
    for module in network.modules():
        if isinstance(module, WEIGHTED):
            nn.init.kaiming_normal_(module.weight, a=0.25)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def hdc_coverage(dilations: Sequence[int], *, kernel: int = 3) -> np.ndarray:
    """Paths from each voxel of the receptive field to its centre through stacked dilated layers.

    Returns an int64 square (n, n), n = 1 + (kernel - 1) * sum(dilations). A zero is a hole: a voxel
    of the field that the stack never sees (gridding). Dilations 2, 2, 2 miss every odd offset;
    2, 3, 5 leave no hole up to 8 voxels from the centre and miss ±9 of the field's ±10.
    Source: Wang et al. 2018, arXiv 1702.08502, section 3.2.
    """
    line = np.ones(1, dtype=np.int64)
    for dilation in dilations:
        taps = np.zeros(1 + (kernel - 1) * dilation, dtype=np.int64)
        taps[::dilation] = 1
        line = np.convolve(line, taps)
    return np.outer(line, line)
