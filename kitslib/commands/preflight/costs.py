"""From sizes and speeds to what each stage takes, and to what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kitslib.commands.preflight.machine import Machine
from kitslib.commands.preflight.sizes import CaseSize, Sizes, kidney_shape
from kitslib.commands.preflight.timing import (
    NetworkSpeed,
    Speed,
    kidney_batch,
    kidney_network,
    training_bytes,
    tumor_batch,
    tumor_network,
    usual_arm,
)
from kitslib.config import KidneyConfig, RunConfig, TumorConfig, arm, as_dict
from kitslib.data import split_cases
from kitslib.evaluation import tile_starts, windows
from kitslib.networks import build, multiply_adds
from kitslib.training import what_to_lower

ENTRY = {
    "kidney": 3,
    "tumor": 4,
}  # bytes of a cached voxel: CT int16, labels uint8, and the tumour stage's mask uint8
KEPT = 5  # times a network's weights on disk: the weights, the best ones, a checkpoint with Adam's two averages
STARTS = 3  # processes of a stage that load the packages, one after the other: papermill, the kernel, the page
READS = (
    2,
    3,
)  # times that the data notebook reads every case: one after the other, and several at a time


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one stage takes: seconds, bytes left on disk, bytes of memory and of GPU memory at its peak."""

    stage: str
    what: str
    seconds: float
    disk: int
    memory: int
    gpu: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the stages take, what the whole study does, and what is in the way (empty: it fits)."""

    costs: tuple[Cost, ...]
    seconds: float
    disk: int
    memory: int
    gpu: int
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A network of a stage with the shape and multiply-adds of a batch, and those of looking through a usual case."""

    network: nn.Module
    batch: tuple[int, ...]
    batch_adds: int
    case_adds: float


def estimate(
    config: RunConfig,
    sizes: Sizes,
    speed: Speed,
    machine: Machine,
    *,
    jobs: int,
    hours: float | None = None,
) -> Estimate:
    """Estimate every stage of a configuration; `jobs` cases are prepared at a time. `hours`: the time there is."""
    split = split_cases(
        [case.case_id for case in sizes.cases],
        seed=config.cohort.seed,
        rule=config.cohort.split,
        held_out=config.cohort.held_out,
    )
    kidney = _kidney(config, sizes)
    tumors = {name: _tumor(config, sizes, name) for name in config.arms}
    costs = [_data(config, sizes, speed, machine, jobs)]
    costs.append(_train_kidney(config, kidney, split, sizes, speed, machine))
    compared = replace(config.kidney, epochs=config.kidney.arm_epochs, test_time_mirroring=False)
    arms = _train_kidney(replace(config, kidney=compared), kidney, split, sizes, speed, machine)
    costs += [arms] * len(config.kidney_arms)
    for name, stage in tumors.items():
        cost = _train_tumor(config, name, stage, split, sizes, speed, machine)
        costs += [cost] * len(config.seeds_of(name))
    costs.append(_plain_cost("04_ablations", "tables and figures", STARTS * speed.start, machine))
    cascade = [kidney, tumors[usual_arm(config)]]
    costs.append(_evaluate(config, cascade, len(split.cascade_test), sizes, speed, machine))
    return _whole(config, costs, machine, [kidney, *tumors.values()], hours)


# Stages ------------------------------------------------------------------------------------------------------


def _kidney(config: RunConfig, sizes: Sizes) -> Stage:
    network, grid = _shapes_only(kidney_network(config)), config.kidney_grid
    depth, rows, columns = kidney_shape(sizes.typical, grid)
    size = config.kidney.window_slices
    looks = len(windows(depth, size, config.kidney.window))
    batch = kidney_batch(config)
    return Stage(
        network=network,
        batch=batch,
        batch_adds=multiply_adds(network, batch),
        case_adds=looks * multiply_adds(network, (1, 1, size, rows, columns)),
    )


