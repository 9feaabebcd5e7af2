"""Coverage: do 95 % intervals hold the true difference in 95 %, and how often is a verdict false?

Scores of two arms are simulated as sums of a seed, a case and the rest, with spreads that were
measured, and judged by the study's own statistics and its own ledger's procedure.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.random import Generator, default_rng

from benchmarks._measure import Cell, Report, Table, command, conditions, judged, parser
from kitslib.config import read_json
from kitslib.evaluation import (
    BAND,
    MIN_SEEDS,
    Above,
    Estimate,
    crossed,
    crossed_apart,
    from_mean_squares,
    holm_levels,
)

SEEDS, CASES = (2, 3, 4, 6, 8, 12), (16, 66, 200)
COMPARED = (3, 4, 6)  # seeds, of the two formulas
LEDGERS = ((3, 66), (6, 66), (6, 200), (12, 200))  # seeds, cases
ROWS = 16  # of a ledger
EFFECT = 0.2  # of rows that are not null
PART = 250  # trials at once
LEVEL, LEAST_COVERAGE, MOST_FALSE = 0.95, 0.93, 0.05
SIDES = ("reproduced", "contradicted")
ADJUSTED = ("no effect, any row", "half with an effect, any other", "effect of the band, any row")
COVERAGE_NOTE = """Share of trials whose nominal 95 % interval holds the true difference of two
arms, which only shifts it. Seeds that are paired have nothing in common here, their worst case."""
WIDTH_NOTE = "Mean over the same trials: what a design can tell apart."
LEDGER_NOTE = f"""Share of ledgers of {ROWS} rows, seeds paired. A verdict is false that says
reproduced or contradicted where there is no effect, or practically equal where the effect is that
of the band's edge, {BAND} Dice. Effects, where half of the rows have one: {EFFECT} Dice."""
FORMULA_NOTE = f"""Seeds paired, over all spreads and case counts: coverage of 95 % intervals, and
ledgers of {ROWS} rows without effect that have a false verdict after Holm's correction."""


@dataclass(frozen=True)
class Spread:
    """Standard deviations in Dice: between seeds of an arm, of a case between arms, the rest."""

    name: str
    seed: float
    case: float
    rest: float
    skewed: bool = False  # effects of cases and the rest are exponential in place of normal


# seed and rest (a seed on a case, before and after the component step) as measured with two to six
# seeds and 16 to 66 cases on 2026-11-26; that of a case between arms is assumed
SPREADS = (
    Spread("seeds 0.012", 0.012, 0.05, 0.05),
    Spread("seeds 0.056", 0.056, 0.10, 0.17),
    Spread("seeds 0.10", 0.10, 0.10, 0.17),
    Spread("seeds 0.15", 0.15, 0.10, 0.17),
    Spread("seeds 0.012, skewed", 0.012, 0.05, 0.05, skewed=True),
    Spread("seeds 0.10, skewed", 0.10, 0.10, 0.17, skewed=True),
)


def of_study(path: Path) -> tuple[Spread, ...]:
    """The median row of a study's ledger and the one whose seeds differ most, from summary.json.

    The rows have the spreads of a difference; an arm's own seed and rest are smaller by √2.
    """
    rows = read_json(path / "summary.json" if path.is_dir() else path)["claims"]
    found = []
    for row in rows:
        if row["band"] is not None and None not in (row["components"] or [None]):
            found.append(row["components"])
    if not found:
        raise ValueError(f"{path}: no row of the ledger compares arms with two seeds or more")
    spreads = np.array(found) / np.sqrt([2, 1, 2])
    worst = spreads[spreads[:, 0].argmax()]
    return Spread("median row", *np.median(spreads, axis=0)), Spread("most seed spread", *worst)


