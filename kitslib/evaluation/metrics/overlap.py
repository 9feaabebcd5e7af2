"""How alike two samples of HU are."""

from __future__ import annotations

import numpy as np

LOW, HIGH, WIDTH = -150.0, 350.0, 10.0  # of the histogram's bins, in HU
FEWEST = 100  # voxels that a histogram needs


def histogram_overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the area that two normalised histograms share: 1 for the same values, 0 for none.

    first, second: HU of any shape, clipped to [LOW, HIGH]. NaN when either has fewer than 100
    values.
    """
    if first.size < FEWEST or second.size < FEWEST:
        return float("nan")
    bins = np.arange(LOW, HIGH + WIDTH, WIDTH)
    counts = [np.histogram(np.clip(values, LOW, HIGH), bins)[0] for values in (first, second)]
    return float(np.minimum(counts[0] / first.size, counts[1] / second.size).sum())
