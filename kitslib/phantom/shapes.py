"""Soft-edged geometry in mm: sampling grids, smooth random fields, and signed distances of shapes.

Patient coordinates are (z, y, x) in mm: z grows caudally, y to the back, x to the patient's left;
the origin is the centre of the spine at mid-kidney level. Image axes are the same, turned in plane
by the patient's rotation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

ORIGIN = np.zeros(3)
SLAB_VOXELS = 3_000_000  # bounds the temporaries of one slab to some tens of MB
Triple = tuple[float, float, float]  # (z, y, x)
Box = tuple[slice, slice, slice]
Axes = tuple[np.ndarray, np.ndarray, np.ndarray]  # positions along z, y and x, 1-D


@dataclass(frozen=True)
class Grid:
    """Sampling grid of a scan: (D, H, W), spacing in mm, origin in voxels, rotation in radians."""

    shape: tuple[int, int, int]
    spacing: Triple
    origin: Triple
    angle: float = 0.0

    def mm(self, axis: int, index: np.ndarray) -> np.ndarray:
        """Positions in mm of voxel indices along an image axis, float32."""
        return ((index - self.origin[axis]) * self.spacing[axis]).astype(np.float32)

    @cached_property
    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Image y in mm of every row, image x of every column."""
        return self.mm(1, np.arange(self.shape[1])), self.mm(2, np.arange(self.shape[2]))

    def to_image(self, y: float, x: float) -> tuple[float, float]:
        """Turn patient (y, x) mm into image (y, x) mm."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return c * y + s * x, -s * y + c * x

    @cached_property
    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """Patient y and x in mm of every pixel, each (H, W) float32."""
        y, x = np.ix_(*self.axes)
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return c * y - s * x, s * y + c * x

    def around(self, low: np.ndarray, high: np.ndarray) -> Grid:
        """The part of the grid that holds a box of patient coordinates (z, y, x in mm)."""
        corners = [self.to_image(y, x) for y in (low[1], high[1]) for x in (low[2], high[2])]
        first = np.array([low[0], *np.min(corners, axis=0)]) / self.spacing + self.origin
        last = np.array([high[0], *np.max(corners, axis=0)]) / self.spacing + self.origin
        start = np.clip(np.floor(first), 0, np.array(self.shape) - 1).astype(int)
        stop = np.clip(np.ceil(last) + 1, start + 1, self.shape).astype(int)
        origin = tuple((np.array(self.origin) - start).tolist())
        return replace(self, shape=tuple((stop - start).tolist()), origin=origin)

    def slabs(self, thinnest: float) -> Iterator[Slab]:
        """Cover the volume with slabs; slices are split into sub-slices of up to `thinnest` mm."""
        subs = max(1, int(np.ceil(self.spacing[0] / thinnest - 1e-6)))
        depth = max(1, SLAB_VOXELS // (self.shape[1] * self.shape[2] * subs))
        for start in range(0, self.shape[0], depth):
            yield Slab(self, start, min(start + depth, self.shape[0]), subs)


@dataclass(frozen=True)
class Region:
    """Part of a slab: its box there, patient coordinates (broadcastable) and image axes in mm."""

    box: Box
    z: np.ndarray  # (n, 1, 1)
    y: np.ndarray  # (1, h, w)
    x: np.ndarray  # (1, h, w)
    axes: Axes  # of the image, of the voxel centres


def lattice(center: np.ndarray, reach: np.ndarray, step: float) -> Region:
    """A coarse region around a patient point for measuring shapes, unrotated, `step` mm apart."""
    low, high = center - reach, center + reach + step
    axes = tuple(np.arange(low[a], high[a], step, dtype=np.float32) for a in range(3))
    return Region(np.s_[:, :, :], *np.ix_(*axes), axes)


@dataclass(frozen=True)
class Slab:
    """Slices start..stop of a grid, each sampled at `subs` depths."""

    grid: Grid
    start: int
    stop: int
    subs: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        return (self.stop - self.start, *self.grid.shape[1:])

    @property
    def edge(self) -> float:
        """Width in mm over which an edge goes from one tissue to the next."""
        return float(np.hypot(self.grid.spacing[1], 0.5 * self.grid.spacing[0] / self.subs))

    def single(self) -> Slab:
        """The same slices sampled once each, at their centres."""
        return replace(self, subs=1)

    @cached_property
    def depths(self) -> np.ndarray:
        """Patient z in mm of every sub-slice, float32."""
        n = np.arange(self.shape[0] * self.subs)
        return self.grid.mm(0, self.start + (n + 0.5) / self.subs - 0.5)

    def around(self, center: np.ndarray, reach: np.ndarray) -> Region | None:
        """The region within `reach` mm (patient z, y, x) of a point, or None where it is empty."""
        if center[0] + reach[0] < self.depths[0] or center[0] - reach[0] > self.depths[-1]:
            return None  # most solids miss most slabs
        c, s = abs(np.cos(self.grid.angle)), abs(np.sin(self.grid.angle))
        middle = np.array([center[0], *self.grid.to_image(center[1], center[2])])
        half = np.array([reach[0], c * reach[1] + s * reach[2], s * reach[1] + c * reach[2]])
        return self.between(middle - half, middle + half)

    def between(self, low: np.ndarray, high: np.ndarray) -> Region | None:
        """The region between two corners (image z, y, x in mm), or None where it is empty."""
        box = [slice(*np.searchsorted(self.depths, (low[0], high[0])).tolist())]
        for axis in (1, 2):
            spacing, origin = self.grid.spacing[axis], self.grid.origin[axis]
            start = max(int(np.floor(low[axis] / spacing + origin)), 0)
            stop = int(np.ceil(high[axis] / spacing + origin)) + 1
            box.append(slice(start, min(stop, self.grid.shape[axis])))
        empty = any(span.start >= span.stop for span in box)
        return None if empty else self.crop(*box)

    def crop(self, slices: slice, rows: slice, cols: slice) -> Region:
        """The region of the given sub-slices, rows and columns."""
        z, (y, x) = self.depths[slices], (axis[None, rows, cols] for axis in self.grid.plane)
        axes = z, self.grid.axes[0][rows], self.grid.axes[1][cols]
        return Region((slices, rows, cols), z[:, None, None], y, x, axes)


def _basis(at: np.ndarray, count: int, periodic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights (4, n) of the cubic B-splines that reach each position (in cells)."""
    cell = np.floor(at)
    t = (at - cell).astype(np.float32)
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * t * (t * (1 - t) + 1) + 1, t**3])
    index = cell.astype(np.int64) + np.arange(-1, 3)[:, None]
    index = index % count if periodic else np.clip(index, 0, count - 1)
    return index, (weights / 6).astype(np.float32)


