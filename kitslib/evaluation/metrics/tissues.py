"""How alike kidney, tumour, cyst and fat are in HU: overlaps of a case and over cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from kitslib.evaluation.metrics.overlap import histogram_overlap
from kitslib.evaluation.metrics.statistics import estimate

PAIRS = (("kidney", "cyst"), ("cyst", "tumor"), ("kidney", "tumor"), ("kidney", "fat"))


def hu_overlaps(hu: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the histogram overlap of each pair, such as `kidney_cyst_overlap`.

    hu: HU of kidney, tumor, cyst and fat, of any shape; nothing is returned where there is none.
    """
    if not hu:
        return {}
    return {f"{one}_{other}_overlap": histogram_overlap(hu[one], hu[other]) for one, other in PAIRS}


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
    rows = []
    none = np.empty(0)
    for one, other in PAIRS:
        mean = estimate([case.get(f"{one}_{other}_overlap", np.nan) for case in cases])
        together = histogram_overlap(pooled.get(one, none), pooled.get(other, none))
        row = {"pair": f"{one} and {other}".replace("tumor", "tumour"), "mean": mean.value}
        low, high = mean.ci
        rows.append(row | {"low": low, "high": high, "n": mean.n, "pooled": together})
    return rows
