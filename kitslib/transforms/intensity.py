"""HU as a network reads them, HU outside a mask, and mirrored volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kitslib.transforms.grids import TransformError


@dataclass(frozen=True, kw_only=True)
class HuWindow:
    """A reading of HU for a network: clip to [low, high], subtract shift, divide by scale.

    `per_slice`: each slice, the last two axes, is brought to mean 0 and standard deviation 1.
    """

    low: float
    high: float
    shift: float
    scale: float
    per_slice: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise TransformError(f"HuWindow.low must be below high, got {self.low} and {self.high}")
        if not self.scale > 0:
            raise TransformError(f"HuWindow.scale must be positive, got {self.scale}")

    def __call__(self, hu: Tensor) -> Tensor:
        """HU of any type and shape as the network reads them, float32, on the tensor's device."""
        values = hu.to(torch.float32, copy=True).clamp_(self.low, self.high)
        values.sub_(self.shift).div_(self.scale)
        if self.per_slice:
            values -= values.mean(dim=(-2, -1), keepdim=True)
            values /= values.std(dim=(-2, -1), keepdim=True).clamp(min=FLAT)
        return values


FLAT = 1e-3  # the least standard deviation that a slice is divided by
HU_WINDOWS: dict[str, HuWindow] = {
    "soft_tissue": HuWindow(low=-200, high=300, shift=50, scale=250),  # kidney stage: to [-1, 1]
    "ancestor": HuWindow(low=-200, high=200, shift=0, scale=200),
    # tumour stage: foreground statistics of KiTS19
    "foreground": HuWindow(low=-79, high=304, shift=101, scale=76.9),
    "literal": HuWindow(low=40, high=50, shift=45, scale=5),  # the paper's sentence as printed
    "centre45_width350": HuWindow(low=-130, high=220, shift=45, scale=175),
    "per_slice": HuWindow(low=-79, high=304, shift=101, scale=76.9, per_slice=True),
}


def hide_outside(imaging: np.ndarray, mask: np.ndarray, hu: HuWindow) -> np.ndarray:
    """HU with all outside the mask (0) at the HU window's lower end; the same shape and dtype."""
    return np.where(mask > 0, imaging, np.array(hu.low).astype(imaging.dtype))


def mirror(volume: np.ndarray, how: Literal["sagittal", "central"]) -> np.ndarray:
    """A view mirrored left to right ("sagittal") or through its centre ("central"); its inverse."""
    axes = {"sagittal": -1, "central": (-3, -2, -1)}
    if how not in axes:
        raise TransformError(f'mirror knows "sagittal" and "central", got {how!r}')
    return np.flip(volume, axes[how])
