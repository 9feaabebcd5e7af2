"""A finished study's tumour networks on a second cohort: CT rendered around KiTS23's label maps.

The phantom draws its own kidneys, tumours and cysts. Here shapes, places and numbers are those of
patients: each label map is thinned to the slices and pixels of the study's cohort, CT is rendered
around it, and every tumour arm and seed is scored on it as in the study. Nothing is trained.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._measure import Report, Table, command, conditions, parser, shared_option
from kitslib.commands.compare import SAID, arm_words, load, number_words, pairs
from kitslib.config import ROOT, RunConfig, configure, read_json
from kitslib.data import (
    CaseFiles,
    Cohort,
    canonical_affine,
    find_cases,
    prepare,
    read_labels,
    write_labels,
)
from kitslib.evaluation import (
    LEAST_CYST_ML,
    TumorStage,
    arm_means,
    arm_summary,
    assemble,
    ledger,
    tumor_cases,
)
from kitslib.networks import build, ready
from kitslib.phantom import kits_reference, write_rendered
from kitslib.recipes import start_study
from kitslib.training import Run, recorded

SEED = 23  # of the rendered CT
LEAST_MM = 3.0  # thinnest slices, as in the study's cohort
COHORTS = ("drawn", "with KiTS23's shapes")
Runs = Mapping[str, list[dict[str, Any]]]  # by arm: a record of each seed


def study_config(reports: Path) -> RunConfig:
    """Return what a study was made with, from the folder of its pages."""
    given = read_json(reports / "work" / "study.json")
    options = {name: given[name] for name in ("profile", "data", "options")}
    return configure(out=str(reports.resolve().parent), **options)


def thinned(item: CaseFiles, matrix: int, out: Path) -> None:
    """Write a case's label map with slices of 3 mm or more and about `matrix` pixels a side."""
    labels, geometry = read_labels(item.segmentation_kits23 or item.segmentation)
    z, y, x = geometry.spacing
    slices, pixels = max(1, round(LEAST_MM / z)), max(1, round(labels.shape[1] / matrix))
    affine = canonical_affine((z * slices, y * pixels, x * pixels))
    path = out / item.case_id / "segmentation_kits23.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labels(path, labels[::slices, ::pixels, ::pixels], affine)


def second_cohort(labels: Path, config: RunConfig, work: Path, jobs: int) -> Cohort:
    """Render the cohort, and return it on the grid of the tumour networks."""
    for item in find_cases(labels):
        thinned(item, config.cohort.matrix, work / "labels")
    write_rendered(work / "cohort", find_cases(work / "labels"), seed=SEED, jobs=jobs)
    files, cache = find_cases(work / "cohort"), work / "cache"
    return prepare(files, config.tumor_grid, cache, labels="kits23", jobs=jobs)


def scored(job: tuple[str, int], config: RunConfig, cohort: Cohort) -> dict[str, Any]:
    """Return the record of an arm and seed, its rows those of the second cohort."""
    found = recorded(config, "03_tumor-{}-s{}".format(*job))
    accelerator, run = start_study(config), Run.load(config.store / "runs" / found["run"])
    network = run.load_weights(build(**run.settings["network"]))
    stage = TumorStage.of(ready(network, accelerator.device), run.settings)
    rows = [row for _, _, row in tumor_cases(stage, cohort, accelerator.autocast)]
    return found | {"rows": rows}


def all_scored(config: RunConfig, cohort: Cohort, jobs: int) -> Runs:
    """Return the records of every arm, in the order of its seeds."""
    work = [(arm, seed) for arm in config.arms for seed in config.seeds_of(arm)]
    spawn, found = multiprocessing.get_context("spawn"), {arm: [] for arm in config.arms}
    with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        done = pool.map(partial(scored, config=config, cohort=cohort), work)
        for (arm, _), record in zip(work, done, strict=True):
            found[arm].append(record)
    return found


def judged(runs: Runs) -> list[dict[str, Any]]:
    """Return the ledger's rows that rest on tumour networks, from the second cohort alone."""
    tumor = {}
    for arm, records in runs.items():
        tumor[arm] = {record["seed"]: record["rows"] for record in records}
    evidence = assemble(
        synthetic=True, data={"rows": []}, patients=kits_reference().geometry, kidney={},
        tumor=tumor,
    )  # fmt: skip
    return [row for row in ledger(evidence) if row["seeds"]]


