"""Kidneys, tumours and cysts read from a given label map, with the same interface as drawn ones."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from kitslib.phantom.lesions import Appearance, ball_radius
from kitslib.phantom.renal import HALO_MM, Halo, Part
from kitslib.phantom.shapes import Box, Grid, Slab, Triple, spline

HALF_GAP_MM = 72.0  # from the spine to a kidney's centre
COARSE_MM = 2.0  # grid on which depths are measured
LARGEST = 8  # lesions with an appearance of their own; smaller fragments are painted as one
SOFT_VOXELS = 0.55  # sigma that turns a mask into voxel shares


def given_frame(labels: np.ndarray, spacing: Triple, rng: Generator) -> tuple[Grid, float]:
    """The grid with its origin at the spine between a map's kidneys, and a body size quantile.

    Raises ValueError when the array is no label map with kidneys.
    """
    if labels.ndim != 3 or labels.size == 0:
        raise ValueError(f"labels: expected a 3-D array, got {labels.shape}; pass one case's map")
    highest = len(np.bincount(labels.ravel())) - 1
    if highest > 3:
        raise ValueError(f"labels: expected values 0..3, got {highest}; map them to KiTS's labels")
    if highest == 0:
        raise ValueError("labels: expected kidney voxels, got an empty map; leave this case out")
    step = [max(1, round(3 / s)) for s in spacing]
    coarse = labels[:: step[0], :: step[1], :: step[2]]
    if not coarse.any():  # so little that the coarse grid misses it
        step, coarse = [1, 1, 1], labels
    kidney = coarse == 1
    where = np.argwhere(kidney if kidney.any() else coarse > 0) * np.array(step)
    center, cols = where.mean(0), where[:, 2] * spacing[2]
    gaps = np.diff(np.unique(cols))
    if gaps.max(initial=0) < 15:  # a single kidney: its side tells where the spine is
        right = cols.mean() < labels.shape[2] * spacing[2] / 2
        center_x = cols.mean() + (HALF_GAP_MM if right else -HALF_GAP_MM)
    else:
        left = cols > np.unique(cols)[gaps.argmax()]
        center_x = (cols[~left].mean() + cols[left].mean()) / 2
    y = float(center[1] + rng.normal(0, 4) / spacing[1])
    width = min(labels.shape[1] * spacing[1], labels.shape[2] * spacing[2])
    size = float(np.clip((width - 336) / 164 + rng.normal(0, 0.15), 0, 1))
    origin = (float(center[0]), y, float(center_x / spacing[2]))
    return Grid(labels.shape, spacing, origin, float(np.radians(rng.normal(0, 2.5)))), size


class Mask:
    """A soft mask of a kidney or lesion at a box of the volume, with depths on a coarse grid."""

    def __init__(self, label: int, inside: np.ndarray, box: Box, spacing: Triple) -> None:
        self.label, self.box = label, box
        self.start = np.array([span.start for span in box])
        self.radius = max(1.0, ball_radius(float(inside.sum()) * float(np.prod(spacing))))  # mm
        self.appearance: Appearance | None = None
        soft = ndimage.gaussian_filter(inside.astype(np.float32), SOFT_VOXELS, truncate=3)
        self.share = np.round(soft * 255).astype(np.uint8)
        step = np.clip(np.rint(COARSE_MM / np.array(spacing)).astype(int), 1, inside.shape)
        (z, y, x), (d, h, w) = step.tolist(), (inside.shape // step).tolist()
        blocks = inside[: d * z, : h * y, : w * x].reshape(d, z, h, y, w, x)
        coarse = blocks.mean((1, 3, 5)) > 0.5
        depth = np.full(coarse.shape, -30.0)
        if coarse.any():
            cell = spacing * step
            depth = ndimage.distance_transform_edt(coarse, cell)
            depth -= ndimage.distance_transform_edt(~coarse, cell)
        self.depth = depth.astype(np.float32)  # mm, negative outside
        self.cell = (float(z), float(y), float(x))  # voxels per coarse step

    def part(self, slab: Slab) -> Part | None:
        """The part of it on a slab."""
        first, last = max(self.box[0].start, slab.start), min(self.box[0].stop, slab.stop)
        if first >= last:
            return None
        region = slab.single().crop(slice(first - slab.start, last - slab.start), *self.box[1:])
        slices, (_, rows, cols) = np.arange(first, last) - self.start[0], self.share.shape
        axes = (slices, np.arange(rows), np.arange(cols))
        offset = tuple((c - 1) / 2 for c in self.cell)
        depth = spline(self.depth, offset, self.cell, axes, periodic=False)
        share = self.share[slices].astype(np.float32) / 255
        return Part(self.label, region, share, depth, self.appearance)


class Given:
    """Renal anatomy of a label map on a grid; the interface of `renal.Renal`."""

    def __init__(self, labels: np.ndarray, grid: Grid, rng: Generator, kidney_hu: float) -> None:
        self.labels, self.grid = labels, grid
        self.kidneys, self.cysts, self.tumors = self._kidneys(), self._lesions(3), self._lesions(2)
        for tumor in self.tumors[:1]:
            tumor.appearance = Appearance(rng, "tumor", kidney_hu, tumor.radius)
        kinds = rng.choice(["simple cyst", "complex cyst"], len(self.cysts), p=[0.55, 0.45])
        for cyst, kind in zip(self.cysts, kinds.tolist(), strict=True):
            cyst.appearance = Appearance(rng, kind, kidney_hu, cyst.radius)
        for tumor in self.tumors[1:]:  # as the largest one
            tumor.appearance = self.tumors[0].appearance
        self.box = _box(labels > 0)
        ends = np.array([(span.start, span.stop - 1) for span in self.box]).T
        # patient (z, y, x) in mm of everything labelled, lowest and highest
        self.bounds = (ends - np.array(grid.origin)) * np.array(grid.spacing)

    @property
    def hila(self) -> list[np.ndarray]:
        """Guessed entries of the renal vessels, patient (z, y, x) mm: towards the spine."""
        found = []
        for mask in self.kidneys:
            where = np.argwhere(mask.share[::2, ::4, ::4] > 127) * np.array([2, 4, 4])
            if len(where):
                at = where.mean(0) + mask.start - np.array(self.grid.origin)
                z, y, x = at * np.array(self.grid.spacing)
                found.append(np.array([z, y - 3, x - 22 * np.sign(x)]))
        return found

    def halo(self, grid: Grid) -> Halo:
        """Distances to everything labelled, on a coarse grid."""
        step = [max(1, round(2 * COARSE_MM / s)) for s in grid.spacing]
        small = self.labels[self.box][:: step[0], :: step[1], :: step[2]] > 0
        cell = np.array(grid.spacing) * step
        margin = np.ceil(HALO_MM / cell).astype(int)
        inside = np.pad(small, np.stack([margin, margin], axis=1))
        return Halo(inside, self.bounds[0] - margin * cell, cell)

    def sample(self, slab: Slab) -> list[Part]:
        """The kidneys, then the cysts, then the tumours on the slices of a slab."""
        parts = [mask.part(slab) for mask in (*self.kidneys, *self.cysts, *self.tumors)]
        return [part for part in parts if part is not None]

    def _kidneys(self) -> list[Mask]:
        """The kidney on either side of the spine, continued a little under the lesions."""
        middle = int(np.clip(round(self.grid.origin[2]), 0, self.labels.shape[2]))
        masks = []
        for half in (slice(0, middle), slice(middle, self.labels.shape[2])):
            labels = self.labels[:, :, half]
            box = _box(labels == 1, 5)
            if box is None:
                continue
            inside = ndimage.binary_dilation(labels[box] == 1, iterations=2) & (labels[box] > 0)
            masks.append(Mask(1, inside, _moved(box, np.s_[0:, 0:, half]), self.grid.spacing))
        return masks

    def _lesions(self, label: int) -> list[Mask]:
        """Masks of the connected lesions of one label, largest first."""
        outer = _box(self.labels == label, 5)
        if outer is None:
            return []
        pieces, count = ndimage.label(self.labels[outer] == label, np.ones((3, 3, 3)))
        order = np.argsort(-np.bincount(pieces.ravel())[1:], kind="stable")
        rank = np.zeros(count + 1, np.int32)
        rank[order + 1] = np.minimum(np.arange(count), LARGEST - 1) + 1  # the rest is one
        pieces = rank[pieces]
        masks = []
        for number in range(1, min(count, LARGEST) + 1):
            box = _box(pieces == number, 4)
            masks.append(Mask(label, pieces[box] == number, _moved(box, outer), self.grid.spacing))
        return masks


def _moved(box: Box, outer: Box) -> Box:
    """A box that lies in another one, in the volume."""
    pairs = zip(box, outer, strict=True)
    return tuple(slice(b.start + o.start, b.stop + o.start) for b, o in pairs)


def _box(mask: np.ndarray, margin: int = 0) -> Box | None:
    """The box of a mask, grown by some voxels within the array; None for an empty mask."""
    if not mask.any():
        return None
    (found,) = ndimage.find_objects(mask.view(np.uint8))
    spans = zip(found, mask.shape, strict=True)
    return tuple(slice(max(0, b.start - margin), min(n, b.stop + margin)) for b, n in spans)
