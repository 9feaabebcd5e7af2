"""The training loop: precision, processes, parts of a batch, validation, history, checkpoint."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm.auto import tqdm

from kitslib.training.loader import made_ahead, on_device
from kitslib.training.machine import versions
from kitslib.training.memory import explain_out_of_memory, out_of_memory, what_to_lower
from kitslib.training.optimizers import OptimizerName, Schedule, make_optimizer
from kitslib.training.progress import epoch_line, progress_bar
from kitslib.training.runs import Run, differing

AT_ONCE = {"cpu": 1, "cuda": 25}  # losses read together: each reading makes a GPU wait
KEPT = "The checkpoint of the epoch before, if there is one, is untouched."
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by axes of the weights


class TrainingError(RuntimeError):
    """A training that cannot go on; the last good checkpoint is untouched."""


class Sampler(Protocol):
    """Batches from (seed, epoch, step) alone, and the state to resume the draw from.

    A batch of `size` samples, of which `rank` takes the share 1 / `world`, has `images`, `labels`
    and `case_ids`, before augmentation.
    """

    steps: int
    size: int

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Any: ...
    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: dict[str, Any]) -> None: ...


def seed_everything(*parts: int) -> None:
    """Seed Python, NumPy and torch from integers such as (seed, epoch, step)."""
    state = int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
    random.seed(state)
    np.random.seed(state % 2**32)
    torch.manual_seed(state)


def mend_thin_convolutions(network: nn.Module) -> None:
    """Compute 3D convolutions over fewer slices than their kernel in float32 under CPU autocast.

    Their bfloat16 weight gradients depend on memory that was never written, often NaN. Seen with
    torch 2.13 and AVX-512, 2 slices under a kernel of 3³ and 2 to 4 under one of 5³, whatever
    channels and stride; dilated kernels and thicker inputs are sound.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and max(module.dilation) == 1:
            module.forward = partial(_thin_in_float32, module)


def _thin_in_float32(module: nn.Conv3d, x: Tensor) -> Tensor:
    thin = any(size < kernel for size, kernel in zip(x.shape[2:], module.kernel_size, strict=True))
    if not thin or not torch.is_autocast_enabled("cpu"):
        return nn.Conv3d.forward(module, x)
    with torch.autocast("cpu", enabled=False):
        y = nn.Conv3d.forward(module, x.float())
    return y.to(torch.get_autocast_dtype("cpu"))


class Losses:
    """The losses of an epoch, read from the device `at_once` so many together."""

    def __init__(self, at_once: int) -> None:
        self.at_once, self.total, self.count, self.last = at_once, 0.0, 0, math.nan
        self.waiting: list[tuple[Tensor, str]] = []

    def add(self, value: Tensor, where: str) -> None:
        """Take a loss, a scalar; `where` names its step and cases."""
        self.waiting.append((value.detach(), where))
        if len(self.waiting) >= self.at_once:
            self.read()

    def read(self) -> None:
        """Read the losses that wait; raise TrainingError at the first that is not finite."""
        for value, where in self.waiting:
            self.last = value.item()
            if not math.isfinite(self.last):
                words = f"the loss is {self.last} in {where}; lower lr or check these cases"
                raise TrainingError(f"{words}. {KEPT}")
            self.total, self.count = self.total + self.last, self.count + 1
        self.waiting.clear()

    def mean(self, accelerator: Accelerator) -> float:
        """Return the mean of the epoch over all processes."""
        self.read()
        mean = self.total / self.count
        mean = torch.tensor(mean, dtype=torch.float64, device=accelerator.device)
        return accelerator.reduce(mean, "mean").item()


