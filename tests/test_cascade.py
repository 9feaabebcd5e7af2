"""The cascade composes its stages as KiTS19 scores them, in the scan's own grid."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kitslib.config import KidneyGrid, TumorGrid
from kitslib.evaluation import (
    WITH,
    WITHOUT,
    Decision,
    Decisions,
    KidneyStage,
    TumorStage,
    compose,
    contrast,
    segment,
)
from kitslib.networks import build, ready
from kitslib.training import WEIGHTS
from kitslib.transforms import HU_WINDOWS

SPACING = (4.0, 2.0, 2.0)


class Above(nn.Module):
    """Says yes where the centre channel is above a level of the network's input."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, x: Tensor) -> Tensor:
        centre = x.shape[1] // 2
        return (x[:, centre : centre + 1] - self.level) * 100


def level(hu: float, reading: str) -> float:
    window = HU_WINDOWS[reading]
    return (hu - window.shift) / window.scale


@pytest.fixture
def stages() -> tuple[KidneyStage, TumorStage]:
    kidney = KidneyStage(
        network=Above(level(60.0, "soft_tissue")), grid=KidneyGrid(spacing_z=4.0, matrix=40),
        hu="soft_tissue", window="padded", window_slices=16, components=2,
    )  # fmt: skip
    tumor = TumorStage(
        network=Above(level(180.0, "foreground")),
        grid=TumorGrid(spacing_z=4.0, spacing_xy=2.0, region="box"), hu="foreground",
        dims="2.5d", patch=(24, 24), slices=3, slab=8,
    )  # fmt: skip
    return kidney, tumor


@pytest.fixture
def scan() -> np.ndarray:
    """Two kidneys of 120 HU, a tumour of 240 HU and a smaller bright spot; a speck elsewhere."""
    imaging = np.full((24, 40, 40), -50, np.int16)
    imaging[4:20, 10:24, 4:14] = 120
    imaging[4:20, 10:24, 26:36] = 120
    imaging[8:14, 12:20, 6:12] = 240
    imaging[16:18, 12:14, 30:32] = 240
    imaging[2, 35, 20] = 240
    return imaging


def run(scan: np.ndarray, stages: tuple[KidneyStage, TumorStage], **more: object):
    return segment(scan, SPACING, *stages, autocast=contextlib.nullcontext, **more)


def test_kidney_tumour_and_component_come_out_where_they_are(
    scan: np.ndarray, stages: tuple
) -> None:
    found = run(scan, stages)
    expected = np.zeros(scan.shape, np.uint8)
    expected[4:20, 10:24, 4:14] = expected[4:20, 10:24, 26:36] = 1
    expected[8:14, 12:20, 6:12] = 2
    np.testing.assert_array_equal(found.labels, expected)
    assert found.tumor[16:18, 12:14, 30:32].all(), "the smaller one is found and then dropped"
    assert not found.kidney[2, 35, 20], "a third component is dropped"


def test_a_given_kidney_mask_takes_the_place_of_the_first_stage(
    scan: np.ndarray, stages: tuple
) -> None:
    mask = np.zeros(scan.shape, np.uint8)
    mask[4:20, 10:24, 26:36] = 1
    found = run(scan, stages, kidney=mask)
    assert set(np.unique(found.labels[:, :, :20])) == {0}
    assert (found.labels[16:18, 12:14, 30:32] == 2).all()


def test_a_scan_without_kidney_gets_an_empty_map(stages: tuple) -> None:
    found = run(np.full((6, 40, 40), -80, np.int16), stages)
    assert not found.labels.any() and found.labels.shape == (6, 40, 40)


def test_tumour_outside_the_kidney_mask_counts_and_the_largest_wins() -> None:
    kidney, tumor = np.zeros((2, 1, 1, 12), np.uint8)
    kidney[..., :6] = 1
    tumor[..., 4:8] = tumor[..., 10] = 1
    assert compose(kidney, tumor).ravel().tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0]


