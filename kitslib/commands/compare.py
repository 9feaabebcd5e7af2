"""Two studies beside each other: which verdicts and numbers of one does the other have too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitslib.config import read_json
from kitslib.data import CaseError
from kitslib.evaluation import PRIMARY
from kitslib.reporting import interval, markdown_table, number

NEEDED = ("profile", "commit", "claims", "verdicts", "tumor")
DECIDED = ("reproduced", "contradicted", "practically equal")
CONTRADICTING = ({"reproduced", "contradicted"}, {"reproduced", "practically equal"})
SAID = {True: "yes", False: "no", None: "–"}
COMPONENTS = ("seed", "case", "rest")  # of the variance of an arm's scores
Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """A claim, or a row of the ledger, in both studies; empty in the one that lacks it."""

    place: str  # number and part, such as 11a
    a: Summary
    b: Summary

    @property
    def words(self) -> list[str]:
        """Both verdicts."""
        return [row.get("verdict", "–") for row in (self.a, self.b)]

    @property
    def equal(self) -> bool:
        """Whether both studies have it, with the same verdict."""
        return self.words[0] == self.words[1]

    @property
    def decided(self) -> bool:
        """Whether both verdicts say yes or no."""
        return all(word in DECIDED for word in self.words)

    @property
    def contradicting(self) -> bool:
        """Whether the claim is reproduced in one study and shown not to hold in the other."""
        return set(self.words) in CONTRADICTING

    @property
    def inside(self) -> bool | None:
        """Whether each value lies in the other's 95 % prediction interval; None: unknown."""
        halves = [half_width(row.get("ci")) for row in (self.a, self.b)]
        if None in halves:
            return None
        return abs(self.a["value"] - self.b["value"]) <= math.hypot(*halves)

    def cells(self) -> list[str]:
        """Place, claim with the warnings of either study, verdicts, whether they agree."""
        claim = (self.a or self.b)["claim"]
        for name, row in (("A", self.a), ("B", self.b)):
            if row.get("warning"):
                claim += f"<br>*{name}: {row['warning']}*"
        return [self.place, claim, *self.words, SAID[self.equal], SAID[self.contradicting]]


def load(path: Path) -> Summary:
    """Return the summary of a study, given as its summary.json or its folder.

    Raises CaseError for one that lacks what is compared.
    """
    if path.is_dir():
        path /= "summary.json"
    found = read_json(path)
    if missing := [key for key in NEEDED if key not in found]:
        words = f"expected {', '.join(NEEDED)}; missing: {', '.join(missing)}; it is of other code"
        raise CaseError(f"{path}: {words}; run the study again")
    return found


def compare(a: Summary, b: Summary) -> tuple[str, bool]:
    """Return two studies' comparison as Markdown, and whether any pair of verdicts contradicts."""
    claims, rows = pairs(a["verdicts"], b["verdicts"]), pairs(a["claims"], b["claims"])
    head = ["", "claim", "A", "B", "equal", "contradicting"]
    ledger = []
    for pair in rows:
        numbers = [number_words(row) for row in (pair.a, pair.b)]
        ledger.append([*pair.cells(), *numbers, SAID[pair.inside]])
    parts = [
        "# Two studies compared",
        f"A: {named(a)}\n\nB: {named(b)}",
        "## Claims",
        table(head, [pair.cells() for pair in claims]),
        "## Rows of the ledger",
        table(
            [*head, "A's number", "B's number", "in the other's 95 % prediction interval"], ledger
        ),
        "## Tumour arms",
        arm_table(a, b),
        "## Altogether",
        in_words(a, b),
    ]
    return "\n\n".join(parts) + "\n", any(pair.contradicting for pair in [*claims, *rows])


def in_words(a: Summary, b: Summary) -> str:
    """Return how many verdicts and values agree, and what the two studies share."""
    claims, rows = pairs(a["verdicts"], b["verdicts"]), pairs(a["claims"], b["claims"])
    return f"{totals(claims, rows)} {independence(a, b)}"


def pairs(a: Sequence[Summary], b: Sequence[Summary]) -> list[Pair]:
    """Return the claims, or rows, of two studies by number and part."""
    first, second = by_place(a), by_place(b)
    return [Pair(place, first.get(place, {}), second.get(place, {})) for place in first | second]


def by_place(rows: Sequence[Summary]) -> dict[str, Summary]:
    """Return rows by number and part."""
    return {f"{row['number']}{row.get('part', '')}": row for row in rows}


