"""The synthetic cohort: geometry checkable on paper, labels, likeness to KiTS, bits, files."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from kitslib.data import canonical_affine, find_cases, load_case, read_labels, write_labels
from kitslib.phantom import (
    render_case,
    render_label_map,
    render_labels,
    write_cohort,
    write_rendered,
)
from kitslib.phantom.patient import Values
from kitslib.phantom.population import draw_ranks
from kitslib.phantom.scanner import Detector
from kitslib.phantom.scene import draw_case
from kitslib.phantom.shapes import (
    Capsule,
    Ellipsoid,
    Grid,
    blend,
    cover,
    draw_field,
    lattice,
    rotation,
    spline,
)

SMALL = {"matrix": 64, "spacing_z": (5.0,)}


def point(z: float, y: float, x: float):
    """A region of one point at patient (z, y, x) mm."""
    return lattice(np.array([z, y, x], float), np.zeros(3), 1e3)


def test_distances_on_the_axes() -> None:
    ball = Ellipsoid(center=np.array([1.0, 2, 3]), radii=np.full(3, 10.0))
    assert ball.distance(point(1, 2, 18)).flat[0] == pytest.approx(5, abs=1e-4)
    egg = Ellipsoid(center=np.zeros(3), radii=np.array([10.0, 20, 30]))
    assert egg.distance(point(15, 0, 0)).flat[0] == pytest.approx(5, abs=1e-4)
    turned = Ellipsoid(
        center=np.zeros(3), radii=np.array([10.0, 20, 30]), turn=rotation(x=np.pi / 2)
    )
    assert turned.distance(point(0, 15, 0)).flat[0] == pytest.approx(5, abs=1e-4)
    tube = Capsule(a=np.array([0.0, 0, 0]), b=np.array([10.0, 0, 0]), radius=(2, 4))
    assert tube.distance(point(5, 7, 0)).flat[0] == pytest.approx(
        4, abs=1e-5
    )  # radius 3 at the middle
    assert tube.distance(point(16, 0, 0)).flat[0] == pytest.approx(2, abs=1e-5)


def test_soft_edges_keep_the_volume() -> None:
    ball = Ellipsoid(center=np.array([0.2, 0.1, 0.4]), radii=np.full(3, 9.0))
    share = cover(ball.distance(lattice(np.zeros(3), np.full(3, 12.0), 1.0)), 1.0)
    assert share.sum() == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.01)
    assert cover(np.array([-0.5, -0.25, 0, 0.5], np.float32), 1.0).tolist() == [1, 0.75, 0.5, 0]
    canvas = np.full(2, -100, np.float32)
    blend(canvas, np.array([0.25, 1], np.float32), 100.0)
    assert canvas.tolist() == [-50, 100]


def test_spline_reproduces_lines_and_does_not_depend_on_the_region() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], (8, 8, 8)).copy()
    axes = (np.array([2.0, 3.25, 4.5]), np.array([3.0]), np.array([4.0]))
    values = spline(ramp, (0, 0, 0), (1, 1, 1), axes, periodic=False)
    assert values[:, 0, 0] == pytest.approx([2, 3.25, 4.5], abs=1e-5)
    field = draw_field(np.random.default_rng(0), 5.0)
    whole = lattice(np.zeros(3), np.full(3, 20.0), 2.0)
    part = lattice(np.array([4.0, 0, 0]), np.array([6.0, 10, 20]), 2.0)
    assert np.array_equal(field(whole)[9:16, 5:16, :], field(part))


def test_region_finds_a_turned_point() -> None:
    grid = Grid(
        shape=(4, 40, 50), spacing=(5.0, 2.0, 2.0), origin=(1.0, 20.0, 25.0), angle=np.pi / 2
    )
    slab = next(iter(grid.slabs(2.5)))
    assert slab.subs == 2
    assert slab.depths[:4].tolist() == [-6.25, -3.75, -1.25, 1.25]
    y, x = grid.plane
    row, col = np.unravel_index(np.argmin(np.hypot(y - 10, x - 6)), y.shape)
    _, rows, cols = slab.around(np.array([0.0, 10, 6]), np.full(3, 2.0)).box
    assert rows.start <= row < rows.stop
    assert cols.start <= col < cols.stop
    assert slab.around(np.array([500.0, 0, 0]), np.ones(3)) is None


def test_ranks_cover_every_distribution_evenly() -> None:
    ranks = [draw_ranks(5, index) for index in range(100)]
    for name in ("tumor", "kidney", "any_cyst", "slices"):
        values = np.sort([r[name] for r in ranks])
        assert np.abs(values - (np.arange(100) + 0.5) / 100).max() < 0.08, name
    assert draw_ranks(5, 7) == ranks[7] != draw_ranks(6, 7)


def test_contrast_phases() -> None:
    kidney = np.array([Values(np.random.default_rng(k)).kidney for k in range(400)])
    plain = kidney < 60
    assert 0.01 < plain.mean() < 0.06
    assert kidney[plain].min() >= 30
    assert (kidney[~plain].min() >= 90) and (kidney.max() <= 260)


def test_noise_has_its_strength_and_is_correlated() -> None:
    grid = Grid(shape=(6, 256, 256), spacing=(5.0, 0.78, 0.78), origin=(0.0, 128.0, 128.0))
    detector = Detector(np.random.default_rng(3), grid)
    noise = np.stack([detector.noise() for _ in range(6)])
    assert 7.5 < noise.std() < 31
    assert abs(noise.mean()) < 0.5
    neighbours = np.mean(noise[:, :, 1:] * noise[:, :, :-1]) / noise.var()
    assert neighbours > 0.15


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    return render_case(3, seed=11, **SMALL)


def test_case_is_ct_with_labels(case: tuple) -> None:
    imaging, labels, spacing = case
    assert (imaging.dtype, labels.dtype, imaging.shape) == (np.int16, np.uint8, labels.shape)
    assert labels.shape[1:] == (64, 64)
    assert spacing[0] == 5.0
    assert set(np.unique(labels)) <= {0, 1, 2, 3}
    assert (labels == 1).any() and (labels == 2).any()
    assert np.percentile(imaging, 5) == pytest.approx(-1000, abs=60)  # air
    assert imaging[labels == 0].max() > 300  # bone


def test_the_patient_lies_as_in_kits(case: tuple) -> None:
    imaging, labels, _ = case
    slices = np.flatnonzero((labels > 0).any((1, 2)))
    _, y, x = np.nonzero(labels == 1)
    column = np.percentile(
        imaging[slices, :, round(x.mean()) - 3 : round(x.mean()) + 4], 97, axis=(0, 2)
    )
    body = np.flatnonzero(column > -300)
    assert column.argmax() > body.mean() + 3  # the spine lies behind the middle of the body
    top = slice(max(0, slices[0] - 4), slices[0] + 3)
    soft = (imaging[top] > 0) & (imaging[top] < 250)
    middle = round((x.min() + x.max()) / 2)
    assert (
        soft[:, : y.max(), :middle].sum() > 1.2 * soft[:, : y.max(), middle:].sum()
    )  # liver: image left


def test_label_map_alone_is_the_cases(case: tuple) -> None:
    labels, spacing = render_label_map(3, seed=11, **SMALL)
    assert np.array_equal(labels, case[1])
    assert spacing == case[2]


def test_matrix_keeps_the_field_of_view() -> None:
    coarse, fine = (draw_case(4, seed=1, matrix=m)[0] for m in (64, 512))
    assert coarse.field_of_view == pytest.approx(fine.field_of_view)
    assert coarse.spacing[0] == fine.spacing[0]


def test_hard_cysts_are_complex_and_everywhere() -> None:
    for index in range(4):
        renal = draw_case(index, seed=0, cysts="hard", **SMALL)[2]
        assert renal.cysts[0].appearance.kind == "complex cyst"
        labels, spacing = render_label_map(index, seed=0, cysts="hard", **SMALL)
        assert (labels == 3).sum() * np.prod(spacing) / 1000 >= 0.5


def test_cohort_resembles_kits(shared: Path) -> None:
    with (shared / "kits_geometry.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kits19_kidney_ml"]]
    real = {
        "kidney": [float(r["kits19_kidney_ml"]) for r in rows],
        "tumor": [float(r["kits19_tumor_ml"]) for r in rows],
        "extent": [
            (int(r["kidney_last_slice"]) - int(r["kidney_first_slice"]) + 1)
            * float(r["spacing_z_mm"])
            for r in rows
        ],
    }
    ours: dict[str, list[float]] = {name: [] for name in real}
    cysts = []
    for index in range(60):
        labels, spacing = render_label_map(index, seed=3, matrix=96, spacing_z=(5.0,))
        ml = np.bincount(labels.ravel(), minlength=4) * np.prod(spacing) / 1000
        ours["kidney"].append(ml[1] + ml[3])
        ours["tumor"].append(ml[2])
        ours["extent"].append(np.count_nonzero((labels > 0).any((1, 2))) * spacing[0])
        cysts.append(ml[3] >= 0.5)
    for name, values in real.items():
        assert np.median(ours[name]) == pytest.approx(np.median(values), rel=0.2), name
        grid = np.sort(values + ours[name])
        steps = [np.searchsorted(np.sort(v), grid, "right") / len(v) for v in (values, ours[name])]
        assert np.abs(steps[0] - steps[1]).max() <= 0.25, name
    assert 0.33 <= np.mean(cysts) <= 0.5


def box_labels() -> np.ndarray:
    """Two boxes as kidneys, a tumour in the patient's right one, a cyst in the left one."""
    labels = np.zeros((20, 64, 64), np.uint8)
    labels[5:15, 32:42, 14:24] = 1
    labels[5:15, 32:42, 40:50] = 1
    labels[8:12, 34:40, 14:20] = 2
    labels[8:12, 34:40, 44:50] = 3
    return labels


