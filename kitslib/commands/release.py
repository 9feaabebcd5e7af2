"""`release`: the package's networks, trained on cases made meanwhile, and their decision."""

from __future__ import annotations

import argparse
import functools
import hashlib
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from kitslib import data, evaluation
from kitslib.commands.cards import release_card
from kitslib.commands.line import add_jobs, progress_line
from kitslib.config import (
    KidneyGrid,
    RunConfig,
    TumorGrid,
    arm,
    as_dict,
    code_key,
    configure,
    key,
    parse_settings,
    read_json,
    write_json,
    write_text,
)
from kitslib.phantom import render_case, write_cohort
from kitslib.recipes import KidneyRecipe, Recipe, TumorRecipe, start_study
from kitslib.training import Run, export_models, models_folder, start

MADE_BY = ("data/fresh.py", "data/stages.py", "data/sampling.py", "phantom", "transforms")
SLICES_MM = (2.0, 3.0, 4.0, 5.0)  # of the cases that are trained on
PIXEL = (0.8, 1.0)  # their pixels, in halves of the stage's: two by two are averaged, as of a scan
DEVELOP_SEED = 1  # added to the training's: of the patients that the decision is chosen on
TUMOR_SEED = 1000  # added for the second stage, which sees other patients than the first
DEVELOPMENT = {"matrix": 256, "spacing_z": (1.5, 2.5, 4.0, 5.0), "tumor_free": 0.5}
PATIENTS = 240
# cases that are made ready; half as many take turns, so it decides the weights
AHEAD = {"kidney": 32, "tumor": 256}


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """Resumes where it was stopped. OUT/release/models is a folder for `predict
    --models`; once its numbers are good, its files replace those of kitslib/weights."""
    parser.add_argument("--out", default="reports", metavar="DIR", help="default: reports")
    words = "change a setting of the profile release, such as kidney.epochs=3; may be repeated"
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help=words
    )
    words = "folder of models whose kidney network is taken, in place of one that is trained"
    parser.add_argument("--kidney", type=Path, metavar="DIR", help=words)
    words = f"synthetic patients that the decision is chosen and tested on (default: {PATIENTS})"
    parser.add_argument("--patients", type=int, default=PATIENTS, metavar="N", help=words)
    add_jobs(parser, "cases made, and development patients rendered and segmented,")


def run(args: argparse.Namespace) -> int:
    """Train the networks, choose what counts as a tumour, and write the folder of models."""
    options = parse_settings(args.settings)
    config = configure(profile="release", data="", out=args.out, options=options)
    files = patients_of(config, args.patients, args.jobs)
    accelerator = start_study(config)
    if args.kidney is None:
        kidney = trained(KidneyRecipe, config, files, accelerator, args.jobs)
    else:
        kidney = Run.load(models_folder(args.kidney) / "kidney")
    tumor = trained(TumorRecipe, config, files, accelerator, args.jobs)
    models = export_models(config, kidney=kidney, tumor=tumor)
    made = read_json(models / "made.json")
    made["command"] = made["command"].split(" --out ")[0]  # no folder of a machine
    first = made if args.kidney is None else read_json(args.kidney / "made.json")
    for what in ("commit", "device"):
        made[f"{what}s"] = first.get(f"{what}s", {"kidney": first[what]}) | {"tumor": made[what]}
    write_json(models / "made.json", made)
    patients = develop(config, files, models, accelerator.mixed_precision, args.jobs)
    settings = read_json(models / "tumor" / "settings.json")
    settings["decision"] = evaluation.choose_decisions(patients)
    write_json(models / "tumor" / "settings.json", settings)
    write_json(models / "patients.json", patients)
    write_text(models / "README.md", release_card(made, patients, settings["decision"]))
    print(evaluation.decision_words(settings["decision"]), models, sep="\n")
    return 0


def patients_of(config: RunConfig, count: int, jobs: int) -> list[data.CaseFiles]:
    """The first development patients, rendered; those without any kidney in view are left out."""
    seed, files = config.cohort.seed + DEVELOP_SEED, []
    folder = config.store / "cohorts" / f"development-{seed}"
    how = {"progress": progress_line("development patients rendered"), **DEVELOPMENT}
    names = write_cohort(folder, cases=count, seed=seed, variety="clinic", jobs=jobs, **how)
    for item in data.find_cases(folder):
        if item.case_id in names and item.record and sum(item.record["volume_ml"].values()) > 0:
            files.append(item)
    return files


