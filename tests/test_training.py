"""The loop learns, resumes to the bit, takes batches in parts, and stops with a name and a cure."""

from __future__ import annotations

import functools
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kitslib.data import Batch
from kitslib.training import (
    Losses,
    Run,
    TrainingError,
    fit,
    mend_thin_convolutions,
    seed_everything,
    start,
)
from kitslib.training import loop as training

EPOCHS, STEPS, SIZE = 6, 4, 4


class Noise:
    """Random images with their bright part as label; its weight grows with every epoch."""

    steps, size = STEPS, SIZE

    def __init__(self) -> None:
        self.weight = 1.0

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        rng = torch.Generator().manual_seed(1000 * epoch + step)
        images = (torch.randn(SIZE, 1, 8, 8, generator=rng) * self.weight).chunk(world)[rank]
        names = [("a", "b", "c", "d")[i] for i in torch.arange(SIZE).chunk(world)[rank]]
        return Batch(images, (images > 0).to(torch.uint8), tuple(names), (epoch, step, rank))

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load_state(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"]


def loss(output: Tensor, target: Tensor, epoch: int) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(output.float(), target)


def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.images, batch.labels.float()


def train(
    folder: Path, *, dropout: float = 0.2, settings: dict[str, Any] | None = None,
    sampler: Noise | None = None, **changes: Any,
) -> tuple[Run, list[dict[str, Any]]]:  # fmt: skip
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Dropout(dropout), nn.PReLU(), nn.Conv2d(8, 1, 1)
    )
    sampler = sampler or Noise()
    run = Run.open(folder, "noise", settings or {"epochs": EPOCHS})

    def after_epoch(net: nn.Module, epoch: int) -> dict[str, float]:
        sampler.weight += 0.1
        return {"weight": sampler.weight}

    history = fit(
        network, sampler, run, accelerator=start(device="cpu", precision="no"), epochs=EPOCHS,
        seed=7,
        **{
            "prepare": prepare, "loss": loss, "optimizer": "adamw", "schedule": "one_cycle",
            "lr": 1e-2, "clip": 1.0, "after_epoch": after_epoch, **changes,
        },
    )  # fmt: skip
    return run, history


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(str(run.folder / "weights.safetensors"))


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


def be_killed(folder: Path, call: int, *, writing: bool, optimizer: str) -> None:
    """Train in a fork that gets SIGKILL in its step `call`, or half-way in a later write."""
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        return
    calls, save = iter(range(call)), torch.save

    def dying(batch: Batch) -> tuple[Tensor, Tensor]:
        if next(calls, None) is None and not writing:
            os.kill(os.getpid(), signal.SIGKILL)
        return prepare(batch)

    def half(state: Any, path: Path) -> None:
        save(state, path)
        if next(calls, None) is None:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half
    train(folder, prepare=dying, validate=rising, optimizer=optimizer, log=lambda line: None)


def rising(net: nn.Module) -> dict[str, float]:
    """A score that follows from the weights alone."""
    return {"dice": float(net[0].weight.detach().abs().sum())}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork and SIGKILL")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_runs_killed_at_random_steps_end_with_the_same_bits(tmp_path: Path, optimizer: str) -> None:
    draw = random.Random(4)
    kills = [(draw.randrange(2 * STEPS), False) for _ in range(5)] + [(STEPS, True)]
    draw.shuffle(kills)
    code = "from pathlib import Path; from test_training import be_killed;"
    code += f" folder = Path({str(tmp_path / 'killed')!r})"
    code += "".join(
        f"\nbe_killed(folder, {call}, writing={writing}, optimizer={optimizer!r})"
        for call, writing in kills
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, env=environment, check=True
    )
    whole, history = train(tmp_path / "whole", validate=rising, optimizer=optimizer)
    resumed, again = train(tmp_path / "killed", validate=rising, optimizer=optimizer)

    def timeless(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in entry.items() if k != "seconds"} for entry in entries]

    assert timeless(again) == timeless(history) and len(history) == EPOCHS
    ours, theirs = ((r.folder / "weights.safetensors").read_bytes() for r in (whole, resumed))
    assert ours == theirs


def test_parts_of_a_batch_give_the_weights_of_the_whole_within_rounding(tmp_path: Path) -> None:
    whole, history = train(tmp_path / "1", dropout=0.0)
    for parts in (2, 4):
        split, other = train(tmp_path / str(parts), dropout=0.0, accumulate=parts)
        torch.testing.assert_close(weights(split), weights(whole), rtol=1e-4, atol=1e-6)
        assert other[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=1e-5)
        assert other[-1]["lr"] == history[-1]["lr"]


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"4 samples .* accumulate 3; use .* multiple of 3"):
        train(tmp_path, accumulate=3)


