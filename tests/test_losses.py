"""Losses against numbers worked out on paper, and in the corners where they usually break."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch

from kitslib.training import (
    deep_supervision_loss,
    dice_cross_entropy_loss,
    focal_dice_loss,
    focal_loss,
    soft_dice_loss,
    supervision_weight,
    weighted_dice_loss,
)

LN2 = math.log(2)
LOSSES = [soft_dice_loss, focal_loss, weighted_dice_loss, focal_dice_loss, dice_cross_entropy_loss]
ONE_OF_FOUR = torch.tensor([[[1.0, 0, 0, 0]]])
ALL_OF_FOUR = torch.ones(1, 1, 4)
HALF = torch.zeros(1, 1, 4)  # logits of p = 0.5


def test_soft_dice_of_one_voxel_in_four() -> None:
    # p g = 0.5, p² = 4 · 0.25, g² = 1
    assert soft_dice_loss(HALF, ONE_OF_FOUR).item() == pytest.approx(1 - 1 / 2, abs=1e-5)


def test_soft_dice_is_taken_per_sample_and_then_averaged() -> None:
    target = torch.cat([ONE_OF_FOUR, ALL_OF_FOUR])
    # 0.5 and 1 - 4/5; all voxels in one sum would give 1 - 5/7
    assert soft_dice_loss(HALF.repeat(2, 1, 1), target).item() == pytest.approx(
        (0.5 + 0.2) / 2, abs=1e-5
    )


def test_soft_dice_over_a_batch_is_one_sum() -> None:
    target = torch.cat([ONE_OF_FOUR, ALL_OF_FOUR])
    # p g = 0.5 + 2, p² = 8 · 0.25, g² = 5; unsquared p = 4
    over = soft_dice_loss(HALF.repeat(2, 1, 1), target, over="batch")
    assert over.item() == pytest.approx(1 - 5 / 7, abs=1e-5)
    unsquared = soft_dice_loss(HALF.repeat(2, 1, 1), target, over="batch", squared=False)
    assert unsquared.item() == pytest.approx(1 - 5 / 9, abs=1e-5)


@pytest.mark.parametrize("loss", [soft_dice_loss, weighted_dice_loss])
def test_false_positives_beside_a_tumour_cost_over_the_batch_alone(loss: Callable) -> None:
    logits = torch.zeros(2, 1, 4, requires_grad=True)
    target = torch.cat([ONE_OF_FOUR, torch.zeros(1, 1, 4)])
    loss = partial(loss, background=0.0, tumor=1.0) if loss is weighted_dice_loss else loss
    pushed = {}
    for over in ("sample", "batch"):
        (gradient,) = torch.autograd.grad(loss(logits, target, over=over), logits)
        pushed[over] = gradient[1].abs().max().item()
    assert pushed["sample"] < 1e-4 < 1e-2 < pushed["batch"]


def test_soft_dice_of_nothing_in_nothing_is_no_loss() -> None:
    assert soft_dice_loss(torch.full((1, 1, 4), -1e4), torch.zeros(1, 1, 4)).item() == 0


def test_focal_weighs_foreground_and_background() -> None:
    # (1 - p_t)² = 1/4, -log p_t = ln 2, once with α = 0.75 and three times with 0.25
    assert focal_loss(HALF, ONE_OF_FOUR).item() == pytest.approx(LN2 / 4 * (0.75 + 3 * 0.25) / 4)
    sure = torch.full((1, 1, 1), math.log(9))  # p = 0.9
    assert focal_loss(sure, torch.ones(1, 1, 1)).item() == pytest.approx(
        -0.75 * 0.01 * math.log(0.9), rel=1e-5
    )
    assert focal_loss(sure, torch.zeros(1, 1, 1)).item() == pytest.approx(
        -0.25 * 0.81 * math.log(0.1), rel=1e-5
    )


def test_focal_without_focus_is_half_the_cross_entropy() -> None:
    logits, target = torch.randn(2, 1, 5), torch.randint(0, 2, (2, 1, 5)).float()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(focal_loss(logits, target, gamma=0.0, alpha=0.5), entropy / 2)


def test_focal_gradient_on_paper() -> None:
    logits = torch.zeros(1, 1, 1, requires_grad=True)
    focal_loss(logits, torch.ones(1, 1, 1)).backward()
    # d/dz of -α (1-p)² ln p at p = 1/2: α [-(1-p)³ + 2 p (1-p)² ln p]
    assert logits.grad.item() == pytest.approx(0.75 * (-1 / 8 - 2 * LN2 / 8))


def test_weighted_dice_of_both_classes() -> None:
    # tumour as above; background: q g = 1.5, q² = 1, g² = 3
    assert weighted_dice_loss(HALF, ONE_OF_FOUR).item() == pytest.approx(
        0.9 * 0.5 + 0.1 * (1 - 3 / 4), abs=1e-5
    )
    only_background = weighted_dice_loss(HALF, ONE_OF_FOUR, background=1.0, tumor=0.0)
    assert only_background.item() == pytest.approx(0.25, abs=1e-5)


def test_focal_dice_is_their_sum() -> None:
    expected = 0.475 + 2 * LN2 / 4 * 1.5 / 4
    assert focal_dice_loss(HALF, ONE_OF_FOUR, lam=2.0).item() == pytest.approx(expected, abs=1e-5)


def test_dice_cross_entropy_weighs_the_foreground() -> None:
    loss = dice_cross_entropy_loss(HALF, ONE_OF_FOUR, foreground_weight=3.0)
    assert loss.item() == pytest.approx(0.5 + (3 * LN2 + 3 * LN2) / 4, abs=1e-5)


def test_deep_supervision_adds_the_coarser_maps_with_p() -> None:
    maps = tuple(torch.tensor(value) for value in (4.0, 3.0, 2.0, 1.0))  # finest last

    def first_argument(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return logits

    assert deep_supervision_loss(
        maps, torch.zeros(()), first_argument, 0.33
    ).item() == pytest.approx(1 + 0.33 * 9)
    assert deep_supervision_loss(maps[0], torch.zeros(()), first_argument, 0.33).item() == 4


@pytest.mark.parametrize(
    ("epoch", "p"), [(0, 0.33), (14, 0.33), (15, 0.264), (29, 0.264), (30, 0.2112)]
)
def test_p_falls_to_four_fifths_after_every_fifteenth_epoch(epoch: int, p: float) -> None:
    assert supervision_weight(epoch) == pytest.approx(p)
    assert supervision_weight(epoch, start=1.0, factor=0.5, every=1) == 0.5**epoch


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("logit", [-1e4, 0.5, 1e4])
@pytest.mark.parametrize("share", [0, 1, 4], ids=["empty", "mixed", "full"])
def test_every_loss_is_finite_and_pulls_the_right_way(
    loss, dtype, logit: float, share: int
) -> None:
    target = torch.zeros(2, 1, 4)
    target[..., :share] = 1
    logits = torch.full((2, 1, 4), logit, dtype=dtype, requires_grad=True)
    value = loss(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[target == 1] <= 0).all()
    assert (logits.grad[target == 0] >= 0).all()
    if logit == 0.5:
        assert logits.grad.abs().max() > 0


@pytest.mark.parametrize(
    "loss", [focal_loss, focal_dice_loss, dice_cross_entropy_loss], ids=lambda f: f.__name__
)
def test_saturated_mistakes_still_have_a_gradient(loss) -> None:
    logits = torch.tensor([[[-1e4, 1e4]]], requires_grad=True)
    loss(logits, torch.tensor([[[1.0, 0.0]]])).backward()
    assert (logits.grad.abs() > 0.1).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_gradient_is_finite_for_every_gamma(gamma: float) -> None:
    logits = torch.tensor([[[-1e4, 1e4, -1e4, 1e4]]], requires_grad=True)
    focal_loss(logits, torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), gamma=gamma).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_bf16_logits_are_summed_in_float32(loss) -> None:
    logits = torch.randn(1, 1, 40, 40).bfloat16()  # 1600 voxels: bf16 sums would be off by several
    target = (torch.rand(1, 1, 40, 40) > 0.9).float()
    torch.testing.assert_close(loss(logits, target), loss(logits.float(), target))
    torch.testing.assert_close(loss(logits, target.to(torch.uint8)), loss(logits, target))


def test_another_target_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 4\) and \(2, 4\)"):
        soft_dice_loss(torch.zeros(2, 1, 4), torch.zeros(2, 4))


def test_a_voxels_weight_counts_in_the_cross_entropy_alone() -> None:
    logits, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    weight = torch.tensor([[[[5.0, 1.0], [1.0, 1.0]]]])
    plain = dice_cross_entropy_loss(logits, target, foreground_weight=2.0)
    heavy = dice_cross_entropy_loss(logits, target, foreground_weight=2.0, weight=weight)
    assert (heavy - plain).item() == pytest.approx(
        4 * 2 * math.log(2) / 4
    )  # 4 more, twice as foreground, mean of 4
