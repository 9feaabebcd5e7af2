"""Grids, resampling and its inverse, kidney masks, HU windows, mirroring."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from scipy import ndimage

from kitslib.transforms import (
    HU_WINDOWS,
    Grid,
    HuWindow,
    Mapping,
    TransformError,
    bounding_box,
    dilate,
    hide_outside,
    kidney_slices,
    mirror,
    resample,
    restore_labels,
    restore_mask,
    restore_probability,
)


def along(axis: int, values: list[float], dtype: type) -> np.ndarray:
    """A volume of 1 x 1 x n, or its turn, that holds `values` along one axis."""
    shape = [1, 1, 1]
    shape[axis] = len(values)
    return np.array(values, dtype).reshape(shape)


def grid_along(axis: int, n: int, step: float, start: float = 0.0) -> Grid:
    shape, spacing, origin = [1, 1, 1], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]
    shape[axis], spacing[axis], origin[axis] = n, step, start
    return Grid(shape=tuple(shape), spacing=tuple(spacing), origin=tuple(origin))


def ball(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], radius_mm: float
) -> np.ndarray:
    """A centred ball as uint8 0/1."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    return (z**2 + y**2 + x**2 <= radius_mm**2).astype(np.uint8)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def peer_resample(volume: np.ndarray, source: Grid, target: Grid, order: int) -> np.ndarray:
    """The same grids through scipy.ndimage.map_coordinates, float64."""
    axes = [
        (o2 + (np.arange(n2) + 0.5) * s2 - o) / s - 0.5
        for o, s, o2, n2, s2 in zip(
            source.origin, source.spacing, target.origin, target.shape, target.spacing, strict=True
        )
    ]
    places = np.meshgrid(*axes, indexing="ij")
    return ndimage.map_coordinates(volume.astype(np.float64), places, order=order, mode="nearest")


# Grids


def test_respaced_keeps_the_corner_and_covers_the_volume() -> None:
    native = Grid(shape=(7, 512, 796), spacing=(5.0, 0.5, 0.5))
    assert native.respaced((2.0, 1.0, 1.0)) == Grid(
        shape=(18, 256, 398), spacing=(2, 1, 1)
    )  # 35 mm: 17.5 slices


def test_crop_moves_the_origin_by_whole_voxels() -> None:
    grid = Grid(shape=(10, 10, 10), spacing=(3.0, 2.0, 1.0), origin=(1.0, 0.0, 0.0))
    cropped = grid.crop((slice(2, 5), slice(1, 3), slice(0, 10)))
    assert cropped == Grid(shape=(3, 2, 10), spacing=(3, 2, 1), origin=(7, 2, 0))


def test_inside_counts_voxel_centres_between_the_faces() -> None:
    native = grid_along(0, 10, 1.0)  # centres at 0.5, 1.5, …
    assert native.inside(grid_along(0, 2, 2.0, start=3.0))[0] == slice(3, 7)
    assert native.inside(grid_along(0, 2, 2.0, start=2.6))[0] == slice(3, 7)  # 2.6 to 6.6 mm
    assert native.inside(grid_along(0, 2, 2.0, start=30.0))[0] == slice(10, 10)


def test_mapping_survives_json() -> None:
    native = Grid(shape=(10, 64, 80), spacing=(3.0, 0.7, 0.7), origin=(0.5, 0.0, 0.1))
    mapping = Mapping(native=native, stage=native.respaced((2.0, 2.8, 2.8)))
    assert Mapping.from_json(mapping.to_json()) == mapping


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shape": (0, 1, 1)}, "shape"),
        ({"spacing": (1, 0, 1)}, "spacing"),
        ({"origin": (1, 2)}, "origin"),
    ],
)
def test_impossible_grids_are_refused_by_field(change: dict, named: str) -> None:
    with pytest.raises(TransformError, match=named):
        Grid(**{"shape": (1, 1, 1), "spacing": (1, 1, 1), **change})


# Resampling


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_halving_averages_pairs(axis: int) -> None:
    volume = along(axis, [0, 10, 20, 30], np.int16)
    out = resample(volume, grid_along(axis, 4, 1.0), grid_along(axis, 2, 2.0))
    assert out.ravel().tolist() == [5, 25] and out.dtype == np.int16


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_doubling_interpolates_and_clamps_the_edges(axis: int) -> None:
    volume = along(
        axis, [0, 8], np.int16
    )  # target centres at -0.25, 0.25, 0.75, 1.25 source voxels
    out = resample(volume, grid_along(axis, 2, 2.0), grid_along(axis, 4, 1.0))
    assert out.ravel().tolist() == [0, 2, 6, 8]


