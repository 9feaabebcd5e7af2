"""The training loop: precision, processes, parts of a batch, validation, history, best and last checkpoints."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from kitslib.training.machine import versions
from kitslib.training.memory import ran_out, shortage, what_to_lower, window_to_lower
from kitslib.training.optimizers import Name, make_optimizer
from kitslib.training.progress import watch
from kitslib.training.runs import Run, differing

Validate = Callable[[nn.Module], dict[str, float]]
BEST = "dice"  # the score of an epoch of which the highest marks the best weights
VALIDATION = "validation"
LAG = 25  # losses that are looked at together on a GPU: each look waits until it has caught up


class TrainingError(RuntimeError):
    """A training that cannot go on; the last good checkpoint is untouched."""


class Batch(Protocol):
    """What a sampler gives: inputs and targets before augmentation, and where they come from."""

    images: Tensor
    labels: Tensor
    case_ids: tuple[str, ...]
    seeds: tuple[int, ...]


class Sampler(Protocol):
    """Batches from (seed, epoch, step) alone, plus whatever its weights need to be resumed.

    `size` samples are a batch, of which `rank` takes the share 1 / `world`; it is read where there are shares.
    """

    steps: int
    size: int

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Batch: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


def seed_everything(*parts: int) -> None:
    """Seed Python, NumPy and torch from integers such as (seed, epoch, step)."""
    state = int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
    random.seed(state)
    np.random.seed(state % 2**32)
    torch.manual_seed(state)


def memory_format(network: nn.Module) -> torch.memory_format:
    """Return the channels-last format of a 3D or a 2D network."""
    is_3d = any(isinstance(m, nn.Conv3d) for m in network.modules())
    return torch.channels_last_3d if is_3d else torch.channels_last


def mend_thin_convolutions(network: nn.Module) -> None:
    """Let 3D convolutions over fewer slices than their kernel has compute in float32 where a CPU would take bfloat16.

    Their bfloat16 weight gradients there depend on memory that was never written (seen with torch 2.13 and AVX-512
    with 2 slices under a kernel of 3³ and 2 to 4 under one of 5³, whatever channels and stride; dilated kernels and
    thicker inputs are sound): other weights in each run, often NaN.
    """
    for module in network.modules():
        if (
            isinstance(module, nn.Conv3d)
            and max(module.kernel_size) > 1
            and max(module.dilation) == 1
        ):
            module.forward = partial(_thin_in_float32, module)


def _thin_in_float32(module: nn.Conv3d, x: Tensor) -> Tensor:
    thin = any(size < kernel for size, kernel in zip(x.shape[2:], module.kernel_size, strict=True))
    if not thin or x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return nn.Conv3d.forward(module, x)
    with torch.autocast("cpu", enabled=False):
        y = nn.Conv3d.forward(module, x.float())
    return y.to(torch.get_autocast_dtype("cpu"))


class Losses:
    """The losses of an epoch, which stop the training at the first that is not finite.

    They are looked at `every` so many together. One at a time suits a CPU; on a GPU each look makes it wait, so a
    loss that is not finite is found up to `every` steps late, and before anything is written.
    """

    def __init__(
        self, every: int, stop: Callable[[float, int, tuple[str, ...]], Exception]
    ) -> None:
        self.every, self.stop = every, stop
        self.waiting: list[tuple[Tensor, int, tuple[str, ...]]] = []
        self.total, self.count, self.last = 0.0, 0, math.nan

    def add(self, value: Tensor, step: int, case_ids: tuple[str, ...]) -> None:
        """Take the loss, a scalar, of these cases in a step counted from 0; raise what `stop` gives for a bad one."""
        self.waiting.append((value.detach(), step, case_ids))
        if len(self.waiting) >= self.every:
            self.look()

    def look(self) -> None:
        """Look at the losses that wait."""
        numbers = (
            torch.stack([value for value, _, _ in self.waiting]).tolist() if self.waiting else []
        )
        for number, (_, step, case_ids) in zip(numbers, self.waiting, strict=True):
            if not math.isfinite(number):
                raise self.stop(number, step, case_ids)
            self.total, self.count, self.last = self.total + number, self.count + 1, number
        self.waiting.clear()

    def mean(self, accelerator: Accelerator) -> float:
        """Return the mean of the epoch over all processes."""
        self.look()
        mean = self.total / self.count
        if accelerator.num_processes == 1:
            return mean
        return accelerator.reduce(
            torch.tensor(mean, dtype=torch.float64, device=accelerator.device), "mean"
        ).item()


def fit(
    network: nn.Module,
    sampler: Sampler,
    run: Run,
    *,
    accelerator: Accelerator,
    epochs: int,
    seed: int,
    prepare: Callable[[Batch], tuple[Tensor, Tensor]],
    loss: Callable[[Any, Tensor, int], Tensor],
    optimizer: Name,
    schedule: Literal["constant", "one_cycle"],
    lr: float,
    clip: float = 0.0,
    accumulate: int = 1,
    compile: bool = False,
    validate: Validate | None = None,
    validate_every: int = 1,
    after_epoch: Callable[[nn.Module, int], dict[str, Any]] | None = None,
    log: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Train `network` on the sampler's batches and return the history, one record per epoch.

    `prepare(batch)` gives the network's input (B, C, …) and target (B, 1, …) on the CPU or the device;
    `loss(output, target, epoch)` a scalar, the mean over the samples. `accumulate` takes a batch in so many equal
    parts, one after the other; several processes take theirs at the same time. `compile` trains through
    torch.compile. Where `validate` gives a "dice", the weights of the epoch with the highest are kept as the best.
    `after_epoch(network, epoch)` may change the sampler's weights and returns what to note of it. `log` takes one
    line an epoch; None shows what suits the place (`progress.watch`).

    A run that is finished is loaded; an interrupted one resumes at the epoch after its last checkpoint, on a CPU
    with the same bits as if it had never stopped.

    Raises TrainingError on a loss that is not finite, naming epoch, step and cases, and where memory runs out,
    naming what to lower and to what; ValueError where a batch cannot be shared out equally.
    """
    view = watch(epochs, sampler.steps, log if accelerator.is_main_process else _nowhere)
    if run.finished:
        run.load_weights(network).to(accelerator.device)
        view.say(f"{run.folder.name}: finished before, weights loaded")
        return run.history()
    world = accelerator.num_processes * accumulate
    _check_shares(sampler, accelerator.num_processes, accumulate)
    layout = memory_format(network)
    network = network.to(accelerator.device, memory_format=layout)
    if accelerator.device.type == "cpu":
        mend_thin_convolutions(network)
    optimiser, scheduler = make_optimizer(
        network, name=optimizer, lr=lr, schedule=schedule, total_steps=epochs * sampler.steps
    )
    model, optimiser = accelerator.prepare(network, optimiser)
    model = torch.compile(model) if compile else model
    stateful = {"network": network, "optimizer": optimiser, "scheduler": scheduler}
    stateful |= {"scaler": accelerator.scaler} if accelerator.scaler else {}
    history = _resume(run, stateful, sampler, epochs, say=view.say)

    with closing(view), advising(run, accelerator.device, accumulate) as place:
        view.start(history)
        for epoch in range(len(history), epochs):
            began = time.perf_counter()
            losses = Losses(
                LAG if accelerator.device.type == "cuda" else 1, _not_finite(run, epoch, lr)
            )
            model.train()
            for step, part in product(range(sampler.steps), range(accumulate)):
                place.reach(epoch, f"step {step + 1}")
                rank, last_part = (
                    accelerator.process_index * accumulate + part,
                    part == accumulate - 1,
                )
                seed_everything(seed, epoch, step, *([rank] if rank else []))
                batch = sampler.batch(epoch, step, rank=rank, world=world)
                place.shape = tuple(batch.images.shape)
                images, target = prepare(batch)
                images = _moved(images, accelerator.device, layout)
                target = _moved(target, accelerator.device)
                with nullcontext() if last_part else accelerator.no_sync(model):
                    with accelerator.autocast():
                        output = model(images)
                    value = loss(output, target, epoch)
                    losses.add(value, step, batch.case_ids)
                    accelerator.backward(value / accumulate)
                if not last_part:
                    continue
                if clip:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimiser.step()
                scheduler.step()
                optimiser.zero_grad(set_to_none=True)
                view.step(epoch, step, losses.last)
            entry: dict[str, Any] = {
                "epoch": epoch + 1,
                "loss": losses.mean(accelerator),
                "lr": scheduler.get_last_lr()[0],
            }
            place.reach(epoch, VALIDATION)
            network.eval()
            if validate and ((epoch + 1) % validate_every == 0 or epoch + 1 == epochs):
                entry |= validate(network)
            if after_epoch:
                entry |= after_epoch(network, epoch)
            entry["seconds"] = round(time.perf_counter() - began, 3)
            history.append(_agreed(entry, sampler, accelerator))
            if accelerator.is_main_process:
                run.write_history(history)
                states = {name: thing.state_dict() for name, thing in stateful.items()}
                run.save_checkpoint({**states, "sampler": sampler.state(), "history": history})
            view.epoch(history)
    if accelerator.is_main_process:
        run.finish(network)
    accelerator.wait_for_everyone()
    network.eval()
    return history


