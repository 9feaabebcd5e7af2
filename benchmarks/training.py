"""Training steps a second: the kidney network in our loop beside MONAI's networks in plain ones.

The peers are MONAI's DynUNet and UNet. Batch and crop are the same, and the peers' widths are such
that parameters and multiply-adds are too. Ours runs through `kitslib.training.fit` in bfloat16,
with its deep supervision, in a process that `kitslib.training.start` set up as a notebook does; a
peer's step is forward, MONAI's Dice loss, backward and Adam, in float32 and under bfloat16
autocast, in a plain process. Beside them one optimiser step of the network at the paper's size, in
a process of its own, and what 500 epochs of it would take; and both networks of profiles with
their batches, losses and optimisers, beside DynUNets and nnU-Net's of as many multiply-adds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._measure import (
    STEPS,
    Cell,
    Report,
    Sizes,
    Table,
    Timing,
    available_gb,
    both_sides,
    command,
    conditions,
    installed,
    interleave,
    judged,
    missing,
    now,
    parser,
    peak_gb,
    spread,
    timed,
)
from kitslib.config import PROFILES
from kitslib.data import Batch
from kitslib.networks import ResUNet3D, count_parameters, multiply_adds
from kitslib.training import (
    OptimizerName,
    deep_supervision_loss,
    fit,
    soft_dice_loss,
    start,
    supervision_weight,
)

BATCH = 2
PAPER_SLAB = (64, 256, 256)
CROP = (128, 128, 128)  # MLPerf's training on KiTS19 takes in about 68 a second on an H100
EPOCHS, CASES = 500, 190  # of the paper's training, 25 h on two TITAN Xp
FULL_STEP_GB, NEEDED_GB = 16.0, 17.0  # bound, and free memory below which it is not tried
FLOAT32_BOUND, BFLOAT16_BOUND = 3.0, 1.2  # times a peer's samples per second
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
GPU_WARM, GPU_STEPS = 3, 10

# found by a search over multiples of 8 and 16 for the parameters and multiply-adds of ResUNet3D
DYNUNET_WIDTHS = (32, 48, 112, 192, 224)
UNET_WIDTHS = (32, 80, 128, 128, 320)


class Slabs:
    """A sampler that repeats one random batch."""

    def __init__(self, shape: tuple[int, ...], steps: int) -> None:
        self.steps, self.size = steps, shape[0]
        images, labels = data(shape)
        self.given = Batch(images=images, labels=labels, case_ids=("random",), seeds=((0,),))

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Any:
        return self.given

    def state(self) -> dict[str, Any]:
        return {}


class Unwritten:
    """A run that writes nothing."""

    finished, folder, settings = False, Path("benchmark"), {}

    def load_checkpoint(self) -> None:
        return None

    def write_history(self, history: list[dict[str, Any]]) -> None:
        pass

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        pass

    def finish(self, network: nn.Module) -> None:
        pass


def data(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Random images (B, C, ...) float32 and labels (B, 1, ...), about a tenth of them 1."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(shape, generator=generator)
    return images, (images[:, :1] > 0.9).float()


def supervised(out: Any, target: Tensor, epoch: int) -> Tensor:
    """The kidney network's loss as the paper has it: Dice of four maps."""
    return deep_supervision_loss(out, target, soft_dice_loss, supervision_weight(epoch))


def our_seconds(
    network: nn.Module, shape: tuple[int, ...], *, warm: int, steps: int, clock: str,
    loss: Callable[[Any, Tensor, int], Tensor] = supervised, optimizer: OptimizerName = "adam",
) -> float:  # fmt: skip
    """Seconds of one of our steps: `fit` with a loss, an optimiser and clipping, in bfloat16.

    From loss to loss, after `warm` steps (at least 1): `fit` draws batches ahead.
    """
    times: list[float] = []

    def noted(out: Any, target: Tensor, epoch: int) -> Tensor:
        value = loss(out, target, epoch)
        times.append(now(clock))
        return value

    fit(
        network,
        Slabs(shape, warm + steps),
        Unwritten(),
        accelerator=start(precision="bf16", threads=torch.get_num_threads()),
        epochs=1,
        seed=0,
        prepare=lambda batch: (batch.images, batch.labels),
        loss=noted,
        optimizer=optimizer,
        schedule="constant",
        lr=1e-4,
        clip=1.0,
        log=lambda line: None,
    )
    return (times[-1] - times[-1 - steps]) / steps


def plain_step(
    network: nn.Module, shape: tuple[int, ...], *, autocast: bool, clock: str
) -> Callable[[], float]:
    """One step as a plain loop has it, by one job that returns its seconds."""
    from monai.losses import DiceLoss

    network = network.to(DEVICE).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    loss = DiceLoss(sigmoid=True, squared_pred=True)
    images, labels = (x.to(DEVICE) for x in data(shape))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast):
            value = loss(network(images), labels)
        value.backward()
        optimizer.step()
        value.item()

    return timed(step, clock)


