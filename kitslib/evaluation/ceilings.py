"""What the way to the networks' grids and back costs in Dice before any network: a ceiling for each later number."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data import (
    CaseFiles,
    available_labels,
    kidney_mapping,
    load_case,
    stage_labels,
    tumor_mapping,
)
from kitslib.evaluation.inference import largest_components, windows
from kitslib.evaluation.metrics.scores import dice
from kitslib.transforms import dilate, restore_labels, restore_mask

Row = dict[str, str | float]
PAPER_WINDOW = 64  # slices of 2 mm
PAPER_GRID = KidneyGrid(
    spacing_z=2.0, matrix=64
)  # the window counts slices; in plane nothing depends on it


def ceilings(
    cases: Sequence[CaseFiles],
    *,
    kidney_grid: KidneyGrid,
    tumor_grid: TumorGrid,
    labels: str,
    jobs: int = 1,
) -> list[Row]:
    """Return a row per case: the Dice of its labels after each thing that happens to them on the way.

    Keys: `case`; for kidney and tumour `nearest` and `interpolated`, there and back through the stage's grid;
    `literal window, kidney` and `literal_window_loss`, the share of kidney that the paper's printed window never
    outputs; `kidney mask, tumour`, inside the dilated kidney mask of the first stage's grid; `largest component,
    tumour`; `label version`, where a case has labels of KiTS19 and KiTS23. What a case cannot give is left out.
    `labels` is the version that counts; `jobs` cases are at work at a time.
    """

    def row_of(item: CaseFiles) -> Row:
        return {**_ceiling(item, kidney_grid, tumor_grid, labels), **_versions(item, labels)}

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        return list(pool.map(row_of, cases))


def _ceiling(item: CaseFiles, kidney_grid: KidneyGrid, tumor_grid: TumorGrid, labels: str) -> Row:
    case = load_case(replace(item, imaging=None), labels)
    kidney, tumor = (case.labels > 0).astype(np.uint8), (case.labels == 2).astype(np.uint8)
    row: Row = {"case": case.case_id}
    if not kidney.any():
        return row
    coarse = kidney_mapping(kidney.shape, case.spacing, kidney_grid)
    there = stage_labels(kidney, coarse)
    row["kidney, nearest"] = dice(restore_labels(there, coarse) > 0, kidney > 0)
    seen = restore_mask(there.astype(np.float32), coarse) > 0
    row["kidney, interpolated"] = dice(seen, kidney > 0)
    row |= _literal_window(kidney, case.spacing)
    if not (tumor.any() and seen.any()):
        return row
    fine = tumor_mapping(kidney, case.spacing, tumor_grid)
    there = stage_labels(tumor, fine)
    row["tumour, nearest"] = dice(restore_labels(there, fine) > 0, tumor > 0)
    row["tumour, interpolated"] = dice(restore_mask(there.astype(np.float32), fine) > 0, tumor > 0)
    seen = largest_components(seen, 2).astype(np.uint8)
    fine = tumor_mapping(seen, case.spacing, tumor_grid)
    grown = dilate(stage_labels(seen, fine), fine.stage.spacing, tumor_grid.mask_dilation_mm)
    row["kidney mask, tumour"] = dice((tumor > 0) & (restore_labels(grown, fine) > 0), tumor > 0)
    row["largest component, tumour"] = dice(largest_components(tumor > 0, 1), tumor > 0)
    return row


def _literal_window(kidney: np.ndarray, spacing: tuple[float, float, float]) -> Row:
    thin = stage_labels(kidney, kidney_mapping(kidney.shape, spacing, PAPER_GRID))
    looks = windows(len(thin), PAPER_WINDOW, "literal")
    kept, whole = sum(int(thin[w.keep_start : w.keep_stop].sum()) for w in looks), int(thin.sum())
    return {
        "literal_window_loss": 1 - kept / whole,
        "literal window, kidney": 2 * kept / (kept + whole),
    }


def _versions(item: CaseFiles, labels: str) -> Row:
    """Agreement of the two label versions of a case; nothing where it has one, or where both are made alike."""
    if item.source == "synthetic" or not {"kits19", "kits23"} <= set(available_labels(item)):
        return {}
    both = [
        load_case(replace(item, imaging=None), version).labels for version in ("kits19", "kits23")
    ]
    first, second = both if labels == "kits19" else both[::-1]
    return {
        "label version, kidney": dice(second > 0, first > 0),
        "label version, tumour": dice(second == 2, first == 2),
    }