def fit(
    network: nn.Module, sampler: Sampler, run: Run, *, accelerator: Accelerator,
    epochs: int, seed: int, prepare: Callable[[Any], tuple[Tensor, Tensor]],
    loss: Callable[[Any, Tensor, int], Tensor], optimizer: OptimizerName, schedule: Schedule,
    lr: float, clip: float = 0.0, accumulate: int = 1, compile: bool = False,
    validate: Callable[[nn.Module], dict[str, float]] | None = None, validate_every: int = 1,
    after_epoch: Callable[[nn.Module, int], dict[str, Any]] | None = None,
    log: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train `network` on the sampler's batches and return the history, one record per epoch.

    The next batches are drawn while a step runs. `prepare(batch)`, with the batch on the device,
    gives the network's input (B, C, …) and target (B, 1, …); `loss(output, target, epoch)` a
    scalar, the mean over the samples. `clip` is the largest gradient norm (0: any). `accumulate`
    takes a batch in so many equal parts, one after the other; several processes take theirs at the
    same time. `validate(network)` gives scores after every `validate_every`th epoch and the last;
    `after_epoch(network, epoch)`, which may change the sampler's weights, what else to note. `log`
    takes one line an epoch; None prints it. A finished run is loaded; an interrupted one resumes
    after its last checkpoint, on CPUs to the same bits.
    Raises TrainingError for a loss that is not finite, with its cases, and where memory runs out,
    with what to lower; ValueError for a batch that cannot be shared out equally.
    """
    title, say = run.folder.name, accelerator.on_main_process(log or tqdm.write)
    device, processes = accelerator.device, accelerator.num_processes
    layout = LAYOUTS[max(4, *(weight.ndim for weight in network.parameters()))]
    network = network.to(device, memory_format=layout)  # loaded or trained, it predicts alike
    if device.type == "cpu":
        mend_thin_convolutions(network)
    if run.finished:
        run.load_weights(network).eval()
        say(f"{title}: finished before, weights loaded")
        return run.history()
    shares = processes * accumulate
    if sampler.size % shares:
        words = f"{processes} processes × accumulate {accumulate}; use a multiple of {shares}"
        raise ValueError(f"batch: {sampler.size} samples cannot be shared out equally to {words}")
    optimizer, scheduler = make_optimizer(
        network, name=optimizer, lr=lr, schedule=schedule, total_steps=epochs * sampler.steps
    )
    model, optimizer = accelerator.prepare(network, optimizer)
    model = torch.compile(model) if compile else model
    stateful = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    if accelerator.scaler:
        stateful["scaler"] = accelerator.scaler
    history: list[dict[str, Any]] = []
    if state := run.load_checkpoint():
        for name, thing in stateful.items():
            thing.load_state_dict(state[name])
        sampler.load_state(state["sampler"])
        history = state["history"]
        say(f"{title}: resumed after epoch {len(history)} of {epochs}")
        if changed := ", ".join(differing(state["versions"], versions())):
            say(f"{title}: other versions than before, so other last bits: {changed}")
        del state  # a copy of all weights

    hidden = log is not None or not accelerator.is_main_process
    bar = progress_bar(epochs, sampler.steps, done=len(history), hidden=hidden)
    try:
        for epoch in range(len(history), epochs):
            began, losses = time.perf_counter(), Losses(AT_ONCE[device.type])
            shape: tuple[int, ...] = (sampler.size // shares,)
            bar.set_description(f"epoch {epoch + 1}/{epochs}", refresh=False)
            model.train()
            draw = partial(_draw, sampler, epoch, accelerator, accumulate)
            batches = made_ahead(draw, sampler.steps * accumulate)
            for step in range(sampler.steps):
                for part in range(accumulate):
                    where = f"{title}, epoch {epoch + 1}, step {step + 1}"
                    batch = next(batches)
                    shape = tuple(batch.images.shape)
                    where += f" (cases {', '.join(batch.case_ids)}; shape {shape}; lr {lr:g})"
                    seed_everything(seed, epoch, step, _rank(accelerator, accumulate, part))
                    images, target = prepare(batch)
                    images = images.to(device, memory_format=layout)
                    last = part == accumulate - 1
                    with nullcontext() if last else accelerator.no_sync(model):
                        with accelerator.autocast():
                            output = model(images)
                        value = loss(output, target.to(device), epoch)
                        losses.add(value, where)
                        accelerator.backward(value / accumulate)
                if clip:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad(set_to_none=True)
                bar.set_postfix(loss=losses.last, refresh=False)
                bar.update()
            loss_and_lr = {"loss": losses.mean(accelerator), "lr": scheduler.get_last_lr()[0]}
            entry: dict[str, Any] = {"epoch": epoch + 1, **loss_and_lr, "processes": processes}
            where, shape = f"{title}, epoch {epoch + 1}, validation", ()
            network.eval()
            if validate and ((epoch + 1) % validate_every == 0 or epoch + 1 == epochs):
                entry |= validate(network)
            if after_epoch:
                entry |= after_epoch(network, epoch)
            entry["seconds"] = round(time.perf_counter() - began, 3)
            if processes > 1:  # what the first process found holds for all
                entry, state = broadcast_object_list([entry, sampler.state()])
                sampler.load_state(state)
            history.append(entry)
            if accelerator.is_main_process:
                run.write_history(history)
                states = {name: thing.state_dict() for name, thing in stateful.items()}
                run.save_checkpoint({**states, "sampler": sampler.state(), "history": history})
            say(epoch_line(history, epochs))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        text = explain_out_of_memory(error, device, where, what_to_lower(run.settings, shape))
        raise TrainingError(f"{text} {KEPT}") from error
    finally:
        bar.close()
    if accelerator.is_main_process:
        run.finish(network)
    accelerator.wait_for_everyone()
    network.eval()
    return history


def _rank(accelerator: Accelerator, accumulate: int, part: int) -> int:
    return accelerator.process_index * accumulate + part


def _draw(
    sampler: Sampler, epoch: int, accelerator: Accelerator, accumulate: int, index: int
) -> Any:
    """The `index`th part that this process takes in an epoch, on the device."""
    step, part = divmod(index, accumulate)
    rank, world = _rank(accelerator, accumulate, part), accelerator.num_processes * accumulate
    batch = sampler.batch(epoch, step, rank=rank, world=world)
    return on_device(batch, accelerator.device)
