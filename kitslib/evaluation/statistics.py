"""Intervals and paired tests over cases and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng
from numpy.typing import ArrayLike
from scipy import stats

SMALL = 10  # cases, below which a number comes with a warning
RESAMPLES, SEED = 10_000, 0
LEVEL = 0.95
NAN = float("nan")
Interval = tuple[float, float]
ByCase = Mapping[str, float | Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over cases with its interval; `undefined` cases (NaN) are counted and left out."""

    value: float
    ci: Interval
    n: int
    seeds: int
    undefined: int
    warning: str

    def row(self, name: str) -> dict[str, float]:
        """Return the value as `name`, and `low`, `high` and `n`, for a row of a table."""
        return {name: self.value, "low": self.ci[0], "high": self.ci[1], "n": self.n}


@dataclass(frozen=True, kw_only=True)
class PairedDifference(Estimate):
    """Mean of b - a (`seeds`: the fewer of the two), Wilcoxon p and rank-biserial effect."""

    p: float
    effect: float
    effect_ci: Interval


def estimate(values: ArrayLike) -> Estimate:
    """Return the mean over cases (and seeds), its bootstrap interval, counts and a warning.

    values: (cases,) or (seeds, cases); a case that is NaN in any seed is undefined.
    """
    matrix = _matrix(values)
    kept = _defined(matrix)
    cases = kept.shape[1]
    return Estimate(
        value=float(kept.mean()) if kept.size else NAN, ci=bootstrap_interval(kept), n=cases,
        seeds=len(matrix), undefined=matrix.shape[1] - cases, warning=small_sample_warning(cases),
    )  # fmt: skip


def bootstrap_interval(values: ArrayLike) -> Interval:
    """Return the bootstrap 95 % interval of the mean over cases, or over seeds and cases.

    values: (cases,) or (seeds, cases); cases that hold a NaN are left out. Cases are drawn with
    replacement, and seeds too and independently, since every seed scores the same cases. With
    fewer than two cases the interval is (nan, nan). The levels of the percentiles are widened by
    the t quantile: for Dice-like values the plain ones cover the mean of 5 cases in 81 % of
    trials, these in 89 %; from 40 cases on they agree. Sources: Hesterberg, arXiv 1411.5279
    (expanded percentile); Owen 2007, doi 10.1214/07-AOAS122 (both factors resampled).
    """
    matrix = _defined(_matrix(values))
    cases, draws = matrix.shape[1], default_rng(SEED)
    picked = draws.integers(0, max(cases, 1), size=(RESAMPLES, cases))
    return _percentiles(_resampled_means(matrix, picked, draws), cases)


def paired_difference(a: ArrayLike | ByCase, b: ArrayLike | ByCase) -> PairedDifference:
    """Compare two arms on the same cases: mean of b - a, paired bootstrap, Wilcoxon test, effect.

    a, b: (cases,) or (seeds, cases) in one case order; or, aligned by case id, tables (seeds,
    cases) or mappings to a value or one per seed. A case that is missing or NaN in either arm is
    left out and counted. Cases are resampled together, seeds in each arm on their own. The
    Wilcoxon test and the rank-biserial effect, (W+ - W-) / (W+ + W-) in [-1, 1], use each case's
    mean over seeds. Raises ValueError on unequal case counts. Source of the effect: Kerby 2014,
    doi 10.2466/11.IT.3.1.
    """
    first, second, lost = _aligned(a, b)
    defined = ~np.isnan(np.concatenate([first, second])).any(axis=0)
    first, second = first[:, defined], second[:, defined]
    cases, seeds = first.shape[1], min(len(first), len(second))
    difference = second.mean(axis=0) - first.mean(axis=0)  # (cases,)
    draws = default_rng(SEED)
    picked = draws.integers(0, max(cases, 1), size=(RESAMPLES, cases))
    shift = _resampled_means(second, picked, draws) - _resampled_means(first, picked, draws)
    notes = [small_sample_warning(cases)]
    if seeds < 2:
        notes.append("one seed in an arm: the interval leaves out how much training itself varies")
    if lost:
        notes.append(f"{_cases(lost)} scored in one arm only, left out")
    return PairedDifference(
        value=float(difference.mean()) if cases else NAN, ci=_percentiles(shift, cases), n=cases,
        seeds=seeds, undefined=int((~defined).sum()) + lost,
        warning="; ".join(filter(None, notes)), p=_wilcoxon_p(difference),
        effect=float(_rank_biserial(difference[None])[0]) if cases else NAN,
        effect_ci=_percentiles(_rank_biserial(difference[picked]), cases),
    )  # fmt: skip


