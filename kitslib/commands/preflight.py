"""`preflight`: whether a study fits this machine, and how long it will take."""

from __future__ import annotations

import argparse
import math
import shutil
from dataclasses import asdict, dataclass, replace
from heapq import nlargest
from operator import attrgetter
from pathlib import Path
from typing import Any

import psutil
import torch

from kitslib.commands.line import add_jobs, add_settings, new_file, study_config, text_table
from kitslib.commands.timing import CARDS, Measured, folder_bytes, measure
from kitslib.config import RunConfig, arm, duration_text, size_text, usable_cores, write_json
from kitslib.data import split_cases
from kitslib.recipes import WATCHED, start_study
from kitslib.training import device_name, start

NOTEBOOK = 5  # a notebook's processes, figures and page take so many times what loading takes
COMMAND = 1.5  # the same of a training without a page
READS = 3  # times what preparing the cases takes: that, checks, ceilings and tables in 01
LABELS = 0.1  # of the time to prepare a case: what reading its labels takes
READINGS, TRIED = 6, 4  # of the kidney network that 02 tries, and on how many cases
PASSES = 3  # of a test case through the tumour network in 05: scored, varied, calibrated
PRECISIONS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
WORKSTATION = 64e9, 300e9  # memory and disk beside a card that is not here
KEPT = 4  # times a network's weights on disk: these, and a checkpoint with Adam's two averages


