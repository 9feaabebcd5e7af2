"""The grids of the study's two stages, and what each network sees of a scan."""

import math

import numpy as np

from kitslib import transforms
from kitslib.config import KidneyGrid, TumorGrid
from kitslib.transforms import SNAP, Grid, Mapping, Triple, bounding_box, resample


def kidney_mapping(shape: tuple[int, int, int], spacing: Triple, grid: KidneyGrid) -> Mapping:
    """The first stage's grid for a scan of this shape and spacing."""
    native = Grid(shape=shape, spacing=spacing)
    factor = min(native.shape[1:]) / grid.matrix
    coarse = (grid.spacing_z, native.spacing[1] * factor, native.spacing[2] * factor)
    return Mapping(native=native, stage=native.respaced(coarse))


def kidney_input(scan: np.ndarray, spacing: Triple, grid: KidneyGrid) -> tuple[np.ndarray, Mapping]:
    """What the kidney network sees: int16 HU (D, H, W) on the stage's grid, and the way back."""
    mapping = kidney_mapping(scan.shape, spacing, grid)
    return resample(scan, mapping.native, mapping.stage), mapping


def tumor_mapping(kidney_mask: np.ndarray, spacing: Triple, grid: TumorGrid) -> Mapping:
    """The second stage's grid around the kidneys of a native mask (values above 0)."""
    native = Grid(shape=kidney_mask.shape, spacing=spacing)
    pixel = native.spacing[1:] if grid.spacing_xy is None else (grid.spacing_xy, grid.spacing_xy)
    whole = native.respaced((grid.spacing_z, *pixel))
    box = bounding_box(kidney_mask)
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
    """What the tumour network sees: int16 HU and the grown kidney mask (uint8 0/1), stage's grid.

    imaging: int16 (D, H, W). kidney_mask: the same shape, true or predicted, above 0 in the kidney.
    HU outside the mask stay: `hide_outside` removes them once the HU window is known.
    """
    if imaging.shape != kidney_mask.shape:
        text = f"imaging is {imaging.shape} but the kidney mask {kidney_mask.shape}"
        raise transforms.TransformError(f"tumor_input: {text}")
    mapping = tumor_mapping(kidney_mask, spacing, grid)
    mask = (stage_labels(kidney_mask, mapping) > 0).astype(np.uint8)
    mask = transforms.dilate(mask, mapping.stage.spacing, grid.mask_dilation_mm)
    return resample(imaging, mapping.native, mapping.stage), mask, mapping


def stage_labels(labels: np.ndarray, mapping: Mapping) -> np.ndarray:
    """Native labels on the stage grid, nearest neighbour."""
    return resample(labels, mapping.native, mapping.stage, how="nearest")