def test_nearest_takes_the_voxel_that_a_centre_falls_in() -> None:
    labels = along(0, [0, 1, 2, 3, 0, 0], np.uint8)
    out = resample(labels, grid_along(0, 6, 1.0), grid_along(0, 2, 3.0), how="nearest")
    assert out.ravel().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("spacing", "target"),
    [
        (
            (3.0, 0.7, 0.7),
            Grid(shape=(40, 20, 26), spacing=(1.1, 1.63, 1.63)),
        ),  # up in z, down in plane
        (
            (0.5, 0.7, 0.7),
            Grid(shape=(4, 50, 60), spacing=(1.7, 0.45, 0.51)),
        ),  # down in z, up in plane
        (
            (2.0, 0.7, 0.7),
            Grid(shape=(9, 16, 9), spacing=(2.9, 0.7, 3.1), origin=(3.3, 5.6, 4.1)),
        ),  # a crop
        (
            (2.0, 0.7, 0.7),
            Grid(shape=(12, 16, 9), spacing=(1.0, 0.7, 0.7), origin=(3.0, 5.6, 4.2)),
        ),  # z alone
    ],
)
def test_agrees_with_an_independent_interpolation(spacing: tuple, target: Grid) -> None:
    volume = np.random.default_rng(1).integers(-1024, 3000, (14, 32, 40)).astype(np.int16)
    source = Grid(shape=volume.shape, spacing=spacing)
    expected = peer_resample(volume, source, target, 1)
    assert (
        np.abs(resample(volume, source, target) - expected).max() <= 0.502
    )  # rounding, and float32
    exact = resample(volume.astype(np.float32), source, target)
    assert np.allclose(exact, expected, atol=2e-2)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("how", ["linear", "nearest"])
def test_identity_is_exact(dtype: type, how: str) -> None:
    volume = np.random.default_rng(2).integers(0, 255, (5, 6, 7)).astype(dtype)
    grid = Grid(shape=volume.shape, spacing=(0.5, 0.919921875, 0.919921875))
    out = resample(volume, grid, grid, how=how)
    assert out.dtype == dtype and np.array_equal(out, volume)


@pytest.mark.parametrize("value", [-32768, 32767])
def test_the_ends_of_int16_survive(value: int) -> None:
    volume = np.full((4, 9, 9), value, np.int16)
    source = Grid(shape=volume.shape, spacing=(2.0, 1.0, 1.0))
    assert (resample(volume, source, source.respaced((0.7, 1.7, 0.6))) == value).all()


