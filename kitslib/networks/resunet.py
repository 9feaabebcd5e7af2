"""The 3D residual U-Net with four output maps that segments the kidneys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kitslib.networks import blocks


class ResUNet3D(blocks.AnySize):
    """Four encoder and four decoder levels with residual sums and one map layer per decoder level.

    Input (B, in_channels, D, H, W) of any size. Returns logits (B, out_channels, D, H, W): in
    training with `deep_supervision` a tuple of four, coarsest first; otherwise the finest alone.
    With the default arguments it has 9,498,260 parameters. What nothing would train is left out:
    with `residual=False`, which removes the sums, the layer that fits the deepest shortcut to its
    sum; without `deep_supervision` the three coarse map layers. `norm` adds instance norm, which
    trains in fewer steps. Raises ValueError for another number of axes or channels.
    Source: the paper, section 2.1, in the form of its LiTS 2018 ancestor.
    """

    def __init__(
        self, *, in_channels: int = 1, out_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 128, 256), norm: bool = False, dropout: float = 0.3,
        residual: bool = True, deep_supervision: bool = True,
    ) -> None:  # fmt: skip
        if len(widths) != 5:
            raise ValueError(f"widths: expected 5 channel counts, got {tuple(widths)}")
        w1, w2, w3, w4, w5 = widths
        super().__init__(3, in_channels, divisor=8)
        self.residual, self.deep_supervision = residual, deep_supervision
        self.dropout = nn.Dropout(dropout)

        self.encode1 = blocks.Level(3, in_channels, w1, dilations=(1, 1), norm=norm)
        self.down1 = blocks.DownUnit(3, w1, w2, norm=norm)
        self.encode2 = blocks.Level(3, w2, w2, dilations=(1, 1, 1), norm=norm)
        self.down2 = blocks.DownUnit(3, w2, w3, norm=norm)
        self.encode3 = blocks.Level(3, w3, w3, dilations=(1, 2, 4), norm=norm)
        self.down3 = blocks.DownUnit(3, w3, w4, norm=norm)
        self.encode4 = blocks.Level(3, w4, w4, dilations=(3, 4, 5), norm=norm)

        self.bottom = blocks.ConvUnit(3, w4, w5, norm=norm) if residual else nn.Identity()
        self.decode1 = blocks.Level(3, w4, w5, dilations=(1, 1, 1), norm=norm)
        self.up1 = blocks.UpUnit(3, w5, w4, norm=norm)
        self.decode2 = blocks.Level(3, w4 + w3, w4, dilations=(1, 1, 1), norm=norm)
        self.up2 = blocks.UpUnit(3, w4, w3, norm=norm)
        self.decode3 = blocks.Level(3, w3 + w2, w3, dilations=(1, 1, 1), norm=norm)
        self.up3 = blocks.UpUnit(3, w3, w2, norm=norm)
        self.decode4 = blocks.Level(3, w2 + w1, w2, dilations=(1, 1), norm=norm)

        if deep_supervision:
            self.map1 = blocks.CONV[3](w5, out_channels, 1)
            self.map2 = blocks.CONV[3](w4, out_channels, 1)
            self.map3 = blocks.CONV[3](w3, out_channels, 1)
        self.map4 = blocks.CONV[3](w2, out_channels, 1)
        blocks.initialise(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.training and self.deep_supervision:
            return self.maps(x)
        return blocks.crop_to(self.map4(self._levels(x)[-1]), x.shape[2:])

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the logits of the four maps at the input's size, coarsest first, in any mode.

        Raises ValueError for a network without deep supervision.
        """
        if not self.deep_supervision:
            raise ValueError(
                "ResUNet3D: a network without deep supervision has its finest map alone"
            )
        level1, level2, level3, level4 = self._levels(x)
        whole, size = level4.shape[2:], x.shape[2:]
        return (
            blocks.crop_to(blocks.resize(self.map1(level1), whole), size),
            blocks.crop_to(blocks.resize(self.map2(level2), whole), size),
            blocks.crop_to(blocks.resize(self.map3(level3), whole), size),
            blocks.crop_to(self.map4(level4), size),
        )

    def _levels(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the four decoder levels give, coarsest first, for the padded input."""
        x = self.padded(x)
        skip1 = self._sum(self.encode1(x), x.mean(dim=1, keepdim=True))
        down = self.down1(skip1)
        skip2 = self.dropout(self._sum(self.encode2(down), down))
        down = self.down2(skip2)
        skip3 = self.dropout(self._sum(self.encode3(down), down))
        down = self.down3(skip3)
        deepest = self.dropout(self._sum(self.encode4(down), down))

        level1 = self.dropout(self._sum(self.decode1(deepest), self.bottom(deepest)))
        up = self.up1(level1)
        level2 = self.dropout(self._sum(self.decode2(torch.cat([up, skip3], dim=1)), up))
        up = self.up2(level2)
        level3 = self.dropout(self._sum(self.decode3(torch.cat([up, skip2], dim=1)), up))
        up = self.up3(level3)
        level4 = self._sum(self.decode4(torch.cat([up, skip1], dim=1)), up)
        return level1, level2, level3, level4

    def _sum(self, x: Tensor, shortcut: Tensor) -> Tensor:
        if not self.residual:
            return x
        return x + shortcut.to(x.dtype)  # the float32 input would make the sum float32
