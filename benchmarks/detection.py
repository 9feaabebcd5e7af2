"""Settings of the release's tumour network beside each other: how well it tells who has a tumour.

Each `--try "cohort.variety=clinic tumor.gamma=0"` (repeatable; "" is the profile) trains the tumour
network of `kitslib release` beside the same kidney network, and segments the same development
patients. Cases that two settings share are made once. No real CT is looked at.
"""

from __future__ import annotations

import argparse
import pickle
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks._measure import Report, Table, command, conditions, parser
from kitslib.commands import release
from kitslib.config import ROOT, code_key, configure, key, parse_settings, read_json, replacing
from kitslib.data import Entry
from kitslib.evaluation import ABOVE_ML, WITH, WITHOUT, decision_words

WEIGHTS = ROOT / "kitslib" / "weights"
DRAWS = 1000  # of patients, for an interval
FRESH = release.fresh_case


def kept(number: int, *, folder: Path, **how: Any) -> Entry:
    """Return the fresh case of a number, from its file where an earlier setting made it."""
    name = key(number, {what: str(value) for what, value in how.items()})
    path = folder / code_key(*release.MADE_BY) / f"{name}.z"
    if path.is_file():
        return pickle.loads(zlib.decompress(path.read_bytes()))
    entry = FRESH(number, **how)
    with replacing(path) as part:
        part.write_bytes(zlib.compress(pickle.dumps(entry), level=1))
    return entry


def score(patient: Mapping[str, Any], *, hits: bool) -> float:
    """Return the most ml of certain tumour in a component, or in one that hits the true tumour."""
    found = [row for row in patient["found"] if row["hits"] or not hits]
    return max((row["ml"] * (2 * row["certain"] - 1) for row in found), default=0.0)


def told_apart(patients: Sequence[Mapping[str, Any]]) -> str:
    """Return how often a tumour above 10 ml outdoes what is marked in a patient without one.

    The share of all pairs of patients, its 95 % interval by resampling patients of both kinds, and
    how many have such a tumour; a dash where fewer than two are of one kind.
    """
    sick = [score(p, hits=True) for p in patients if p["tumor_ml"] > ABOVE_ML]
    free = [score(p, hits=False) for p in patients if p["tumor_ml"] == 0]
    if min(len(sick), len(free)) < 2:
        return "–"
    drawn = stats.bootstrap(
        (sick, free), share, n_resamples=DRAWS, vectorized=False, method="percentile",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    low, high = drawn.confidence_interval
    return f"{share(sick, free):.3f} ({low:.3f} to {high:.3f}; n {len(sick)})"


def share(sick: Sequence[float], free: Sequence[float]) -> float:
    """Return the share of pairs in which the first is larger; equal ones count half."""
    return float(stats.mannwhitneyu(sick, free).statistic) / (len(sick) * len(free))


def tried(words: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train with some settings, and return what was found in the development patients."""
    settings = [*args.settings, *words.split()]
    given = ["--kidney", str(args.kidney), "--out", str(args.work), "--jobs", str(args.jobs)]
    given += ["--patients", str(args.patients)]
    reader = argparse.ArgumentParser()
    release.add(reader)
    options = [word for setting in settings for word in ("--set", setting)]
    release.run(reader.parse_args([*given, *options]))
    config = configure(
        profile="release", data="", out=str(args.work), options=parse_settings(settings)
    )
    models = config.reports / "models"
    patients = read_json(models / "patients.json")
    decision = read_json(models / "tumor" / "settings.json")["decision"]
    row: dict[str, Any] = {"tried": words or "the profile"}
    for scan in (WITH, WITHOUT):
        own = [patient for patient in patients if patient["scan"] == scan]
        row[f"told apart {scan.replace('_', ' ')}"] = told_apart(own)
    tested = decision[WITH]["tested_on"]
    row["specificity"] = tested["specificity"]
    row |= {"found": tested["sensitivity"], "above 10 ml": tested["sensitivity_above_10_ml"]}
    print(words, row, decision_words(decision), sep="\n", flush=True)
    return row


def main(arguments: Sequence[str]) -> int:
    """Train with each settings, and publish the table."""
    options = parser("detection", __doc__, threads=1, repeats=1)
    add = options.add_argument
    add("--try", dest="tried", action="append", default=[], metavar="SETTINGS")
    add("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="of all")
    add("--kidney", type=Path, default=WEIGHTS, help="models whose kidney network is taken")
    add("--patients", type=int, default=release.PATIENTS, help="(%(default)s)")
    add("--jobs", type=int, default=2, help="processes that render the patients (%(default)s)")
    add("--work", type=Path, default=ROOT / "reports" / "detection", help="folder for the runs")
    args = options.parse_args(arguments)
    release.fresh_case = partial(kept, folder=args.work / "fresh")
    rows = [tried(words, args) for words in args.tried or [""]]
    facts = conditions(args.threads, args.repeats)
    about = {"patients": f"{args.patients} of the release's development seed"}
    if args.settings:
        about["with all"] = ", ".join(args.settings)
    Report(
        name="detection",
        question="With which settings does the network that `predict` uses tell who has a tumour?",
        command=command("detection", arguments),
        conditions=about | {name: facts[name] for name in ("processor", "GPU", "versions")},
        tables=[Table(title="Tried", note=NOTE, rows=rows)],
        bounds=[],
    ).publish(args.out)
    return 0


NOTE = (
    "Told apart: the share of pairs of patients, one with a tumour above 10 ml and one without any,"
    " in which the first has more ml of certain tumour in a component that hits it than the other"
    " has in any; 95 % interval by resampling patients. The other columns: with contrast agent, by"
    " the threshold chosen on half of the patients, on the other half."
)
