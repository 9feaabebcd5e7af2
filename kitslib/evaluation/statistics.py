"""Means over seeds and cases, both drawn at random: interval, test, what a design can show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

SMALL = 10  # cases, below which a number comes with a warning
LEVEL, POWER = 0.95, 0.80
FEWEST_SEEDS, MOST_SEEDS = 3, 100  # of a plan
MORE_CASES = (1, 2, 4, 8)  # times the present ones, in a plan
NAN = float("nan")
Interval = tuple[float, float]


class Components(NamedTuple):
    """Variances of one score: between seeds, between cases, and of a seed on a case."""

    seed: Any
    case: Any
    rest: Any


UNKNOWN = Components(NAN, NAN, NAN)


class Moments(NamedTuple):
    """A mean, the variance of that mean with its degrees of freedom, and where it comes from."""

    value: Any
    variance: Any
    df: Any
    components: Components


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds and cases; `undefined` cases (NaN) are counted and left out.

    `se` is the standard error, `df` its degrees of freedom; both are NaN below two cases.
    """

    value: float
    se: float
    df: float
    n: int
    seeds: int = 1
    undefined: int = 0
    warning: str = ""
    components: Components = UNKNOWN

    @property
    def ci(self) -> Interval:
        """The 95 % interval."""
        return self.interval_at(LEVEL)

    @property
    def p(self) -> float:
        """The two-sided p against zero."""
        return float(self.p_against(0.0))

    @property
    def smallest_effect(self) -> float:
        """The effect that this design shows with 80 % power at 95 %."""
        quantiles = stats.t.ppf((1 + LEVEL) / 2, self.df) + stats.t.ppf(POWER, self.df)
        return float(quantiles * self.se)

    def interval_at(self, level: float) -> Interval:
        """Return the interval that covers with probability `level`."""
        half = stats.t.ppf((1 + level) / 2, self.df) * self.se
        return self.value - half, self.value + half

    def p_against(self, bound: float) -> Any:
        """Return the two-sided p: one minus the level from which on the interval holds `bound`."""
        gap = np.abs(self.value - bound)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stats.t.sf(gap / self.se, self.df)
        return np.where((gap == 0) & (self.se == 0), 1.0, p)

    def row(self, name: str) -> dict[str, float]:
        """Return the value as `name`, and `low`, `high` and `n`, for a row of a table."""
        return {name: self.value, "low": self.ci[0], "high": self.ci[1], "n": self.n}

    def planned(self, seeds: int, cases: int) -> Estimate:
        """Return the same mean as so many seeds and cases with these components would give it."""
        size = seeds * cases
        of_seed, of_case, rest = np.array(self.components)
        seed_part, case_part = (rest + cases * of_seed) / size, (rest + seeds * of_case) / size
        variance, df = _combined(seed_part, seeds - 1, case_part, cases - 1, rest / size)
        found = {"value": self.value, "se": float(np.sqrt(variance)), "df": float(df)}
        return Estimate(**found, n=cases, seeds=seeds, components=self.components)

    def needed(
        self, decides: Callable[[Interval], bool], level: float = LEVEL
    ) -> tuple[int, int] | None:
        """Return the fewest seeds, and cases, whose interval about this value would decide.

        The present cases come first, then twice, four and eight times as many. None: not with
        MOST_SEEDS seeds of those either, or with one seed, which tells nothing of seeds.
        """
        if np.isnan(self.components.seed) or self.n < 2:
            return None
        for cases in (times * self.n for times in MORE_CASES):
            fewest = max(FEWEST_SEEDS, self.seeds + (cases == self.n))
            for seeds in range(fewest, MOST_SEEDS + 1):
                if decides(self.planned(seeds, cases).interval_at(level)):
                    return seeds, cases
        return None


@dataclass(frozen=True)
class Share:
    """A share of independent cases, hits out of n, at least one, with Wilson's interval.

    Source: Wilson 1927, JASA 22, 209-212.
    """

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.hits / self.n

    @property
    def ci(self) -> Interval:
        """The 95 % interval."""
        return self.interval_at(LEVEL)

    @property
    def warning(self) -> str:
        """A sentence where there are few cases."""
        return small_sample_warning(self.n)

    def interval_at(self, level: float) -> Interval:
        """Return the interval that covers with probability `level`."""
        return wilson_interval(self.hits, self.n, level)

    def p_against(self, bound: float) -> float:
        """Return the two-sided p of the score test, which Wilson's interval inverts."""
        se = np.sqrt(bound * (1 - bound) / self.n)
        return float(2 * stats.norm.sf(abs(self.value - bound) / se))


