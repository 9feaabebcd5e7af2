"""Oversampling on a hard cohort: less false-positive volume inside cysts, at no loss of Dice?

Every case of the cohort has complex cysts; its seed is one that no report shows. The arms of
profile `study` without oversampling, with it by slice and by case, and with slices that show a cyst
drawn more often are trained on the same cases with several seeds, and compared case by case.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks._measure import Report, Table, command, conditions, parser
from benchmarks.choices import trained
from kitslib.config import ROOT, arm, configure
from kitslib.data import data_folder, prepare, study_files
from kitslib.evaluation import arm_scores, estimate, paired_difference
from kitslib.phantom import write_cohort

WITHOUT, WITH = "focal_dice", ("full", "oversample_cases", "oversample_cysts")
OPTIONS = {
    "cohort.cysts": "hard", "cohort.seed": 7, "cohort.cases": 212, "cohort.held_out": 100,
}  # fmt: skip
LESS = 0.30  # of the volume inside cysts, at no loss of Dice
MEASURES = {
    "cyst_fp_all_ml": "false positives in cysts, ml",
    "fp_ml": "false positives of the largest component, ml",
    "dice_all_components": "tumour Dice",
}


def train(job: tuple[str, int], out: Path) -> list[dict[str, Any]]:
    """The rows per held-out case of an arm and a seed; trained where `out` has no such run yet."""
    name, seed = job
    config = configure(profile="study", out=str(out), options=OPTIONS)
    rows, _ = trained(config, name, seed)
    print(f"{name}, seed {seed}: Dice {pd.DataFrame(rows)['dice_all_components'].mean():.3f}")
    return rows


def train_all(jobs: Sequence[tuple[str, int]], out: Path, processes: int) -> list[list[dict]]:
    """The rows of every arm and seed, in order."""
    config = configure(profile="study", out=str(out), options=OPTIONS)
    files = study_files(config, data_folder(config, write_cohort, jobs=processes))
    labels, cache = config.cohort.labels, config.store / "cache"
    prepare(files, config.tumor_grid, cache, labels=labels, jobs=processes)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        return list(pool.map(partial(train, out=out), jobs))


def matrix(runs: Sequence[list[dict[str, Any]]], column: str) -> pd.DataFrame:
    """A column as (seeds, cases), NaN where it is undefined."""
    return arm_scores(dict(enumerate(runs)), column)


def tables(found: dict[str, list[list[dict[str, Any]]]]) -> list[Table]:
    """Means per arm, and the change that oversampling makes, each with its interval."""
    means, changes = [], []
    for name, runs in found.items():
        row: dict[str, Any] = {"arm": name, "seeds": len(runs), "cases": len(runs[0])}
        for column, title in MEASURES.items():
            result = estimate(matrix(runs, column))
            row[title] = f"{result.value:.3f} [{result.ci[0]:.3f}, {result.ci[1]:.3f}]"
        means.append(row)
    for name in list(found)[1:]:
        for column, title in MEASURES.items():
            before, after = matrix(found[WITHOUT], column), matrix(found[name], column)
            gap = paired_difference(before, after)
            mean = before.stack().mean()
            share = float(after.stack().mean() / mean - 1) if mean else float("nan")
            changes.append(
                {
                    "arm": name,
                    "measure": title,
                    "change": f"{gap.value:+.3f} [{gap.ci[0]:+.3f}, {gap.ci[1]:+.3f}]",
                    "of the mean, %": round(100 * share, 1),
                    "p": f"{gap.p:.3f}",
                }
            )
    says = "; ".join(f"`{name}`: {arm(name).description}" for name in found)
    return [
        Table(
            title="Means",
            note=f"95 % intervals over cases and seeds, both taken as random. {says}.",
            rows=means,
        ),
        Table(
            title=f"Change against `{WITHOUT}`",
            note="Paired by seed and case; negative is less.",
            rows=changes,
        ),
    ]


def verdict(name: str, found: dict[str, list[list[dict[str, Any]]]]) -> str:
    """Whether the bound is met by an arm."""
    volume, score = "cyst_fp_all_ml", "dice_all_components"
    before, after = (matrix(found[n], volume) for n in (WITHOUT, name))
    less = 1 - float(after.stack().mean() / before.stack().mean())
    gap = paired_difference(matrix(found[WITHOUT], score), matrix(found[name], score))
    met = less >= LESS and gap.value >= 0
    return (
        f"{name}: {less:.0%} less false-positive volume inside cysts, at least {LESS:.0%} asked;"
        f" Dice {gap.value:+.3f} [{gap.ci[0]:+.3f}, {gap.ci[1]:+.3f}], no loss asked:"
        f" {'met' if met else 'missed'}"
    )


def main(arguments: Sequence[str]) -> int:
    """Train, compare, and publish the table."""
    options = parser("oversampling", __doc__, threads=1, repeats=1)
    add = options.add_argument
    add("--seeds", type=int, default=6, help="trainings of each arm (%(default)s)")
    add("--jobs", type=int, default=2, help="trainings at a time (%(default)s)")
    add("--work", type=Path, default=ROOT / "reports" / "oversampling", help="folder for the runs")
    args = options.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    arms = WITHOUT, *WITH
    jobs = [(name, seed) for name in arms for seed in range(args.seeds)]
    rows = dict(zip(jobs, train_all(jobs, args.work, args.jobs), strict=True))
    found = {name: [rows[name, seed] for seed in range(args.seeds)] for name in arms}
    facts = conditions(args.threads, args.repeats)
    about = {
        "cohort": ", ".join(f"{name} {value}" for name, value in OPTIONS.items()) + ", synthetic CT"
    }
    kept = {name: facts[name] for name in ("processor", "GPU", "versions")}
    Report(
        name="oversampling",
        question="Does oversampling lower the false-positive volume in cysts where all have them?",
        command=command("oversampling", arguments),
        conditions={**about, **kept},
        tables=tables(found),
        bounds=[verdict(name, found) for name in WITH],
    ).publish(args.out)
    return 0
