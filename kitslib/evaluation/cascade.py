"""CT to label map: kidney network, mask, tumour network, largest component, native geometry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, NamedTuple

import cc3d
import numpy as np
from torch import nn

from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data import kidney_input, tumor_input
from kitslib.evaluation.decision import Decisions, contrast
from kitslib.evaluation.inference import (
    Autocast,
    Reading,
    largest_components,
    predict_slabs,
    predict_stacks,
    predict_tiles,
)
from kitslib.evaluation.metrics.surface import Spacing
from kitslib.transforms import HU_WINDOWS, Mapping, hide_outside, mirror, restore_mask


def _with_mirrored(predict: Callable[..., np.ndarray], *volumes: np.ndarray) -> np.ndarray:
    """The mean of what `predict` gives for volumes and, mirrored back, for their mirror images."""
    mirrored = predict(*(mirror(volume, "sagittal").copy() for volume in volumes))
    return (predict(*volumes) + mirror(mirrored, "sagittal")) / 2


@dataclass(frozen=True, kw_only=True)
class KidneyStage:
    """A trained kidney network and how it is applied: grid, HU window, windows, components kept.

    `test_time_mirroring` takes the mean probability of the scan and its left-right mirror image.
    The components kept are the largest by `components_by`: "volume", or "certainty", the sum of
    2 p - 1 over voxels of probability p, by which a doubtful organ gives way to a sure smaller one.
    In the scan's grid, components of less than `least_ml` are dropped: some people have one kidney.
    """

    network: nn.Module
    grid: KidneyGrid
    hu: str
    window: Reading
    window_slices: int
    components: int
    components_by: Literal["volume", "certainty"] = "volume"
    test_time_mirroring: bool = False
    least_ml: float = 0.0

    @classmethod
    def of(cls, network: nn.Module, settings: dict[str, Any]) -> KidneyStage:
        """Build the stage from the settings that its run was trained with."""
        names = [item.name for item in fields(cls) if item.name not in ("network", "grid")]
        names.remove("least_ml")
        how = {name: settings["training"][name] for name in names}
        how["least_ml"] = settings["training"].get("least_ml", 0.0)  # came later than the others
        return cls(network=network, grid=KidneyGrid(**settings["grid"]), **how)

    def probability(self, volume: np.ndarray, autocast: Autocast) -> np.ndarray:
        """Return the probability (D, H, W) float16 on the stage grid, 0 off the components kept."""
        predict = partial(
            predict_slabs, self.network, hu=HU_WINDOWS[self.hu], size=self.window_slices,
            reading=self.window, autocast=autocast,
        )  # fmt: skip
        found = _with_mirrored(predict, volume) if self.test_time_mirroring else predict(volume)
        by_volume, kidney = self.components_by == "volume", found > 0.5
        weight = None if by_volume else 2 * found.astype(np.float32) - 1
        found[kidney & ~largest_components(kidney, self.components, weight)] = 0
        return found

    def mask(self, imaging: np.ndarray, spacing: Spacing, autocast: Autocast) -> np.ndarray:
        """Return kidneys and masses as uint8 0/1 in the scan's own grid."""
        volume, mapping = kidney_input(imaging, spacing, self.grid)
        return self.restored(self.probability(volume, autocast), mapping)

    def restored(self, probability: np.ndarray, mapping: Mapping) -> np.ndarray:
        """Return a probability of the stage grid as the mask in the scan's own grid."""
        native = restore_mask(probability, mapping)
        kept = largest_components(native > 0, self.components)
        least = math.ceil(1000 * self.least_ml / math.prod(mapping.native.spacing))
        if least > 1:
            kept = cc3d.dust(kept, threshold=least, connectivity=26)
        return kept.astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class TumorStage:
    """A trained tumour network and how it is applied: grid, HU window, tile and slices per input.

    `test_time_mirroring` takes the mean probability of the kidneys and their mirror image. 2D and
    2.5D networks see slices as in `predict_stacks`, `every` as there.
    """

    network: nn.Module
    grid: TumorGrid
    hu: str
    dims: Literal["2d", "2.5d", "3d"]
    patch: tuple[int, int]
    slices: int
    slab: int
    window_slices: int | None = None  # in 3D; None: twice the slab
    every: int = 1
    test_time_mirroring: bool = False
    decisions: Decisions | None = None  # which components count as tumour; None: all

    @classmethod
    def of(cls, network: nn.Module, settings: dict[str, Any]) -> TumorStage:
        """Build the stage from the settings that its run was trained with."""
        names = "hu", "slices", "slab", "test_time_mirroring"
        how = {name: settings["training"][name] for name in names}
        how["window_slices"] = settings["training"].get("window_slices")
        how["every"] = settings["training"].get("scored_every", 1)
        how |= {"dims": settings["arm"]["dims"], "patch": tuple(settings["training"]["patch"])}
        if found := settings.get("decision"):
            how["decisions"] = Decisions.of(found)
        return cls(network=network, grid=TumorGrid(**settings["grid"]), **how)

    def probability(self, volume: np.ndarray, mask: np.ndarray, autocast: Autocast) -> np.ndarray:
        """Return the tumour probability (D, H, W) float16 on the stage grid, zero off `mask`."""
        hu = HU_WINDOWS[self.hu]
        if self.dims == "3d":
            size = self.window_slices or 2 * self.slab
            predict, context = partial(predict_slabs, size=size), self.slab // 2
        else:
            depth = 1 if self.dims == "2d" else self.slices
            predict, context = partial(predict_stacks, depth=depth, every=self.every), depth // 2
        tiles = partial(
            predict_tiles, partial(predict, self.network, hu=hu, autocast=autocast),
            patch=self.patch, context=context, fill=int(hu.low),
        )  # fmt: skip
        kidneys = hide_outside(volume, mask, hu), mask
        return _with_mirrored(tiles, *kidneys) if self.test_time_mirroring else tiles(*kidneys)

    def mask(
        self, imaging: np.ndarray, kidney: np.ndarray, spacing: Spacing, autocast: Autocast
    ) -> np.ndarray:
        """Return all tumour, before the largest is chosen, as uint8 0/1 in the scan's grid.

        With a decision: what it calls a tumour, which may be nothing.
        """
        volume, mask, mapping = tumor_input(imaging, kidney, spacing, self.grid)
        probability = self.probability(volume, mask, autocast)
        if self.decisions is not None:
            voxel_ml = math.prod(mapping.stage.spacing) / 1000
            decision = self.decisions[contrast(imaging, kidney)]
            probability = decision.applied(probability, voxel_ml)
        return restore_mask(probability, mapping)


