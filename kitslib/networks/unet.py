"""The U-Net that the paper compares its VNet with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from kitslib.networks.blocks import CONV, MAX_POOL, Level, TumorNetwork, UpUnit, crop_to, initialise


class UNet(TumorNetwork):
    """Pairs of 3-wide convolutions, max pooling and skips by concatenation.

    Input (B, 1, H, W) in "2d", (B, slices, H, W) in "2.5d", (B, 1, D, H, W) in "3d", of any size;
    returns logits (B, out_channels, ...) on the same grid, in 2.5D for the centre slice. `widths`
    are the channels of every level, `norm` adds instance norm. Convolutions keep the size.
    Raises ValueError for options out of range and for a batch of another shape.
    Source: Ronneberger et al. 2015, arXiv 1505.04597.
    """

    def __init__(
        self, *, dims: Literal["2d", "2.5d", "3d"] = "2.5d", slices: int = 5, out_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 128, 256), norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(dims, slices, widths, least=2, halvings=len(widths) - 1)
        self.encoder, self.pool = nn.ModuleList(), MAX_POOL[self.axes](2)
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        pair = partial(Level, self.axes, dilations=(1, 1), norm=norm)
        for channels, out in pairwise((self.in_channels, *widths)):
            self.encoder.append(pair(channels, out))
        for channels, out in pairwise(reversed(widths)):
            self.up.append(UpUnit(self.axes, channels, out, norm=norm))
            self.decoder.append(pair(2 * out, out))
        self.map = CONV[self.axes](widths[0], out_channels, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        first, *deeper = self.encoder
        x = first(self.padded(x))
        skips = []
        for level in deeper:
            skips.append(x)
            x = level(self.pool(x))
        for up, level in zip(self.up, self.decoder, strict=True):
            x = level(torch.cat([up(x), skips.pop()], dim=1))
        return crop_to(self.map(x), size)
