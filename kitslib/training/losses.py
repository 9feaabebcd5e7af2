"""What training minimises: soft Dice, focal, weighted sums and deep supervision, for one class against the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
SMOOTH = 1e-5  # added above and below in Dice: empty against empty is a loss of 0


def soft_dice_loss(logits: Tensor, target: Tensor, *, squared: bool = True) -> Tensor:
    """1 - 2 Σ p g / (Σ p² + Σ g²) per sample, averaged over the batch (Milletari et al. 2016, arXiv 1606.04797).

    `squared=False` leaves the squares out of the denominator. Shapes: both (B, 1, ...); returns a float32 scalar.
    """
    p, g = _flat_pair(logits, target)
    return _dice_loss(torch.sigmoid(p), g, squared=squared).mean()


def focal_loss(
    logits: Tensor, target: Tensor, *, gamma: float = 2.0, alpha: float = 0.75
) -> Tensor:
    """Mean of -α_t (1 - p_t)^γ log p_t over voxels, α on the foreground (Lin et al. 2017, arXiv 1708.02002, eq. 5).

    Shapes: both (B, 1, ...); returns a float32 scalar.
    """
    z, g = _flat_pair(logits, target)
    away = z * (
        1 - 2 * g
    )  # the logit of being wrong: 1 - p_t = sigmoid(away), -log p_t = softplus(away)
    weight = alpha * g + (1 - alpha) * (1 - g)
    easing = torch.exp(-gamma * F.softplus(-away))  # (1 - p_t)^γ, with finite gradients for every γ
    return (weight * easing * F.softplus(away)).mean()


def weighted_dice_loss(
    logits: Tensor, target: Tensor, *, background: float = 0.1, tumor: float = 0.9
) -> Tensor:
    """Soft Dice of the background and of the tumour, weighted; the weights are used as given.

    Shapes: both (B, 1, ...); returns a float32 scalar.
    """
    z, g = _flat_pair(logits, target)
    p = torch.sigmoid(z)
    q = torch.sigmoid(-z)  # not 1 - p, which loses the small probabilities
    return (tumor * _dice_loss(p, g) + background * _dice_loss(q, 1 - g)).mean()


def focal_dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float = 0.75,
    background: float = 0.1,
    tumor: float = 0.9,
    lam: float = 1.0,
) -> Tensor:
    """Weighted Dice + λ focal: the paper's section 3.3."""
    dice = weighted_dice_loss(logits, target, background=background, tumor=tumor)
    return dice + lam * focal_loss(logits, target, gamma=gamma, alpha=alpha)


def dice_cross_entropy_loss(
    logits: Tensor, target: Tensor, *, foreground_weight: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Soft Dice + cross-entropy with the foreground's term weighted: for trainings of few steps.

    `weight` is that of each voxel in the cross-entropy. Shapes: all (B, 1, ...); returns a float32 scalar.
    """
    z, g = _flat_pair(logits, target)
    entropy = F.binary_cross_entropy_with_logits(
        z,
        g,
        weight=None if weight is None else weight.flatten(1),
        pos_weight=torch.tensor(foreground_weight, device=z.device),
    )
    return _dice_loss(torch.sigmoid(z), g).mean() + entropy


def deep_supervision_loss(
    outputs: Tensor | Sequence[Tensor], target: Tensor, loss: Loss, p: float
) -> Tensor:
    """L = L4 + p (L1 + L2 + L3), with the finest output last (the paper, section 2.1)."""
    if isinstance(outputs, Tensor):
        return loss(outputs, target)
    *coarse, finest = outputs
    total = loss(finest, target)
    for logits in coarse:
        total = total + p * loss(logits, target)
    return total


def supervision_weight(
    epoch: int, *, start: float = 0.33, factor: float = 0.8, every: int = 15
) -> float:
    """p of `deep_supervision_loss` in `epoch` (from 0): multiplied by `factor` after every `every` epochs."""
    return start * factor ** (epoch // every)


def _dice_loss(p: Tensor, g: Tensor, *, squared: bool = True) -> Tensor:
    overlap = (p * g).sum(dim=1)
    total = (p * p + g * g).sum(dim=1) if squared else (p + g).sum(dim=1)
    return 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)


def _flat_pair(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape != target.shape:
        raise ValueError(
            f"loss: expected logits and target of one shape, got {tuple(logits.shape)} and {tuple(target.shape)}; "
            "give the target a channel axis of size 1"
        )
    return logits.flatten(1).float(), target.flatten(1).float()