class Segmentation(NamedTuple):
    """A prediction of the cascade, all uint8 (D, H, W) in the scan's own grid.

    labels: 0 background, 1 kidney, 2 tumour (the largest component). kidney, tumor: the stages'
    masks, the tumour's before components are dropped.
    """

    labels: np.ndarray
    kidney: np.ndarray
    tumor: np.ndarray


def segment(
    imaging: np.ndarray, spacing: Spacing, kidney_stage: KidneyStage, tumor_stage: TumorStage, *,
    autocast: Autocast, kidney: np.ndarray | None = None,
) -> Segmentation:  # fmt: skip
    """Segment one scan (D, H, W) int16 HU of `spacing` (z, y, x) mm.

    `kidney`, a mask in the scan's grid, replaces the first stage. No kidney found: empty maps.
    """
    kidney = kidney_stage.mask(imaging, spacing, autocast) if kidney is None else kidney
    if not kidney.any():
        empty = np.zeros(imaging.shape, np.uint8)
        return Segmentation(empty, empty, empty)
    tumor = tumor_stage.mask(imaging, kidney, spacing, autocast)
    return Segmentation(compose(kidney, tumor), kidney, tumor)


def compose(kidney: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """Return the label map of two masks: the tumour's largest component wins over kidney."""
    labels = (kidney > 0).astype(np.uint8)
    labels[largest_components(tumor > 0, 1)] = 2
    return labels
