"""Dice, volumes and false positives of one case, as KiTS19 and KiTS23 score them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from kitslib.evaluation.metrics.surface import (
    EmptyRule,
    ScoreError,
    Spacing,
    SurfaceDistances,
    check_masks,
    check_spacing,
    hd95_of,
    joint_box,
    surface_dice_of,
    surface_distances,
)

KIDNEY, TUMOR, CYST = 1, 2, 3
KITS23_CLASSES: dict[str, tuple[int, ...]] = {
    "kidney_and_masses": (KIDNEY, TUMOR, CYST),
    "masses": (TUMOR, CYST),
    "tumor": (TUMOR,),
}
KITS23_TOLERANCE_MM: dict[str, float] = {
    "kidney_and_masses": 1.0330772532390826,
    "masses": 1.1328796488598762,
    "tumor": 1.1498198361434828,
}
Row = dict[str, str | float]


def dice(pred: np.ndarray, truth: np.ndarray, *, empty: EmptyRule = "nan") -> float:
    """Dice of two masks: twice what they share over what they hold.

    pred, truth: bool, any equal shape. Both empty: NaN (KiTS19, where it is undefined) or 1 (KiTS23) by
    `empty`; one empty: 0. Raises ScoreError on unequal shapes.
    """
    if pred.shape != truth.shape:
        raise ScoreError(f"prediction {pred.shape} and truth {truth.shape} must have one shape")
    inside, held = pred != 0, truth != 0
    return _dice(
        np.count_nonzero(inside & held), np.count_nonzero(inside) + np.count_nonzero(held), empty
    )


def kits19_scores(pred: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """KiTS19's scores of one case: `tk_dice` (label > 0), `tumor_dice` (label == 2), `composite`, their mean.

    pred, truth: integer labels (D, H, W); a cyst (3) counts as kidney. NaN where a class is empty in both,
    and then in the composite too.
    """
    return _kits19(label_counts(pred, truth))


def kits23_scores(pred: np.ndarray, truth: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """KiTS23's scores of one case: Dice and surface Dice of its three nested classes, and the mean of each.

    pred, truth: integer labels (D, H, W); spacing (z, y, x) in mm. Keys `<class>_dice`,
    `<class>_surface_dice` for the classes of KITS23_CLASSES, `dice`, `surface_dice`. Both empty: 1; one
    empty: 0.
    """
    counts = label_counts(pred, truth)
    return _kits23(counts, _surfaces(pred, truth, spacing))


def label_counts(pred: np.ndarray, truth: np.ndarray, *, case_id: str = "") -> np.ndarray:
    """How many voxels have each pair of labels: int64 (4, 4), row = truth's label, column = prediction's.

    pred, truth: integer labels 0..3 (D, H, W). Raises ScoreError on another shape, type or label.
    """
    where = f"{case_id}: " if case_id else ""
    try:
        check_masks(pred, truth)
    except ScoreError as error:
        raise ScoreError(f"{where}{error}") from None
    for name, labels in (("prediction", pred), ("truth", truth)):
        _check_labels(labels, f"{where}{name}")
    box = joint_box(pred, truth)
    counts = np.zeros(16, dtype=np.int64)
    for pred_slice, truth_slice in zip(pred[box], truth[box], strict=True):
        pairs = truth_slice.astype(np.uint8) * 4 + pred_slice.astype(np.uint8)
        counts += np.bincount(pairs.ravel(), minlength=16)
    counts[0] += pred.size - counts.sum()
    return counts.reshape(4, 4)


def volumes_ml(labels: np.ndarray, spacing: Spacing) -> dict[str, float]:
    """Volumes in ml: `kidney` (label > 0, so with tumour and cyst), `tumor`, `cyst`.

    labels: integer (D, H, W); spacing (z, y, x) in mm.
    """
    voxel = voxel_ml(spacing)
    return {
        "kidney": voxel * np.count_nonzero(labels),
        "tumor": voxel * np.count_nonzero(labels == TUMOR),
        "cyst": voxel * np.count_nonzero(labels == CYST),
    }


def false_positive_ml(pred: np.ndarray, truth: np.ndarray, spacing: Spacing) -> float:
    """Volume in ml that is tumour in the prediction and not in the truth."""
    return voxel_ml(spacing) * int(_false_positives(label_counts(pred, truth)).sum())


def cyst_false_positive_ml(pred: np.ndarray, truth: np.ndarray, spacing: Spacing) -> float:
    """Volume in ml that is tumour in the prediction and cyst in the truth.

    It means something only where the truth has its cysts marked (3): a KiTS19 file alone gives 0.
    """
    return voxel_ml(spacing) * int(_false_positives(label_counts(pred, truth))[CYST])


def score_case(pred: np.ndarray, truth: np.ndarray, spacing: Spacing, *, case_id: str = "") -> Row:
    """Every score of one case as one flat row.

    pred, truth: integer labels (D, H, W) in native geometry; spacing (z, y, x) in mm. Keys: `case`; KiTS19's
    `tk_dice`, `tumor_dice`, `composite`; KiTS23's with the prefix `kits23_`; `hd95_kidney_mm`,
    `hd95_tumor_mm`; volumes `<class>_ml` of the prediction and `<class>_truth_ml` (kidney with its masses);
    `tumor_fp_ml`, `cyst_fp_ml`. Undefined values are NaN. Raises ScoreError with the case's name.
    """
    counts = label_counts(pred, truth, case_id=case_id)
    surfaces = _surfaces(pred, truth, spacing)
    row: Row = {"case": case_id, **_kits19(counts)}
    row |= {f"kits23_{key}": value for key, value in _kits23(counts, surfaces).items()}
    row |= {
        "hd95_kidney_mm": hd95_of(surfaces["kidney_and_masses"]),
        "hd95_tumor_mm": hd95_of(surfaces["tumor"]),
    }
    voxel = voxel_ml(spacing)
    for suffix, per_label in (("ml", counts.sum(axis=0)), ("truth_ml", counts.sum(axis=1))):
        row[f"kidney_{suffix}"] = voxel * int(per_label[1:].sum())
        row[f"tumor_{suffix}"] = voxel * int(per_label[TUMOR])
        row[f"cyst_{suffix}"] = voxel * int(per_label[CYST])
    wrong = _false_positives(counts)
    row |= {"tumor_fp_ml": voxel * int(wrong.sum()), "cyst_fp_ml": voxel * int(wrong[CYST])}
    return row


def match_cases(
    predictions: Sequence[str],
    truths: Sequence[str],
    *,
    subset: Literal["refuse", "allow"] = "refuse",
) -> list[str]:
    """The case ids to score, sorted; ScoreError names each case that only one side has.

    With `subset="allow"` truths without a prediction are left out; a prediction without a truth is always refused.
    """
    extra, missing = sorted({*predictions} - {*truths}), sorted({*truths} - {*predictions})
    parts = [f"no truth for {', '.join(extra)}"] if extra else []
    parts += [f"no prediction for {', '.join(missing)}"] if missing and subset == "refuse" else []
    if parts:
        raise ScoreError(f"predictions and truths must be of the same cases: {'; '.join(parts)}")
    return sorted(predictions)


def voxel_ml(spacing: Spacing) -> float:
    """Volume of one voxel in ml; spacing (z, y, x) in mm."""
    z, y, x = check_spacing(spacing)
    return z * y * x / 1000


def _kits19(counts: np.ndarray) -> dict[str, float]:
    kidney = _class_dice(counts, (KIDNEY, TUMOR, CYST), "nan")
    tumor = _class_dice(counts, (TUMOR,), "nan")
    return {"tk_dice": kidney, "tumor_dice": tumor, "composite": (kidney + tumor) / 2}


def _kits23(counts: np.ndarray, surfaces: dict[str, SurfaceDistances]) -> dict[str, float]:
    volume = {name: _class_dice(counts, labels, "one") for name, labels in KITS23_CLASSES.items()}
    surface = {
        name: surface_dice_of(surfaces[name], tolerance_mm=KITS23_TOLERANCE_MM[name], empty="one")
        for name in KITS23_CLASSES
    }
    scores = {f"{name}_dice": value for name, value in volume.items()}
    scores |= {f"{name}_surface_dice": value for name, value in surface.items()}
    return scores | {
        "dice": sum(volume.values()) / len(volume),
        "surface_dice": sum(surface.values()) / len(surface),
    }


def _surfaces(pred: np.ndarray, truth: np.ndarray, spacing: Spacing) -> dict[str, SurfaceDistances]:
    """Surface distances of KiTS23's classes; everything outside the labels' joint box is cut away first."""
    box = joint_box(pred, truth)
    pred, truth = pred[box], truth[box]
    surfaces = {}
    for name, labels in KITS23_CLASSES.items():
        low, high = min(labels), max(labels)  # each class is a run of labels
        masks = [(m >= low) & (m <= high) for m in (pred, truth)]
        surfaces[name] = surface_distances(*masks, spacing)
    return surfaces


def _class_dice(counts: np.ndarray, labels: tuple[int, ...], empty: EmptyRule) -> float:
    members = list(labels)
    both = counts[np.ix_(members, members)].sum()
    return _dice(int(both), int(counts[members].sum() + counts[:, members].sum()), empty)


def _dice(shared: int, held: int, empty: EmptyRule) -> float:
    if held == 0:
        return 1.0 if empty == "one" else float("nan")
    return 2 * shared / held


def _false_positives(counts: np.ndarray) -> np.ndarray:
    """Voxels predicted as tumour by the truth's label, int64 (4,), with 0 for tumour itself."""
    wrong = counts[:, TUMOR].copy()
    wrong[TUMOR] = 0
    return wrong


def _check_labels(labels: np.ndarray, what: str) -> None:
    if labels.dtype.kind not in "ui":
        raise ScoreError(
            f"{what} must hold whole-number labels 0..3, got {labels.dtype}: read it as a label map"
        )
    if labels.size and (labels.max() > CYST or labels.min() < 0):
        found = sorted(set(np.unique(labels).tolist()) - {0, 1, 2, 3})
        raise ScoreError(
            f"{what} has the labels {found[:5]}; "
            "known are 0 background, 1 kidney, 2 tumour, 3 cyst: map them to these first"
        )
