"""The small modules that the networks are wired from; each is right in 2D and in 3D."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kitslib.networks.cpu import Conv3d, InstanceNorm, PReLU, UpConv

CONV = {2: nn.Conv2d, 3: Conv3d}
LEAK = 0.1  # below zero, so that none of the few hidden units of a mechanism can die
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class ConvUnit(nn.Sequential):
    """Convolution that keeps the size, instance norm where asked (the bias is then useless and left out), PReLU."""

    def __init__(
        self,
        dims: int,
        channels: int,
        out: int,
        *,
        kernel: int = 3,
        dilation: int = 1,
        norm: bool = False,
    ) -> None:
        padding = dilation * (kernel - 1) // 2
        super().__init__(
            CONV[dims](channels, out, kernel, padding=padding, dilation=dilation, bias=not norm),
            InstanceNorm(out) if norm else nn.Identity(),
            PReLU(out),
        )


class DownUnit(nn.Sequential):
    """Halves every axis by a convolution of width and stride 2, then norm and PReLU."""

    def __init__(self, dims: int, channels: int, out: int, *, norm: bool = False) -> None:
        super().__init__(
            CONV[dims](channels, out, 2, stride=2, bias=not norm),
            InstanceNorm(out) if norm else nn.Identity(),
            PReLU(out),
        )


class UpUnit(nn.Sequential):
    """Doubles every axis by a transposed convolution of width and stride 2, then norm and PReLU."""

    def __init__(self, dims: int, channels: int, out: int, *, norm: bool = False) -> None:
        super().__init__(
            UpConv(dims, channels, out, bias=not norm),
            InstanceNorm(out) if norm else nn.Identity(),
            PReLU(out),
        )


class Level(nn.Sequential):
    """As many `ConvUnit`s as there are dilations, the first of which changes the channel count."""

    def __init__(
        self,
        dims: int,
        channels: int,
        out: int,
        *,
        dilations: Sequence[int],
        kernel: int = 3,
        norm: bool = False,
    ) -> None:
        widths = [channels, *[out] * (len(dilations) - 1)]
        super().__init__(
            *(
                ConvUnit(dims, width, out, kernel=kernel, dilation=dilation, norm=norm)
                for width, dilation in zip(widths, dilations, strict=True)
            )
        )


class SqueezeExcite(nn.Module):
    """Weighs every channel by what the whole image says about it (Hu et al. 2018, arXiv 1709.01507).

    The weights in (0, 1) come from the channel means, so they are constant over space.
    The hidden layer has `channels / reduction` units, never under 4.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.weights = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.LeakyReLU(LEAK),
            nn.Linear(hidden, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=tuple(range(2, x.ndim)))
        return x * self.weights(means).to(x.dtype).reshape(*means.shape, *[1] * (x.ndim - 2))


