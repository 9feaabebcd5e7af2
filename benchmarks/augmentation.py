"""Augmentation of 2.5D stacks: samples a second, ours beside MONAI and batchgeneratorsv2.

Each contender turns, shifts, zooms and mirrors images and labels, equalises and blurs images, each
with the same share of the samples and the same ranges. batchgeneratorsv2 knows no histogram
equalisation; its gamma transform stands in. A peer is measured twice: in one process with all
threads, and in as many data-loader workers. All make as many batches in a measurement, one after
the other, as a training's loader does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks._measure import (
    Cell,
    Report,
    Table,
    Timing,
    command,
    conditions,
    installed,
    interleave,
    judged,
    missing,
    parser,
    spread,
    timed,
)
from kitslib.training import start
from kitslib.transforms import SliceAugment, augment_slices

BATCH, SLICES, SIZE = 16, 5, 256
BATCHES = 8  # that each contender makes in one measurement
BOUND = 5.0  # times the samples per second of a peer

USUAL = SliceAugment()
EVERYTHING = replace(USUAL, rotate=1, translate=1, cut=1, equalise=1, blur=1, mirror_share=1)
SETTINGS = {"shares as in training": USUAL, "everything on every sample": EVERYTHING}
PEERS = {"MONAI": "monai", "batchgeneratorsv2": "batchgeneratorsv2"}

PerSample = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def batch(size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Smooth images (B, K, H, W), dark outside as behind a mask, and labels (B, 1, H, W) uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(BATCH, SLICES, size // 8, size // 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear").clamp_(-1, 1)
    images[:, :, : size // 4] = -1
    return images, (images[:, :1] > 0.5).to(torch.uint8)


def moved_share(settings: SliceAugment) -> float:
    """Share of the samples that rotation, shift or cut resamples."""
    return 1 - (1 - settings.rotate) * (1 - settings.translate) * (1 - settings.cut)


def _a_batch(make: Callable[[], Any]) -> Callable[[], float]:
    """The seconds that a batch takes where `make` makes one, by making several."""

    def several() -> None:
        for _ in range(BATCHES):
            make()

    measured = timed(several)
    return lambda: measured() / BATCHES


def _ours(settings: SliceAugment, images: Tensor, labels: Tensor) -> Callable[[], float]:
    steps = itertools.count()

    def make() -> None:
        step = next(steps)
        seeds = [(step, place) for place in range(len(images))]
        augment_slices(images, labels, settings, seeds=seeds)

    return _a_batch(make)


def _monai(settings: SliceAugment, size: int) -> PerSample:
    from monai.data import set_track_meta
    from monai.transforms import (
        Compose,
        HistogramNormalize,
        RandAffined,
        RandFlipd,
        RandGaussianSmoothd,
        RandomizableTransform,
    )

    equalise = HistogramNormalize(num_bins=64, min=-1, max=1)

    class RandEqualise(RandomizableTransform):
        def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
            self.randomize(None)
            return {**data, "image": equalise(data["image"])} if self._do_transform else data

    set_track_meta(False)  # plain tensors, which is quicker
    both, shift = ["image", "label"], settings.max_shift * size
    transform = Compose(
        [
            RandAffined(
                both,
                prob=moved_share(settings),
                rotate_range=np.radians(settings.max_degrees),
                translate_range=(shift, shift),
                scale_range=(tuple(share - 1 for share in settings.cut_share),) * 2,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
                cache_grid=True,
                spatial_size=(size, size),
            ),
            RandFlipd(both, prob=settings.mirror_share, spatial_axis=1),
            RandEqualise(prob=settings.equalise),
            RandGaussianSmoothd(
                "image",
                sigma_x=settings.blur_sigma,
                sigma_y=settings.blur_sigma,
                prob=settings.blur,
            ),
        ]
    ).set_random_state(0)

    def apply(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        done = transform({"image": image, "label": label})
        return done["image"], done["label"]

    return apply


def _batchgenerators(settings: SliceAugment, size: int) -> PerSample:
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    turn = np.radians(settings.max_degrees)
    gamma = GammaTransform((0.7, 1.5), 0.0, True, 1.0, 1.0)
    blur = GaussianBlurTransform(
        settings.blur_sigma, synchronize_channels=True, synchronize_axes=True
    )
    transform = ComposeTransforms(
        [
            SpatialTransform(
                (size, size),
                patch_center_dist_from_border=size * (0.5 - settings.max_shift),
                random_crop=True,
                p_rotation=moved_share(settings),
                rotation=(-turn, turn),
                p_scaling=settings.cut,
                scaling=settings.cut_share,
                p_synchronize_scaling_across_axes=1,
                mode_seg="nearest",
            ),
            MirrorTransform((1,)),
            RandomTransform(gamma, settings.equalise),
            RandomTransform(blur, settings.blur),
        ]
    )

    def apply(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        done = transform(
            image=image.clone(), segmentation=label
        )  # some of its transforms write into the image
        return done["image"], done["segmentation"]

    return apply


MAKERS = {"MONAI": _monai, "batchgeneratorsv2": _batchgenerators}


class _Samples(Dataset):
    """The batch's samples over and over, each transformed when asked for."""

    def __init__(self, images: Tensor, labels: Tensor, transform: PerSample) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return BATCHES * len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample = index % len(self.images)
        return self.transform(self.images[sample], self.labels[sample])