def test_a_stage_is_rebuilt_from_the_settings_of_its_run() -> None:
    settings = {
        "grid": {
            "spacing_z": 3.0,
            "spacing_xy": None,
            "region": "slice",
            "margin_mm": 10.0,
            "mask_dilation_mm": 5.0,
        },
        "arm": {"dims": "3d"},
        "training": {
            "hu": "literal", "patch": [64, 48], "slices": 5, "slab": 16, "lr": 1.0,
            "test_time_mirroring": True,
        },
    }  # fmt: skip
    stage = TumorStage.of(nn.Identity(), settings)
    assert (stage.dims, stage.hu, stage.slab, stage.patch) == ("3d", "literal", 16, (64, 48))
    assert stage.grid.region == "slice" and stage.test_time_mirroring
    del settings["training"]["test_time_mirroring"]
    with pytest.raises(KeyError, match="test_time_mirroring"):
        TumorStage.of(nn.Identity(), settings)


@pytest.mark.parametrize(("name", "kind"), [("kidney", KidneyStage), ("tumor", TumorStage)])
def test_the_packaged_settings_make_a_stage(name: str, kind: type) -> None:
    settings = json.loads((WEIGHTS / name / "settings.json").read_text())
    stage = kind.of(nn.Identity(), settings)
    assert stage.hu == settings["training"]["hu"]
    assert stage.test_time_mirroring is settings["training"]["test_time_mirroring"]


class Ramp(nn.Module):
    """A logit that grows from left to right."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x[:, :1] + self.slope * torch.linspace(-3, 3, x.shape[-1])


def alike(answers: dict[bool, np.ndarray]) -> bool:
    """Whether the one that is mirrored answers alike for both sides, and the other one does not."""
    symmetric = {
        mirrored: np.allclose(found, found[..., ::-1], atol=1e-2)
        for mirrored, found in answers.items()
    }
    return symmetric == {False: False, True: True}


def test_a_mirrored_kidney_stage_answers_alike_for_both_sides() -> None:
    training = {
        "hu": "soft_tissue", "window": "padded", "window_slices": 16, "components": 9,
        "components_by": "volume",
    }  # fmt: skip
    volume = np.full((8, 16, 16), 50, np.int16)
    found = {}
    for mirrored in (False, True):
        settings = {
            "grid": {"spacing_z": 3.0, "matrix": 16},
            "training": training | {"test_time_mirroring": mirrored},
        }
        found[mirrored] = KidneyStage.of(Ramp().eval(), settings).probability(
            volume, contextlib.nullcontext
        )
    assert alike(found)


class Shown(nn.Module):
    """The logit is what the network sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def test_components_are_kept_by_volume_or_by_certainty() -> None:
    window = HU_WINDOWS["soft_tissue"]
    volume = np.full((4, 16, 16), window.low, np.int16)
    doubtful, sure = round(window.shift + 0.2 * window.scale), round(window.high)
    volume[:, 2:10, 2:6] = doubtful
    volume[:, 2:6, 10:14] = sure
    kept = {}
    for by in ("volume", "certainty"):
        stage = KidneyStage(
            network=Shown().eval(), grid=KidneyGrid(spacing_z=3.0, matrix=16), hu="soft_tissue",
            window="padded", window_slices=16, components=1, components_by=by,
        )  # fmt: skip
        found = stage.probability(volume, contextlib.nullcontext)
        assert (found > 0.5).any()
        kept[by] = int(volume[found > 0.5].max())
    assert kept == {"volume": doubtful, "certainty": sure}


@pytest.mark.parametrize("dims", ["2.5d", "3d"])
def test_a_mirrored_tumour_stage_answers_alike_for_both_sides(dims: str) -> None:
    training = {"hu": "foreground", "patch": [16, 16], "slices": 3, "slab": 4}
    volume, mask = np.full((8, 16, 16), 50, np.int16), np.ones((8, 16, 16), np.uint8)
    found = {}
    for mirrored in (False, True):
        settings = {
            "grid": {"margin_mm": 10.0},
            "arm": {"dims": dims},
            "training": training | {"test_time_mirroring": mirrored},
        }
        found[mirrored] = TumorStage.of(Ramp().eval(), settings).probability(
            volume, mask, contextlib.nullcontext
        )
    assert alike(found)


