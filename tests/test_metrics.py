"""Scores against direct statements of the official rules."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest

from kitslib.evaluation import (
    KITS23_CLASSES,
    ScoreError,
    calibration_counts,
    calibration_error,
    cyst_false_positive_ml,
    dice,
    false_positive_ml,
    in_words,
    match_cases,
    rows_to_csv,
    rows_to_json,
    score_case,
    summarise,
    surface_distances,
    tumor_losses,
    volumes_ml,
)

SPACING = (3.0, 0.8, 0.7)


def volume(*labels: int) -> np.ndarray:
    """A column of voxels along z, (D, 1, 1)."""
    return np.array(labels, dtype=np.uint8).reshape(-1, 1, 1)


def random_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    shares = draws.dirichlet((3, 1, 1, 1))
    shares[draws.integers(1, 4)] *= draws.integers(0, 2)  # half of the pairs lack a class
    shares /= shares.sum()
    return tuple(draws.choice(4, size=(3, 4, 5), p=shares).astype(np.uint8) for _ in range(2))


def official_kits19(pred: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The challenge's two sums on KiTS19 labels, 0/0 being nan."""
    pred, truth = np.where(pred == 3, 1, pred), np.where(truth == 3, 1, truth)
    scores = []
    for threshold in (0, 1):
        a, b = pred > threshold, truth > threshold
        held = a.sum() + b.sum()
        scores.append(2 * np.logical_and(a, b).sum() / held if held else math.nan)
    return scores[0], scores[1]


def official_kits23_dice(pred: np.ndarray, truth: np.ndarray, labels: tuple[int, ...]) -> float:
    """The challenge's Dice of a nested class from its counts of voxels, empty against empty 1."""
    true_positive = false_positive = false_negative = 0
    for found, wanted in zip(pred.flat, truth.flat, strict=True):
        true_positive += found in labels and wanted in labels
        false_positive += found in labels and wanted not in labels
        false_negative += found not in labels and wanted in labels
    wrong = false_positive + false_negative
    return 2 * true_positive / (2 * true_positive + wrong) if true_positive or wrong else 1.0


