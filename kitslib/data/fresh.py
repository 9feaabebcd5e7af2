"""Cases that are made while a training runs, never the same twice, and samples of them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Literal

import numpy as np
from scipy import ndimage

from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data.cohort import Entry
from kitslib.data.sampling import Sample, SlabSampler, StackSampler
from kitslib.data.stages import kidney_input, stage_labels, tumor_input
from kitslib.transforms import Triple, kidney_slices

COARSE_MM = 4.0  # cells of a rough mask
WAVE_CELLS = 4.0  # of its errors
MISSED = 0.3  # share of rough masks without what of the tumours lies outside the kidneys


class CaseStream:
    """Cases by number, made by other processes `ahead` of those that are asked for.

    make: what gives a case's entry from its number alone; it is sent to the processes. key: what
    changes with the cases. Numbers are asked for in rising order, but for those of `ahead` before.
    """

    def __init__(
        self, make: Callable[[int], Entry], *, key: str, ahead: int = 16, jobs: int = 1
    ) -> None:
        self.make, self.key, self.ahead, self.jobs = make, key, ahead, jobs
        self._pool: ProcessPoolExecutor | None = None
        self._cases: dict[int, Future[Entry]] = {}

    def __getitem__(self, number: int) -> Entry:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.jobs, context, _end_with, (os.getpid(),))
        for wanted in range(number, number + self.ahead):
            if wanted not in self._cases:
                self._cases[wanted] = self._pool.submit(self.make, wanted)
        for old in [other for other in self._cases if other < number - self.ahead]:
            self._cases.pop(old).cancel()
        return self._cases[number].result()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._cases = None, {}


def _end_with(parent: int) -> None:
    """Let this process end soon after the one that started it, which may be killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def turn(position: int, *, group: int, visits: int) -> tuple[int, int]:
    """The number of the case that a sample is of, and its how-many-eth sample it is, from 0.

    `group` cases take turns until each has given `visits` samples; then come the next ones.
    """
    block, place = divmod(position, group * visits)
    visit, member = divmod(place, group)
    return block * group + member, visit