def dynunet() -> nn.Module:
    """MONAI's DynUNet, instance norm, five levels."""
    from monai.networks.nets import DynUNet

    levels = len(DYNUNET_WIDTHS)
    return DynUNet(
        3, 1, 1, [3] * levels, [1] + [2] * (levels - 1), [2] * (levels - 1), DYNUNET_WIDTHS
    )


def unet() -> nn.Module:
    """MONAI's UNet, instance norm and PReLU, two residual units a level, the first at full size."""
    from monai.networks.nets import UNet

    return UNet(3, 1, 1, channels=UNET_WIDTHS, strides=(1, 2, 2, 2), num_res_units=2)


PEERS: dict[str, Callable[[], nn.Module]] = {"MONAI DynUNet": dynunet, "MONAI UNet": unet}
OURS: dict[str, Callable[[], nn.Module]] = {
    "ours, bfloat16": ResUNet3D,
    "ours with instance norm, bfloat16": partial(ResUNet3D, norm=True),
}


def prepare(mine: bool, *, shape: tuple[int, ...], threads: int, clock: str) -> Sizes:
    """Put our steps or the peers' into STEPS; return parameters and multiply-adds a sample."""
    torch.set_num_threads(threads)
    networks: dict[str, nn.Module] = {}
    for name, make in (OURS if mine else {}).items():
        networks[name] = make()
        STEPS[name] = partial(our_seconds, networks[name], shape, warm=2, steps=2, clock=clock)
    for peer, make in ({} if mine or not installed("monai") else PEERS).items():
        for precision in ("float32", "bfloat16"):
            network = networks[name := f"{peer}, {precision}"] = make()
            autocast = precision == "bfloat16"
            STEPS[name] = plain_step(network, shape, autocast=autocast, clock=clock)
    return sizes_of(networks, shape)


def sizes_of(networks: dict[str, nn.Module], shape: tuple[int, ...]) -> Sizes:
    """Parameters and multiply-adds a sample of each network."""
    found = {}
    for name, network in networks.items():
        found[name] = count_parameters(network), multiply_adds(network, (1, *shape[1:]))
    return found


def rows(timings: dict[str, Timing], sizes: Sizes, shape: tuple[int, ...]) -> list[dict[str, Cell]]:
    """One row a contender: size, cost, speed, and how many times its samples a second ours has."""
    ours = timings["ours, bfloat16"].median
    found: list[dict[str, Cell]] = [
        {
            "contender": name,
            "parameters, million": sizes[name][0] / 1e6,
            "multiply-adds a sample, 10^9": sizes[name][1] / 1e9,
            "s a step": spread(timing, 1),
            "samples/s": shape[0] / timing.median,
            "ours is quicker, times": timing.median / ours,
        }
        for name, timing in timings.items()
    ]
    return found if installed("monai") else found + [missing(peer, "contender") for peer in PEERS]


def bounds(timings: dict[str, Timing]) -> list[str]:
    """Whether ours is quick enough beside each peer and precision."""
    found = []
    for peer in PEERS:
        for precision, bound in (("float32", FLOAT32_BOUND), ("bfloat16", BFLOAT16_BOUND)):
            beside = timings.get(f"{peer}, {precision}")
            ratio = beside.median / timings["ours, bfloat16"].median if beside else None
            found.append(judged(f"samples/s beside {peer} in {precision}", ratio, bound))
    return found


def product_rate(size: int, clock: str) -> float:
    """Multiply-adds per second of a bfloat16 matrix product on this device."""
    a = torch.ones(size, size, dtype=torch.bfloat16, device=DEVICE)
    timing = interleave({"product": timed(lambda: a @ a, clock)}, 5)["product"]
    return size**3 / timing.median


def full_step(threads: int, clock: str) -> dict[str, float]:
    """One step on the paper's slabs: seconds, memory in GB, multiply-adds a second."""
    torch.set_num_threads(threads)
    network, shape = ResUNet3D(), (BATCH, 1, *PAPER_SLAB)
    # the backward pass takes twice the forward's
    cost = 3 * BATCH * multiply_adds(network, (1, 1, *PAPER_SLAB))
    best = product_rate(8192 if ON_GPU else 2048, clock)
    warm, steps = (GPU_WARM, GPU_STEPS) if ON_GPU else (1, 1)
    seconds = our_seconds(network, shape, warm=warm, steps=steps, clock=clock)
    memory = torch.cuda.max_memory_allocated() / 1e9 if ON_GPU else peak_gb()
    found = {"seconds": seconds, "memory": memory, "rate": cost / seconds}
    found["share"] = found["rate"] / best
    if ON_GPU:
        network, shape = ResUNet3D(norm=True), (BATCH, 1, *CROP)
        found["crop_s"] = our_seconds(network, shape, warm=warm, steps=steps, clock=clock)
    return found


