"""Which slab, stack or slice comes next, from (seed, epoch, step) alone; and which ones come more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kitslib.data.cohort import Cohort

AIR = (
    -1024
)  # HU outside the kidney mask and beyond the edge; every window clips it to its lower end


@dataclass(frozen=True)
class Batch:
    """Samples as they lie in the cache: HU int16 (B, C, …), labels uint8 (B, 1, …), and where they come from."""

    images: Tensor
    labels: Tensor
    case_ids: tuple[str, ...]
    seeds: tuple[int, ...]


def _generator(*parts: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(parts))


def _share(count: int, rank: int, world: int) -> range:
    """The part of a batch that process `rank` of `world` takes."""
    return range(rank * count // world, (rank + 1) * count // world)


def cut(
    volume: np.ndarray, corner: tuple[int, ...], shape: tuple[int, ...], fill: int | None
) -> np.ndarray:
    """Cut a box out of a volume; beyond its edges stands `fill`, or the nearest voxel where that is None."""
    inside = tuple(
        slice(max(c, 0), max(min(c + n, s), 0))
        for c, n, s in zip(corner, shape, volume.shape, strict=True)
    )
    part = np.asarray(volume[inside])
    pad = [
        (max(-c, 0), max(c + n - s, 0)) for c, n, s in zip(corner, shape, volume.shape, strict=True)
    ]
    if not any(map(any, pad)):
        return part
    return (
        np.pad(part, pad, mode="edge") if fill is None else np.pad(part, pad, constant_values=fill)
    )


class SlabSampler:
    """Consecutive slices of random cases for the kidney network: every case `samples_per_case` times an epoch.
    With `volume_power` above 0 a case comes in proportion to its kidney and tumour volume to that power instead.

    A sample is `slab` slices of the range around the kidneys, `patch` × `patch` pixels at a random place.
    `foreground_oversampling` of the slabs have a slice with kidney in their middle half, the others lie anywhere in the range.
    """

    def __init__(
        self,
        cohort: Cohort,
        *,
        slab: int,
        patch: int,
        batch: int,
        seed: int,
        samples_per_case: int = 1,
        foreground_oversampling: float = 0.0,
        volume_power: float = 0.0,
    ) -> None:
        self.cohort, self.slab, self.patch, self.size, self.seed = cohort, slab, patch, batch, seed
        self.samples_per_case, self.foreground_oversampling = (
            samples_per_case,
            foreground_oversampling,
        )
        self.steps = -(-len(cohort.case_ids) * samples_per_case // batch)
        volumes = np.array(
            [sum(cohort[name].meta["volumes_ml"].values()) for name in cohort.case_ids]
        )
        self.drawn_until = np.cumsum(volumes**volume_power) / np.sum(volumes**volume_power)

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return images (B, 1, slab, patch, patch) and labels of the same shape."""
        order = np.concatenate([self._turn(epoch, turn) for turn in range(self.samples_per_case)])
        images, labels, names = [], [], []
        for index in _share(self.size, rank, world):
            position = step * self.size + index
            case_id = self.cohort.case_ids[order[position % len(order)]]
            image, label = self._slab(case_id, _generator(self.seed, epoch, position, 1))
            images.append(image)
            labels.append(label)
            names.append(case_id)
        key = (self.seed, epoch, step, rank)
        return Batch(
            torch.from_numpy(np.stack(images)[:, None]),
            torch.from_numpy(np.stack(labels)[:, None]),
            tuple(names),
            key,
        )

    def _turn(self, epoch: int, turn: int) -> np.ndarray:
        """As many case indices as there are cases: each once, or a large one more often and a small one less."""
        rng, count = _generator(self.seed, epoch, turn), len(self.cohort.case_ids)
        places = (rng.permutation(count) + rng.uniform(0.01, 0.99)) / count
        return np.searchsorted(self.drawn_until, places)

    def _slab(self, case_id: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        entry = self.cohort[case_id]
        first, last = entry.meta["train_range"]  # half open
        latest = max(last - self.slab, first)
        if rng.random() < self.foreground_oversampling:
            middle = int(rng.integers(*entry.meta["kidney_range"]))
            start = (
                middle - self.slab // 2 + int(rng.integers(-(self.slab // 4), self.slab // 4 + 1))
            )
            start = min(max(start, first), latest)
        else:
            start = int(rng.integers(first, latest + 1))
        room = [size - self.patch for size in entry.imaging.shape[1:]]
        corner = (start, *(int(rng.integers(0, n + 1)) if n > 0 else n // 2 for n in room))
        shape = (self.slab, self.patch, self.patch)
        return cut(entry.imaging, corner, shape, None), cut(entry.labels, corner, shape, 0)

    def state(self) -> dict[str, Any]:
        """Nothing: the draw depends on (seed, epoch, step) alone."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


class StackSampler:
    """Slices with kidney, each with its neighbours, for the tumour network.

    `foreground_oversampling` of the samples are centred on a tumour; the others anywhere on a kidney, the other one of a patient
    with a tumour included. A slice is drawn in proportion to its weight: 1 everywhere until `set_difficulty`
    changes it.
    """

    def __init__(
        self,
        cohort: Cohort,
        *,
        dims: Literal["2d", "2.5d", "3d"],
        depth: int,
        patch: tuple[int, int],
        batch: int,
        steps: int,
        seed: int,
        foreground_oversampling: float,
    ) -> None:
        self.cohort, self.dims, self.patch, self.size = cohort, dims, patch, batch
        self.depth = 1 if dims == "2d" else depth
        self.steps, self.seed, self.foreground_oversampling = steps, seed, foreground_oversampling
        cases, slices, tumor = [], [], []
        for index, case_id in enumerate(cohort.case_ids):
            labels = cohort[case_id].labels
            flat = labels.reshape(len(labels), -1)
            kept = np.flatnonzero((flat > 0).any(axis=1))
            cases.append(np.full(len(kept), index))
            slices.append(kept)
            tumor.append((flat[kept] == 2).any(axis=1))
        self.case_index = np.concatenate(cases)
        self.slice_index = np.concatenate(slices)
        self.has_tumor = np.concatenate(tumor)
        self.weights = np.ones(len(self.case_index), np.float64)
        self.version = 0  # counts the measurements of the difficulty

    def set_difficulty(self, difficulty: dict[str, np.ndarray], *, gain: float, cap: float) -> None:
        """Weight each slice by 1 + gain × difficulty, at most `cap`; `difficulty[case]` is (D,) in [0, 1]."""
        unknown = set(difficulty) - set(self.cohort.case_ids)
        if unknown:
            raise ValueError(
                f"difficulty was measured on cases that are not trained on: {', '.join(sorted(unknown))}"
            )
        for index, case_id in enumerate(self.cohort.case_ids):
            here = self.case_index == index
            self.weights[here] = np.minimum(
                1 + gain * difficulty[case_id][self.slice_index[here]], cap
            )
        self.version += 1

    def drawn_most(self, count: int) -> list[tuple[str, int, float]]:
        """The heaviest slice of each of the `count` cases that have the heaviest: case id, slice, weight."""
        found: dict[int, tuple[str, int, float]] = {}
        for place in np.argsort(-self.weights, kind="stable"):
            case = int(self.case_index[place])
            found.setdefault(
                case,
                (
                    self.cohort.case_ids[case],
                    int(self.slice_index[place]),
                    float(self.weights[place]),
                ),
            )
            if len(found) == count:
                break
        return list(found.values())

    def batch(self, epoch: int, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return images (B, depth, rows, cols), or (B, 1, depth, rows, cols) in 3D, and labels (B, 1, …)."""
        images, labels, names = [], [], []
        for index in _share(self.size, rank, world):
            rng = _generator(self.seed, epoch, step, index)
            on_tumor = bool(rng.random() < self.foreground_oversampling and self.has_tumor.any())
            weights = np.cumsum(self.weights * self.has_tumor if on_tumor else self.weights)
            chosen = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
            case_id = self.cohort.case_ids[self.case_index[chosen]]
            image, label = self._stack(case_id, int(self.slice_index[chosen]), on_tumor, rng)
            images.append(image)
            labels.append(label)
            names.append(case_id)
        image, label = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))
        if self.dims == "3d":
            image, label = image[:, None], label[:, None]
        return Batch(image, label, tuple(names), (self.seed, epoch, step, rank))

    def _stack(
        self, case_id: str, z: int, on_tumor: bool, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        entry = self.cohort[case_id]
        labels = entry.labels[z]
        rows, cols = np.nonzero(labels == 2 if on_tumor else labels > 0)
        pick = int(rng.integers(len(rows)))
        corner = [z - self.depth // 2]
        for centre, size, whole in zip(
            (rows[pick], cols[pick]), self.patch, labels.shape, strict=True
        ):
            if whole <= size:  # anywhere, so long as the whole slice is seen
                corner.append(int(rng.integers(whole - size, 1)))
            else:  # the picked voxel in the middle half
                corner.append(int(centre - size // 2 + rng.integers(-(size // 4), size // 4 + 1)))
        shape = (self.depth, *self.patch)
        image = cut(entry.imaging, tuple(corner), shape, None)
        mask = cut(entry.mask, tuple(corner), shape, 0)
        label = cut(entry.labels, tuple(corner), shape, 0)
        if self.dims != "3d":
            label = label[self.depth // 2][None]
        return np.where(mask > 0, image, np.int16(AIR)), label

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

    `soft_mm2` in numerator and denominator makes a slice without tumour as hard as its false-positive area
    is large, and keeps a few wrong pixels from counting as much as a missed tumour.
    """
    axes = (1, 2)
    both = (prediction & truth).sum(axes) * pixel_mm2
    either = (prediction.sum(axes) + truth.sum(axes)) * pixel_mm2
    return 1 - (2 * both + soft_mm2) / (either + soft_mm2)
