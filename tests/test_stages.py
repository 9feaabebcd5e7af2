"""The grids of the two stages, what each network sees, and the way back to the scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_transforms import ball, dice, peer_resample

from kitslib.config import ConfigError, KidneyGrid, TumorGrid
from kitslib.data import (
    kidney_input,
    kidney_mapping,
    read_labels,
    stage_labels,
    tumor_input,
    tumor_mapping,
)
from kitslib.transforms import (
    Grid,
    TransformError,
    averaged,
    body_box,
    restore_labels,
    restore_mask,
)


def test_kidney_grid_of_the_odd_case_keeps_its_aspect() -> None:
    mapping = kidney_mapping((50, 512, 796), (5.0, 0.75, 0.75), KidneyGrid())
    assert mapping.stage == Grid(shape=(125, 256, 398), spacing=(2.0, 1.5, 1.5))


def test_kidney_input_of_a_demo_size() -> None:
    volume, mapping = kidney_input(
        np.ones((9, 64, 64), np.int16), (4.0, 1.5, 1.5), KidneyGrid(spacing_z=3, matrix=32)
    )
    assert volume.shape == mapping.stage.shape == (12, 32, 32) and mapping.stage.spacing == (
        3,
        3,
        3,
    )


def test_tumor_box_is_the_kidneys_and_their_margin() -> None:
    mask = np.zeros((20, 50, 60), np.uint8)
    mask[8:12, 20:30, 10:40] = 1  # 24..36 mm, 20..30 mm, 10..40 mm
    mapping = tumor_mapping(
        mask, (3.0, 1.0, 1.0), TumorGrid(region="box", margin_mm=6, mask_dilation_mm=5)
    )
    assert mapping.stage == Grid(shape=(24, 22, 42), spacing=(1, 1, 1), origin=(18, 14, 4))
    slices = tumor_mapping(mask, (3.0, 1.0, 1.0), TumorGrid(region="slice", margin_mm=6))
    assert slices.stage == Grid(shape=(24, 50, 60), spacing=(1, 1, 1), origin=(18, 0, 0))
    coarse = tumor_mapping(
        mask, (3.0, 1.0, 1.0), TumorGrid(region="box", spacing_z=3, spacing_xy=2, margin_mm=15)
    )
    # z 9..51 mm of 3 mm, y 5..45 mm of 2 mm: voxels 2 to 22, x clamped to 0..55 mm: voxels 0 to 27
    assert coarse.stage == Grid(shape=(14, 21, 28), spacing=(3, 2, 2), origin=(9, 4, 0))


def test_tumor_input_leaves_hu_and_grows_the_mask() -> None:
    imaging = np.arange(20 * 30 * 30, dtype=np.int16).reshape(20, 30, 30)
    kidney = np.zeros(imaging.shape, np.uint8)
    kidney[10, 15, 15] = 2  # every label above 0 is kidney
    volume, mask, mapping = tumor_input(
        imaging, kidney, (1.0, 1.0, 1.0), TumorGrid(region="box", margin_mm=4, mask_dilation_mm=1)
    )
    assert np.array_equal(volume, imaging[6:15, 11:20, 11:20]) and volume.dtype == np.int16
    assert mask.dtype == np.uint8 and mask.sum() == 7 and mask[4, 4, 4] == 1
    assert mapping.stage.origin == (6, 11, 11)


def test_an_empty_kidney_mask_is_refused() -> None:
    empty = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(TransformError, match="empty"):
        tumor_input(empty.astype(np.int16), empty, (1.0, 1.0, 1.0), TumorGrid())


@pytest.mark.parametrize("field", ["spacing_z", "margin_mm"])
@pytest.mark.parametrize("settings", [KidneyGrid, TumorGrid])
def test_settings_name_the_field_that_is_wrong(settings: type, field: str) -> None:
    with pytest.raises(ConfigError, match=rf"{settings.__name__}\.{field}.*-1"):
        settings(**{field: -1})


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="would cut the mask"):
        TumorGrid(margin_mm=3, mask_dilation_mm=5)
    with pytest.raises(ConfigError, match="region"):
        TumorGrid(region="patch")
    with pytest.raises(ConfigError, match="matrix"):
        KidneyGrid(matrix=96.5)


def test_a_crop_at_native_spacing_comes_back_exactly() -> None:
    labels = np.zeros((9, 20, 20), np.uint8)
    labels[3:6, 5:12, 6:15] = np.random.default_rng(3).integers(0, 4, (3, 7, 9))
    labels[3:6, 5, 6] = 1
    spacing = (2.0, 0.75, 0.75)
    mapping = tumor_mapping(
        labels, spacing, TumorGrid(spacing_z=2, margin_mm=3, mask_dilation_mm=0)
    )
    staged = stage_labels(labels, mapping)
    assert staged.size < labels.size and np.array_equal(restore_labels(staged, mapping), labels)


@pytest.mark.parametrize("stage", ["kidney", "tumor"])
@pytest.mark.parametrize("spacing", [(5.0, 0.8, 0.8), (0.5, 0.8, 0.8)])
def test_round_trip_loses_what_an_independent_resampling_loses(stage: str, spacing: tuple) -> None:
    shape = (round(80 / spacing[0]), 64, 80)
    labels = ball(shape, spacing, 24.0)
    if stage == "kidney":
        mapping = kidney_mapping(shape, spacing, KidneyGrid(matrix=24))
    else:
        mapping = tumor_mapping(labels, spacing, TumorGrid(spacing_xy=1.3))
    there = peer_resample(labels, mapping.native, mapping.stage, 0)
    ceiling = dice(peer_resample(there, mapping.stage, mapping.native, 0) > 0.5, labels > 0)
    ours = dice(restore_labels(stage_labels(labels, mapping), mapping) > 0, labels > 0)
    assert ceiling < 1 and ours >= ceiling - 1e-12


@pytest.mark.parametrize("case_id", ["case_00160", "case_00061"])
def test_real_label_maps_keep_their_kidneys(shared: Path, case_id: str) -> None:
    labels, geometry = read_labels(shared / "kits19" / "data" / case_id / "segmentation.nii.gz")
    mapping = tumor_mapping(
        labels, geometry.spacing, TumorGrid()
    )  # in plane native, z finer than on disk
    assert np.array_equal(restore_labels(stage_labels(labels, mapping), mapping), labels)
    coarse = kidney_mapping(labels.shape, geometry.spacing, KidneyGrid())
    assert dice(restore_labels(stage_labels(labels, coarse), coarse) > 0, labels > 0) > 0.97


@pytest.mark.parametrize("first", [20, 21])
def test_labels_stay_where_they_are_at_a_ratio_of_two(first: int) -> None:
    """512² to 256²: every pixel of the stage lies half-way between two of the scan."""
    labels = np.zeros((6, 64, 64), np.uint8)
    labels[1:5, first : first + 20, first : first + 12] = 1
    labels[2:4, first + 4 : first + 10, first + 4 : first + 8] = 2
    mapping = kidney_mapping(labels.shape, (2.0, 0.8, 0.8), KidneyGrid(spacing_z=2.0, matrix=32))
    staged = stage_labels(labels, mapping)
    for value in (1, 2):
        there = np.argwhere(labels == value).mean(axis=0) * (2.0, 0.8, 0.8) + (1.0, 0.4, 0.4)
        here = np.argwhere(staged == value).mean(axis=0) * (2.0, 1.6, 1.6) + (1.0, 0.8, 0.8)
        assert np.abs(here - there).max() < 0.1


@pytest.mark.parametrize("case_id", ["case_00004", "case_00013"])
def test_real_label_maps_lose_little_to_half_the_pixels(shared: Path, case_id: str) -> None:
    labels, geometry = read_labels(shared / "kits19" / "data" / case_id / "segmentation.nii.gz")
    kidney = (labels > 0).astype(np.uint8)
    mapping = kidney_mapping(labels.shape, geometry.spacing, KidneyGrid())
    staged = stage_labels(kidney, mapping)
    assert dice(restore_mask(255 * staged, mapping) > 0, kidney > 0) > 0.985
    moved = centre_mm(staged, mapping.stage.spacing) - centre_mm(kidney, geometry.spacing)
    assert np.abs(moved[1:]).max() < 0.1


def centre_mm(mask: np.ndarray, spacing: tuple) -> np.ndarray:
    return (np.argwhere(mask).mean(axis=0) + 0.5) * spacing


def test_a_scan_multiplied_by_its_mask_blends_with_nothing_at_the_edge() -> None:
    scan, mask = np.full((8, 20, 20), 100, np.int16), np.zeros((8, 20, 20), np.uint8)
    mask[2:6, 5:15, 5:15] = 1
    how = {"spacing_z": 2.0, "spacing_xy": 1.5, "region": "box", "mask_dilation_mm": 0.0}
    after, kept, _ = tumor_input(scan, mask, (2.0, 1.0, 1.0), TumorGrid(**how))
    before, ones, _ = tumor_input(scan, mask, (2.0, 1.0, 1.0), TumorGrid(masking="before", **how))
    assert (after == 100).all() and 0 < kept.mean() < 1
    assert ones.all() and before.min() == 0 and before.max() == 100
    assert np.unique(before).size > 2  # between the two at the edge


def patient(shape: tuple = (30, 160, 200), spacing: tuple = (5.0, 2.5, 2.5)) -> np.ndarray:
    """A body of 300 x 200 mm with lungs above and kidneys, over a table's two sheets."""
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    y, x = (y - 70) * spacing[1], (x - 100) * spacing[2]
    scan = np.full(shape, -1000, np.int16)
    body = np.broadcast_to((y / 100) ** 2 + (x / 150) ** 2 < 1, shape)
    scan[body] = 40
    lung = (z < 6) & ((y / 70) ** 2 + ((np.abs(x) - 60) / 50) ** 2 < 1)
    scan[lung] = -850
    kidney = (np.abs(z - 17) < 8) & (((y - 30) / 25) ** 2 + ((np.abs(x) - 70) / 30) ** 2 < 1)
    scan[kidney] = 180
    scan[:, 113:115, 10:190] = 0
    scan[:, 128:130, 10:190] = -100
    return scan


