"""Cases made while training: the order, the same samples after a restart, rough masks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from kitslib.commands.release import fresh_case
from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data import CaseStream, Entry, FreshSlabs, FreshStacks, fresh_entry, rough_mask
from kitslib.data.fresh import turn

KIDNEY = KidneyGrid(spacing_z=10.0, spacing_xy=10.0, average=True)
TUMOR = TumorGrid(spacing_z=10.0, spacing_xy=10.0, region="box", average=True)


class Here(CaseStream):
    """A stream that makes its cases in this process: a block of kidney, one of tumour."""

    def __init__(self, grid: KidneyGrid | TumorGrid) -> None:
        super().__init__(partial(block, grid=grid), key="k", ahead=4)
        self.made: dict[int, Entry] = {}

    def __getitem__(self, number: int) -> Entry:
        if number not in self.made:
            self.made[number] = self.make(number)
        return self.made[number]


def block(number: int, *, grid: KidneyGrid | TumorGrid) -> Entry:
    rng = np.random.default_rng(number)
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[6:14, 10:20, 5:15] = 1
    labels[8:12, 12:18, 15:20] = 2
    imaging = (40 * labels - 20 + rng.normal(0, 20, labels.shape)).astype(np.int16)
    return fresh_entry(f"fresh_{number}", imaging, labels, (10.0, 10.0, 10.0), grid, rng)


@pytest.mark.parametrize("grid", [KIDNEY, TUMOR])
def test_a_case_is_decided_by_its_number(grid: KidneyGrid | TumorGrid) -> None:
    how = {"seed": 3, "grid": grid, "patients": {"variety": "clinic", "tumor_free": 0.0}}
    first, again = (fresh_case(2, **how) for _ in range(2))
    assert np.array_equal(first.imaging, again.imaging)
    assert np.array_equal(first.labels, again.labels) and first.labels.any()
    assert first.mapping == again.mapping and first.spacing == (10, 10, 10)
    assert (first.mask is None) == (grid is KIDNEY)


def test_some_masks_leave_out_what_lies_outside_the_kidneys() -> None:
    shares = []
    for number in range(40):
        seen = block(number, grid=TUMOR).labels == 2
        shares.append(seen.sum() / (4 * 6 * 5))
    cut = sum(share < 0.7 for share in shares)
    assert 4 <= cut <= 25 and max(shares) == 1


def test_each_case_comes_as_often_as_the_others_and_never_again() -> None:
    order = [turn(position, group=3, visits=2) for position in range(12)]
    assert [number for number, _ in order] == [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
    assert sorted(order) == [(number, visit) for number in range(6) for visit in range(2)]


def slabs(stream: CaseStream) -> FreshSlabs:
    return FreshSlabs(
        stream, slab=16, patch=24, batch=2, cases=4, visits=2, seed=1, foreground_oversampling=0.5
    )


def stacks(stream: CaseStream) -> FreshStacks:
    return FreshStacks(
        stream, dims="2.5d", depth=5, patch=(16, 16), batch=4, steps=2, cases=4, seed=1,
        foreground_oversampling=0.5,
    )  # fmt: skip


@pytest.mark.parametrize(("make", "grid"), [(slabs, KIDNEY), (stacks, TUMOR)])
def test_samples_depend_on_epoch_and_step_alone(make: object, grid: object) -> None:
    through, resumed = make(Here(grid)), make(Here(grid))
    for epoch in range(2):
        last = [through.batch(epoch, step) for step in range(through.steps)]
    again = [resumed.batch(1, step) for step in range(resumed.steps)]
    for one, other in zip(last, again, strict=True):
        assert one.case_ids == other.case_ids
        assert (one.images == other.images).all() and (one.labels == other.labels).all()
    assert min(through.stream.made) == 0 < min(resumed.stream.made)
    assert resumed.state() == {}


def test_shapes_and_what_a_stack_shows() -> None:
    batch = slabs(Here(KIDNEY)).batch(0, 0)
    assert batch.images.shape == batch.labels.shape == (2, 1, 16, 24, 24)
    batch = stacks(Here(TUMOR)).batch(0, 0)
    assert batch.images.shape == (4, 5, 16, 16) and batch.labels.shape == (4, 1, 16, 16)
    hidden = batch.images[:, 2:3] == -1024
    assert hidden.any() and not batch.labels[hidden].any()  # no label where nothing is seen


def test_a_stream_makes_cases_in_another_process_and_forgets_them() -> None:
    stream = CaseStream(bytes, key="k", ahead=2)  # a case of this many zeros
    try:
        assert stream[0] == b"" and stream[1] == b"\0" and stream[0] == b""
        assert stream[6] == bytes(6) and sorted(stream._cases) == [6, 7]
    finally:
        stream.close()
    assert stream[3] == bytes(3)
    stream.close()


def test_rough_masks_differ_little_and_at_random() -> None:
    z, y, x = np.ogrid[:30, :40, :60]
    mask = (z - 15) ** 2 / 12**2 + (y - 20) ** 2 / 8**2 + (np.abs(x - 30) - 18) ** 2 / 8**2 < 1
    spacing, scores = (4.0, 3.0, 3.0), []
    for seed in range(20):
        rough = rough_mask(mask, spacing, np.random.default_rng(seed))
        assert rough.shape == mask.shape and rough.dtype == np.uint8
        scores.append(2 * (rough & mask).sum() / (rough.sum() + mask.sum()))
    assert 0.75 < np.median(scores) < 0.99 and np.std(scores) > 0.01
    first, again = (rough_mask(mask, spacing, np.random.default_rng(4)) for _ in range(2))
    assert np.array_equal(first, again)
    assert rough_mask(np.zeros((4, 8, 8), bool), spacing, np.random.default_rng(0)).all()
