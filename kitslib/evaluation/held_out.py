"""Held-out cases through one stage alone, scored in their own geometry."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kitslib.data import CaseFiles, Entry, LabelVersion, load_case
from kitslib.evaluation.cascade import KidneyStage, TumorStage
from kitslib.evaluation.inference import Autocast, largest_components
from kitslib.evaluation.metrics.scores import (
    KITS23_CLASSES,
    cyst_false_positive_ml,
    dice,
    false_positive_ml,
    volumes_ml,
)
from kitslib.evaluation.metrics.surface import Spacing, surface_distances
from kitslib.evaluation.statistics import estimate
from kitslib.transforms import restore_mask

HIT = 0.1  # intersection over union from which on a tumour counts as found
Scored = tuple[np.ndarray, np.ndarray, dict[str, Any]]  # labels, prediction (D, H, W), scores


def kidney_cases(
    stage: KidneyStage, files: Iterable[CaseFiles], cohort: Mapping[str, Entry],
    labels: LabelVersion, autocast: Autocast,
) -> Iterator[Scored]:  # fmt: skip
    """Yield each case's labels, its kidney mask, uint8 0/1, and Dice of kidney and masses.

    `cohort` holds the scans on the stage's grid; scores are in the scans' own.
    """
    for item in files:
        case, entry = load_case(replace(item, imaging=None), labels), cohort[item.case_id]
        found = stage.restored(stage.probability(entry.imaging, autocast), entry.mapping)
        truth = case.labels > 0
        ml = float(truth.sum() * np.prod(case.spacing) / 1000)
        row = {"case": case.case_id, "dice": dice(found > 0, truth), "kidney_and_masses_ml": ml}
        yield case.labels, found, row


def tumor_cases(
    stage: TumorStage, cohort: Mapping[str, Entry], autocast: Autocast
) -> Iterator[Scored]:
    """Yield each case's labels, its tumour, uint8 0 or 2, found inside the true kidney mask.

    Both are in the scan's own grid, inside the mapping's box. Scores: Dice of the largest component
    and of all components; of all also surface Dice at KiTS23's tolerance and whether the tumour is
    hit (intersection over union above HIT); volumes and false positives in ml. Those in cysts are
    None where cysts are not labelled.
    """
    for case_id, entry in cohort.items():
        probability = stage.probability(entry.imaging, entry.mask, autocast)
        mapping, truth = entry.mapping.boxed(), entry.truth
        everything = 2 * restore_mask(probability, mapping)
        found = everything * largest_components(everything > 0, 1)
        known = entry.meta["cysts_known"]
        row = tumor_row(truth, everything, found, mapping.native.spacing, with_cysts=known)
        yield truth, found, {"case": case_id, **row}


def tumor_row(
    truth: np.ndarray, everything: np.ndarray, found: np.ndarray, spacing: Spacing, *,
    with_cysts: bool,
) -> dict[str, Any]:  # fmt: skip
    """Return a case's scores from labels (D, H, W), the tumour found, and its largest component."""
    masks, volumes = (everything == 2, truth == 2), volumes_ml(truth, spacing)
    _, tolerance_mm = KITS23_CLASSES["tumor"]
    either = np.count_nonzero(masks[0] | masks[1])
    row = {
        "dice": dice(found == 2, masks[1]), "dice_all_components": dice(*masks),
        "surface_dice": surface_distances(*masks, spacing).dice(tolerance_mm, empty=1.0),
        "hit": float(np.count_nonzero(masks[0] & masks[1]) > HIT * either),
        "tumor_ml": volumes["tumor"], "cyst_ml": volumes["cyst"] if with_cysts else None,
        "fp_ml": false_positive_ml(found, truth, spacing),
    }  # fmt: skip
    for name, which in (("cyst_fp_ml", found), ("cyst_fp_all_ml", everything)):
        ml = cyst_false_positive_ml(which, truth, spacing) if with_cysts else None
        row[name] = ml
    return row


def ranked(scores: pd.DataFrame, column: str = "dice") -> dict[str, str]:
    """Return the case ids of the worst, the median and the best row, each once."""
    order = scores.sort_values(column)["case"].to_list()
    cases = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    return pd.Series(cases).drop_duplicates().to_dict()


def window_readings(
    stage: KidneyStage, held_out: Mapping[str, Entry], autocast: Autocast
) -> pd.DataFrame:
    """Return Dice on the stage's grid of each case under other readings of the paper.

    Padded, averaged and literal windows; components by the other measure; windows twice as deep.
    Columns: case, reading, dice, seconds.
    """
    other_by = {"volume": "certainty", "certainty": "volume"}[stage.components_by]
    windows, deeper = ("padded", "overlap_average", "literal"), 2 * stage.window_slices
    readings = {window: replace(stage, window=window) for window in windows}
    by_other = replace(stage, window="padded", components_by=other_by)
    readings[f"padded, components by {other_by}"] = by_other
    readings[f"{stage.window}, {deeper} slices"] = replace(stage, window_slices=deeper)
    rows = []
    for reading, other in readings.items():
        for case_id, entry in held_out.items():
            began = time.perf_counter()
            found = other.probability(entry.imaging, autocast) > 0.5
            seconds = time.perf_counter() - began
            score = dice(found, entry.labels > 0)
            rows.append({"case": case_id, "reading": reading, "dice": score, "seconds": seconds})
    return pd.DataFrame(rows)


def lost_to(readings: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return, per reading, mean Dice, what it loses to `reference` with interval, and seconds."""
    by_case = readings.pivot(index="case", columns="reading", values="dice")
    rows = []
    for reading, part in readings.groupby("reading", sort=False):
        lost = estimate(by_case[reference] - by_case[reading]).row("lost")
        about = {"reading": reading, "dice": part["dice"].mean()}
        rows.append(about | lost | {"seconds": part["seconds"].mean()})
    return pd.DataFrame(rows)
