"""How alike two samples of HU are."""

from __future__ import annotations

import numpy as np


def histogram_overlap(
    first: np.ndarray,
    second: np.ndarray,
    *,
    low: float = -150.0,
    high: float = 350.0,
    width: float = 10.0,
) -> float:
    """Area that two normalised histograms share: 1 for the same values, 0 when a threshold parts them.

    first, second: HU of any shape, clipped to [low, high]; bins of `width` HU. NaN when either has under 100 values.
    """
    if first.size < 100 or second.size < 100:
        return float("nan")
    bins = np.arange(low, high + width, width)
    shares = [
        np.histogram(np.clip(values, low, high), bins)[0] / values.size
        for values in (first, second)
    ]
    return float(np.minimum(*shares).sum())