def _tumor(config: RunConfig, sizes: Sizes, name: str) -> Stage:
    network, grid = _shapes_only(tumor_network(config, name)), config.tumor_grid
    batch = tumor_batch(config, name)
    depth, *plane = sizes.tumor_shape(sizes.typical, grid)
    tiles = np.prod(
        [
            len(tile_starts(side, patch))
            for side, patch in zip(plane, config.tumor.patch, strict=True)
        ]
    )
    if arm(name).dims == "3d":
        window = 2 * config.tumor.slab
        looks, seen = len(windows(depth, window)), (1, 1, window, *config.tumor.patch)
    else:
        looks, seen = depth, (1, *batch[1:])
    return Stage(
        network=network,
        batch=batch,
        batch_adds=multiply_adds(network, batch),
        case_adds=float(tiles) * looks * multiply_adds(network, seen),
    )


def _shapes_only(options: dict[str, Any]) -> nn.Module:
    """A network without values."""
    with torch.device("meta"):
        return build(**options)


def _data(config: RunConfig, sizes: Sizes, speed: Speed, machine: Machine, jobs: int) -> Cost:
    count = len(sizes.cases)
    fixed, each = speed.render if config.synthetic else (0.0, 0.0)
    work = (fixed * count + each * sizes.voxels) / jobs
    work += sizes.voxels * speed.read * (READS[0] + READS[1] / jobs)
    work += (
        sum(_handled(config, sizes, case) for case in sizes.cases) * speed.handle * (1 + 1 / jobs)
    )
    grids = config.kidney_grid, config.tumor_grid
    disk = sum(
        ENTRY["kidney"] * np.prod(kidney_shape(case, grids[0]))
        + ENTRY["tumor"] * np.prod(sizes.tumor_shape(case, grids[1]))
        for case in sizes.cases
    )
    disk += speed.packed * sizes.voxels if config.synthetic else 0
    memory = machine.base * (jobs + 1) + jobs * _largest_bytes(config, sizes, speed)
    made = "made, checked and prepared" if config.synthetic else "checked and prepared"
    return Cost(
        stage="01_data", what=f"{count} cases {made}", seconds=STARTS * speed.start + work, disk=int(disk),
        memory=memory, gpu=0,
    )  # fmt: skip


