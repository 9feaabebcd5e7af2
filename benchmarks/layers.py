"""What each layer of ours saves of a training's step on a CPU, beside torch's own.

A step is forward, loss, backward, clipping and optimiser step on the shapes of the profile demo. It
is measured with our layers and at once again with torch's own in place of one of them or of all;
network, batch and optimiser are the same. A layer stays where it saves 10 % of the step in at least
one training; `resize` stays because it is deterministic on a GPU too. The first report has rows of
three more layers (UpConv, join, dropout), which saved less and were removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._measure import (
    Report,
    Table,
    command,
    conditions,
    interleave,
    judged,
    parser,
    spread,
    timed,
)
from kitslib.config import PROFILES, arm
from kitslib.data import Cohort
from kitslib.networks import cpu, deeplab, resunet
from kitslib.recipes import KidneyRecipe, TumorRecipe
from kitslib.training import make_optimizer, mend_thin_convolutions, start

BOUND = 10.0  # % of a step
DEMO = PROFILES["demo"]
PRECISIONS = {"bfloat16": "bf16", "float32": "no"}
ALL = "all of them"

Replacement = tuple[Any, str, Callable]  # where a name stands, the name, and what stands in for it


class Training(NamedTuple):
    """What a step trains: network, shape of the input, and loss of the output and a target."""

    network: nn.Module
    shape: tuple[int, ...]
    loss: Callable[[Any, Tensor], Tensor]


def instance_norm(layer: cpu.InstanceNorm, x: Tensor) -> Tensor:
    """Torch's instance norm of (B, C, ...)."""
    return F.instance_norm(x, weight=layer.weight, bias=layer.bias)


def prelu(layer: cpu.PReLU, x: Tensor) -> Tensor:
    """Torch's PReLU of (B, C, ...)."""
    return F.prelu(x, layer.weight.to(x.dtype))


def interpolated(x: Tensor, size: Sequence[int]) -> Tensor:
    """Torch's linear interpolation of (B, C, ...) to `size`."""
    return F.interpolate(x, tuple(size), mode="bilinear" if x.ndim == 4 else "trilinear")


LAYERS: dict[str, tuple[Replacement, ...]] = {
    "Conv3d": ((cpu.Conv3d, "_conv_forward", nn.Conv3d._conv_forward),),
    "InstanceNorm": ((cpu.InstanceNorm, "forward", instance_norm),),
    "PReLU": ((cpu.PReLU, "forward", prelu),),
    "resize": tuple((module, "resize", interpolated) for module in (resunet, deeplab)),
}


def without_cases() -> dict[str, Any]:
    """What a recipe needs beside its settings, for steps on random data."""
    none = Cohort({})
    accelerator = start(device="cpu")
    return {"train": none, "held_out": none, "accelerator": accelerator, "runs": Path()}


def kidney() -> Training:
    """The demo's training of the kidney network."""
    t = DEMO.kidney
    recipe = KidneyRecipe(name="kidney", training=t, grid=DEMO.kidney_grid, **without_cases())
    shape = (t.batch, 1, t.slab, t.patch, t.patch)
    return Training(recipe.network(), shape, partial(recipe.loss, epoch=0))


def tumor(name: str) -> Training:
    """The demo's training of the arm `name`."""
    t = DEMO.tumor
    recipe = TumorRecipe(
        name=name, training=t, grid=DEMO.tumor_grid, arm=arm(name), **without_cases()
    )
    return Training(recipe.network(), (t.batch, t.slices, *t.patch), partial(recipe.loss, epoch=0))


TRAININGS: dict[str, Callable[[], Training]] = {
    "kidney": kidney,
    "tumour baseline": partial(tumor, "baseline"),
    "tumour full": partial(tumor, "full"),
}


def make_step(training: Training, precision: str, threads: int) -> Callable[[], float]:
    """One step on random data, which returns its loss; `precision` is a key of PRECISIONS."""
    accelerator = start(device="cpu", precision=PRECISIONS[precision], threads=threads)
    network, shape, loss = training
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    network.to(memory_format=layout).train()
    mend_thin_convolutions(network)
    optimizer, _ = make_optimizer(network, name="muon", lr=1e-4, schedule="constant", total_steps=1)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    images, target = images.to(memory_format=layout), (images[:, :1] > 0.9).float()

    def step() -> float:
        with accelerator.autocast():
            output = network(images)
        value = loss(output, target)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.item()

    return step


def compared(
    step: Callable[[], float], replacements: Sequence[Replacement], clock: str
) -> Callable[[], float]:
    """The share of a step with `replacements` in place that ours saves, in %, from one of each."""
    measured = timed(step, clock)

    def measure() -> float:
        ours = measured()
        with ExitStack() as stack:
            for owner, name, other in replacements:
                stack.enter_context(patch.object(owner, name, other))
            return 100 * (1 - ours / measured())

    return measure


def main(arguments: list[str]) -> int:
    """Measure every training in both precisions; print a table and the bounds."""
    options = parser("layers", __doc__, threads=1, repeats=15).parse_args(arguments)
    facts = conditions(options.threads, options.repeats, clock=options.clock)
    everything = [replacement for found in LAYERS.values() for replacement in found]
    variants = LAYERS | {ALL: everything}
    rows: dict[str, dict[str, Any]] = {name: {"layer": name} for name in variants}
    largest = dict.fromkeys(variants, 0.0)
    for (training, make), precision in product(TRAININGS.items(), PRECISIONS):
        torch.manual_seed(0)
        step = make_step(make(), precision, options.threads)
        jobs = {name: compared(step, found, options.clock) for name, found in variants.items()}
        for name, saved in interleave(jobs, options.repeats).items():
            rows[name][f"{training}, {precision}"] = spread(saved, 1)
            largest[name] = max(largest[name], saved.median)
    note = (
        "Share of a step that ours saves, in %; where a training has no such layer, chance alone."
    )
    Report(
        name="layers",
        question="Which share of a training's step does each of our layers save beside torch's?",
        command=command("layers", arguments),
        conditions=facts,
        tables=[Table(title="Layers", note=note, rows=list(rows.values()))],
        bounds=[judged(f"{name}, at best", largest[name], BOUND, "%") for name in LAYERS],
    ).publish(options.out)
    return 0
