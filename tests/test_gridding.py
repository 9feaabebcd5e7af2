"""Gridding as a trained network shows it, on networks whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kitslib.evaluation import gridding, heard


class Stack(nn.Module):
    """Halve, stack dilated layers of ones, double: what it sees is what `hdc_coverage` counts."""

    def __init__(self, dilations: tuple[int, ...]) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 1, 3, padding=d, dilation=d, bias=False) for d in dilations]
        for layer in layers:
            nn.init.ones_(layer.weight)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deep = self.layers(nn.functional.avg_pool2d(x, 4))
        return nn.functional.interpolate(deep, scale_factor=4.0, mode="nearest")


def test_what_the_centre_hears_lies_where_the_layers_reach() -> None:
    found = heard(Stack((2,)), torch.randn(3, 1, 48, 48))
    cells = found.reshape(12, 4, 12, 4).mean(axis=(1, 3))
    seen = {(int(y) - 6, int(x) - 6) for y, x in zip(*cells.nonzero(), strict=True)}
    assert seen == {(dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2)}


def test_equal_dilations_leave_a_grid_and_hybrid_ones_do_not() -> None:
    images = torch.randn(2, 1, 48, 48)
    plain, hybrid = (gridding(Stack(rates), images, 2) for rates in ((2, 2, 2), (1, 2, 3)))
    assert plain > 10
    assert abs(hybrid) < 1


def test_a_network_that_sees_all_alike_has_no_grid() -> None:
    flat = Stack((1,))
    flat.layers = nn.Sequential(nn.Conv2d(1, 1, 11, padding=5, bias=False))
    nn.init.ones_(flat.layers[0].weight)
    assert gridding(flat, torch.randn(1, 1, 48, 48), 2) == pytest.approx(0, abs=1e-4)
