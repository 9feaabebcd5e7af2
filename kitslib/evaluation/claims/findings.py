"""Judging a number by its interval: above a bound, below it, or undecided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kitslib.evaluation.claims.evidence import ArmScores, CaseValues
from kitslib.evaluation.metrics.statistics import bootstrap_interval, estimate, paired_difference

Word = Literal["reproduced", "not reproduced", "undecided", "not testable here"]
Interval = tuple[float, float]
NAN = float("nan")

MIN_CASES = 6  # the fewest with which cases that all agree reject chance at 5 % (sign test: 2 × 0.5⁶ = 0.03)
CLOSE = (
    0.05  # of an interval's width: another 10,000 resamplings move an end by up to a third of it
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer to a claim or one part of it.

    `why` says what decided it, `measure` what the value is, `also` what the other parts say.
    """

    verdict: Word = "undecided"
    why: str
    measure: str = ""
    value: float = NAN
    ci: Interval = (NAN, NAN)
    n: int = 0
    warning: str = ""
    also: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The finding as one sentence with its numbers."""
        lo, hi = self.ci
        interval = "" if math.isnan(lo) else f" [{_bound(lo)}, {_bound(hi)}]"
        numbers = "" if math.isnan(self.value) else f" {self.value:.3f}{interval}, n = {self.n}"
        told = f"{self.measure}:{numbers}; {self.why}" if numbers else self.why
        warned = f"{told} ({self.warning})" if self.warning else told
        return " | ".join([warned, *self.also])


def missing(what: str) -> Finding:
    """The answer where something was not measured."""
    return Finding(verdict="not testable here", why=f"not measured: {what}")


def unreal(values: CaseValues | None, what: str) -> Finding | None:
    """The answer where a fact about patients was not measured on patients; None where it was."""
    if values is None or not values.values:
        return missing(what)
    if values.synthetic:
        return Finding(
            verdict="not testable here",
            why=f"{what}: the cohort is synthetic and has what its generator gave it, so it confirms nothing",
        )
    return None


def mean_level(values: Sequence[float], measure: str, bound: float) -> Finding:
    """A mean over cases, judged against a bound by its interval."""
    found = estimate(values)
    level = Finding(
        why="", measure=measure, value=found.value, ci=found.ci, n=found.n, warning=found.warning
    )
    return _against(level, bound)


def gain(
    arms: Mapping[str, ArmScores], lower: str, higher: str, what: str, synthetic: bool
) -> Finding:
    """Whether `higher` lies above `lower` case by case: the interval of the difference against zero."""
    if absent := [name for name in (lower, higher) if name not in arms]:
        return missing(f"{what} of {' and '.join(absent)}")
    found = paired_difference(arms[lower].by_case(), arms[higher].by_case())
    where = " on synthetic CT" if synthetic else ""
    difference = Finding(
        why="",
        measure=f"{what}{where}, {higher} minus {lower}",
        value=found.value,
        ci=found.ci,
        n=found.n,
        warning=found.warning,
    )
    return _against(difference, 0.0)


def by_at_least(found: Finding, size: float) -> Finding:
    """Ask of a gain above zero that it is at least `size`; undecided where its interval leaves it open."""
    if found.verdict != "reproduced" or found.value >= size:
        return found
    if found.ci[1] < size:
        return replace(
            found, verdict="not reproduced", why=f"a gain, but its interval ends below {size:g}"
        )
    return replace(
        found, verdict="undecided", why=f"a gain, but its interval leaves open whether {size:g}"
    )


def reaching(found: Finding, size: float) -> Finding:
    """Ask of a gain that is above zero that its interval reaches `size`."""
    if found.verdict != "reproduced" or found.ci[1] >= size:
        return found
    return replace(
        found, verdict="not reproduced", why=f"a gain, but its interval ends below {size:g}"
    )


def nothing_lost(loss: CaseValues | None, measure: str, tolerated: float) -> Finding:
    """Whether no case loses more than `tolerated`: one that does is a counter-example."""
    if loss is None or not loss.values:
        return missing(measure)
    lost = list(loss.values.values())
    short = sum(share > tolerated for share in lost)
    return Finding(
        verdict="not reproduced" if short else "reproduced",
        why=f"cases that lose more than {tolerated:.1%}: {short} of {len(lost)}",
        measure=measure,
        value=sum(lost) / len(lost),
        ci=bootstrap_interval(lost),
        n=len(lost),
    )


def all_of(parts: Sequence[Finding]) -> Finding:
    """A claim with several parts: one that fails refutes it, else one missing or open leaves it so.

    The numbers are those of the first part that decides; the words name every part.
    """
    worst: tuple[Word, ...] = ("not reproduced", "not testable here", "undecided", "reproduced")
    deciding = next(part for word in worst for part in parts if part.verdict == word)
    return replace(
        deciding,
        also=tuple(f"{part.verdict}: {part.reason}" for part in parts if part is not deciding),
    )


def _against(found: Finding, bound: float) -> Finding:
    at = "zero" if bound == 0 else f"{bound:g}"
    lo, hi = found.ci
    if found.n == 0:
        return missing(f"{found.measure}, on any case")
    if found.n < MIN_CASES:
        return replace(
            found, verdict="undecided", why=f"fewer than {MIN_CASES} cases decide nothing"
        )
    just = ", only just" if min(abs(lo - bound), abs(hi - bound)) < CLOSE * (hi - lo) else ""
    if lo > bound:
        return replace(found, verdict="reproduced", why=f"the interval lies above {at}{just}")
    if hi < bound:
        return replace(found, verdict="not reproduced", why=f"the interval lies below {at}{just}")
    return replace(found, verdict="undecided", why=f"the interval includes {at}")


def _bound(value: float) -> str:
    """Three decimals, or one digit that says on which side of zero a smaller value lies."""
    return f"{value:.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:.1g}"