class FreshSlabs(SlabSampler):
    """Slabs of fresh cases for the kidney network, `visits` of each; see `SlabSampler`.

    Where they come one at a time, no slab is larger in plane than what the body fills.
    """

    def __init__(
        self, stream: CaseStream, *, slab: int, patch: int, batch: int, cases: int, visits: int,
        seed: int, foreground_oversampling: float,
    ) -> None:  # fmt: skip
        self.stream, self.slab, self.patch, self.size, self.seed = stream, slab, patch, batch, seed
        self.visits, self.foreground_oversampling = visits, foreground_oversampling
        self.fitted = batch == 1
        self.steps = -(-cases * visits // batch)

    def _sample(self, epoch: int, step: int, place: int) -> Sample:
        position = (epoch * self.steps + step) * self.size + place
        number, visit = turn(position, group=self.stream.ahead // 2, visits=self.visits)
        rng = np.random.default_rng((self.seed, number, visit, 3))
        entry = self.stream[number]
        return *self._cut(entry, rng), entry.case_id


class FreshStacks(StackSampler):
    """Stacks of fresh cases for the tumour network, as many of each as fill `steps` batches.

    Half of them, or as `foreground_oversampling` says, are centred on tumour where there is any,
    the others anywhere in the kidney mask, also where it is wrong.
    """

    def __init__(
        self, stream: CaseStream, *, dims: Literal["2d", "2.5d", "3d"], depth: int,
        patch: tuple[int, int], batch: int, steps: int, cases: int, seed: int,
        foreground_oversampling: float,
    ) -> None:  # fmt: skip
        self.stream, self.dims, self.patch, self.size = stream, dims, patch, batch
        self.depth = 1 if dims == "2d" else depth
        self.steps, self.seed, self.foreground_oversampling = steps, seed, foreground_oversampling
        self.visits = max(1, steps * batch // cases)

    def _sample(self, epoch: int, step: int, place: int) -> Sample:
        position = (epoch * self.steps + step) * self.size + place
        number, visit = turn(position, group=self.stream.ahead // 2, visits=self.visits)
        entry, rng = self.stream[number], np.random.default_rng((self.seed, number, visit, 4))
        where = entry.mask > 0
        if rng.random() < self.foreground_oversampling and (entry.labels == 2).any():
            where = entry.labels == 2
        z = int(rng.choice(np.flatnonzero(where.any(axis=(1, 2)))))
        return *self._cut(entry, z, np.argwhere(where[z]), rng), entry.case_id

    def state(self) -> dict:
        """Nothing: a sample is decided by its number."""
        return {}

    def load_state(self, state: dict) -> None:
        """Nothing to take."""


def fresh_entry(
    name: str, imaging: np.ndarray, labels: np.ndarray, spacing: Triple,
    grid: KidneyGrid | TumorGrid, rng: np.random.Generator,
) -> Entry:  # fmt: skip
    """What a stage's network is trained on of a case: as `prepare` makes it, from arrays.

    imaging: int16 HU (D, H, W); labels: the same shape. Slabs come from everywhere. The tumour
    stage has a `rough_mask` of the kidneys, and no tumour outside it.
    """
    if isinstance(grid, KidneyGrid):
        image, mapping = kidney_input(imaging, spacing, grid)
        stage, mask = stage_labels(labels, mapping), None
        found = stage if stage.any() else np.ones_like(stage)
        meta = {"train_range": [0, len(stage)], "kidney_range": list(kidney_slices(found))}
    else:
        seen = labels > 0 if rng.random() >= MISSED else (labels > 0) & (labels != 2)
        rough = rough_mask(seen, spacing, rng)
        image, mask, mapping = tumor_input(imaging, rough, spacing, grid)
        stage, meta = stage_labels(labels, mapping) * mask, {}
    meta["mapping"] = mapping.to_json()
    return Entry(case_id=name, imaging=image, labels=stage, mask=mask, meta=meta)


def rough_mask(mask: np.ndarray, spacing: Triple, rng: np.random.Generator) -> np.ndarray:
    """A mask with the errors that a kidney network makes, uint8 0/1; drawn at random.

    Its surface lies some mm off, in waves; balls beside it are taken for kidney, and some of it is
    missed. Where nothing is left the mask comes back as it was; an empty one is all ones.
    """
    step = [max(1, round(COARSE_MM / s)) for s in spacing]
    cell = np.multiply(step, spacing)
    coarse = mask[:: step[0], :: step[1], :: step[2]]
    if not coarse.any():  # kidneys that the field of view leaves out
        return np.ones(mask.shape, np.uint8)
    waves = ndimage.gaussian_filter(rng.standard_normal(coarse.shape), WAVE_CELLS)
    waves *= rng.uniform(0, 2.5) / max(float(waves.std()), 1e-6)
    away = ndimage.distance_transform_edt(~coarse, cell)
    away = away - ndimage.distance_transform_edt(coarse, cell)
    found = away + waves + rng.normal(-0.5, 1.5) < 0
    where = np.argwhere(coarse)
    axes = np.ogrid[tuple(slice(0, n) for n in coarse.shape)]
    for share, far, sizes, value in ((0.45, 28.0, (5, 26), True), (0.2, 8.0, (6, 20), False)):
        for _ in range(rng.poisson(share)):
            center = where[rng.integers(len(where))] * cell + rng.normal(0, far, 3)
            ball = np.zeros((1, 1, 1))
            for axis, radius in enumerate(rng.uniform(*sizes, 3)):
                ball = ball + ((axes[axis] * cell[axis] - center[axis]) / radius) ** 2
            found[ball < 1] = value
    if not found.any():
        return mask.astype(np.uint8)
    fine = found.repeat(step[0], 0).repeat(step[1], 1).repeat(step[2], 2)
    return fine[: mask.shape[0], : mask.shape[1], : mask.shape[2]].astype(np.uint8)
