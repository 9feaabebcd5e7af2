"""A step at a profile's own shapes, as users wait for it: both of its networks beside peers'."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._measure import STEPS, Cell, Sizes, Table, both_sides, installed, missing, spread
from benchmarks.training import ON_GPU, our_seconds, plain_step, sizes_of
from kitslib.config import PROFILES, arm
from kitslib.networks import build, multiply_adds
from kitslib.training import (
    deep_supervision_loss,
    dice_cross_entropy_loss,
    focal_dice_loss,
    soft_dice_loss,
    supervision_weight,
)

ARM = "full"
SCALES = np.arange(0.25, 4.01, 0.125)  # of our widths, tried for a peer
STAGES = ("kidney", "tumour")
OURS = "ours, bfloat16"
CORNER = 64  # columns of the images by which a peer's size is found
COUNTED = (3, 10) if ON_GPU else (2, 2)  # steps before, and steps that are measured


def shape_of(profile: str, stage: str) -> tuple[int, ...]:
    """The images of a batch: (B, 1, D, H, W) for the kidneys, (B, C, H, W) for tumours."""
    k, t = PROFILES[profile].kidney, PROFILES[profile].tumor
    if stage == "kidney":
        columns = k.patch or PROFILES[profile].kidney_grid.matrix
        return k.batch, 1, k.slab, columns, columns
    return t.batch, t.slices, *t.patch


def ours(profile: str, stage: str) -> nn.Module:
    """The profile's network of a stage."""
    k, t = PROFILES[profile].kidney, PROFILES[profile].tumor
    if stage == "kidney":
        how = {"norm": k.norm, "dropout": k.dropout, "deep_supervision": k.deep_supervision}
        return build("resunet3d", widths=k.widths, residual=k.residual, **how)
    return build(**arm(ARM).network_options(slices=t.slices, widths=t.widths, norm=t.norm))


def loss(profile: str, stage: str, out: Any, target: Tensor, epoch: int) -> Tensor:
    """The profile's loss of a stage."""
    k, t = PROFILES[profile].kidney, PROFILES[profile].tumor
    if stage == "tumour":
        return focal_dice_loss(out, target, over=t.dice_over, lam=t.lam)
    of_map = soft_dice_loss
    if k.loss == "dice_cross_entropy":
        of_map = partial(dice_cross_entropy_loss, foreground_weight=k.foreground_weight)
    return deep_supervision_loss(out, target, of_map, supervision_weight(epoch))


def dynunet(axes: int, channels: int, widths: list[int]) -> nn.Module:
    """MONAI's DynUNet."""
    from monai.networks.nets import DynUNet

    strides = [1] + [2] * (len(widths) - 1)
    return DynUNet(axes, channels, 1, [3] * len(widths), strides, strides[1:], widths)


def plain_conv_unet(axes: int, channels: int, widths: list[int]) -> nn.Module:
    """nnU-Net's network, as its planner sets it up: two convolutions a level, instance norm."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    kinds = {2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)}[axes]
    levels = len(widths)
    return PlainConvUNet(
        channels, levels, widths, kinds[0], 3, [1] + [2] * (levels - 1), 2, 1, 2, conv_bias=True,
        norm_op=kinds[1], norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )  # fmt: skip


Maker = Callable[[int, int, list[int]], nn.Module]
PEERS: dict[str, tuple[str, Maker]] = {  # with the package of each
    "MONAI DynUNet": ("monai", dynunet),
    "nnU-Net's network": ("dynamic_network_architectures", plain_conv_unet),
}


def matched(profile: str, stage: str, make: Maker) -> nn.Module:
    """The peer whose multiply-adds are nearest to those of our network, widths in steps of 4."""
    _, channels, *size = shape_of(profile, stage)
    config = PROFILES[profile]
    widths = (config.kidney if stage == "kidney" else config.tumor).widths
    corner = (1, channels, *(min(n, CORNER) for n in size))
    wanted = multiply_adds(ours(profile, stage), corner)
    tried = []
    for scale in SCALES:
        scaled = [max(4, 4 * round(scale * width / 4)) for width in widths]
        with torch.device("meta"):  # weights without values
            network = make(len(size), channels, scaled)
        tried.append((abs(np.log(multiply_adds(network, corner) / wanted)), scaled))
    return make(len(size), channels, min(tried)[1])


def prepare(mine: bool, *, profile: str, stage: str, threads: int, clock: str) -> Sizes:
    """Put our step or the peers' into STEPS; return parameters and multiply-adds a sample."""
    torch.set_num_threads(threads)
    shape, found = shape_of(profile, stage), {}
    config = PROFILES[profile]
    if mine:
        optimizer = config.kidney.optimizer if stage == "kidney" else config.tumor.optimizer
        found[OURS] = ours(profile, stage)
        STEPS[OURS] = partial(
            our_seconds, found[OURS], shape, warm=COUNTED[0], steps=COUNTED[1], clock=clock,
            loss=partial(loss, profile, stage), optimizer=optimizer,
        )  # fmt: skip
        return sizes_of(found, shape)
    for peer, (package, make) in PEERS.items():
        if not installed(package):
            continue
        network = matched(profile, stage, make)
        for precision in ("float32", "bfloat16"):
            found[name := f"{peer}, {precision}"] = copy.deepcopy(network)
            autocast = precision == "bfloat16"
            STEPS[name] = plain_step(found[name], shape, autocast=autocast, clock=clock)
    return sizes_of(found, shape)


def tables(profile: str, threads: int, clock: str, repeats: int) -> list[Table]:
    """One table a stage of the profile."""
    found = []
    for stage in STAGES:
        how = {"profile": profile, "stage": stage, "threads": threads, "clock": clock}
        timings, sizes = both_sides(partial(prepare, **how), repeats)
        shape = shape_of(profile, stage)
        rows: list[dict[str, Cell]] = []
        for name, timing in timings.items():
            parameters, operations = sizes[name]
            row: dict[str, Cell] = {"contender": name, "parameters, million": parameters / 1e6}
            row["multiply-adds a sample, 10^9"] = operations / 1e9
            row["ms a step"] = spread(timing)
            row["samples/s"] = shape[0] / timing.median
            # the backward pass takes twice the forward's
            row["multiply-adds/s, 10^12"] = 3 * shape[0] * operations / timing.median / 1e12
            row["ours is quicker, times"] = timing.median / timings[OURS].median
            rows.append(row)
        rows += [missing(peer, "contender") for peer in PEERS if not installed(PEERS[peer][0])]
        note = f"Batches of {' x '.join(map(str, shape))}; ours with the profile's loss and"
        note += " optimiser, a peer with Dice loss and Adam in a plain loop."
        title = f"A step of the {profile} profile's {stage} network"
        found.append(Table(title=title, note=note, rows=rows))
    return found
