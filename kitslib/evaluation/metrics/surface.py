"""Distances between the surfaces of two masks: surface Dice and HD95 in millimetres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

NAN = float("nan")
Spacing = tuple[float, float, float]
Corner = tuple[int, int, int]
Box = tuple[slice, ...]

# Marching cubes: the triangles, as area vectors (z, y, x) in eighths, that cut an edge-connected
# group of corners off a unit cube. All others are these six turned or mirrored, or side by side.
CUT_OFF: dict[tuple[Corner, ...], list[Corner]] = {
    ((0, 0, 0),): [(1, 1, 1)],
    ((0, 0, 0), (0, 0, 1)): [(2, 2, 0), (2, 2, 0)],
    ((0, 0, 0), (0, 0, 1), (0, 1, 0)): [(4, 0, 0), (2, 2, 2), (1, 1, 1)],
    ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)): [(4, 0, 0), (4, 0, 0)],
    ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)): [(2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1)],
    ((0, 1, 1), (1, 1, 1), (1, 1, 0), (1, 0, 0)): [(0, 2, 2), (2, 0, 2), (1, 1, 1), (3, 3, 3)],
}


class ScoreError(ValueError):
    """Two masks, label maps or spacings that cannot be scored against each other."""


@dataclass(frozen=True)
class SurfaceDistances:
    """For every surface element of two masks its area in mm² and its distance to the other one.

    Arrays of one dimension; distances in mm are infinite where the other mask is empty.
    """

    pred_mm: np.ndarray
    pred_area: np.ndarray
    truth_mm: np.ndarray
    truth_area: np.ndarray

    def dice(self, tolerance_mm: float, empty: float = NAN) -> float:
        """Return the surface Dice: the share of both areas within a tolerance of the other surface.

        `empty` is the value where both masks are empty. Source: Nikolov et al., arXiv 1809.04430.
        """
        total = self.pred_area.sum() + self.truth_area.sum()
        pred_near = self.pred_area[self.pred_mm <= tolerance_mm].sum()
        truth_near = self.truth_area[self.truth_mm <= tolerance_mm].sum()
        return float((pred_near + truth_near) / total) if total else empty

    def hd95_mm(self) -> float:
        """Return the 95th percentile of the distance by area, the larger direction; NaN: empty."""
        if self.pred_mm.size == 0 or self.truth_mm.size == 0:
            return NAN
        sides = (self.pred_mm, self.pred_area), (self.truth_mm, self.truth_area)
        return max(_area_percentile(*side) for side in sides)


def surface_distances(pred: np.ndarray, truth: np.ndarray, spacing: Spacing) -> SurfaceDistances:
    """Return the distance from each surface element of one mask to the nearest of the other.

    pred, truth: bool (D, H, W); spacing (z, y, x) in mm. A surface element is a 2×2×2
    neighbourhood that holds both values; its area is that of the marching-cubes triangles. Raises
    ScoreError on unequal shapes or a bad spacing. Source: Nikolov et al., arXiv 1809.04430, whose
    definition KiTS23 uses.
    """
    check_masks(pred, truth)
    spacing, box = check_spacing(spacing), joint_box(pred, truth)
    areas = _element_areas(spacing)
    pred_at, pred_codes = _elements(pred[box])
    truth_at, truth_codes = _elements(truth[box])
    shape = tuple(length + 1 for length in pred[box].shape)
    pred_mm = _nearest_mm(pred_at, truth_at, shape, spacing)
    truth_mm = _nearest_mm(truth_at, pred_at, shape, spacing)
    return SurfaceDistances(pred_mm, areas[pred_codes], truth_mm, areas[truth_codes])


def joint_box(pred: np.ndarray, truth: np.ndarray) -> Box:
    """Return the smallest box around all that is not 0 in either array, empty where nothing is."""
    (box,) = ndimage.find_objects(np.logical_or(pred, truth).view(np.uint8), max_label=1)
    return box or (slice(0, 0),) * 3


def check_masks(pred: np.ndarray, truth: np.ndarray) -> None:
    """Raise ScoreError unless both are volumes (D, H, W) of one shape."""
    if pred.ndim != 3 or pred.shape != truth.shape:
        got = f"prediction {pred.shape} and truth {truth.shape}"
        fix = "bring the prediction back to the truth's own geometry before scoring"
        raise ScoreError(f"{got} must be volumes (D, H, W) on one grid: {fix}")


def check_spacing(spacing: Spacing) -> Spacing:
    """Return the spacing as floats; ScoreError unless it is three finite positive lengths in mm."""
    values = tuple(map(float, spacing))
    if len(values) != 3 or not np.isfinite(values).all() or min(values) <= 0:
        raise ScoreError(f"spacing must be three positive lengths (z, y, x) in mm, got {values}")
    return values


def _elements(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the 8 voxels around a corner differ: flat positions in (D+1, H+1, W+1), and codes.

    A code's bits are those voxels, the first (lowest z, y, x) being bit 7. Slice by slice, to
    stay in the processor's cache.
    """
    above, positions, codes = 0, [], []
    for z, plane in enumerate(np.pad(mask, 1).astype(np.uint8)[1:]):
        pairs = plane[:, 1:] | plane[:, :-1] << 1
        below = pairs[1:] | pairs[:-1] << 2
        code = (below | above << 4).ravel()
        at = np.flatnonzero((code != 0) & (code != 255))
        positions.append(at + z * code.size)
        codes.append(code[at])
        above = below
    return np.concatenate(positions), np.concatenate(codes)