class ConcatGate(nn.Module):
    """New skip from encoder and decoder features laid side by side: the paper's attention mechanism.

    One map in [0, 1] per voxel is computed from both and multiplied into the encoder features.
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
    """Gate of the Attention U-Net: both inputs projected and added (Oktay et al. 2018, arXiv 1804.03999, eq. 1).

    Shapes and `map` as in `ConcatGate`.
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
    """Successive dilated 3-wide convolutions with a residual sum (HDC; Wang et al. 2018, arXiv 1702.08502).

    With dilations 2, 3, 5 the layers fill each other's holes; equal ones leave a grid, see `hdc_coverage`.
    """

    def __init__(
        self, dims: int, channels: int, *, dilations: Sequence[int] = (2, 3, 5), norm: bool = False
    ):
        super().__init__()
        self.layers = Level(dims, channels, channels, dilations=dilations, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class PyramidJoin(nn.Module):
    """One level of the multi-scale input: the image at this scale, a conv branch, joined to the features.

    Shapes: `features` (B, C, ...) and `image` (B, I, ...), already pooled to the same grid; returns (B, C, ...).
    """

    def __init__(self, dims: int, image: int, channels: int, *, norm: bool = False) -> None:
        super().__init__()
        self.branch = ConvUnit(dims, image, channels, norm=norm)
        self.fuse = ConvUnit(dims, 2 * channels, channels, kernel=1, norm=norm)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        return self.fuse(torch.cat([features, self.branch(image)], dim=1))


def average_pool(x: Tensor) -> Tensor:
    """Halves every spatial axis by averaging."""
    return F.avg_pool2d(x, 2) if x.ndim == 4 else F.avg_pool3d(x, 2)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation of (B, C, ...) to the spatial `size`, as `F.interpolate` does without corners.

    One matrix product per axis: on a CPU many times as quick for few channels, and deterministic on a GPU.
    """
    for axis, wanted in enumerate(size, start=2):
        weights = _interpolation(x.shape[axis], wanted).to(x)
        x = torch.movedim(torch.movedim(x, axis, -1) @ weights, -1, axis)
    return x


def _interpolation(old: int, new: int) -> Tensor:
    """Matrix (old, new): column j holds the weights of the old samples around the new sample j."""
    position = ((torch.arange(new) + 0.5) * old / new - 0.5).clamp(0, old - 1)
    distance = (position - torch.arange(old)[:, None]).abs()
    return (1 - distance).clamp(min=0)


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Repeats the last voxels of every spatial axis until its size is a multiple of `divisor`."""
    missing = [-size % divisor for size in x.shape[2:]]
    if not any(missing):
        return x
    return F.pad(x, [n for after in reversed(missing) for n in (0, after)], mode="replicate")


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` voxels of every spatial axis: the inverse of `pad_to_multiple`."""
    return x[(..., *(slice(n) for n in size))]


def input_layout(dims: str, slices: int) -> tuple[int, int]:
    """Number of spatial axes and of input channels of a network that is "2d", "2.5d" or "3d"."""
    if dims not in ("2d", "2.5d", "3d"):
        raise ValueError(f"dims: expected '2d', '2.5d' or '3d', got {dims!r}")
    if slices < 1 or slices % 2 == 0:
        raise ValueError(
            f"slices: expected an odd number, so that one slice is the centre, got {slices!r}"
        )
    return (3 if dims == "3d" else 2), (slices if dims == "2.5d" else 1)


def check_input(x: Tensor, *, dims: int, channels: int, network: str) -> None:
    """Raises `ValueError` unless `x` is (B, channels, spatial axes) with at least one voxel on every axis."""
    axes = "D, H, W" if dims == 3 else "H, W"
    if x.ndim != dims + 2 or x.shape[1] != channels or 0 in x.shape:
        raise ValueError(
            f"{network} expects a batch (B, {channels}, {axes}) with no empty axis, got {tuple(x.shape)}; "
            "add the missing axes or build the network for this number of channels"
        )


def initialise(network: nn.Module) -> None:
    """Kaiming-normal convolution and linear weights for a PReLU slope of 0.25, zero biases."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, UpConv, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, a=0.25)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def hdc_coverage(dilations: Sequence[int], *, kernel: int = 3) -> np.ndarray:
    """Number of paths from each voxel of the receptive field to its centre through stacked dilated layers.

    Returns an int64 square (n, n), n = 1 + (kernel - 1) * sum(dilations). A zero is a hole: a voxel inside
    the field that the stack never sees (gridding). Dilations 2, 2, 2 miss every odd offset. Dilations 2, 3, 5 leave
    no hole up to 8 voxels from the centre, see `hole_free_reach`; of the field's rim, ±9 and ±10, they miss ±9.
    Source: Wang et al. 2018, arXiv 1702.08502, section 3.2.
    """
    line = np.ones(1, dtype=np.int64)
    for dilation in dilations:
        taps = np.zeros(1 + (kernel - 1) * dilation, dtype=np.int64)
        taps[::dilation] = 1
        line = np.convolve(line, taps)
    return np.outer(line, line)


def hole_free_reach(dilations: Sequence[int], *, kernel: int = 3) -> int:
    """How many voxels from the centre the stack sees every one, along each axis.

    8 of 10 for dilations 2, 3, 5; 0 of 6 for 2, 2, 2.
    """
    line = hdc_coverage(dilations, kernel=kernel).diagonal()
    outward = line[len(line) // 2 :] > 0
    return len(outward) - 1 if outward.all() else int(outward.argmin()) - 1