def test_ct_for_given_labels() -> None:
    labels = box_labels()
    imaging = render_labels(labels, (5.0, 5.0, 5.0), seed=4, index=0)
    assert (imaging.dtype, imaging.shape) == (np.int16, labels.shape)
    assert np.array_equal(imaging, render_labels(labels, (5.0, 5.0, 5.0), seed=4, index=0))
    inside = imaging[6:14, 34:40, 42:44]
    assert 20 < np.median(inside) < 300
    assert np.median(imaging[:, 0, :]) < -900


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 8, 8), np.uint8), "empty map"),
        (np.full((4, 8, 8), 4, np.uint8), r"values 0\.\.3"),
        (np.ones((8, 8), np.uint8), "3-D array"),
    ],
)
def test_impossible_labels_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_labels(labels, (5.0, 2.0, 2.0), seed=0, index=0)


def test_ct_for_labels_that_the_coarse_grid_misses() -> None:
    labels = np.zeros((7, 40, 40), np.uint8)
    labels[5, 19, 19] = 1
    assert render_labels(labels, (1.0, 1.0, 1.0), seed=4, index=0).shape == labels.shape


def test_ct_for_labels_thinner_than_the_depths_grid() -> None:
    labels = np.repeat(box_labels()[8:9], 3, axis=0)
    assert render_labels(labels, (0.5, 5.0, 5.0), seed=4, index=0).shape == (3, 64, 64)