def spline(
    coefficients: np.ndarray, origin: Triple, cell: Triple, axes: Axes, *, periodic: bool
) -> np.ndarray:
    """Evaluate a cubic B-spline volume on the product of three axes.

    Coefficient (i, j, k) stands at origin + (i, j, k) * cell. Only element-wise products are used:
    the bits do not depend on a linear-algebra library or its threads.
    """
    steps = [(axes[axis] - origin[axis]) / cell[axis] for axis in range(3)]
    bases = [_basis(at, n, periodic) for at, n in zip(steps, coefficients.shape, strict=True)]
    index, weight = bases[0]
    planes, inverse = np.unique(index, return_inverse=True)
    bases[0] = (inverse.reshape(index.shape), weight)
    value = coefficients[planes]  # the planes that a position reaches
    for axis in (2, 1, 0):
        index, weight = bases[axis]
        weight = weight.reshape(4, *np.where(np.arange(3) == axis, -1, 1))
        total = np.take(value, index[0], axis) * weight[0]
        for k in (1, 2, 3):
            total += np.take(value, index[k], axis) * weight[k]
        value = total
    return value


@dataclass(frozen=True)
class Field:
    """Endless smooth random field: zero mean, about unit variance, grain of `cell` mm."""

    coefficients: np.ndarray
    cell: float

    def __call__(self, region: Region) -> np.ndarray:
        """Values (n, h, w) on a region."""
        return spline(self.coefficients, (0, 0, 0), (self.cell,) * 3, region.axes, periodic=True)


def draw_field(rng: Generator, cell: float, size: int = 8) -> Field:
    """Draw a field that repeats after `size` cells."""
    return Field(3 * rng.standard_normal((size,) * 3, dtype=np.float32), cell)


def rotation(z: float = 0.0, y: float = 0.0, x: float = 0.0) -> np.ndarray:
    """Rotation matrix (3, 3) in (z, y, x) coordinates from angles in radians about the axes."""
    matrix = np.eye(3)
    for i, j, angle in ((1, 2, z), (0, 2, y), (0, 1, x)):
        turn, c, s = np.eye(3), np.cos(angle), np.sin(angle)
        turn[np.ix_([i, j], [i, j])] = (c, -s), (s, c)
        matrix = turn @ matrix
    return matrix


