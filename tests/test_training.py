"""The loop learns, resumes to the bit, and stops with a name when the loss is not finite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kitslib.runs import Run, start
from kitslib.sampling import Batch
from kitslib.training import TrainingError, fit, make_optimizer

EPOCHS = 6


class Noise:
    """A sampler of random images whose label is where they are bright; its weight grows with every epoch."""

    steps = 4

    def __init__(self) -> None:
        self.weight = 1.0

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        rng = torch.Generator().manual_seed(1000 * epoch + step)
        images = torch.randn(2, 1, 8, 8, generator=rng) * self.weight
        return Batch(images, (images > 0).to(torch.uint8), ("a", "b"), (epoch, step))

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"]


def loss(output: Tensor, target: Tensor, epoch: int) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(output.float(), target)


def train(folder: Path, *, pause: float = 0.0, **changes: Any) -> tuple[Run, list[dict[str, Any]]]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.2), nn.PReLU(), nn.Conv2d(4, 1, 1))
    sampler = Noise()
    run = Run.open(folder, "noise", {"epochs": EPOCHS})

    def after_epoch(net: nn.Module, epoch: int) -> dict[str, float]:
        sampler.weight += 0.1
        time.sleep(pause)
        return {"weight": sampler.weight}

    history = fit(
        network, sampler, run, accelerator=start(device="cpu"), epochs=EPOCHS, seed=7,
        **{
            "prepare": lambda batch: (batch.images, batch.labels.float()), "loss": loss, "optimizer": "adamw",
            "schedule": "one_cycle", "lr": 1e-2, "clip": 1.0, "after_epoch": after_epoch, **changes,
        },
    )  # fmt: skip
    return run, history


def test_the_loss_falls_and_the_history_says_so(tmp_path: Path) -> None:
    run, history = train(tmp_path, validate=lambda net: {"dice": 0.5}, validate_every=4)
    assert [entry["epoch"] for entry in history] == list(range(1, EPOCHS + 1))
    assert history[-1]["loss"] < history[0]["loss"]
    assert [entry["epoch"] for entry in history if "dice" in entry] == [4, 6]
    assert run.history() == history and run.finished


def test_a_finished_run_is_loaded_and_not_trained_again(tmp_path: Path) -> None:
    run, history = train(tmp_path)
    before = (run.folder / "weights.safetensors").read_bytes()
    _, again = train(tmp_path, prepare=lambda batch: pytest.fail("trained again"))
    assert again == history and (run.folder / "weights.safetensors").read_bytes() == before


def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    code = (
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from test_training import train;"
        f"train(Path({str(tmp_path / 'killed')!r}), pause=0.5)"
    )
    for lines in (1, 3):
        child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
        history = tmp_path / "killed" / whole.folder.name / "history.jsonl"
        deadline = time.time() + 60
        while not (history.is_file() and len(history.read_text().splitlines()) >= lines):
            assert time.time() < deadline and child.poll() is None
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert not (history.parent / "weights.safetensors").exists()
    resumed, history = train(tmp_path / "killed")
    assert len(history) == EPOCHS
    ours, theirs = ((r.folder / "weights.safetensors").read_bytes() for r in (whole, resumed))
    assert ours == theirs


def test_a_loss_that_is_not_finite_names_epoch_step_and_cases(tmp_path: Path) -> None:
    def sometimes(output: Tensor, target: Tensor, epoch: int) -> Tensor:
        return loss(output, target, epoch) * (float("nan") if epoch == 2 else 1.0)

    with pytest.raises(TrainingError, match=r"nan in epoch 3, step 1 \(cases a, b\)"):
        train(tmp_path, loss=sometimes)
    run = Run.open(tmp_path, "noise", {"epochs": EPOCHS})
    assert len(run.load_checkpoint()["history"]) == 2
    assert all(torch.isfinite(t).all() for t in run.load_checkpoint()["network"].values())


def test_the_schedule_ends_low_and_the_constant_one_stays() -> None:
    rates = {}
    for schedule in ("one_cycle", "constant"):
        optimizer, scheduler = make_optimizer(nn.Linear(1, 1), name="adam", lr=0.1, schedule=schedule, total_steps=10)
        for _ in range(9):
            optimizer.step()
            scheduler.step()
        rates[schedule] = scheduler.get_last_lr()[0]
    assert rates["constant"] == 0.1 and rates["one_cycle"] < 1e-3