def estimate(values: ArrayLike | pd.DataFrame) -> Estimate:
    """Return the mean over seeds and cases with its interval, counts and a warning.

    values: (cases,), where no training is meant, or (seeds, cases); a case that is NaN in any
    seed is undefined.
    """
    matrix = np.asarray(values, dtype=float)
    no_training = matrix.ndim == 1
    matrix = np.atleast_2d(matrix)
    if matrix.ndim != 2:
        raise ValueError(f"values must be of shape (cases,) or (seeds, cases), got {matrix.shape}")
    kept = matrix[:, ~np.isnan(matrix).any(axis=0)]
    notes = [small_sample_warning(kept.shape[1])]
    if not no_training:
        notes.append(one_seed_warning(len(kept)))
    return _estimate(crossed(kept), kept.shape, matrix.shape[1] - kept.shape[1], notes)


def paired_difference(a: ArrayLike | pd.DataFrame, b: ArrayLike | pd.DataFrame) -> Estimate:
    """Return the mean of b - a over the cases, and the seeds, that both arms have.

    a, b: tables (seeds, cases), seeds as index and case ids as columns, or arrays in one order. A
    seed means the same training cases in the same order under both arms, so shared seeds are
    paired: their differences are one sample of seeds and cases. Without a shared seed, and for
    arrays of other seed counts, cases are paired and the seeds of both arms add to the variance.
    A case that is missing or NaN in either arm is left out and counted. Raises ValueError on
    unequal case counts of arrays.
    """
    first, second, paired, lost, notes = _aligned(a, b)
    seeds, cases = min(len(first), len(second)), first.shape[1]
    moments = crossed(second - first) if paired else crossed_apart(first, second)
    notes = [small_sample_warning(cases), one_seed_warning(seeds), *notes]
    return _estimate(moments, (seeds, cases), lost, notes)


def median_difference(a: ArrayLike | pd.DataFrame, b: ArrayLike | pd.DataFrame) -> Estimate:
    """Return the mean over seeds of the median over cases, b minus a; seeds alone are random."""
    first, second, paired, _, _ = _aligned(a, b)
    if first.size == 0:
        return Estimate(value=NAN, se=NAN, df=NAN, n=0, seeds=min(len(first), len(second)))
    medians = np.median(first, axis=1), np.median(second, axis=1)
    return over_seeds(*medians, n=first.shape[1], paired=paired)