@dataclass
class Ellipsoid:
    """Ellipsoid with optional lumps: centre and radii in mm, axes as columns of `turn`."""

    center: ArrayLike
    radii: ArrayLike
    turn: np.ndarray | None = None
    lumps: Field | None = None
    lump_mm: float = 0.0

    def __post_init__(self) -> None:
        self.center, self.radii = np.array(self.center, float), np.array(self.radii, float)
        turn = np.eye(3) if self.turn is None else self.turn
        # half extents (z, y, x) in mm of the bounding box, lumps included
        self.reach = np.sqrt(((turn * self.radii) ** 2).sum(1)) + 3 * self.lump_mm + 3

    def scaled(self, scale: float, about: np.ndarray = ORIGIN) -> Ellipsoid:
        """The ellipsoid scaled about a point; the lumps keep their height."""
        center = about + (self.center - about) * scale
        return replace(self, center=center, radii=self.radii * scale)

    def distance(self, region: Region) -> np.ndarray:
        """Approximate signed distance in mm, negative inside."""
        smooth = self.smooth_distance(region)
        return smooth if self.lumps is None else smooth + self.lump_mm * self.lumps(region)

    def smooth_distance(self, region: Region) -> np.ndarray:
        """Distance without the lumps."""
        z, y, x = self.center.astype(np.float32)
        d = [region.z - z, region.y - y, region.x - x]
        if self.turn is not None:
            m = self.turn.astype(np.float32)
            d = [m[1, i] * d[1] + m[2, i] * d[2] + m[0, i] * d[0] for i in range(3)]
        k2, g2 = np.float32(0), np.float32(1e-12)
        for part, radius in zip(d, self.radii, strict=True):
            square = np.square(part / np.float32(radius))
            k2, g2 = k2 + square, g2 + square / np.float32(radius**2)
        k = np.sqrt(k2)
        return k * (k - 1) / np.sqrt(g2)


@dataclass
class Capsule:
    """Tube between two points (z, y, x) in mm with a radius at either end."""

    a: ArrayLike
    b: ArrayLike
    radius: tuple[float, float]

    def __post_init__(self) -> None:
        self.a, self.b = np.array(self.a, float), np.array(self.b, float)
        self.center = (self.a + self.b) / 2
        self.reach = np.abs(self.b - self.a) / 2 + max(self.radius) + 2  # mm, half extents

    def distance(self, region: Region) -> np.ndarray:
        """Signed distance in mm, negative inside."""
        a, v = self.a.astype(np.float32), (self.b - self.a).astype(np.float32)
        dz, dy, dx = region.z - a[0], region.y - a[1], region.x - a[2]
        t = np.clip((dz * v[0] + (dy * v[1] + dx * v[2])) / max(float(v @ v), 1e-6), 0, 1)
        gap = np.square(dz - t * v[0]) + np.square(dy - t * v[1]) + np.square(dx - t * v[2])
        r0, r1 = self.radius
        return np.sqrt(gap) - np.float32(r0) - t * np.float32(r1 - r0)


def mm(z: float, y: float, x: float) -> np.ndarray:
    """A point or a step in patient coordinates."""
    return np.array([z, y, x], float)


def cover(distance: np.ndarray, edge: float) -> np.ndarray:
    """Share of a voxel inside a surface, from the distance in mm and the edge width in mm."""
    return np.clip(0.5 - distance * np.float32(1 / edge), 0, 1)


def blend(target: np.ndarray, share: np.ndarray, value: np.ndarray | float) -> None:
    """Replace a share of every voxel of `target`, in place."""
    target += share * (value - target)


@dataclass(frozen=True)
class Solid:
    """A shape filled with one tissue; `confined` keeps it inside the abdomen."""

    shape: Ellipsoid | Capsule
    hu: float
    texture: Field | None = None
    amplitude: float = 0.0  # HU, of the texture
    bubbles: float = 0.0  # HU lost where the texture is high
    level: float | None = None  # patient y in mm above (in front of) which there is gas
    confined: bool = True

    def paint(self, canvas: np.ndarray, slab: Slab, depth: np.ndarray) -> None:
        """Blend the solid into a sub-slice canvas; depth in the abdomen (mm) is one per slice."""
        region = slab.around(self.shape.center, self.shape.reach)
        if region is None:
            return
        distance = self.shape.distance(region)
        if self.confined:
            slices, rows, cols = region.box
            slices = np.arange(slices.start, slices.stop) // slab.subs
            distance = np.maximum(distance, -depth[slices, rows, cols])
        value: np.ndarray | float = self.hu
        if self.texture is not None:
            grain = self.texture(region)
            value = self.hu + self.amplitude * grain
            if self.bubbles > 0:
                value -= self.bubbles * np.clip(grain * 1.5 - 0.6, 0, 1)
        if self.level is not None:
            value = value + np.clip((self.level - region.y) / slab.edge, 0, 1) * (-930 - value)
        blend(canvas[region.box], cover(distance, slab.edge), value)


def chain(
    points: np.ndarray, radii: Sequence[float], hu: float, texture: Field | None = None,
    amplitude: float = 0.0, confined: bool = True,
) -> list[Solid]:  # fmt: skip
    """Capsules along a polyline: points (n, 3) as (z, y, x) in mm and the radius at each."""
    tubes = [Capsule(*ends, r) for ends, r in zip(pairwise(points), pairwise(radii), strict=True)]
    return [Solid(tube, hu, texture, amplitude, confined=confined) for tube in tubes]