def arms(
    draws: Generator, trials: int, seeds: int, cases: int, spread: Spread
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two equal arms, each (trials, seeds, cases); their seeds have nothing in common."""

    def effects(*shape: int) -> np.ndarray:
        if spread.skewed:
            return draws.standard_exponential((trials, *shape), dtype=np.float32) - 1
        return draws.standard_normal((trials, *shape), dtype=np.float32)

    first, second = spread.rest * effects(seeds, cases), spread.rest * effects(seeds, cases)
    for scores in (first, second):
        scores += spread.seed * draws.standard_normal((trials, seeds, 1), dtype=np.float32)
    second += spread.case * effects(1, cases)
    return first, second


def estimates(
    draws: Generator, trials: int, seeds: int, cases: int, spread: Spread
) -> Iterator[tuple[str, Estimate]]:
    """The differences of two equal arms, all trials in one, with seeds paired and not."""
    kept: dict[str, list[np.ndarray]] = {"paired": [], "unpaired": []}
    for size in [PART] * (trials // PART) + [trials % PART]:
        first, second = arms(draws, size, seeds, cases, spread)
        for pairing, found in (
            ("paired", crossed(second - first)),
            ("unpaired", crossed_apart(first, second)),
        ):
            kept[pairing].append(np.stack([found.value, np.sqrt(found.variance), found.df]))
    for pairing, parts in kept.items():
        value, se, df = np.concatenate(parts, axis=-1)
        yield pairing, Estimate(value=value, se=se, df=df, n=cases, seeds=seeds)


def coverage(
    trials: int, spreads: Sequence[Spread], draws: Generator
) -> tuple[list[dict[str, Cell]], list[dict[str, Cell]], float]:
    """Rows of coverage and of half-widths by design, and the worst coverage from MIN_SEEDS on."""
    covered, widths, worst = [], [], 1.0
    for seeds, cases in product(SEEDS, CASES):
        rows: dict[str, list[dict[str, Cell]]] = {}
        for spread in spreads:
            for pairing, found in estimates(draws, trials, seeds, cases, spread):
                design = {"seeds": seeds, "cases": cases, "seeds are": pairing}
                shares, halves = rows.setdefault(pairing, [dict(design), dict(design)])
                low, high = found.ci
                share = float(np.mean((low <= 0) & (high >= 0)))
                shares[spread.name] = f"{share:.3f}"
                halves[spread.name] = f"{np.mean(high - low) / 2:.3f}"
                if seeds >= MIN_SEEDS:
                    worst = min(worst, share)
        covered += [shares for shares, _ in rows.values()]
        widths += [halves for _, halves in rows.values()]
    return covered, widths, worst


def null_rows(
    draws: Generator, trials: int, seeds: int, cases: int, spread: Spread
) -> tuple[Estimate, Estimate]:
    """Differences of equal arms, (trials, ROWS), from mean squares drawn as they are distributed.

    With the degrees of freedom of the study's statistics, and with Satterthwaite's.
    """
    seed, case, rest = 2 * spread.seed**2, spread.case**2, 2 * spread.rest**2
    expected = np.array([rest + cases * seed, rest + seeds * case, rest])
    dfs = np.array([seeds - 1, cases - 1, (seeds - 1) * (cases - 1)])
    shape = (trials, ROWS)
    squares = [e * draws.chisquare(df, shape) / df for e, df in zip(expected, dfs, strict=True)]
    se = np.sqrt((expected[0] + expected[1] - rest) / (seeds * cases))
    found = from_mean_squares(draws.normal(0, se, shape), *squares, seeds, cases)
    ours = Estimate(
        value=found.value, se=np.sqrt(found.variance), df=found.df, n=cases, seeds=seeds
    )
    doubt = squares[0] ** 2 / dfs[0] + squares[1] ** 2 / dfs[1]
    plain_df = (found.variance * seeds * cases) ** 2 / doubt
    return ours, replace(ours, df=plain_df)


def verdicts(found: Estimate, *, adjusted: bool) -> np.ndarray:
    """The ledger's verdict on each row, (trials, rows), after Holm's correction or before."""
    bar = Above()
    p = bar.p_decide(found)
    level = holm_levels(p) if adjusted else np.full(p.shape, LEVEL)
    decided, (low, high) = p <= 1 - level, found.interval_at(level)
    words = np.full(p.shape, "undecided", dtype="U20")
    judge = np.vectorize(lambda low, high: bar.word((low, high)), otypes=["U20"])
    words[decided] = judge(low[decided], high[decided])
    return words


def false_rates(found: Estimate) -> dict[str, float]:
    """How often a ledger of ROWS rows has a false verdict, and how often one row has."""
    some = np.where(np.arange(ROWS) < ROWS // 2, 0.0, EFFECT)
    null, unadjusted = (np.isin(verdicts(found, adjusted=a), SIDES) for a in (True, False))
    mixed = verdicts(replace(found, value=found.value + some), adjusted=True)
    edge = replace(found, value=found.value + BAND)
    one, any_row = (verdicts(edge, adjusted=a) == "practically equal" for a in (False, True))
    return {
        "no effect, any row unadjusted": unadjusted.any(axis=1).mean(),
        "no effect, any row": null.any(axis=1).mean(),
        "half with an effect, any other": np.isin(mixed[:, some == 0], SIDES).any(axis=1).mean(),
        "effect of the band, one row unadjusted": one.mean(),
        "effect of the band, any row": any_row.any(axis=1).mean(),
    }


def ledgers(
    trials: int, spreads: Sequence[Spread], draws: Generator
) -> tuple[list[dict[str, Cell]], float]:
    """Rows of false verdicts by design and spread, and the worst rate after Holm's correction."""
    table, worst = [], 0.0
    for (seeds, cases), spread in product(LEDGERS, spreads):
        rates = false_rates(null_rows(draws, trials, seeds, cases, spread)[0])
        worst = max(worst, *(rates[name] for name in ADJUSTED))
        shown = {name: f"{rate:.3f}" for name, rate in rates.items()}
        table.append({"seeds": seeds, "cases": cases, "spread": spread.name, **shown})
    return table, worst


def formulas(trials: int, spreads: Sequence[Spread], draws: Generator) -> list[dict[str, Cell]]:
    """Rows by seed count: the study's degrees of freedom and Satterthwaite's, each at its worst."""
    table = []
    for seeds in COMPARED:
        kept = []
        for cases, spread in product(CASES, spreads):
            numbers = []
            for found in null_rows(draws, trials, seeds, cases, spread):
                half = found.interval_at(LEVEL)[1] - found.value
                false = np.isin(verdicts(found, adjusted=True), SIDES).any(axis=1)
                numbers += [np.mean(np.abs(found.value) <= half), false.mean(), half.mean()]
            kept.append(numbers)
        ours, plain = np.split(np.array(kept).T, 2)  # each (coverage, false, half-width; designs)
        row: dict[str, Cell] = {"seeds": seeds}
        for name, (covered, false, _) in {"Satterthwaite": plain, "here": ours}.items():
            row[f"{name}: least coverage"] = f"{covered.min():.3f}"
            row[f"{name}: most ledgers with a false verdict"] = f"{false.max():.3f}"
        row["wider, times"] = f"{np.mean(ours[2] / plain[2]):.2f}"
        table.append(row)
    return table


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    asked = parser("coverage", __doc__, threads=1, repeats=1)
    asked.add_argument("--trials", type=int, default=10_000, help="of each design (%(default)s)")
    asked.add_argument("--study", type=Path, help="study's folder or summary.json, for its spreads")
    return asked.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Simulate, count, and publish the tables."""
    args = options(arguments)
    spreads = SPREADS if args.study is None else of_study(args.study)
    draws = default_rng(0)
    covered, widths, least = coverage(args.trials, spreads, draws)
    normal = [spread for spread in spreads if not spread.skewed]
    judged_rows, most = ledgers(args.trials, normal, draws)
    compared = formulas(args.trials, normal, draws)
    error = 3 * float(np.sqrt(MOST_FALSE * (1 - MOST_FALSE) / args.trials))
    facts = conditions(args.threads, args.repeats)
    about = {"trials": f"{args.trials} of each design", "spreads": _in_words(spreads)}
    Report(
        name="coverage",
        question="Do 95 % intervals hold the truth in 95 %, and how often is a verdict false?",
        command=command("coverage", arguments),
        conditions=about | {"versions": facts["versions"]},
        tables=[
            Table(title="Coverage", note=COVERAGE_NOTE, rows=covered),
            Table(title="Half-width of the interval, Dice", note=WIDTH_NOTE, rows=widths),
            Table(title="False verdicts in a ledger", note=LEDGER_NOTE, rows=judged_rows),
            Table(title="Degrees of freedom", note=FORMULA_NOTE, rows=compared),
        ],
        bounds=[
            judged(f"least coverage from {MIN_SEEDS} seeds on", least, LEAST_COVERAGE, "of trials"),
            judged(
                "ledgers with a false verdict", most, round(MOST_FALSE + error, 4), "of trials",
                at="most",
            ),
        ],
    ).publish(args.out)  # fmt: skip
    return 0


def _in_words(spreads: Sequence[Spread]) -> str:
    words = []
    for one in spreads:
        words.append(f"{one.name}: {one.seed:.3f}, {one.case:.3f}, {one.rest:.3f}")
    return "; ".join(words) + " (SDs in Dice of seeds, of a case between arms, of the rest)"