def _nearest_mm(
    points: np.ndarray, targets: np.ndarray, shape: tuple[int, ...], spacing: Spacing
) -> np.ndarray:
    """Distance in mm of each point to its nearest target; both are sorted flat indices."""
    distances = np.zeros(points.size)
    if targets.size == 0:
        return distances + np.inf
    apart = np.flatnonzero(~np.isin(points, targets, assume_unique=True))
    scale = np.asarray(spacing)
    grid = np.stack(np.unravel_index(targets, shape), axis=1)
    start = np.stack(np.unravel_index(points[apart], shape), axis=1)
    tree = cKDTree(grid * scale, balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(start * scale, workers=2)
    # from whole steps, so that a distance that equals the tolerance on paper also does so here
    distances[apart] = np.sqrt((((start - grid[nearest]) * scale) ** 2).sum(axis=1))
    return distances


def _area_percentile(distances: np.ndarray, areas: np.ndarray) -> float:
    """The smallest distance that at least 95 % of the area keeps."""
    order = np.argsort(distances)
    reached = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order[min(np.searchsorted(reached, 0.95), order.size - 1)]])


def _element_areas(spacing: Spacing) -> np.ndarray:
    """Surface area in mm² of each of the 256 neighbourhoods, float64 (256,)."""
    z, y, x = spacing
    scale = np.array([y * x, z * x, z * y])
    return np.array([np.linalg.norm(triangles * scale, axis=1).sum() for triangles in _triangles()])


@cache
def _triangles() -> tuple[np.ndarray, ...]:
    """Area vectors (triangles, 3) in a unit cube for each of the 256 neighbourhoods.

    The fewer corners (inside or outside) are the ones cut off, group by group. Source: marching
    cubes, Lorensen and Cline 1987, which settles ambiguous faces by cutting off the fewer corners.
    """
    cube = list(product((0, 1), repeat=3))
    shapes = {}  # CUT_OFF in all 48 orientations of the cube
    turns = list(product(permutations(range(3)), cube))
    for (corners, vectors), ((a, b, c), flip) in product(CUT_OFF.items(), turns):
        turned = frozenset((p[a] ^ flip[0], p[b] ^ flip[1], p[c] ^ flip[2]) for p in corners)
        shapes[turned] = [(v[a], v[b], v[c]) for v in vectors]
    table = []
    for code in range(256):
        inside = {corner for bit, corner in enumerate(cube) if code >> (7 - bit) & 1}
        fewer = inside if len(inside) <= 4 else set(cube) - inside
        vectors = [vector for group in _groups(fewer) for vector in shapes[group]]
        table.append(np.array(vectors, dtype=float).reshape(-1, 3) / 8)
    return tuple(table)


def _groups(corners: set[Corner]) -> Iterator[frozenset[Corner]]:
    """The corners split into groups connected along cube edges."""
    left = set(corners)
    while left:
        group = [left.pop()]
        for corner in group:  # grows on the way
            near = {other for other in left if np.abs(np.subtract(other, corner)).sum() == 1}
            group += near
            left -= near
        yield frozenset(group)
