"""Calibration: whether what a network gives a probability p is true in a share p of the voxels."""

from __future__ import annotations

import numpy as np

BINS = 10


def calibration_counts(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return (3, BINS) sums over voxels by probability: voxels, probabilities, truths.

    probability: 0..1, truth: boolean, of one shape; bins have equal width. Sums of several cases
    may be added. Raises ValueError on unequal shapes.
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
    return float(np.abs(claimed - true).sum() / number.sum()) if number.sum() else float("nan")
