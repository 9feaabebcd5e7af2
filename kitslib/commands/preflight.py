"""`preflight`: whether a study fits this machine, and how long it will take."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from kitslib.commands.line import add_jobs, add_settings, text_table
from kitslib.commands.timing import Measured, measure
from kitslib.config import (
    PROFILES,
    RunConfig,
    arm,
    configure,
    duration_text,
    parse_settings,
    size_text,
    write_json,
)  # fmt: skip
from kitslib.data import split_cases
from kitslib.training import device_name, start

NOTEBOOK = 6  # a notebook's processes, figures and page take so many times what loading takes
READS = 2  # times that 01 prepares every case, for the cache and (as long) for its tables
PASSES = 6  # of a test case through the tumour network in 05: scored, varied, calibrated
KEPT = 4  # times a network's weights on disk: these, and a checkpoint with Adam's two averages


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Cores, and bytes: free disk, memory available, the GPU's (0: none is used).

    `held` is on disk already; `base` bytes and `loading` seconds load the study's packages.
    """

    name: str
    cores: int
    disk: int
    held: int
    memory: int
    base: int
    gpu: int
    loading: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a notebook, or the whole study, takes: seconds, and bytes on disk and in memory."""

    stage: str
    what: str
    seconds: float
    disk: int = 0
    memory: int
    gpu: int = 0


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = "Takes half a minute for the demo. Exit status 1 when the study does not fit."
    argument = parser.add_argument
    argument("data", type=Path, nargs="?", metavar="DATA", help="KiTS cohort (default: synthetic)")
    argument("--profile", choices=tuple(PROFILES), default="demo", help="default: demo")
    argument("--out", type=Path, metavar="DIR", help="folder of results (default: reports)")
    argument("--hours", type=float, metavar="H", help="the time there is: more does not fit")
    argument("--json", type=Path, metavar="FILE", help="also write the estimate as JSON")
    add_jobs(parser, "stages")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Print what every stage of a study takes; return 1 where it does not fit this machine."""
    data, out = (str(path.absolute()) if path else "" for path in (args.data, args.out))
    options = parse_settings(args.settings)
    config = configure(profile=args.profile, data=data, out=out, options=options)
    accelerator = start(device=config.device, precision=config.precision)
    machine = this_machine(config, accelerator.device, args.jobs)
    measured = measure(config, accelerator)
    *costs, whole = estimate(config, measured, machine)
    found = problems(config, costs, whole, machine, args.hours)
    print(table([*costs, whole], machine))
    if measured.unreadable:
        names = ", ".join(measured.unreadable)
        print(f"left out, since their headers cannot be read: {names}")
    print("Times are those of a machine that does nothing else.")
    for problem in found:
        print(f"does not fit: {problem}")
    if not found:
        print(f"The profile {config.study} fits this machine.")
    if args.json:
        whole = {**asdict(whole), "costs": [asdict(cost) for cost in costs], "problems": found}
        parts = {"estimate": whole, "machine": asdict(machine), "measured": asdict(measured)}
        write_json(args.json, parts)
    return int(bool(found))


def this_machine(config: RunConfig, device: torch.device, jobs: int) -> Machine:
    """Describe the machine on which a study writes to its folder and uses `jobs` cores."""
    there = Path(config.out).absolute()
    held = sum(file.stat().st_size for file in there.rglob("*") if file.is_file())
    while not there.exists():
        there = there.parent
    gpu = 0
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device).total_memory
    return Machine(
        name=device_name(device), cores=min(jobs, os.cpu_count() or 1), held=held, gpu=gpu,
        disk=shutil.disk_usage(there).free, memory=psutil.virtual_memory().available,
        base=psutil.Process().memory_info().rss, loading=time.process_time(),
    )  # fmt: skip


