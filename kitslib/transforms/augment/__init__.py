"""Batch to batch on its device: rotate, translate, cut, equalise, blur, mirror, intensity jitter.

Every transform acts in the slice plane and alike on all slices of a sample, so 2.5D stacks and 3D
slabs share them. The random draw is apart from the deterministic `apply`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kitslib.transforms.augment import on_cpu, on_gpu

Mirror = Literal["none", "sagittal", "central"]
TRANSFORMS = ("rotate", "translate", "cut", "equalise", "blur", "mirror", "intensity", "noise")
SHARES = dict(zip(TRANSFORMS, TRANSFORMS, strict=True)) | {"mirror": "mirror_share"}  # fields
BINS = 64  # of the histogram that equalisation flattens
NUMBERS = 21  # that are drawn for a sample
STREAM = 0xA6  # keeps these numbers apart from those that a sampler draws with the same seeds


@dataclass(frozen=True, kw_only=True)
class SliceAugment:
    """How often (share of the samples) and how strongly each transform acts; default: the paper's.

    `mirror` is left-right ("sagittal") or a point reflection ("central"). `cut` takes a box of
    `cut_share` of the size back to full size; a share above 1 zooms out. Offset and noise are in
    shares of a sample's value range. Raises ValueError for options out of range.
    """

    rotate: float = 0.5
    max_degrees: float = 15.0
    translate: float = 0.5
    max_shift: float = 0.1  # of the size
    cut: float = 0.3
    cut_share: tuple[float, float] = (0.75, 1.0)
    equalise: float = 0.2
    equalise_strength: tuple[float, float] = (0.2, 0.8)  # 1: the flat histogram, 0: as it was
    blur: float = 0.2
    blur_sigma: tuple[float, float] = (0.4, 1.2)  # pixels
    mirror: Mirror = "sagittal"
    mirror_share: float = 0.5
    intensity: float = 0.0
    gain: tuple[float, float] = (0.8, 1.2)
    max_offset: float = 0.1
    noise: float = 0.0
    noise_sigma: tuple[float, float] = (0.0, 0.05)

    def __post_init__(self) -> None:
        for name in SHARES.values():
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise ValueError(
                    f"{name}: expected a share of the samples in [0, 1], got {share!r}"
                )
        if self.mirror not in ("none", "sagittal", "central"):
            known = "'none', 'sagittal' or 'central'"
            raise ValueError(f"mirror: expected {known}, got {self.mirror!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise ValueError(f"{field.name}: expected 0 <= low <= high, got {value}")
        if self.cut_share[0] == 0:
            raise ValueError("cut_share: expected a share above 0, an empty box cannot be shown")


@dataclass(frozen=True, kw_only=True)
class SlabAugment:
    """Augmentation of the kidney stage: mirror, `move` (rotation, shift, zoom), `jitter` (more)."""

    mirror: Mirror = "sagittal"
    move: bool = False
    jitter: bool = False


JITTER = SliceAugment(
    cut=0.7, cut_share=(0.8, 1.25), equalise=0.0, blur=0.3, intensity=0.8, noise=0.5
)
# the paper's six and, for synthetic CT, other contrast and noise: a tumour is not an absolute HU
SLICE_JITTER = SliceAugment(intensity=0.7, gain=(0.7, 1.35), max_offset=0.15, noise=0.2)


@dataclass(frozen=True)
class Draw:
    """What happens to each of B samples; neutral values (0; share and gain 1) leave it alone."""

    degrees: np.ndarray  # (B,)
    shift: np.ndarray  # (B, 2) rows, columns in shares of the size
    share: np.ndarray  # (B,) size of the cut box
    place: np.ndarray  # (B, 2) where the box lies, -1 to 1 from first to last row and column
    mirror: Mirror
    mirrored: np.ndarray  # (B,) bool
    equalise: np.ndarray  # (B,) strength
    sigma: np.ndarray  # (B,) blur in pixels
    gain: np.ndarray  # (B,)
    offset: np.ndarray  # (B,)
    noise: np.ndarray  # (B,) standard deviation
    noise_seed: np.ndarray  # (B,) whole numbers


def only(name: str, settings: SliceAugment | None = None) -> SliceAugment:
    """`settings` with the transform `name` on every sample and the others off.

    Raises ValueError for an unknown one, and for the mirror where the settings have none.
    """
    if name not in TRANSFORMS:
        raise ValueError(f"transform: expected one of {', '.join(TRANSFORMS)}, got {name!r}")
    settings = settings or SliceAugment()
    if name == "mirror" and settings.mirror == "none":
        fix = "there is nothing to show; use 'sagittal' or 'central'"
        raise ValueError(f"mirror: the settings say 'none', so {fix}")
    return replace(settings, **dict.fromkeys(SHARES.values(), 0.0) | {SHARES[name]: 1.0})


def contact_sheet(
    images: Tensor, labels: Tensor, settings: SliceAugment, *, seeds: Sequence[Sequence[int]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """A batch as it is, under each transform of `settings` alone, and under all of them, by name.

    Shapes as in `apply`; "all together" is what `augment_slices` makes of the same seeds where
    every share is 1.
    """
    sheet, every = {"as it is": (images, labels)}, settings
    for name, share in SHARES.items():
        if getattr(settings, share) > 0 and not (name == "mirror" and settings.mirror == "none"):
            sheet[name] = augment_slices(images, labels, only(name, settings), seeds=seeds)
            every = replace(every, **{share: 1.0})
    return sheet | {"all together": augment_slices(images, labels, every, seeds=seeds)}


def draw(settings: SliceAugment, *, seeds: Sequence[Sequence[int]]) -> Draw:
    """Random numbers of every sample from its own seeds (non-negative integers) alone.

    A sample is drawn alike in whatever batch it comes. Every transform draws whether it is on or
    off, so that switching one leaves the others' numbers as they are.
    """
    rows = [np.random.default_rng((*own, STREAM)).random(NUMBERS) for own in seeds]
    columns, s = iter(np.transpose(rows)), settings

    def between(low: float, high: float) -> np.ndarray:
        return low + (high - low) * next(columns)

    def sometimes(share: float, low: float, high: float, neutral: float) -> np.ndarray:
        return np.where(next(columns) < share, between(low, high), neutral)

    shifted = next(columns) < s.translate
    shift = np.stack([between(-s.max_shift, s.max_shift) for _ in range(2)], axis=1)
    mirror_share = 0.0 if s.mirror == "none" else s.mirror_share
    return Draw(
        degrees=sometimes(s.rotate, -s.max_degrees, s.max_degrees, 0),
        shift=np.where(shifted[:, None], shift, 0),
        share=sometimes(s.cut, *s.cut_share, 1),
        place=np.stack([between(-1, 1), between(-1, 1)], axis=1),
        mirror=s.mirror,
        mirrored=next(columns) < mirror_share,
        equalise=sometimes(s.equalise, *s.equalise_strength, 0),
        sigma=sometimes(s.blur, *s.blur_sigma, 0),
        gain=sometimes(s.intensity, *s.gain, 1),
        offset=sometimes(s.intensity, -s.max_offset, s.max_offset, 0),
        noise=sometimes(s.noise, *s.noise_sigma, 0),
        noise_seed=between(0, 2**31).astype(np.int64),
    )


def apply(images: Tensor, labels: Tensor, drawn: Draw) -> tuple[Tensor, Tensor]:
    """New images and labels with `drawn` done to them; the labels follow nearest.

    Shapes: images (B, K, H, W) with labels (B, 1, H, W), or both (B, 1, D, H, W). Images are
    floating point; both keep their dtype. What comes from outside the picture is the sample's
    lowest value, and 0. Raises ValueError for other shapes and for whole-number images.
    """
    _check(images, labels, drawn)
    on_a_cpu = images.device.type == "cpu"
    masks = labels if not on_a_cpu or labels.dtype in on_cpu.DTYPES else labels.float()
    stacks = [x.flatten(1, 2) if x.ndim == 5 else x for x in (images.float(), masks)]
    done = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in stacks]
    steps = _steps(drawn, *stacks[0].shape[2:])
    if on_a_cpu:
        samples = list(zip(*(x.contiguous().numpy() for x in (*stacks, *done)), steps, strict=True))
        samples.sort(key=lambda sample: sample[-1].count, reverse=True)  # the longest first
        _for_all(samples, lambda sample: _augment(*sample))
    else:
        on_gpu.augment(stacks, done, steps, BINS)
    _intensity(done[0], drawn)
    new_images, new_labels = done
    new_labels = new_labels.reshape(labels.shape).to(labels.dtype)
    return new_images.reshape(images.shape).to(images.dtype), new_labels


def augment_slices(
    images: Tensor, labels: Tensor, settings: SliceAugment, *, seeds: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """`apply` what `settings` and the seeds of each sample draw: the tumour stage."""
    return apply(images, labels, draw(settings, seeds=seeds))


def augment_slabs(
    images: Tensor, labels: Tensor, settings: SlabAugment, *, seeds: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """`apply` the mirror and, where set, movement or jitter to slabs (B, 1, D, H, W)."""
    strengths = JITTER
    if not settings.jitter:
        strengths = replace(JITTER, blur=0.0, intensity=0.0, noise=0.0)
    if not (settings.jitter or settings.move):
        strengths = only("mirror", JITTER)
    strengths = replace(strengths, mirror=settings.mirror, mirror_share=0.5)
    return augment_slices(images, labels, strengths, seeds=seeds)


def _check(images: Tensor, labels: Tensor, drawn: Draw) -> None:
    channels = 1 if images.ndim == 4 else images.shape[1]
    if images.ndim not in (4, 5) or labels.shape != (len(images), channels, *images.shape[2:]):
        raise ValueError(
            "augmentation: expected images (B, K, H, W) with labels (B, 1, H, W), or both"
            f" (B, 1, D, H, W); got {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    wrong = ""
    if not images.is_floating_point():
        wrong = f"expected floating-point images, got {images.dtype}; apply the HU window first"
    if len(drawn.degrees) != len(images):
        wrong = f"drawn for {len(drawn.degrees)} samples, got a batch of {len(images)}"
    if wrong:
        raise ValueError(f"augmentation: {wrong}")


def _on(values: np.ndarray, like: Tensor) -> Tensor:
    """Per-sample numbers as (B, 1, 1, 1) on the batch's device."""
    return torch.from_numpy(values).to(like.device, torch.float32).reshape(-1, 1, 1, 1)


