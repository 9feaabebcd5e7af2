"""Judging a number by its interval: above a bound, below it, as good as equal, or undecided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kitslib.evaluation.statistics import (
    LEVEL,
    MORE_CASES,
    MOST_SEEDS,
    NAN,
    Estimate,
    Interval,
    Share,
)

Word = Literal[
    "reproduced", "contradicted", "practically equal", "undecided", "not testable here"
]  # fmt: skip
WORST: tuple[Word, ...] = (
    "contradicted", "practically equal", "undecided", "not testable here", "reproduced"
)  # fmt: skip
BAND, NARROW = 0.05, 0.02  # Dice: practically equal; reported beside it
MIN_SEEDS = 3  # of each arm, below which a comparison of trainings decides nothing
MIN_CASES = 6  # the fewest that, all agreeing, reject chance at 5 % (sign test: 2 × 0.5⁶ = 0.03)


@dataclass(frozen=True)
class Above:
    """What is asked of a gain: to lie above `bound`.

    A gain in Dice above zero is none, whatever its side, when it lies within ± `band` (None: of
    another measure). A claim of so much is right or wrong, and no band comes between.
    """

    bound: float = 0.0
    band: float | None = BAND

    @property
    def can_be_equal(self) -> bool:
        """Whether a verdict of "practically equal" can be given."""
        return self.band is not None and self.bound == 0

    def word(self, ci: Interval) -> Word:
        """Return the verdict by an interval."""
        low, high = ci
        if self.can_be_equal and low > -self.band and high < self.band:
            return "practically equal"
        if low > self.bound:
            return "reproduced"
        return "contradicted" if high < self.bound else "undecided"

    def p_decide(self, found: Estimate | Share) -> Any:
        """Return the smallest alpha at which the interval of level 1 - alpha decides."""
        p = found.p_against(self.bound)
        if not self.can_be_equal:
            return p
        outside = np.maximum(found.p_against(-self.band), found.p_against(self.band))
        return np.where(np.abs(found.value) < self.band, np.minimum(p, outside), p)

    def says(self, word: Word) -> str:
        """Return why an interval gives this verdict."""
        bound = f"{self.bound:g}" if self.bound else "zero"
        reasons = {
            "practically equal": f"the interval lies within ±{self.band} Dice",
            "reproduced": f"the interval lies above {bound}",
            "contradicted": f"the interval lies below {bound}",
        }
        return reasons.get(word, f"the interval includes {bound}")


@dataclass(frozen=True)
class Within:
    """What is asked of a share: to lie between two bounds."""

    low: float
    high: float
    band: None = None

    def word(self, ci: Interval) -> Word:
        """Return the verdict by an interval."""
        if self.low < ci[0] and ci[1] < self.high:
            return "reproduced"
        return "contradicted" if ci[0] > self.high or ci[1] < self.low else "undecided"

    def p_decide(self, found: Estimate | Share) -> Any:
        """Return the smallest alpha at which the interval excludes the nearer bound."""
        return np.maximum(found.p_against(self.low), found.p_against(self.high))

    def says(self, word: Word) -> str:
        """Return why an interval gives this verdict."""
        span = f"{self.low:g} to {self.high:g}"
        places = {"reproduced": "within", "contradicted": "outside"}
        return f"the interval lies {places.get(word, 'across an end of')} {span}"


ZERO = Above()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a rule finds: a number with its interval, and what it is held against.

    `measure` says what the number is, `unit` its unit ("" for Dice and shares), `beside` what else
    was measured, in words. `tests`: of so many comparisons this is the hardest, and its p counts as
    often (Bonferroni). Without a number, `lacking` says what was not measured.
    """

    measure: str
    unit: str = ""
    found: Estimate | Share | None = None
    bar: Above | Within = ZERO
    trainings: bool = True  # compares trainings, of which it needs MIN_SEEDS
    tests: int = 1
    beside: tuple[str, ...] = ()
    lacking: str = ""

    @property
    def too_few(self) -> str:
        """Why the number cannot decide anything, or nothing."""
        if self.found is None:
            return ""
        if self.trainings and self.found.seeds < MIN_SEEDS:
            return f"fewer than {MIN_SEEDS} seeds decide nothing"
        few = 0 < self.found.n < MIN_CASES  # 0: a number that no case is part of
        return f"fewer than {MIN_CASES} cases decide nothing" if few else ""

    @property
    def ci(self) -> Interval:
        """The 95 % interval, of all `tests` at once."""
        return self.interval_at(LEVEL)

    @property
    def p(self) -> float:
        """The smallest alpha at which the number decides; NaN where it cannot."""
        if self.found is None or self.too_few:
            return NAN
        return min(1.0, self.tests * float(self.bar.p_decide(self.found)))

    def interval_at(self, level: float) -> Interval:
        """Return the interval of all `tests` at once at this level."""
        if self.found is None:
            return NAN, NAN
        return self.found.interval_at(1 - (1 - level) / self.tests)

    def word(self, level: float = LEVEL) -> Word:
        """Return the verdict at this level."""
        if self.found is None:
            return "not testable here"
        return "undecided" if self.too_few else self.bar.word(self.interval_at(level))

    def needed(self, level: float) -> str:
        """Return which seeds and cases would decide about the same value at this level."""
        if self.word(level) != "undecided" or not self.trainings:
            return ""
        if self.found.seeds < 2:
            return f"at least {MIN_SEEDS} seeds"
        alone = 1 - (1 - level) / self.tests
        plan = self.found.needed(lambda ci: self.bar.word(ci) != "undecided", alone)
        if plan is None and math.isnan(self.found.components.seed):
            return ""
        if plan is None:
            return f"more than {MOST_SEEDS} seeds × {MORE_CASES[-1] * self.found.n} cases"
        return f"{plan[0]} seeds × {plan[1]} cases"

    def reason(self, word: Word, level: float) -> str:
        """Return the verdict `word`, given at this level, as a sentence with its numbers."""
        if self.found is None:
            return "; ".join([f"not measured: {self.lacking}", *self.beside])
        counts = {"n": self.found.n, "seeds": self.found.seeds if self.trainings else 0}
        words = [f"{name} = {count}" for name, count in counts.items() if count]
        numbers = number_text(self.found.value, self.ci, self.unit)
        why = self.too_few or self.bar.says(self.word())
        if word != self.word():
            why += f", but at {level:.2%}, which so many rows ask for, {self.bar.says(word)}"
        return "; ".join([", ".join([f"{self.measure}: {numbers}", *words]), why, *self.beside])


def number_text(value: float, ci: Interval, unit: str = "") -> str:
    """Return a number with its interval, as in "0.012 [-0.004, 0.028] ml"."""
    text = f"{value:.3f}"
    if not math.isnan(ci[0]):
        text += f" [{_three_decimals(ci[0])}, {_three_decimals(ci[1])}]"
    return f"{text} {unit}".rstrip()


def _three_decimals(value: float) -> str:
    """Three decimals, or one digit that says on which side of zero a smaller value lies."""
    return f"{value:.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:.1g}"