def brute_distances(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """All distances in mm between the surface elements of two masks, (of one, of other)."""
    cells = []
    for mask in (one, other):
        padded = np.pad(mask, 1)
        starts = product(*(range(n - 1) for n in padded.shape))
        cells.append([s for s in starts if 0 < padded[tuple(slice(i, i + 2) for i in s)].sum() < 8])
    steps = np.array(cells[0])[:, None] - np.array(cells[1])[None]
    return np.sqrt(((steps * np.array(SPACING)) ** 2).sum(axis=-1)), cells[0]


def test_dice_on_paper_and_with_empty_masks():
    a, b = volume(1, 1, 1, 0) > 0, volume(0, 1, 1, 1) > 0
    nothing = np.zeros_like(a)
    assert dice(a, b) == pytest.approx(4 / 6)
    assert dice(a, nothing) == 0.0
    assert dice(a, nothing) == 0.0
    assert math.isnan(dice(nothing, nothing))
    with pytest.raises(ScoreError, match="shape"):
        dice(a, b[1:])


def test_kits19_equals_the_official_sums_on_200_pairs():
    undefined = 0
    for seed in range(200):
        pred, truth = random_pair(seed)
        kidney, tumor = official_kits19(pred, truth)
        row = score_case(pred, truth, SPACING)
        ours = {name: row[name] for name in ("tk_dice", "tumor_dice", "composite")}
        expected = {"tk_dice": kidney, "tumor_dice": tumor, "composite": (kidney + tumor) / 2}
        assert ours == pytest.approx(expected, nan_ok=True), seed
        undefined += math.isnan(tumor)
    assert 0 < undefined < 200


def test_kits23_dice_equals_its_nested_classes_on_200_pairs():
    for seed in range(200):
        pred, truth = random_pair(seed)
        ours = score_case(pred, truth, SPACING)
        for name, (labels, tolerance_mm) in KITS23_CLASSES.items():
            a, b = np.isin(pred, labels), np.isin(truth, labels)
            expected = official_kits23_dice(pred, truth, labels)
            assert ours[f"kits23_{name}_dice"] == pytest.approx(expected), (seed, name)
            expected = surface_distances(a, b, SPACING).dice(tolerance_mm, empty=1.0)
            assert ours[f"kits23_{name}_surface_dice"] == pytest.approx(expected), (seed, name)


def test_kits23_counts_empty_against_empty_as_one():
    pred, truth = volume(1, 1, 0), volume(1, 1, 2)
    scores = score_case(pred, truth, SPACING)
    assert scores["kits23_tumor_dice"] == scores["kits23_tumor_surface_dice"] == 0.0
    scores = score_case(pred, pred, SPACING)
    assert scores["kits23_tumor_dice"] == scores["kits23_tumor_surface_dice"] == 1.0
    assert scores["kits23_dice"] == scores["kits23_surface_dice"] == 1.0
    nothing = np.zeros_like(pred)
    assert score_case(nothing, nothing, SPACING)["kits23_surface_dice"] == 1.0


def test_surface_area_of_shapes_on_paper():
    def area(mask: np.ndarray, spacing: tuple[float, float, float]) -> float:
        return surface_distances(mask, mask, spacing).pred_area.sum()

    voxel = np.ones((1, 1, 1), bool)
    assert area(voxel, (1, 1, 1)) == pytest.approx(math.sqrt(3))  # an octahedron of edge 1/√2
    # a box n³: 6 faces of (n-1)², 12 bevelled edges of (n-1)/√2, 8 corners of √3/8
    box = np.ones((5, 5, 5), bool)
    assert area(box, (1, 1, 1)) == pytest.approx(6 * 16 + 12 * 4 / math.sqrt(2) + math.sqrt(3))
    # one voxel of (z, y, x) = (2, 1, 1): 8 triangles with area vector (yx, zx, zy)/8 = (1, 2, 2)/8
    assert area(voxel, (2, 1, 1)) == pytest.approx(3.0)


def test_area_table_equals_the_reference_library():
    """Area of all 2×2×2 masks together, as DeepMind's surface-distance 0.1 gives it."""
    corners = np.array(list(product((0, 1), repeat=3)))
    total = 0.0
    for code in range(256):
        mask = np.zeros((2, 2, 2), bool)
        mask[tuple(corners[[bool(code >> bit & 1) for bit in range(8)]].T)] = True
        total += surface_distances(mask, mask, SPACING).pred_area.sum()
    assert total == pytest.approx(4243.324368341467, rel=1e-12)


def test_surface_dice_and_distances_equal_brute_force():
    for seed in range(12):
        draws = np.random.default_rng(seed)
        pred, truth = (draws.random((3, 5, 4)) < 0.3 for _ in range(2))
        found = surface_distances(pred, truth, SPACING)
        there, cells = brute_distances(pred, truth)
        np.testing.assert_allclose(np.sort(found.pred_mm), np.sort(there.min(axis=1)), atol=1e-12)
        np.testing.assert_allclose(np.sort(found.truth_mm), np.sort(there.min(axis=0)), atol=1e-12)
        assert found.pred_area.size == len(cells)


@pytest.mark.parametrize(
    ("seed", "expected", "hd95"),
    [
        (0, 0.518927580507633, 6.09343909463285),
        (1, 0.4893046803582547, 6.053098380168622),
        (2, 0.5988924569393866, 6.053098380168622),
        (3, 0.5235847778121279, 6.212889826803627),
    ],
)
def test_surface_scores_equal_the_reference_library(seed: int, expected: float, hd95: float):
    """Numbers of DeepMind's surface-distance 0.1 on the same masks."""
    draws = np.random.default_rng(seed)
    truth, pred = (draws.random((6, 9, 8)) < 0.08 for _ in range(2))
    truth[4:] = False
    found = surface_distances(pred, truth, SPACING)
    assert found.dice(1.0) == pytest.approx(expected, rel=1e-12)
    assert found.hd95_mm() == pytest.approx(hd95, rel=1e-12)


def test_surface_scores_equal_the_reference_library_where_it_is_installed():
    reference = pytest.importorskip(
        "surface_distance", reason="the package surface-distance is not installed"
    )
    for seed in range(50):
        draws = np.random.default_rng(seed)
        pred, truth = draws.random((2, *draws.integers(2, 12, 3))) < 0.4
        theirs = reference.compute_surface_distances(truth, pred, SPACING)
        expected = reference.compute_surface_dice_at_tolerance(theirs, 1.1)
        ours = surface_distances(pred, truth, SPACING).dice(1.1)
        assert ours == pytest.approx(expected, rel=1e-12)


def test_hd95_on_paper():
    one, other = volume(1, 0, 0, 0) > 0, volume(0, 0, 0, 1) > 0
    # surface elements at half-voxels: 0 and 1 against 3 and 4, so 3 and 2 steps of 2 mm
    spacing = (2.0, 1.0, 1.0)
    assert surface_distances(one, other, spacing).hd95_mm() == pytest.approx(6.0)
    assert surface_distances(one, one, spacing).hd95_mm() == 0.0
    assert math.isnan(surface_distances(one, np.zeros_like(one), spacing).hd95_mm())


def test_tolerance_counts_a_distance_that_equals_it():
    one, other = volume(1, 1, 1, 1, 0) > 0, volume(1, 1, 1, 1, 1) > 0
    spacing = (0.1, 1.0, 1.0)
    found = surface_distances(one, other, spacing)
    assert found.dice(0.1) == 1.0
    assert found.dice(0.0999) < 1.0


def test_volumes_and_false_positives_on_paper():
    spacing = (10.0, 10.0, 5.0)  # half a millilitre a voxel
    pred, truth = volume(2, 2, 2, 2, 1, 0), volume(0, 3, 3, 2, 2, 1)
    expected = {"kidney": 0.5, "kidney_and_masses": 2.5, "tumor": 1.0, "cyst": 1.0}
    assert volumes_ml(truth, spacing) == expected
    assert false_positive_ml(pred, truth, spacing) == pytest.approx(1.5)
    assert cyst_false_positive_ml(pred, truth, spacing) == pytest.approx(1.0)
    row = score_case(pred, truth, spacing, case_id="case_00000")
    assert (row["tumor_fp_ml"], row["cyst_fp_ml"]) == (1.5, 1.0)
    assert (row["kidney_ml"], row["kidney_truth_ml"]) == (0.5, 0.5)
    assert (row["kidney_and_masses_ml"], row["kidney_and_masses_truth_ml"]) == (2.5, 2.5)
    assert (row["tumor_ml"], row["tumor_truth_ml"]) == (2.0, 1.0)
    assert (row["cyst_ml"], row["cyst_truth_ml"]) == (0.0, 1.0)
    assert row["tumor_dice"] == pytest.approx(2 * 1 / 6)
    assert row["kits23_masses_dice"] == pytest.approx(2 * 3 / 8)


def test_what_cannot_be_scored_is_refused_with_the_case():
    good = volume(0, 1, 2, 3)
    for pred, message in (
        (volume(0, 1, 2), r"case_00007.*\(3, 1, 1\).*one grid"),
        (volume(0, 1, 2, 4), r"case_00007: prediction has the labels \[4\]"),
        (good.astype(np.int16) - 1, r"case_00007: prediction has the labels \[-1\]"),
        (good.astype(float), "case_00007: prediction must hold whole-number labels"),
    ):
        with pytest.raises(ScoreError, match=message):
            score_case(pred, good, SPACING, case_id="case_00007")
    with pytest.raises(ScoreError, match="truth has the labels"):
        score_case(good, good + 9, SPACING)
    with pytest.raises(ScoreError, match="three positive lengths"):
        score_case(good, good, (0.0, 1.0, 1.0))


def test_cases_on_one_side_only_are_named():
    assert match_cases(["b", "a"], ["a", "b"]) == ["a", "b"]
    assert match_cases(["b"], ["a", "b"], subset=True) == ["b"]
    with pytest.raises(ScoreError, match="no truth for c; no prediction for b"):
        match_cases(["a", "c"], ["a", "b"])
    with pytest.raises(ScoreError, match=r"no truth for c$"):
        match_cases(["a", "c"], ["a", "b"], subset=True)


def test_known_disagreement_of_two_label_versions(shared: Path):
    for case, kidney in (("case_00023", 0.98), ("case_00121", 0.97)):
        old, new = (
            nibabel.load(shared / folder / case / "segmentation.nii.gz")
            for folder in ("kits19/data", "kits23/dataset")
        )
        row = score_case(
            np.asarray(old.dataobj).astype(np.uint8),
            np.asarray(new.dataobj).astype(np.uint8),
            tuple(float(s) for s in new.header.get_zooms()),
            case_id=case,
        )
        assert row["tumor_dice"] < 0.05, case
        assert row["tk_dice"] == pytest.approx(kidney, abs=0.01), case


def test_a_large_volume_is_scored_within_20_s():
    truth = np.zeros((600, 512, 512), dtype=np.uint8)
    z, y, x = np.ogrid[-1:1:200j, -1:1:120j, -1:1:120j]
    ball = z**2 + y**2 + x**2
    organ = (ball < 1).astype(np.uint8) + (ball < 0.2)
    for start in (110, 300):
        truth[200:400, 200:320, start : start + 120] = organ
    pred = np.roll(truth, (2, 3, 3), axis=(0, 1, 2))
    start = time.perf_counter()
    row = score_case(pred, truth, (0.5, 0.8, 0.8))
    assert time.perf_counter() - start < 20
    assert 0.9 < row["tk_dice"] < 1
    assert 0 < row["kits23_surface_dice"] < 1


def test_summary_and_formats_agree():
    pairs = {
        "case_00001": (volume(1, 2, 2, 0), volume(1, 2, 1, 0)),
        "case_00002": (volume(1, 1), volume(1, 1)),
    }
    rows = [score_case(*pair, SPACING, case_id=case) for case, pair in pairs.items()]
    metrics = summarise(rows)["metrics"]
    assert metrics["tk_dice"]["mean"] == 1.0
    tumor = metrics["tumor_dice"]
    assert (tumor["mean"], tumor["n"], tumor["undefined"]) == (pytest.approx(2 / 3), 1, 1)
    read = list(csv.DictReader(io.StringIO(rows_to_csv(rows))))
    assert float(read[0]["tumor_dice"]) == rows[0]["tumor_dice"]
    assert read[1]["tumor_dice"] == ""
    data = json.loads(rows_to_json(rows, summarise(rows)))
    assert data["cases"][1]["tumor_dice"] is None
    assert data["summary"]["metrics"]["tumor_dice"]["ci"] == [None, None]
    assert data["summary"]["n"] == 2
    assert "only 2 cases" in summarise(rows)["warning"]
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


def test_a_network_that_says_what_is_true_is_calibrated() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    honest = calibration_counts(p, rng.random(p.size) < p)
    assert honest.shape == (3, 10) and honest[0].sum() == p.size
    assert calibration_error(honest) < 0.01
    boastful = calibration_counts(p, rng.random(p.size) < p / 2)
    assert calibration_error(boastful) == pytest.approx(0.25, abs=0.01)
    assert (
        calibration_error(calibration_counts(np.ones(4), np.array([True, True, False, False])))
        == 0.5
    )
    assert math.isnan(calibration_error(np.zeros((3, 10))))


def test_every_lost_voxel_of_a_tumour_has_its_one_cause() -> None:
    truth = volume(0, 2, 2, 2, 2, 2, 1, 1)
    kidney = volume(0, 0, 1, 1, 1, 1, 1, 1)
    tumor = volume(0, 0, 0, 1, 1, 1, 1, 0)
    labels = volume(0, 0, 1, 1, 2, 2, 2, 1)
    found = tumor_losses(truth, kidney, tumor, labels, (10.0, 10.0, 10.0))
    assert found == {
        "outside_kidney": 0.2,
        "not_seen": 0.2,
        "dropped": 0.2,
        "found": 0.4,
        "false_ml": 1.0,
    }
    said = in_words({"case": "case_00001", "tumor_dice": 0.5, "tumor_truth_ml": 5.0, **found})
    assert (
        "Of 5.0 ml of tumour 20% lie outside" in said and "1.0 ml are false-positive tumour" in said
    )
    none = tumor_losses(volume(0, 1), volume(0, 1), volume(0, 1), volume(0, 2), SPACING)
    assert math.isnan(none["found"]) and none["false_ml"] > 0
    assert "no labelled tumour" in in_words(
        {"case": "a", "tumor_dice": 0.0, "tumor_truth_ml": 0.0, **none}
    )