def _for_all(samples: Sequence[Any], do: Callable[[Any], None]) -> None:
    """`do` for each sample in this order, as many at a time as torch has threads."""
    left = iter(samples)

    def work() -> None:
        for sample in left:
            do(sample)

    others = min(torch.get_num_threads(), len(samples)) - 1
    waiting = [_pool(others).submit(work) for _ in range(others)]
    work()
    for other in waiting:
        other.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "augment")


class _Steps(NamedTuple):
    """What is done to one sample: axes to reverse or the map that moves it, equalisation, blur."""

    axes: tuple[int, ...]
    matrix: np.ndarray | None
    equalise: float
    sigma: float

    @property
    def count(self) -> int:
        """How many passes over the sample these are."""
        return (self.matrix is not None) + (self.equalise > 0) + (self.sigma > 0)


def _steps(drawn: Draw, height: int, width: int) -> list[_Steps]:
    """The steps of every sample, worked out before the threads begin: here they would wait."""
    moved = (drawn.degrees != 0) | (drawn.shift != 0).any(1) | (drawn.share != 1)
    reversing = {"sagittal": (2,)}.get(drawn.mirror, (0, 1, 2))
    steps = []
    for sample, matrix in enumerate(_matrices(drawn, height, width)):
        axes = reversing if drawn.mirrored[sample] else ()
        values = (float(drawn.equalise[sample]), float(drawn.sigma[sample]))
        steps.append(_Steps(axes, matrix if moved[sample] else None, *values))
    return steps


