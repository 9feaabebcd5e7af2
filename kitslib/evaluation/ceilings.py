"""What the way to the networks' grids and back costs in Dice before any network."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data import (
    CaseFiles,
    LabelVersion,
    available_labels,
    kidney_mapping,
    load_case,
    stage_labels,
    tumor_mapping,
)
from kitslib.evaluation.inference import PAPER_SIZE, largest_components, windows
from kitslib.evaluation.metrics.scores import Row, dice
from kitslib.transforms import Mapping, dilate, restore_labels, restore_mask

# the paper's window counts slices of 2 mm; in plane nothing depends on the grid
PAPER_GRID = KidneyGrid(spacing_z=2.0, matrix=64)
CEILINGS: dict[str, str] = {  # Dice by key, and what it is called
    "kidney_and_masses_nearest": "kidney and masses, nearest",
    "kidney_and_masses_interpolated": "kidney and masses, interpolated",
    "kidney_and_masses_literal_window": "kidney and masses, literal window",
    "tumor_nearest": "tumour, nearest",
    "tumor_interpolated": "tumour, interpolated",
    "tumor_kidney_mask": "tumour, inside the kidney mask",
    "tumor_largest_component": "tumour, largest component",
    "kidney_and_masses_label_version": "kidney and masses, label version",
    "tumor_label_version": "tumour, label version",
}


def ceilings(
    cases: Sequence[CaseFiles], *, kidney_grid: KidneyGrid, tumor_grid: TumorGrid,
    labels: LabelVersion, jobs: int = 1,
) -> list[Row]:  # fmt: skip
    """Return a row per case: the Dice of its labels after each thing that happens to them.

    Keys: `case`; those of CEILINGS: `nearest` and `interpolated`, through the stage's grid and
    back; `literal_window`, what the paper's printed window outputs; `kidney_mask`, inside the
    dilated kidney mask of the first stage; `label_version`, where a case has KiTS19's and KiTS23's
    labels; and `literal_window_loss`, the share that the printed window never outputs. What a case
    cannot give is left out. labels: the version that counts; jobs: cases at work at a time.
    """
    row_of = partial(_row, kidney_grid=kidney_grid, tumor_grid=tumor_grid, labels=labels)
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        return list(pool.map(row_of, cases))


def _row(
    item: CaseFiles, kidney_grid: KidneyGrid, tumor_grid: TumorGrid, labels: LabelVersion
) -> Row:
    item = replace(item, imaging=None)
    case = load_case(item, labels)
    kidney, tumor = (case.labels > 0).astype(np.uint8), (case.labels == 2).astype(np.uint8)
    row: Row = {"case": case.case_id}
    if item.source != "synthetic" and {"kits19", "kits23"} <= set(available_labels(item)):
        first, second = load_case(item, "kits19").labels, load_case(item, "kits23").labels
        row["kidney_and_masses_label_version"] = dice(second > 0, first > 0)
        row["tumor_label_version"] = dice(second == 2, first == 2)
    if not kidney.any():
        return row
    coarse = kidney_mapping(kidney.shape, case.spacing, kidney_grid)
    seen = _there_and_back(row, "kidney_and_masses", kidney, coarse)
    thin = stage_labels(kidney, kidney_mapping(kidney.shape, case.spacing, PAPER_GRID))
    kept, whole = 0, int(thin.sum())
    for window in windows(len(thin), PAPER_SIZE, "literal"):
        kept += int(thin[window.keep_start : window.keep_stop].sum())
    row["literal_window_loss"] = 1 - kept / whole
    row["kidney_and_masses_literal_window"] = 2 * kept / (kept + whole)
    if tumor.any() and seen.any():
        _there_and_back(row, "tumor", tumor, tumor_mapping(kidney, case.spacing, tumor_grid))
        seen = largest_components(seen, 2).astype(np.uint8)
        fine = tumor_mapping(seen, case.spacing, tumor_grid)
        grown = dilate(stage_labels(seen, fine), fine.stage.spacing, tumor_grid.mask_dilation_mm)
        inside = restore_labels(grown, fine) > 0
        row["tumor_kidney_mask"] = dice((tumor > 0) & inside, tumor > 0)
        row["tumor_largest_component"] = dice(largest_components(tumor > 0, 1), tumor > 0)
    return row


def _there_and_back(row: Row, name: str, mask: np.ndarray, mapping: Mapping) -> np.ndarray:
    """Put the Dice of a mask that went to a grid and back into `row`; return the interpolated."""
    there = stage_labels(mask, mapping)
    interpolated = restore_mask(there.astype(np.float32), mapping) > 0
    row[f"{name}_nearest"] = dice(restore_labels(there, mapping) > 0, mask > 0)
    row[f"{name}_interpolated"] = dice(interpolated, mask > 0)
    return interpolated
