"""A step at the demo's own shapes, which users wait for: both of its networks beside DynUNets."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._measure import STEPS, Cell, Sizes, Table, both_sides, installed, missing, spread
from benchmarks.training import our_seconds, plain_step, sizes_of
from kitslib.config import PROFILES, arm
from kitslib.networks import build, multiply_adds
from kitslib.training import (
    deep_supervision_loss,
    dice_cross_entropy_loss,
    focal_dice_loss,
    supervision_weight,
)

DEMO, ARM = PROFILES["demo"], "full"
SCALES = np.arange(0.25, 4.01, 0.125)  # of the demo's widths, tried for the peer
STAGES = ("kidney", "tumour")
OURS, PEER = "ours, bfloat16", "MONAI DynUNet"


def shape_of(stage: str) -> tuple[int, ...]:
    """The images of a batch: (B, 1, D, H, W) for the kidneys, (B, C, H, W) for tumours."""
    k, t = DEMO.kidney, DEMO.tumor
    if stage == "kidney":
        return k.batch, 1, k.slab, k.patch, k.patch
    return t.batch, t.slices, *t.patch


def ours(stage: str) -> nn.Module:
    """The demo's network of a stage."""
    k, t = DEMO.kidney, DEMO.tumor
    if stage == "kidney":
        how = {"norm": k.norm, "dropout": k.dropout, "deep_supervision": k.deep_supervision}
        return build("resunet3d", widths=k.widths, residual=k.residual, **how)
    return build(**arm(ARM).network_options(slices=t.slices, widths=t.widths, norm=t.norm))


def loss(stage: str, out: Any, target: Tensor, epoch: int) -> Tensor:
    """The demo's loss of a stage."""
    k, t = DEMO.kidney, DEMO.tumor
    if stage == "kidney":
        entropy = partial(dice_cross_entropy_loss, foreground_weight=k.foreground_weight)
        return deep_supervision_loss(out, target, entropy, supervision_weight(epoch))
    return focal_dice_loss(out, target, over=t.dice_over, lam=t.lam)


def dynunet(shape: tuple[int, ...], widths: tuple[int, ...], scale: float) -> nn.Module:
    """MONAI's DynUNet for images of this shape, with widths times `scale` in steps of 4."""
    from monai.networks.nets import DynUNet

    levels, scaled = len(widths), [max(4, 4 * round(scale * width / 4)) for width in widths]
    strides = [1] + [2] * (levels - 1)
    return DynUNet(len(shape) - 2, shape[1], 1, [3] * levels, strides, strides[1:], scaled)


def matched(stage: str) -> nn.Module:
    """The DynUNet whose multiply-adds are nearest to those of our network."""
    shape, widths = shape_of(stage), DEMO.kidney.widths if stage == "kidney" else DEMO.tumor.widths
    one = (1, *shape[1:])
    wanted = multiply_adds(ours(stage), one)
    tried = [dynunet(shape, widths, scale) for scale in SCALES]
    return min(tried, key=lambda net: abs(np.log(multiply_adds(net, one) / wanted)))


def prepare(mine: bool, *, stage: str, threads: int, clock: str) -> Sizes:
    """Put our step or the peer's into STEPS; return parameters and multiply-adds a sample."""
    torch.set_num_threads(threads)
    shape, found = shape_of(stage), {}
    if mine:
        optimizer = DEMO.kidney.optimizer if stage == "kidney" else DEMO.tumor.optimizer
        found[OURS] = ours(stage)
        STEPS[OURS] = partial(
            our_seconds, found[OURS], shape, warm=2, steps=2, clock=clock,
            loss=partial(loss, stage), optimizer=optimizer,
        )  # fmt: skip
    elif installed("monai"):
        for precision in ("float32", "bfloat16"):
            network = found[name := f"{PEER}, {precision}"] = matched(stage)
            autocast = precision == "bfloat16"
            STEPS[name] = plain_step(network, shape, autocast=autocast, clock=clock)
    return sizes_of(found, shape)


def tables(threads: int, clock: str, repeats: int) -> list[Table]:
    """One table a stage of the demo."""
    found = []
    for stage in STAGES:
        how = {"stage": stage, "threads": threads, "clock": clock}
        timings, sizes = both_sides(partial(prepare, **how), repeats)
        rows: list[dict[str, Cell]] = []
        for name, timing in timings.items():
            row: dict[str, Cell] = {"contender": name, "parameters, million": sizes[name][0] / 1e6}
            row["multiply-adds a sample, 10^9"] = sizes[name][1] / 1e9
            row["ms a step"] = spread(timing)
            row["samples/s"] = shape_of(stage)[0] / timing.median
            row["ours is quicker, times"] = timing.median / timings[OURS].median
            rows.append(row)
        if not installed("monai"):
            rows.append(missing(PEER, "contender"))
        shape = " x ".join(map(str, shape_of(stage)))
        note = f"Batches of {shape}; ours with the demo's loss and optimiser, {PEER} with Adam."
        found.append(Table(title=f"A step of the demo's {stage} network", note=note, rows=rows))
    return found