def over_seeds(a: Sequence[float], b: Sequence[float], *, n: int = 0, paired: bool) -> Estimate:
    """Return the mean of b - a, each a value a seed, by Student's t; not paired by Welch's.

    n: the cases that the values were measured on. Below two seeds the interval is NaN.
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    samples = [second - first] if paired else [first, second]
    seeds = min(map(len, samples))
    value = float(second.mean() - first.mean()) if seeds else NAN
    found = Estimate(value=value, se=NAN, df=NAN, n=n, seeds=seeds)
    if seeds < 2:
        return replace(found, warning=one_seed_warning(seeds))
    parts = np.array([sample.var(ddof=1) / len(sample) for sample in samples])
    doubt = sum(part**2 / (len(sample) - 1) for part, sample in zip(parts, samples, strict=True))
    df = parts.sum() ** 2 / doubt if doubt else seeds - 1
    return replace(found, se=float(np.sqrt(parts.sum())), df=float(df))


def crossed(matrix: np.ndarray) -> Moments:
    """Return the mean of (..., seeds, cases) with seeds and cases as crossed random effects.

    From the mean squares of the two-way analysis of variance, the variance of the mean is (seeds +
    cases - rest) / (seeds times cases), never below one of the first two alone. One seed: cases
    alone. Source: Searle, Casella & McCulloch 1992, Variance Components, section 4.5.
    """
    seeds, cases = matrix.shape[-2:]
    value = matrix.mean(axis=(-2, -1)) if cases else NAN
    if cases < 2:
        return Moments(value, NAN, NAN, UNKNOWN)
    if seeds == 1:
        spread = matrix.var(axis=(-2, -1), ddof=1)
        return Moments(value, spread / cases, cases - 1, Components(NAN, spread, NAN))
    return from_mean_squares(value, *mean_squares(matrix), seeds, cases)


def from_mean_squares(
    value: Any, of_seed: Any, of_case: Any, rest: Any, seeds: int, cases: int
) -> Moments:
    """Return the moments of a mean over crossed seeds and cases, at least two of each."""
    size = seeds * cases
    variance, df = _combined(of_seed / size, seeds - 1, of_case / size, cases - 1, rest / size)
    seed, case = np.maximum(of_seed - rest, 0) / cases, np.maximum(of_case - rest, 0) / seeds
    return Moments(value, variance, df, Components(seed, case, rest))


def crossed_apart(first: np.ndarray, second: np.ndarray) -> Moments:
    """Return the mean of second - first, (..., seeds, cases) with the same cases, other seeds.

    The cases' mean differences vary by the cases and by what is left of each arm's rest; each
    arm's seeds add their own variance, all with the degrees of freedom of the fewer. The components
    are those of a difference of two seeds. With one seed in an arm: cases alone.
    """
    cases, fewer = first.shape[-1], min(first.shape[-2], second.shape[-2])
    gaps = second.mean(axis=-2) - first.mean(axis=-2)  # (..., cases)
    if fewer < 2 or cases < 2:
        return crossed(gaps[..., None, :])
    value, of_gap = gaps.mean(axis=-1), gaps.var(axis=-1, ddof=1)
    seed_part = rest_part = seed = rest = 0.0
    for arm in (first, second):
        of_seed, _, left = mean_squares(arm)
        size = arm.shape[-2] * cases
        seed_part, rest_part = seed_part + of_seed / size, rest_part + left / size
        seed, rest = seed + np.maximum(of_seed - left, 0) / cases, rest + left
    variance, df = _combined(seed_part, fewer - 1, of_gap / cases, cases - 1, rest_part)
    case = np.maximum(of_gap - rest_part * cases, 0)
    return Moments(value, variance, df, Components(seed, case, rest))


def mean_squares(matrix: np.ndarray) -> tuple[Any, Any, Any]:
    """Return the mean squares of seeds, cases and the rest of (..., seeds, cases), two of each."""
    seeds, cases = matrix.shape[-2:]
    by_seed, by_case = matrix.mean(axis=-1), matrix.mean(axis=-2)
    of_seed, of_case = cases * by_seed.var(axis=-1, ddof=1), seeds * by_case.var(axis=-1, ddof=1)
    left = matrix - by_seed[..., None] - (by_case - by_case.mean(axis=-1)[..., None])[..., None, :]
    rest = np.einsum("...sc,...sc->...", left, left) / ((seeds - 1) * (cases - 1))
    return of_seed, of_case, rest


def tests_left(p_values: ArrayLike) -> np.ndarray:
    """Return Holm's factor of each p (..., tests): how many are left at its turn; NaN has none."""
    p = np.asarray(p_values, dtype=float)
    tests = np.count_nonzero(~np.isnan(p), axis=-1, keepdims=True)
    left = np.full(p.shape, NAN)
    np.put_along_axis(left, np.argsort(p, kind="stable"), tests - np.arange(p.shape[-1]), axis=-1)
    return np.where(np.isnan(p), NAN, left)


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return Holm's step-down adjusted p (..., tests) in the given order; NaN is no test.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")  # NaN last
    in_turn = np.take_along_axis(p * tests_left(p), order, axis=-1)
    adjusted = np.empty(p.shape)
    stepped = np.minimum(np.maximum.accumulate(in_turn, axis=-1), 1.0)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return adjusted


def holm_levels(p_values: ArrayLike) -> np.ndarray:
    """Return the level of the interval that judges each test (..., tests), at 95 % over all.

    Round by round, all tests that are left are judged at 1 - 0.05 / (their number), and those
    decided leave; this decides what Holm's procedure decides. A test has the level of the round
    that decides it, else of the last one; NaN, which is no test, has 95 %.
    """
    p = np.asarray(p_values, dtype=float)
    alphas, is_open, decided = np.full(p.shape, 1 - LEVEL), ~np.isnan(p), np.True_
    while decided.any():
        count = np.count_nonzero(is_open, axis=-1, keepdims=True)
        alphas = np.where(is_open, (1 - LEVEL) / np.maximum(count, 1), alphas)
        decided = is_open & (p <= alphas)
        is_open = is_open & ~decided
    return 1 - alphas


