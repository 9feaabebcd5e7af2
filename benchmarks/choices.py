"""Settings tried beside each other on the development cohort, which no report is made from.

Each line of settings (`--try "tumor.steps=200 tumor.batch=24"`, repeatable) trains networks of one
arm with several seeds; the held-out cases of the development cohort are scored in native geometry.
What is chosen from this table is written into kitslib/config/profiles.py. Trained runs are kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import Report, Table, command, conditions
from kitslib.config import ARMS, PROFILES, ROOT, RunConfig, configure, parse_settings
from kitslib.data import data_folder, study_files
from kitslib.evaluation import estimate
from kitslib.phantom import write_cohort
from kitslib.recipes import KidneyRecipe, TumorRecipe, start_study

SEED = 2019  # of the development cohort; reported cohorts have others
NETWORKS = ("kidney", *ARMS)
MEASURES = {
    "dice": "Dice", "dice_all_components": "all components", "surface_dice": "surface Dice",
    "hit": "tumours hit", "cyst_fp_all_ml": "cyst called tumour, ml",
}  # fmt: skip


def trained(config: RunConfig, network: str, seed: int) -> tuple[list[dict[str, Any]], float]:
    """Return the rows of the held-out cases, and the seconds of processor that training took."""
    accelerator = start_study(config)
    files = study_files(config, data_folder(config, write_cohort, jobs=2))
    kind, arm = (KidneyRecipe, "") if network == "kidney" else (TumorRecipe, network)
    recipe = kind.of(config, files, accelerator, arm=arm, seed=seed)
    fitted, began = recipe.network(), time.process_time()
    recipe.fit(fitted, log=lambda line: None)
    taken = time.process_time() - began
    held_out = [item for item in files if item.case_id in recipe.held_out.case_ids]
    return [scored for _, _, scored in recipe.scored(fitted, held_out)], taken


def row(words: str, network: str, runs: Sequence[list[dict[str, Any]]], seconds: float) -> dict:
    """Return means over seeds and cases of what was tried."""
    found: dict[str, Any] = {"tried": words or "the profile", "network": network}
    found |= {"seeds": len(runs), "cases": len(runs[0])}
    for name, title in MEASURES.items():
        if name not in runs[0][0]:
            continue
        values = np.array([[one[name] for one in rows] for rows in runs], float)
        mean = estimate(values)
        found[title] = round(mean.value, 3)
        if name == "dice_all_components" or network == "kidney":
            found["95 % interval"] = "{:.3f} to {:.3f}".format(*mean.ci)
            each = np.nanmean(values, axis=1)
            found["of each seed"] = ", ".join(f"{value:.3f}" for value in each)
    return found | {"training, processor s": round(seconds / len(runs), 1)}


def main(arguments: Sequence[str]) -> int:
    """Train what is missing, score, and publish the table."""
    options = argparse.ArgumentParser(prog="python -m benchmarks choices", description=__doc__)
    add = options.add_argument
    add("--profile", choices=tuple(PROFILES), default="study", help="(%(default)s)")
    add("--network", choices=NETWORKS, nargs="+", default=["baseline"], metavar="NETWORK")
    add("--try", dest="tried", action="append", default=[], metavar="SETTINGS")
    add("--cases", type=int, default=128, help="of the cohort (%(default)s)")
    add("--held-out", type=int, default=48, help="of them (%(default)s)")
    add("--seeds", type=int, default=2, help="trainings of each (%(default)s)")
    add("--work", type=Path, default=ROOT / "reports" / "choices", help="folder for the runs")
    add("--out", type=Path, help="folder for choices.md and choices.json; else they are printed")
    args = options.parse_args(arguments)
    cohort = {"cohort.seed": SEED, "cohort.cases": args.cases, "cohort.held_out": args.held_out}
    rows = []
    for words in args.tried or [""]:
        given = cohort | parse_settings(words.split())
        config = configure(profile=args.profile, out=str(args.work), options=given)
        for network in args.network:
            found = [trained(config, network, seed) for seed in range(args.seeds)]
            seconds = sum(taken for _, taken in found)
            rows.append(row(words, network, [scored for scored, _ in found], seconds))
            print(rows[-1], flush=True)
    facts = conditions(1, 1)
    about = f"seed {SEED}, {args.cases} cases, the last {args.held_out} of them held out"
    kept = {name: facts[name] for name in ("processor", "GPU", "versions")}
    Report(
        name="choices",
        question="Which settings do the networks learn best with, on cases that no report shows?",
        command=command("choices", arguments),
        conditions={"profile": args.profile, "development cohort": about, **kept},
        tables=[Table(title="Tried", note="Means over seeds and cases.", rows=rows)],
        bounds=[],
    ).publish(args.out)
    return 0
