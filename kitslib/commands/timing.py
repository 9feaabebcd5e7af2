"""What the parts of a study take on this machine, measured on a few cases and steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

import psutil
import torch
from accelerate import Accelerator
from torch._subclasses.fake_tensor import FakeTensorMode

from kitslib.config import ConfigError, RunConfig, arm, size_text
from kitslib.data import CaseError, data_folder, open_volume, require_study, study_files
from kitslib.networks import multiply_adds, ready
from kitslib.phantom import write_cohort
from kitslib.recipes import KidneyRecipe, Recipe, TumorRecipe
from kitslib.training import make_optimizer

SAMPLE = 4  # cases that are made or read, and prepared
STEPS, SECONDS = 5, 4.0  # of a network's training, whichever ends first; step 1 is not counted
SLICES = 16  # of a case that a network predicts
VOXELS = 300_000  # of a batch on a CPU; of a larger one a part is timed
PART = slice(1), ..., slice(64), slice(64)  # one sample and a corner of its planes
SCAN_BYTES = 18  # at work for a voxel of a scan and of its tumour grid, at most
# Operations of a training in mixed precision for each byte that a card can read meanwhile. By
# nnU-Net's seconds an epoch (its documentation/expected_epoch_times.md, 2021) they are 18 to 29 on
# A100, V100, Titan RTX and 2080 Ti, in 2D and 3D; ours has fewer channels, so a little less.
PER_BYTE = 17.0
COPIES = 2  # of a batch, as it is drawn and as a network sees it
OVERLAP = 2  # times that windows and tiles show a voxel of a case to a network
CARDS = {  # bytes of memory, and bytes a second to and from it: NVIDIA's data sheets
    "2080Ti": (11e9, 616e9), "3090": (24e9, 936e9), "4090": (24e9, 1008e9), "A5000": (24e9, 768e9),
    "A6000": (48e9, 768e9), "A100": (40e9, 1555e9),
}  # fmt: skip


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files of a folder and those inside it; 0 where it does not exist."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """Seconds of a training step and of predicting a case; bytes of weights and of a step."""

    step: float
    case: float
    weights: int
    memory: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a study takes here; `networks` holds "kidney" and every tumour arm.

    Seconds (on a CPU those that one thread was at work, whatever other programs do): `loading` the
    packages, to `make` all synthetic cases, to `prepare` all. Bytes: `base` of a process with the
    packages, `disk` of cache and synthetic cohort, `memory` at work on each case.
    """

    case_ids: list[str]
    unreadable: list[str]  # left out
    loading: float
    base: int
    make: float
    prepare: float
    disk: int
    memory: list[int]
    networks: dict[str, NetworkCost]


