"""The grids of the study's two stages, and what each network sees of a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kitslib.transforms.grids import SNAP, Grid, Mapping, TransformError, Triple
from kitslib.transforms.masks import bounding_box, dilate
from kitslib.transforms.resampling import resample


@dataclass(frozen=True, kw_only=True)
class KidneyGrid:
    """The grid of the first stage: the whole scan at a coarse spacing.

    spacing_z: mm between slices. matrix: pixels on the shorter in-plane side, whose aspect is kept.
    margin_mm: how far above and below the kidneys slices are kept for training (100 mm = 50 slices of 2 mm).
    """

    spacing_z: float = 2.0
    matrix: int = 256
    margin_mm: float = 100.0

    def __post_init__(self) -> None:
        _check_number(self, "spacing_z", 0.1, 20)
        if isinstance(self.matrix, bool) or not isinstance(self.matrix, int) or not 16 <= self.matrix <= 1024:
            raise TransformError(f"KidneyGrid.matrix must be a whole number in 16..1024, got {self.matrix!r}")
        _check_number(self, "margin_mm", 0, 2000)


@dataclass(frozen=True, kw_only=True)
class TumorGrid:
    """The grid of the second stage: the kidneys' slices at a fine spacing.

    spacing_z: mm between slices. spacing_xy: mm between pixels, None for the scan's own.
    region: "box" crops to the kidneys on all axes, "slice" on the z axis only; margin_mm is left around them.
    mask_dilation_mm: by how much the kidney mask is grown before what is outside is hidden.
    """

    spacing_z: float = 1.0
    spacing_xy: float | None = None
    region: Literal["box", "slice"] = "box"
    margin_mm: float = 15.0
    mask_dilation_mm: float = 5.0

    def __post_init__(self) -> None:
        _check_number(self, "spacing_z", 0.1, 20)
        if self.spacing_xy is not None:
            _check_number(self, "spacing_xy", 0.1, 20)
        if self.region not in ("box", "slice"):
            raise TransformError(f'TumorGrid.region must be "box" or "slice", got {self.region!r}')
        _check_number(self, "margin_mm", 0, 2000)
        _check_number(self, "mask_dilation_mm", 0, 100)
        if self.mask_dilation_mm > self.margin_mm:
            raise TransformError(
                f"TumorGrid.margin_mm must be at least mask_dilation_mm, or the box would cut the mask; "
                f"got {self.margin_mm} < {self.mask_dilation_mm}"
            )


def _check_number(settings: KidneyGrid | TumorGrid, field: str, low: float, high: float) -> None:
    """Refuse a length outside its bounds; keep it as a float, so that 2 and 2.0 are one setting."""
    value = getattr(settings, field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise TransformError(f"{type(settings).__name__}.{field} must be in {low}..{high} mm, got {value!r}")
    object.__setattr__(settings, field, float(value))


def kidney_mapping(shape: tuple[int, int, int], spacing: Triple, grid: KidneyGrid) -> Mapping:
    """The first stage's grid for a scan of this shape and spacing."""
    native = Grid(shape=shape, spacing=spacing)
    factor = min(native.shape[1:]) / grid.matrix
    coarse = (grid.spacing_z, native.spacing[1] * factor, native.spacing[2] * factor)
    return Mapping(native=native, stage=native.respaced(coarse))


def kidney_input(imaging: np.ndarray, spacing: Triple, grid: KidneyGrid) -> tuple[np.ndarray, Mapping]:
    """What the kidney network sees of a scan: int16 HU (D, H, W) on the stage's grid, and the way back."""
    mapping = kidney_mapping(imaging.shape, spacing, grid)
    return resample(imaging, mapping.native, mapping.stage), mapping


def tumor_mapping(kidney_mask: np.ndarray, spacing: Triple, grid: TumorGrid) -> Mapping:
    """The second stage's grid around the kidneys of a native mask (every value above 0 is kidney)."""
    native = Grid(shape=kidney_mask.shape, spacing=spacing)
    box = bounding_box(kidney_mask)
    pixel = native.spacing[1:] if grid.spacing_xy is None else (grid.spacing_xy, grid.spacing_xy)
    whole = native.respaced((grid.spacing_z, *pixel))
    parts = []
    for n, fine, coarse, part in zip(whole.shape, whole.spacing, native.spacing, box, strict=True):
        start = math.floor((part.start * coarse - grid.margin_mm) / fine + SNAP)
        stop = math.ceil((part.stop * coarse + grid.margin_mm) / fine - SNAP)
        parts.append(slice(max(0, start), min(n, stop)))
    if grid.region == "slice":
        parts[1:] = [slice(0, n) for n in whole.shape[1:]]
    return Mapping(native=native, stage=whole.crop(tuple(parts)))


def tumor_input(
    imaging: np.ndarray, kidney_mask: np.ndarray, spacing: Triple, grid: TumorGrid
) -> tuple[np.ndarray, np.ndarray, Mapping]:
    """What the tumour network sees: int16 HU and the grown kidney mask (uint8 0/1) on the stage's grid.

    imaging: (D, H, W) int16. kidney_mask: the same shape, native grid, true or predicted; values above 0 are
    kidney. HU outside the mask are left as they are: `hide_outside` removes them once the window is known.
    """
    if imaging.shape != kidney_mask.shape:
        raise TransformError(f"tumor_input: imaging is {imaging.shape} but the kidney mask {kidney_mask.shape}")
    mapping = tumor_mapping(kidney_mask, spacing, grid)
    mask = (stage_labels(kidney_mask, mapping) > 0).astype(np.uint8)
    mask = dilate(mask, mapping.stage.spacing, grid.mask_dilation_mm)
    return resample(imaging, mapping.native, mapping.stage), mask, mapping


def stage_labels(labels: np.ndarray, mapping: Mapping) -> np.ndarray:
    """Native labels on the stage grid, nearest neighbour."""
    return resample(labels, mapping.native, mapping.stage, how="nearest")
