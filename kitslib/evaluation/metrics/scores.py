"""Dice, volumes and false positives of one case, as KiTS19 and KiTS23 score them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kitslib.evaluation.metrics.surface import (
    NAN,
    ScoreError,
    Spacing,
    check_masks,
    check_spacing,
    joint_box,
    surface_distances,
)

KIDNEY, TUMOR, CYST = 1, 2, 3
KITS23_CLASSES: dict[str, tuple[tuple[int, ...], float]] = {  # labels, surface tolerance in mm
    "kidney_and_masses": ((KIDNEY, TUMOR, CYST), 1.0330772532390826),
    "masses": ((TUMOR, CYST), 1.1328796488598762),
    "tumor": ((TUMOR,), 1.1498198361434828),
}
Row = dict[str, str | float]


def dice(pred: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice of two masks: twice what they share over what they hold.

    pred, truth: bool of one shape, else ScoreError. NaN where both are empty, 0 where one is.
    """
    if pred.shape != truth.shape:
        raise ScoreError(f"prediction {pred.shape} and truth {truth.shape} must have one shape")
    inside, held = pred != 0, truth != 0
    total = np.count_nonzero(inside) + np.count_nonzero(held)
    return 2 * np.count_nonzero(inside & held) / total if total else NAN


def volumes_ml(labels: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """Return volumes in ml: `kidney` (label 1), `kidney_and_masses` (above 0), `tumor`, `cyst`.

    labels: integers 0..3 (D, H, W); spacing (z, y, x) in mm.
    """
    return _volumes_ml([np.count_nonzero(labels == value) for value in range(4)], spacing)


def false_positive_ml(pred: np.ndarray, truth: np.ndarray, spacing: Spacing) -> float:
    """Return the false-positive tumour volume in ml: tumour in the prediction, not in the truth."""
    counts = label_counts(pred, truth)
    return voxel_ml(spacing) * int(counts[:, TUMOR].sum() - counts[TUMOR, TUMOR])


def cyst_false_positive_ml(pred: np.ndarray, truth: np.ndarray, spacing: Spacing) -> float:
    """Return the volume in ml that is tumour in the prediction and cyst in the truth.

    It means something only where the truth has its cysts marked (3): a KiTS19 file alone gives 0.
    """
    return voxel_ml(spacing) * int(label_counts(pred, truth)[CYST, TUMOR])


def score_case(pred: np.ndarray, truth: np.ndarray, spacing: Spacing, *, case_id: str = "") -> Row:
    """Return every score of one case as one flat row.

    pred, truth: integer labels 0..3 (D, H, W) in native geometry; spacing (z, y, x) in mm. Keys:
    `case`; KiTS19's `tk_dice` (label > 0), `tumor_dice` (label == 2, a cyst counts as kidney),
    `composite`, their mean, NaN where a class is empty in both; KiTS23's `kits23_<class>_dice` and
    `kits23_<class>_surface_dice` for the classes of KITS23_CLASSES, 1 where empty in both, and
    their means `kits23_dice`, `kits23_surface_dice`; `hd95_kidney_and_masses_mm`, `hd95_tumor_mm`;
    volumes as `volumes_ml` names them, `<name>_ml` of the prediction and `<name>_truth_ml`;
    `tumor_fp_ml`, `cyst_fp_ml`. Raises ScoreError with the case's name.
    """
    counts, voxel = label_counts(pred, truth, case_id=case_id), voxel_ml(spacing)
    tk, tumor = _class_dice(counts, (KIDNEY, TUMOR, CYST), NAN), _class_dice(counts, (TUMOR,), NAN)
    row: Row = {"case": case_id, "tk_dice": tk, "tumor_dice": tumor, "composite": (tk + tumor) / 2}
    box = joint_box(pred, truth)
    overlap, surface, distances = {}, {}, {}
    for name, (labels, tolerance_mm) in KITS23_CLASSES.items():
        masks = np.isin(pred[box], labels), np.isin(truth[box], labels)
        distances[name] = surface_distances(*masks, spacing)
        overlap[f"kits23_{name}_dice"] = _class_dice(counts, labels, 1.0)
        surface[f"kits23_{name}_surface_dice"] = distances[name].dice(tolerance_mm, empty=1.0)
    row |= overlap | surface
    row["kits23_dice"] = sum(overlap.values()) / len(overlap)
    row["kits23_surface_dice"] = sum(surface.values()) / len(surface)
    row["hd95_kidney_and_masses_mm"] = distances["kidney_and_masses"].hd95_mm()
    row["hd95_tumor_mm"] = distances["tumor"].hd95_mm()
    for suffix, axis in (("ml", 0), ("truth_ml", 1)):
        for name, volume in _volumes_ml(counts.sum(axis=axis).tolist(), spacing).items():
            row[f"{name}_{suffix}"] = volume
    row["tumor_fp_ml"] = voxel * int(counts[:, TUMOR].sum() - counts[TUMOR, TUMOR])
    row["cyst_fp_ml"] = voxel * int(counts[CYST, TUMOR])
    return row


def match_cases(
    predictions: Sequence[str], truths: Sequence[str], *, subset: bool = False
) -> list[str]:
    """Return the case ids to score, sorted; ScoreError names each case that only one side has.

    With `subset` truths without a prediction are left out.
    """
    extra, missing = sorted({*predictions} - {*truths}), sorted({*truths} - {*predictions})
    parts = [f"no truth for {', '.join(extra)}"] if extra else []
    if missing and not subset:
        parts.append(f"no prediction for {', '.join(missing)}")
    if parts:
        raise ScoreError(f"predictions and truths must be of the same cases: {'; '.join(parts)}")
    return sorted(predictions)


def label_counts(pred: np.ndarray, truth: np.ndarray, *, case_id: str = "") -> np.ndarray:
    """Return how many voxels have each pair of labels: int64 (4, 4), truth's by prediction's.

    pred, truth: integer labels 0..3 (D, H, W). Raises ScoreError on another shape, type or label.
    """
    try:
        check_masks(pred, truth)
        _check_labels(pred, "prediction")
        _check_labels(truth, "truth")
    except ScoreError as error:
        raise ScoreError(f"{case_id}: {error}" if case_id else str(error)) from None
    box = joint_box(pred, truth)
    counts = np.zeros(16, dtype=np.int64)
    for pred_slice, truth_slice in zip(pred[box], truth[box], strict=True):
        pairs = truth_slice.astype(np.uint8) * 4 + pred_slice.astype(np.uint8)
        counts += np.bincount(pairs.ravel(), minlength=16)
    counts[0] += pred.size - counts.sum()
    return counts.reshape(4, 4)


def voxel_ml(spacing: Spacing) -> float:
    """Return the volume of one voxel in ml; spacing (z, y, x) in mm."""
    z, y, x = check_spacing(spacing)
    return z * y * x / 1000


def _volumes_ml(counts: Sequence[int], spacing: Spacing) -> dict[str, float]:
    """Volumes by name, from the number of voxels of each of the four labels."""
    _, kidney, tumor, cyst = counts
    voxels = {"kidney": kidney, "kidney_and_masses": kidney + tumor + cyst}
    voxels |= {"tumor": tumor, "cyst": cyst}
    return {name: voxel_ml(spacing) * int(number) for name, number in voxels.items()}


def _class_dice(counts: np.ndarray, labels: tuple[int, ...], empty: float) -> float:
    members = list(labels)
    shared = int(counts[np.ix_(members, members)].sum())
    total = int(counts[members].sum() + counts[:, members].sum())
    return 2 * shared / total if total else empty


def _check_labels(labels: np.ndarray, what: str) -> None:
    if labels.dtype.kind not in "ui":
        got = f"got {labels.dtype}: read it as a label map"
        raise ScoreError(f"{what} must hold whole-number labels 0..3, {got}")
    if labels.size and (labels.max() > CYST or labels.min() < 0):
        found = sorted(set(np.unique(labels).tolist()) - {0, 1, 2, 3})
        known = "0 background, 1 kidney, 2 tumour, 3 cyst: map them to these first"
        raise ScoreError(f"{what} has the labels {found[:5]}; known are {known}")