RELEASE_GRIDS = (
    KidneyGrid(spacing_z=4.0, spacing_xy=4.0, average=True),
    TumorGrid(spacing_z=3.0, spacing_xy=3.0, region="box", average=True),
)


def test_the_body_is_found_beside_its_table() -> None:
    scan = patient()
    z, y, x = body_box(scan, (5.0, 2.5, 2.5))
    assert (z.start, z.stop) == (0, 30)
    assert 28 <= y.start <= 31 and 109 <= y.stop <= 113  # the body ends at row 110
    assert 37 <= x.start <= 41 and 159 <= x.stop <= 163


@pytest.mark.parametrize("value", [-1000, -1024, -3024])
@pytest.mark.parametrize(
    "air", [((0, 0), (61, 40), (33, 77)), ((10, 10), (0, 0), (0, 0)), ((3, 7), (5, 5), (1, 9))]
)
def test_air_around_a_patient_changes_nothing(air: tuple, value: int) -> None:
    scan, spacing = patient(), (5.0, 2.5, 2.5)
    kidney = (scan == 180).astype(np.uint8)
    padded, mask = np.pad(scan, air, constant_values=value), np.pad(kidney, air)
    first, second = RELEASE_GRIDS
    plain, there = kidney_input(scan, spacing, first)
    wide, here = kidney_input(padded, spacing, first)
    assert plain.shape == wide.shape and np.abs(plain - wide).max() <= 1
    moved = np.array(here.stage.origin) - there.stage.origin
    assert np.allclose(moved, np.array([before for before, _ in air]) * spacing)
    image, inside, mapping = tumor_input(scan, kidney, spacing, second)
    image_wide, inside_wide, wider = tumor_input(padded, mask, spacing, second)
    assert np.abs(image - image_wide).max() <= 1 and np.array_equal(inside, inside_wide)
    back = restore_mask(255 * inside, mapping)
    assert np.array_equal(np.pad(back, air), restore_mask(255 * inside_wide, wider))


