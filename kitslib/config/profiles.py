"""Every number we chose: smoke, demo, study, release, day and paper."""

from __future__ import annotations

from dataclasses import replace

from kitslib.config.arms import ARM_GROUPS, ARMS
from kitslib.config.sections import (
    CohortConfig,
    KidneyConfig,
    KidneyGrid,
    RunConfig,
    TumorConfig,
    TumorGrid,
)

DEMO = RunConfig(
    profile="demo",
    arms=("baseline", "focal_dice", "full"),  # they hold each mechanism; see ARMS
    kidney_arms=(),
    cohort=CohortConfig(cases=128, matrix=192, spacing_z=(3.0, 4.0, 5.0), held_out=16),
    # slabs from the paper's 100 mm around the kidneys never show a bladder: it is taken for one
    kidney_grid=KidneyGrid(spacing_z=5.0, matrix=80, margin_mm=200.0),
    tumor_grid=TumorGrid(spacing_z=3.0, spacing_xy=2.5, region="box"),
    kidney=KidneyConfig(
        widths=(8, 8, 16, 64, 128), norm=True, dropout=0.0,
        loss="dice_cross_entropy", foreground_weight=2.0, slab=32, patch=64, window_slices=32,
        batch=1, foreground_oversampling=0.7, volume_power=1.0, move=True, tumor_weight=3.0,
        test_time_mirroring=True, components_by="certainty", optimizer="muon",
        schedule="one_cycle", lr=6e-3, epochs=17, arm_epochs=3, validate_every=17,
    ),
    tumor=TumorConfig(
        patch=(48, 48), widths=(8, 16, 48, 96), jitter=True, batch=24,
        optimizer="muon", schedule="one_cycle", lr=6e-3, epochs=12, steps=33,
        oversample_every=4, oversample_stride=6, validate_every=12, test_time_mirroring=True,
    ),
)  # fmt: skip

STUDY = replace(  # what the verdicts rest on: 200 unseen cases, six seeds of every arm
    DEMO,
    profile="study", seeds=(0, 1, 2, 3, 4, 5),
    arms=(
        *ARM_GROUPS["cumulative"], *ARM_GROUPS["left_out"], "unet", "deeplab", "vnet_3d",
        "hdc_level_0", "hdc_level_1", "plain_dilation", "hdc_per_sample", "focal_dice_per_sample",
    ),
    kidney_arms=("standard", "no_residual", "no_deep_supervision", "mirror_none"),
    cohort=replace(DEMO.cohort, cases=312, matrix=256, held_out=200, draw=0.75),
    kidney=replace(DEMO.kidney, epochs=20, validate_every=20, test_time_mirroring=False),
    tumor=replace(
        DEMO.tumor,
        patch=(48, 48), widths=(8, 24, 64), slab=8, slab_batch=3, epochs=5, steps=40,
        oversample_every=2, validate_every=5, scored_every=2, test_time_mirroring=False,
    ),
)  # fmt: skip

RELEASE = RunConfig(  # the networks of `predict`: they must hold on CT of any scanner
    profile="release", arms=("focal_dice",), kidney_arms=(),
    cohort=CohortConfig(cases=64, seed=2026, variety="clinic", tumor_free=0.35, fresh=True),
    kidney_grid=KidneyGrid(spacing_z=4.0, spacing_xy=4.0, average=True),
    tumor_grid=TumorGrid(  # a wide margin: tumours that the first network leaves out are seen
        spacing_z=3.0, spacing_xy=2.5, region="box", average=True, margin_mm=20.0,
        mask_dilation_mm=15.0,
    ),
    kidney=replace(
        DEMO.kidney,
        widths=(8, 12, 24, 48, 96), slab=36, patch=96, window_slices=48, samples_per_case=6,
        foreground_oversampling=0.5, volume_power=0.0, move=False, jitter=True, tumor_weight=2.0,
        least_ml=5.0, epochs=16, validate_every=8,
    ),
    tumor=replace(
        DEMO.tumor,
        widths=(12, 24, 48, 96), jitter=False, batch=16, epochs=64, steps=448,
        foreground_oversampling=0.4, validate_every=8,
    ),
)  # fmt: skip

SMOKE = RunConfig(
    profile="smoke",
    precision="no",  # so small that float32 is as quick; alike on every machine
    seeds=(0, 1),
    kidney_arms=("standard", "no_residual"),
    cohort=CohortConfig(cases=6, matrix=96, spacing_z=(5.0,), held_out=2),
    kidney_grid=KidneyGrid(spacing_z=6.0, matrix=48),
    tumor_grid=TumorGrid(spacing_z=5.0, spacing_xy=4.0, region="box"),
    kidney=KidneyConfig(
        widths=(4, 8, 8, 8, 8), norm=True, dropout=0.0, loss="dice_cross_entropy", slab=16,
        window_slices=16, optimizer="adamw", schedule="one_cycle", lr=1e-2, epochs=3, arm_epochs=1,
        validate_every=3,
    ),
    tumor=TumorConfig(
        patch=(32, 48), slab=8, widths=(4, 8, 8, 8), jitter=True, batch=4, optimizer="adamw",
        schedule="one_cycle", lr=1e-2, epochs=3, steps=4, oversample_every=1, oversample_stride=2,
        validate_every=3,
    ),
)  # fmt: skip

PAPER = RunConfig(
    profile="paper",
    seeds=(0, 1, 2),
    arms=tuple(ARMS),
    single_seed_arms=tuple(name for name in ARMS if name not in ARM_GROUPS["cumulative"]),
    threads=8,
)

DAY = replace(  # the real KiTS19 on one GPU of 24 GB within 24 hours: `preflight --card` adds it up
    PAPER,
    profile="day", seeds=(0, 1),
    arms=(*ARM_GROUPS["cumulative"], "unet", "deeplab", "vnet_3d"), single_seed_arms=(),
    cohort=CohortConfig(split="fold0"),
    kidney_grid=KidneyGrid(margin_mm=200.0),  # with the bladder: see DEMO
    tumor_grid=TumorGrid(spacing_xy=0.8, region="box"),  # 384 columns hold both kidneys of most
    kidney=KidneyConfig(
        norm=True, dropout=0.0, loss="dice_cross_entropy", patch=160, foreground_oversampling=0.5,
        optimizer="adamw", schedule="one_cycle", lr=1e-3, epochs=250, arm_epochs=50,
        validate_every=50,
    ),
    tumor=TumorConfig(
        patch=(192, 384), optimizer="adamw", schedule="one_cycle", lr=1e-3, epochs=40,
        oversample_stride=4, validate_every=20,
    ),
)  # fmt: skip

PROFILES = {config.profile: config for config in (SMOKE, DEMO, STUDY, RELEASE, DAY, PAPER)}
