"""What the way to the grids costs is 0 where nothing changes, and is measured case by case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data import canonical_affine, find_cases, write_imaging, write_labels
from kitslib.evaluation import CEILINGS, ceilings

SPACING = (2.0, 2.0, 2.0)
SAME = {
    "kidney_grid": KidneyGrid(spacing_z=2.0, matrix=64),
    "tumor_grid": TumorGrid(spacing_z=2.0, spacing_xy=2.0),
}
COARSE = {
    "kidney_grid": KidneyGrid(spacing_z=8.0, matrix=16),
    "tumor_grid": TumorGrid(spacing_z=8.0, spacing_xy=8.0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases: one with a tumour in two pieces of 40 and 8 voxels, and one without any kidney."""
    root = tmp_path_factory.mktemp("cohort")
    labels = np.zeros((80, 64, 64), np.uint8)
    labels[4:60, 10:24, 6:18] = labels[4:60, 10:24, 30:42] = 1
    labels[20:25, 12:16, 8:10] = labels[40:42, 12:14, 32:34] = 2
    for number, values in enumerate((labels, np.zeros_like(labels))):
        case = root / f"case_{number:05}"
        write_imaging(
            case / "imaging.nii.gz", np.zeros(values.shape, np.int16), canonical_affine(SPACING)
        )
        write_labels(case / "segmentation.nii.gz", values, canonical_affine(SPACING))
    return root


def test_the_own_grid_costs_nothing_and_the_component_step_its_share(folder: Path) -> None:
    first, second = ceilings(find_cases(folder), **SAME, labels="kits19")
    for name in (
        "kidney_and_masses_nearest",
        "kidney_and_masses_interpolated",
        "tumor_nearest",
        "tumor_interpolated",
    ):
        assert first[name] == 1.0, name
    assert first["tumor_kidney_mask"] == 1.0
    assert first["tumor_largest_component"] == pytest.approx(2 * 40 / (40 + 48))
    assert first["literal_window_loss"] == pytest.approx(1 - (48 - 16) / 56), (
        "slices 16 to 47 of 80 come out"
    )
    assert second == {"case": "case_00001"}
    assert set(first) - {"case", "literal_window_loss"} <= set(CEILINGS)


def test_a_coarse_grid_costs_something(folder: Path) -> None:
    first, _ = ceilings(find_cases(folder), **COARSE, labels="kits19")
    assert (
        0.5 < first["kidney_and_masses_nearest"] < 1
        and 0.5 < first["kidney_and_masses_interpolated"] < 1
    )
    assert first["tumor_nearest"] < first["kidney_and_masses_nearest"]


def test_the_number_of_jobs_changes_nothing(folder: Path) -> None:
    alone, together = (
        ceilings(find_cases(folder), **COARSE, labels="kits19", jobs=jobs) for jobs in (1, 4)
    )
    assert alone == together


def test_the_two_label_versions_are_compared(shared: Path) -> None:
    found = {f.case_id: f for f in find_cases(shared / "kits19" / "data")}
    other = {f.case_id: f for f in find_cases(shared / "kits23" / "dataset")}
    case = found["case_00023"]
    both = type(case)(
        **{**vars(case), "segmentation_kits23": other["case_00023"].segmentation_kits23}
    )
    (row,) = ceilings([both], **COARSE, labels="kits19")
    assert row["tumor_label_version"] < 0.05 and row["kidney_and_masses_label_version"] > 0.9