def wilson_interval(hits: int, n: int, level: float = LEVEL) -> Interval:
    """Return the interval of a share: hits out of n independent cases, at least one.

    Source: Wilson 1927, JASA 22, 209-212.
    """
    found = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def small_sample_warning(n: int) -> str:
    """Return a plain sentence when a number rests on fewer than SMALL cases, else an empty one."""
    text = f"only {_cases(n)}: the interval is rough and other cases could change the answer"
    return text if n < SMALL else ""


def one_seed_warning(seeds: int) -> str:
    """Return a plain sentence when a number rests on one training, else an empty one."""
    text = "one seed: the interval leaves out how much training itself varies"
    return text if seeds < 2 else ""


def _combined(seed: Any, seed_df: int, case: Any, case_df: int, rest: Any) -> tuple[Any, Any]:
    """The variance of a mean from its parts, and the degrees of freedom of Student's t.

    1 / df lies between those of both parts. Satterthwaite (1946, Biometrics Bulletin 2, 110-114)
    weighs them by the square of their shares; where the few seeds agree by chance, that takes the
    many df of the cases, and with three seeds 16 rows without effect give a false verdict in up to
    0.24 of ledgers in place of 0.05 (`python -m benchmarks coverage`). The weight here is the root
    of the seeds' share, and a mean square of d degrees counts d² / (d + 1).
    """
    variance = np.maximum(seed + case - rest, np.maximum(seed, case))
    with np.errstate(invalid="ignore"):
        weight = np.sqrt(seed / (seed + case))
    df = 1 / (weight * (seed_df + 1) / seed_df**2 + (1 - weight) / case_df)
    return variance, np.fmax(df, min(seed_df, case_df))  # of 0 / 0: the fewer


def _estimate(
    moments: Moments, shape: tuple[int, int], undefined: int, notes: Sequence[str]
) -> Estimate:
    """The estimate of one mean from its moments; shape: (seeds, cases)."""
    return Estimate(
        value=float(moments.value), se=float(np.sqrt(moments.variance)), df=float(moments.df),
        n=shape[1], seeds=shape[0], undefined=undefined, warning="; ".join(filter(None, notes)),
        components=Components(*map(float, moments.components)),
    )  # fmt: skip


def _cases(n: int) -> str:
    return "1 case" if n == 1 else f"{n} cases"


def _aligned(
    a: ArrayLike | pd.DataFrame, b: ArrayLike | pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, bool, int, list[str]]:
    """Both arms as (seeds, cases) over the same cases, without NaN.

    Also: whether their seeds are the same ones, how many cases are left out, and notes in words.
    """
    if isinstance(a, pd.DataFrame) != isinstance(b, pd.DataFrame):
        raise ValueError("arms must both be tables with case ids, or both arrays in one order")
    first, second, notes = pd.DataFrame(_rows(a)), pd.DataFrame(_rows(b)), []
    if not isinstance(a, pd.DataFrame):
        if first.shape[1] != second.shape[1]:
            counts = f"{first.shape[1]} and {second.shape[1]}"
            raise ValueError(f"arms must score the same cases, got {counts} of them")
        if len(first) != len(second):
            second.index += len(first)  # seeds that nothing says are the same
    shared = first.index.intersection(second.index)
    if len(shared):
        if max(len(first), len(second)) > len(shared):
            counts = f"{len(shared)} of {len(first)} and {len(second)} seeds"
            notes.append(f"{counts} are in both arms, the others left out")
        first, second = first.loc[shared], second.loc[shared]
    cases = first.columns.intersection(second.columns)
    lost = len(first.columns.union(second.columns)) - len(cases)
    if lost:
        notes.append(f"{_cases(lost)} scored in one arm only, left out")
    one, other = first[cases].to_numpy(float), second[cases].to_numpy(float)
    defined = ~np.isnan(np.concatenate([one, other])).any(axis=0)
    lost += int((~defined).sum())
    return one[:, defined], other[:, defined], len(shared) > 0, lost, notes


def _rows(arm: ArrayLike | pd.DataFrame) -> np.ndarray | pd.DataFrame:
    """An array as (seeds, cases); a table as it is."""
    return arm if isinstance(arm, pd.DataFrame) else np.atleast_2d(np.asarray(arm, float))
