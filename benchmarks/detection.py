"""Settings of the release's tumour network beside each other: how well it tells who has a tumour.

Each `--try "cohort.variety=clinic tumor.gamma=0"` (repeatable; "" is the profile) trains the tumour
network of `kitslib release`, and marks tumours in the same other cases of any clinic, inside rough
masks of their kidneys. Cases that two settings share are made once. No real CT is looked at.
"""

from __future__ import annotations

import math
import multiprocessing
import pickle
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks._measure import Report, Table, command, conditions, parser
from kitslib.commands import release
from kitslib.config import (
    ROOT,
    RunConfig,
    code_key,
    configure,
    key,
    parse_settings,
    replacing,
    usable_cores,
)
from kitslib.data import Entry
from kitslib.evaluation import ABOVE_ML, WITH, WITHOUT, TumorStage, certain_ml, contrast, marked
from kitslib.networks import build, ready
from kitslib.recipes import TumorRecipe, start_study

WATCHED = 16  # patients whose Dice is noted as a training goes on
TEST_SEED = 2000  # added: of the cases that are scored
CLINIC = {"variety": "clinic", "tumor_free": 0.5}
DRAWS = 1000  # of cases, for an interval
FRESH = release.fresh_case


def kept(number: int, *, folder: Path, **how: Any) -> Entry:
    """Return the fresh case of a number, from its file where it was made before."""
    name = key(number, {what: str(value) for what, value in how.items()})
    path = folder / code_key(*release.MADE_BY) / f"{name}.z"
    if path.is_file():
        return pickle.loads(zlib.decompress(path.read_bytes()))
    entry = FRESH(number, **how)
    with replacing(path) as part:
        part.write_bytes(zlib.compress(pickle.dumps(entry), level=1))
    return entry


def make(number: int, how: Mapping[str, Any]) -> None:
    """Make a case where it is not there."""
    kept(number, **how)


def settings_of(words: str, shared: Sequence[str], work: Path) -> RunConfig:
    """The release's configuration with some settings."""
    options = parse_settings([*shared, *words.split()])
    return configure(profile="release", data="", out=str(work), options=options)


def cases_of(config: RunConfig, work: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What makes the cases that a network is trained on, and those that it is scored on."""
    cohort, seed = config.cohort, config.cohort.seed + release.TUMOR_SEED
    how = {"folder": work / "fresh", "grid": config.tumor_grid}
    patients = {"variety": cohort.variety, "tumor_free": cohort.tumor_free}
    test = {"seed": seed + TEST_SEED, "patients": CLINIC}
    return how | {"seed": seed, "patients": patients}, how | test


def score(patient: Mapping[str, Any], *, hits: bool) -> float:
    """Return the most ml of certain tumour in a component, or in one that hits the true tumour."""
    found = [row for row in patient["found"] if row["hits"] or not hits]
    return max((certain_ml(row["ml"], row["certain"]) for row in found), default=0.0)


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


def found_at(patients: Sequence[Mapping[str, Any]], specific: float) -> float | None:
    """Return the share of tumours above 10 ml beyond the score that so many without one lie below.

    The threshold is that of these very patients: it flatters all settings alike.
    """
    sick = [score(p, hits=True) for p in patients if p["tumor_ml"] > ABOVE_ML]
    free = [score(p, hits=False) for p in patients if p["tumor_ml"] == 0]
    if not sick or not free:
        return None
    threshold = max(np.quantile(free, specific, method="higher"), 1e-9)
    return float(np.mean(np.array(sick) > threshold))


def tried(words: str, shared: Sequence[str], work: Path, count: int, jobs: int) -> dict[str, Any]:
    """Train with some settings, and return what was found in the cases."""
    config = settings_of(words, shared, work)
    release.fresh_case = partial(kept, folder=work / "fresh")
    files = release.patients_of(config, WATCHED, jobs)
    accelerator = start_study(config)
    run = release.trained(TumorRecipe, config, files, accelerator, jobs)
    network = run.load_weights(build(**run.settings["network"]))
    stage = TumorStage.of(ready(network, accelerator.device), run.settings)
    how, patients = cases_of(config, work)[1], []
    for number in range(count):
        entry = kept(number, **how)
        truth = entry.labels == 2
        voxel_ml = math.prod(entry.meta["mapping"]["stage"]["spacing"]) / 1000
        probability = stage.probability(entry.imaging, entry.mask, accelerator.autocast)
        row = {"tumor_ml": float(truth.sum()) * voxel_ml, "scan": WITH}
        if (entry.labels > 0).any():
            row["scan"] = contrast(entry.imaging, entry.labels)
        row["certain"] = float(probability[truth].mean()) if truth.any() else None
        patients.append(row | {"found": marked(probability, truth, voxel_ml)})
    row = {"tried": words or "the profile", "loss": run.history()[-1]["loss"]}
    for scan in (WITH, WITHOUT):
        own, where = [p for p in patients if p["scan"] == scan], scan.replace("_", " ")
        large = [p["certain"] for p in own if p["tumor_ml"] > ABOVE_ML]
        row[f"told apart {where}"] = told_apart(own)
        row[f"found {where}"] = found_at(own, 0.9)
        row[f"mean p {where}"] = float(np.mean(large)) if large else None
    print(row, flush=True)
    return row


def main(arguments: Sequence[str]) -> int:
    """Train with each settings, and publish the table."""
    options = parser("detection", __doc__, threads=1, repeats=1)
    add = options.add_argument
    add("--try", dest="tried", action="append", default=[], metavar="SETTINGS")
    add("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="of all")
    add("--cases", type=int, default=300, help="that are scored (%(default)s)")
    add("--jobs", type=int, default=usable_cores(), help="cases made at a time (%(default)s)")
    add("--at-once", type=int, default=1, help="networks trained at a time (%(default)s)")
    add("--work", type=Path, default=ROOT / "reports" / "detection", help="folder for the runs")
    args = options.parse_args(arguments)
    wanted, context = args.tried or [""], multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, context) as pool:
        for words in wanted:
            config = settings_of(words, args.settings, args.work)
            last = config.cohort.cases * config.tumor.epochs + release.AHEAD["tumor"]
            counts = last, args.cases
            for how, count in zip(cases_of(config, args.work), counts, strict=True):
                list(pool.map(partial(make, how=how), range(count)))
            release.patients_of(config, WATCHED, args.jobs)
    how = {"shared": args.settings, "work": args.work, "count": args.cases}
    with ProcessPoolExecutor(args.at_once, context) as pool:
        each = pool.map if args.at_once > 1 else map
        rows = list(each(partial(tried, jobs=2, **how), wanted))
    facts = conditions(args.threads, args.repeats)
    about = {"cases": f"{args.cases} of any clinic, half of them without a tumour"}
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
    " has in any; 95 % interval by resampling patients. Found: tumours above 10 ml that are marked"
    " with more than 90 % of the patients without one have, with the threshold of these very"
    " patients. Mean p: in the voxels of tumours above 10 ml."
)