def test_each_nth_slice_is_predicted_and_the_others_interpolated() -> None:
    stage = TumorStage(
        network=Shown().eval(), grid=TumorGrid(), hu="foreground", dims="2d", patch=(16, 16),
        slices=1, slab=4,
    )  # fmt: skip
    depth = np.linspace(60, 140, 9, dtype=np.int16)[:, None, None]
    volume, mask = depth * np.ones((1, 16, 16), np.int16), np.ones((9, 16, 16), np.uint8)
    exact = stage.probability(volume, mask, contextlib.nullcontext)
    rough = replace(stage, every=4).probability(volume, mask, contextlib.nullcontext)
    np.testing.assert_array_equal(rough[::4], exact[::4])
    np.testing.assert_allclose(rough, exact, atol=0.02)
    assert (rough != exact).any()


@pytest.mark.parametrize("options", [
    {"name": "vnet", "dims": "2.5d", "slices": 3, "widths": (4, 8, 8)},
    {"name": "resunet3d", "widths": (2, 2, 4, 4, 4)},
])  # fmt: skip
def test_a_loaded_network_lies_in_memory_as_a_trained_one(options: dict) -> None:
    network = ready(build(**options).train(), "cpu")
    assert not network.training
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    weights = [weight for weight in network.parameters() if weight.ndim in layouts]
    assert weights
    assert all(w.is_contiguous(memory_format=layouts[w.ndim]) for w in weights)


class Bright(nn.Module):
    """Marks bright voxels of the scan, as far as their neighbourhood is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, 3, 3, 3) / 27)

    def forward(self, images: Tensor) -> Tensor:
        return 20 * (nn.functional.conv3d(images, self.weight, padding=1) - 0.1)


@pytest.mark.parametrize(
    "air", [((0, 0), (53, 70), (31, 9)), ((10, 10), (0, 0), (0, 0)), ((1, 4), (7, 7), (20, 0))]
)
def test_air_around_a_patient_leaves_the_kidneys_where_they_are(air: tuple) -> None:
    spacing, shape = (3.0, 1.5, 1.5), (41, 120, 160)  # no multiple of 4 mm
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    imaging = np.full(shape, -1000, np.int16)
    body = np.broadcast_to(((y - 60) / 50) ** 2 + ((x - 80) / 70) ** 2 < 1, shape)
    imaging[body] = 30
    for side in (-35, 35):
        kidney = ((z - 30) / 14) ** 2 + ((y - 70) / 14) ** 2 + ((x - 80 - side) / 16) ** 2 < 1
        imaging[kidney] = 180
    imaging[5:8, 30:36, 80:86] = 180  # 1.5 ml: no kidney
    stage = KidneyStage(
        network=Bright(), grid=KidneyGrid(spacing_z=4.0, spacing_xy=4.0, average=True),
        hu="soft_tissue", window="padded", window_slices=16, components=3, least_ml=5.0,
    )  # fmt: skip
    found = stage.mask(imaging, spacing, contextlib.nullcontext)
    truth = imaging == 180
    truth[5:8] = False
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9 and not found[:4].any()
    padded = np.pad(imaging, air, constant_values=-1024)
    again = stage.mask(padded, spacing, contextlib.nullcontext)
    assert np.array_equal(again, np.pad(found, air))


def test_a_tumour_that_is_not_sure_enough_is_none(stages: tuple, scan: np.ndarray) -> None:
    called = run(scan, stages).labels
    kidney, tumor = stages
    ml = float((called == 2).sum()) * float(np.prod(SPACING)) / 1000
    assert ml > 0
    for least_ml, kept in ((0.001 * ml, True), (2 * ml, False)):
        decision, never = Decision(least_ml), Decision(1e9)
        kinds = {WITH: decision, WITHOUT: never}
        if contrast(scan, run(scan, stages).kidney) == WITHOUT:
            kinds = {WITH: never, WITHOUT: decision}
        strict = replace(tumor, decisions=Decisions(kinds))
        labels = run(scan, (kidney, strict)).labels
        assert np.array_equal(labels, called) == kept
        assert (labels == 2).any() == kept and np.array_equal(labels > 0, called > 0)