def test_resampling_holds_a_few_slices_beside_the_result() -> None:
    volume = np.zeros((60, 256, 256), np.int16)
    source = Grid(shape=volume.shape, spacing=(1.0, 1.0, 1.0))
    tracemalloc.start()
    try:
        out = resample(volume, source, source.respaced((2.0, 2.0, 2.0)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < out.nbytes + 10 * volume[0].size * 4


def test_wrong_volumes_are_refused() -> None:
    grid = Grid(shape=(2, 2, 2), spacing=(1, 1, 1))
    with pytest.raises(TransformError, match=r"\(3, 2, 2\).*\(2, 2, 2\)"):
        resample(np.zeros((3, 2, 2), np.int16), grid, grid)
    with pytest.raises(TransformError, match="float64"):
        resample(np.zeros((2, 2, 2)), grid, grid)
    with pytest.raises(TransformError, match="undo paddings"):
        restore_labels(np.zeros((3, 2, 2), np.uint8), Mapping(native=grid, stage=grid))


# The way back


def test_outside_a_crop_everything_is_background() -> None:
    native = Grid(shape=(6, 6, 6), spacing=(1, 1, 1))
    mapping = Mapping(native=native, stage=native.crop((slice(2, 4),) * 3))
    full = np.ones((2, 2, 2), np.uint8)
    for restored in (restore_labels(full, mapping), restore_mask(full * 255, mapping)):
        assert restored.sum() == 8 and restored[2:4, 2:4, 2:4].all()
    assert restore_probability(full.astype(np.float16), mapping).sum() == 8


def test_interpolated_probabilities_restore_a_boundary_better_than_labels() -> None:
    spacing = (2.0, 1.0, 1.0)
    truth = ball((40, 80, 80), spacing, 30.0)
    native = Grid(shape=truth.shape, spacing=spacing)
    mapping = Mapping(native=native, stage=native.respaced((4.0, 4.0, 4.0)))
    smooth = resample(
        ndimage.uniform_filter(truth.astype(np.float32), (2, 4, 4)), mapping.native, mapping.stage
    )
    by_label = dice(restore_labels((smooth > 0.5).astype(np.uint8), mapping) > 0, truth > 0)
    by_probability = dice(restore_mask(smooth.astype(np.float16), mapping) > 0, truth > 0)
    assert by_probability > by_label + 0.01


@pytest.mark.parametrize(("dtype", "one"), [(np.float16, 1), (np.float32, 1), (np.uint8, 255)])
def test_restored_mask_is_the_restored_probability_cut(dtype: type, one: int) -> None:
    mapping = Mapping(native=grid_along(2, 4, 1.0), stage=grid_along(2, 2, 2.0))
    probability = along(2, [0, one], dtype)  # restored: 0, 1/4, 3/4, 1
    assert np.allclose(
        restore_probability(probability, mapping).ravel() / one, [0, 0.25, 0.75, 1], atol=2e-3
    )
    assert restore_mask(probability, mapping).ravel().tolist() == [0, 0, 1, 1]
    assert restore_mask(probability, mapping, threshold=0.2).ravel().tolist() == [0, 1, 1, 1]
    assert restore_mask(probability, mapping, threshold=0.8).ravel().tolist() == [0, 0, 0, 1]


# Masks, HU windows, mirroring


def test_boxes_and_slices_are_clamped() -> None:
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[1:3, 4, 2:8] = 2
    assert bounding_box(mask) == (slice(1, 3), slice(4, 5), slice(2, 8))
    assert bounding_box(mask, margin=2) == (slice(0, 5), slice(2, 7), slice(0, 8))
    assert kidney_slices(mask) == (1, 3) and kidney_slices(mask, 4) == (0, 6)
    for find in (bounding_box, kidney_slices):
        with pytest.raises(TransformError, match="empty"):
            find(np.zeros((2, 2, 2), np.uint8))


@pytest.mark.parametrize(
    ("spacing", "radius", "count"),
    [
        ((1.0, 1.0, 1.0), 1.0, 7),  # the voxel and its faces
        ((1.0, 1.0, 1.0), 1.5, 19),  # and its edges
        ((1.0, 1.0, 1.0), 1.8, 27),  # and its corners
        ((5.0, 1.0, 1.0), 1.0, 5),  # the next slice is too far
        ((5.0, 2.5, 5.0), 5.0, 9),  # 5 along y, and 2 along each other axis
        ((1.0, 1.0, 1.0), 0.0, 1),
    ],
)
def test_one_voxel_grows_to_a_ball_in_mm(spacing: tuple, radius: float, count: int) -> None:
    mask = np.zeros((7, 7, 7), np.uint8)
    mask[3, 3, 3] = 1
    assert dilate(mask, spacing, radius).sum() == count


def test_dilation_is_the_euclidean_distance_at_the_edges_too() -> None:
    mask = (np.random.default_rng(4).random((12, 30, 34)) < 0.002).astype(np.uint8)
    mask[0, 0, 0] = mask[-1, -1, -1] = 1
    spacing = (3.1, 0.83, 0.71)
    expected = ndimage.distance_transform_edt(mask == 0, sampling=spacing) <= 5.0
    assert np.array_equal(dilate(mask, spacing, 5.0), expected)
    assert not dilate(np.zeros((2, 3, 4), np.uint8), spacing, 5.0).any()
    assert dilate(np.eye(3, dtype=np.uint8)[None], (1.0, 1.0, 1.0), 9.0).all()  # beyond all faces


def test_hu_windows_on_paper() -> None:
    def seen(name: str, *hu: int) -> list[float]:
        values = HU_WINDOWS[name](torch.tensor(hu, dtype=torch.int16))
        assert values.dtype == torch.float32
        return values.tolist()

    assert seen("soft_tissue", -1000, -200, 50, 300, 3000) == [-1, -1, 0, 1, 1]
    assert seen("ancestor", -1000, -200, 50, 300, 3000) == [-1, -1, 0.25, 1, 1]
    assert seen("literal", 30, 40, 45, 50, 60) == [-1, -1, 0, 1, 1]
    assert seen("centre45_width350", -130, 45, 220) == [-1, 0, 1]
    assert seen("foreground", -500, 101, 304) == pytest.approx([-180 / 76.9, 0, 203 / 76.9])


def test_per_slice_every_slice_has_the_same_mean_and_spread() -> None:
    hu = torch.tensor([[[0.0, 100], [100, 0]], [[200, 300], [300, 200]], [[50, 50], [50, 50]]])
    seen = HU_WINDOWS["per_slice"](hu)
    assert seen.mean(dim=(1, 2)).abs().max() < 1e-5
    assert seen[:2].std(dim=(1, 2)).tolist() == pytest.approx([1, 1])
    assert seen[2].abs().max() < 1e-3  # a flat slice stays finite


@pytest.mark.parametrize(("field", "value"), [("low", 50), ("scale", 0)])
def test_impossible_hu_windows_are_refused_by_field(field: str, value: float) -> None:
    with pytest.raises(TransformError, match=rf"HuWindow\.{field}"):
        HuWindow(**{"low": 0, "high": 50, "shift": 0, "scale": 1, field: value})


def test_outside_the_mask_lies_the_lower_end() -> None:
    imaging = np.array([[[100, 100, -900]]], np.int16)
    hidden = hide_outside(imaging, np.array([[[1, 0, 1]]], np.uint8), HU_WINDOWS["foreground"])
    assert hidden.tolist() == [[[100, -79, -900]]] and hidden.dtype == np.int16


def test_mirrors_are_their_own_inverse() -> None:
    volume = np.arange(8).reshape(2, 2, 2)
    assert mirror(volume, "sagittal").ravel().tolist() == [1, 0, 3, 2, 5, 4, 7, 6]
    assert mirror(volume, "central").ravel().tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    for how in ("sagittal", "central"):
        assert np.array_equal(mirror(mirror(volume, how), how), volume)
    with pytest.raises(TransformError, match="diagonal"):
        mirror(volume, "diagonal")
