"""The whole cascade on one case: its scores, where tumour was lost, what options change."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from torch import nn

from kitslib.data import Case, stage_labels, tumor_input
from kitslib.evaluation.cascade import KidneyStage, Segmentation, TumorStage, segment
from kitslib.evaluation.inference import Autocast
from kitslib.evaluation.metrics.calibration import BINS, calibration_counts
from kitslib.evaluation.metrics.causes import tumor_losses
from kitslib.evaluation.metrics.scores import Row, dice, score_case
from kitslib.evaluation.metrics.statistics import estimate, paired_difference
from kitslib.networks import Together

STEPS: dict[str, str] = {  # of the cascade: a column of scores, and what has been done by then
    "tumor_interpolated": "the grid alone (labels there and back)",
    "true kidney mask": "true kidney mask",
    "all components": "kidneys found, all components",
    "tumor_dice": "as scored: the largest component",
}


@dataclass(frozen=True, kw_only=True)
class CascadeScores:
    """One case through the cascade: its row, label map uint8 (D, H, W), and calibration counts."""

    row: Row
    labels: np.ndarray
    calibration: np.ndarray


def options_at_test(stage: TumorStage, seeds: Sequence[nn.Module]) -> dict[str, TumorStage]:
    """Return a stage with test-time mirroring the other way, and with the ensemble of all seeds."""
    mirrored = stage.test_time_mirroring
    name = "without test-time mirroring" if mirrored else "with test-time mirroring"
    options = {name: replace(stage, test_time_mirroring=not mirrored)}
    if len(seeds) > 1:
        options[f"ensemble of {len(seeds)} seeds"] = replace(stage, network=Together(seeds))
    return options


def score_cascade(
    case: Case,
    kidney_stage: KidneyStage,
    tumor_stage: TumorStage,
    options: Mapping[str, TumorStage],
    autocast: Autocast,
) -> CascadeScores:
    """Segment a case and score it in its own geometry.

    The row has what `score_case` and `tumor_losses` give, `seconds`, and the tumour Dice with all
    components, with the true kidney mask, and with each of `options`, stages by name, in the place
    of the tumour stage. Calibration counts voxels inside the kidneys found.
    """
    began = time.perf_counter()
    found = segment(case.imaging, case.spacing, kidney_stage, tumor_stage, autocast=autocast)
    seconds = time.perf_counter() - began
    row = score_case(found.labels, case.labels, case.spacing, case_id=case.case_id)
    row |= tumor_losses(case.labels, found.kidney, found.tumor, found.labels, case.spacing)
    row["seconds"] = seconds
    true_mask = (case.labels > 0).astype(np.uint8)
    others = {"true kidney mask": (tumor_stage, true_mask)}
    for name, stage in options.items():
        others[name] = (stage, found.kidney)
    for name, (stage, kidney) in others.items():
        other = segment(
            case.imaging, case.spacing, kidney_stage, stage, autocast=autocast, kidney=kidney
        )
        row[name] = dice(other.labels == 2, case.labels == 2)
    row["all components"] = dice(found.tumor > 0, case.labels == 2)
    calibration = _calibration(case, found, tumor_stage, autocast)
    return CascadeScores(row=row, labels=found.labels, calibration=calibration)


def _calibration(
    case: Case, found: Segmentation, stage: TumorStage, autocast: Autocast
) -> np.ndarray:
    if not found.kidney.any():
        return np.zeros((3, BINS))
    volume, mask, mapping = tumor_input(case.imaging, found.kidney, case.spacing, stage.grid)
    inside = mask > 0
    truth = stage_labels(case.labels, mapping) == 2
    return calibration_counts(stage.probability(volume, mask, autocast)[inside], truth[inside])


def losses_by_step(
    scores: pd.DataFrame, ceilings: pd.DataFrame, options: Mapping[str, TumorStage]
) -> pd.DataFrame:
    """Return tumour Dice after each step of the cascade and its difference to the final one.

    scores: rows of `score_cascade`; ceilings: rows of `ceilings`, of these cases and others.
    Columns: `step`, `dice`, `low`, `high`, `gap`, `gap_low`, `gap_high`, `n`.
    """
    limits = ceilings.set_index("case").reindex(scores["case"])
    limits = limits.reindex(columns=["tumor_interpolated"]).reset_index(drop=True)
    table = pd.concat([scores, limits], axis=1)
    steps = STEPS | {name: f"as scored, {name}" for name in options}
    rows = []
    for column, step in steps.items():
        values = table[column].to_numpy(float)
        mean, gap = estimate(values), paired_difference(table["tumor_dice"].to_numpy(), values)
        rows.append({
            "step": step, "dice": mean.value, "low": mean.ci[0], "high": mean.ci[1],
            "gap": gap.value, "gap_low": gap.ci[0], "gap_high": gap.ci[1], "n": mean.n,
        })  # fmt: skip
    return pd.DataFrame(rows)


def mean_scores(scores: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Return a row per column of scores that `names` names, with mean, 95 % interval and cases."""
    rows = []
    for column, name in names.items():
        found = estimate(scores[column])
        low, high = found.ci
        rows.append(
            {"score": name, "mean": found.value, "95 % from": low, "95 % to": high, "n": found.n}
        )
    return pd.DataFrame(rows)
