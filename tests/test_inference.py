"""Windows cover a volume as each reading says, and components are counted right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from kitslib.evaluation import (
    largest_components,
    predict_maps,
    predict_slabs,
    predict_stacks,
    predict_tiles,
    tile_starts,
    windows,
)
from kitslib.networks import build
from kitslib.transforms import HU_WINDOWS, HuWindow

PLAIN = HuWindow(low=-1000, high=1000, shift=0, scale=1)


class Mean3(nn.Module):
    """The mean over three neighbouring slices: a network whose receptive field is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.01))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
        return (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) / 3 * self.weight


@pytest.mark.parametrize("reading", ["padded", "overlap_average"])
@pytest.mark.parametrize("depth", [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 129])
def test_every_slice_is_predicted_whatever_the_depth(reading: str, depth: int) -> None:
    counts = np.zeros(depth, int)
    for window in windows(depth, 64, reading):
        assert window.start <= window.keep_start < window.keep_stop <= window.stop
        counts[window.keep_start : window.keep_stop] += 1
    assert counts.min() >= 1
    if reading == "padded":
        assert counts.max() == 1


def test_literal_is_the_papers_pseudo_code() -> None:
    found = windows(130, 64, "literal")
    assert [(w.start, w.stop) for w in found] == [(0, 64), (32, 95), (64, 127)]
    assert [(w.keep_start, w.keep_stop) for w in found] == [(16, 48), (48, 80), (80, 112)]
    assert windows(63, 64, "literal") == []


@pytest.mark.parametrize("depth", [1, 7, 40, 64, 90])
def test_padded_windows_equal_a_whole_volume_pass(depth: int) -> None:
    volume = np.random.default_rng(depth).integers(-900, 900, (depth, 4, 5)).astype(np.int16)
    network = Mean3()
    whole = (
        torch.sigmoid(network(torch.from_numpy(volume).float()[None, None]))[0, 0].detach().numpy()
    )
    for reading in ("padded",):
        found = predict_slabs(network, volume, PLAIN, size=16, reading=reading)
        np.testing.assert_allclose(found, whole, atol=1e-3)


def test_literal_leaves_the_first_slices_empty() -> None:
    volume = np.full((96, 2, 2), 500, np.int16)
    found = predict_slabs(Mean3(), volume, PLAIN, size=64, reading="literal")
    assert (found[:16] == 0).all() and (found[80:] == 0).all() and (found[16:80] > 0.9).all()


def test_a_stack_puts_the_neighbours_into_the_channels() -> None:
    class Below(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1] * self.weight  # the slice two above the centre

    volume = np.arange(6, dtype=np.int16)[:, None, None] * np.ones((1, 2, 2), np.int16)
    found = predict_stacks(Below(), volume, PLAIN, depth=5, batch=4)[:, 0, 0]
    expected = 1 / (1 + np.exp(-np.array([0, 0, 0, 1, 2, 3.0])))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_largest_components_keeps_the_largest() -> None:
    mask = np.zeros((3, 3, 12), bool)
    mask[0, 0, :3] = mask[2, 2, 5:9] = mask[0, 0, 11] = True
    assert largest_components(mask, 1).sum() == 4
    assert largest_components(mask, 2).sum() == 7
    assert largest_components(mask, 3).sum() == 8
    assert not largest_components(np.zeros((2, 2, 2), bool), 1).any()


def test_largest_components_by_a_weight() -> None:
    mask = np.zeros((3, 3, 12), bool)
    mask[0, 0, :3] = mask[2, 2, 5:9] = mask[0, 0, 11] = True
    weight = np.full(mask.shape, 0.9, np.float32)
    weight[2, 2, 5:9] = 0.1  # the largest, and the least of all by weight
    assert largest_components(mask, 1, weight)[0, 0].sum() == 3
    kept = largest_components(mask, 2, weight)
    assert kept[0, 0].sum() == 4
    assert not kept[2].any()
    weight[...] = -1  # what is asked for is kept, whatever its weight
    assert largest_components(mask, 1, weight).sum() == 1


def test_a_corner_counts_as_a_neighbour() -> None:
    mask = np.zeros((2, 2, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[0, 0, 3] = True
    assert largest_components(mask, 1).sum() == 2


def test_slices_left_out_are_interpolated() -> None:
    class Brightness(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.logit(x[:, 2:3].clamp(1e-4, 1 - 1e-4)) * self.weight

    volume = np.arange(0, 80, 10, dtype=np.int16)[:, None, None] * np.ones((1, 2, 2), np.int16)
    hundredth = HuWindow(low=0, high=100, shift=0, scale=100)
    exact = predict_stacks(Brightness(), volume, hundredth, depth=5)
    np.testing.assert_allclose(exact[1:, 0, 0], np.arange(1, 8) / 10, atol=2e-3)
    np.testing.assert_allclose(
        predict_stacks(Brightness(), volume, hundredth, depth=5, every=3), exact, atol=2e-3
    )


@pytest.mark.parametrize("length", [1, 7, 8, 9, 20, 63])
def test_tiles_cover_a_line_and_overlap(length: int) -> None:
    starts = tile_starts(length, 8)
    assert starts[0] == 0 and starts[-1] == max(length - 8, 0)
    assert all(0 < after - before <= 5 for before, after in itertools.pairwise(starts))


@pytest.mark.parametrize("shape", [(6, 5, 30), (9, 21, 8), (3, 40, 40)])
def test_tiles_of_a_pointwise_predictor_equal_the_whole(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    volume = rng.integers(0, 100, shape).astype(np.int16)
    mask = rng.random(shape) < 0.5
    seen: list[tuple[int, ...]] = []

    def predict(tile: np.ndarray) -> np.ndarray:
        seen.append(tile.shape)
        return (tile / 100).astype(np.float16)

    found = predict_tiles(predict, volume, mask, patch=(8, 8), context=1, fill=-7)
    np.testing.assert_allclose(found, np.where(mask, volume / 100, 0), atol=2e-3)
    assert {s[1:] for s in seen} == {(8, 8)}


def test_tiles_without_mask_are_left_out_and_others_take_their_context() -> None:
    volume, mask = np.zeros((20, 8, 40), np.int16), np.zeros((20, 8, 40), np.uint8)
    mask[10:12, 4, 2] = 1
    depths = []

    def predict(tile: np.ndarray) -> np.ndarray:
        depths.append(len(tile))
        return np.ones(tile.shape, np.float16)

    found = predict_tiles(predict, volume, mask, patch=(8, 8), context=2, fill=0)
    assert depths == [6]
    np.testing.assert_array_equal(found, mask)


def test_the_maps_of_a_slab_are_the_networks_and_the_last_is_what_it_answers() -> None:
    torch.manual_seed(0)
    network = build(name="resunet3d", widths=(2, 2, 4, 4, 4), dropout=0.3)
    volume = np.random.default_rng(0).integers(-200, 300, (8, 12, 10)).astype(np.int16)
    maps = predict_maps(network, volume, HU_WINDOWS["soft_tissue"])
    assert maps.shape == (4, 8, 12, 10) and maps.dtype == np.float16
    alone = predict_slabs(
        network, volume, HU_WINDOWS["soft_tissue"], size=8, reading="overlap_average"
    )
    np.testing.assert_allclose(maps[-1], alone, atol=2e-3)
    assert np.abs(maps[0].astype(float) - maps[-1]).max() > 1e-3
