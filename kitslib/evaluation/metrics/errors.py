"""Where the cascade loses a case's tumour, and whether its probabilities are right."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kitslib.evaluation.metrics.scores import false_positive_ml
from kitslib.evaluation.metrics.surface import NAN, Spacing

BINS = 10  # of the probability, of equal width


def calibration_counts(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return (3, BINS) sums over voxels by probability: voxels, probabilities, truths.

    probability: 0..1, truth: boolean, of one shape, else ValueError. Sums of cases may be added.
    """
    if probability.shape != truth.shape:
        got = f"{probability.shape} and {truth.shape}"
        raise ValueError(f"calibration: expected one shape, got {got}")
    p = probability.ravel().astype(np.float64)
    which = np.minimum((p * BINS).astype(int), BINS - 1)
    columns = np.ones_like(p), p, truth.ravel()
    return np.stack([np.bincount(which, weights, BINS) for weights in columns])


def calibration_error(counts: np.ndarray) -> float:
    """Return the expected calibration error: mean distance of probability and frequency by voxel.

    counts: from `calibration_counts`; NaN without voxels. Source: Naeini et al., AAAI 2015.
    """
    number, claimed, true = counts
    return float(np.abs(claimed - true).sum() / number.sum()) if number.sum() else NAN


def tumor_losses(
    truth: np.ndarray, kidney: np.ndarray, tumor: np.ndarray, labels: np.ndarray, spacing: Spacing
) -> dict[str, float]:
    """Return which share of the true tumour each step of the cascade lost.

    truth: label map (D, H, W) with tumour 2; kidney: mask of the first stage; tumor: mask of the
    second, before components are dropped; labels: the final label map; spacing (z, y, x) in mm.
    Keys: `outside_kidney`, `not_seen`, `dropped`, `found`, which add up to 1 (NaN without tumour),
    and `false_ml`, the false-positive tumour volume.
    """
    true, kept = truth == 2, labels == 2
    total = int(true.sum())
    outside = true & (kidney == 0) & ~kept
    unseen = true & ~outside & (tumor == 0)
    dropped = true & ~outside & ~unseen & ~kept
    masks = {"outside_kidney": outside, "not_seen": unseen, "dropped": dropped}
    masks["found"] = true & kept
    row = {name: float(mask.sum()) / total if total else NAN for name, mask in masks.items()}
    return row | {"false_ml": false_positive_ml(labels, truth, spacing)}


def in_words(row: Mapping[str, float | str]) -> str:
    """Return a sentence on a case: `case`, `tumor_dice`, `tumor_truth_ml`, and `tumor_losses`."""
    if not row["tumor_truth_ml"]:
        return f"{row['case']}: no labelled tumour; {row['false_ml']:.1f} ml are false positives."
    return (
        f"{row['case']}: tumour Dice {row['tumor_dice']:.2f}. Of {row['tumor_truth_ml']:.1f} ml of "
        f"tumour {row['outside_kidney']:.0%} lie outside the kidneys that were found, "
        f"{row['not_seen']:.0%} were not seen in them, {row['dropped']:.0%} were dropped with "
        f"smaller components; {row['false_ml']:.1f} ml are false-positive tumour."
    )
