"""The U-Net that the paper compares its VNet with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from kitslib.networks.blocks import (
    CONV,
    MAX_POOL,
    Level,
    UpUnit,
    check_input,
    crop_to,
    initialise,
    input_layout,
    pad_to_multiple,
)
from kitslib.networks.cpu import join


class UNet(nn.Module):
    """Pairs of 3-wide convolutions, max pooling and skips by concatenation (Ronneberger et al. 2015, arXiv 1505.04597).

    Input, output and arguments as in `VNet`, without its mechanisms: (B, 1, H, W) in "2d", (B, slices, H, W) in
    "2.5d", (B, 1, D, H, W) in "3d", of any size; returns logits (B, out_channels, ...) on the same grid.
    Convolutions keep the size by padding. Raises `ValueError` for options out of range and for another shape.
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
        if len(widths) < 2:
            raise ValueError(
                f"widths: expected at least 2 channel counts, one per level, got {tuple(widths)}"
            )
        self.axes, self.in_channels = input_layout(dims, slices)
        self.divisor = 2 ** (len(widths) - 1)
        incoming = [self.in_channels, *widths[:-1]]
        upward = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (from, to), deepest first

        def pair(channels: int, out: int) -> Level:
            return Level(self.axes, channels, out, dilations=(1, 1), norm=norm)

        self.encoder = nn.ModuleList(
            pair(channels, out) for channels, out in zip(incoming, widths, strict=True)
        )
        self.pool = MAX_POOL[self.axes](2)
        self.up = nn.ModuleList(
            UpUnit(self.axes, channels, out, norm=norm) for channels, out in upward
        )
        self.decoder = nn.ModuleList(pair(2 * out, out) for _, out in upward)
        self.map = CONV[self.axes](widths[0], out_channels, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, dims=self.axes, channels=self.in_channels, network="UNet")
        size = x.shape[2:]
        first, *deeper = self.encoder
        x = first(pad_to_multiple(x, self.divisor))
        skips = []
        for stage in deeper:
            skips.append(x)
            x = stage(self.pool(x))
        for up, stage in zip(self.up, self.decoder, strict=True):
            x = stage(join(up(x), skips.pop()))
        return crop_to(self.map(x), size)