def _in_one_process(transform: PerSample, images: Tensor, labels: Tensor) -> Callable[[], float]:
    def make() -> tuple[Tensor, ...]:
        done = [transform(image, label) for image, label in zip(images, labels, strict=True)]
        return tuple(torch.stack(part) for part in zip(*done, strict=True))

    return _a_batch(make)


def _in_workers(
    transform: PerSample, images: Tensor, labels: Tensor, workers: int
) -> Callable[[], float]:
    samples = _Samples(images, labels, transform)
    loader = DataLoader(samples, len(images), num_workers=workers, persistent_workers=True)
    epoch = timed(lambda: [None for _ in loader])
    return lambda: epoch() / BATCHES


def contenders(settings: SliceAugment, threads: int, size: int) -> dict[str, Callable[[], float]]:
    """What is measured, by name: each does one batch and returns its seconds."""
    images, labels = batch(size)
    jobs = {"ours": _ours(settings, images, labels)}
    if torch.cuda.is_available():
        jobs["ours on the GPU"] = _ours(settings, images.cuda(), labels.cuda())
    for peer, module in PEERS.items():
        if installed(module):
            transform = MAKERS[peer](settings, size)
            jobs[f"{peer}, one process"] = _in_one_process(transform, images, labels)
            jobs[f"{peer}, {threads} workers"] = _in_workers(transform, images, labels, threads)
    return jobs


def rows(timings: dict[str, Timing]) -> list[dict[str, Cell]]:
    """One row a contender: ms a batch, samples a second, and how many times quicker ours is."""
    ours = timings["ours"].median
    found: list[dict[str, Cell]] = [
        {
            "contender": name,
            "ms a batch": spread(timing),
            "samples/s": BATCH / timing.median,
            "ours is quicker, times": timing.median / ours,
        }
        for name, timing in timings.items()
    ]
    return found + [
        missing(peer, "contender") for peer, module in PEERS.items() if not installed(module)
    ]


def bounds(setting: str, timings: dict[str, Timing]) -> list[str]:
    """Whether ours is quick enough beside each peer, in either arrangement."""
    ours = timings["ours"].median
    found = []
    for peer in PEERS:
        beside = {
            name: timing.median / ours for name, timing in timings.items() if name.startswith(peer)
        }
        for name, ratio in (beside or {peer: None}).items():
            found.append(judged(f"{setting}: samples/s beside {name}", ratio, BOUND))
    return found


def main(arguments: list[str]) -> int:
    """Measure both settings, print their tables and the bounds."""
    reader = parser("augmentation", __doc__, threads=2, repeats=31)
    reader.add_argument("--size", type=int, default=SIZE, help="pixels on a side (%(default)s)")
    options = reader.parse_args(arguments)
    if options.clock != "wall":
        reader.error("--clock: expected wall, since workers are processes of their own")
    start(
        threads=options.threads
    )  # as a training does, for all contenders: freed memory is used again
    facts = conditions(options.threads, options.repeats, *PEERS.values())
    tables, judgements = [], []
    for setting, shares in SETTINGS.items():
        timings = interleave(contenders(shares, options.threads, options.size), options.repeats)
        shape = f"{SLICES} x {options.size} x {options.size}"
        note = f"{BATCH} samples of {shape} float32 with labels of one slice."
        tables.append(Table(title=setting, note=note, rows=rows(timings)))
        judgements += bounds(setting, timings)
    Report(
        name="augmentation",
        question="How many samples a second are augmented, ours by batch, peers' by sample?",
        command=command("augmentation", arguments),
        conditions=facts,
        tables=tables,
        bounds=judgements,
    ).publish(options.out)
    return 0
