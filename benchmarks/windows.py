"""Sliding-window inference of a whole volume: ours beside MONAI's at the paper's overlap.

MONAI averages whole windows, or weighs their slices: with weight 1 on the central half and 0
elsewhere, on the volume with its edges repeated, it states our `padded` reading. It gets the same
network and the same volume, and probabilities are compared as float32. Ours is timed with the
windows of the paper and with larger ones, which keep more of what they see: whatever the size they
give the same for a network that sees no further than the halo, here a stack of dilated
convolutions, and the difference stands in the table for the 3D ResUNet, which sees further.

On a CPU much of a window's time can go into memory that the system hands out anew for every layer.
Our commands and notebooks let freed memory be used again (`kitslib.training.start`), a plain
program does not: every way is timed in a process of either kind, and ours as it ships is held
against MONAI in a plain process.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._measure import (
    INSTALL,
    Cell,
    Report,
    Table,
    Timing,
    command,
    conditions,
    installed,
    interleave,
    judged,
    missing,
    parser,
    process,
    spread,
    timed,
)
from kitslib.evaluation import Reading, predict_slabs, windows
from kitslib.networks import Level, ResUNet3D, initialise
from kitslib.training import start
from kitslib.transforms import HU_WINDOWS

SIZE, HALO = 64, 16  # slices of the paper's window and what it cuts off on either side
DILATIONS = (1, 2, 4, 8)  # 15 slices to either side
WIDER = {"ResUNet3D": 2, "dilated stack": 3}  # times the plane: the stack costs little
CLOSE = 1e-4
BOUND = 1.5  # times as quick
AHEAD, APART = "quicker than plain MONAI, times", "largest difference from MONAI"
HU = HU_WINDOWS["soft_tissue"]

PLAIN, KEPT = "as it comes", "used again"  # what a process does with memory that was freed

Predict = Callable[[], np.ndarray]


class Setting(NamedTuple):
    """A way of ours: the reading, and the window's size in slices."""

    reading: Reading
    size: int


def volume(depth: int, plane: int) -> np.ndarray:
    """Smooth tissue with noise on it, int16 HU, the same in every run."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(50, 120, (-(-depth // 8), -(-plane // 8), -(-plane // 8)))
    smooth = np.kron(coarse, np.ones((8, 8, 8)))[:depth, :plane, :plane]
    return np.rint(smooth + rng.normal(0, 20, smooth.shape)).astype(np.int16)


def networks() -> dict[str, nn.Module]:
    """The network of stage 1 with random weights, and one that sees no further than the halo."""
    torch.manual_seed(0)
    near = nn.Sequential(Level(3, 1, 16, dilations=DILATIONS), nn.Conv3d(16, 1, 1))
    initialise(near)
    near[-1].weight.data.mul_(20)  # so that the probabilities differ from voxel to voxel
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"ResUNet3D": ResUNet3D().to(device).eval(), "dilated stack": near.to(device).eval()}


def ours(network: nn.Module, hu: np.ndarray, setting: Setting) -> Predict:
    """Our inference in one setting; gives (D, H, W) float32."""
    return lambda: predict_slabs(
        network, hu, HU, size=setting.size, reading=setting.reading, dtype=np.float32
    )


def monai(network: nn.Module, hu: np.ndarray, reading: Reading) -> Predict:
    """MONAI's inference with the paper's windows in one of two readings; (D, H, W) float32."""
    from monai.inferers import sliding_window_inference

    device = next(network.parameters()).device
    framed = reading == "padded"
    central = torch.zeros(SIZE, *hu.shape[1:])
    central[HALO:-HALO] = 1
    at_once = 4 if device.type == "cuda" else 1

    def probability(images: Tensor) -> Tensor:
        return network(images).sigmoid_()

    def predict() -> np.ndarray:
        edges = np.pad(hu, [(HALO, HALO) if framed else (0, 0), (0, 0), (0, 0)], mode="edge")
        images = HU(torch.from_numpy(edges))[None, None].to(device)
        with torch.inference_mode():
            found = sliding_window_inference(
                images,
                (SIZE, *hu.shape[1:]),
                at_once,
                probability,
                overlap=0.5,
                mode="constant",
                roi_weight_map=central if framed else None,
            )
        found = found[0, 0].cpu().numpy()
        return found[HALO:-HALO] if framed else found

    return predict


def contenders(network: nn.Module, hu: np.ndarray, sizes: list[int]) -> dict[str, Predict]:
    """All ways to predict the volume, by name; MONAI's are left out where it is not installed."""
    found = {}
    if installed("monai"):
        found["MONAI, windows averaged"] = monai(network, hu, "overlap_average")
        found["MONAI, central halves"] = monai(network, hu, "padded")
    found[f"ours, overlap_average, {SIZE} slices"] = ours(
        network, hu, Setting("overlap_average", SIZE)
    )
    return found | {
        f"ours, padded, {size} slices": ours(network, hu, Setting("padded", size)) for size in sizes
    }


