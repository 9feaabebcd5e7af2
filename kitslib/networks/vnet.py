"""The VNet that segments the tumours (stage 2), in 2D, 2.5D and 3D, with the paper's mechanisms as switches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from kitslib.networks.blocks import (
    CONV,
    AdditiveGate,
    ConcatGate,
    DownUnit,
    HybridDilated,
    Level,
    PyramidJoin,
    SqueezeExcite,
    UpUnit,
    average_pool,
    check_input,
    crop_to,
    initialise,
    input_layout,
    pad_to_multiple,
)
from kitslib.networks.cpu import join

GATES = {"concat": ConcatGate, "additive": AdditiveGate}


class EncoderLevel(nn.Module):
    """Halve, weigh the channels, join the image of this scale, convolve with a residual sum, dilate."""

    def __init__(
        self,
        dims: int,
        channels: int,
        out: int,
        *,
        convs: int,
        norm: bool,
        image: int,
        multi_scale: bool,
        se: bool,
        dilations: Sequence[int] | None,
    ) -> None:
        super().__init__()
        self.down = DownUnit(dims, channels, out, norm=norm)
        self.se = SqueezeExcite(out) if se else nn.Identity()
        self.multi_scale = PyramidJoin(dims, image, out, norm=norm) if multi_scale else None
        self.stage = Level(dims, out, out, dilations=[1] * convs, kernel=5, norm=norm)
        self.hdc = (
            HybridDilated(dims, out, dilations=dilations, norm=norm) if dilations else nn.Identity()
        )

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        x = self.se(self.down(x))
        if self.multi_scale is not None:
            x = self.multi_scale(x, image)
        return self.hdc(x + self.stage(x))


class DecoderLevel(nn.Module):
    """Double, gate the skip, concatenate, convolve with a residual sum."""

    def __init__(
        self, dims: int, channels: int, skip: int, *, convs: int, norm: bool, gate: str | None
    ) -> None:
        super().__init__()
        self.up = UpUnit(dims, channels, skip, norm=norm)
        self.attention = GATES[gate](dims, skip, skip) if gate else None
        self.stage = Level(dims, 2 * skip, skip, dilations=[1] * convs, kernel=5, norm=norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        if self.attention is not None:
            skip = self.attention(skip, x)
        return x + self.stage(join(x, skip))


class VNet(nn.Module):
    """Residual encoder and decoder of 5-wide convolutions (Milletari et al. 2016, arXiv 1606.04797).

    Input (B, 1, H, W) in "2d", (B, slices, H, W) in "2.5d", (B, 1, D, H, W) in "3d", of any size; returns logits
    (B, out_channels, ...) on the same grid, in 2.5D for the centre slice.
    The mechanisms are off by default and leave the plain network's state-dict keys as they are:
    `multi_scale` joins the pooled image at every encoder level, `se` weighs the channels after every
    down-sampling, `attention` replaces the skips by gates, `hdc` adds dilated layers to the encoder level
    `hdc_level` (0 is the full resolution, "bottom" the deepest); dilations 2, 2, 2 show gridding.
    The original has no norm; `norm` adds instance norm, without which short trainings do not converge.
    Raises `ValueError` for options out of range and for a batch of another shape.
    """

    def __init__(
        self,
        *,
        dims: Literal["2d", "2.5d", "3d"] = "2.5d",
        slices: int = 5,
        out_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        norm: bool = False,
        multi_scale: bool = False,
        se: bool = False,
        attention: bool = False,
        attention_gate: Literal["concat", "additive"] = "concat",
        hdc: bool = False,
        hdc_level: int | Literal["bottom"] = "bottom",
        hdc_dilations: Sequence[int] = (2, 3, 5),
    ) -> None:
        super().__init__()
        _check_options(widths, attention_gate, hdc_level)
        axes, self.in_channels = input_layout(dims, slices)
        self.axes = axes
        self.divisor = 2 ** (len(widths) - 1)
        hdc_at = (len(widths) - 1 if hdc_level == "bottom" else hdc_level) if hdc else None
        convs = [1, 2, *[3] * (len(widths) - 2)]

        self.stem = Level(axes, self.in_channels, widths[0], dilations=[1], kernel=5, norm=norm)
        self.hdc = (
            HybridDilated(axes, widths[0], dilations=hdc_dilations, norm=norm)
            if hdc_at == 0
            else nn.Identity()
        )
        self.encoder = nn.ModuleList(
            EncoderLevel(
                axes,
                widths[level - 1],
                widths[level],
                convs=convs[level],
                norm=norm,
                image=self.in_channels,
                multi_scale=multi_scale,
                se=se,
                dilations=hdc_dilations if level == hdc_at else None,
            )
            for level in range(1, len(widths))
        )
        self.decoder = nn.ModuleList(
            DecoderLevel(
                axes,
                widths[level + 1],
                widths[level],
                convs=convs[level],
                norm=norm,
                gate=attention_gate if attention else None,
            )
            for level in reversed(range(len(widths) - 1))
        )
        self.map = CONV[axes](widths[0], out_channels, 1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, dims=self.axes, channels=self.in_channels, network="VNet")
        size = x.shape[2:]
        image = pad_to_multiple(x, self.divisor)

        predicted = (
            self.in_channels // 2
        )  # the centre slice, broadcast over the channels of the sum
        x = self.hdc(self.stem(image) + image[:, predicted : predicted + 1])
        skips = []
        for level in self.encoder:
            skips.append(x)
            image = average_pool(image)
            x = level(x, image)
        for level, skip in zip(self.decoder, reversed(skips), strict=True):
            x = level(x, skip)
        return crop_to(self.map(x), size)


def _check_options(widths: Sequence[int], attention_gate: str, hdc_level: int | str) -> None:
    if len(widths) < 3:
        raise ValueError(
            f"widths: expected at least 3 channel counts, one per level, got {tuple(widths)}"
        )
    if attention_gate not in GATES:
        raise ValueError(
            f"attention_gate: expected one of {', '.join(GATES)}, got {attention_gate!r}"
        )
    if hdc_level != "bottom" and hdc_level not in range(len(widths)):
        raise ValueError(
            f"hdc_level: expected 'bottom' or 0 to {len(widths) - 1}, got {hdc_level!r}"
        )