def compare_arms(
    arms: Mapping[str, ArrayLike | ByCase], pairs: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """Return a row per pair (reference, arm) on the cases of both, Holm's correction over all.

    Columns: `arm`, `reference`, `difference`, `lo`, `hi`, `p`, `p_holm`, `effect`, `effect_lo`,
    `effect_hi`, `n`, `seeds`, `warning`. Raises ValueError for an arm that is not there.
    """
    if absent := set().union(*pairs) - set(arms):
        raise ValueError(f"pairs name {sorted(absent)}; the arms are {sorted(arms)}")
    columns = "arm reference difference lo hi p effect effect_lo effect_hi n seeds warning"
    rows = []
    for reference, name in pairs:
        d = paired_difference(arms[reference], arms[name])
        effects = d.value, *d.ci, d.p, d.effect, *d.effect_ci
        rows.append((name, reference, *effects, d.n, d.seeds, d.warning))
    table = pd.DataFrame(rows, columns=columns.split())
    table.insert(6, "p_holm", holm(table["p"]))
    return table


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return Holm's step-down adjusted p-values in the given order; NaN stays, and is no test.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")  # NaN last
    tests_left = np.count_nonzero(~np.isnan(p)) - np.arange(p.size)
    adjusted = np.empty(p.shape)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * tests_left), 1.0)
    return adjusted


def wilson_interval(hits: int, n: int) -> Interval:
    """Return the 95 % interval of a share: hits out of n independent cases, at least one.

    Source: Wilson 1927, JASA 22, 209-212.
    """
    found = stats.binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def small_sample_warning(n: int) -> str:
    """Return a plain sentence when a number rests on fewer than SMALL cases, else an empty one."""
    text = f"only {_cases(n)}: the interval is rough and other cases could change the answer"
    return text if n < SMALL else ""


def _cases(n: int) -> str:
    return "1 case" if n == 1 else f"{n} cases"


def _matrix(values: ArrayLike) -> np.ndarray:
    """float64 (seeds, cases)."""
    matrix = np.atleast_2d(np.asarray(values, dtype=float))
    if matrix.ndim != 2:
        raise ValueError(f"values must be of shape (cases,) or (seeds, cases), got {matrix.shape}")
    return matrix


def _defined(matrix: np.ndarray) -> np.ndarray:
    """The cases that no seed leaves undefined."""
    return matrix[:, ~np.isnan(matrix).any(axis=0)]


def _aligned(a: ArrayLike | ByCase, b: ArrayLike | ByCase) -> tuple[np.ndarray, np.ndarray, int]:
    """Both arms as (seeds, cases) over the same cases, and how many cases only one of them has."""
    a, b = (arm.to_dict("list") if isinstance(arm, pd.DataFrame) else arm for arm in (a, b))
    if isinstance(a, Mapping) != isinstance(b, Mapping):
        raise ValueError("arms must both map case ids to values, or both be arrays in one order")
    lost = 0
    if isinstance(a, Mapping):
        shared, lost = sorted(a.keys() & b.keys()), len(a.keys() ^ b.keys())
        a = np.array([np.atleast_1d(a[case]) for case in shared], dtype=float).T
        b = np.array([np.atleast_1d(b[case]) for case in shared], dtype=float).T
    first, second = _matrix(a), _matrix(b)
    if first.shape[1] != second.shape[1]:
        counts = f"{first.shape[1]} and {second.shape[1]}"
        raise ValueError(f"arms must score the same cases, got {counts} of them")
    return first, second, lost


def _resampled_means(matrix: np.ndarray, picked: np.ndarray, draws: Generator) -> np.ndarray:
    """Mean (n,) of each resample: the cases picked (n, cases), and as many seeds, drawn anew."""
    seeds, cases = matrix.shape
    if cases == 0:
        return np.full(len(picked), NAN)
    weights = draws.multinomial(seeds, [1 / seeds] * seeds, size=len(picked)) / seeds  # (n, seeds)
    per_seed = np.stack([row[picked].mean(axis=1) for row in matrix], axis=1)  # (n, seeds)
    return (weights * per_seed).sum(axis=1)


def _percentiles(means: np.ndarray, cases: int) -> Interval:
    if cases < 2:
        return NAN, NAN
    tail = stats.norm.cdf(stats.t.ppf((1 - LEVEL) / 2, cases - 1) * np.sqrt(cases / (cases - 1)))
    lo, hi = np.quantile(means, [tail, 1 - tail])
    return float(lo), float(hi)


def _wilcoxon_p(difference: np.ndarray) -> float:
    """Two-sided p of the signed-rank test, exact with ties too; zeros are left out."""
    if difference.size < 2:
        return NAN
    moved = difference[difference != 0]
    ranks = np.rint(2 * stats.rankdata(np.abs(moved))).astype(int)  # doubled: ties have half ranks
    chance = np.zeros(ranks.sum() + 1)  # of each sum of the positive ranks
    chance[0] = 1
    for rank in ranks:
        chance[rank:] = (chance[rank:] + chance[:-rank]) / 2
        chance[:rank] /= 2
    positive = ranks[moved > 0].sum()
    return min(1.0, 2 * float(min(chance[: positive + 1].sum(), chance[positive:].sum())))


def _rank_biserial(differences: np.ndarray) -> np.ndarray:
    """Rank-biserial effect (n,) of each row of (n, cases); 0 where nothing differs."""
    size = np.abs(differences)
    zeros = (size == 0).sum(axis=1, keepdims=True)
    ranks = stats.rankdata(size, axis=1) - zeros  # zeros come first and do not count
    ranks[size == 0] = 0
    total = ranks.sum(axis=1)
    return (np.sign(differences) * ranks).sum(axis=1) / np.where(total > 0, total, 1)
