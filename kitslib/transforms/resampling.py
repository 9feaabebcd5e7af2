"""Volumes from grid to grid and back: trilinear for CT and probabilities, nearest for labels."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse

from kitslib.transforms.grids import SNAP, Grid, Mapping, TransformError


class _Taps(NamedTuple):
    """Along one axis, output i is (1 - weight[i]) * input[low[i]] + weight[i] * input[high[i]]."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray


def _positions(source: Grid, target: Grid, axis: int) -> np.ndarray:
    """Where the target's voxel centres lie in the source, in voxels, clamped to its end centres."""
    centres = target.origin[axis] + (np.arange(target.shape[axis]) + 0.5) * target.spacing[axis]
    positions = (centres - source.origin[axis]) / source.spacing[axis] - 0.5
    whole = np.rint(positions)
    positions = np.where(np.abs(positions - whole) < SNAP, whole, positions)
    return positions.clip(0, source.shape[axis] - 1)


def _linear_taps(source: Grid, target: Grid, axis: int) -> _Taps:
    positions = _positions(source, target, axis)
    low, high = np.floor(positions).astype(np.intp), np.ceil(positions).astype(np.intp)
    return _Taps(low, high, (positions - low).astype(np.float32))


def _take(array: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    """`array.take`, as a view where the indices are evenly spaced."""
    first, last = int(indices[0]), int(indices[-1])
    step = (last - first) // max(len(indices) - 1, 1)
    if step and (indices == np.arange(first, last + 1, step)[: len(indices)]).all():
        evenly = slice(first, last + 1, step)
        return array[(slice(None),) * axis + (evenly,)]
    return array.take(indices, axis=axis, mode="clip")  # "clip" spares a check of every index


def _blend(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
    blended = high - low
    blended *= weight
    blended += low
    return blended


def _blend_columns(plane: np.ndarray, taps: _Taps) -> np.ndarray:
    low = _take(plane, taps.low, 1)
    return _blend(low, _take(plane, taps.high, 1), taps.weight) if taps.weight.any() else low


class _RowBlender:
    """Rows of the result as weighted sums of rows of one slice or two: a sparse product."""

    def __init__(self, volume: np.ndarray, taps: _Taps) -> None:
        self.volume = volume
        self.rows, places = np.unique(np.concatenate([taps.low, taps.high]), return_inverse=True)
        self.places = places.reshape(2, -1).T  # (rows of the result, 2), among self.rows
        self.weights = np.stack([1 - taps.weight, taps.weight], axis=1)
        self.interpolates = bool(taps.weight.any())
        self.matrices = {1: self._matrix(1), 2: self._matrix(2)}
        self.stack = np.empty((2 * len(self.rows), volume.shape[2]), np.float32)

    def _matrix(self, slices: int) -> sparse.csr_array:
        shifts = np.arange(slices) * len(self.rows)
        places = (self.places[:, None] + shifts[:, None]).reshape(len(self.places), -1)
        ends = np.arange(len(places) + 1) * places.shape[1]
        empty = np.zeros(places.size, np.float32)
        return sparse.csr_array(
            (empty, places.ravel(), ends), shape=(len(places), slices * len(self.rows))
        )

    def read(self, index: int) -> np.ndarray:
        """The needed rows of a slice, (rows, W)."""
        return _take(self.volume[index], self.rows, 0)

    def __call__(self, low: int, high: int, weight: np.float32) -> np.ndarray:
        """(1 - weight) * slice `low` + weight * slice `high`, blended along the rows; float32."""
        if not self.interpolates:
            plane = self.read(low).astype(np.float32)
            return _blend(plane, self.read(high).astype(np.float32), weight) if weight else plane
        parts = ((low, 1 - weight), (high, weight)) if weight else ((low, np.float32(1)),)
        matrix, n = self.matrices[len(parts)], len(self.rows)
        for place, (index, share) in enumerate(parts):
            data = matrix.data.reshape(-1, 2 * len(parts))
            data[:, 2 * place : 2 * place + 2] = share * self.weights
            self.stack[place * n : (place + 1) * n] = self.read(index)
        return matrix @ self.stack[: len(parts) * n]


def _linear_planes(volume: np.ndarray, source: Grid, target: Grid) -> Iterator[np.ndarray]:
    """The target's slices one by one, float32 (H, W): two taps per axis, the cheaper axes first."""
    z, y, x = (_linear_taps(source, target, axis) for axis in range(3))
    columns = slice(int(x.low.min()), int(x.high.max()) + 1)
    x = _Taps(x.low - columns.start, x.high - columns.start, x.weight)
    blend_rows = _RowBlender(volume[:, :, columns], y)

    def in_plane(low: int, high: int, weight: np.float32) -> np.ndarray:
        return _blend_columns(blend_rows(low, high, weight), x)

    if len(np.union1d(z.low, z.high)) > len(z.low):
        yield from map(in_plane, z.low.tolist(), z.high.tolist(), z.weight)
        return

    @functools.lru_cache(maxsize=2)  # successive slices share their neighbours
    def slice_at(index: int) -> np.ndarray:
        return in_plane(index, index, np.float32(0))

    for low, high, weight in zip(z.low.tolist(), z.high.tolist(), z.weight, strict=True):
        yield _blend(slice_at(low), slice_at(high), weight) if weight else slice_at(low)


def _nearest_planes(volume: np.ndarray, source: Grid, target: Grid) -> Iterator[np.ndarray]:
    positions = (_positions(source, target, axis) for axis in range(3))
    z, y, x = (np.floor(position + 0.5).astype(np.intp) for position in positions)
    previous, plane = -1, volume[0]
    for index in z.tolist():
        if index != previous:
            previous, plane = index, _take(_take(volume[index], y, 0), x, 1)
        yield plane


def averaged(volume: np.ndarray, source: Grid, target: Grid) -> tuple[np.ndarray, Grid]:
    """Means of whole blocks of voxels, as large as a target's voxel holds, and their grid.

    volume: int16 HU (D, H, W) on `source`; values are clamped to -1024..1024 first. Blocks at the
    far faces may hold fewer. Before a coarser grid is read it takes the place of a low-pass filter:
    noise, pixel size and kernel of the scanner matter less.
    """
    pairs = zip(target.spacing, source.spacing, strict=True)
    block = [max(1, int(coarse / fine + SNAP)) for coarse, fine in pairs]
    if max(block) == 1:
        return volume, source
    starts = [np.arange(0, n, size) for n, size in zip(volume.shape, block, strict=True)]
    spans = zip(starts, volume.shape, strict=True)
    counts = [np.diff(np.append(first, n)) for first, n in spans]
    out = np.empty(tuple(map(len, starts)), np.int16)
    area = counts[1][:, None] * counts[2]
    for index, (first, deep) in enumerate(zip(starts[0], counts[0], strict=True)):
        total = np.zeros(volume.shape[1:], np.int32)
        for plane in volume[first : first + deep]:
            total += np.clip(plane, -1024, 1024)
        total = np.add.reduceat(np.add.reduceat(total, starts[1], axis=0), starts[2], axis=1)
        np.rint(total / (area * deep), out=out[index], casting="unsafe")
    spacing = tuple(s * size for s, size in zip(source.spacing, block, strict=True))
    return out, Grid(shape=out.shape, spacing=spacing, origin=source.origin)


def resample(
    volume: np.ndarray, source: Grid, target: Grid, *, how: Literal["linear", "nearest"] = "linear"
) -> np.ndarray:
    """The volume on another grid, trilinear or nearest; edges clamped.

    volume: (D, H, W) on `source`; for "linear" int16, uint8, float16 or float32. Returns the same
    dtype on `target`; whole-number types are rounded to the nearest. As in the paper, no low-pass
    filter precedes downsampling. Memory beyond the result is a few slices.
    Raises TransformError for another shape than the grid's and for another dtype.
    """
    if volume.shape != source.shape:
        raise TransformError(
            f"resample: the volume's shape {volume.shape} is not its grid's {source.shape}"
        )
    if how == "linear" and volume.dtype not in (np.int16, np.uint8, np.float16, np.float32):
        raise TransformError(
            f"resample: linear needs int16, uint8, float16 or float32, got {volume.dtype}"
        )
    out = np.empty(target.shape, volume.dtype)
    _write(out, volume, source, target, how)
    return out


def _write(out: np.ndarray, volume: np.ndarray, source: Grid, target: Grid, how: str) -> None:
    if how == "nearest":
        for index, plane in enumerate(_nearest_planes(volume, source, target)):
            out[index] = plane
        return
    finish = np.rint if out.dtype.kind in "iu" else np.positive
    for index, plane in enumerate(_linear_planes(volume, source, target)):
        finish(plane, out=out[index], casting="unsafe")


def restore_labels(labels: np.ndarray, mapping: Mapping) -> np.ndarray:
    """Labels of the stage grid on the native grid, nearest neighbour; 0 outside a crop."""
    return _restored(labels, mapping, "nearest")


def restore_probability(probability: np.ndarray, mapping: Mapping) -> np.ndarray:
    """A probability map of the stage grid on the native grid, trilinear; 0 outside a crop.

    probability: (D, H, W), float16, float32 or uint8 (0..255 for 0..1), as is the result.
    """
    return _restored(probability, mapping, "linear")


def restore_mask(
    probability: np.ndarray, mapping: Mapping, *, threshold: float = 0.5
) -> np.ndarray:
    """Where the trilinearly restored probability exceeds `threshold`: native grid, uint8 0/1.

    Interpolating before thresholding keeps boundaries smooth; slice by slice, it needs no native
    probability map. probability: as for `restore_probability`; threshold: 0..1.
    """
    out, region, target = _native_region(probability, mapping, np.dtype(np.uint8))
    cut = np.float32(threshold * 255 if probability.dtype == np.uint8 else threshold)
    if target:
        for index, plane in enumerate(_linear_planes(probability, mapping.stage, target)):
            np.greater(plane, cut, out=region[index], casting="unsafe")
    return out


def _restored(volume: np.ndarray, mapping: Mapping, how: str) -> np.ndarray:
    out, region, target = _native_region(volume, mapping, volume.dtype)
    if target:
        _write(region, volume, mapping.stage, target, how)
    return out


def _native_region(
    volume: np.ndarray, mapping: Mapping, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, Grid | None]:
    """Native zeros, the view of them that the stage grid covers, and the grid of that view."""
    if volume.shape != mapping.stage.shape:
        raise TransformError(
            f"restore: expected the stage grid's shape {mapping.stage.shape}, got {volume.shape}; "
            "undo paddings and crops of the network's input first"
        )
    out = np.zeros(mapping.native.shape, dtype)
    box = mapping.box
    region = out[box]
    return out, region, mapping.native.crop(box) if region.size else None
