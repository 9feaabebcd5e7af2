"""The grids of the study's two stages, and what each network sees of a scan."""

import math

import numpy as np

from kitslib import transforms
from kitslib.config import KidneyGrid, TumorGrid
from kitslib.transforms import (
    SNAP,
    Box,
    Grid,
    Mapping,
    TransformError,
    Triple,
    averaged,
    body_box,
    bounding_box,
    resample,
)

HALF = 127  # of the 255 that a share is counted in
LONGEST_MM, WIDEST_MM, ASPECT = 3000, 2000, 4  # of a scan: along z, a side, its two sides
MOST_VOXELS = 2**27  # of a stage's grid: more than a slab of 1 mm at 512² around any kidneys


def kidney_mapping(
    shape: tuple[int, int, int], spacing: Triple, grid: KidneyGrid, box: Box | None = None
) -> Mapping:
    """The first stage's grid for a scan of this shape and spacing; raises as `body_grid`.

    `box` is where the body is (default: everywhere); only a grid with a pixel in mm follows it.
    """
    native = body_grid(shape, spacing)
    if grid.spacing_xy is not None:
        part = native if box is None else native.crop(box)
        stage = part.respaced((grid.spacing_z, grid.spacing_xy, grid.spacing_xy))
        return _bounded(Mapping(native=native, stage=stage, within=box))
    factor = min(native.shape[1:]) / grid.matrix
    coarse = (grid.spacing_z, native.spacing[1] * factor, native.spacing[2] * factor)
    return _bounded(Mapping(native=native, stage=native.respaced(coarse)))


def _bounded(mapping: Mapping) -> Mapping:
    """The mapping, unless a wrong spacing made its grid too large to compute on."""
    if math.prod(mapping.stage.shape) > MOST_VOXELS:
        shape, native = " x ".join(map(str, mapping.stage.shape)), mapping.native
        words = f"{native.shape} voxels of {native.spacing} mm would need a grid of {shape}"
        raise TransformError(f"{words}, more than {MOST_VOXELS} voxels; is the spacing right?")
    return mapping


def body_grid(shape: tuple[int, int, int], spacing: Triple) -> Grid:
    """A scan's own grid; raises TransformError for one that no body has, before memory is used.

    Over 3 m long, over 2 m wide, or slices of which one side is over four times the other.
    """
    depth, *sides = (n * size for n, size in zip(shape, spacing, strict=True))
    if depth > LONGEST_MM or max(sides) > WIDEST_MM or max(sides) > ASPECT * min(sides):
        text = f"expected a scan of at most {LONGEST_MM} mm with slices of at most {WIDEST_MM} mm, "
        text += f"sides within 1:{ASPECT}, got {shape} voxels of {spacing} mm (z, y, x); "
        raise transforms.TransformError(f"{text}check the voxel size and which axis is which")
    return Grid(shape=shape, spacing=spacing)


def kidney_input(scan: np.ndarray, spacing: Triple, grid: KidneyGrid) -> tuple[np.ndarray, Mapping]:
    """What the kidney network sees: int16 HU (D, H, W) on the stage's grid, and the way back.

    A grid with a pixel in mm sees the body and nothing of the air around it: the same patient in
    another field of view is the same input.
    """
    box = None if grid.spacing_xy is None else body_box(scan, spacing)
    mapping = kidney_mapping(scan.shape, spacing, grid, box)
    return _on_stage(scan, mapping, box, grid.average), mapping


def _on_stage(scan: np.ndarray, mapping: Mapping, box: Box | None, average: bool) -> np.ndarray:
    """A scan, or of it only what lies in a box, on the stage's grid."""
    source = mapping.native
    if box is not None:
        scan, source = scan[box], source.crop(box)
    if average:
        scan, source = averaged(scan, source, mapping.stage)
    return resample(scan, source, mapping.stage)