def test_arms_and_two_legs() -> None:
    scan, spacing = patient(), (5.0, 2.5, 2.5)
    _, y, x = body_box(scan, spacing)
    arms = scan.copy()
    arms[:, 50:80, 4:24] = 40
    assert body_box(arms, spacing) == (slice(0, 30), y, x)  # apart from the body: left out
    legs = np.concatenate([scan, np.full_like(scan[:10], -1000)])
    legs[30:, 40:100, 45:90] = 40
    legs[30:, 40:100, 110:155] = 40
    assert body_box(legs, spacing) == (slice(0, 40), y, x)  # one piece with the trunk


def test_a_scan_of_air_is_its_own_box() -> None:
    scan = np.full((4, 6, 5), -1000, np.int16)
    assert body_box(scan, (1.0, 1.0, 1.0)) == (slice(0, 4), slice(0, 6), slice(0, 5))


def test_a_grid_is_bounded() -> None:
    with pytest.raises(TransformError, match="is the spacing right"):
        kidney_mapping((600, 512, 512), (4.0, 3.0, 3.0), KidneyGrid(spacing_z=1, spacing_xy=1))
    for grid in (KidneyGrid(spacing_z=5, matrix=80), RELEASE_GRIDS[0]):
        with pytest.raises(TransformError, match="which axis is which"):
            kidney_mapping((18, 122, 1), (5.0, 1.0, 1.0), grid)


def test_blocks_are_averaged_and_keep_their_place() -> None:
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4) * 10
    volume[0, 0, 0] = -3024  # counts as air
    source = Grid(shape=(2, 3, 4), spacing=(1.0, 1.0, 1.0), origin=(5.0, 0.0, 0.0))
    target = Grid(shape=(1, 2, 2), spacing=(2.0, 2.5, 2.0), origin=(5.0, 0.0, 0.0))
    means, grid = averaged(volume, source, target)
    assert grid == Grid(shape=(1, 2, 2), spacing=(2.0, 2.0, 2.0), origin=(5.0, 0.0, 0.0))
    corner = (-1024 + 10 + 40 + 50 + 120 + 130 + 160 + 170) / 8
    # the last row of blocks holds one row of voxels
    assert np.array_equal(means, [[[round(corner), 105], [145, 165]]])
    same, fine = averaged(volume, source, source)
    assert same is volume and fine is source