class Ways:
    """In a process: all ways to predict one volume with one network, measured one by one."""

    jobs: dict[str, Predict]
    clock: str

    @classmethod
    def prepare(
        cls,
        network: str,
        shape: tuple[int, int],
        sizes: list[int],
        threads: int,
        memory: str,
        clock: str,
    ):
        """Build the ways for a volume of `shape` (slices, pixels on a side); return their names."""
        if memory == KEPT:
            start(device="auto" if torch.cuda.is_available() else "cpu", precision="no")
        torch.set_num_threads(threads)
        cls.clock = clock
        cls.jobs = contenders(networks()[network], volume(*shape), sizes)
        return list(cls.jobs)

    @classmethod
    def seconds(cls, name: str) -> float:
        """What one prediction takes."""
        return timed(cls.jobs[name], cls.clock)()

    @classmethod
    def prediction(cls, name: str) -> np.ndarray:
        """The probabilities (D, H, W) float32."""
        return cls.jobs[name]()


def measure(
    network: str, shape: tuple[int, int], sizes: list[int], threads: int, clock: str, repeats: int
) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], Timing]]:
    """Predictions by way, and timings by way and use of freed memory, measured in turns."""
    jobs: dict[tuple[str, str], Callable[[], float]] = {}
    with ExitStack() as stack:
        for memory in (PLAIN, KEPT):
            worker = stack.enter_context(process())
            names = worker.submit(
                Ways.prepare, network, shape, sizes, threads, memory, clock
            ).result()
            for name in names:
                jobs[name, memory] = lambda worker=worker, name=name: worker.submit(
                    Ways.seconds, name
                ).result()
        predictions = {name: worker.submit(Ways.prediction, name).result() for name in names}
        return predictions, interleave(jobs, repeats)


def _seen(name: str, depth: int) -> int:
    """Slices that go through the network; MONAI's take as many as ours at the paper's size."""
    reading: Reading = "overlap_average" if "averag" in name else "padded"
    size = int(name.split()[-2]) if name.startswith("ours") else SIZE
    return sum(window.stop - window.start for window in windows(depth, size, reading))


def rows(
    predictions: dict[str, np.ndarray], timings: dict[tuple[str, str], Timing]
) -> list[dict[str, Cell]]:
    """One row a way and memory: time, slices, and speed and difference beside plain MONAI."""
    found: list[dict[str, Cell]] = []
    for (name, memory), timing in timings.items():
        row: dict[str, Cell] = {
            "contender": name,
            "freed memory": memory,
            "s a volume": spread(timing, 1),
            "slices seen": _seen(name, len(predictions[name])),
        }
        twin = "MONAI, windows averaged" if "averag" in name else "MONAI, central halves"
        if twin in predictions:
            row[AHEAD] = timings[twin, PLAIN].median / timing.median
            row[APART] = float(np.abs(predictions[name] - predictions[twin]).max())
        found.append(row)
    return (
        found
        if installed("monai")
        else [*found, missing("MONAI sliding_window_inference", "contender")]
    )


def bounds(name: str, found: list[dict[str, Cell]]) -> list[str]:
    """The quickest of ours, as it ships, that equals MONAI."""
    if not installed("monai"):
        return [f"{name}: MONAI is not installed: {INSTALL}"]
    mine = [
        row
        for row in found
        if str(row["contender"]).startswith("ours") and row["freed memory"] == KEPT
    ]
    equal = [row for row in mine if float(row[APART] or 0) <= CLOSE]
    if not equal:
        return [f"{name}: none of ours equals MONAI within {CLOSE:g}"]
    best = max(equal, key=lambda row: float(row[AHEAD] or 0))
    what = f"{name}: equal to MONAI within {CLOSE:g} ({len(equal)} of {len(mine)}), quickest"
    return [judged(f"{what} {best['contender']}", float(best[AHEAD] or 0), BOUND)]


def main(arguments: list[str]) -> int:
    """Predict one volume with two networks in all ways, print a table for each and the bounds."""
    reader = parser("windows", __doc__, threads=1, repeats=3)
    reader.add_argument(
        "--depth", type=int, default=192, help="slices of the volume, at least 64 (%(default)s)"
    )
    reader.add_argument(
        "--plane",
        type=int,
        default=48,
        help="half the side of the network's slices, a third of the stack's (%(default)s)",
    )
    options = reader.parse_args(arguments)
    if options.depth < SIZE:
        reader.error(f"--depth: expected at least {SIZE}, one window, got {options.depth}")
    facts = conditions(options.threads, options.repeats, "monai", clock=options.clock)
    sizes = [SIZE, 2 * SIZE, options.depth + 2 * HALO]
    tables, judgements = [], []
    for name in networks():
        side = options.plane * WIDER[name]
        predictions, timings = measure(
            name, (options.depth, side), sizes, options.threads, options.clock, options.repeats
        )
        found = rows(predictions, timings)
        note = (
            f"{options.depth} x {side} x {side} voxels, float32, windows of whole slices; the"
            f" probabilities' standard deviation is {next(iter(predictions.values())).std():.3f}."
        )
        tables.append(Table(title=name, note=note, rows=found))
        judgements += bounds(name, found)
    Report(
        name="windows",
        question="How long does a whole volume take by windows, and do ours and MONAI's agree?",
        command=command("windows", arguments),
        conditions=facts,
        tables=tables,
        bounds=judgements,
    ).publish(options.out)
    return 0
