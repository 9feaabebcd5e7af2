"""The draw depends on (seed, epoch, step) alone, and on weights of the cases trained on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kitslib.data import AIR, SlabSampler, StackSampler, cut, slice_difficulty


class Few(dict):
    """A stand-in for a cohort: cases of known voxels."""

    @property
    def case_ids(self) -> tuple[str, ...]:
        return tuple(self)


@pytest.fixture
def cohort() -> Few:
    cases = Few()
    for number in range(3):
        labels = np.zeros((20, 12, 14), np.uint8)
        labels[4:16, 3:9, 3:9] = 1
        labels[8:10, 4:6, 4:6] = 2
        imaging = (
            np.full(labels.shape, 100 * (number + 1), np.int16)
            + np.arange(20, dtype=np.int16)[:, None, None]
        )
        mask = (labels > 0).astype(np.uint8)
        cases[f"case_{number}"] = SimpleNamespace(
            imaging=imaging,
            labels=labels,
            mask=mask,
            meta={
                "train_range": [2, 18],
                "kidney_range": [4, 16],
                "volumes_ml": {"kidney": 90.0, "tumor": 10.0},
            },
        )
    return cases


def stacks(cohort: Few, **changes: object) -> StackSampler:
    settings = {
        "dims": "2.5d",
        "depth": 5,
        "patch": (8, 8),
        "batch": 4,
        "steps": 5,
        "seed": 3,
        "foreground_oversampling": 0.5,
    }
    return StackSampler(cohort, **{**settings, **changes})


def test_cut_repeats_the_edge_or_fills() -> None:
    volume = np.arange(3)
    assert cut(volume, (-2,), (6,), None).tolist() == [0, 0, 0, 1, 2, 2]
    assert cut(volume, (1,), (4,), 9).tolist() == [1, 2, 9, 9]


def test_an_epoch_of_slabs_holds_every_case_once_within_its_range(cohort: Few) -> None:
    sampler = SlabSampler(cohort, slab=8, patch=10, batch=1, seed=0)
    batches = [sampler.batch(4, step) for step in range(sampler.steps)]
    assert sorted(b.case_ids[0] for b in batches) == sorted(cohort)
    for batch in batches:
        assert batch.images.shape == batch.labels.shape == (1, 1, 8, 10, 10)
        first = int(batch.images[0, 0, 0, 0, 0]) % 100
        assert 2 <= first <= 10


def test_a_slab_smaller_than_the_slice_lies_anywhere_in_it(cohort: Few) -> None:
    for case in cohort.values():
        case.imaging[:] = np.arange(12)[:, None] * 100 + np.arange(14)
    batch = SlabSampler(cohort, slab=2, patch=10, batch=200, seed=0).batch(0, 0)
    corners = batch.images[:, 0, 0, 0, 0]
    assert set(corners.tolist()) == {row * 100 + col for row in range(3) for col in range(5)}


def test_kidney_slabs_have_kidney_in_their_middle_half(cohort: Few) -> None:
    for case in cohort.values():
        case.meta["kidney_range"] = [15, 16]
        case.meta["train_range"] = [0, 20]
        case.labels[:15] = 0
    sampler = SlabSampler(cohort, slab=4, patch=10, batch=300, seed=0, foreground_oversampling=0.5)
    middle = (sampler.batch(0, 0).labels[:, 0, 1:4] > 0).flatten(1).any(1).float().mean()
    assert 0.5 < middle < 0.75, "half of them on purpose, and some of the others by chance"
    sampler = SlabSampler(cohort, slab=4, patch=10, batch=50, seed=0, foreground_oversampling=1.0)
    assert (sampler.batch(0, 0).labels[:, 0, 1:4] > 0).flatten(1).any(1).all()


def test_large_organs_come_more_often_by_the_power_of_their_volume(cohort: Few) -> None:
    cohort["case_1"].meta["volumes_ml"]["tumor"] = 310.0  # 400 ml in all, the others 100
    for power, shares in (
        (0.0, [1 / 3, 1 / 3, 1 / 3]),
        (0.5, [1 / 4, 1 / 2, 1 / 4]),
        (1.0, [1 / 6, 2 / 3, 1 / 6]),
    ):
        sampler = SlabSampler(cohort, slab=4, patch=10, batch=3, seed=0, volume_power=power)
        names = [name for epoch in range(200) for name in sampler.batch(epoch, 0).case_ids]
        assert [names.count(name) / len(names) for name in cohort] == pytest.approx(
            shares, abs=0.04
        )


def test_a_range_shorter_than_the_slab_is_filled(cohort: Few) -> None:
    batch = SlabSampler(cohort, slab=32, patch=16, batch=2, seed=0).batch(0, 0)
    assert batch.images.shape == (2, 1, 32, 16, 16)
    assert (batch.labels[:, 0, -1] == 0).all()


@pytest.mark.parametrize("dims", ["2d", "2.5d", "3d"])
def test_the_same_key_gives_the_same_stack(cohort: Few, dims: str) -> None:
    first, again = (stacks(cohort, dims=dims).batch(2, 1) for _ in range(2))
    other = stacks(cohort, dims=dims).batch(2, 2)
    assert torch.equal(first.images, again.images) and first.case_ids == again.case_ids
    assert not torch.equal(first.images, other.images)
    shapes = {"2d": (4, 1, 8, 8), "2.5d": (4, 5, 8, 8), "3d": (4, 1, 5, 8, 8)}
    assert first.images.shape == shapes[dims]
    assert first.labels.shape == ((4, 1, 5, 8, 8) if dims == "3d" else (4, 1, 8, 8))


def test_processes_share_a_batch_without_changing_it(cohort: Few) -> None:
    sampler = stacks(cohort)
    whole = sampler.batch(0, 0)
    parts = [sampler.batch(0, 0, rank=rank, world=2) for rank in range(2)]
    assert torch.equal(whole.images, torch.cat([p.images for p in parts]))
    assert whole.seeds == parts[0].seeds + parts[1].seeds and len(set(whole.seeds)) == 4


def test_what_lies_outside_the_mask_is_air(cohort: Few) -> None:
    batch = stacks(cohort).batch(0, 0)
    assert (batch.images[:, 2][batch.labels[:, 0] == 0] == AIR).all()
    assert (batch.images[:, 2][batch.labels[:, 0] > 0] > 0).all()


def test_tumor_share_decides_how_many_centres_hold_tumour(cohort: Few) -> None:
    sampler = stacks(cohort, foreground_oversampling=1.0)
    assert all((sampler.batch(0, step).labels == 2).flatten(1).any(1).all() for step in range(5))
    sampler = stacks(cohort, foreground_oversampling=0.0, batch=300, patch=(12, 14))
    share = (sampler.batch(0, 0).labels == 2).flatten(1).any(1).float().mean()
    assert abs(share - 2 / 12) < 0.06, "any slice with kidney, those with tumour included"


def test_the_picked_voxel_lies_in_the_middle_half_or_the_whole_slice_is_seen(cohort: Few) -> None:
    batch = stacks(cohort, foreground_oversampling=1.0, batch=50).batch(0, 0)
    assert (batch.labels[:, 0, 1:7, 1:7] == 2).flatten(1).any(1).all()
    whole = stacks(cohort, foreground_oversampling=0.0, batch=50, patch=(16, 16)).batch(0, 0)
    kidney = (whole.labels > 0).flatten(1).sum(1)
    assert (kidney == 36).all(), "nothing of a slice smaller than the patch is cut off"
    first = (whole.labels[:, 0] > 0).flatten(1).int().argmax(1)
    assert len(first.unique()) > 5, "and where it lies in the patch varies"


def test_hard_slices_come_more_often_in_proportion(cohort: Few) -> None:
    sampler = stacks(cohort, batch=1, foreground_oversampling=0.0)
    difficulty = {name: np.zeros(20) for name in cohort}
    difficulty["case_1"][:] = 1.0
    sampler.set_difficulty(difficulty, gain=3.0, cap=10.0)
    names = [sampler.batch(0, step).case_ids[0] for step in range(600)]
    share = names.count("case_1") / len(names)  # weight 4 against 1 and 1
    assert abs(share - 4 / 6) < 0.06


def test_the_slices_drawn_most_are_named(cohort: Few) -> None:
    sampler = stacks(cohort)
    difficulty = {name: np.zeros(20) for name in cohort}
    difficulty["case_2"][[9, 12]], difficulty["case_0"][5] = (0.9, 1.0), 0.5
    sampler.set_difficulty(difficulty, gain=2.0, cap=10.0)
    assert sampler.drawn_most(2) == [("case_2", 12, 3.0), ("case_0", 5, 2.0)]


def test_weights_are_capped_and_versioned_and_resumed(cohort: Few) -> None:
    sampler = stacks(cohort)
    sampler.set_difficulty({name: np.ones(20) for name in cohort}, gain=9.0, cap=4.0)
    assert sampler.weights.max() == 4.0 and sampler.version == 1
    other = stacks(cohort)
    other.load_state(sampler.state())
    assert (other.weights == sampler.weights).all() and other.version == 1


def test_difficulty_of_a_case_that_is_not_trained_on_is_refused(cohort: Few) -> None:
    with pytest.raises(ValueError, match="case_held_out"):
        stacks(cohort).set_difficulty({"case_held_out": np.ones(20)}, gain=1.0, cap=2.0)


def test_slice_difficulty_on_paper() -> None:
    truth, found = np.zeros((4, 10, 10), bool), np.zeros((4, 10, 10), bool)
    truth[0, :5] = found[0, :5] = True  # right: 0
    truth[1, :5] = True  # 50 mm² missed: 1 - 50 / 100
    found[2] = True  # 100 mm² of false positives: 1 - 50 / 150
    hard = slice_difficulty(found, truth, pixel_mm2=1.0, soft_mm2=50.0)
    np.testing.assert_allclose(hard, [0, 0.5, 2 / 3, 0])
