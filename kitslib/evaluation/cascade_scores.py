"""The whole cascade on one case: its scores, where tumour was lost, what options change."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import nn

from kitslib.data import Case, stage_labels, tumor_input
from kitslib.evaluation.cascade import KidneyStage, TumorStage, segment
from kitslib.evaluation.inference import Autocast
from kitslib.evaluation.metrics.errors import BINS, calibration_counts, tumor_losses
from kitslib.evaluation.metrics.scores import Row, dice, score_case
from kitslib.evaluation.statistics import estimate, paired_difference
from kitslib.networks import Together

STEPS: dict[str, str] = {  # of the cascade: a column of scores, and what has been done by then
    "tumor_interpolated": "the grid alone (labels there and back)",
    "true kidney mask": "true kidney mask",
    "all components": "kidneys found, all components",
    "tumor_dice": "as scored: the largest component",
}


def options_at_test(stage: TumorStage, seeds: Sequence[nn.Module]) -> dict[str, TumorStage]:
    """Return a stage with test-time mirroring the other way, and with the ensemble of all seeds."""
    mirrored = stage.test_time_mirroring
    name = f"{'without' if mirrored else 'with'} test-time mirroring"
    options = {name: replace(stage, test_time_mirroring=not mirrored)}
    if len(seeds) > 1:
        options[f"ensemble of {len(seeds)} seeds"] = replace(stage, network=Together(seeds))
    return options


def score_cascade(
    case: Case, kidney_stage: KidneyStage, tumor_stage: TumorStage,
    options: Mapping[str, TumorStage], autocast: Autocast,
) -> tuple[Row, np.ndarray, np.ndarray]:  # fmt: skip
    """Segment a case and score it in its own geometry: row, label map (D, H, W), calibration.

    The row has what `score_case` and `tumor_losses` give, `seconds`, and the tumour Dice with all
    components, with the true kidney mask, and with each of `options`, stages by name, in the place
    of the tumour stage. Calibration is that of the voxels inside the kidneys found, (3, BINS).
    """
    began, scan = time.perf_counter(), (case.imaging, case.spacing)
    found = segment(*scan, kidney_stage, tumor_stage, autocast=autocast)
    seconds = time.perf_counter() - began
    row = score_case(found.labels, case.labels, case.spacing, case_id=case.case_id)
    row |= tumor_losses(case.labels, found.kidney, found.tumor, found.labels, case.spacing)
    row["seconds"] = seconds
    others = {"true kidney mask": (tumor_stage, (case.labels > 0).astype(np.uint8))}
    others |= {name: (stage, found.kidney) for name, stage in options.items()}
    for name, (stage, kidney) in others.items():
        other = segment(*scan, kidney_stage, stage, autocast=autocast, kidney=kidney)
        row[name] = dice(other.labels == 2, case.labels == 2)
    row["all components"] = dice(found.tumor > 0, case.labels == 2)
    counts = np.zeros((3, BINS))
    if found.kidney.any():
        where = found.kidney, case.spacing, tumor_stage.grid
        volume, mask, mapping = tumor_input(case.imaging, *where)
        given, inside = tumor_stage.probability(volume, mask, autocast), mask > 0
        counts = calibration_counts(given[inside], stage_labels(case.labels, mapping)[inside] == 2)
    return row, found.labels, counts


def losses_by_step(
    scores: pd.DataFrame, ceilings: pd.DataFrame, options: Mapping[str, TumorStage]
) -> pd.DataFrame:
    """Return tumour Dice after each step of the cascade and its difference to the final one.

    scores: rows of `score_cascade`; ceilings: rows of `ceilings`, of these cases and others.
    Columns: `step`, `dice`, `low`, `high`, `n`, `gap`, `gap_low`, `gap_high`.
    """
    column = "tumor_interpolated"
    limits = ceilings.set_index("case").reindex(index=scores["case"], columns=[column])
    table = scores.assign(**{column: limits[column].to_numpy()})
    rows = []
    for column, step in (STEPS | {name: f"as scored, {name}" for name in options}).items():
        values = table[column].to_numpy(float)
        gap = paired_difference(table["tumor_dice"].to_numpy(), values)
        gaps = {"gap": gap.value, "gap_low": gap.ci[0], "gap_high": gap.ci[1]}
        rows.append({"step": step} | estimate(values).row("dice") | gaps)
    return pd.DataFrame(rows)
