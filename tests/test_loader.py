"""The next batches are made while a step runs: in order, with the same bits, and in less time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kitslib.data import Batch
from kitslib.training import Run, fit, made_ahead, on_device, start
from kitslib.training import loop as training

STEPS, SECONDS = 20, 0.05


class Slow:
    """Random whole numbers, each batch after a while, as from a slow disk."""

    steps, size = STEPS, 2

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        time.sleep(SECONDS)
        rng = np.random.default_rng((epoch, step))
        images = torch.from_numpy(rng.integers(-9, 9, (2, 1, 4, 4), np.int16))
        return Batch(images, (images > 0).to(torch.uint8), ("a", "b"), (epoch, step))

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.images.float(), batch.labels.float()


def slow_loss(output: Tensor, target: Tensor, epoch: int) -> Tensor:
    time.sleep(SECONDS)  # stands for a device at work
    return nn.functional.binary_cross_entropy_with_logits(output, target)


def trained(folder: Path) -> tuple[float, list[Tensor]]:
    """Seconds of an epoch, and the weights after it."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 3, padding=1)
    (epoch,) = fit(
        network, Slow(), Run.open(folder, "slow", {}), accelerator=start(device="cpu"), epochs=1,
        seed=0, prepare=prepare, loss=slow_loss, optimizer="adamw", schedule="constant", lr=1e-2,
        log=lambda line: None,
    )  # fmt: skip
    return epoch["seconds"], [weight.detach() for weight in network.parameters()]


def test_drawing_and_stepping_overlap_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [trained(tmp_path / f"ahead {turn}") for turn in range(3)]
    monkeypatch.setattr(training, "made_ahead", lambda make, count: map(make, range(count)))
    one_by_one, same = trained(tmp_path / "one by one")
    seconds, weights = min(turns, key=lambda turn: turn[0])  # the others of a busy machine
    assert one_by_one > 1.7 * seconds
    for weight, other in zip(weights, same, strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_what_is_made_comes_in_order(count: int) -> None:
    assert list(made_ahead(lambda index: index**2, count)) == [i**2 for i in range(count)]


def test_no_more_is_made_than_may_wait() -> None:
    made: list[int] = []
    batches = made_ahead(made.append, 100)
    for _ in range(3):
        next(batches)
    time.sleep(0.1)
    assert len(made) <= 5
    batches.close()


def test_an_error_comes_where_its_batch_would_have_come() -> None:
    batches = made_ahead(lambda index: 6 // (3 - index), 9)
    assert [next(batches) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(batches)


def test_a_batch_travels_as_it_lies_in_the_cache() -> None:
    batch = Slow().batch(0, 0)
    there = on_device(batch, torch.device("meta"))
    assert (there.images.dtype, there.labels.dtype) == (torch.int16, torch.uint8)
    assert there.images.device.type == there.labels.device.type == "meta"
    assert there.case_ids == batch.case_ids and there.seeds == batch.seeds
    assert on_device(batch, torch.device("cpu")) is batch
