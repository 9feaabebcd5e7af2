"""Two kidneys with sinus and pelvis, and the tumours and cysts that grow on them, as distance functions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kitslib.phantom.lesions import Lesion, Look
from kitslib.phantom.shapes import Ellipsoid, Field, Grid, Slab, Window, cover

COARSE_MM = 4.0  # grid on which the surroundings are measured
HALO_MM = 40.0
SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Kidney:
    """A bent, lumpy ellipsoid with a sinus opening to the spine; local axes are caudal, dorsal, lateral."""

    side: int  # -1 the patient's right, +1 left
    centre: np.ndarray
    radii: np.ndarray  # mm along the long axis, dorso-ventral, medio-lateral
    turn: np.ndarray
    bend: float  # mm by which the poles lie nearer the spine than the middle
    sinus: Ellipsoid  # in local coordinates, x lateral
    pelvis: Ellipsoid
    lumps: Field
    lump_mm: float

    @property
    def reach(self) -> np.ndarray:
        """Half extents (z, y, x) in mm of the bounding box."""
        return np.sqrt(((self.turn * self.radii) ** 2).sum(1)) + self.bend + 8

    def local(self, window: Window) -> Window:
        """The window in the kidney's own axes, lateral positive, poles bent straight."""
        d = (window.z - self.centre[0], window.y - self.centre[1], window.x - self.centre[2])
        m = self.turn
        u, w, v = (
            (m[0, i] * d[0] + (m[1, i] * d[1] + m[2, i] * d[2])).astype(np.float32)
            for i in range(3)
        )
        v = v * self.side
        v += np.float32(self.bend) * np.square(u / np.float32(self.radii[0]))
        return Window(index=window.index, z=u, y=w, x=v, axes=window.axes)

    def outline(self, local: Window) -> np.ndarray:
        """Distance in mm to the outer surface as if the sinus were filled."""
        body = Ellipsoid(
            centre=np.zeros(3), radii=self.radii, lumps=self.lumps, lump_mm=self.lump_mm
        )
        return body.distance(local)

    def distance(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Signed distances in mm of what is labelled kidney and of the collecting system in it."""
        local = self.local(window)
        body = self.outline(local)
        pelvis = self.pelvis.shell(local)
        return np.maximum(body, np.minimum(-self.sinus.distance(local), pelvis)), np.maximum(
            body, pelvis
        )

    def surface(self, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Point on the surface and outward normal (patient z, y, x) towards a local direction."""
        local = way / np.sqrt(np.square(way / self.radii).sum())
        normal = local / self.radii**2
        local = local - np.array([0, 0, self.bend * (local[0] / self.radii[0]) ** 2])
        flip = np.array([1, 1, self.side])
        normal = self.turn @ (normal * flip)
        return self.centre + self.turn @ (local * flip), normal / np.linalg.norm(normal)

    def hilum(self) -> np.ndarray:
        """Where the vessels enter, patient (z, y, x) mm."""
        flip = np.array([1, 1, self.side])
        return self.centre + self.turn @ (np.array([0, 0, -0.75 * self.radii[2]]) * flip)

    def grown(self, scale: float) -> Kidney:
        """The same kidney, larger or smaller about its centre."""
        return replace(
            self,
            radii=self.radii * scale,
            bend=self.bend * scale,
            sinus=replace(
                self.sinus, centre=self.sinus.centre * scale, radii=self.sinus.radii * scale
            ),
            pelvis=replace(
                self.pelvis, centre=self.pelvis.centre * scale, radii=self.pelvis.radii * scale
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kidney or lesion on a slab: where, its share of every voxel, and depth in mm below the surface."""

    index: tuple[slice, slice, slice]
    window: Window
    share: np.ndarray
    depth: np.ndarray
    pelvis: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """A coarse mask in image axes: position of its first voxel and voxel size (z, y, x) in mm."""

    inside: np.ndarray
    origin: tuple[float, ...]
    cell: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Renal:
    """Kidneys and their lesions in patient coordinates."""

    kidneys: tuple[Kidney, ...]
    tumours: tuple[Lesion, ...]
    cysts: tuple[Lesion, ...]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest (z, y, x) in mm of everything labelled."""
        parts = [*self.kidneys, *self.tumours, *self.cysts]
        reach = [p.reach - 5 for p in parts]
        low = np.min([p.centre - r for p, r in zip(parts, reach, strict=True)], axis=0)
        return low, np.max([p.centre + r for p, r in zip(parts, reach, strict=True)], axis=0)

    @property
    def hila(self) -> list[np.ndarray]:
        """Where the renal vessels enter, patient (z, y, x) mm."""
        return [kidney.hilum() for kidney in self.kidneys]

    @property
    def looks(self) -> tuple[list[Look], list[Look]]:
        """Appearance of every tumour and of every cyst."""
        return [t.look for t in self.tumours], [c.look for c in self.cysts]

    def coarse(self, grid: Grid) -> Coarse:
        """Everything labelled, on a coarse grid with `HALO_MM` around it."""
        low, high = self.bounds
        corners = [grid.to_image(y, x) for y in (low[1], high[1]) for x in (low[2], high[2])]
        first = np.array([low[0], *np.min(corners, axis=0)]) - HALO_MM
        last = np.array([high[0], *np.max(corners, axis=0)]) + HALO_MM
        shape = tuple(int(n) for n in np.ceil((last - first) / COARSE_MM) + 1)
        small = Grid(
            shape=shape,
            spacing=(COARSE_MM,) * 3,
            origin=tuple(-first / COARSE_MM),
            angle=grid.angle,
        )
        inside = np.concatenate(
            [label_slab(self.sample(slab), slab.shape) for slab in small.slabs(COARSE_MM)]
        )
        return Coarse(inside=inside > 0, origin=tuple(first), cell=(COARSE_MM,) * 3)

    def sample(self, slab: Slab) -> tuple[list[Part | None], list[Part | None], list[Part | None]]:
        """Kidneys, tumours and cysts on the slices of a slab (None where one does not reach it)."""
        return (
            [_part(slab, kidney) for kidney in self.kidneys],
            [_part(slab, lesion) for lesion in self.tumours],
            [_part(slab, lesion) for lesion in self.cysts],
        )


def _part(slab: Slab, shape: Kidney | Lesion) -> Part | None:
    """Average the share of a shape over the sub-slices of every slice that it meets."""
    fine = slab.window(shape.centre, shape.reach)
    if fine is None:
        return None
    subs, first, last = (
        slab.subs,
        fine.index[0].start // slab.subs,
        -(-fine.index[0].stop // slab.subs),
    )
    fine = slab.crop(first * subs, last * subs, *fine.index[1:])
    pelvis = None
    if isinstance(shape, Kidney):
        distance, inner = shape.distance(fine)
        pelvis = _mean(cover(inner, slab.edge), subs)
    else:
        distance = shape.distance(fine)
    window = slab.single().crop(first, last, *fine.index[1:])
    return Part(
        index=window.index,
        window=window,
        share=_mean(cover(distance, slab.edge), subs),
        depth=-_mean(distance, subs),
        pelvis=pelvis,
    )


def _mean(values: np.ndarray, subs: int) -> np.ndarray:
    """Average groups of `subs` along the first axis."""
    if subs == 1:
        return values
    total = values[::subs].copy()
    for k in range(1, subs):
        total += values[k::subs]
    return total * np.float32(1 / subs)


def label_slab(parts: tuple[list[Part | None], ...], shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 labels 0..3 of a slab: a voxel is what fills half of it; tumour wins over cyst over kidney."""
    labels = np.zeros(shape, np.uint8)
    for value, group in ((1, parts[0]), (3, parts[2]), (2, parts[1])):
        for part in group:
            if part is not None:
                labels[part.index][part.share > SHARE] = value
    return labels
