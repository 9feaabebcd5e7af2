"""The tumour stage as a value: stacks of slices, an arm's network and loss, hard cases."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kitslib import data
from kitslib.config import Arm, RunConfig, TumorConfig, TumorGrid, as_dict
from kitslib.config import arm as arm_of
from kitslib.evaluation import Scored, TumorStage, dice, tumor_cases
from kitslib.networks import build, count_parameters
from kitslib.recipes.recipe import Recipe
from kitslib.training import focal_dice_loss, soft_dice_loss
from kitslib.transforms import SLICE_JITTER, SliceAugment, augment_slices, contact_sheet

WIDTHS = [share / 40 for share in range(8, 161)]  # 0.2 to 4


@dataclass(frozen=True, kw_only=True)
class TumorRecipe(Recipe):
    """Tumour against the rest inside the grown kidney mask; `arm` is one row of the ablation."""

    training: TumorConfig
    grid: TumorGrid
    arm: Arm

    @classmethod
    def of(
        cls, config: RunConfig, files: Sequence[data.CaseFiles], accelerator: Accelerator, *,
        arm: str, seed: int = 0,
    ) -> TumorRecipe:  # fmt: skip
        """Build the recipe of a study's arm, a name of ARMS."""
        cohort = data.prepare(
            list(files), config.tumor_grid, config.store / "cache", labels=config.cohort.labels
        )
        split = data.study_split(config, list(files))
        return cls(
            name=f"tumor-{arm}-s{seed}", training=config.tumor, grid=config.tumor_grid,
            arm=arm_of(arm), seed=seed,
            train=cohort.subset(data.training_draw(split.tumor_train, config.cohort.draw, seed)),
            held_out=cohort.subset(split.tumor_held_out), accelerator=accelerator,
            runs=config.store / "runs", threads=config.threads, labels=config.cohort.labels,
        )  # fmt: skip

    @functools.cached_property
    def sampler(self) -> data.StackSampler:
        """Slices with kidney and their neighbours; slices with a known cyst more often if asked."""
        t, in_3d = self.training, self.arm.dims == "3d"
        how: dict[str, Any] = {
            "dims": self.arm.dims, "depth": t.slab if in_3d else t.slices, "patch": t.patch,
            "batch": t.slab_batch if in_3d else t.batch, "steps": t.steps, "seed": self.seed,
            "foreground_oversampling": t.foreground_oversampling,
        }  # fmt: skip
        if isinstance(self.train, data.CaseStream):
            return data.FreshStacks(self.train, cases=self.cases, **how)
        sampler = data.StackSampler(self.train, **how)
        if self.arm.oversample_by == "cysts":
            cysts = {}
            for name, entry in self.train.items():
                cysts[name] = (entry.labels == 3).any(axis=(1, 2)).astype(float)
            sampler.set_difficulty(cysts, gain=t.oversample_gain, cap=t.oversample_cap)
        return sampler

    @property
    def augment(self) -> SliceAugment:
        """The paper's augmentations, mirroring and intensity jitter where the profile has them."""
        augment = SLICE_JITTER if self.training.jitter else SliceAugment()
        return replace(augment, mirror=self.training.mirror)

    def prepare(self, batch: data.Batch) -> tuple[Tensor, Tensor]:
        """Return input (B, C, H, W) and tumour (B, 1, H, W); in 3D (B, 1, D, H, W) both."""
        tumor = (batch.labels == 2).float()
        return augment_slices(self.hu_window(batch.images), tumor, self.augment, seeds=batch.seeds)

    def sheet(self, batch: data.Batch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return one sample as it is, under each augmentation alone, and under all.

        Values are HU (C, H, W) and tumour 0/1 (1, H, W) by title; the sample is the one whose
        share of tumour is nearest to 15 %.
        """
        tumor = (batch.labels == 2).float()
        shares = tumor.flatten(1).mean(dim=1)
        shown = int((shares - 0.15).abs().argmin())
        part = slice(shown, shown + 1)
        window, found = self.hu_window, {}
        sheet = contact_sheet(
            window(batch.images[part]), tumor[part], self.augment, seeds=batch.seeds[part]
        )
        for title, (image, label) in sheet.items():
            hu = image[0] * window.scale + window.shift
            found[title] = hu.numpy(), label[0].numpy()
        return found

    def network_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `kitslib.networks.build`."""
        return self._options(self.arm, self.as_large if self.arm.as_large else None)

    @functools.cached_property
    def as_large(self) -> float:
        """The width at which the arm has as many weights as the baseline."""
        wanted = self._parameters(arm_of("baseline"), 1.0)
        size = functools.partial(self._parameters, self.arm)
        place = bisect_left(WIDTHS, wanted, key=size)
        near = WIDTHS[max(place - 1, 0) : place + 1]
        return min(near, key=lambda width: abs(size(width) - wanted))

    def _options(self, arm: Arm, width: float | None) -> dict[str, Any]:
        t = self.training
        return arm.network_options(
            slices=t.slices, widths=t.widths, norm=t.norm, patch=t.patch, width=width
        )

    def _parameters(self, arm: Arm, width: float) -> int:
        with torch.device("meta"):  # weights without values
            return count_parameters(build(**self._options(arm, width)))

    def own_settings(self) -> dict[str, Any]:
        """Return the settings that only this stage has."""
        return {"stage": "tumor", "arm": as_dict(self.arm), "grid": as_dict(self.grid)}

    def loss(self, output: Any, target: Tensor, epoch: int) -> Tensor:
        """Soft Dice, or weighted Dice + λ focal where the arm has it.

        Dice over the batch is over what a process takes of it at a time: with `accumulate` or
        several processes it is another loss.
        """
        t = self.training
        over = self.arm.dice_over or t.dice_over
        if not self.arm.focal_dice:
            return soft_dice_loss(output, target, over=over, squared=t.dice_squared)
        background, tumor = t.dice_weights
        return focal_dice_loss(
            output, target, gamma=t.gamma, alpha=t.alpha, background=background, tumor=tumor,
            lam=t.lam, over=over, squared=t.dice_squared,
        )  # fmt: skip

    def stage(self, network: nn.Module) -> TumorStage:
        """Return the network as it is applied to scans."""
        return TumorStage.of(network, self.settings)

    def _tumor(self, stage: TumorStage, entry: data.Entry, every: int) -> np.ndarray:
        """The tumour found in a case on the stage's grid, from each n-th slice, unmirrored."""
        once = replace(stage, test_time_mirroring=False, every=every)
        return once.probability(entry.imaging, entry.mask, self.accelerator.autocast) > 0.5

    def scored(self, network: nn.Module, files: Iterable[data.CaseFiles]) -> Iterator[Scored]:
        """Yield labels, tumour found inside the true kidney mask, and scores; see `tumor_cases`."""
        cohort = self.held_out.subset(item.case_id for item in files)
        return tumor_cases(self.stage(network), cohort, self.accelerator.autocast)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return the mean tumour Dice of the watched cases with a tumour, on the stage's grid."""
        stage, scores = self.stage(network), []
        for entry in self.watched.values():
            if (truth := entry.labels == 2).any():
                found = self._tumor(stage, entry, self.training.scored_every)
                scores.append(dice(found, truth))
        return {"dice": float(np.mean(scores))} if scores else {}

    def after_epoch(self, network: nn.Module, epoch: int) -> dict[str, Any]:
        """Every few epochs measure how hard the training slices are; draw hard ones more often.

        By case, all slices of a case are as hard as its slices with kidney are on average.
        """
        t, arm = self.training, self.arm
        if (
            not arm.oversample
            or arm.oversample_by == "cysts"
            or isinstance(self.train, data.CaseStream)
        ):
            return {}
        if (epoch + 1) % t.oversample_every or epoch + 1 == t.epochs:
            return {}
        stage, hard = self.stage(network), {}
        for name, entry in self.train.items():
            found = self._tumor(stage, entry, t.oversample_stride)
            pixel_mm2 = entry.spacing[1] * entry.spacing[2]
            hard[name] = data.slice_difficulty(found, entry.labels == 2, pixel_mm2=pixel_mm2)
            if arm.oversample_by == "case":
                hard[name][:] = hard[name][slice(*entry.meta["kidney_range"])].mean()
        self.sampler.set_difficulty(hard, gain=t.oversample_gain, cap=t.oversample_cap)
        return {
            "difficulty": {name: float(values.mean()) for name, values in hard.items()},
            "weights_version": self.sampler.version,
            "drawn_most": self.sampler.drawn_most(6),
        }

    def difficulty(self, history: list[dict[str, Any]]) -> tuple[list[dict], list[tuple]]:
        """Return what a history notes of difficulty, and the slices drawn most at the end.

        Rows of epoch, case and difficulty; and title, HU, labels and spacing of the slices.
        """
        rows, drawn_most, slices = [], [], []
        for entry in history:
            drawn_most = entry.get("drawn_most", drawn_most)
            for case, value in entry.get("difficulty", {}).items():
                rows.append({"epoch": entry["epoch"], "case": case, "difficulty": value})
        for case_id, z, weight in drawn_most:
            case, title = self.train[case_id], f"{case_id[-5:]}, weight {weight:.1f}"
            slices.append((title, case.imaging[z], case.labels[z], case.spacing))
        return rows, slices