def test_ct_for_a_real_wide_label_map(shared: Path) -> None:
    labels, geometry = read_labels(shared / "kits23/dataset/case_00160/segmentation.nii.gz")
    labels = labels[::6, ::8, ::8]
    z, y, x = geometry.spacing
    imaging = render_labels(labels, (6 * z, 8 * y, 8 * x), seed=0, index=160)
    assert imaging.shape == labels.shape == (42, 64, 100)
    assert np.median(imaging[labels == 1]) > np.median(imaging[labels == 0]) + 100


def test_cohort_on_disk(tmp_path: Path) -> None:
    out, seen = tmp_path / "cohort", []
    names = write_cohort(
        out, cases=2, seed=7, **SMALL, progress=lambda done, total: seen.append((done, total))
    )
    assert names == ["case_00000", "case_00001"]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    found = find_cases(out)
    assert [c.case_id for c in found] == names
    assert found[0].record["synthetic"] is True
    loaded = load_case(found[1], "kits23")
    imaging, labels, spacing = render_case(1, seed=7, **SMALL)
    assert np.array_equal(loaded.imaging, imaging)
    assert np.array_equal(loaded.labels, labels)
    assert loaded.spacing == pytest.approx(spacing, rel=1e-6)
    folded, _ = read_labels(out / "case_00001/segmentation.nii.gz")
    assert np.array_equal(folded, np.where(labels == 3, 1, labels))
    record = json.loads((out / "kits.json").read_text())[1]
    assert record["voxel_spacing"]["z_spacing"] == 5.0
    assert record["volume_ml"]["tumor"] == pytest.approx(
        (labels == 2).sum() * np.prod(spacing) / 1000, abs=0.01
    )