def test_a_compiled_training_gives_the_same_weights_within_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = train(tmp_path / "plain", dropout=0.0)
    torch.compiler.reset()  # traced as always, run as it is: generating code would take a minute
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    compiled, _ = train(tmp_path / "compiled", dropout=0.0, compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert weights(compiled).keys() == weights(plain).keys()
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_not_finite_names_epoch_step_and_cases(tmp_path: Path) -> None:
    def sometimes(output: Tensor, target: Tensor, epoch: int) -> Tensor:
        return loss(output, target, epoch) * (float("nan") if epoch == 2 else 1.0)

    with pytest.raises(TrainingError) as info:
        train(tmp_path, loss=sometimes)
    place = "epoch 3, step 1 (cases a, b, c, d; shape (4, 1, 8, 8); lr 0.01); lower lr or check"
    assert "the loss is nan in noise-" in str(info.value) and place in str(info.value)
    run = Run.open(tmp_path, "noise", {"epochs": EPOCHS})
    assert len(run.load_checkpoint()["history"]) == 2
    assert all(torch.isfinite(t).all() for t in run.load_checkpoint()["network"].values())


def test_losses_read_together_still_name_the_step() -> None:
    accelerator = start(device="cpu", precision="no")
    losses = Losses(3)
    for step in range(5):
        losses.add(torch.tensor(float(step)), f"step {step}")
    assert (losses.count, losses.last) == (3, 2.0)
    assert losses.mean(accelerator) == 2.0

    late = Losses(3)
    late.add(torch.tensor(math.inf), "step 7")
    late.add(torch.tensor(1.0), "step 8")
    with pytest.raises(TrainingError, match="inf in step 7; lower lr"):
        late.mean(accelerator)


SETTINGS = {"stage": "kidney", "training": {"batch": 4, "slab": 64, "widths": [16, 32]}}
SHORTAGES: dict[str, Callable[[], Any]] = {
    "allocator": lambda: torch.empty(1 << 46),
    "numpy": lambda: np.empty(1 << 46),
    "cuda": lambda: _raise(
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
    ),
}


ASKED = {"allocator": "281.5 TB", "numpy": "562.9 TB", "cuda": "2.1 GB"}


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("kind", SHORTAGES)
def test_out_of_memory_says_where_and_what_to_lower(tmp_path: Path, kind: str) -> None:
    def greedy(output: Tensor, target: Tensor, epoch: int) -> Tensor:
        if epoch == 1:
            SHORTAGES[kind]()
        return loss(output, target, epoch)

    with pytest.raises(TrainingError) as info:
        train(tmp_path, loss=greedy, settings=SETTINGS)
    text = str(info.value)
    assert "epoch 2, step 1 (cases a, b, c, d; shape (4, 1, 8, 8); lr 0.01): " in text
    assert f"{ASKED[kind]} asked for, " in text and " free. Lower kidney.batch from 4 to 2" in text
    assert "checkpoint of the epoch before" in text
    assert len(Run.open(tmp_path, "noise", SETTINGS).load_checkpoint()["history"]) == 1


def test_out_of_memory_in_a_validation_does_not_blame_the_batch(tmp_path: Path) -> None:
    settings = {"stage": "kidney", "training": {"batch": 4, "window_slices": 64}}
    expected = r"epoch 1, validation: .*Lower kidney\.window_slices from 64 to 32"
    with pytest.raises(TrainingError, match=expected) as info:
        train(tmp_path, validate=lambda net: SHORTAGES["allocator"](), settings=settings)
    assert "batch" not in str(info.value)


def test_out_of_memory_in_a_sampler_after_a_validation_blames_the_batch(tmp_path: Path) -> None:
    class Greedy(Noise):
        def batch(self, epoch: int, step: int, **shares: int) -> Batch:
            return super().batch(epoch, step, **shares) if epoch == 0 else np.empty(1 << 46)

    with pytest.raises(TrainingError, match=r"epoch 2, step 1: .*Lower kidney\.batch from 4 to 2"):
        train(tmp_path, sampler=Greedy(), settings=SETTINGS)


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^shape$"):
        train(tmp_path, loss=lambda *_: _raise(RuntimeError("shape")))


def test_a_run_resumed_under_other_versions_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(net: nn.Module, epoch: int) -> dict[str, Any]:
        return {} if epoch < 2 else _raise(KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, after_epoch=interrupted)
    monkeypatch.setattr(training, "versions", lambda: {"torch": "9.9"})
    lines: list[str] = []
    train(tmp_path, log=lines.append)
    assert "resumed after epoch 2 of 6" in lines[0]
    assert f"torch ('{torch.__version__}' there, '9.9' here)" in lines[1]
    assert len(lines) == 2 + EPOCHS - 2


@pytest.mark.parametrize(("kernel", "depth"), [(3, 2), (5, 2), (5, 3), (5, 4)])
def test_convolutions_over_few_slices_have_the_gradient_of_float32(kernel: int, depth: int) -> None:
    seed_everything(0)
    conv, x = nn.Conv3d(16, 16, kernel, padding=kernel // 2), torch.randn(2, 16, depth, 6, 6)
    conv(x).square().mean().backward()
    truth, conv.weight.grad = conv.weight.grad, None
    mend_thin_convolutions(conv)
    with torch.autocast("cpu"):
        y = conv(x)
        assert y.dtype == torch.bfloat16 and conv(x[:, :, :1]).dtype == torch.bfloat16
    used = [torch.full((size,), math.nan) for size in (10**3, 10**4, 10**5, 10**6)]
    del used  # what is left in freed memory must not matter
    y.float().square().mean().backward()
    torch.testing.assert_close(
        conv.weight.grad, truth, rtol=0.05, atol=float(truth.abs().max()) * 0.01
    )
