"""The VNet that segments the tumours, with the paper's mechanisms as switches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kitslib.networks import blocks

GATES = {"concat": blocks.ConcatGate, "additive": blocks.AdditiveGate}


class EncoderLevel(nn.Module):
    """Halve, weigh channels, join the image of this scale, convolve with a residual sum, dilate."""

    def __init__(
        self, dims: int, channels: int, out: int, *, convs: int, norm: bool, image: int,
        multi_scale: bool, se: bool, dilations: Sequence[int] | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.down = blocks.DownUnit(dims, channels, out, norm=norm)
        self.se = blocks.SqueezeExcite(out) if se else nn.Identity()
        self.multi_scale = blocks.PyramidJoin(dims, image, out, norm=norm) if multi_scale else None
        self.stage = blocks.Level(dims, out, out, dilations=[1] * convs, kernel=5, norm=norm)
        self.hdc = nn.Identity()
        if dilations:
            self.hdc = blocks.HybridDilated(dims, out, dilations=dilations, norm=norm)

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
        self.up = blocks.UpUnit(dims, channels, skip, norm=norm)
        self.attention = GATES[gate](dims, skip, skip) if gate else None
        self.stage = blocks.Level(dims, 2 * skip, skip, dilations=[1] * convs, kernel=5, norm=norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        if self.attention is not None:
            skip = self.attention(skip, x)
        return x + self.stage(torch.cat([x, skip], dim=1))


class VNet(blocks.TumorNetwork):
    """Residual encoder and decoder of 5-wide convolutions.

    Input, output, `widths` and `norm` as in `UNet`; the original has no norm, without which short
    trainings do not converge. The mechanisms are off by default and leave the plain network's
    state-dict keys as they are: `multi_scale` joins the pooled image at every encoder level, `se`
    weighs the channels after every halving, `attention` replaces the skips by gates, `hdc` adds
    dilated layers to the encoder level `hdc_level` (0 is the full resolution, "bottom" the
    deepest); dilations 2, 2, 2 show gridding.
    Raises ValueError for options out of range and for a batch of another shape.
    Source: Milletari et al. 2016, arXiv 1606.04797.
    """

    def __init__(
        self, *, dims: Literal["2d", "2.5d", "3d"] = "2.5d", slices: int = 5, out_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 128, 256), norm: bool = False,
        multi_scale: bool = False, se: bool = False, attention: bool = False,
        attention_gate: Literal["concat", "additive"] = "concat", hdc: bool = False,
        hdc_level: int | Literal["bottom"] = "bottom",
        hdc_dilations: Sequence[int] = (2, 3, 5),
    ) -> None:  # fmt: skip
        bottom = len(widths) - 1
        super().__init__(dims, slices, widths, least=3, halvings=bottom)
        if attention_gate not in GATES:
            known = ", ".join(GATES)
            raise ValueError(f"attention_gate: expected one of {known}, got {attention_gate!r}")
        if hdc_level != "bottom" and hdc_level not in range(len(widths)):
            raise ValueError(f"hdc_level: expected 'bottom' or 0 to {bottom}, got {hdc_level!r}")
        dilated = {bottom if hdc_level == "bottom" else hdc_level: hdc_dilations} if hdc else {}
        gate = attention_gate if attention else None
        convs = [1, 2, *[3] * (bottom - 1)]
        axes, image = self.axes, self.in_channels

        self.stem = blocks.Level(axes, image, widths[0], dilations=[1], kernel=5, norm=norm)
        self.hdc = nn.Identity()
        if 0 in dilated:
            self.hdc = blocks.HybridDilated(axes, widths[0], dilations=hdc_dilations, norm=norm)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level in range(1, len(widths)):
            each = {"convs": convs[level], "norm": norm, "image": image, "multi_scale": multi_scale}
            each |= {"se": se, "dilations": dilated.get(level)}
            self.encoder.append(EncoderLevel(axes, widths[level - 1], widths[level], **each))
        for level in reversed(range(bottom)):
            each = {"convs": convs[level], "norm": norm, "gate": gate}
            self.decoder.append(DecoderLevel(axes, widths[level + 1], widths[level], **each))
        self.map = blocks.CONV[axes](widths[0], out_channels, 1)
        blocks.initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        image = self.padded(x)
        centre = self.in_channels // 2  # the slice that is broadcast over the channels of the sum
        x = self.hdc(self.stem(image) + image[:, centre : centre + 1])
        skips = []
        for level in self.encoder:
            skips.append(x)
            image = blocks.average_pool(image)
            x = level(x, image)
        for level in self.decoder:
            x = level(x, skips.pop())
        return blocks.crop_to(self.map(x), size)
