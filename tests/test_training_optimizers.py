"""Muon steps convolutions as torch's does matrices, and the rest as AdamW."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from kitslib.training.optimizers import SMALLEST, Muon, make_optimizer, orthogonalised


def net(layout: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv3d(1, 8, 3), nn.PReLU(), nn.Conv3d(8, 16, 3), nn.Conv3d(16, 8, 1),
        nn.ConvTranspose3d(8, 12, 2, 2), nn.Conv3d(12, 1, 1), nn.Linear(1, 1),
    )  # fmt: skip
    return layers.to(memory_format=layout)


def take_steps(
    network: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 1
) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in network.parameters():
            p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator) * 0.01)
        optimizer.step()


def matrix(weight: Tensor) -> Tensor:
    return weight.detach().flatten(1)


def test_singular_values_become_alike_and_vectors_stay() -> None:
    torch.manual_seed(1)
    shapes = [(8, 27), (40, 8), (8, 8), (16, 432), (128, 3456)]
    for before, after in zip(
        given := [torch.randn(s) for s in shapes], orthogonalised(given), strict=True
    ):
        assert after.shape == before.shape
        u, _, vh = torch.linalg.svd(before, full_matrices=False)
        inside = u.T @ after @ vh.T
        values = inside.diagonal()
        assert values.min() > 0.4 and values.max() < 1.3
        assert (inside - torch.diag(values)).abs().max() < 1e-3


def test_a_gradient_of_nothing_or_of_one_direction_stays_finite() -> None:
    one = torch.outer(torch.arange(8.0), torch.arange(30.0))
    nothing, along = orthogonalised([torch.zeros(8, 30), one])
    assert not nothing.any()
    assert torch.isfinite(along).all()
    torch.testing.assert_close(along / along.norm(), one / one.norm(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_convolutions_step_as_matrices_do_in_torch(layout: torch.memory_format) -> None:
    ours = net(layout)
    theirs = {
        n: nn.Parameter(matrix(p).clone())
        for n, p in ours.named_parameters()
        if p.ndim > 2 and min(matrix(p).shape) >= SMALLEST
    }
    assert list(theirs) == ["0.weight", "2.weight", "3.weight", "4.weight"]
    began = {n: p.detach().clone() for n, p in theirs.items()}
    mine = Muon(ours.parameters(), 0.01)
    mine.param_groups[0]["weight_decay"] = 0.1  # of the convolutions: enough to be seen
    torchs = torch.optim.Muon(
        theirs.values(), 0.01, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )  # fmt: skip
    for step in range(3):
        take_steps(ours, mine, 1, seed=step)
        named = dict(ours.named_parameters())
        for n, p in theirs.items():
            p.grad = named[n].grad.flatten(1).clone()
        torchs.step()
    for n, p in theirs.items():  # torch iterates in bfloat16
        moved, should = matrix(dict(ours.named_parameters())[n]) - began[n], p.detach() - began[n]
        assert (moved - should).norm() < 0.02 * should.norm(), n


def test_the_rest_steps_as_in_adamw() -> None:
    ours = net()
    theirs = copy.deepcopy(ours)
    take_steps(ours, Muon(ours.parameters(), 0.01), 3)
    take_steps(theirs, torch.optim.AdamW(theirs.parameters(), 0.01, fused=True), 3)
    alike = {
        n
        for (n, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True)
        if torch.equal(a, b)
    }
    weights = {"0.weight", "2.weight", "3.weight", "4.weight"}
    assert alike == {n for n, _ in ours.named_parameters()} - weights


def test_memory_layout_does_not_change_a_step() -> None:
    one, other = net(), net(torch.channels_last_3d)
    for network in (one, other):
        take_steps(network, Muon(network.parameters(), 0.01), 2)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_its_state_goes_on_with_the_same_bits() -> None:
    straight = net()
    optimizer = Muon(straight.parameters(), 0.01)
    take_steps(straight, optimizer, 2)
    resumed = copy.deepcopy(straight)
    again = Muon(resumed.parameters(), 0.5)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for network, stepping in ((straight, optimizer), (resumed, again)):
        take_steps(network, stepping, 2, seed=5)
    assert all(
        torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True)
    )


def test_parameters_without_a_gradient_stay() -> None:
    network = net()
    before = copy.deepcopy(network.state_dict())
    Muon(network.parameters(), 0.01).step()
    assert all(
        torch.equal(a, b)
        for a, b in zip(before.values(), network.state_dict().values(), strict=True)
    )


def test_a_late_drop_leaves_a_tenth_of_the_rate() -> None:
    how = {"name": "adam", "lr": 1.0, "schedule": "late_drop"}
    optimizer, scheduler = make_optimizer(net(), total_steps=10, **how)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 2)


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
def test_the_schedule_ends_low_and_the_constant_one_stays(name: str, schedule: str) -> None:
    network = net()
    optimizer, scheduler = make_optimizer(
        network, name=name, lr=0.1, schedule=schedule, total_steps=10
    )
    rates = []
    for step in range(9):
        take_steps(network, optimizer, 1, seed=step)
        scheduler.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert all(len(set(rate)) == 1 for rate in rates), "one rate for all"
    assert (
        rates[-1][0] == 0.1
        if schedule == "constant"
        else max(rates)[0] > 0.09 and rates[-1][0] < 1e-3
    )
