"""The rows of the ablation: each a network and the mechanisms that are on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from kitslib.config.checked import Checked, ConfigError, closest


@dataclass(frozen=True, kw_only=True)
class Arm(Checked):
    """One row of the ablation: a network and the mechanisms of the paper that are switched on."""

    name: str
    says: str  # what the arm adds, in words
    network: Literal["vnet", "unet", "deeplab"] = "vnet"
    dims: Literal["2d", "2.5d", "3d"] = "2.5d"
    multi_scale: bool = False
    se: bool = False
    attention: bool = False
    hdc: bool = False
    focal_dice: bool = False
    oversample: bool = False

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Names of the mechanisms that are on, in the paper's order."""
        return tuple(name for name in MECHANISMS if getattr(self, name))


MECHANISMS = ("multi_scale", "se", "attention", "hdc", "focal_dice", "oversample")

_BASELINE = Arm(name="baseline", says="2.5D VNet with soft Dice loss and uniform sampling")
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        _BASELINE,
        replace(
            _BASELINE,
            name="full",
            says="the paper's network: all six mechanisms on",
            **dict.fromkeys(MECHANISMS, True),
        ),
    )
}


def arm(name: str) -> Arm:
    """Return the arm of that name; an unknown one lists the right ones."""
    if name not in ARMS:
        raise ConfigError(f"arm: {name!r} is not a choice{closest(name, ARMS)}")
    return ARMS[name]
