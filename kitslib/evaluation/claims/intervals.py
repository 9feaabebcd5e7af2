"""Judging a number by its interval: above a bound, below it, or undecided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kitslib.evaluation.claims.evidence import Evidence
from kitslib.evaluation.statistics import NAN, Estimate, Interval, paired_difference

Word = Literal["reproduced", "not reproduced", "undecided", "not testable here"]
WORST: tuple[Word, ...] = ("not reproduced", "not testable here", "undecided", "reproduced")
MIN_CASES = 6  # the fewest that, all agreeing, reject chance at 5 % (sign test: 2 × 0.5⁶ = 0.03)
CLOSE = 0.05  # of an interval's width: 10,000 other resamplings move an end by up to a third of it


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on a claim or one part of it, with its reason in words.

    `measure` says what the value is (NaN: not measured), `unit` its unit ("" for Dice and shares),
    `why` what decided, `also` what the other parts say.
    """

    verdict: Word
    why: str
    measure: str
    unit: str = ""
    value: float = NAN
    ci: Interval = (NAN, NAN)
    n: int = 0
    warning: str = ""
    also: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The verdict as one sentence with its numbers."""
        text = self.why
        if not math.isnan(self.value):
            numbers = f"{self.value:.3f}"
            if not math.isnan(self.ci[0]):
                numbers += " [{}, {}]".format(*map(_three_decimals, self.ci))
            text = f"{self.measure}: {numbers} {self.unit}".rstrip() + f", n = {self.n}; {self.why}"
        text += f" ({self.warning})" if self.warning else ""
        return " | ".join([text, *self.also])


def missing(measure: str, what: str, unit: str = "") -> Verdict:
    """Return the verdict where `what` was not measured."""
    why = f"not measured: {what}"
    return Verdict(verdict="not testable here", why=why, measure=measure, unit=unit)


def gain(
    evidence: Evidence, scores: str, lower: str, higher: str, what: str, unit: str = ""
) -> Verdict:
    """Judge whether `higher` lies above `lower` case by case: their difference against zero.

    scores: the field of the evidence that holds both arms; what: its name in words.
    """
    arms = getattr(evidence, scores)
    if absent := [name for name in (lower, higher) if name not in arms]:
        return missing(f"difference in {what}", f"{what} of {' and '.join(absent)}", unit)
    found = paired_difference(arms[lower], arms[higher])
    where = " on synthetic CT" if evidence.synthetic else ""
    return against(0.0, found, f"difference in {what}{where}, {higher} minus {lower}", unit)


def reaching(found: Verdict, size: float) -> Verdict:
    """Ask of a gain that is above zero that its interval reaches `size`."""
    if found.verdict != "reproduced" or found.ci[1] >= size:
        return found
    why = f"a gain, but its interval ends below {size:g}"
    return replace(found, verdict="not reproduced", why=why)


def all_of(parts: Sequence[Verdict]) -> Verdict:
    """Judge a claim with several parts: one that fails refutes it, else one open leaves it open.

    The numbers are those of the first part that decides; the words name every part.
    """
    deciding = min(parts, key=lambda part: WORST.index(part.verdict))
    others = [f"{part.verdict}: {part.reason}" for part in parts if part is not deciding]
    return replace(deciding, also=tuple(others))


def against(bound: float, found: Estimate, measure: str, unit: str = "") -> Verdict:
    """Judge a mean over cases against a bound by its interval."""
    if found.n == 0:
        return missing(measure, f"{measure}, on any case", unit)
    lo, hi = found.ci
    at = "zero" if bound == 0 else f"{bound:g}"
    just = ", only just" if min(abs(lo - bound), abs(hi - bound)) < CLOSE * (hi - lo) else ""
    verdict, why = "undecided", f"the interval includes {at}"
    if found.n < MIN_CASES:
        why = f"fewer than {MIN_CASES} cases decide nothing"
    elif lo > bound:
        verdict, why = "reproduced", f"the interval lies above {at}{just}"
    elif hi < bound:
        verdict, why = "not reproduced", f"the interval lies below {at}{just}"
    return Verdict(
        verdict=verdict, why=why, measure=measure, unit=unit, value=found.value, ci=found.ci,
        n=found.n, warning=found.warning,
    )  # fmt: skip


def _three_decimals(value: float) -> str:
    """Three decimals, or one digit that says on which side of zero a smaller value lies."""
    return f"{value:.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:.1g}"
