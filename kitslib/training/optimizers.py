"""Optimisers with their learning-rate schedules, and Muon for convolutions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, MultiStepLR, OneCycleLR

OptimizerName = Literal["adam", "adamw", "muon"]
Schedule = Literal["constant", "late_drop", "one_cycle"]
DROP = 0.8, 0.1  # where in a training "late_drop" lowers the rate, and to what share of it
SMALLEST = 8  # order from which on a matrix is worth orthogonalising
ROUNDS = 5
QUINTIC = 3.4445, -4.7750, 2.0315  # s -> a s + b s³ + c s⁵ brings singular values to about 1
ADAMW = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "maximize": False}


class Muon(torch.optim.Optimizer):
    """Convolutions step by their momentum with all singular values made alike, the rest as AdamW.

    A convolution is the matrix (output channels, what each of them sees); a step has AdamW's usual
    length (arXiv 2502.16982), so its learning rates hold. torch.optim.Muon (Jordan et al. 2024)
    takes matrices alone; here the iteration runs on their Gram matrices, which are far smaller.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for p in params:
            parts[p.ndim > 2 and min(_matrix(p).shape) >= SMALLEST].append(p)
        groups = [{"params": part, "convolutions": kind} for kind, part in parts.items() if part]
        super().__init__(groups, {"lr": lr, "momentum": 0.9, "weight_decay": 0.01})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Change the parameters by their gradients."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            change = self._step_convolutions if group["convolutions"] else self._step_others
            change(params, group)

    def _step_convolutions(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        updates = []
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
            momentum = self.state[p]["momentum"].lerp_(p.grad, 1 - group["momentum"])
            updates.append(_matrix(p.grad.lerp(momentum, group["momentum"])))
        for p, update in zip(params, orthogonalised(updates), strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            length = 0.2 * max(update.shape) ** 0.5  # to a root mean square of 0.2
            weight = update.reshape(p.movedim(1, -1).shape).movedim(-1, 1)  # undoes _matrix
            p.add_(weight, alpha=-group["lr"] * length)

    def _step_others(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        gradients, means, squares, steps = [p.grad for p in params], [], [], []
        for p in params:
            state = self.state[p]
            if not state:
                state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] = torch.zeros((), device=p.device)
            means.append(state["mean"])
            squares.append(state["square"])
            steps.append(state["step"])
        rates = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        adamw(params, gradients, means, squares, [], steps, fused=True, **rates, **ADAMW)


def _matrix(weight: Tensor) -> Tensor:
    """The weight (out, in, ...) as (out, ... x in): a view where channels are last in memory."""
    return weight.movedim(1, -1).flatten(1)


def orthogonalised(matrices: list[Tensor]) -> list[Tensor]:
    """Matrices of any shapes with singular values brought to about 1 (0.7 to 1.2), vectors kept.

    Newton-Schulz by X -> (a + b A + c A²) X, A = X Xᵀ; the factors are gathered from A alone.
    """
    a, b, c = QUINTIC
    wide = [m if m.shape[0] <= m.shape[1] else m.T for m in matrices]
    done: list[Tensor] = list(matrices)
    for order in sorted({len(m) for m in wide}):
        places = [i for i, m in enumerate(wide) if len(m) == order]
        gram = torch.stack([wide[i] @ wide[i].T for i in places])
        size = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-14)  # squared
        gram = gram / size
        one = torch.eye(order, device=gram.device)
        product = one.expand_as(gram)
        for left in reversed(range(ROUNDS)):
            factor = a * one + torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            product = factor @ product
            if left:
                gram = factor @ gram @ factor
        for i, factor in zip(places, product / size.sqrt(), strict=True):
            found = factor @ wide[i]
            done[i] = found if found.shape == matrices[i].shape else found.T
    return done


def make_optimizer(
    network: nn.Module, *, name: OptimizerName, lr: float, schedule: Schedule, total_steps: int
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """Return the optimiser and its learning-rate schedule, stepped once per optimiser step."""
    fused = {} if name == "muon" else {"fused": True}  # one kernel for all weights
    maker = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon}[name]
    optimizer = maker(network.parameters(), lr=lr, **fused)
    if schedule == "constant":
        return optimizer, ConstantLR(optimizer, factor=1.0)
    if schedule == "late_drop":
        when, share = DROP
        return optimizer, MultiStepLR(optimizer, [round(when * total_steps)], gamma=share)
    cycle = {"pct_start": 0.2, "cycle_momentum": name != "muon"}
    return optimizer, OneCycleLR(optimizer, lr, total_steps, **cycle)