def _nowhere(line: str) -> None:
    """Where the lines of all processes but the first go."""


def _check_shares(sampler: Sampler, processes: int, accumulate: int) -> None:
    if accumulate < 1:
        raise ValueError(f"accumulate: expected at least 1 part of a batch, got {accumulate}")
    shares = processes * accumulate
    if shares > 1 and sampler.size % shares:
        raise ValueError(
            f"batch: {sampler.size} samples cannot be shared out equally to {processes} processes × accumulate"
            f" {accumulate}; use a batch that is a multiple of {shares}"
        )


def _resume(
    run: Run, stateful: dict[str, Any], sampler: Sampler, epochs: int, *, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Fill everything with a state from the last checkpoint, where there is one, and return its history."""
    state = run.load_checkpoint()
    if state is None:
        return []
    for name, thing in stateful.items():
        thing.load_state_dict(state[name])
    sampler.load_state(state["sampler"])
    history = state["history"]
    say(f"{run.folder.name}: resumed after epoch {len(history)} of {epochs}")
    if changed := differing(state["versions"], versions()):
        say(
            f"{run.folder.name}: other versions than before, so other last bits: {', '.join(changed)}"
        )
    return history


def _moved(
    tensor: Tensor, device: torch.device, layout: torch.memory_format = torch.preserve_format
) -> Tensor:
    """The tensor on the device; pinned on its way to a GPU, since a copy from other memory waits for the GPU's work."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, memory_format=layout, non_blocking=True)


def _agreed(entry: dict[str, Any], sampler: Sampler, accelerator: Accelerator) -> dict[str, Any]:
    """What the first process found and the sampler's state there, in all of them."""
    if accelerator.num_processes == 1:
        return entry
    first = broadcast_object_list([entry, sampler.state()])
    sampler.load_state(first[1])
    return first[0]


def _kept(epoch: int) -> str:
    return (
        f"The checkpoint of epoch {epoch} is untouched" if epoch else "There is no checkpoint yet"
    )


def _not_finite(
    run: Run, epoch: int, lr: float
) -> Callable[[float, int, tuple[str, ...]], TrainingError]:
    return lambda number, step, case_ids: TrainingError(
        f"{run.folder.name}: the loss is {number} in epoch {epoch + 1}, step {step + 1}"
        f" (cases {', '.join(case_ids)}); lower lr ({lr:g}) or check these cases. {_kept(epoch)}"
    )


@dataclass
class Place:
    """Where a training is: the epoch, counted from 0, what it does there, and the shape of its last input."""

    epoch: int = 0
    doing: str = "its beginning"
    shape: tuple[int, ...] = ()

    def reach(self, epoch: int, doing: str) -> None:
        self.epoch, self.doing = epoch, doing


@contextmanager
def advising(run: Run, device: torch.device, accumulate: int) -> Iterator[Place]:
    """Turn an error that says that memory ran out into one that says where, and what to lower from what to what."""
    place = Place()
    try:
        yield place
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        found = shortage(error, device)
        if place.doing == VALIDATION:
            lower, sizes = window_to_lower(run.settings, fits=found.fits), ""
        else:
            lower = what_to_lower(run.settings, place.shape, fits=found.fits, accumulate=accumulate)
            sizes = f", with samples of {' × '.join(map(str, place.shape))}" if place.shape else ""
        raise TrainingError(
            f"{run.folder.name}: out of memory in epoch {place.epoch + 1}, {place.doing}{sizes} ({found})."
            f" Lower {lower}. {_kept(place.epoch)}"
        ) from error
