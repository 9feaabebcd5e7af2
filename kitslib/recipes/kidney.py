"""The kidney stage as a value: slabs, 3D residual U-Net, supervised maps, held-out Dice."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kitslib import data
from kitslib.config import KidneyConfig, KidneyGrid, RunConfig, as_dict, kidney_arm
from kitslib.evaluation import KidneyStage, Scored, dice, kidney_cases, predict_maps
from kitslib.recipes.recipe import Recipe
from kitslib.training import (
    Loss,
    deep_supervision_loss,
    dice_cross_entropy_loss,
    soft_dice_loss,
    supervision_weight,
)
from kitslib.transforms import SlabAugment, augment_slabs

MAP_SHARES = (0, 0.05, 0.15, 0.35, 0.65, 1)  # of the training, at which the maps are kept


@dataclass(frozen=True, kw_only=True)
class KidneyRecipe(Recipe):
    """Kidney and masses as one target, on the stage's grid; `training` holds the arm's changes."""

    training: KidneyConfig
    grid: KidneyGrid

    @classmethod
    def of(
        cls, config: RunConfig, files: Sequence[data.CaseFiles], accelerator: Accelerator, *,
        arm: str = "", seed: int = 0,
    ) -> KidneyRecipe:  # fmt: skip
        """Build the recipe of a study; `arm` is a name of KIDNEY_ARMS, empty for the cascade's.

        The arms train for `arm_epochs` and are tested without mirroring.
        """
        training, name = config.kidney, f"kidney-s{seed}"
        if arm:
            name = f"kidney-{arm}-s{seed}"
            training = replace(training, epochs=training.arm_epochs, test_time_mirroring=False)
            training = replace(training, **kidney_arm(arm).settings)
        cohort = data.prepare(
            list(files), config.kidney_grid, config.store / "cache", labels=config.cohort.labels
        )
        split = data.study_split(config, list(files))
        return cls(
            name=name, training=training, grid=config.kidney_grid, seed=seed,
            train=cohort.subset(data.training_draw(split.kidney_train, config.cohort.draw, seed)),
            held_out=cohort.subset(split.kidney_held_out), accelerator=accelerator,
            runs=config.store / "runs", threads=config.threads, labels=config.cohort.labels,
        )  # fmt: skip

    @functools.cached_property
    def sampler(self) -> data.SlabSampler:
        """Slabs of consecutive slices around the kidneys, each case alike or by its volume."""
        t = self.training
        if isinstance(self.train, data.CaseStream):
            return data.FreshSlabs(
                self.train, slab=t.slab, patch=t.patch or self.grid.matrix, batch=t.batch,
                cases=self.cases, visits=t.samples_per_case, seed=self.seed,
                foreground_oversampling=t.foreground_oversampling,
            )  # fmt: skip
        return data.SlabSampler(
            self.train, slab=t.slab, patch=t.patch or self.grid.matrix, batch=t.batch,
            seed=self.seed, samples_per_case=t.samples_per_case,
            foreground_oversampling=t.foreground_oversampling, volume_power=t.volume_power,
        )  # fmt: skip

    def prepare(self, batch: data.Batch) -> tuple[Tensor, Tensor]:
        """Return input and target, (B, 1, D, H, W) both: 1 on kidney and cyst, 2 on tumour."""
        t = self.training
        augment = SlabAugment(mirror=t.mirror, move=t.move, jitter=t.jitter)
        kidney_and_masses = (batch.labels > 0).float()
        target = torch.where(batch.labels == 2, 2.0, kidney_and_masses)
        return augment_slabs(self.hu_window(batch.images), target, augment, seeds=batch.seeds)

    def network_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `kitslib.networks.build`."""
        t = self.training
        return {
            "name": "resunet3d", "widths": t.widths, "norm": t.norm, "dropout": t.dropout,
            "residual": t.residual, "deep_supervision": t.deep_supervision,
        }  # fmt: skip

    def own_settings(self) -> dict[str, Any]:
        """Return the settings that only this stage has."""
        return {"stage": "kidney", "grid": as_dict(self.grid)}

    def supervision_weight(self, epoch: int) -> float:
        """Return p, the weight of the three coarse maps in an epoch counted from 0."""
        t = self.training
        return supervision_weight(
            epoch, start=t.supervision, factor=t.supervision_factor, every=t.supervision_every
        )

    def map_loss(self, weight: Tensor | None = None) -> Loss:
        """Return the loss of one map; `weight` is that of each voxel in the cross-entropy."""
        if self.training.loss == "dice":
            return partial(soft_dice_loss, squared=self.training.dice_squared)
        return partial(
            dice_cross_entropy_loss, foreground_weight=self.training.foreground_weight,
            weight=weight, squared=self.training.dice_squared,
        )  # fmt: skip

    def loss(self, output: Any, target: Tensor, epoch: int) -> Tensor:
        """L = L4 + p (L1 + L2 + L3) over the maps; kidney and masses are one target."""
        weight = torch.where(target > 1, self.training.tumor_weight, 1.0)
        kidney_and_masses = (target > 0).float()
        return deep_supervision_loss(
            output, kidney_and_masses, self.map_loss(weight), self.supervision_weight(epoch)
        )

    def stage(self, network: nn.Module) -> KidneyStage:
        """Return the network as it is applied to scans."""
        return KidneyStage.of(network, self.settings)

    def scored(self, network: nn.Module, files: Iterable[data.CaseFiles]) -> Iterator[Scored]:
        """Yield labels, kidney mask and Dice of kidney and masses; see `kidney_cases`."""
        how = self.held_out, self.labels, self.accelerator.autocast
        return kidney_cases(self.stage(network), files, *how)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the mean Dice of the watched cases on the stage's grid, without mirroring."""
        stage = replace(self.stage(network), test_time_mirroring=False)
        scores = []
        for entry in self.watched.values():
            probability = stage.probability(entry.imaging, self.accelerator.autocast)
            scores.append(dice(probability > 0.5, entry.labels > 0))
        return {"dice": float(np.mean(scores))}

    @property
    def map_epochs(self) -> list[int]:
        """The epochs, counted from 0, after which the maps of `shown` are kept."""
        if not self.training.deep_supervision:
            return []
        return sorted({round(share * (self.training.epochs - 1)) for share in MAP_SHARES})

    @property
    def shown(self) -> tuple[data.Entry, int]:
        """The first held-out case, and the middle one of its slices with kidney."""
        entry = self.held_out[self.held_out.case_ids[0]]
        return entry, int(np.mean(entry.meta["kidney_range"]))

    def after_epoch(self, network: nn.Module, epoch: int) -> dict[str, Any]:
        """Keep what the four maps show on one held-out slab, and what each costs, for figures."""
        if epoch not in self.map_epochs:
            return {}
        entry, middle = self.shown
        first = max(middle - self.training.slab // 2, 0)
        slab = slice(first, middle + self.training.slab // 2)
        maps = predict_maps(
            network, entry.imaging[slab], self.hu_window, autocast=self.accelerator.autocast
        ).astype(np.float32)
        self.run.save_arrays(
            f"maps-{epoch + 1:04}", maps=maps[:, middle - first].astype(np.float16)
        )
        target = torch.from_numpy(np.array(entry.labels[slab]) > 0)[None, None].float()
        map_loss = self.map_loss()
        logits = torch.logit(torch.from_numpy(maps), eps=1e-4)
        return {"maps": [round(map_loss(part[None, None], target).item(), 4) for part in logits]}
