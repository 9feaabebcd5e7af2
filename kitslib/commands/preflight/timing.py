"""How fast this machine renders, reads, resamples and convolves, and how much memory that takes: a few seconds.

On a CPU the seconds are counted that one thread was at work, so that other programs do not change them; further
threads are taken to share a network's work evenly.
"""

from __future__ import annotations

import os
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kitslib.commands.preflight.sizes import CaseSize, Sizes
from kitslib.config import RunConfig, arm, as_dict
from kitslib.data import open_volume, tumor_mapping
from kitslib.evaluation import KidneyStage, TumorStage
from kitslib.networks import build, multiply_adds
from kitslib.phantom import render_case
from kitslib.transforms import (
    SLICE_JITTER,
    SlabAugment,
    SliceAugment,
    augment_slabs,
    augment_slices,
)

BUDGET_S = 2.0  # for each network; a step is timed on ever larger parts of a batch for so long
SMALL, LARGE = 48, 80  # pixels in plane of the two synthetic cases that are rendered
SLAB_VOXELS = 1_500_000  # of the piece of a scan that is taken through both stages


@dataclass(frozen=True, kw_only=True)
class NetworkSpeed:
    """Seconds of a training step (`step` whatever its size, `train` per multiply-add) and of a prediction per
    multiply-add; bytes that training holds per input voxel.

    `held`: what is saved for the gradient, `widest` its largest part; `casts`: what is saved whatever the input's
    size. `augment`: seconds per voxel of a batch.
    """

    step: float
    train: float
    infer: float
    held: float
    widest: float
    casts: float
    augment: float


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds and bytes of this machine. Per voxel of a scan unless said otherwise; `render` is (a case, a voxel).

    `handle` and `handle_bytes` are those of taking a scan to both stages' grids and back, without the networks, per
    voxel of the scan and of the tumour stage's grid together.
    """

    start: float  # seconds until a Python with the study's packages is there
    read: float
    packed: float  # bytes on disk, CT and labels together
    render: tuple[float, float]
    handle: float
    handle_bytes: float
    networks: Mapping[str, NetworkSpeed]


def time_here(config: RunConfig, sizes: Sizes, accelerator: Accelerator, *, start: float) -> Speed:
    """Time this machine's parts of a study; `start` is the seconds that starting this process took."""
    torch.set_num_threads(1)
    threads = 1 if accelerator.device.type == "cuda" else min(config.threads, os.cpu_count() or 1)
    render, packed, unpack = _render(config)
    chosen = usual_arm(config)
    kidney, tumor = build(**kidney_network(config)), build(**tumor_network(config, chosen))
    return Speed(
        start=start,
        read=unpack if sizes.sample is None else _reading(sizes.sample),
        packed=packed,
        render=render,
        **_handling(config, sizes.typical, accelerator),
        networks={
            "kidney": _network(
                kidney, kidney_batch(config), accelerator, _slab_augment(config), threads
            ),
            "tumor": _network(
                tumor, tumor_batch(config, chosen), accelerator, _slice_augment(config), threads
            ),
        },
    )


def usual_arm(config: RunConfig) -> str:
    """The arm that is timed, and that the cascade is taken to use: the one with most mechanisms."""
    return max(config.arms, key=lambda name: len(arm(name).mechanisms))


def kidney_network(config: RunConfig) -> dict[str, Any]:
    """The options of `build` for the kidney network of a configuration."""
    names = ("widths", "norm", "dropout", "residual", "deep_supervision")
    return {"name": "resunet3d", **{name: getattr(config.kidney, name) for name in names}}


def tumor_network(config: RunConfig, name: str) -> dict[str, Any]:
    """The options of `build` for an arm's network."""
    tumor = config.tumor
    return arm(name).network_options(slices=tumor.slices, widths=tumor.widths, norm=tumor.norm)


def kidney_batch(config: RunConfig) -> tuple[int, ...]:
    """Shape of a training batch of the kidney stage, (B, 1, D, H, W)."""
    side = config.kidney.patch or config.kidney_grid.matrix
    return config.kidney.batch, 1, config.kidney.slab, side, side


def tumor_batch(config: RunConfig, name: str) -> tuple[int, ...]:
    """Shape of a training batch of an arm, (B, C, H, W) or (B, 1, D, H, W)."""
    tumor, dims = config.tumor, arm(name).dims
    if dims == "3d":
        return tumor.slab_batch, 1, tumor.slab, *tumor.patch
    return tumor.batch, tumor.slices if dims == "2.5d" else 1, *tumor.patch