def cohort_row(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many cases a cohort has, and what is in them."""
    table = pd.DataFrame(rows)
    tumor, cyst = table["tumor_ml"], table["cyst_ml"].astype(float)
    row = {"cohort": name, "cases": len(table), "tumour ml, median": round(tumor.median(), 1)}
    row |= {"its quartiles": " to ".join(f"{ml:.1f}" for ml in np.quantile(tumor, (0.25, 0.75)))}
    row |= {
        f"with {LEAST_CYST_ML:g} ml of cyst, %": round(100 * float((cyst >= LEAST_CYST_ML).mean()))
    }
    return row | {"cyst ml, mean": round(cyst.mean(), 1)}


def ledger_table(study: Mapping[str, Any], runs: Runs) -> tuple[Table, str]:
    """Return the rows that both cohorts can judge, and how many contradict, in words."""
    here, rows, contradicting, decided = judged(runs), [], 0, 0
    places = {(row["number"], row["part"]) for row in here}
    there = [row for row in study["claims"] if (row["number"], row["part"]) in places]
    for pair in pairs(there, here):
        row = {"row": pair.place, "claim": pair.b["claim"], "measure": pair.b["measure"]}
        for cohort, one in zip(COHORTS, (pair.a, pair.b), strict=True):
            row[cohort] = f"{one['verdict']}; {number_words(one)}"
        rows.append(row | {"contradicting": SAID[pair.contradicting]})
        contradicting, decided = contradicting + pair.contradicting, decided + pair.decided
    note = "By the study's own rules. Holm's correction is over the rows shown; in the study it is "
    note += "over these and the kidney network's."
    bound = f"{decided} of {len(rows)} rows are decided on both cohorts, {contradicting} contradict"
    return Table(title="Rows of the ledger", note=note, rows=rows), bound


def arm_table(study: Mapping[str, Any], runs: Runs) -> Table:
    """Return every arm's mean on both cohorts."""
    rows = []
    for arm, row in arm_summary(arm_means(runs).to_dict("records")).items():
        both = (arm_words(study["tumor"][arm]), arm_words(row))
        rows.append({"arm": arm} | dict(zip(COHORTS, both, strict=True)))
    note = "Mean tumour Dice of all components, inside the true kidney mask."
    return Table(title="Tumour arms", note=note, rows=rows)


def main(arguments: Sequence[str]) -> int:
    """Render, score, judge, and publish the tables."""
    options = parser("lesions", __doc__, threads=1, repeats=1)
    default = ROOT / "reports" / "study"
    options.add_argument("--study", type=Path, default=default, help="folder of a finished study")
    options.add_argument("--labels", type=Path, help="KiTS23 folder (default: that of --shared)")
    options.add_argument("--jobs", type=int, default=2, help="processes (%(default)s)")
    options.add_argument("--work", type=Path, default=ROOT / "reports" / "lesions", help="folder")
    shared_option(options, "KiTS23 labels")
    args = options.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    config, study = study_config(args.study), load(args.study)
    cohort = second_cohort(args.labels or args.shared / "kits23", config, args.work, args.jobs)
    runs, arm = all_scored(config, cohort, args.jobs), config.arms[0]
    drawn = recorded(config, f"03_tumor-{arm}-s{config.seeds_of(arm)[0]}")
    both = zip(COHORTS, (drawn["rows"], runs[arm][0]["rows"]), strict=True)
    cohorts = [cohort_row(name, rows) for name, rows in both]
    rows, bound = ledger_table(study, runs)
    note = "True volumes, on each scan's own grid; of the drawn ones the study's test cases."
    facts = conditions(args.threads, args.repeats)
    about = {"study": f"profile {study['profile']}, commit {study['commit']}"}
    Report(
        name="lesions",
        question="Do the verdicts hold where kidneys, tumours and cysts have patients' shapes?",
        command=command("lesions", arguments),
        conditions=about | {name: facts[name] for name in ("processor", "GPU", "versions")},
        tables=[Table(title="Cohorts", note=note, rows=cohorts), rows, arm_table(study, runs)],
        bounds=[bound],
    ).publish(args.out)
    return 0