def test_more_cases_and_more_jobs_give_the_same_bytes(tmp_path: Path) -> None:
    small = {"matrix": 32, "spacing_z": (5.0,)}
    write_cohort(tmp_path / "a", cases=1, seed=7, **small)
    write_cohort(tmp_path / "b", cases=2, seed=7, **small, jobs=2)
    for name in ("imaging", "segmentation", "segmentation_kits23"):
        first, second = (tmp_path / k / f"case_00000/{name}.nii.gz" for k in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_resumes_and_never_mixes_cohorts(tmp_path: Path) -> None:
    small = {"matrix": 32, "spacing_z": (5.0,)}
    write_cohort(tmp_path, cases=2, seed=7, **small)
    kept, lost = tmp_path / "case_00000/imaging.nii.gz", tmp_path / "case_00001"
    stamp = kept.stat().st_mtime_ns
    (lost / "synthetic.json").unlink()  # as if the case had not been finished
    write_cohort(tmp_path, cases=2, seed=7, **small)
    assert kept.stat().st_mtime_ns == stamp
    assert (lost / "synthetic.json").is_file()
    write_cohort(tmp_path, cases=1, seed=8, **small)
    assert kept.stat().st_mtime_ns != stamp
    assert not lost.exists()
    assert len(json.loads((tmp_path / "kits.json").read_text())) == 1


def test_a_case_half_written_by_a_killed_call_goes_after_an_hour(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".partial" / "case_00000.1", tmp_path / ".partial" / "case_00001.2"
    for part, age in ((dead, 4000), (alive, 0)):
        part.mkdir(parents=True)
        (part / "imaging.nii.gz").write_bytes(b"half")
        os.utime(part, (time.time() - age,) * 2)
    write_cohort(tmp_path, cases=1, seed=4, matrix=32, spacing_z=(10.0,))
    assert alive.is_dir() and not dead.exists()


def test_real_data_is_never_overwritten(tmp_path: Path) -> None:
    real = tmp_path / "case_00000"
    real.mkdir()
    write_labels(real / "segmentation.nii.gz", box_labels(), canonical_affine((5.0, 5.0, 5.0)))
    with pytest.raises(ValueError, match="never overwritten"):
        write_cohort(tmp_path, cases=1, seed=0, **SMALL)
    assert sorted(p.name for p in real.iterdir()) == ["segmentation.nii.gz"]


def test_folder_of_given_labels_becomes_a_cohort(tmp_path: Path) -> None:
    place = tmp_path / "in/case_00009"
    place.mkdir(parents=True)
    write_labels(place / "segmentation.nii.gz", box_labels(), canonical_affine((5.0, 5.0, 5.0)))
    out = tmp_path / "out"
    assert write_rendered(out, find_cases(tmp_path / "in"), seed=1) == ["case_00009"]
    case = load_case(find_cases(out)[0])
    assert case.imaging.shape == case.labels.shape == (20, 64, 64)
    assert np.array_equal(case.labels == 2, box_labels() == 2)
    with pytest.raises(ValueError, match="files"):
        write_rendered(out, [], seed=1)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"cases": 0}, "cases"),
        ({"seed": -1}, "seed"),
        ({"matrix": 16}, "matrix"),
        ({"spacing_z": (0.0,)}, "spacing_z"),
        ({"spacing_z": ()}, "spacing_z"),
        ({"cysts": "soft"}, "cysts"),
        ({"jobs": 0}, "jobs"),
    ],
)
def test_wrong_parameters_are_refused_by_name(tmp_path: Path, change: dict, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        write_cohort(tmp_path, **{"cases": 1, "seed": 0, **change})