def training_bytes(network: nn.Module, speed: NetworkSpeed, shape: tuple[int, ...]) -> int:
    """Bytes of a training step on inputs of `shape`: weights, gradients, Adam's two averages, what is saved for the
    gradient, and three tensors of the widest size that are at work."""
    states = 16 * sum(p.numel() for p in network.parameters())
    return int(states + speed.casts + np.prod(shape) * (speed.held + 3 * speed.widest))


def saved_bytes(
    network: nn.Module, shape: tuple[int, ...], accelerator: Accelerator
) -> tuple[float, float, float]:
    """Bytes that a training step saves for its gradient per input voxel, of the largest part, and whatever the size.

    Told from each other by batches of two and of three; what does not grow are weights in another precision.
    """
    two, three = (_saved(network, (n, *shape[1:]), accelerator) for n in (2, 3))
    voxels, growth = float(np.prod(shape[1:])), sum(three) - sum(two)
    grown = Counter(three) - Counter(two)
    return growth / voxels, max(grown) / 3 / voxels, float(sum(two) - 2 * growth)


def _saved(network: nn.Module, shape: tuple[int, ...], accelerator: Accelerator) -> list[int]:
    """Bytes of each piece of memory that a forward pass keeps for the gradient, in the order of the pass."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()
        if place.data_ptr() not in own:
            sizes.setdefault(place.data_ptr(), place.nbytes())
        return tensor

    network = network.to(accelerator.device).train()
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        accelerator.autocast(),
    ):
        output = network(
            torch.randn(shape, device=accelerator.device)
        )  # kept, so that no place is given twice
    del output
    return list(sizes.values())


# Each part ---------------------------------------------------------------------------------------------------


def _render(config: RunConfig) -> tuple[tuple[float, float], float, float]:
    """Seconds of a synthetic case (fixed, per voxel), and bytes on disk and seconds of reading, per voxel."""
    seconds, voxels = [], []
    for matrix in (SMALL, LARGE):
        began = time.process_time()
        imaging, labels, _ = render_case(
            0, seed=config.cohort.seed, matrix=matrix, spacing_z=(5.0,)
        )
        packs = [zlib.compress(part.tobytes(), 1) for part in (imaging, labels, labels)]
        seconds.append(time.process_time() - began)
        voxels.append(imaging.size)
    began = time.process_time()
    for pack in packs[:2]:
        zlib.decompress(pack)
    unpack = (time.process_time() - began) / imaging.size
    slope = max(0.0, (seconds[1] - seconds[0]) / (voxels[1] - voxels[0]))
    return (
        (max(0.0, seconds[0] - slope * voxels[0]), slope),
        sum(map(len, packs)) / imaging.size,
        unpack,
    )


def _reading(path: Path) -> float:
    """Seconds per voxel of reading imaging, from the first slab of a file."""
    began = time.process_time()
    with open_volume(path) as volume:
        _, _, values = next(volume.slabs())
        return (time.process_time() - began) / values.size


class Threshold(nn.Module):
    """In the place of a network: says yes where its input is above a level."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, x: Tensor) -> Tensor:
        return 10 * (x[:, :1] - self.level)