def _matrices(drawn: Draw, height: int, width: int) -> np.ndarray:
    """(B, 2, 3): where a pixel (x, y, 1) of each result comes from.

    Mirror, rotation, shift and cut are one affine map, so that the pixels are interpolated once.
    """
    angle, share, last = np.radians(drawn.degrees), drawn.share, np.array([width - 1, height - 1])
    cos, sin = share * np.cos(angle), share * np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]).transpose(2, 0, 1)
    # centre of the cut box, -1 to 1 across the picture
    box = ((1 - share)[:, None] * drawn.place - 2 * drawn.shift)[:, ::-1]
    from_zero = last / 2 + box * (last + 1) / 2 - turn @ (last / 2)
    matrices = np.concatenate([turn, from_zero[:, :, None]], axis=2)
    for row in range(1 if drawn.mirror == "sagittal" else 2):  # to across the middle column or row
        matrices[drawn.mirrored, row] = [0, 0, last[row]] - matrices[drawn.mirrored, row]
    return matrices


def _augment(image: Any, label: Any, image_done: Any, label_done: Any, steps: _Steps) -> None:
    """Image and label (K, H, W) of a sample into two others, on a CPU."""
    axes, matrix, strength, sigma = steps
    if matrix is None:
        on_cpu.mirror(image, axes, into=image_done)
        on_cpu.mirror(label, axes, into=label_done)
    else:
        if 0 in axes:  # rows and columns are in the matrix
            image, label = image[::-1], label[::-1]
        on_cpu.move(image, matrix, nearest=False, into=image_done)
        on_cpu.move(label, matrix, nearest=True, into=label_done)
    if strength > 0:
        on_cpu.equalise(image_done, strength, BINS)
    if sigma > 0:
        on_cpu.blur(image_done, sigma)


def _intensity(stacks: Tensor, drawn: Draw) -> None:
    """Gain about the lowest value, offset, and white noise."""
    scaled = (drawn.gain != 1).any() or drawn.offset.any()
    if not (scaled or drawn.noise.any()):
        return
    low = stacks.amin(dim=(1, 2, 3), keepdim=True)
    span = stacks.amax(dim=(1, 2, 3), keepdim=True) - low
    if scaled:
        gain = _on(drawn.gain, stacks)
        stacks.mul_(gain).add_(low - low * gain + span * _on(drawn.offset, stacks))
    strength, generator = span * _on(drawn.noise, stacks), torch.Generator(stacks.device)
    for sample in np.flatnonzero(drawn.noise):
        generator.manual_seed(int(drawn.noise_seed[sample]))
        white = torch.empty_like(stacks[sample]).normal_(generator=generator)
        stacks[sample].addcmul_(white, strength[sample])
