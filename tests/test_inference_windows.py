"""Windows larger than the paper's keep more of what they see and predict the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kitslib.evaluation import predict_slabs, windows
from kitslib.networks.blocks import Level
from kitslib.transforms import HuWindow

PLAIN = HuWindow(low=-1000, high=1000, shift=0, scale=5)


def spans(depth: int, size: int) -> list[tuple[int, int, int, int]]:
    return [(w.start, w.stop, w.keep_start, w.keep_stop) for w in windows(depth, size)]


def test_the_papers_window_keeps_its_central_half() -> None:
    assert spans(70, 64) == [(-16, 48, 0, 32), (16, 80, 32, 64), (22, 86, 64, 70)]
    assert spans(20, 64) == [(-16, 48, 0, 20)]


def test_a_larger_window_keeps_all_but_the_papers_halo() -> None:
    assert spans(288, 128) == [(-16, 112, 0, 96), (80, 208, 96, 192), (176, 304, 192, 288)]


def test_larger_windows_are_as_small_as_their_number_allows() -> None:
    assert spans(200, 128) == [
        (-16, 88, 0, 72),
        (56, 160, 72, 144),
        (112, 216, 144, 200),
    ]  # 104 slices


def test_a_window_larger_than_the_volume_is_the_volume_and_its_halo() -> None:
    assert spans(200, 4096) == [(-16, 216, 0, 200)]


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 95, 96, 97, 250])
@pytest.mark.parametrize("size", [4, 30, 64, 65, 128, 192, 1000])
def test_every_slice_is_kept_once_and_no_window_is_larger_than_asked(depth: int, size: int) -> None:
    counts = np.zeros(depth, int)
    for start, stop, keep_start, keep_stop in spans(depth, size):
        assert start <= keep_start < keep_stop <= stop <= start + size
        counts[keep_start:keep_stop] += 1
    assert (counts == 1).all()


def test_the_work_falls_with_the_size() -> None:
    work = [
        sum(stop - start for start, stop, *_ in spans(576, size)) for size in (64, 128, 224, 1000)
    ]
    assert work == [1152, 768, 672, 608]


def test_a_network_that_sees_no_further_than_the_halo_gives_the_same_whatever_the_size() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        Level(3, 1, 4, dilations=(1, 2, 4, 9)), nn.Conv3d(4, 1, 1)
    )  # 16 slices to either side
    volume = np.random.default_rng(0).integers(-900, 900, (75, 6, 7)).astype(np.int16)
    found = [
        predict_slabs(network, volume, PLAIN, size=size, dtype=np.float32)
        for size in (64, 80, 1000)
    ]
    assert found[0].std() > 0.01
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)
    small = predict_slabs(network, volume, PLAIN, size=32, dtype=np.float32)
    assert np.abs(small - found[0]).max() > 1e-3  # its halo is 8


def test_predictions_are_rounded_to_half_precision_at_the_end() -> None:
    volume = np.random.default_rng(0).integers(-900, 900, (10, 3, 3)).astype(np.int16)
    network = nn.Conv3d(1, 1, 1)
    how = {"size": 8, "reading": "overlap_average"}
    exact = predict_slabs(network, volume, PLAIN, **how, dtype=np.float32)
    assert exact.dtype == np.float32
    rounded = predict_slabs(network, volume, PLAIN, **how)
    np.testing.assert_array_equal(rounded, exact.astype(np.float16))