def full_step_row(threads: int, clock: str) -> dict[str, Cell]:
    """The row of the paper-size step, measured in a process of its own, or why it was not."""
    device = torch.cuda.get_device_name() if ON_GPU else "CPU"
    if not ON_GPU and (free := available_gb()) < NEEDED_GB:
        return {
            "device": device,
            "remark": f"not tried: {free:.1f} GB of memory free, {NEEDED_GB:g} needed",
        }
    child = [
        sys.executable,
        "-m",
        "benchmarks.training",
        "--threads",
        str(threads),
        "--clock",
        clock,
    ]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"device": device, "remark": f"failed with status {done.returncode}: {last[-200:]}"}
    step = json.loads(done.stdout.splitlines()[-1])
    row: dict[str, Cell] = {
        "device": device,
        "s a step": step["seconds"],
        "samples/s": BATCH / step["seconds"],
        "peak memory, GB": step["memory"],
        "multiply-adds/s, 10^9": step["rate"] / 1e9,
        "share of a bfloat16 matrix product's, %": 100 * step["share"],
        f"hours for {EPOCHS} epochs": step["seconds"] * EPOCHS * CASES / BATCH / 3600,
    }
    if "crop_s" in step:
        row[f"crops/s of {' x '.join(map(str, CROP))}"] = BATCH / step["crop_s"]
    return row


def full_step_bound(row: dict[str, Cell]) -> str:
    """Whether the paper-size step keeps to its memory."""
    memory = row.get("peak memory, GB")
    what = f"memory of a step on {BATCH} x {' x '.join(map(str, PAPER_SLAB))}"
    if memory is None:
        return f"{what}: {row['remark']}"
    verdict = "met" if float(memory) <= FULL_STEP_GB else "missed"
    return f"{what}: {float(memory):.1f} GB, at most {FULL_STEP_GB:g} asked: {verdict}"


def main(arguments: list[str]) -> int:
    """Measure steps on small crops, then one of the paper's size; print tables and bounds."""
    reader = parser("training", __doc__, threads=1, repeats=5)
    reader.add_argument(
        "--crop",
        metavar="N",
        type=int,
        nargs=3,
        default=(32, 64, 64),
        help="slices, rows, columns (%(default)s)",
    )
    words = "the paper's size too"
    reader.add_argument(
        "--full-step", action=argparse.BooleanOptionalAction, default=True, help=words
    )
    words = "profiles at whose shapes steps are timed too (%(default)s)"
    reader.add_argument("--shapes", nargs="*", choices=PROFILES, default=["demo"], help=words)
    options = reader.parse_args(arguments)
    peers = "monai", "dynamic_network_architectures"
    facts = conditions(options.threads, options.repeats, *peers, clock=options.clock)
    shape = (BATCH, 1, *options.crop)
    how = {"shape": shape, "threads": options.threads, "clock": options.clock}
    timings, sizes = both_sides(partial(prepare, **how), options.repeats)
    note = f"Batches of {' x '.join(map(str, shape))}."
    tables = [Table(title="A step beside peers", note=note, rows=rows(timings, sizes, shape))]
    judgements = bounds(timings)
    if options.full_step:
        row = full_step_row(options.threads, options.clock)
        note = (
            f"Batch {BATCH} x {' x '.join(map(str, PAPER_SLAB))},"
            f" {count_parameters(ResUNet3D()):,} parameters; hours for {CASES} cases an epoch,"
            " which the paper trained in 25 h on two TITAN Xp."
        )
        tables.append(Table(title="A step at the paper's size", note=note, rows=[row]))
        judgements.append(full_step_bound(row))
    for profile in options.shapes:
        from benchmarks import _shapes  # it uses what stands here

        tables += _shapes.tables(profile, options.threads, options.clock, options.repeats)
    Report(
        name="training",
        question="How many samples a second does a training take in, beside peers of equal cost?",
        command=command("training", arguments),
        conditions=facts,
        tables=tables,
        bounds=judgements,
    ).publish(options.out)
    return 0


def _child_main() -> None:
    reader = argparse.ArgumentParser()
    reader.add_argument("--threads", type=int, required=True)
    reader.add_argument("--clock", required=True)
    options = reader.parse_args()
    print(json.dumps(full_step(options.threads, options.clock)))


if __name__ == "__main__":
    _child_main()