def _handling(config: RunConfig, case: CaseSize, accelerator: Accelerator) -> dict[str, float]:
    """Seconds and bytes per voxel of taking a piece of a scan through both stages with nothing for a network."""
    rows, columns = case.shape[1:]
    depth = int(np.clip(SLAB_VOXELS // (rows * columns), 1, case.shape[0]))
    imaging = np.full((depth, rows, columns), -100, np.int16)
    imaging[:, rows // 3 : rows * 2 // 3, columns // 5 : columns * 2 // 5] = (
        250  # two kidneys as boxes
    )
    imaging[:, rows // 3 : rows * 2 // 3, columns * 3 // 5 : columns * 4 // 5] = 250
    settings = {"training": as_dict(config.kidney), "grid": as_dict(config.kidney_grid)}
    kidney = KidneyStage.of(Threshold(0.5).eval(), settings)
    settings = {
        "training": as_dict(config.tumor),
        "grid": as_dict(config.tumor_grid),
        "arm": {"dims": "2.5d"},
    }
    tumor = TumorStage.of(Threshold(0.5).eval(), settings)

    kidneys = (imaging > 0).astype(np.uint8)
    work = imaging.size + np.prod(tumor_mapping(kidneys, case.spacing, tumor.grid).stage.shape)

    def through() -> None:
        kidney.mask(imaging, case.spacing, _plain)
        tumor.mask(imaging, kidneys, case.spacing, _plain)

    began = time.process_time()
    through()
    seconds = time.process_time() - began
    tracemalloc.start()
    through()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"handle": seconds / work, "handle_bytes": (peak + imaging.nbytes) / work}


def _plain() -> torch.autocast:
    return torch.autocast("cpu", enabled=False)


def _slab_augment(config: RunConfig) -> Callable[[Tensor, int], object]:
    settings = SlabAugment(
        mirror=config.kidney.mirror, move=config.kidney.move, jitter=config.kidney.jitter
    )
    return lambda images, turn: augment_slabs(
        images, torch.zeros_like(images), settings, seeds=(0, 0, turn, 0)
    )


def _slice_augment(config: RunConfig) -> Callable[[Tensor, int], object]:
    settings = SLICE_JITTER if config.tumor.jitter else SliceAugment()
    return lambda images, turn: augment_slices(
        images, torch.zeros_like(images[:, :1]), settings, seeds=(0, 0, turn, 0)
    )


def _network(
    network: nn.Module, batch: tuple[int, ...], accelerator: Accelerator, augment: Callable[[Tensor, int], object],
    threads: int,
) -> NetworkSpeed:  # fmt: skip
    """Time steps on ever larger parts of a batch until the budget is spent; the last two give the line."""
    network, shapes = network.to(accelerator.device), _parts(batch)
    least = 16 if len(batch) == 5 else 32
    held, widest, casts = saved_bytes(
        network, (1, batch[1], *(min(n, least) for n in batch[2:])), accelerator
    )
    costs = [multiply_adds(network, shape) for shape in shapes]
    began, seen = time.perf_counter(), []
    for index, shape in enumerate(shapes):
        step_began = time.perf_counter()
        twice = [
            _step_seconds(network, shape, accelerator) for _ in range(2)
        ]  # the first of a shape is slower
        seen.append((costs[index], *map(min, zip(*twice, strict=True))))
        took = time.perf_counter() - step_began
        larger = costs[min(index + 1, len(costs) - 1)] / costs[index]
        if (
            time.perf_counter() - began + took * larger / 2 > BUDGET_S
        ):  # half: small parts are dearer per operation
            break
    step, train = _line(seen)
    images = torch.randn(shapes[0])
    augment(images.clone(), 0)
    began = time.process_time()
    for turn in range(1, 4):
        augment(images.clone(), turn)
    augmenting = (time.process_time() - began) / 3 / images.numel()
    cost, _, infer = seen[-1]
    seconds = {"step": step, "train": train, "infer": infer / cost, "augment": augmenting}
    return NetworkSpeed(
        **{name: value / threads for name, value in seconds.items()},
        held=held,
        widest=widest,
        casts=casts,
    )


def _line(seen: list[tuple[int, float, float]]) -> tuple[float, float]:
    """Seconds of a step without operations, and per multiply-add, from (multiply-adds, seconds, …) of two or more."""
    (last, seconds, _), (before, fewer, _) = seen[-1], seen[max(len(seen) - 2, 0)]
    if last <= before or seconds <= fewer:
        return 0.0, seconds / last
    slope = min((seconds - fewer) / (last - before), seconds / last)
    return seconds - slope * last, slope


def _parts(batch: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes from a small part of one sample up to the whole batch."""
    shapes = [batch, (1, *batch[1:])] if batch[0] > 1 else [batch]
    while max(shapes[-1][2:]) >= 64:
        shapes.append((1, batch[1], *(max(n // 2, min(n, 16)) for n in shapes[-1][2:])))
    return shapes[::-1]


def _step_seconds(
    network: nn.Module, shape: tuple[int, ...], accelerator: Accelerator
) -> tuple[float, float]:
    """Seconds of a training step and of a prediction."""
    device = accelerator.device
    layout = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
    network = network.to(memory_format=layout)
    images = torch.randn(shape, device=device).to(memory_format=layout)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            return time.perf_counter()
        return time.process_time()

    began = now()
    with accelerator.autocast():
        outputs = network.train()(images)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(output.float().square().mean() for output in outputs).backward()
    network.zero_grad(set_to_none=True)
    trained = now()
    with torch.inference_mode(), accelerator.autocast():
        network.eval()(images)
    return trained - began, now() - trained
