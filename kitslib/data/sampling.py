"""Which slab, stack or slice comes next, from (seed, epoch, step) alone; and which more often."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kitslib.data.cohort import Cohort, Entry

AIR = -1024  # HU outside the kidney mask; every HU window clips it to its lower end
Sample = tuple[np.ndarray, np.ndarray, str]  # image (C, …), labels (1, …), case id


@dataclass(frozen=True)
class Batch:
    """Samples as they lie in the cache: HU int16 (B, C, …), labels uint8 (B, 1, …), and origin."""

    images: Tensor
    labels: Tensor
    case_ids: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]  # of each sample: what is drawn for it besides


def cut(
    volume: np.ndarray, corner: Sequence[int], shape: Sequence[int], fill: int | None
) -> np.ndarray:
    """Cut a box out of a volume; beyond its edges stands `fill`, or with None the nearest voxel."""
    inside, pad = [], []
    for start, size, whole in zip(corner, shape, volume.shape, strict=True):
        inside.append(slice(max(start, 0), max(min(start + size, whole), 0)))
        pad.append((max(-start, 0), max(start + size - whole, 0)))
    part = np.asarray(volume[tuple(inside)])
    if not np.any(pad):
        return part
    how = {"mode": "edge"} if fill is None else {"constant_values": fill}
    return np.pad(part, pad, **how)


class _Sampler:
    """Batches of samples; each depends on (seed, epoch, step, place in the batch) alone."""

    size: int
    seed: int
    _sample: Callable[[int, int, int], Sample]  # of (epoch, step, place)

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return what process `rank` of `world` takes of a batch.

        Images: (B, slices, rows, cols), in 3D (B, 1, slices, rows, cols); labels: (B, 1, …).
        """
        places = range(rank * self.size // world, (rank + 1) * self.size // world)
        samples = [self._sample(epoch, step, place) for place in places]
        *arrays, case_ids = zip(*samples, strict=True)
        images, labels = (torch.from_numpy(np.stack(each)) for each in arrays)
        seeds = tuple((self.seed, epoch, step, place) for place in places)
        return Batch(images, labels, case_ids, seeds)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs besides (seed, epoch, step) to draw the same samples."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""


class SlabSampler(_Sampler):
    """Consecutive slices of random cases for the kidney network.

    A sample is `slab` slices of the range around the kidneys, `patch` × `patch` pixels anywhere.
    Every case comes `samples_per_case` times an epoch, with `volume_power` above 0 in proportion to
    its kidney and tumour volume to that power. `foreground_oversampling` of the slabs have a slice
    with kidney in their middle half, the others lie anywhere in the range.
    """

    fitted = False  # whether a patch is no larger than the case's slices

    def __init__(
        self, cohort: Cohort, *, slab: int, patch: int, batch: int, seed: int,
        samples_per_case: int = 1, foreground_oversampling: float = 0.0, volume_power: float = 0.0,
    ) -> None:  # fmt: skip
        self.cohort, self.slab, self.patch, self.size, self.seed = cohort, slab, patch, batch, seed
        self.foreground_oversampling = foreground_oversampling
        self.samples = len(cohort.case_ids) * samples_per_case  # of an epoch
        self.steps = -(-self.samples // batch)
        ml = [sum(cohort[name].meta["volumes_ml"].values()) for name in cohort.case_ids]
        weights = np.array(ml) ** volume_power
        self.drawn_until = np.cumsum(weights) / np.sum(weights)

    def _sample(self, epoch: int, step: int, place: int) -> Sample:
        position, count = step * self.size + place, len(self.cohort.case_ids)
        turn, turn_place = divmod(position % self.samples, count)
        case_id = self.cohort.case_ids[self._turn(epoch, turn)[turn_place]]
        rng = np.random.default_rng((self.seed, epoch, position, 1))
        return *self._cut(self.cohort[case_id], rng), case_id

    def _cut(self, entry: Entry, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A slab of a case and its labels."""
        first, last = entry.meta["train_range"]  # half open
        latest = max(last - self.slab, first)
        if rng.random() < self.foreground_oversampling:
            middle = int(rng.integers(*entry.meta["kidney_range"])) - self.slab // 2
            start = middle + int(rng.integers(-(self.slab // 4), self.slab // 4 + 1))
            corner = [min(max(start, first), latest)]
        else:
            corner = [int(rng.integers(first, latest + 1))]
        shape = [self.slab]
        for whole in entry.imaging.shape[1:]:
            shape.append(min(self.patch, whole) if self.fitted else self.patch)
            room = whole - shape[-1]
            corner.append(int(rng.integers(0, room + 1)) if room > 0 else room // 2)
        image = cut(entry.imaging, corner, shape, None)
        return image[None], cut(entry.labels, corner, shape, 0)[None]

    def _turn(self, epoch: int, turn: int) -> np.ndarray:
        """As many case indices as cases: each once, or large ones more often than small ones."""
        rng, count = np.random.default_rng((self.seed, epoch, turn)), len(self.cohort.case_ids)
        places = (rng.permutation(count) + rng.uniform(0.01, 0.99)) / count
        return np.searchsorted(self.drawn_until, places)


class StackSampler(_Sampler):
    """Slices with kidney, each with its neighbours, for the tumour network.

    `foreground_oversampling` of the samples are centred on a tumour, the others anywhere on a
    kidney. A slice is drawn in proportion to its weight: 1 until `set_difficulty` changes it.
    """

    def __init__(
        self, cohort: Cohort, *, dims: Literal["2d", "2.5d", "3d"], depth: int,
        patch: tuple[int, int], batch: int, steps: int, seed: int, foreground_oversampling: float,
    ) -> None:  # fmt: skip
        self.cohort, self.dims, self.patch, self.size = cohort, dims, patch, batch
        self.depth = 1 if dims == "2d" else depth
        self.steps, self.seed, self.foreground_oversampling = steps, seed, foreground_oversampling
        found = []  # of each case: its index, its slices with kidney, and whether they hold tumour
        for index, case_id in enumerate(cohort.case_ids):
            labels = cohort[case_id].labels
            kept = np.flatnonzero((labels > 0).any(axis=(1, 2)))
            tumor = (labels[kept] == 2).any(axis=(1, 2))
            found.append((np.full(len(kept), index), kept, tumor))
        parts = zip(*found, strict=True)
        self.case_index, self.slice_index, self.has_tumor = map(np.concatenate, parts)
        self.weights = np.ones(len(self.case_index), np.float64)
        self.version = 0  # counts the measurements of the difficulty

    def set_difficulty(self, difficulty: dict[str, np.ndarray], *, gain: float, cap: float) -> None:
        """Weight slices by 1 + gain × difficulty, at most `cap`; difficulty[case]: (D,) in [0, 1].

        Raises ValueError for a case that is not in the cohort.
        """
        if unknown := sorted(set(difficulty) - set(self.cohort.case_ids)):
            text = f"expected difficulty of training cases, got other cases: {', '.join(unknown)}"
            raise ValueError(f"{text}; measure it on these alone")
        for index, case_id in enumerate(self.cohort.case_ids):
            here = self.case_index == index
            raised = 1 + gain * difficulty[case_id][self.slice_index[here]]
            self.weights[here] = np.minimum(raised, cap)
        self.version += 1

    def drawn_most(self, count: int) -> list[tuple[str, int, float]]:
        """The heaviest slice of each of the `count` heaviest cases: case id, slice, weight."""
        heaviest = np.argsort(-self.weights, kind="stable")
        _, first = np.unique(self.case_index[heaviest], return_index=True)
        chosen = heaviest[np.sort(first)[:count]]
        ids = [self.cohort.case_ids[index] for index in self.case_index[chosen]]
        numbers = self.slice_index[chosen].tolist(), self.weights[chosen].tolist()
        return list(zip(ids, *numbers, strict=True))

    def _sample(self, epoch: int, step: int, place: int) -> Sample:
        rng = np.random.default_rng((self.seed, epoch, step, place))
        on_tumor = bool(rng.random() < self.foreground_oversampling and self.has_tumor.any())
        weights = np.cumsum(self.weights * self.has_tumor if on_tumor else self.weights)
        chosen = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
        case_id = self.cohort.case_ids[self.case_index[chosen]]
        entry, z = self.cohort[case_id], int(self.slice_index[chosen])
        labels = entry.labels[z]
        voxels = np.argwhere(labels == 2 if on_tumor else labels > 0)
        return *self._cut(entry, z, voxels, rng), case_id

    def _cut(
        self, entry: Entry, z: int, voxels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A stack and its labels around one of some voxels (row, column) of slice z."""
        centre = voxels[int(rng.integers(len(voxels)))]
        corner = [z - self.depth // 2]
        for middle, size, whole in zip(centre, self.patch, entry.labels.shape[1:], strict=True):
            if whole <= size:  # anywhere, so long as the whole slice is seen
                corner.append(int(rng.integers(whole - size, 1)))
            else:  # the picked voxel in the middle half
                corner.append(int(middle - size // 2 + rng.integers(-(size // 4), size // 4 + 1)))
        shape = (self.depth, *self.patch)
        mask, label = cut(entry.mask, corner, shape, 0), cut(entry.labels, corner, shape, 0)
        image = np.where(mask > 0, cut(entry.imaging, corner, shape, None), np.int16(AIR))
        if self.dims == "3d":
            return image[None], label[None]
        return image, label[self.depth // 2][None]

    def state(self) -> dict[str, Any]:
        """Return the weights, so that a resumed run draws the same slices."""
        return {"weights": torch.from_numpy(self.weights.copy()), "version": self.version}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take the weights of a checkpoint."""
        self.weights, self.version = state["weights"].numpy().copy(), state["version"]


def slice_difficulty(
    prediction: np.ndarray, truth: np.ndarray, *, pixel_mm2: float, soft_mm2: float = 50.0
) -> np.ndarray:
    """Return 1 − Dice of each slice, (D,) in [0, 1], from boolean volumes (D, H, W).

    `soft_mm2` in numerator and denominator makes a slice without tumour as hard as its
    false-positive area is large, and keeps a few wrong pixels from counting as a missed tumour.
    """
    both = (prediction & truth).sum((1, 2)) * pixel_mm2
    either = (prediction.sum((1, 2)) + truth.sum((1, 2))) * pixel_mm2
    return 1 - (2 * both + soft_mm2) / (either + soft_mm2)
