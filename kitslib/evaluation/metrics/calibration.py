"""Whether what a network calls likely is as often true as it says."""

from __future__ import annotations

import numpy as np


def calibration_counts(probability: np.ndarray, truth: np.ndarray, *, bins: int = 10) -> np.ndarray:
    """Return (3, bins) sums over voxels: their number, of probabilities, of truths, by bins of equal width.

    probability: 0..1, truth: boolean, of one shape. Sums of several cases may be added. Raises ValueError on
    unequal shapes.
    """
    if probability.shape != truth.shape:
        raise ValueError(
            f"calibration: expected one shape, got {probability.shape} and {truth.shape}"
        )
    p = probability.ravel().astype(np.float64)
    which = np.minimum((p * bins).astype(int), bins - 1)
    columns = (None, p, truth.ravel().astype(np.float64))
    return np.stack(
        [
            np.bincount(which, weights=values, minlength=bins).astype(np.float64)
            for values in columns
        ]
    )


def calibration_error(counts: np.ndarray) -> float:
    """Return the expected calibration error: the mean distance of probability and frequency over all voxels.

    counts: from `calibration_counts`; NaN without voxels. Source: Naeini et al., AAAI 2015.
    """
    number, claimed, true = counts
    return float(np.abs(claimed - true).sum() / number.sum()) if number.sum() else float("nan")