def arm_table(a: Summary, b: Summary) -> str:
    """Return the tumour arms that both studies have: means, prediction interval, inside or not.

    The interval is that of the study with more seeds and cases, for a mean over as many as the
    other has; A's where both have as many.
    """
    (name, large), (other, small) = sorted(
        {"A": a, "B": b}.items(), key=lambda study: -scores_of(study[1])
    )
    rows, shares = [], large.get("variance") or {}
    for arm in a["tumor"]:
        if arm in b["tumor"]:
            ours, theirs = large["tumor"][arm], small["tumor"][arm]
            cells, inside = "–", None
            half = prediction(ours, theirs, shares)
            if half is not None:
                low, high = ours[PRIMARY] - half, ours[PRIMARY] + half
                cells, inside = interval((low, high)), low <= theirs[PRIMARY] <= high
            both = [arm_words(study["tumor"][arm]) for study in (a, b)]
            rows.append([f"`{arm}`", *both, cells, SAID[inside]])
    if not rows:
        return "No arm is in both studies."
    within = sum(row[-1] == "yes" for row in rows)
    words = (
        f"Mean tumour Dice of all components. {within} of {len(rows)} means of {other} lie in the "
        f"95 % prediction interval of {name}, for as many seeds and cases as {other} has."
    )
    if not complete(shares):
        words += f" {name} has no shares of variance: {other}'s own intervals stand for them."
    head = ["arm", "A", "B", f"prediction interval of {name}", f"{other} inside"]
    return f"{words}\n\n{table(head, rows)}"


def scores_of(study: Summary) -> int:
    """Return how many scores of tumour arms a study rests on: seeds times cases."""
    return sum(len(row["seeds"]) * (row["n"] or 0) for row in study["tumor"].values())


def prediction(large: Summary, small: Summary, shares: Mapping[str, float]) -> float | None:
    """Return the half-width of the larger study's interval for the smaller one's mean of an arm.

    With the larger one's shares of variance, the smaller mean's variance follows from its seeds and
    cases; without, its own interval stands for it. None: an interval is missing.
    """
    own, other = half_width(large.get(f"{PRIMARY}_ci")), half_width(small.get(f"{PRIMARY}_ci"))
    if own is not None and small["n"] and complete(shares):
        other = own * math.sqrt(of_mean(small, shares) / of_mean(large, shares))
    if own is None or other is None or small.get(PRIMARY) is None:
        return None
    return math.hypot(own, other)


def complete(shares: Mapping[str, float]) -> bool:
    """Return whether the shares of variance of seed, case and rest are there."""
    return all(shares.get(name) is not None for name in COMPONENTS)


def of_mean(row: Summary, shares: Mapping[str, float]) -> float:
    """Return the variance of an arm's mean over its seeds and cases, in units of the shares."""
    seeds, cases = len(row["seeds"]), row["n"]
    return shares["seed"] / seeds + shares["case"] / cases + shares["rest"] / (seeds * cases)


def totals(claims: Sequence[Pair], rows: Sequence[Pair]) -> str:
    """Return how many verdicts are equal, how many contradict, how many values lie as predicted."""
    equal = [pair for pair in claims if pair.equal]
    decided = sum(pair.decided for pair in equal)
    of_claims = sum(pair.contradicting for pair in claims)
    of_rows = sum(pair.contradicting for pair in rows)
    known = [pair.inside for pair in rows if pair.inside is not None]
    return (
        f"{len(equal)} of {len(claims)} claims have the same verdict, {decided} of these a decided "
        f"one. Contradicting are {of_claims} of {len(claims)} pairs of claims and {of_rows} of "
        f"{len(rows)} pairs of rows. {sum(known)} of {len(known)} pairs of values lie in each "
        f"other's 95 % prediction interval."
    )


def independence(a: Summary, b: Summary) -> str:
    """Return whether rules are the same, and seeds and cohorts disjoint, in sentences."""
    return " ".join([
        told("Rules", a, b, "rules", {True: "the same in both", False: "NOT the same"}),
        told("Seeds", a, b, "seeds", {True: "NOT disjoint", False: "disjoint"}),
        told("Cohorts", a, b, "cohort_seed", {True: "NOT disjoint", False: "disjoint"}),
    ])  # fmt: skip


def told(what: str, a: Summary, b: Summary, key: str, words: Mapping[bool, str]) -> str:
    """Return one such sentence, by whether both summaries have anything of `key` in common."""
    held = [study.get(key) for study in (a, b)]
    if None in held:
        return f"{what}: not recorded in both studies."
    sets = [set(value if isinstance(value, list) else [value]) for value in held]
    values = [", ".join(map(str, sorted(some))) for some in sets]
    return f"{what}: {words[bool(sets[0] & sets[1])]} (A {values[0]}; B {values[1]})."


def named(study: Summary) -> str:
    """Return what a study is, in words."""
    data = "synthetic CT" if study.get("synthetic") else "real CT"
    return f"profile `{study['profile']}`, commit `{study['commit']}`, {data}"


def number_words(row: Summary) -> str:
    """Return a row's value with its unit, interval, cases and seeds."""
    if row.get("value") is None:
        return "–"
    words = " ".join(filter(None, [number(row["value"]), row.get("unit")]))
    return f"{words} ({interval(row['ci']) or '–'}; n {row['n']}, seeds {row['seeds'] or '–'})"


def arm_words(row: Summary) -> str:
    """Return an arm's mean, interval, cases and seeds."""
    words = f"{number(row.get(PRIMARY)) or '–'} ({interval(row.get(f'{PRIMARY}_ci')) or '–'}"
    return f"{words}; n {row['n']}, seeds {len(row['seeds'])})"


def half_width(ci: Sequence[float | None] | None) -> float | None:
    """Return half the width of an interval; None where a bound is missing."""
    if ci is None or None in ci:
        return None
    return (ci[1] - ci[0]) / 2


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of words."""
    return markdown_table(head, rows, words=len(head))
