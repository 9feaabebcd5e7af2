"""Intervals and paired tests over cases and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

SMALL = 10
RESAMPLES = 10_000
NAN = float("nan")
Interval = tuple[float, float]
Values = np.ndarray | Sequence[float] | Sequence[Sequence[float]]
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


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """What arm b changes against arm a: mean of b - a, its interval, Wilcoxon p, rank-biserial effect."""

    value: float
    ci: Interval
    p: float
    n: int
    seeds: tuple[int, int]
    undefined: int
    effect: float
    effect_ci: Interval
    warning: str


def estimate(values: Values, *, n: int = RESAMPLES, level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean over cases (and seeds) with its bootstrap interval, counts and a plain warning when cases are few.

    values: (cases,) or (seeds, cases); a case that is NaN in any seed is undefined.
    """
    matrix = _matrix(values)
    defined = ~np.isnan(matrix).any(axis=0)
    kept = matrix[:, defined]
    return Estimate(
        value=float(kept.mean()) if kept.size else NAN,
        ci=bootstrap_interval(kept, n=n, level=level, seed=seed),
        n=int(defined.sum()),
        seeds=matrix.shape[0],
        undefined=int((~defined).sum()),
        warning=small_sample_warning(int(defined.sum())),
    )


def bootstrap_interval(
    values: Values, *, n: int = RESAMPLES, level: float = 0.95, seed: int = 0
) -> Interval:
    """Bootstrap interval of the mean over cases, or over seeds and cases.

    values: (cases,) or (seeds, cases); cases that hold a NaN are left out. Cases are drawn with replacement
    and, where there are several seeds, seeds too and independently, since every seed scores the same cases.
    With fewer than two cases the interval is (nan, nan): one case says nothing about the next. Same values
    and seed, same interval.

    Percentile bootstrap with levels widened by the t quantile: for Dice-like values the plain percentiles of
    5 cases cover the mean in 81 % of trials, these in 89 %; from 40 cases on they agree. Sources: Hesterberg,
    arXiv 1411.5279 (expanded percentile); Owen 2007, doi 10.1214/07-AOAS122 (both factors resampled).
    """
    matrix = _defined(_matrix(values))
    draws = np.random.default_rng(seed)
    return _percentiles(
        _resampled_means(matrix, _case_draws(matrix.shape[1], n, draws), draws),
        matrix.shape[1],
        level,
    )


def paired_difference(
    a: Values | ByCase,
    b: Values | ByCase,
    *,
    n: int = RESAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compare two arms on the same cases: mean of b - a, paired bootstrap, Wilcoxon test, effect size.

    a, b: (cases,) or (seeds, cases) in one case order, or mappings from case id to a value or one value per
    seed, which are aligned by id. A case that is missing or NaN in either arm is left out of both and
    counted. Cases are resampled together, seeds in each arm on their own (equal seeds of two arms are not a
    pair). The Wilcoxon test and the rank-biserial effect, (W+ - W-) / (W+ + W-) in [-1, 1], use each case's
    mean over seeds. Raises ValueError on unequal case counts. Source of the effect: Kerby 2014, doi
    10.2466/11.IT.3.1.
    """
    first, second, lost = _aligned(a, b)
    defined = ~(np.isnan(first).any(axis=0) | np.isnan(second).any(axis=0))
    first, second = first[:, defined], second[:, defined]
    cases = first.shape[1]
    difference = second.mean(axis=0) - first.mean(axis=0)  # (cases,)
    draws = np.random.default_rng(seed)
    picked = _case_draws(cases, n, draws)
    shift = _resampled_means(second, picked, draws) - _resampled_means(first, picked, draws)
    return PairedDifference(
        value=float(difference.mean()) if cases else NAN,
        ci=_percentiles(shift, cases, level),
        p=_wilcoxon_p(difference),
        n=cases,
        seeds=(first.shape[0], second.shape[0]),
        undefined=int((~defined).sum()) + lost,
        effect=float(_rank_biserial(difference[None])[0]) if cases else NAN,
        effect_ci=_percentiles(_rank_biserial(difference[picked]), cases, level),
        warning=_pair_warning(cases, min(first.shape[0], second.shape[0]), lost),
    )


def compare_arms(
    arms: Mapping[str, Values | ByCase], pairs: Sequence[tuple[str, str]], *, seed: int = 0
) -> list[dict[str, object]]:
    """One row for each pair (reference, arm): what the arm changes, with Holm's correction over all of them.

    Keys: `arm`, `reference`, `difference`, `lo`, `hi`, `p`, `p_holm`, `effect`, `effect_lo`, `effect_hi`,
    `n`, `seeds` (the fewer of the two), `warning`. Raises ValueError for a pair with an arm that is not there.
    """
    if absent := {name for pair in pairs for name in pair} - set(arms):
        raise ValueError(
            f"pairs name {', '.join(sorted(absent))}; the arms are {', '.join(sorted(arms))}"
        )
    found = [paired_difference(arms[reference], arms[name], seed=seed) for reference, name in pairs]
    adjusted = holm([d.p for d in found])
    return [
        {
            "arm": name,
            "reference": reference,
            "difference": d.value,
            "lo": d.ci[0],
            "hi": d.ci[1],
            "p": d.p,
            "p_holm": float(p_holm),
            "effect": d.effect,
            "effect_lo": d.effect_ci[0],
            "effect_hi": d.effect_ci[1],
            "n": d.n,
            "seeds": min(d.seeds),
            "warning": d.warning,
        }
        for (reference, name), d, p_holm in zip(pairs, found, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values in the given order; NaN stays NaN and does not count as a test.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    p = np.asarray(p_values, dtype=float)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = np.full(p.shape, NAN)
    steps = p[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def wilson_interval(hits: int, n: int, *, level: float = 0.95) -> Interval:
    """Interval of a share: hits out of n independent cases; (nan, nan) for n = 0.

    Source: Wilson 1927, JASA 22, 209-212.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"hits must be between 0 and n = {n}, got {hits}")
    if n == 0:
        return NAN, NAN
    z = stats.norm.ppf((1 + level) / 2)
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(hits * (n - hits) / n + z**2 / 4)
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


