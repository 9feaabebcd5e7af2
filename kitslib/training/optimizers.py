"""Optimisers with their learning-rate schedules, and Muon for convolutions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

Name = Literal["adam", "adamw", "muon"]
SMALLEST = 8  # order from which on a matrix is worth orthogonalising
ROUNDS = 5
QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # s -> a s + b s^3 + c s^5, which brings singular values to about 1


class Muon(torch.optim.Optimizer):
    """Convolutions step by their momentum with all singular values made alike, other parameters as AdamW does.

    A convolution is the matrix (output channels, what each of them sees); a step is as long as AdamW's usually are, so
    that its learning rates hold. Muon: Jordan et al. 2024; length of the step: arXiv 2502.16982. torch.optim.Muon
    takes matrices alone; here the iteration runs on their Gram matrices, which are far smaller.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
    ) -> None:
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for p in params:
            parts[p.ndim > 2 and min(_matrix(p).shape) >= SMALLEST].append(p)
        groups = [{"params": part, "convolutions": kind} for kind, part in parts.items() if part]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Change the parameters by their gradients."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["convolutions"]:
                self._step_convolutions(params, group)
            else:
                self._step_others(params, group)

    def _step_convolutions(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        updates = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            updates.append(_matrix(p.grad.lerp(state["momentum"], group["momentum"])))
        for p, update in zip(params, orthogonalised(updates), strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            length = 0.2 * max(update.shape) ** 0.5  # to a root mean square of 0.2
            p.add_(_weight(update, p), alpha=-group["lr"] * length)

    def _step_others(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        names = ("mean", "square", "step")
        for p in params:
            if not self.state[p]:
                step = torch.zeros((), device=p.device)
                self.state[p].update(
                    zip(names, (torch.zeros_like(p), torch.zeros_like(p), step), strict=True)
                )
        means, squares, steps = ([self.state[p][name] for p in params] for name in names)
        adamw(
            params, [p.grad for p in params], means, squares, [], steps, fused=True, amsgrad=False, beta1=0.9,
            beta2=0.999, lr=group["lr"], weight_decay=group["weight_decay"], eps=1e-8, maximize=False,
        )  # fmt: skip


def _matrix(weight: Tensor) -> Tensor:
    """The weight (out, in, ...) as (out, ... x in): a view where the channels are last in memory."""
    return weight.movedim(1, -1).flatten(1)


def _weight(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_matrix` for a weight of that shape."""
    return matrix.reshape(like.movedim(1, -1).shape).movedim(-1, 1)


def orthogonalised(matrices: list[Tensor]) -> list[Tensor]:
    """Matrices of any shapes with their singular values brought to about 1 (0.7 to 1.2), their singular vectors kept.

    Newton-Schulz by the quintic: X -> (a + b A + c A^2) X with A = X X^T, whose factors are gathered from A alone.
    """
    wide = [m if m.shape[0] <= m.shape[1] else m.T for m in matrices]
    done: list[Tensor] = list(matrices)
    for order in sorted({len(m) for m in wide}):
        places = [i for i, m in enumerate(wide) if len(m) == order]
        gram = torch.stack([wide[i] @ wide[i].T for i in places])
        size = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-14)  # squared
        factors = _newton_schulz(gram / size) / size.sqrt()
        for i, factor in zip(places, factors, strict=True):
            found = factor @ wide[i]
            done[i] = found if found.shape == matrices[i].shape else found.T
    return done


def _newton_schulz(gram: Tensor) -> Tensor:
    """What X is to be multiplied with, from A = X X^T (N, order, order) with singular values of X of at most 1."""
    a, b, c = QUINTIC
    one = torch.eye(gram.shape[-1], device=gram.device)
    product = one.expand_as(gram)
    for left in reversed(range(ROUNDS)):
        factor = a * one + torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        product = factor @ product
        if left:
            gram = factor @ gram @ factor
    return product


def make_optimizer(
    network: nn.Module,
    *,
    name: Name,
    lr: float,
    schedule: Literal["constant", "one_cycle"],
    total_steps: int,
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """Return the optimiser and its learning-rate schedule, stepped once per optimiser step."""
    if name == "muon":
        optimizer: torch.optim.Optimizer = Muon(network.parameters(), lr)
    else:
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        optimizer = kinds[name](
            network.parameters(), lr=lr, fused=True
        )  # one kernel for all weights
    if schedule == "one_cycle":
        return optimizer, OneCycleLR(
            optimizer, lr, total_steps, pct_start=0.2, cycle_momentum=name != "muon"
        )
    return optimizer, ConstantLR(optimizer, factor=1.0)
