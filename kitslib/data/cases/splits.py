"""Which cases train and which are held out: the paper's split, one without leaks, and folds."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from kitslib.data.cases.discovery import natural_key
from kitslib.data.cases.errors import CaseError

Rule = Literal["nested", "paper", "fold0", "fold1", "fold2", "fold3", "fold4"]
PAPER_CASES, PAPER_KIDNEY_HELD_OUT, PAPER_TUMOR_HELD_OUT = 210, 20, 15
LEAST_HELD_OUT = 5  # below this an interval says nothing; at most a quarter of a small cohort


@dataclass(frozen=True, kw_only=True)
class Split:
    """Case ids for the two stages, in order; neither network has seen those of `cascade_test`.

    One case is one patient. Raises CaseError for a case that is trained on and tested.
    """

    kidney_train: tuple[str, ...]
    kidney_held_out: tuple[str, ...]
    tumor_train: tuple[str, ...]
    tumor_held_out: tuple[str, ...]
    cascade_test: tuple[str, ...]
    seed: int
    rule: Rule

    def __post_init__(self) -> None:
        for name, train, held_out in (
            ("kidney", self.kidney_train, self.kidney_held_out),
            ("tumour", self.tumor_train, self.tumor_held_out),
            ("cascade", self.kidney_train + self.tumor_train, self.cascade_test),
        ):
            if both := ", ".join(sorted(set(train) & set(held_out), key=natural_key)):
                text = f"{both} would be trained on and tested; take them out of one side"
                raise CaseError(f"{name} split: {text}", code="leak")


def training_draw(case_ids: Sequence[str], share: float, seed: int) -> tuple[str, ...]:
    """Return the training cases that a seed draws for itself, in their order; at least one.

    The draw depends on seed and ids alone, so that all arms of a seed train on the same cases.
    """
    count = max(round(share * len(case_ids)), 1)
    ranked = sorted(case_ids, key=lambda case: (_draw(seed, f"training {case}"), case))
    drawn = set(ranked[:count])
    return tuple(case for case in case_ids if case in drawn)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One of n folds: the case ids to train on and those held out, in case order."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def split_cases(
    case_ids: Sequence[str], *, seed: int, rule: Rule = "nested", held_out: int | None = None
) -> Split:
    """Split a cohort for the kidney stage, the tumour stage and the cascade.

    Both rules hold out the last cases in case order for the tumour stage, 15 of 210 (`held_out`).
    For the kidney stage `paper` draws 20 of 210, so that the cascade has next to no unseen case;
    `nested` takes the tumour stage's and draws the rest, so that all are unseen. Draws rank cases
    by a hash of seed and id: one more case changes at most one place. Other cohorts hold out in
    proportion, at least 5 cases or a quarter. `fold0` to `fold4` hold out that `fold` of five for
    both stages, whatever `held_out` says.
    Raises CaseError for fewer than 2 cases, repeated ids, or nothing left to train on.
    """
    if rule not in (rules := get_args(Rule)):
        text = ", ".join(map(repr, rules))
        raise CaseError(f"rule: expected one of {text}, got {rule!r}", code="split")
    if rule.startswith("fold"):
        part = fold(case_ids, int(rule.removeprefix("fold")), seed=seed)
        return Split(
            kidney_train=part.train, kidney_held_out=part.held_out, tumor_train=part.train,
            tumor_held_out=part.held_out, cascade_test=part.held_out, seed=seed, rule=rule,
        )  # fmt: skip
    ordered, cases = _in_order(case_ids), len(case_ids)
    if held_out is None:
        held_out = max(min(LEAST_HELD_OUT, max(1, cases // 4)), _share(cases, PAPER_TUMOR_HELD_OUT))
    kidney_count = max(held_out, _share(cases, PAPER_KIDNEY_HELD_OUT))
    if not 1 <= held_out < cases or kidney_count >= cases:
        text = f"expected 1 to {cases - 1} of {cases} cases held out, got {held_out}; use at least "
        raise CaseError(f"{text}2 cases and leave some to train on", code="split")
    tumor_out = set(ordered[-held_out:])
    ranked = sorted(ordered, key=lambda case: (_draw(seed, case), case))
    if rule == "nested":
        ranked.sort(key=lambda case: case not in tumor_out)  # stable: these first, then the draw
    kidney_out = set(ranked[:kidney_count])
    kidney, tumor = _apart(ordered, kidney_out), _apart(ordered, tumor_out)
    unseen = _apart(ordered, kidney_out & tumor_out).held_out
    return Split(
        kidney_train=kidney.train, kidney_held_out=kidney.held_out, tumor_train=tumor.train,
        tumor_held_out=tumor.held_out, cascade_test=unseen, seed=seed, rule=rule,
    )  # fmt: skip


def fold(case_ids: Sequence[str], k: int, *, seed: int, n_folds: int = 5) -> Fold:
    """Fold k of n (0-based). A case's fold depends on its own id and the seed alone.

    Numbered cases are dealt in blocks of n consecutive numbers, one case of a block to each fold
    in an order drawn by seed, so that a whole cohort is balanced; ids without a number are dealt
    by hash. Raises CaseError when a side is empty.
    """
    if not 0 <= k < n_folds:
        raise CaseError(f"k: expected a fold from 0 to {n_folds - 1}, got {k}", code="split")
    ordered = _in_order(case_ids)
    found = _apart(ordered, {case for case in ordered if _fold_of(case, n_folds, seed) == k})
    if not found.held_out or not found.train:
        text = f"{len(found.held_out)} of {len(ordered)} cases are held out; use fewer folds, more "
        raise CaseError(f"fold {k} of {n_folds}: {text}cases or another seed", code="split")
    return found


def _apart(ordered: Sequence[str], chosen: set[str]) -> Fold:
    """Hold out the chosen cases."""
    train = tuple(case for case in ordered if case not in chosen)
    return Fold(train=train, held_out=tuple(case for case in ordered if case in chosen))


def _fold_of(case_id: str, n_folds: int, seed: int) -> int:
    number = re.search(r"\d+$", case_id)
    if number is None:
        return _draw(seed, case_id) % n_folds
    block, place = divmod(int(number.group()), n_folds)
    name = f"block {block} of {n_folds} place"
    return sorted(range(n_folds), key=lambda at: _draw(seed, f"{name} {at}"))[place]


def _share(cases: int, of_paper: int) -> int:
    return math.floor(cases * of_paper / PAPER_CASES + 0.5)


def _in_order(case_ids: Sequence[str]) -> list[str]:
    ordered = sorted(case_ids, key=natural_key)
    if repeated := ", ".join(sorted({case for case in ordered if ordered.count(case) > 1})):
        raise CaseError(f"expected each case once, got {repeated} again; remove one", code="split")
    return ordered


def _draw(seed: int, what: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {what}".encode(), digest_size=8).digest(), "big")