def small_sample_warning(n: int) -> str:
    """A plain sentence when a number rests on fewer than SMALL cases, else an empty string."""
    if n >= SMALL:
        return ""
    return f"only {n} case{'' if n == 1 else 's'}: the interval is rough and other cases could change the answer"


def _pair_warning(cases: int, seeds: int, lost: int) -> str:
    parts = [small_sample_warning(cases)]
    if seeds < 2:
        parts.append("one seed in an arm: the interval leaves out how much training itself varies")
    if lost:
        parts.append(f"{lost} case{'' if lost == 1 else 's'} scored in one arm only, left out")
    return "; ".join(part for part in parts if part)


def _matrix(values: Values) -> np.ndarray:
    """float64 (seeds, cases)."""
    matrix = np.atleast_2d(np.asarray(values, dtype=float))
    if matrix.ndim != 2:
        raise ValueError(
            f"values must have the shape (cases,) or (seeds, cases), got {matrix.shape}"
        )
    return matrix


def _defined(matrix: np.ndarray) -> np.ndarray:
    return matrix[:, ~np.isnan(matrix).any(axis=0)]


def _aligned(a: Values | ByCase, b: Values | ByCase) -> tuple[np.ndarray, np.ndarray, int]:
    """Both arms as (seeds, cases) over the same cases, and how many cases only one of them has."""
    if isinstance(a, Mapping) != isinstance(b, Mapping):
        raise ValueError(
            "both arms must be mappings from case id to value, or both arrays in one case order"
        )
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        shared = sorted(a.keys() & b.keys())
        first, second = (
            np.array([np.atleast_1d(arm[c]) for c in shared], dtype=float) for arm in (a, b)
        )
        empty = np.empty((1, 0))
        lost = len(a.keys() ^ b.keys())
        return (first.T, second.T, lost) if shared else (empty, empty, lost)
    first, second = _matrix(a), _matrix(b)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"arms must score the same cases, got {first.shape[1]} and {second.shape[1]} of them"
        )
    return first, second, 0


def _case_draws(cases: int, n: int, draws: np.random.Generator) -> np.ndarray:
    """Indices (n, cases) of the cases in each resample."""
    return draws.integers(0, max(cases, 1), size=(n, cases))


def _resampled_means(
    matrix: np.ndarray, picked: np.ndarray, draws: np.random.Generator
) -> np.ndarray:
    """Mean (n,) of each resample: the picked cases, and as many seeds as there are, drawn afresh."""
    seeds, cases = matrix.shape
    if cases == 0:
        return np.full(len(picked), NAN)
    weights = draws.multinomial(seeds, [1 / seeds] * seeds, size=len(picked)) / seeds  # (n, seeds)
    per_seed = np.stack([row[picked].mean(axis=1) for row in matrix], axis=1)  # (n, seeds)
    return (weights * per_seed).sum(axis=1)


def _percentiles(means: np.ndarray, cases: int, level: float) -> Interval:
    if cases < 2:
        return NAN, NAN
    tail = stats.norm.cdf(stats.t.ppf((1 - level) / 2, cases - 1) * np.sqrt(cases / (cases - 1)))
    lo, hi = np.quantile(means, [tail, 1 - tail])
    return float(lo), float(hi)


def _wilcoxon_p(difference: np.ndarray) -> float:
    """Two-sided p of the signed-rank test, exact with ties too: each sign is a fair coin. Zeros are left out."""
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
    ranks = stats.rankdata(size, axis=1) - (size == 0).sum(
        axis=1, keepdims=True
    )  # zeros come first and do not count
    ranks[size == 0] = 0
    total = ranks.sum(axis=1)
    return (np.sign(differences) * ranks).sum(axis=1) / np.where(total > 0, total, 1)
