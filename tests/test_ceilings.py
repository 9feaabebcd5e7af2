"""What the way to the grids costs is 0 where nothing is changed, and is found case by case where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data import canonical_affine, find_cases, write_imaging, write_labels
from kitslib.evaluation import ceilings

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
    """Two cases: one with a tumour in two pieces, 40 and 8 voxels large, and one without any kidney."""
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
        "kidney, nearest",
        "kidney, interpolated",
        "tumour, nearest",
        "tumour, interpolated",
    ):
        assert first[name] == 1.0, name
    assert first["kidney mask, tumour"] == 1.0
    assert first["largest component, tumour"] == pytest.approx(2 * 40 / (40 + 48))
    assert first["literal_window_loss"] == pytest.approx(1 - (48 - 16) / 56), (
        "slices 16 to 47 of 80 come out"
    )
    assert second == {"case": "case_00001"}


def test_a_coarse_grid_costs_something(folder: Path) -> None:
    first, _ = ceilings(find_cases(folder), **COARSE, labels="kits19")
    assert 0.5 < first["kidney, nearest"] < 1 and 0.5 < first["kidney, interpolated"] < 1
    assert first["tumour, nearest"] < first["kidney, nearest"]


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
    assert row["label version, tumour"] < 0.05 and row["label version, kidney"] > 0.9