@dataclass(frozen=True)
class Cost:
    """What a notebook or the study takes, or a machine has: seconds (0: any) and bytes."""

    stage: str
    what: str
    seconds: float
    memory: float
    disk: float = 0
    gpu: float = 0


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Takes half a minute for the demo. Exit status 1 when the study does not fit."
    argument = parser.add_argument
    argument("data", type=Path, nargs="?", metavar="DATA", help="KiTS cohort (default: synthetic)")
    argument("--out", type=Path, metavar="DIR", help="folder of results (default: reports)")
    argument("--card", choices=tuple(CARDS), help="reckon for a workstation with this GPU instead")
    argument("--hours", type=float, metavar="H", help="the time there is: more does not fit")
    argument("--json", type=new_file, metavar="FILE", help="also write the estimate as JSON")
    add_jobs(parser, "stages")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Print what every stage of a study takes; return 1 where it does not fit this machine."""
    data, out = (str(path.absolute()) if path else "" for path in (args.data, args.out))
    config = study_config(args, data, out)
    jobs, seconds, bandwidth = args.jobs, 3600 * (args.hours or 0.0), 0.0
    if args.card:
        gpu, bandwidth = CARDS[args.card]
        accelerator = start(device="cpu", precision="bf16")
        machine = Cost(f"a PC with {args.card}", "by data sheet", seconds, *WORKSTATION, gpu)
    else:
        accelerator = start_study(config)
        machine = this_machine(Path(config.out).absolute(), accelerator.device, seconds)
        jobs = min(jobs, usable_cores())
    measured = measure(config, accelerator, bandwidth)
    gpus = max(1, torch.cuda.device_count()) if machine.gpu else 0
    costs = estimate(config, measured, jobs=jobs, gpus=gpus)
    found = problems(config, costs, machine)
    print(table([*costs, machine]))
    for case_id in measured.unreadable:
        print(f"left out, since its header cannot be read: {case_id}")
    print(f"Computed in {PRECISIONS[accelerator.mixed_precision]}.")
    print("Times are those of a machine that does nothing else.")
    for problem in found:
        print(f"does not fit: {problem}")
    if not found:
        print(f"The profile {args.profile} fits {machine.stage}.")
    if args.json:
        *stages, whole = map(asdict, costs)
        parts = {"estimate": {**whole, "costs": stages, "problems": found}}
        write_json(args.json, parts | {"machine": asdict(machine), "measured": asdict(measured)})
    return int(bool(found))


def this_machine(folder: Path, device: torch.device, seconds: float) -> Cost:
    """Return what there is for a study that writes to `folder`; what it holds is free for it."""
    held, what = folder_bytes(folder), device_name(device)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    what += f"; {size_text(held)} are on disk already" if held else ""
    gpu = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    disk, memory = shutil.disk_usage(there).free + held, psutil.virtual_memory().available
    return Cost("this machine", what, seconds, memory, disk, gpu)


def estimate(config: RunConfig, measured: Measured, *, jobs: int, gpus: int) -> list[Cost]:
    """Return the cost of every notebook of a study in order, and as the last that of the whole."""
    wanted, kidney, tumor = config.cohort, config.kidney, config.tumor
    ids, networks = measured.case_ids, measured.networks
    split = split_cases(ids, seed=wanted.seed, rule=wanted.split, held_out=wanted.held_out)
    notebook, reading = NOTEBOOK * measured.loading, measured.prepare / len(ids)
    base, scan = measured.base, measured.base + max(measured.memory)
    compared = replace(kidney, epochs=kidney.arm_epochs, test_time_mirroring=False)
    plan: list[tuple[str, Any, float]] = [("kidney", kidney, notebook)]
    further, command = len(config.seeds) - 1, COMMAND * measured.loading
    for _ in config.kidney_arms:
        plan += [("kidney", compared, notebook), *[("kidney", compared, command)] * further]
    for name in config.arms:
        further = len(config.seeds_of(name)) - 1
        plan += [(name, tumor, notebook), *[(name, tumor, command)] * further]
    runs = []
    for place, (name, t, around) in enumerate(plan):
        cost, predictions = networks[name], 0.0 if place else READINGS * TRIED
        stage, held_out, steps = "03_tumor", len(split.tumor_held_out), tumor.steps
        if name == "kidney":
            stage, held_out = "02_kidney", len(split.kidney_held_out)
            drawn = round(wanted.draw * len(split.kidney_train))
            steps = math.ceil(drawn * t.samples_per_case / t.batch)
            around += held_out * LABELS * reading
        elif arm(name).oversample and arm(name).oversample_by == "difficulty":
            times = (t.epochs - 1) // t.oversample_every
            share = t.scored_every / t.oversample_stride
            predictions = times * wanted.draw * len(split.tumor_train) * share
        validations = math.ceil(t.epochs / t.validate_every)
        predictions += min(held_out, WATCHED) * validations + held_out * (1 + t.test_time_mirroring)
        seconds = t.epochs * steps * cost.step + predictions * cost.case
        seconds += around
        gpu = cost.memory if gpus else 0
        memory, disk = max(scan, base + cost.memory - gpu), KEPT * cost.weights
        what = f"{name}: {t.epochs} epochs of {steps} steps"
        runs.append(Cost(stage, what, seconds, memory, disk, gpu))
    slowest, n = max(networks[name].case for name in config.arms), len(split.cascade_test)
    seconds = 2 * reading + networks["kidney"].case * (1 + kidney.test_time_mirroring)
    seconds += PASSES * slowest * (1 + tumor.test_time_mirroring)
    test = Cost("05_evaluation", f"{n} cases through the cascade", notebook + n * seconds, scan)
    tables = Cost("04_ablations", "tables and figures", notebook, base)
    seconds = notebook + (measured.make + READS * measured.prepare) / jobs
    what = f"{len(ids)} cases checked and prepared"
    at_once = sum(nlargest(jobs, measured.memory)) + jobs * base
    data = Cost("01_data", what, seconds, base + at_once, measured.disk)

    places = min(gpus or jobs, max(1, jobs // config.threads))
    busy = [0.0] * places  # seconds; a run starts where there is a place first
    disk, gpu = data.disk, 0
    for cost in runs:
        busy[busy.index(min(busy))] += cost.seconds
        disk, gpu = disk + cost.disk, max(gpu, cost.gpu)
    together = sum(nlargest(places, map(attrgetter("memory"), runs)))
    seconds = data.seconds + max(busy) + tables.seconds + test.seconds
    whole = Cost("the whole", "", seconds, max(data.memory, together, test.memory), disk, gpu)
    return [data, *runs, tables, test, whole]


def problems(config: RunConfig, costs: list[Cost], machine: Cost) -> list[str]:
    """Return what does not fit, each with what to do."""
    whole, runs, found = costs[-1], costs[1:-3], []
    for kind, name in (("disk", "disk"), ("memory", "memory"), ("gpu", "GPU memory")):
        needed, there = getattr(whole, kind), getattr(machine, kind)
        if needed <= there:
            continue
        advice = "name a larger disk with --out, lower cohort.cases of a synthetic cohort, or raise"
        advice += f" tumor_grid.spacing_z from {config.tumor_grid.spacing_z:g} mm"
        if kind != "disk":
            largest = max(runs, key=attrgetter(kind))
            stage, share = largest.stage.partition("_")[2], there / getattr(largest, kind)
            in_3d = stage == "tumor" and arm(largest.what.partition(":")[0]).dims == "3d"
            size = "slab_batch" if in_3d else "batch"
            batch = getattr(getattr(config, stage), size)
            lower = f"{stage}.{size} from {batch} to {max(1, int(batch * share))}"
            if batch * share < 1:
                others = f"{stage}.patch, slab or widths"
                lower = others if batch == 1 else f"{lower}, and {others}"
            advice = f"lower {lower}"
            if share >= 1:
                advice = "run fewer stages at a time with --jobs 1"
        found.append(f"{name}: {size_text(needed)} needed, {size_text(there)} there; {advice}")
    share = machine.seconds / whole.seconds
    if 0 < share < 1:
        kidney, tumor = config.kidney.epochs, config.tumor.epochs
        text = f"time: {duration_text(whole.seconds)} needed, {duration_text(machine.seconds)} "
        text += "there; use a GPU, fewer arms or seeds, or lower kidney.epochs "
        text += f"from {kidney} to {max(1, int(kidney * share))} and tumor.epochs "
        found.append(f"{text}from {tumor} to {max(1, int(tumor * share))}")
    return found


def table(costs: list[Cost]) -> str:
    """Return costs as a table, equal ones once."""
    lines = [["stage", "time", "disk", "memory", "GPU memory", ""]]
    for cost in dict.fromkeys(costs):
        times = f"{costs.count(cost)} × " if costs.count(cost) > 1 else ""
        seconds = duration_text(cost.seconds) if cost.seconds else ""
        sizes = [size_text(cost.disk), size_text(cost.memory), size_text(cost.gpu)]
        lines.append([cost.stage, seconds, *sizes, times + cost.what])
    return text_table(lines, left=(0, 5))
