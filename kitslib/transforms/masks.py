"""Where the kidneys are: boxes, slices, and masks grown by millimetres."""

from __future__ import annotations

import cc3d
import numpy as np
from scipy import ndimage

from kitslib.transforms.grids import SNAP, Box, TransformError, Triple

BODY_HU = -300  # above: body, table and clothes; below: air and lung
BODY_CELL_MM = 4.0  # cells that the body is sought on
SHEET = np.ones((1, 3, 3), bool)  # cells; a table's and a blanket's sheets are thinner


def bounding_box(mask: np.ndarray, margin: int = 0) -> Box:
    """The smallest box around all above 0, grown by `margin` voxels and clamped to the volume.

    Raises TransformError for an empty mask.
    """
    occupied = np.flatnonzero([plane.any() for plane in mask])
    if not len(occupied):
        raise TransformError(
            f"the kidney mask of shape {mask.shape} is empty: there is no box around nothing"
        )
    shadow = np.bitwise_or.reduce(mask[occupied[0] : occupied[-1] + 1], axis=0)
    box = []
    for used in (occupied, np.flatnonzero(shadow.any(axis=1)), np.flatnonzero(shadow.any(axis=0))):
        size = mask.shape[len(box)]
        box.append(slice(max(0, int(used[0]) - margin), min(size, int(used[-1]) + 1 + margin)))
    return tuple(box)


def body_box(scan: np.ndarray, spacing: Triple) -> Box:
    """The box around the patient of a CT (D, H, W) in HU: no air around, no table.

    The largest connected piece of what is denser than lung, once thin sheets are gone, sought on
    cells of about 4 mm. The cells begin at the first voxel that is no air, so that air around the
    scan does not move the box. The whole scan where nothing is found.
    """
    occupied, shadow = [], np.zeros(scan.shape[1:], bool)
    for plane in scan:
        dense = plane > BODY_HU
        occupied.append(dense.any())
        shadow |= dense
    if not any(occupied):
        return tuple(slice(0, n) for n in scan.shape)
    used = (occupied, shadow.any(axis=1), shadow.any(axis=0))
    ends = [np.flatnonzero(line)[[0, -1]] for line in used]
    step = [max(1, int(BODY_CELL_MM / s + SNAP)) for s in spacing]
    cells = [slice(int(a), int(b) + 1, n) for (a, b), n in zip(ends, step, strict=True)]
    dense = scan[tuple(cells)] > BODY_HU
    pieces = cc3d.largest_k(_opened(dense), k=1, connectivity=6)
    if not pieces.any():
        pieces = dense
    box = []
    for part, cell, n, (_, last) in zip(bounding_box(pieces, 1), cells, step, ends, strict=True):
        stop = min(cell.start + part.stop * n, int(last) + 1)
        box.append(slice(cell.start + part.start * n, stop))
    return tuple(box)


def _opened(mask: np.ndarray) -> np.ndarray:
    """The mask without sheets thinner than three cells; holes, as lungs, are filled first."""
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    framed = np.pad(filled, ((0, 0), (1, 1), (1, 1)), mode="edge")  # the field may cut the body
    return ndimage.binary_opening(framed, SHEET)[:, 1:-1, 1:-1]


def kidney_slices(labels: np.ndarray, margin_slices: int = 0) -> tuple[int, int]:
    """First and one past the last slice with labels above 0, grown by a margin and clamped.

    Raises TransformError for an empty label map.
    """
    occupied = np.flatnonzero([plane.any() for plane in labels])
    if not len(occupied):
        raise TransformError(f"no slice of the {len(labels)} has kidney: the label map is empty")
    first, last = int(occupied[0]), int(occupied[-1])
    return max(0, first - margin_slices), min(len(labels), last + 1 + margin_slices)


def dilate(mask: np.ndarray, spacing: Triple, radius_mm: float) -> np.ndarray:
    """Every voxel with its centre within `radius_mm` of that of a mask's voxel, as uint8 0/1.

    The squared distance is separable: it is minimised along x, then y, then z, each over the few
    voxels that the radius reaches, and only in the box that can change.
    """
    out = (mask > 0).astype(np.uint8)
    if radius_mm <= 0 or not out.any():
        return out
    reach = [int(radius_mm / s + SNAP) for s in spacing]
    box = []
    for part, r, n in zip(bounding_box(out), reach, out.shape, strict=True):
        box.append(slice(max(0, part.start - r), min(n, part.stop + r)))
    region, limit = out[tuple(box)], radius_mm**2 * (1 + SNAP)
    near = np.stack([_squared_distance(plane, spacing[1:], reach[1:]) for plane in region])
    for step in range(-reach[0], reach[0] + 1):
        to, of = _shifted(len(region), step)
        region[to] |= near[of] <= limit - (step * spacing[0]) ** 2
    return out


def _squared_distance(
    plane: np.ndarray, spacing: tuple[float, float], reach: list[int]
) -> np.ndarray:
    """Squared in-plane distance in mm² to the nearest mask voxel, infinite beyond the reach."""
    distance = np.where(plane > 0, np.float32(0), np.float32(np.inf))
    if not plane.any():
        return distance
    for axis in (1, 0):
        source, distance = distance.swapaxes(0, axis), distance.copy()
        target = distance.swapaxes(0, axis)
        for step in range(-reach[axis], reach[axis] + 1):
            to, of = _shifted(len(source), step)
            away = np.float32((step * spacing[axis]) ** 2)
            np.minimum(target[to], source[of] + away, out=target[to])
    return distance


def _shifted(n: int, step: int) -> tuple[slice, slice]:
    """Where voxels go and where they come from when an axis of length n is shifted by `step`."""
    step = max(-n, min(n, step))
    return slice(max(0, step), n + min(0, step)), slice(max(0, -step), n - max(0, step))
