"""The DeepLab V3+ that the paper compares its VNet with, trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kitslib.networks.blocks import (
    CONV,
    ConvUnit,
    DownUnit,
    Level,
    check_input,
    crop_to,
    initialise,
    input_layout,
    pad_to_multiple,
    resize,
)

RATES = (6, 12, 18)  # dilations of the pyramid, in steps of 8 pixels
STRIDES = 3  # halvings of the encoder; levels beyond them dilate instead


class ResidualLevel(nn.Module):
    """Change the width (halving the size or not), then two convolutions with a residual sum."""

    def __init__(
        self, dims: int, channels: int, out: int, *, halve: bool, dilation: int, norm: bool
    ) -> None:
        super().__init__()
        self.enter = (
            DownUnit(dims, channels, out, norm=norm)
            if halve
            else ConvUnit(dims, channels, out, kernel=1, norm=norm)
        )
        self.stage = Level(dims, out, out, dilations=(dilation, dilation), norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return x + self.stage(x)


class AtrousPyramid(nn.Module):
    """Parallel dilated convolutions and the image mean, fused (ASPP; Chen et al. 2017, arXiv 1706.05587).

    Shapes: (B, channels, ...) to (B, out, ...).
    """

    def __init__(
        self, dims: int, channels: int, out: int, *, rates: Sequence[int], norm: bool
    ) -> None:
        super().__init__()
        self.point = ConvUnit(dims, channels, out, kernel=1, norm=norm)
        self.atrous = nn.ModuleList(
            ConvUnit(dims, channels, out, dilation=rate, norm=norm) for rate in rates
        )
        self.image = ConvUnit(
            dims, channels, out, kernel=1
        )  # no norm here and below: it would erase
        self.fuse = ConvUnit(
            dims, (len(rates) + 2) * out, out, kernel=1
        )  # what is constant over space

    def forward(self, x: Tensor) -> Tensor:
        mean = self.image(x.mean(dim=tuple(range(2, x.ndim)), keepdim=True))
        views = [
            self.point(x),
            *(branch(x) for branch in self.atrous),
            mean.expand(-1, -1, *x.shape[2:]),
        ]
        return self.fuse(torch.cat(views, dim=1))


class DeepLabV3Plus(nn.Module):
    """Dilated encoder, atrous pyramid, and a decoder that adds features of a quarter of the size.

    Input, output and arguments as in `UNet`. Logits are computed at a quarter of the size and interpolated.
    Raises `ValueError` for options out of range and for a batch of another shape.
    Source: Chen et al. 2018, arXiv 1802.02611, at output stride 8.
    """

    def __init__(
        self,
        *,
        dims: Literal["2d", "2.5d", "3d"] = "2.5d",
        slices: int = 5,
        out_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        norm: bool = False,
    ) -> None:
        super().__init__()
        if len(widths) < STRIDES:
            raise ValueError(
                f"widths: expected at least {STRIDES} channel counts, got {tuple(widths)}"
            )
        self.axes, self.in_channels = input_layout(dims, slices)
        self.divisor = 2**STRIDES
        incoming = [self.in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            ResidualLevel(
                self.axes,
                channels,
                out,
                halve=level < STRIDES,
                dilation=2 ** max(level - STRIDES + 1, 0),
                norm=norm,
            )
            for level, (channels, out) in enumerate(zip(incoming, widths, strict=True))
        )
        features = widths[STRIDES - 1]
        self.pyramid = AtrousPyramid(self.axes, widths[-1], features, rates=RATES, norm=norm)
        self.low_level = ConvUnit(self.axes, widths[1], widths[0], kernel=1, norm=norm)
        self.decoder = Level(self.axes, features + widths[0], features, dilations=(1, 1), norm=norm)
        self.map = CONV[self.axes](features, out_channels, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, dims=self.axes, channels=self.in_channels, network="DeepLabV3Plus")
        size = x.shape[2:]
        x = pad_to_multiple(x, self.divisor)
        padded = x.shape[2:]
        half, quarter, *deeper = self.encoder
        low = quarter(half(x))
        x = low
        for level in deeper:
            x = level(x)
        x = resize(self.pyramid(x), low.shape[2:])
        x = self.decoder(torch.cat([x, self.low_level(low)], dim=1))
        return crop_to(resize(self.map(x), padded), size)