def measure(config: RunConfig, accelerator: Accelerator, bandwidth: float = 0.0) -> Measured:
    """Measure the parts of a study; with a card's `bandwidth` its networks' times are computed.

    Raises CaseError where no case can be read.
    """

    def now() -> float:
        if accelerator.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    torch.set_num_threads(1)
    loading, base = time.process_time(), psutil.Process().memory_info().rss
    voxels, unreadable = {}, []
    with TemporaryDirectory() as out:
        cohort = replace(config.cohort, cases=SAMPLE, held_out=1, split="nested")
        few, began = replace(config, out=out, cohort=cohort), now()
        found = study_files(config, data_folder(few, write_cohort), check=False)
        made = now()
        for item in found:
            try:
                with open_volume(item.imaging) as volume:
                    voxels[item.case_id] = math.prod(volume.geometry.canonical_shape)
            except (CaseError, OSError):
                unreadable.append(item.case_id)
        if not voxels:
            words = f"expected cases with imaging and {config.cohort.labels} labels, found none"
            raise CaseError(f"{config.data}: {words}; python -m kitslib check says what is wrong")
        if not config.synthetic:
            require_study(config, [item for item in found if item.case_id in voxels])
        case_ids = [f"case_{index:05}" for index in range(config.cohort.cases)]
        case_ids = case_ids if config.drawn else list(voxels)
        by_size = sorted(voxels, key=voxels.__getitem__)
        usual = by_size[max(0, (len(by_size) - SAMPLE) // 2) :][:SAMPLE]
        files = [item for item in found if item.case_id in usual]
        opened = now()
        kidney = KidneyRecipe.of(few, files, accelerator)
        tumor = TumorRecipe.of(few, files, accelerator, arm=config.arms[0])
        prepared = now()
        written = folder_bytes(Path(out))
        largest = max(entry.imaging.size for entry in tumor.train.values())
        recipes = {"kidney": kidney} | {n: replace(tumor, arm=arm(n)) for n in config.arms}
        networks = {}
        for name, recipe in recipes.items():
            require_batch(recipe)
            cost = cost_on(bandwidth, recipe, now) if bandwidth else network_cost(recipe, now)
            networks[name] = cost
    scans = [SCAN_BYTES * (size + largest) for size in voxels.values()]
    share = len(case_ids) * fmean(voxels.values()) / sum(map(voxels.__getitem__, usual))
    return Measured(
        case_ids=case_ids, unreadable=unreadable, networks=networks, loading=loading, base=base,
        make=(made - began) * share, prepare=(prepared - opened) * share,
        disk=int(written * share), memory=list(islice(cycle(scans), len(case_ids))),
    )  # fmt: skip


def network_cost(recipe: Recipe, now: Callable[[], float]) -> NetworkCost:
    """Take a few steps of a recipe, or of a part of its batch, and predict a few slices."""
    t, device, autocast = recipe.training, recipe.accelerator.device, recipe.accelerator.autocast
    images, _ = recipe.prepare(recipe.sampler.batch(0, 0))
    network = recipe.network()
    weights = 4 * sum(map(torch.numel, network.parameters()))
    memory = 4 * weights + step_bytes(recipe, images.shape)  # gradients, Adam's two averages
    on_gpu = device.type == "cuda"
    fits = memory < torch.cuda.mem_get_info(device)[0] if on_gpu else images.numel() <= VOXELS
    part = (...,) if fits else PART
    share = images.numel() / images[part].numel()
    layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
    network = ready(network, device).train()
    constant = {"schedule": "constant", "total_steps": STEPS}
    optimizer, _ = make_optimizer(network, name=t.optimizer, lr=t.lr, **constant)
    steps, first = [], now()
    while len(steps) < 2 or (len(steps) < STEPS and now() - first < SECONDS):
        began = now()
        images, target = recipe.prepare(recipe.sampler.batch(0, len(steps)))
        drawn = now()
        images = images[part].to(device, memory_format=layout)
        with autocast():
            outputs = network(images)
        recipe.loss(outputs, target[part].to(device), 0).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps.append(drawn - began + share * (now() - drawn))
    entry = next(iter(recipe.held_out.values()))
    middle = sum(entry.meta["kidney_range"]) // 2
    some = [array[middle:][:SLICES] for array in (entry.imaging, entry.mask) if array is not None]
    stage = replace(recipe.stage(network.eval()), test_time_mirroring=False)
    began = now()
    stage.probability(*some, autocast)
    step, case = median(steps[1:]), (now() - began) * len(entry.imaging) / len(some[0])
    threads = 1 if on_gpu else recipe.threads  # they share the work evenly
    return NetworkCost(step=step / threads, case=case / threads, weights=weights, memory=memory)


def require_batch(recipe: Recipe) -> None:
    """Refuse a batch that this machine's memory cannot hold, by the size of one sample.

    Raises ConfigError.
    """
    one = replace(recipe.training, batch=1)
    if hasattr(one, "slab_batch"):
        one = replace(one, slab_batch=1)
    images, target = recipe.prepare(replace(recipe, training=one).sampler.batch(0, 0))
    sample = COPIES * (images.nbytes + target.nbytes)
    size, there = recipe.sampler.size, psutil.virtual_memory().total
    if size * sample > there:
        stage = recipe.own_settings()["stage"]
        name = "batch" if size == recipe.training.batch else "slab_batch"
        text = f"{stage}.{name}: {size} samples take {size_text(size * sample)} at least, this "
        text += f"machine has {size_text(there)} of memory; lower it to {there // sample or 1}"
        raise ConfigError(text)


def cost_on(bandwidth: float, recipe: Recipe, now: Callable[[], float]) -> NetworkCost:
    """Compute what a network takes on a card of `bandwidth`; what a step draws is timed here."""
    began = now()
    for step in range(2):
        images, target = recipe.prepare(recipe.sampler.batch(0, step))
    drawn, network = (now() - began) / 2, recipe.network()
    weights = 4 * sum(map(torch.numel, network.parameters()))
    forward = 2 * multiply_adds(network, images.shape) / (PER_BYTE * bandwidth)
    size = next(iter(recipe.held_out.values())).imaging.size
    return NetworkCost(
        step=drawn + 3 * forward,  # the way back takes twice the way forth
        case=OVERLAP * forward * size / target.numel(),
        weights=weights, memory=4 * weights + step_bytes(recipe, images.shape),
    )  # fmt: skip


def step_bytes(recipe: Recipe, shape: tuple[int, ...]) -> int:
    """Return the bytes that a step on an input of `shape` saves for its gradient or works on."""
    saved: dict[int, torch.Tensor] = {}  # kept, since the place of a freed tensor is used again
    with FakeTensorMode():  # tensors without content: nothing is computed
        network = recipe.network()
        own = {weight.untyped_storage()._cdata for weight in network.parameters()}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage()._cdata not in own:
                saved[tensor.untyped_storage()._cdata] = tensor
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with hooks, recipe.accelerator.autocast():
            network(torch.empty(shape))
    sizes = [tensor.untyped_storage().nbytes() for tensor in saved.values()]
    return sum(sizes) + 3 * max(sizes)  # at work are three of the largest size
