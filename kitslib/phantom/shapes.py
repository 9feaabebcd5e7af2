"""Soft-edged geometry in millimetres: sampling grids, smooth random fields, and painters for solid shapes.

Patient coordinates are (z, y, x) in mm: z grows caudally, y to the back, x to the patient's left; the origin
is the centre of the spine at mid-kidney level. Image axes are the same, turned in plane by the patient's
rotation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SLAB_VOXELS = 3_000_000  # bounds the temporaries of one slab to some tens of MB


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Sampling grid of one scan: shape (D, H, W), spacing in mm, origin in voxels, rotation in radians."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    angle: float = 0.0

    def to_image(self, y: float, x: float) -> tuple[float, float]:
        """Turn patient (y, x) mm into image (y, x) mm."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return c * y + s * x, -s * y + c * x

    @cached_property
    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """Patient y and x in mm of every pixel, each (H, W) float32."""
        y = ((np.arange(self.shape[1]) - self.origin[1]) * self.spacing[1]).astype(np.float32)[
            :, None
        ]
        x = ((np.arange(self.shape[2]) - self.origin[2]) * self.spacing[2]).astype(np.float32)[
            None, :
        ]
        c, s = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return c * y - s * x, s * y + c * x

    def slabs(self, thinnest: float) -> Iterator[Slab]:
        """Cover the volume with slabs, their slices split into sub-slices no thicker than `thinnest` mm."""
        subs = max(1, int(np.ceil(self.spacing[0] / thinnest - 1e-6)))
        depth = max(1, SLAB_VOXELS // (self.shape[1] * self.shape[2] * subs))
        for start in range(0, self.shape[0], depth):
            yield Slab(grid=self, start=start, stop=min(start + depth, self.shape[0]), subs=subs)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Part of a slab: where it lies there, patient coordinates (broadcastable) and image axes, all in mm."""

    index: tuple[slice, slice, slice]
    z: np.ndarray  # (n, 1, 1)
    y: np.ndarray  # (1, h, w)
    x: np.ndarray  # (1, h, w)
    axes: tuple[np.ndarray, np.ndarray, np.ndarray]  # image z, y, x of the voxel centres, 1-D


def lattice(centre: np.ndarray, reach: np.ndarray, step: float) -> Window:
    """A coarse window around a patient point for measuring shapes, unrotated, `step` mm apart."""
    axes = tuple(
        np.arange(c - r, c + r + step, step, dtype=np.float32)
        for c, r in zip(centre, reach, strict=True)
    )
    return Window(
        index=(slice(None),) * 3,
        z=axes[0][:, None, None],
        y=axes[1][None, :, None],
        x=axes[2][None, None, :],
        axes=axes,
    )


@dataclass(frozen=True, kw_only=True)
class Slab:
    """Slices start..stop of a grid, each sampled at `subs` depths."""

    grid: Grid
    start: int
    stop: int
    subs: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the sub-slice array."""
        return ((self.stop - self.start) * self.subs, *self.grid.shape[1:])

    @property
    def edge(self) -> float:
        """Width in mm over which an edge goes from one tissue to the next."""
        return float(np.hypot(self.grid.spacing[1], 0.5 * self.grid.spacing[0] / self.subs))

    def single(self) -> Slab:
        """The same slices sampled once each, at their centres."""
        return Slab(grid=self.grid, start=self.start, stop=self.stop, subs=1)

    @cached_property
    def depths(self) -> np.ndarray:
        """Patient z in mm of every sub-slice, float32."""
        n = np.arange((self.stop - self.start) * self.subs)
        slices = self.start + (n + 0.5) / self.subs - 0.5
        return ((slices - self.grid.origin[0]) * self.grid.spacing[0]).astype(np.float32)

    def window(self, centre: np.ndarray, reach: np.ndarray) -> Window | None:
        """The part within `reach` mm (patient z, y, x) of a centre, or None when they do not meet."""
        grid = self.grid
        z = self.depths
        first, last = np.searchsorted(z, (centre[0] - reach[0], centre[0] + reach[0]))
        if first >= last:
            return None
        c, s = abs(np.cos(grid.angle)), abs(np.sin(grid.angle))
        middle = grid.to_image(float(centre[1]), float(centre[2]))
        spans = []
        for axis, at, half in (
            (1, middle[0], c * reach[1] + s * reach[2]),
            (2, middle[1], s * reach[1] + c * reach[2]),
        ):
            low = int(np.floor((at - half) / grid.spacing[axis] + grid.origin[axis]))
            high = int(np.ceil((at + half) / grid.spacing[axis] + grid.origin[axis])) + 1
            spans.append(slice(max(low, 0), min(high, grid.shape[axis])))
            if spans[-1].start >= spans[-1].stop:
                return None
        return self.crop(first, last, spans[0], spans[1])

    def crop(self, first: int, last: int, rows: slice, cols: slice) -> Window:
        """The window of sub-slices first..last and the given rows and columns."""
        grid, z = self.grid, self.depths[first:last]
        y, x = grid.plane
        axes = tuple(
            ((np.arange(span.start, span.stop) - grid.origin[axis]) * grid.spacing[axis]).astype(
                np.float32
            )
            for axis, span in ((1, rows), (2, cols))
        )
        return Window(
            index=(slice(first, last), rows, cols),
            z=z[:, None, None],
            y=y[None, rows, cols],
            x=x[None, rows, cols],
            axes=(z, *axes),
        )

    def everything(self) -> Window:
        """The whole slab as a window."""
        return self.crop(0, self.shape[0], slice(0, self.shape[1]), slice(0, self.shape[2]))


def _basis(at: np.ndarray, count: int, periodic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices (4, n) and weights (4, n) of the cubic B-splines that reach each position (in cells)."""
    cell = np.floor(at)
    t = (at - cell).astype(np.float32)
    weights = (
        np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * t * (t * (1 - t) + 1) + 1, t**3]) / 6
    )
    index = cell.astype(np.int64) + np.arange(-1, 3)[:, None]
    return (index % count if periodic else np.clip(index, 0, count - 1)), weights.astype(np.float32)


def spline(
    coefficients: np.ndarray,
    origin: tuple[float, ...],
    cell: tuple[float, ...],
    axes: tuple[np.ndarray, ...],
    *,
    periodic: bool,
) -> np.ndarray:
    """Evaluate a cubic B-spline volume on the product of three axes.

    Coefficient (i, j, k) stands at origin + (i, j, k) * cell. Only element-wise products are used, so that
    the bits do not depend on a linear-algebra library or its threads.
    """
    bases = [
        _basis((axes[a] - origin[a]) / cell[a], coefficients.shape[a], periodic) for a in range(3)
    ]
    planes, inverse = np.unique(bases[0][0], return_inverse=True)
    bases[0] = (inverse.reshape(bases[0][0].shape), bases[0][1])
    value = coefficients[planes]
    for axis in (2, 1, 0):
        index, weight = bases[axis]
        shape = [1, 1, 1]
        shape[axis] = -1
        total = np.take(value, index[0], axis) * weight[0].reshape(shape)
        for k in (1, 2, 3):
            total += np.take(value, index[k], axis) * weight[k].reshape(shape)
        value = total
    return value


@dataclass(frozen=True, kw_only=True)
class Field:
    """Endless smooth random field with zero mean and about unit variance; `cell` is its grain in mm."""

    coefficients: np.ndarray
    cell: float

    def __call__(self, window: Window) -> np.ndarray:
        """Values (n, h, w) on a window."""
        return spline(self.coefficients, (0, 0, 0), (self.cell,) * 3, window.axes, periodic=True)


def draw_field(rng: np.random.Generator, cell: float, size: int = 8) -> Field:
    """Draw a field that repeats after `size` cells."""
    return Field(coefficients=3 * rng.standard_normal((size,) * 3, dtype=np.float32), cell=cell)


def rotation(z: float = 0.0, y: float = 0.0, x: float = 0.0) -> np.ndarray:
    """Rotation matrix (3, 3) in (z, y, x) coordinates from angles in radians about the three axes."""
    matrix = np.eye(3)
    for axis, angle in ((0, z), (1, y), (2, x)):
        i, j = (a for a in range(3) if a != axis)
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """Ellipsoid with optional lumps: centre and radii in mm, axes as columns of `turn`."""

    centre: np.ndarray
    radii: np.ndarray
    turn: np.ndarray | None = None
    lumps: Field | None = None
    lump_mm: float = 0.0

    @property
    def reach(self) -> np.ndarray:
        """Half extents (z, y, x) in mm of its bounding box, lumps included."""
        turn = np.eye(3) if self.turn is None else self.turn
        return np.sqrt(((turn * self.radii) ** 2).sum(1)) + 3 * self.lump_mm + 3

    def distance(self, window: Window) -> np.ndarray:
        """Approximate signed distance in mm, negative inside."""
        return self.shell(window) + (0 if self.lumps is None else self.lump_mm * self.lumps(window))

    def shell(self, window: Window) -> np.ndarray:
        """Distance without the lumps."""
        d = [window.z - np.float32(self.centre[0]), window.y - np.float32(self.centre[1])]
        d.append(window.x - np.float32(self.centre[2]))
        if self.turn is not None:
            m = self.turn.astype(np.float32)
            d = [m[1, i] * d[1] + m[2, i] * d[2] + m[0, i] * d[0] for i in range(3)]
        k2, g2 = np.float32(0), np.float32(1e-12)
        for part, radius in zip(d, self.radii, strict=True):
            square = np.square(part / np.float32(radius))
            k2 = k2 + square
            g2 = g2 + square / np.float32(radius**2)
        k = np.sqrt(k2)
        return k * (k - 1) / np.sqrt(g2)


@dataclass(frozen=True, kw_only=True)
class Capsule:
    """Tube between two points (z, y, x) in mm with a radius at either end."""

    a: np.ndarray
    b: np.ndarray
    radius: tuple[float, float]

    @property
    def centre(self) -> np.ndarray:
        """Middle of the tube."""
        return (self.a + self.b) / 2

    @property
    def reach(self) -> np.ndarray:
        """Half extents (z, y, x) in mm of its bounding box."""
        return np.abs(self.b - self.a) / 2 + max(self.radius) + 2

    def distance(self, window: Window) -> np.ndarray:
        """Signed distance in mm, negative inside."""
        a, v = self.a.astype(np.float32), (self.b - self.a).astype(np.float32)
        dz, dy, dx = window.z - a[0], window.y - a[1], window.x - a[2]
        t = np.clip((dz * v[0] + (dy * v[1] + dx * v[2])) / max(float(v @ v), 1e-6), 0, 1)
        gap = np.square(dz - t * v[0]) + np.square(dy - t * v[1]) + np.square(dx - t * v[2])
        r0, r1 = self.radius
        return np.sqrt(gap) - np.float32(r0) - t * np.float32(r1 - r0)


def cover(distance: np.ndarray, edge: float) -> np.ndarray:
    """Share of a voxel inside a surface, from the distance in mm and the edge width in mm."""
    return np.clip(0.5 - distance * np.float32(1 / edge), 0, 1)


def blend(target: np.ndarray, share: np.ndarray, value: np.ndarray | float) -> None:
    """Replace a share of every voxel of `target`, in place."""
    target += share * (value - target)
