"""Kidneys, tumours and cysts read from a given label map, with the same interface as drawn ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kitslib.phantom.lesions import draw_look
from kitslib.phantom.renal import HALO_MM, Coarse, Part
from kitslib.phantom.shapes import Grid, Slab, spline

HALF_GAP_MM = 72.0  # from the spine to a kidney's centre
COARSE_MM = 2.0  # grid on which depths are measured
LARGEST = 8  # lesions with a look of their own; smaller fragments share the largest one's
SOFT_VOXELS = 0.55  # sigma that turns a mask into voxel shares
Box = tuple[slice, slice, slice]


def given_frame(
    labels: np.ndarray, spacing: tuple[float, float, float], rng: np.random.Generator
) -> tuple[Grid, float]:
    """The grid whose origin is the spine between the kidneys of a label map, and a body size quantile.

    Raises ValueError when the array is no label map with kidneys.
    """
    if labels.ndim != 3 or labels.size == 0:
        raise ValueError(
            f"labels: expected a 3-D array (D, H, W), got shape {labels.shape}; pass one case's map"
        )
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=4))
    if present[-1] > 3:
        raise ValueError(
            f"labels: expected values 0..3, got {present.tolist()}; map them to KiTS labels first"
        )
    if present[-1] == 0:
        raise ValueError(
            "labels: expected kidney voxels (1), got an empty map; choose a labelled case"
        )
    step = [max(1, round(3 / s)) for s in spacing]
    coarse = labels[:: step[0], :: step[1], :: step[2]]
    where = np.argwhere(coarse == 1) if (coarse == 1).any() else np.argwhere(coarse > 0)
    where = where * np.array(step)
    cols = where[:, 2] * spacing[2]
    split = _split(cols)
    middle = labels.shape[2] * spacing[2] / 2
    if split is None:  # a single kidney: its side tells where the spine is
        lone = float(cols.mean())
        centre_x = lone + HALF_GAP_MM * (1 if lone < middle else -1)
    else:
        centre_x = (cols[cols < split].mean() + cols[cols >= split].mean()) / 2
    centre = where.mean(0)
    origin = (
        float(centre[0]),
        float(centre[1] + rng.normal(0, 4) / spacing[1]),
        float(centre_x / spacing[2]),
    )
    width = min(labels.shape[1] * spacing[1], labels.shape[2] * spacing[2])
    size = float(np.clip((width - 336) / 164 + rng.normal(0, 0.15), 0, 1))
    grid = Grid(
        shape=labels.shape,
        spacing=spacing,
        origin=origin,
        angle=float(np.radians(rng.normal(0, 2.5))),
    )
    return grid, size


def _split(cols: np.ndarray) -> float | None:
    """The x in mm of the widest gap between two kidneys, or None for one kidney."""
    values = np.unique(cols)
    gaps = np.diff(values)
    if len(gaps) == 0 or gaps.max() < 15:
        return None
    k = int(gaps.argmax())
    return float((values[k] + values[k + 1]) / 2)


@dataclass(frozen=True, kw_only=True)
class _Mask:
    """A soft mask with depths: where it lies in the volume, shares, and a coarse signed depth in mm."""

    box: Box
    share: np.ndarray
    depth: np.ndarray
    cell: tuple[float, float, float]  # voxels per coarse step

    def part(self, slab: Slab) -> Part | None:
        """The part of it on a slab."""
        first, last = max(self.box[0].start, slab.start), min(self.box[0].stop, slab.stop)
        if first >= last:
            return None
        window = slab.single().crop(first - slab.start, last - slab.start, *self.box[1:])
        z0, y0, x0 = (b.start for b in self.box)
        axes = (
            np.arange(first - z0, last - z0),
            np.arange(self.box[1].stop - y0),
            np.arange(self.box[2].stop - x0),
        )
        offset = tuple((c - 1) / 2 for c in self.cell)
        depth = spline(self.depth, offset, self.cell, axes, periodic=False)
        share = self.share[first - z0 : last - z0].astype(np.float32) / 255
        return Part(index=window.index, window=window, share=share, depth=depth)


def _mask(inside: np.ndarray, box: Box, spacing: tuple[float, float, float]) -> _Mask:
    """Measure a boolean mask that lies at `box`."""
    soft = np.round(
        ndimage.gaussian_filter(inside.astype(np.float32), SOFT_VOXELS, truncate=3) * 255
    )
    step = [max(1, round(COARSE_MM / s)) for s in spacing]
    trimmed = inside[
        tuple(slice(0, max(1, n // k) * k) for n, k in zip(inside.shape, step, strict=True))
    ]
    blocks = trimmed.reshape(
        [v for n, k in zip(trimmed.shape, step, strict=True) for v in (n // k, k)]
    )
    coarse = blocks.mean((1, 3, 5)) > 0.5
    sampling = [s * k for s, k in zip(spacing, step, strict=True)]
    depth = np.full(coarse.shape, -30.0, np.float32)
    if coarse.any():
        depth = ndimage.distance_transform_edt(coarse, sampling) - ndimage.distance_transform_edt(
            ~coarse, sampling
        )
    return _Mask(
        box=box,
        share=soft.astype(np.uint8),
        depth=depth.astype(np.float32),
        cell=tuple(map(float, step)),
    )


class Given:
    """Renal anatomy of a label map on a grid; the interface of `renal.Renal`."""

    def __init__(
        self, labels: np.ndarray, grid: Grid, rng: np.random.Generator, kidney_hu: float
    ) -> None:
        self.labels, self.grid = labels, grid
        self.kidneys = [m for side in (-1, 1) for m in self._kidney(side)]
        tumours = self._lesions(2)
        cysts = self._lesions(3)
        self.tumours = [m for m, _ in tumours]
        self.cysts = [m for m, _ in cysts]
        tumour = [draw_look(rng, "tumour", kidney_hu, r) for _, r in tumours[:1]]
        kinds = rng.choice(["simple cyst", "complex cyst"], len(cysts), p=[0.55, 0.45])
        self.looks = (
            tumour * len(tumours),
            [
                draw_look(rng, str(kind), kidney_hu, r)
                for kind, (_, r) in zip(kinds, cysts, strict=True)
            ],
        )

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest patient (z, y, x) in mm of everything labelled."""
        box = ndimage.find_objects((self.labels > 0).view(np.uint8))[0]
        origin, spacing = np.array(self.grid.origin), np.array(self.grid.spacing)
        low = (np.array([b.start for b in box]) - origin) * spacing
        high = (np.array([b.stop - 1 for b in box]) - origin) * spacing
        return low, high

    @property
    def hila(self) -> list[np.ndarray]:
        """Guessed entries of the renal vessels, patient (z, y, x) mm: on the spine's side of each kidney."""
        found = []
        for mask in self.kidneys:
            where = np.argwhere(mask.share[::2, ::4, ::4] > 127) * np.array([2, 4, 4])
            if len(where) == 0:
                continue
            at = where.mean(0) + np.array([b.start for b in mask.box])
            z, y, x = (at - np.array(self.grid.origin)) * np.array(self.grid.spacing)
            found.append(np.array([z, y - 3, x - 22 * np.sign(x)]))
        return found

    def coarse(self, grid: Grid) -> Coarse:
        """Everything labelled, on a coarse grid with `HALO_MM` around it."""
        step = [max(1, round(2 * COARSE_MM / s)) for s in grid.spacing]
        box = ndimage.find_objects((self.labels > 0).view(np.uint8))[0]
        small = self.labels[box][tuple(slice(None, None, k) for k in step)] > 0
        cell = np.array(grid.spacing) * step
        halo = np.ceil(HALO_MM / cell).astype(int)
        first = (np.array([b.start for b in box]) - np.array(grid.origin)) * np.array(grid.spacing)
        inside = np.pad(small, [(int(n), int(n)) for n in halo])
        return Coarse(inside=inside, origin=tuple(first - halo * cell), cell=tuple(cell))

    def sample(self, slab: Slab) -> tuple[list[Part | None], list[Part | None], list[Part | None]]:
        """Kidneys, tumours and cysts on the slices of a slab (None where one does not reach it)."""
        kidneys, tumours, cysts = (
            [m.part(slab) for m in group] for group in (self.kidneys, self.tumours, self.cysts)
        )
        return kidneys, tumours, cysts

    def _kidney(self, side: int) -> list[_Mask]:
        """The mask of the kidneys on one side of the spine, continued a little under the lesions."""
        middle = int(np.clip(round(self.grid.origin[2]), 0, self.labels.shape[2]))
        half = slice(0, middle) if side < 0 else slice(middle, self.labels.shape[2])
        labels = self.labels[:, :, half]
        found = ndimage.find_objects((labels == 1).view(np.uint8))
        if not found or found[0] is None:
            return []
        box = _padded(found[0], labels.shape, 5)
        inside = labels[box] == 1
        if (labels[box] > 1).any():
            inside = ndimage.binary_dilation(inside, iterations=2) & (labels[box] > 0)
        shift = half.start
        box = (box[0], box[1], slice(box[2].start + shift, box[2].stop + shift))
        return [_mask(inside, box, self.grid.spacing)]

    def _lesions(self, value: int) -> list[tuple[_Mask, float]]:
        """Masks of the connected lesions of one label, largest first, with their radius in mm."""
        found = ndimage.find_objects((self.labels == value).view(np.uint8))
        if not found or found[0] is None:
            return []
        outer = _padded(found[0], self.labels.shape, 5)
        pieces, count = ndimage.label(self.labels[outer] == value, np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
        order = np.argsort(-sizes, kind="stable")
        rank = np.zeros(count + 1, np.int32)
        rank[order + 1] = (
            np.minimum(np.arange(count), LARGEST - 1) + 1
        )  # the rest is painted as one
        pieces = rank[pieces]
        masks = []
        for k, box in enumerate(ndimage.find_objects(pieces)):
            box = _padded(box, pieces.shape, 4)
            inside = pieces[box] == k + 1
            ml = float(inside.sum()) * float(np.prod(self.grid.spacing))
            place = tuple(
                slice(b.start + o.start, b.stop + o.start) for b, o in zip(box, outer, strict=True)
            )
            masks.append(
                (
                    _mask(inside, place, self.grid.spacing),
                    max(1.0, float(np.cbrt(ml * 3 / (4 * np.pi)))),
                )
            )
        return masks


def _padded(box: Box, shape: tuple[int, ...], by: int) -> Box:
    """A box grown by some voxels, within the array."""
    grown = (
        slice(max(0, b.start - by), min(n, b.stop + by)) for b, n in zip(box, shape, strict=True)
    )
    z, y, x = grown
    return z, y, x
