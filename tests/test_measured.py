"""A case by numbers, and the overlap of its tissues' HU."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from kitslib.data import canonical_affine, find_cases, write_imaging, write_labels
from kitslib.evaluation import histogram_overlap, hu_overlaps, overlap_rows, pooled_hu
from kitslib.phantom import measure_case


def write_case(folder: Path, *, imaging: bool = True) -> None:
    """8 slices of fat with two kidneys of 150 HU on four of them and a tumour of 90 HU in one."""
    labels = np.zeros((8, 60, 60), np.uint8)
    labels[2:6, 25:35, 8:18], labels[2:6, 25:35, 42:52] = 1, 1
    labels[3, 26:28, 9:14] = 2
    hu = np.full(labels.shape, -100, np.int16)
    hu[labels == 1], hu[labels == 2] = 150, 90
    affine = canonical_affine((5.0, 2.0, 2.0))  # a voxel has 0.02 ml
    write_labels(folder / "segmentation.nii.gz", labels, affine)
    if imaging:
        write_imaging(folder / "imaging.nii.gz", hu, affine)


def test_a_case_is_measured_on_paper(tmp_path: Path) -> None:
    write_case(tmp_path / "case_00000")
    (item,) = find_cases(tmp_path)
    found = measure_case(item, labels="kits19")
    assert found.row["case"] == "case_00000" and found.row["slices"] == 8
    assert found.row["kidney_ml"] == pytest.approx(790 * 0.02), "label 1 alone"
    assert found.row["kidney_and_masses_ml"] == pytest.approx(800 * 0.02)
    assert found.row["tumor_ml"] == pytest.approx(10 * 0.02) and found.row["cyst_ml"] == 0
    assert found.row["kidney_slices"] == 0.5 and found.row["cysts_known"] is False
    assert math.isnan(found.geometry["cyst_ml"]) and found.geometry["extent_mm"] == 20.0
    assert found.medians["kidney"] == 150 and found.medians["fat"] == -100
    assert {name: len(hu) for name, hu in found.sample(20).items()} == {
        "kidney": 20,
        "tumor": 10,
        "cyst": 0,
        "fat": 20,
    }
    again = found.sample(20)["kidney"]
    np.testing.assert_array_equal(found.sample(20)["kidney"], again)


def test_labels_alone_have_no_hu(tmp_path: Path) -> None:
    write_case(tmp_path / "case_00000", imaging=False)
    found = measure_case(find_cases(tmp_path)[0], labels="kits19")
    assert found.hu == {} and hu_overlaps(found.hu) == {}
    assert all(math.isnan(median) for median in found.medians.values())


def test_overlaps_of_a_case_and_of_all() -> None:
    even, half = np.arange(0, 200), np.arange(100, 300)
    few = np.zeros(5)
    hu = {"kidney": even, "cyst": half, "tumor": even, "fat": few}
    overlaps = hu_overlaps(hu)
    assert overlaps["kidney_cyst_overlap"] == histogram_overlap(even, half) == pytest.approx(0.5)
    assert overlaps["kidney_tumor_overlap"] == 1 and math.isnan(overlaps["kidney_fat_overlap"])
    pooled = pooled_hu([hu, {}, {"kidney": even}])
    assert {name: len(values) for name, values in pooled.items()} == {
        "kidney": 400,
        "cyst": 200,
        "tumor": 200,
        "fat": 5,
    }
    rows = overlap_rows([overlaps, overlaps, {}], pooled)
    assert [row["pair"] for row in rows][:2] == ["kidney and cyst", "cyst and tumour"]
    assert [row["n"] for row in rows] == [2, 2, 2, 0]
    assert rows[0]["mean"] == pytest.approx(0.5) and math.isnan(rows[3]["mean"])
    assert math.isnan(overlap_rows([], {})[0]["pooled"])