def _train_kidney(
    config: RunConfig, stage: Stage, split: Any, sizes: Sizes, speed: Speed, machine: Machine
) -> Cost:
    """The cascade's network, or with their settings one of the comparison's, which are taken to be as large."""
    kidney, network = config.kidney, speed.networks["kidney"]
    steps = -(-len(split.kidney_train) * kidney.samples_per_case // kidney.batch)
    looks = -(-kidney.epochs // kidney.validate_every) * len(split.kidney_held_out)
    seconds = _training(stage, network, steps=kidney.epochs * steps)
    seconds += looks * stage.case_adds * network.infer
    seconds += len(split.kidney_held_out) * (
        _through(config, sizes, speed) + _look(kidney, stage, network)
    )
    scan = _largest_bytes(config, sizes, speed)
    words = f"{kidney.epochs} epochs of {steps} steps"
    return _trained(
        "02_kidney", words, stage, STARTS * speed.start + seconds, network, scan, machine
    )


def _train_tumor(
    config: RunConfig,
    name: str,
    stage: Stage,
    split: Any,
    sizes: Sizes,
    speed: Speed,
    machine: Machine,
) -> Cost:
    tumor, network, chosen = config.tumor, speed.networks["tumor"], arm(name)
    seconds = _training(stage, network, steps=tumor.epochs * tumor.steps)
    looks = -(-tumor.epochs // tumor.validate_every) * len(split.tumor_held_out)
    if chosen.oversample and chosen.oversample_by == "difficulty":
        times = (tumor.epochs - 1) // tumor.oversample_every
        looks += times * len(split.tumor_train) / tumor.oversample_stride
    seconds += looks * stage.case_adds * network.infer
    seconds += len(split.tumor_held_out) * (
        _through(config, sizes, speed) + _look(tumor, stage, network)
    )
    scan = _largest_bytes(config, sizes, speed)
    words = f"{name}: {tumor.epochs} epochs of {tumor.steps} steps"
    return _trained(
        "03_tumor", words, stage, STARTS * speed.start + seconds, network, scan, machine
    )


def _evaluate(
    config: RunConfig,
    cascade: Sequence[Stage],
    cases: int,
    sizes: Sizes,
    speed: Speed,
    machine: Machine,
) -> Cost:
    kidney = _look(config.kidney, cascade[0], speed.networks["kidney"])
    tumor = _look(config.tumor, cascade[1], speed.networks["tumor"])
    once = (
        2 * _through(config, sizes, speed) + kidney + 2 * tumor
    )  # with the kidneys found, and with the true ones
    seconds = STARTS * speed.start + cases * once
    gpu = max(
        _window_bytes(stage, network)
        for stage, network in zip(cascade, speed.networks.values(), strict=True)
    )
    return Cost(
        stage="05_evaluation", what=f"{cases} cases through the cascade, twice", seconds=seconds, disk=0,
        memory=machine.base + _largest_bytes(config, sizes, speed), gpu=gpu if machine.gpu else 0,
    )  # fmt: skip


def _look(settings: KidneyConfig | TumorConfig, stage: Stage, speed: NetworkSpeed) -> float:
    """Seconds in which a network looks through a usual case, and through its mirror image where that is asked for."""
    return (2 if settings.test_time_mirroring else 1) * stage.case_adds * speed.infer


def _training(stage: Stage, speed: NetworkSpeed, *, steps: int) -> float:
    return steps * (
        speed.step + stage.batch_adds * speed.train + np.prod(stage.batch) * speed.augment
    )


def _through(config: RunConfig, sizes: Sizes, speed: Speed) -> float:
    """Seconds of reading a usual case and of taking it to the stages' grids and back."""
    return sizes.typical.voxels * speed.read + _handled(config, sizes, sizes.typical) * speed.handle


def _handled(config: RunConfig, sizes: Sizes, case: CaseSize) -> int:
    """Voxels of a case in its own grid and in the tumour stage's."""
    return case.voxels + int(np.prod(sizes.tumor_shape(case, config.tumor_grid)))


def _largest_bytes(config: RunConfig, sizes: Sizes, speed: Speed) -> int:
    """Bytes at work where the largest case is taken to the stages' grids and back."""
    return int(speed.handle_bytes * max(_handled(config, sizes, case) for case in sizes.cases))


def _trained(
    stage: str, what: str, trained: Stage, seconds: float, network: NetworkSpeed, scan: int, machine: Machine
) -> Cost:  # fmt: skip
    step = training_bytes(trained.network, network, trained.batch)
    weights = 4 * sum(p.numel() for p in trained.network.parameters())
    return Cost(
        stage=stage, what=what, seconds=seconds, disk=KEPT * weights,
        memory=machine.base + (scan if machine.gpu else max(step, scan)), gpu=step if machine.gpu else 0,
    )  # fmt: skip


def _plain_cost(stage: str, what: str, seconds: float, machine: Machine) -> Cost:
    return Cost(stage=stage, what=what, seconds=seconds, disk=0, memory=machine.base, gpu=0)


def _window_bytes(stage: Stage, speed: NetworkSpeed) -> int:
    """Bytes of one prediction: the weights, and a few tensors of the widest size."""
    weights = 4 * sum(p.numel() for p in stage.network.parameters())
    return int(weights + 3 * speed.widest * np.prod(stage.batch[1:]))


# The whole ---------------------------------------------------------------------------------------------------


def _whole(
    config: RunConfig, costs: list[Cost], machine: Machine, stages: list[Stage], hours: float | None
) -> Estimate:
    data, *trainings, tables, verdict = costs
    slots = 1 if machine.gpu else max(1, machine.cores // config.threads)
    seconds = (
        data.seconds
        + _side_by_side([c.seconds for c in trainings], slots)
        + tables.seconds
        + verdict.seconds
    )
    busiest = sorted((c.memory for c in trainings), reverse=True)[:slots]
    found = Estimate(
        costs=tuple(costs),
        seconds=seconds,
        disk=sum(c.disk for c in costs),
        memory=max(data.memory, sum(busiest), verdict.memory),
        gpu=max(c.gpu for c in costs),
        problems=(),
    )
    problems = [
        *_disk_problem(config, found, machine),
        *_memory_problem(config, found, data, trainings, machine, stages, slots),
        *_gpu_problem(config, trainings, machine, stages),
        *_time_problem(config, found, hours),
    ]
    return Estimate(**{**vars(found), "problems": tuple(problems)})


def _side_by_side(seconds: Sequence[float], slots: int) -> float:
    """Seconds of tasks that start in order as soon as one of the slots is free."""
    free = [0.0] * slots
    for task in seconds:
        free[free.index(min(free))] += task
    return max(free)


def _disk_problem(config: RunConfig, found: Estimate, machine: Machine) -> list[str]:
    more = found.disk - machine.held
    if more <= machine.disk:
        return []
    fits = (machine.disk + machine.held) / found.disk
    fewer = (
        f" cohort.cases from {config.cohort.cases} to {int(config.cohort.cases * fits)},"
        if config.synthetic
        else ""
    )
    return [
        f"disk: {size(more)} more needed at {Path(config.out)}, {size(machine.disk)} free; name a larger disk with "
        f"--out, or lower{fewer} or raise tumor_grid.spacing_z from {config.tumor_grid.spacing_z:g} mm"
    ]


def _memory_problem(
    config: RunConfig, found: Estimate, data: Cost, trainings: list[Cost], machine: Machine, stages: list[Stage],
    slots: int,
) -> list[str]:  # fmt: skip
    if found.memory <= machine.memory:
        return []
    head = f"memory: {size(found.memory)} needed, {size(machine.memory)} available"
    if data.memory >= found.memory:
        return [f"{head}; prepare fewer cases at a time (--jobs 1), or close other programs"]
    largest = max(trainings, key=lambda cost: cost.memory)
    if largest.memory <= machine.memory:
        return [f"{head} for {slots} trainings at a time; call ./run_all.sh with --jobs 1"]
    return [f"{head}; {_lower(config, largest, stages, machine.memory / largest.memory)}"]


def _gpu_problem(
    config: RunConfig, trainings: list[Cost], machine: Machine, stages: list[Stage]
) -> list[str]:
    largest = max(trainings, key=lambda cost: cost.gpu)
    if largest.gpu <= machine.gpu:
        return []
    head = f"GPU memory: {size(largest.gpu)} needed for {largest.stage} ({largest.what}), {size(machine.gpu)} there"
    return [f"{head}; {_lower(config, largest, stages, machine.gpu / largest.gpu)}"]


def _time_problem(config: RunConfig, found: Estimate, hours: float | None) -> list[str]:
    if hours is None or found.seconds <= hours * 3600:
        return []
    share = hours * 3600 / found.seconds
    return [
        f"time: {found.seconds / 3600:.1f} hours needed, {hours:g} given; use a GPU, fewer arms or seeds, or lower "
        f"kidney.epochs from {config.kidney.epochs} to {max(1, int(config.kidney.epochs * share))} and tumor.epochs "
        f"from {config.tumor.epochs} to {max(1, int(config.tumor.epochs * share))}"
    ]


def _lower(config: RunConfig, cost: Cost, stages: list[Stage], fits: float) -> str:
    """What to lower, and to what, of the stage that does not fit."""
    name = "kidney" if cost.stage == "02_kidney" else "tumor"
    stage = stages[0] if name == "kidney" else stages[-1]
    training = as_dict(getattr(config, name))
    return f"lower {what_to_lower({'stage': name, 'training': training}, stage.batch)}"


def size(count: float) -> str:
    """Bytes in words: 3.2 GB."""
    for unit, step in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
