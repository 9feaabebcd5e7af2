"""The training loop: precision, clipping, validation, history, and a checkpoint at the end of every epoch."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kitslib.runs import Run

Validate = Callable[[nn.Module], dict[str, float]]


class TrainingError(RuntimeError):
    """A training that cannot go on; the last good checkpoint is untouched."""


class Batch(Protocol):
    """What a sampler gives: inputs and targets before augmentation, and where they come from."""

    images: Tensor
    labels: Tensor
    case_ids: tuple[str, ...]
    key: tuple[int, ...]


class Sampler(Protocol):
    """Batches from (seed, epoch, step) alone, plus whatever its weights need to be resumed."""

    steps: int

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Batch: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


def seed_everything(*parts: int) -> None:
    """Seed Python, NumPy and torch from integers such as (seed, epoch, step)."""
    state = int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
    random.seed(state)
    np.random.seed(state % 2**32)
    torch.manual_seed(state)


def make_optimizer(
    network: nn.Module,
    *,
    name: Literal["adam", "adamw"],
    lr: float,
    schedule: Literal["constant", "one_cycle"],
    total_steps: int,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return the optimiser and its learning-rate schedule, stepped once per optimiser step."""
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kinds[name](network.parameters(), lr=lr)
    if schedule == "one_cycle":
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps, pct_start=0.2)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def memory_format(network: nn.Module) -> torch.memory_format:
    """Return the channels-last format of a 3D or a 2D network."""
    is_3d = any(isinstance(m, nn.Conv3d) for m in network.modules())
    return torch.channels_last_3d if is_3d else torch.channels_last


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
    optimizer: Literal["adam", "adamw"],
    schedule: Literal["constant", "one_cycle"],
    lr: float,
    clip: float = 0.0,
    validate: Validate | None = None,
    validate_every: int = 1,
    after_epoch: Callable[[nn.Module, int], dict[str, Any]] | None = None,
    log: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Train `network` on the sampler's batches and return the history, one record per epoch.

    `prepare(batch)` gives the network's input (B, C, …) and target (B, 1, …) on the CPU or the device;
    `loss(output, target, epoch)` a scalar. `after_epoch(network, epoch)` may change the sampler's weights and
    returns what to note of it. A run that is finished is loaded; an interrupted one resumes at the epoch after
    its last checkpoint, with the same bits as if it had never stopped.

    Raises TrainingError on a loss that is not finite, naming epoch, step and cases.
    """
    if run.finished:
        run.load_weights(network).to(accelerator.device)
        log(f"{run.folder.name}: finished before, weights loaded")
        return run.history()
    layout = memory_format(network)
    network = network.to(accelerator.device, memory_format=layout)
    optimiser, scheduler = make_optimizer(
        network, name=optimizer, lr=lr, schedule=schedule, total_steps=epochs * sampler.steps
    )
    model, optimiser = accelerator.prepare(network, optimiser)
    history: list[dict[str, Any]] = []
    if state := run.load_checkpoint():
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        sampler.load_state(state["sampler"])
        history = state["history"]
        log(f"{run.folder.name}: resumed after epoch {len(history)} of {epochs}")

    for epoch in range(len(history), epochs):
        began, total = time.perf_counter(), 0.0
        model.train()
        for step in range(sampler.steps):
            seed_everything(seed, epoch, step)
            batch = sampler.batch(epoch, step, rank=accelerator.process_index, world=accelerator.num_processes)
            images, target = prepare(batch)
            images = images.to(accelerator.device, memory_format=layout)
            target = target.to(accelerator.device)
            with accelerator.autocast():
                output = model(images)
            value = loss(output, target, epoch)
            number = value.item()
            if not math.isfinite(number):
                raise TrainingError(
                    f"{run.folder.name}: the loss is {number} in epoch {epoch + 1}, step {step + 1}"
                    f" (cases {', '.join(batch.case_ids)}); lower lr ({lr:g}) or check these cases."
                    f" The checkpoint of epoch {epoch} is untouched"
                )
            accelerator.backward(value)
            if clip:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            optimiser.step()
            scheduler.step()
            optimiser.zero_grad(set_to_none=True)
            total += number
        entry: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": total / sampler.steps,
            "lr": scheduler.get_last_lr()[0],
        }
        if validate and ((epoch + 1) % validate_every == 0 or epoch + 1 == epochs):
            network.eval()
            entry |= validate(network)
        if after_epoch:
            network.eval()
            entry |= after_epoch(network, epoch)
        entry["seconds"] = round(time.perf_counter() - began, 3)
        history.append(entry)
        if accelerator.is_main_process:
            run.write_history(history)
            run.save_checkpoint(
                {
                    "network": network.state_dict(),
                    "optimizer": optimiser.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "sampler": sampler.state(),
                    "history": history,
                }
            )
        log(_line(entry, history, epochs))
    if accelerator.is_main_process:
        run.finish(network)
    accelerator.wait_for_everyone()
    network.eval()
    return history


def _line(entry: dict[str, Any], history: list[dict[str, Any]], epochs: int) -> str:
    numbers = [
        f"{name} {value:.4f}"
        for name, value in entry.items()
        if isinstance(value, float) and name not in ("lr", "seconds")
    ]
    left = (epochs - len(history)) * sum(e["seconds"] for e in history) / len(history)
    return f"epoch {entry['epoch']:>3}/{epochs}  {'  '.join(numbers)}  {entry['seconds']:.1f} s, {left:.0f} s left"
