"""Where the kidneys are: boxes, slices, and masks grown by millimetres."""

from __future__ import annotations

import numpy as np

from kitslib.transforms.grids import SNAP, Box, TransformError, Triple


def bounding_box(mask: np.ndarray, margin: int = 0) -> Box:
    """The smallest box around everything above 0, grown by `margin` voxels and clamped to the volume."""
    occupied = np.flatnonzero([plane.any() for plane in mask])
    if not len(occupied):
        raise TransformError(
            f"the kidney mask of shape {mask.shape} is empty: there is no box around nothing"
        )
    first, last = int(occupied[0]), int(occupied[-1])
    shadow = np.bitwise_or.reduce(mask[first : last + 1], axis=0)
    rows, columns = (np.flatnonzero(shadow.any(axis=axis)) for axis in (1, 0))
    bounds = ((first, last), (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1])))
    return tuple(
        slice(max(0, low - margin), min(n, high + 1 + margin))
        for n, (low, high) in zip(mask.shape, bounds, strict=True)
    )


def kidney_slices(labels: np.ndarray, margin_slices: int = 0) -> tuple[int, int]:
    """First and one past the last slice with kidney (labels above 0), grown by a margin, clamped."""
    occupied = np.flatnonzero([plane.any() for plane in labels])
    if not len(occupied):
        raise TransformError(f"no slice of the {len(labels)} has kidney: the label map is empty")
    return max(0, int(occupied[0]) - margin_slices), min(
        len(labels), int(occupied[-1]) + 1 + margin_slices
    )


def dilate(mask: np.ndarray, spacing: Triple, radius_mm: float) -> np.ndarray:
    """Every voxel whose centre is within `radius_mm` of the centre of a voxel of the mask, as uint8 0/1.

    The squared distance is separable: it is minimised along x, then y, then z, each over the few voxels that
    the radius reaches, and only in the box that can change.
    """
    out = (mask > 0).astype(np.uint8)
    if radius_mm <= 0 or not out.any():
        return out
    reach = [int(radius_mm / s + SNAP) for s in spacing]
    box = tuple(
        slice(max(0, part.start - r), min(n, part.stop + r))
        for part, r, n in zip(bounding_box(out), reach, out.shape, strict=True)
    )
    region, limit = out[box], radius_mm**2 * (1 + SNAP)
    near = np.stack([_squared_distance(plane, spacing[1:], reach[1:]) for plane in region])
    for step in range(-reach[0], reach[0] + 1):
        to, of = _shifted(len(region), step)
        region[to] |= near[of] <= limit - (step * spacing[0]) ** 2
    return out


def _squared_distance(
    plane: np.ndarray, spacing: tuple[float, float], reach: list[int]
) -> np.ndarray:
    """Squared in-plane distance in mm² to the nearest voxel of the mask, infinite beyond the reach."""
    distance = np.where(plane > 0, np.float32(0), np.float32(np.inf))
    if not plane.any():
        return distance
    for axis, unit, most in ((1, spacing[1], reach[1]), (0, spacing[0], reach[0])):
        source, distance = distance, distance.copy()
        for step in (s for s in range(-most, most + 1) if s):
            to, of = _shifted(plane.shape[axis], step)
            to, of = ((slice(None), to), (slice(None), of)) if axis else (to, of)
            np.minimum(distance[to], source[of] + np.float32((step * unit) ** 2), out=distance[to])
    return distance


def _shifted(n: int, step: int) -> tuple[slice, slice]:
    """Where voxels go and where they come from when an axis of length n is shifted by `step`."""
    return slice(max(0, step), n + min(0, step)), slice(max(0, -step), n - max(0, step))
