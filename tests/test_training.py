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
    """A sampler of random images whose label is where they are bright; its weight grows with every epoch."""

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
    folder: Path, *, dropout: float = 0.2, settings: dict[str, Any] | None = None, **changes: Any
) -> tuple[Run, list[dict[str, Any]]]:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Dropout(dropout), nn.PReLU(), nn.Conv2d(8, 1, 1)
    )
    sampler = Noise()
    run = Run.open(folder, "noise", settings or {"epochs": EPOCHS})

    def after_epoch(net: nn.Module, epoch: int) -> dict[str, float]:
        sampler.weight += 0.1
        return {"weight": sampler.weight}

    history = fit(
        network, sampler, run, accelerator=start(device="cpu", precision="no"), epochs=EPOCHS, seed=7,
        **{
            "prepare": prepare, "loss": loss, "optimizer": "adamw", "schedule": "one_cycle", "lr": 1e-2, "clip": 1.0,
            "after_epoch": after_epoch, **changes,
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
    """Train in a fork that gets SIGKILL in the step `call` counted from its start, or half-way in a later write."""
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
    """A score that is known from the weights alone, so that a resumed run finds the same best epoch."""
    return {"dice": float(net[0].weight.detach().abs().sum())}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork and SIGKILL")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_runs_killed_at_random_steps_end_with_the_same_bits(tmp_path: Path, optimizer: str) -> None:
    draw = random.Random(4)
    kills = [(draw.randrange(2 * STEPS), False) for _ in range(5)] + [(STEPS, True)]
    draw.shuffle(kills)
    code = f"from pathlib import Path; from test_training import be_killed; folder = Path({str(tmp_path / 'killed')!r})"
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
    bests = [load_file(str(r.folder / "best.safetensors")) for r in (whole, resumed)]
    assert all(torch.equal(bests[0][name], bests[1][name]) for name in bests[0])


def test_the_best_epoch_is_kept_and_restored_after_a_stop_between_two_writes(
    tmp_path: Path,
) -> None:
    scores = iter([0.1, 0.6, 0.3, 0.6, 0.2, 0.5])
    run, history = train(tmp_path, validate=lambda net: {"dice": next(scores)})
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Dropout(), nn.PReLU(), nn.Conv2d(8, 1, 1))
    assert run.load_best(net) == history[1]
    assert not torch.equal(net[0].weight, weights(run)["0.weight"])

    def stop_after_one(net: nn.Module, epoch: int) -> dict[str, Any]:
        if epoch:
            (
                Run.open(tmp_path / "cut", "noise", {"epochs": EPOCHS}).folder / "best.safetensors"
            ).unlink()
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", validate=lambda net: {"dice": 0.9}, after_epoch=stop_after_one)
    cut, _ = train(tmp_path / "cut", validate=lambda net: {"dice": 0.1})
    assert cut.load_best(net)["epoch"] == 1


def test_parts_of_a_batch_give_the_weights_of_the_whole_within_rounding(tmp_path: Path) -> None:
    whole, history = train(tmp_path / "1", dropout=0.0)
    for parts in (2, 4):
        split, other = train(tmp_path / str(parts), dropout=0.0, accumulate=parts)
        torch.testing.assert_close(weights(split), weights(whole), rtol=1e-4, atol=1e-6)
        assert other[-1]["loss"] == pytest.approx(history[-1]["loss"], rel=1e-5)
        assert other[-1]["lr"] == history[-1]["lr"]


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"4 samples .* accumulate 3; use a batch that is a multiple of 3"
    ):
        train(tmp_path, accumulate=3)


def test_a_compiled_training_gives_the_same_weights_within_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = train(tmp_path / "plain", dropout=0.0)
    torch.compiler.reset()  # traced as always, but run as it is: to generate code would take most of a minute
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    compiled, _ = train(tmp_path / "compiled", dropout=0.0, compile=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert weights(compiled).keys() == weights(plain).keys()
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_not_finite_names_epoch_step_and_cases(tmp_path: Path) -> None:
    def sometimes(output: Tensor, target: Tensor, epoch: int) -> Tensor:
        return loss(output, target, epoch) * (float("nan") if epoch == 2 else 1.0)

    with pytest.raises(
        TrainingError, match=r"nan in epoch 3, step 1 \(cases a, b, c, d\).*epoch 2 is untouched"
    ):
        train(tmp_path, loss=sometimes)
    run = Run.open(tmp_path, "noise", {"epochs": EPOCHS})
    assert len(run.load_checkpoint()["history"]) == 2
    assert all(torch.isfinite(t).all() for t in run.load_checkpoint()["network"].values())


def test_losses_looked_at_together_still_name_the_step() -> None:
    def stop(number: float, step: int, case_ids: tuple[str, ...]) -> Exception:
        return TrainingError(f"{number} at {step} of {case_ids[0]}")

    losses = Losses(3, stop)
    for step in range(5):
        losses.add(torch.tensor(float(step)), step, ("a",))
    assert (losses.count, losses.last) == (3, 2.0)
    assert losses.mean(start(device="cpu", precision="no")) == 2.0

    late = Losses(3, stop)
    late.add(torch.tensor(math.inf), 7, ("b",))
    late.add(torch.tensor(1.0), 8, ("c",))
    with pytest.raises(TrainingError, match="inf at 7 of b"):
        late.mean(start(device="cpu", precision="no"))


SETTINGS = {"stage": "kidney", "training": {"batch": 4, "slab": 64, "widths": [16, 32]}}
SHORTAGES: dict[str, Callable[[], Any]] = {
    "allocator": lambda: torch.empty(1 << 46),
    "numpy": lambda: np.empty(1 << 46),
    "cuda": lambda: _raise(
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
    ),
}


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("kind", SHORTAGES)
def test_out_of_memory_says_where_and_what_to_lower(tmp_path: Path, kind: str) -> None:
    def greedy(output: Tensor, target: Tensor, epoch: int) -> Tensor:
        if epoch == 1:
            SHORTAGES[kind]()
        return loss(output, target, epoch)

    with pytest.raises(
        TrainingError, match=r"out of memory in epoch 2, step 1, with samples of 4 × 1 × 8 × 8"
    ) as info:
        train(tmp_path, loss=greedy, settings=SETTINGS)
    assert "Lower kidney.batch from 4 to " in str(info.value) and "epoch 1 is untouched" in str(
        info.value
    )
    assert len(Run.open(tmp_path, "noise", SETTINGS).load_checkpoint()["history"]) == 1


def test_out_of_memory_in_a_validation_does_not_blame_the_batch(tmp_path: Path) -> None:
    settings = {"stage": "kidney", "training": {"batch": 4, "window_slices": 64}}
    with pytest.raises(
        TrainingError, match=r"epoch 1, validation \(.*Lower kidney\.window_slices from 64"
    ) as info:
        train(tmp_path, validate=lambda net: SHORTAGES["allocator"](), settings=settings)
    assert "batch" not in str(info.value) and "There is no checkpoint yet" in str(info.value)


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
