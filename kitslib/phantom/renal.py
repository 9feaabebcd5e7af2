"""Two kidneys with sinus and pelvis, and the tumours and cysts on them, as distance functions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from kitslib.phantom.lesions import Appearance, Lesion
from kitslib.phantom.shapes import Box, Ellipsoid, Grid, Region, Slab, cover, spline

COARSE_MM = 4.0  # grid on which the surroundings are measured
HALO_MM = 40.0


@dataclass
class Kidney:
    """A bent, lumpy ellipsoid, its sinus towards the spine; axes caudal, dorsal, lateral."""

    side: int  # -1 the patient's right, +1 left
    center: np.ndarray
    turn: np.ndarray
    body: Ellipsoid  # in local coordinates, as sinus and pelvis
    sinus: Ellipsoid
    pelvis: Ellipsoid
    bend: float  # mm by which the poles lie nearer the spine than the middle
    urine: float | None = None  # HU of its collecting system; None: as the scan's

    def __post_init__(self) -> None:
        radii = self.body.radii
        # half extents of the bounding box; where the vessels enter: patient (z, y, x) in mm
        self.reach = np.sqrt(((self.turn * radii) ** 2).sum(1)) + self.bend + 8
        self.hilum = self.center + self._turned(np.array([0, 0, -0.75 * radii[2]]))

    def distance(self, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """Signed distances in mm of what is labelled kidney and of the collecting system in it."""
        local = self._local(region)
        body, pelvis = self.body.distance(local), self.pelvis.distance(local)
        labelled = np.maximum(body, np.minimum(-self.sinus.distance(local), pelvis))
        return labelled, np.maximum(body, pelvis)

    def _local(self, region: Region) -> Region:
        """The region in the kidney's own axes, lateral positive, poles bent straight."""
        z, y, x = self.center
        dz, dy, dx = region.z - z, region.y - y, region.x - x
        u, w, v = ((m[0] * dz + (m[1] * dy + m[2] * dx)).astype(np.float32) for m in self.turn.T)
        v = v * self.side
        v += np.float32(self.bend) * np.square(u / np.float32(self.body.radii[0]))
        return replace(region, z=u, y=w, x=v)

    def surface(self, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Surface point and outward normal (patient z, y, x) towards a local direction."""
        radii = self.body.radii
        local = way / np.sqrt(np.square(way / radii).sum())
        normal = self._turned(local / radii**2)
        local = local - np.array([0, 0, self.bend * (local[0] / radii[0]) ** 2])
        return self.center + self._turned(local), normal / np.linalg.norm(normal)

    def _turned(self, local: np.ndarray) -> np.ndarray:
        """A local vector in patient axes."""
        return self.turn @ (local * np.array([1, 1, self.side]))

    def scaled(self, scale: float) -> Kidney:
        """The same kidney, larger or smaller about its centre."""
        body, sinus, pelvis = (e.scaled(scale) for e in (self.body, self.sinus, self.pelvis))
        return replace(self, body=body, sinus=sinus, pelvis=pelvis, bend=self.bend * scale)


@dataclass(frozen=True)
class Part:
    """One kidney or lesion on a slab: its share of every voxel, depth in mm below the surface."""

    label: int
    region: Region
    share: np.ndarray
    depth: np.ndarray
    appearance: Appearance | None = None  # of a lesion
    pelvis: np.ndarray | None = None  # share of the collecting system, of a drawn kidney
    urine: float | None = None  # HU of it, where it has its own


class Halo:
    """Distance in mm to everything labelled, from a coarse mask that has `HALO_MM` around it.

    origin: image (z, y, x) in mm of the mask's first voxel. cell: voxel size (z, y, x) in mm.
    """

    def __init__(self, inside: np.ndarray, origin: np.ndarray, cell: np.ndarray) -> None:
        self.origin, self.cell = origin, cell
        self.end = origin + cell * (np.array(inside.shape) - 1)
        self.mm = ndimage.distance_transform_edt(~inside, cell).astype(np.float32)

    def __call__(self, region: Region) -> np.ndarray:
        """Distances (n, h, w) on a region."""
        return spline(self.mm, self.origin, self.cell, region.axes, periodic=False)


@dataclass(frozen=True)
class Renal:
    """Kidneys and their lesions in patient coordinates."""

    kidneys: list[Kidney]
    tumors: list[Lesion]
    cysts: list[Lesion]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest (z, y, x) in mm of everything labelled."""
        shapes = [*self.kidneys, *self.tumors, *self.cysts]
        center = np.array([shape.center for shape in shapes])
        reach = np.array([shape.reach for shape in shapes]) - 5
        return (center - reach).min(0), (center + reach).max(0)

    @property
    def hila(self) -> list[np.ndarray]:
        """Where the renal vessels enter, patient (z, y, x) mm."""
        return [kidney.hilum for kidney in self.kidneys]

    def halo(self, grid: Grid) -> Halo:
        """Distances to everything labelled, on a coarse grid in the image axes of `grid`."""
        low, high = self.bounds
        corners = [grid.to_image(y, x) for y in (low[1], high[1]) for x in (low[2], high[2])]
        first = np.array([low[0], *np.min(corners, axis=0)]) - HALO_MM
        last = np.array([high[0], *np.max(corners, axis=0)]) + HALO_MM
        shape = tuple((np.ceil((last - first) / COARSE_MM) + 1).astype(int).tolist())
        small = Grid(shape, (COARSE_MM,) * 3, tuple(-first / COARSE_MM), grid.angle)
        return Halo(self.label_map(small, COARSE_MM) > 0, first, np.full(3, COARSE_MM))

    def label_map(self, grid: Grid, thinnest: float) -> np.ndarray:
        """Labels uint8 0..3 (D, H, W) on a grid, from sub-slices of at most `thinnest` mm."""
        slabs = grid.slabs(thinnest)
        return np.concatenate([label_slab(self.sample(slab), slab.shape) for slab in slabs])

    def sample(self, slab: Slab) -> list[Part]:
        """The kidneys, then the cysts, then the tumours on the slices of a slab."""
        parts = []
        for label, shapes in ((1, self.kidneys), (3, self.cysts), (2, self.tumors)):
            for shape in shapes:
                fine = slab.around(shape.center, shape.reach)
                if fine is not None:
                    parts.append(_part(slab, fine.box, label, shape))
        return parts


def _part(slab: Slab, box: Box, label: int, shape: Kidney | Lesion) -> Part:
    """Average the share of a shape over the sub-slices of every slice in a box of a slab."""
    subs, edge = slab.subs, slab.edge
    slices = slice(box[0].start // subs, -(-box[0].stop // subs))
    fine = slab.crop(slice(slices.start * subs, slices.stop * subs), *box[1:])
    region = slab.single().crop(slices, *box[1:])
    appearance = pelvis = urine = None
    if isinstance(shape, Kidney):
        distance, inner = shape.distance(fine)
        pelvis, urine = _mean(cover(inner, edge), subs), shape.urine
    else:
        distance, appearance = shape.distance(fine), shape.appearance
    share, depth = _mean(cover(distance, edge), subs), -_mean(distance, subs)
    return Part(label, region, share, depth, appearance, pelvis, urine)


def _mean(values: np.ndarray, subs: int) -> np.ndarray:
    """Average groups of `subs` along the first axis."""
    return values.reshape(-1, subs, *values.shape[1:]).sum(1) * np.float32(1 / subs)


def label_slab(parts: list[Part], shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 labels 0..3 of a slab: a voxel is what fills half of it, a later part wins."""
    labels = np.zeros(shape, np.uint8)
    for part in parts:
        labels[part.region.box][part.share > 0.5] = part.label
    return labels