def estimate(config: RunConfig, measured: Measured, machine: Machine) -> list[Cost]:
    """Return the cost of every notebook of a study in order, and as the last that of the whole."""
    wanted, kidney, tumor = config.cohort, config.kidney, config.tumor
    ids, networks = measured.case_ids, measured.networks
    split = split_cases(ids, seed=wanted.seed, rule=wanted.split, held_out=wanted.held_out)
    notebook, reading = NOTEBOOK * machine.loading, measured.prepare / len(ids)
    scan, jobs = machine.base + measured.memory, machine.cores

    compared = replace(kidney, epochs=kidney.arm_epochs, test_time_mirroring=False)
    plan: list[tuple[str, Any]] = [("kidney", kidney)]
    plan += [("kidney", compared)] * len(config.kidney_arms)
    for name in config.arms:
        plan += [(name, tumor)] * len(config.seeds_of(name))
    runs = []
    for name, t in plan:
        if name == "kidney":
            stage, held_out, predictions = "02_kidney", len(split.kidney_held_out), 0.0
            steps = math.ceil(len(split.kidney_train) * t.samples_per_case / t.batch)
        else:
            stage, held_out, predictions = "03_tumor", len(split.tumor_held_out), 0.0
            steps = t.steps
            if arm(name).oversample and arm(name).oversample_by == "difficulty":
                predictions = len(split.tumor_train) / t.oversample_stride
                predictions *= (t.epochs - 1) // t.oversample_every
        validations = math.ceil(t.epochs / t.validate_every)
        predictions += held_out * (validations + 1 + t.test_time_mirroring)
        cost, memory, gpu = networks[name], scan, networks[name].memory
        if not machine.gpu:
            memory, gpu = max(scan, machine.base + cost.memory), 0
        seconds = t.epochs * steps * cost.step + predictions * cost.case + held_out * reading
        runs.append(Cost(
            stage=stage, what=f"{name}: {t.epochs} epochs of {steps} steps", memory=memory, gpu=gpu,
            seconds=notebook + seconds, disk=KEPT * cost.weights,
        ))  # fmt: skip

    data = Cost(
        stage="01_data", what=f"{len(ids)} cases checked and prepared", disk=measured.disk,
        memory=machine.base + jobs * scan,
        seconds=notebook + (measured.make + READS * measured.prepare) / jobs,
    )  # fmt: skip
    tables = Cost(
        stage="04_ablations", what="tables and figures", seconds=notebook, memory=machine.base
    )
    slowest, cases = max(networks[name].case for name in config.arms), len(split.cascade_test)
    seconds = 2 * reading + networks["kidney"].case * (1 + kidney.test_time_mirroring)
    seconds += PASSES * slowest * (1 + tumor.test_time_mirroring)
    test = Cost(
        stage="05_evaluation", what=f"{cases} cases through the cascade", memory=scan,
        seconds=notebook + cases * seconds,
    )  # fmt: skip

    places = 1 if machine.gpu else max(1, jobs // config.threads)
    busy = [0.0] * places  # seconds; a run starts where there is a place first
    for cost in runs:
        busy[busy.index(min(busy))] += cost.seconds
    together = sorted((cost.memory for cost in runs), reverse=True)[:places]
    whole = Cost(
        stage="the whole", what="", disk=sum(cost.disk for cost in [data, *runs]),
        seconds=data.seconds + max(busy) + tables.seconds + test.seconds,
        memory=max(data.memory, sum(together), test.memory), gpu=max(cost.gpu for cost in runs),
    )  # fmt: skip
    return [data, *runs, tables, test, whole]


def problems(
    config: RunConfig, costs: list[Cost], whole: Cost, machine: Machine, hours: float | None
) -> list[str]:
    """Return what does not fit, each with what to do; `hours` is the time there is."""
    found, more = [], whole.disk - machine.held
    if more > machine.disk:
        found.append(
            f"disk: {size_text(more)} more needed at {config.out}, {size_text(machine.disk)} free; "
            "name a larger disk with --out, lower cohort.cases of a synthetic cohort, or raise "
            f"tumor_grid.spacing_z from {config.tumor_grid.spacing_z:g} mm"
        )
    for what, kind in (("memory", "memory"), ("GPU memory", "gpu")):
        needed, there = getattr(whole, kind), getattr(machine, kind)
        largest = max(costs[1:-2], key=lambda cost: getattr(cost, kind))
        if needed <= there:
            continue
        advice = "run fewer stages at a time with --jobs 1"
        if getattr(largest, kind) > there:
            stage = largest.stage.partition("_")[2]
            share = there / getattr(largest, kind)
            advice = f"lower {stage}.batch from {getattr(config, stage).batch}, then "
            advice += f"{stage}.patch, slab or widths, until {share:.0%} is left ({largest.what})"
        found.append(f"{what}: {size_text(needed)} needed, {size_text(there)} there; {advice}")
    if hours is not None and whole.seconds > hours * 3600:
        share, epochs = hours * 3600 / whole.seconds, (config.kidney.epochs, config.tumor.epochs)
        fewer = [max(1, int(number * share)) for number in epochs]
        found.append(
            f"time: {duration_text(whole.seconds)} needed, {hours:g} hours given; use a GPU, fewer "
            f"arms or seeds, or lower kidney.epochs from {epochs[0]} to {fewer[0]} and "
            f"tumor.epochs from {epochs[1]} to {fewer[1]}"
        )
    return found


def table(costs: list[Cost], machine: Machine) -> str:
    """Return the costs as a table, equal ones once, with what the machine has as the last line."""
    lines = [["stage", "time", "disk", "memory", "GPU memory", ""]]
    for cost in dict.fromkeys(costs):
        times = f"{costs.count(cost)} × " if costs.count(cost) > 1 else ""
        sizes = [size_text(cost.disk), size_text(cost.memory), size_text(cost.gpu)]
        lines.append([cost.stage, duration_text(cost.seconds), *sizes, times + cost.what])
    free = f"{size_text(machine.disk)} free"
    sizes = [free, size_text(machine.memory), size_text(machine.gpu)]
    lines.append(["this machine", "", *sizes, machine.name])
    if machine.held:
        lines.append(["", "", f"{size_text(machine.held)} held", "", "", ""])
    return text_table(lines, left=(0, 5))
