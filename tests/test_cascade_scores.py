"""A case through the cascade is scored with its steps, its options and its calibration."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_cascade import SPACING, run, scan, stages

from kitslib.evaluation import (
    KidneyStage,
    TumorStage,
    calibration_error,
    losses_by_step,
    options_at_test,
    score_cascade,
)

__all__ = ["scan", "stages"]  # fixtures


@pytest.fixture
def case(scan: np.ndarray) -> SimpleNamespace:
    """The scan with labels in which the smaller bright spot, inside a kidney, is no tumour."""
    labels = np.zeros(scan.shape, np.uint8)
    labels[4:20, 10:24, 4:14] = labels[4:20, 10:24, 26:36] = 1
    labels[8:14, 12:20, 6:12] = 2
    return SimpleNamespace(case_id="case_00000", imaging=scan, labels=labels, spacing=SPACING)


def scored(case: SimpleNamespace, stages: tuple[KidneyStage, TumorStage]):
    options = options_at_test(stages[1], [stages[1].network] * 2)
    return score_cascade(case, *stages, options, contextlib.nullcontext), options


def test_a_row_has_the_scores_of_each_step_and_option(case: SimpleNamespace, stages: tuple) -> None:
    (row, labels, _), options = scored(case, stages)
    np.testing.assert_array_equal(labels, run(case.imaging, stages).labels)
    assert row["tumor_dice"] == row["true kidney mask"] == row["found"] == 1.0
    assert row["all components"] == pytest.approx(2 * 288 / (2 * 288 + 8)), "a spot of 8 voxels"
    assert list(options) == ["with test-time mirroring", "ensemble of 2 seeds"]
    assert all(row[name] == 1.0 for name in options)
    assert row["seconds"] > 0 and row["case"] == "case_00000"


def test_mirroring_is_left_out_where_the_stage_has_it(stages: tuple) -> None:
    mirrored = options_at_test(stages[1], [])["with test-time mirroring"]
    (name,) = options_at_test(mirrored, [])
    assert mirrored.test_time_mirroring and name == "without test-time mirroring"


def test_calibration_counts_the_voxels_inside_the_kidneys(
    case: SimpleNamespace, stages: tuple
) -> None:
    (_, _, counts), _ = scored(case, stages)
    assert counts[2].sum() == 288 and counts[0].sum() > 4000
    assert 0 < calibration_error(counts) < 0.05, "only the smaller spot is claimed and not true"
    case.imaging = np.full(case.imaging.shape, -80, np.int16)
    (row, labels, nothing), _ = scored(case, stages)
    assert not labels.any() and not nothing.any() and row["tumor_dice"] == 0.0


def test_losses_are_differences_to_the_final_dice() -> None:
    scores = pd.DataFrame({
        "case": ["a", "b"], "tumor_dice": [0.5, 0.7], "true kidney mask": [0.6, 0.8],
        "all components": [0.5, 0.5], "mirrored": [0.5, 0.9],
    })  # fmt: skip
    limits = pd.DataFrame({"case": ["b", "c", "a"], "tumor_interpolated": [1.0, 0.1, 0.8]})
    table = losses_by_step(scores, limits, {"mirrored": None}).set_index("step")
    assert table["dice"].to_list() == pytest.approx([0.9, 0.7, 0.5, 0.6, 0.7])
    assert table["gap"].to_list() == pytest.approx([0.3, 0.1, -0.1, 0.0, 0.1])
    assert table.index[-1] == "as scored, mirrored" and set(table["n"]) == {2}
    without = losses_by_step(scores, limits[["case"]], {})
    assert without["n"].to_list() == [0, 2, 2, 2]