def trained(
    kind: type[Recipe], config: RunConfig, files: list[data.CaseFiles], accelerator: Accelerator,
    jobs: int,
) -> Run:  # fmt: skip
    """The finished run of a stage on fresh cases; the first `held_out` patients are watched."""
    stage, variety, seed, own = "kidney", "wild", config.cohort.seed, {}
    if kind is TumorRecipe:  # a cyst is told from a tumour by its HU: they are a scanner's
        stage, variety, seed = "tumor", config.cohort.variety, seed + TUMOR_SEED
        own = {"arm": arm(config.arms[0])}
    training, grid, ahead = getattr(config, stage), getattr(config, f"{stage}_grid"), AHEAD[stage]
    watched = data.prepare(files[: config.cohort.held_out or 16], grid, config.store / "cache")
    patients = {"variety": variety, "tumor_free": config.cohort.tumor_free}
    make = partial(fresh_case, seed=seed, grid=grid, patients=patients)
    named = key("fresh", seed, as_dict(grid), patients, SLICES_MM, PIXEL, ahead, code_key(*MADE_BY))
    stream = data.CaseStream(make, key=named, ahead=ahead, jobs=max(1, jobs - 1))
    with closing(stream):  # an interrupted training does not wait for cases that nobody asks for
        recipe = kind(
            name=f"release-{stage}", training=training, grid=grid, seed=config.seed, train=stream,
            held_out=watched, accelerator=accelerator, runs=config.store / "runs",
            threads=config.threads, cases=config.cohort.cases, **own,
        )  # fmt: skip
        recipe.fit(recipe.network())
    return recipe.run


def fresh_case(
    number: int, *, seed: int, grid: KidneyGrid | TumorGrid, patients: dict[str, Any]
) -> data.Entry:
    """The case of a number as a stage is trained on it: all of it, or what lies about the kidneys.

    It is rendered at twice the stage's resolution. patients: variety and share without tumour.
    """
    rng = np.random.default_rng((seed, number, 9))
    if grid.spacing_xy is None:
        raise ValueError("release: fresh cases need a grid with spacing_xy in mm, got None")
    imaging, labels, spacing = render_case(
        number, seed=seed, **patients, spacing_z=SLICES_MM,
        pixel=float(grid.spacing_xy / 2 * rng.uniform(*PIXEL)),
        around_kidneys=isinstance(grid, TumorGrid),
    )  # fmt: skip
    return data.fresh_entry(f"fresh_{number:05}", imaging, labels, spacing, grid, rng)


def develop(
    config: RunConfig, files: list[data.CaseFiles], folder: Path, precision: str, jobs: int
) -> list[dict[str, Any]]:
    """What the cascade of a folder finds in each development patient, kept in the study's store."""
    trained = [folder / stage / "weights.safetensors" for stage in ("kidney", "tumor")]
    digests = [hashlib.sha256(weights.read_bytes()).hexdigest() for weights in trained]
    where = config.store / "development" / key(digests)
    where.mkdir(parents=True, exist_ok=True)
    how = {"precision": precision, "device": config.device, "threads": config.threads}
    find, rows = partial(_patient, where=where, folder=folder, **how), []
    progress = progress_line("development patients segmented")
    with ProcessPoolExecutor(min(jobs, len(files)), multiprocessing.get_context("spawn")) as pool:
        for done, row in enumerate(pool.map(find, files), start=1):
            rows.append(row)
            progress(done, len(files))
    return rows


@functools.cache
def _models(folder: Path, precision: str, device: Any, threads: int) -> Any:
    from kitslib.commands.predict import Models

    return Models.load(folder, start(precision=precision, device=device, threads=threads))


def _patient(item: data.CaseFiles, *, where: Path, folder: Path, **how: Any) -> dict[str, Any]:
    """One patient's row, as `choose_decisions` takes it; and the Dice of the kidneys."""
    path = where / f"{item.case_id}.json"
    if path.is_file():
        return read_json(path)
    models = _models(folder, **how)
    case, autocast, stage = data.load_case(item), models.accelerator.autocast, models.tumor
    voxel_ml = math.prod(case.spacing) / 1000
    tumor_ml = float(np.count_nonzero(case.labels == 2)) * voxel_ml
    kidney = models.kidney.mask(case.imaging, case.spacing, autocast)
    row = {"case": item.case_id, "tumor_ml": tumor_ml, "found": [], "scan": evaluation.WITH}
    if kidney.any():
        row["scan"] = evaluation.contrast(case.imaging, kidney)
        volume, mask, mapping = data.tumor_input(case.imaging, kidney, case.spacing, stage.grid)
        probability = stage.probability(volume, mask, autocast)
        truth = data.stage_labels(case.labels, mapping) == 2
        voxel_ml = math.prod(mapping.stage.spacing) / 1000
        row["found"] = evaluation.marked(probability, truth, voxel_ml)
    row["kidney_dice"] = round(float(evaluation.dice(kidney > 0, case.labels > 0)), 4)
    write_json(path, row)
    return row
