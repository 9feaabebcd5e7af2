"""How alike kidney, tumour, cyst and fat are in HU: overlaps of a case and over cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kitslib.evaluation.statistics import NAN, estimate

LOW, HIGH, WIDTH = -150.0, 350.0, 10.0  # of the histogram's bins, in HU
FEWEST = 100  # voxels that a histogram needs
PAIRS = (("kidney", "cyst"), ("cyst", "tumor"), ("kidney", "tumor"), ("kidney", "fat"))


def histogram_overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the area that two normalised histograms share: 1 for the same values, 0 for none.

    first, second: HU of any shape, clipped to [LOW, HIGH]; NaN when one has fewer than 100 values.
    """
    if min(first.size, second.size) < FEWEST:
        return NAN
    bins = np.arange(LOW, HIGH + WIDTH, WIDTH)
    counts = [np.histogram(np.clip(values, LOW, HIGH), bins)[0] for values in (first, second)]
    return float(np.minimum(counts[0] / first.size, counts[1] / second.size).sum())


def hu_overlaps(hu: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the histogram overlap of each pair, such as `kidney_cyst_overlap`.

    hu: HU of kidney, tumor, cyst and fat, of any shape; nothing is returned where there is none.
    """
    pairs = PAIRS if hu else ()
    return {f"{one}_{other}_overlap": histogram_overlap(hu[one], hu[other]) for one, other in pairs}


def pooled_hu(cases: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the HU of all cases together, by tissue; a case may lack some tissues."""
    pooled: dict[str, np.ndarray] = {}
    for case in cases:
        for name, hu in case.items():
            pooled[name] = np.concatenate([pooled.get(name, hu[:0]), hu])
    return pooled


def overlap_rows(
    cases: Sequence[Mapping[str, Any]], pooled: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Return a row per pair: the mean of the cases' overlaps with its interval, and all pooled.

    cases: rows that hold what `hu_overlaps` gives, or nothing of it. pooled: HU over all cases.
    Keys: pair, mean, low, high, n, pooled; NaN where no case has enough of both.
    """
    rows, none = [], np.empty(0)
    for one, other in PAIRS:
        pair = f"{one} and {other}".replace("tumor", "tumour")
        mean = estimate([case.get(f"{one}_{other}_overlap", NAN) for case in cases])
        together = histogram_overlap(pooled.get(one, none), pooled.get(other, none))
        rows.append({"pair": pair} | mean.row("mean") | {"pooled": together})
    return rows
