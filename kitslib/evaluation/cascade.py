"""CT to label map: kidney network, mask, tumour network, largest component, back in native geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import nn

from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data import kidney_input, tumor_input
from kitslib.evaluation.inference import (
    Autocast,
    Reading,
    largest_components,
    predict_slabs,
    predict_stacks,
    predict_tiles,
)
from kitslib.transforms import HU_WINDOWS, hide_outside, mirror, restore_mask

Triple = tuple[float, float, float]


def _both_ways(look: Callable[..., np.ndarray], *volumes: np.ndarray) -> np.ndarray:
    """The mean of what `look` finds and of what it finds in the left-right mirrored volumes, mirrored back."""
    other = look(*(mirror(volume, "sagittal").copy() for volume in volumes))
    return (look(*volumes) + mirror(other, "sagittal")) / 2


@dataclass(frozen=True, kw_only=True)
class KidneyStage:
    """A trained kidney network and how it is applied: grid, HU reading, windows, components kept.

    `test_time_mirroring` averages what is found with what is found in the left-right mirrored scan (test-time augmentation).
    The components kept are the largest by `components_by`: "volume", or "certainty", the sum of 2 p - 1 over voxels of
    probability p, by which a doubtful organ gives way to a smaller one that is surely a kidney.
    """

    network: nn.Module
    grid: KidneyGrid
    hu: str
    window: Reading
    window_slices: int
    components: int
    components_by: Literal["volume", "certainty"] = "volume"
    test_time_mirroring: bool = False

    @classmethod
    def of(cls, network: nn.Module, settings: dict[str, Any]) -> KidneyStage:
        """Build the stage from the settings that its run was trained with."""
        names, newer = (
            ("hu", "window", "window_slices", "components"),
            ("components_by", "test_time_mirroring"),
        )
        training = settings["training"]
        return cls(
            network=network,
            grid=KidneyGrid(**settings["grid"]),
            **{n: training[n] for n in names},
            **{n: training[n] for n in newer if n in training},
        )

    def probability(self, volume: np.ndarray, autocast: Autocast) -> np.ndarray:
        """Return the kidney probability (D, H, W) float16 on the stage grid, zero outside the kept components."""

        def look(volume: np.ndarray) -> np.ndarray:
            how = {"size": self.window_slices, "reading": self.window, "autocast": autocast}
            return predict_slabs(self.network, volume, HU_WINDOWS[self.hu], **how)

        found = _both_ways(look, volume) if self.test_time_mirroring else look(volume)
        surely = found > 0.5
        weight = 2 * found.astype(np.float32) - 1 if self.components_by == "certainty" else None
        dropped = surely & ~largest_components(surely, self.components, weight)
        found[dropped] = 0
        return found

    def mask(self, imaging: np.ndarray, spacing: Triple, autocast: Autocast) -> np.ndarray:
        """Return the kidneys (with what grows in them) as uint8 0/1 in the scan's own grid."""
        volume, mapping = kidney_input(imaging, spacing, self.grid)
        native = restore_mask(self.probability(volume, autocast), mapping)
        return largest_components(native > 0, self.components).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class TumorStage:
    """A trained tumour network and how it is applied: grid, HU reading, pixels and slices seen at a time.

    `test_time_mirroring` averages what is found with what is found in the left-right mirrored kidneys (test-time augmentation).
    """

    network: nn.Module
    grid: TumorGrid
    hu: str
    dims: Literal["2d", "2.5d", "3d"]
    patch: tuple[int, int]
    slices: int
    slab: int
    test_time_mirroring: bool = False

    @classmethod
    def of(cls, network: nn.Module, settings: dict[str, Any]) -> TumorStage:
        """Build the stage from the settings that its run was trained with."""
        names = ("hu", "slices", "slab")
        rows, cols = settings["training"]["patch"]
        return cls(
            network=network,
            grid=TumorGrid(**settings["grid"]),
            dims=settings["arm"]["dims"],
            patch=(rows, cols),
            **{n: settings["training"][n] for n in names},
            test_time_mirroring=settings["training"].get(
                "test_time_mirroring", False
            ),  # older networks do not say
        )

    def probability(self, volume: np.ndarray, mask: np.ndarray, autocast: Autocast) -> np.ndarray:
        """Return the tumour probability (D, H, W) float16 on the stage grid, zero outside the kidney mask."""
        look = partial(self.look, autocast=autocast)
        return _both_ways(look, volume, mask) if self.test_time_mirroring else look(volume, mask)

    def look(
        self, volume: np.ndarray, mask: np.ndarray, autocast: Autocast, *, every: int = 1
    ) -> np.ndarray:
        """Return the probability that one look gives, whatever `test_time_mirroring` says.

        With `every` above 1, a 2D or 2.5D network looks at each n-th slice only, and those between are interpolated.
        """
        window = HU_WINDOWS[self.hu]
        depth = 1 if self.dims == "2d" else self.slices

        def predict(tile: np.ndarray) -> np.ndarray:
            if self.dims == "3d":
                return predict_slabs(
                    self.network, tile, window, size=2 * self.slab, autocast=autocast
                )
            return predict_stacks(
                self.network, tile, window, depth=depth, every=every, autocast=autocast
            )

        context = self.slab // 2 if self.dims == "3d" else depth // 2
        seen = hide_outside(volume, mask, window)
        return predict_tiles(
            predict, seen, mask, patch=self.patch, context=context, fill=int(window.low)
        )

    def mask(
        self, imaging: np.ndarray, kidney: np.ndarray, spacing: Triple, autocast: Autocast
    ) -> np.ndarray:
        """Return all tumour found, before components are dropped, as uint8 0/1 in the scan's own grid."""
        volume, mask, mapping = tumor_input(imaging, kidney, spacing, self.grid)
        return restore_mask(self.probability(volume, mask, autocast), mapping)


@dataclass(frozen=True)
class Segmentation:
    """What the cascade found, all uint8 (D, H, W) in the scan's own grid.

    labels: 0 background, 1 kidney, 2 tumour (the largest component). kidney: the first stage's mask.
    tumor: all that the second stage found, before the component step.
    """

    labels: np.ndarray
    kidney: np.ndarray
    tumor: np.ndarray


def segment(
    imaging: np.ndarray,
    spacing: Triple,
    kidney_stage: KidneyStage,
    tumor_stage: TumorStage,
    *,
    autocast: Autocast,
    kidney: np.ndarray | None = None,
) -> Segmentation:
    """Segment one scan (D, H, W) int16 HU of `spacing` (z, y, x) mm.

    `kidney`, a mask in the scan's grid, takes the place of the first stage (to see what a perfect one would give).
    A scan in which no kidney is found gets an empty label map.
    """
    if kidney is None:
        kidney = kidney_stage.mask(imaging, spacing, autocast)
    if not kidney.any():
        empty = np.zeros(imaging.shape, np.uint8)
        return Segmentation(empty, empty, empty)
    tumor = tumor_stage.mask(imaging, kidney, spacing, autocast)
    return Segmentation(compose(kidney, tumor), kidney, tumor)


def compose(kidney: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """Return the label map of a kidney mask and a tumour mask: the tumour's largest component wins over kidney."""
    labels = (kidney > 0).astype(np.uint8)
    labels[largest_components(tumor > 0, 1)] = 2
    return labels
