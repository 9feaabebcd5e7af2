"""The DeepLab V3+ that the paper compares its VNet with, trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from kitslib.networks import blocks

RATES = (6, 12, 18)  # dilations of the pyramid, in steps of 8 pixels
STRIDES = 3  # halvings of the encoder; levels beyond them dilate instead
LEAST = 2


class ResidualLevel(nn.Module):
    """Change the width (halving the size or not), then two convolutions with a residual sum."""

    def __init__(
        self, dims: int, channels: int, out: int, *, halve: bool, dilation: int, norm: bool
    ) -> None:
        super().__init__()
        if halve:
            self.enter = blocks.DownUnit(dims, channels, out, norm=norm)
        else:
            self.enter = blocks.ConvUnit(dims, channels, out, kernel=1, norm=norm)
        self.stage = blocks.Level(dims, out, out, dilations=(dilation, dilation), norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return x + self.stage(x)


class AtrousPyramid(nn.Module):
    """Parallel dilated convolutions and the image mean, fused (ASPP).

    Shapes: (B, channels, ...) to (B, out, ...). Source: Chen et al. 2017, arXiv 1706.05587.
    """

    def __init__(
        self, dims: int, channels: int, out: int, *, rates: Sequence[int], norm: bool
    ) -> None:
        super().__init__()
        self.point = blocks.ConvUnit(dims, channels, out, kernel=1, norm=norm)
        self.atrous = nn.ModuleList()
        for rate in rates:
            self.atrous.append(blocks.ConvUnit(dims, channels, out, dilation=rate, norm=norm))
        # no norm in these two: it would erase what is constant over space
        self.image = blocks.ConvUnit(dims, channels, out, kernel=1, norm=False)
        self.fuse = blocks.ConvUnit(dims, (len(rates) + 2) * out, out, kernel=1, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.image(x.mean(dim=tuple(range(2, x.ndim)), keepdim=True))
        views = [branch(x) for branch in (self.point, *self.atrous)]
        return self.fuse(torch.cat([*views, mean.expand_as(views[0])], dim=1))


class DeepLabV3Plus(blocks.TumorNetwork):
    """Dilated encoder, atrous pyramid, and a decoder that adds features of a quarter of the size.

    Input, output and arguments as in `UNet`; `rates` are the pyramid's dilations. Three halvings,
    or two where `widths` has three levels. Logits are computed at a quarter of the size and
    interpolated. Raises ValueError for options out of range and for a batch of another shape.
    Source: Chen et al. 2018, arXiv 1802.02611, at output stride 8.
    """

    def __init__(
        self, *, dims: Literal["2d", "2.5d", "3d"] = "2.5d", slices: int = 5, out_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 128, 256), norm: bool = False,
        rates: Sequence[int] = RATES,
    ) -> None:  # fmt: skip
        strides = min(STRIDES, len(widths) - 1)
        super().__init__(dims, slices, widths, least=LEAST + 1, halvings=strides)
        self.encoder, features = nn.ModuleList(), widths[strides - 1]
        for level, (channels, out) in enumerate(pairwise((self.in_channels, *widths))):
            halve, dilation = level < strides, 2 ** max(level - strides + 1, 0)
            self.encoder.append(
                ResidualLevel(self.axes, channels, out, halve=halve, dilation=dilation, norm=norm)
            )
        self.pyramid = AtrousPyramid(self.axes, widths[-1], features, rates=rates, norm=norm)
        self.low_level = blocks.ConvUnit(self.axes, widths[1], widths[0], kernel=1, norm=norm)
        self.decoder = blocks.Level(
            self.axes, features + widths[0], features, dilations=(1, 1), norm=norm
        )
        self.map = blocks.CONV[self.axes](features, out_channels, 1)
        blocks.initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        x = self.padded(x)
        padded = x.shape[2:]
        half, quarter, *deeper = self.encoder
        low = x = quarter(half(x))
        for level in deeper:
            x = level(x)
        x = blocks.resize(self.pyramid(x), low.shape[2:])
        x = self.decoder(torch.cat([x, self.low_level(low)], dim=1))
        return blocks.crop_to(blocks.resize(self.map(x), padded), size)