def tumor_mapping(
    kidney_mask: np.ndarray, spacing: Triple, grid: TumorGrid, body: Box | None = None
) -> Mapping:
    """The second stage's grid around the kidneys of a native mask (values above 0).

    With `average` it begins where the box around the kidneys does, not where the scan does, so
    that air around the patient moves nothing; `body` is what the box is clamped to.
    """
    native = body_grid(kidney_mask.shape, spacing)
    pixel = native.spacing[1:] if grid.spacing_xy is None else (grid.spacing_xy, grid.spacing_xy)
    whole = native if grid.average else native.respaced((grid.spacing_z, *pixel))
    box = bounding_box(kidney_mask)
    parts = []
    for n, fine, coarse, part in zip(whole.shape, whole.spacing, native.spacing, box, strict=True):
        start = math.floor((part.start * coarse - grid.margin_mm) / fine + SNAP)
        stop = math.ceil((part.stop * coarse + grid.margin_mm) / fine - SNAP)
        parts.append(slice(max(0, start), min(n, stop)))
    if grid.region == "slice":
        parts[1:] = [slice(0, n) for n in whole.shape[1:]]
    if not grid.average:
        return _bounded(Mapping(native=native, stage=whole.crop(tuple(parts))))
    if body is not None:
        pairs = zip(parts, body, box, strict=True)
        parts = [_within(part, outer, kidney) for part, outer, kidney in pairs]
    stage = native.crop(tuple(parts)).respaced((grid.spacing_z, *pixel))
    return _bounded(Mapping(native=native, stage=stage, within=tuple(parts)))


def _within(part: slice, outer: slice, least: slice) -> slice:
    """A span cut to another one, but never to less than a third."""
    start = min(max(part.start, outer.start), least.start)
    return slice(start, max(min(part.stop, outer.stop), least.stop))


def tumor_input(
    imaging: np.ndarray, kidney_mask: np.ndarray, spacing: Triple, grid: TumorGrid
) -> tuple[np.ndarray, np.ndarray, Mapping]:
    """What the tumour network sees: int16 HU and the grown kidney mask (uint8 0/1), stage's grid.

    imaging: int16 (D, H, W). kidney_mask: the same shape, true or predicted, above 0 in the kidney.
    HU outside the mask stay: `hide_outside` removes them once the HU window is known. With
    `masking` "before" the scan is multiplied by the grown mask first, so that HU outside are 0 and
    blend with the kidney's at its edge; nothing is left to hide, and the mask is all ones.
    """
    if imaging.shape != kidney_mask.shape:
        text = f"imaging is {imaging.shape} but the kidney mask {kidney_mask.shape}"
        raise transforms.TransformError(f"tumor_input: {text}")
    body = body_box(imaging, spacing) if grid.average else None
    mapping = tumor_mapping(kidney_mask, spacing, grid, body)
    if grid.masking == "before":
        grown = transforms.dilate(kidney_mask, spacing, grid.mask_dilation_mm)
        masked = resample(imaging * grown, mapping.native, mapping.stage)
        return masked, np.ones(mapping.stage.shape, np.uint8), mapping
    mask = (stage_labels(kidney_mask, mapping) > 0).astype(np.uint8)
    mask = transforms.dilate(mask, mapping.stage.spacing, grid.mask_dilation_mm)
    box = mapping.box if grid.average else None
    return _on_stage(imaging, mapping, box, grid.average), mask, mapping


def stage_labels(labels: np.ndarray, mapping: Mapping) -> np.ndarray:
    """Native labels on the stage grid, uint8: where at least half of a voxel is labelled.

    There the label with the largest share, by linear interpolation. The nearest neighbour would
    move labels by half a pixel at a ratio of 2, as from 512² to 256².
    """
    found = _share(labels > 0, mapping) >= HALF
    out, most = found.astype(np.uint8), np.zeros(found.shape, np.uint8)
    present: set[int] = set()
    for plane in labels:
        present.update(np.flatnonzero(np.bincount(plane.ravel())).tolist())
    values = sorted(present - {0})
    if len(values) < 2:
        return out * np.uint8(values[0] if values else 0)
    for value in values:
        share = _share(labels == value, mapping)
        larger = found & (share > most)
        out[larger], most[larger] = value, share[larger]
    return out


def _share(where: np.ndarray, mapping: Mapping) -> np.ndarray:
    """How much of each voxel of the stage grid a native mask fills, uint8 0 to 255."""
    shares = where.view(np.uint8)
    shares *= 255  # in place: scans may be tall
    return resample(shares, mapping.native, mapping.stage)
