"""Losses of one class: logits and targets of one shape, (B, 1, ...), to a float32 scalar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
Over = Literal["sample", "batch"]
SMOOTH = 1e-5  # added above and below in Dice: empty against empty is a loss of 0


def soft_dice_loss(
    logits: Tensor, target: Tensor, *, over: Over = "sample", squared: bool = True
) -> Tensor:
    """1 - 2 Σ p g / (Σ p² + Σ g²), sums over each sample or over the whole batch.

    Over samples the mean of their losses is taken, and one without target gives hardly a gradient:
    false positives in it cost nothing. `squared` False: Σ p + Σ g below.
    Source: Milletari et al. 2016, arXiv 1606.04797.
    """
    p, g = _flat_pair(logits, target)
    return _dice_loss(torch.sigmoid(p), g, over, squared)


def focal_loss(logits: Tensor, target: Tensor, *, gamma: float = 2, alpha: float = 0.75) -> Tensor:
    """Mean of -α_t (1 - p_t)^γ log p_t over voxels (Lin et al. 2017, arXiv 1708.02002, eq. 5)."""
    z, g = _flat_pair(logits, target)
    away = z * (1 - 2 * g)  # the error's logit: 1 - p_t = sigmoid(away), -log p_t = softplus(away)
    weight = alpha * g + (1 - alpha) * (1 - g)
    easing = torch.exp(-gamma * F.softplus(-away))  # (1 - p_t)^γ, with finite gradients for every γ
    return (weight * easing * F.softplus(away)).mean()


def weighted_dice_loss(
    logits: Tensor, target: Tensor, *, background: float = 0.1, tumor: float = 0.9,
    over: Over = "sample", squared: bool = True,
) -> Tensor:  # fmt: skip
    """Soft Dice of the background and of the tumour, weighted; the weights are used as given."""
    z, g = _flat_pair(logits, target)
    p, q = torch.sigmoid(z), torch.sigmoid(-z)  # 1 - p would lose the small probabilities
    lost = tumor * _dice_loss(p, g, over, squared)
    return lost + background * _dice_loss(q, 1 - g, over, squared)


def focal_dice_loss(
    logits: Tensor, target: Tensor, *, gamma: float = 2, alpha: float = 0.75,
    background: float = 0.1, tumor: float = 0.9, lam: float = 1.0, over: Over = "sample",
    squared: bool = True,
) -> Tensor:  # fmt: skip
    """Weighted Dice + λ focal: the paper's section 3.3."""
    dice = weighted_dice_loss(
        logits, target, background=background, tumor=tumor, over=over, squared=squared
    )
    return dice + lam * focal_loss(logits, target, gamma=gamma, alpha=alpha)


def dice_cross_entropy_loss(
    logits: Tensor, target: Tensor, *, foreground_weight: float = 1.0,
    weight: Tensor | None = None, squared: bool = True,
) -> Tensor:  # fmt: skip
    """Soft Dice + cross-entropy with the foreground, and each voxel by `weight`, weighted."""
    z, g = _flat_pair(logits, target)
    foreground = torch.tensor(foreground_weight, device=z.device)
    weight = None if weight is None else weight.flatten(1)
    entropy = F.binary_cross_entropy_with_logits(z, g, weight=weight, pos_weight=foreground)
    return _dice_loss(torch.sigmoid(z), g, "sample", squared) + entropy


def deep_supervision_loss(
    outputs: Tensor | Sequence[Tensor], target: Tensor, loss: Loss, p: float
) -> Tensor:
    """L4 + p (L1 + L2 + L3), the finest output last; of one tensor L4 alone (the paper, 2.1)."""
    if isinstance(outputs, Tensor):
        return loss(outputs, target)
    *coarse, finest = outputs
    return sum((p * loss(logits, target) for logits in coarse), start=loss(finest, target))


def supervision_weight(
    epoch: int, *, start: float = 0.33, factor: float = 0.8, every: int = 15
) -> float:
    """p of `deep_supervision_loss`: `start`, times `factor` at the end of every `every` epochs."""
    return start * factor ** (epoch // every)


def _dice_loss(p: Tensor, g: Tensor, over: Over, squared: bool) -> Tensor:
    """Mean over samples, or of the whole batch, from (B, voxels)."""
    overlap, total = p * g, p * p + g * g if squared else p + g
    axes = 1 if over == "sample" else (0, 1)
    return (1 - (2 * overlap.sum(dim=axes) + SMOOTH) / (total.sum(dim=axes) + SMOOTH)).mean()


def _flat_pair(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape != target.shape:
        shapes = f"{tuple(logits.shape)} and {tuple(target.shape)}; give the target one channel"
        raise ValueError(f"loss: expected logits and target of one shape, got {shapes}")
    return logits.flatten(1).float(), target.flatten(1).float()
