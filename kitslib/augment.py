"""Batch to batch on its device: rotate, translate, cut, equalise, blur, mirror, and intensity jitter.

Every transform acts in the slice plane and alike on all slices of a sample, so 2.5D stacks and 3D slabs share
them. The random draw is apart from the deterministic `apply`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Mirror = Literal["none", "sagittal", "central"]
TRANSFORMS = ("rotate", "translate", "cut", "equalise", "blur", "mirror", "intensity", "noise")
BINS = 64  # of the histogram that equalisation flattens
STREAM = 0xA6  # keeps these numbers apart from those that a sampler draws with the same key


@dataclass(frozen=True, kw_only=True)
class SliceAugment:
    """How often (share of the samples) and how strongly each transform acts; the defaults are the paper's six.

    `mirror` is left-right ("sagittal") or a point reflection ("central"). `cut` takes a box of `cut_share` of the
    size back to full size; a share above 1 zooms out. Offset and noise are in shares of a sample's value range.
    """

    rotate: float = 0.5
    max_degrees: float = 15.0
    translate: float = 0.5
    max_shift: float = 0.1  # of the size
    cut: float = 0.3
    cut_share: tuple[float, float] = (0.75, 1.0)
    equalise: float = 0.2
    equalise_strength: tuple[float, float] = (0.2, 0.8)  # 1: the flat histogram, 0: the image as it was
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
        for name in (*TRANSFORMS, "mirror_share"):
            share = getattr(self, name)
            if name != "mirror" and not 0 <= share <= 1:
                raise ValueError(f"{name}: expected a share of the samples in [0, 1], got {share!r}")
        if self.mirror not in ("none", "sagittal", "central"):
            raise ValueError(f"mirror: expected 'none', 'sagittal' or 'central', got {self.mirror!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise ValueError(f"{field.name}: expected 0 <= low <= high, got {value}")
        if self.cut_share[0] == 0:
            raise ValueError("cut_share: expected a share above 0, an empty box cannot be shown")


@dataclass(frozen=True, kw_only=True)
class SlabAugment:
    """Augmentation of the kidney stage: mirror, `move` (rotation, shift, zoom), and `jitter`, which is more."""

    mirror: Mirror = "sagittal"
    move: bool = False
    jitter: bool = False


JITTER = SliceAugment(
    cut=0.7,
    cut_share=(0.8, 1.25),
    equalise=0.0,
    blur=0.3,
    intensity=0.8,
    noise=0.5,
)


# the paper's six and, for trainings on synthetic CT, other contrast and noise: a tumour is not an absolute HU
SLICE_JITTER = SliceAugment(intensity=0.7, gain=(0.7, 1.35), max_offset=0.15, noise=0.2)


@dataclass(frozen=True)
class Draw:
    """What happens to each of B samples; the neutral value (0, or 1 for share and gain) leaves it alone."""

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
    noise_seed: int


def only(name: str, settings: SliceAugment | None = None) -> SliceAugment:
    """`settings` with the one transform `name` on every sample and the others off: a row of the contact sheet."""
    if name not in TRANSFORMS:
        raise ValueError(f"transform: expected one of {', '.join(TRANSFORMS)}, got {name!r}")
    settings = settings or SliceAugment()
    if name == "mirror" and settings.mirror == "none":
        raise ValueError("mirror: the settings say 'none', so there is nothing to show; use 'sagittal' or 'central'")
    shares: dict[str, float] = {other: float(other == name) for other in TRANSFORMS if other != "mirror"}
    return replace(settings, **shares, mirror_share=float(name == "mirror"))


def contact_sheet(
    images: Tensor, labels: Tensor, settings: SliceAugment, *, key: Sequence[int]
) -> dict[str, tuple[Tensor, Tensor]]:
    """A batch as it is, under each transform that `settings` has on alone, and under all of them, by name.

    Shapes as in `apply`; "all together" is what `augment_slices` makes of the same key where every share is 1.
    """
    on = [n for n in TRANSFORMS if getattr(settings, "mirror_share" if n == "mirror" else n) > 0]
    on = [n for n in on if n != "mirror" or settings.mirror != "none"]
    sheet = {"as it is": (images, labels)}
    sheet |= {name: augment_slices(images, labels, only(name, settings), key=key) for name in on}
    every = replace(settings, **{"mirror_share" if n == "mirror" else n: 1.0 for n in on})
    return sheet | {"all together": augment_slices(images, labels, every, key=key)}


def draw(batch_size: int, *, key: Sequence[int], settings: SliceAugment) -> Draw:
    """Random numbers of a batch from `key` (non-negative integers) alone.

    Every transform draws whether it is on or off, so that switching one leaves the others' numbers as they are.
    """
    rng = np.random.default_rng(np.random.SeedSequence([*key, STREAM]))

    def sometimes(share: float, low: float, high: float, neutral: float, columns: int = 0) -> np.ndarray:
        shape = (batch_size, columns) if columns else (batch_size,)
        happens = rng.random(batch_size) < share
        values = rng.uniform(low, high, shape)
        return np.where(happens[:, None] if columns else happens, values, neutral)

    s = settings
    mirror_share = 0.0 if s.mirror == "none" else s.mirror_share
    return Draw(
        degrees=sometimes(s.rotate, -s.max_degrees, s.max_degrees, 0),
        shift=sometimes(s.translate, -s.max_shift, s.max_shift, 0, columns=2),
        share=sometimes(s.cut, *s.cut_share, 1),
        place=rng.uniform(-1, 1, (batch_size, 2)),
        mirror=s.mirror,
        mirrored=rng.random(batch_size) < mirror_share,
        equalise=sometimes(s.equalise, *s.equalise_strength, 0),
        sigma=sometimes(s.blur, *s.blur_sigma, 0),
        gain=sometimes(s.intensity, *s.gain, 1),
        offset=sometimes(s.intensity, -s.max_offset, s.max_offset, 0),
        noise=sometimes(s.noise, *s.noise_sigma, 0),
        noise_seed=int(rng.integers(2**31)),
    )


def apply(images: Tensor, labels: Tensor, drawn: Draw) -> tuple[Tensor, Tensor]:
    """Images and labels with `drawn` done to them; the labels follow nearest, the inputs stay as they are.

    Shapes: images (B, K, H, W) with labels (B, 1, H, W), or both (B, 1, D, H, W). Images are floating point and
    keep their dtype, labels keep theirs. What comes from outside the picture is the sample's lowest value, and 0.
    """
    _check(images, labels, drawn)
    stacks, masks = (x.flatten(1, 2) if x.ndim == 5 else x for x in (images, labels))
    done = torch.empty(stacks.shape, dtype=torch.float32, device=images.device), torch.empty_like(masks)
    for sample in range(len(images)):
        _place((stacks[sample], masks[sample]), drawn, sample, into=(done[0][sample], done[1][sample]))
        _equalise(done[0][sample], drawn.equalise[sample])
        _blur(done[0][sample], drawn.sigma[sample])
    _intensity(done[0], drawn)
    return done[0].reshape(images.shape).to(images.dtype), done[1].reshape(labels.shape)


def augment_slices(
    images: Tensor, labels: Tensor, settings: SliceAugment, *, key: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """`apply` what `settings` and `key` draw: the tumour stage."""
    return apply(images, labels, draw(len(images), key=key, settings=settings))


def augment_slabs(
    images: Tensor, labels: Tensor, settings: SlabAugment, *, key: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """`apply` the mirror and, where asked, movement or jitter to slabs (B, 1, D, H, W): the kidney stage."""
    strengths = JITTER
    if not settings.jitter:
        strengths = replace(JITTER, blur=0.0, intensity=0.0, noise=0.0)
    if not (settings.jitter or settings.move):
        strengths = only("mirror", replace(JITTER, mirror="sagittal"))
    return augment_slices(images, labels, replace(strengths, mirror=settings.mirror, mirror_share=0.5), key=key)


def _check(images: Tensor, labels: Tensor, drawn: Draw) -> None:
    right = labels.shape == images.shape if images.ndim == 5 else labels.shape == (len(images), 1, *images.shape[2:])
    if images.ndim not in (4, 5) or not right:
        raise ValueError(
            "augmentation: expected images (B, K, H, W) with labels (B, 1, H, W), or both (B, 1, D, H, W); "
            f"got {tuple(images.shape)} and {tuple(labels.shape)}"
        )
    if not images.is_floating_point():
        raise ValueError(f"augmentation: expected floating-point images, got {images.dtype}; window the HU first")
    if len(drawn.degrees) != len(images):
        raise ValueError(f"augmentation: drawn for {len(drawn.degrees)} samples, got a batch of {len(images)}")


def _on(values: np.ndarray, like: Tensor) -> Tensor:
    """Per-sample numbers as (B, 1, 1, 1) on the batch's device."""
    return torch.from_numpy(values).to(like.device, torch.float32).reshape(-1, 1, 1, 1)


def _lowest(stacks: Tensor) -> Tensor:
    return stacks.amin(dim=(1, 2, 3), keepdim=True)


def _place(pair: tuple[Tensor, Tensor], drawn: Draw, sample: int, *, into: tuple[Tensor, Tensor]) -> None:
    """Image and label (K, H, W) mirrored, then moved.

    Mirror, rotation, shift and cut are one affine map, so that the pixels are interpolated once.
    """
    axes = [2] if drawn.mirror == "sagittal" else [0, 1, 2]
    mirrored = bool(drawn.mirrored[sample])
    if not (drawn.degrees[sample] or drawn.shift[sample].any() or drawn.share[sample] != 1):
        for stack, place in zip(pair, into, strict=True):
            place.copy_(stack.flip(axes) if mirrored else stack)
        return
    grid = _grid(drawn, sample, pair[0])
    image, label = (x.flip(0) if mirrored and 0 in axes else x for x in pair)  # rows and columns: by the grid
    low = image.amin()  # what comes in from outside; of labels 0
    _sample((image - low).float(), grid, "bilinear", into=into[0])
    into[0].add_(low)
    _sample(label.float(), grid, "nearest", into=into[1])


def _sample(stack: Tensor, grid: Tensor, mode: str, *, into: Tensor) -> None:
    """(K, H, W) at `grid` (H, W, 2), in bands of rows: torch gives each thread whole samples."""
    height, width = stack.shape[1:]
    bands = math.gcd(height, torch.get_num_threads())
    grids = grid.view(bands, -1, width, 2)
    sampled = F.grid_sample(stack.expand(bands, -1, -1, -1), grids, mode=mode, align_corners=False)
    into.view(len(into), bands, -1, width).transpose(0, 1).copy_(sampled)


def _grid(drawn: Draw, sample: int, like: Tensor) -> Tensor:
    """(H, W, 2): where each pixel of a sample comes from, x before y, both -1 to 1 across the picture.

    Positions are written as x + iy: an affine map is then a sum of what the column gives and what the row gives,
    many times as quick as the matrix product of `F.affine_grid`.
    """
    height, width = like.shape[-2:]
    angle, share = np.radians(drawn.degrees[sample]), drawn.share[sample]
    cos, sin = np.cos(angle) * share, np.sin(angle) * share
    down, right = (1 - share) * drawn.place[sample] - 2 * drawn.shift[sample]  # centre of the cut box
    x, y = ((2 * np.arange(size) + 1) / size - 1 for size in (width, height))
    column = (cos + 1j * sin * width / height) * x
    row = (1j * cos - sin * height / width) * y + right + 1j * down
    if drawn.mirrored[sample]:  # the place across the middle column, or across the centre
        column, row = (-column.conj(), -row.conj()) if drawn.mirror == "sagittal" else (-column, -row)
    columns, rows = (torch.from_numpy(part.astype(np.complex64)).to(like.device) for part in (column, row))
    return torch.view_as_real(columns + rows[:, None])


def _equalise(stack: Tensor, strength: float) -> None:
    if strength > 0:
        stack.lerp_(_flattened(stack), float(strength))


def _flattened(x: Tensor) -> Tensor:
    """`x` with the histogram of what lies above its lowest value (the masked outside) made flat over its range."""
    low, high = x.aminmax()
    span = (high - low).clamp(min=1e-6)
    position = (x - low).mul_(BINS / span).flatten()
    level = position.int()  # BINS itself for the highest value
    counted = torch.bincount(level, minlength=BINS + 1)
    counted[0] -= x.numel() - position.count_nonzero()
    counted[BINS - 1] += counted[BINS]
    counted[BINS] = 0
    slope = counted * (span / counted.sum().clamp(min=1))
    start = slope.cumsum(0) - slope + low - slope * torch.arange(BINS + 1, device=x.device)
    return start.index_select(0, level).addcmul_(slope.index_select(0, level), position).view_as(x)


def _blur(stack: Tensor, sigma: float) -> None:
    if sigma > 0:
        stack.copy_(_blurred(_blurred(stack, sigma, axis=1), sigma, axis=2))


def _blurred(x: Tensor, sigma: float, *, axis: int) -> Tensor:
    """Gaussian along rows or columns of (K, H, W), up to three sigma, over repeated edges; a sum of shifted copies."""
    radius = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    centre, *sides = (weights / (2 * weights.sum() - weights[0])).tolist()
    frame = [0, 0, radius, radius] if axis == 1 else [radius, radius, 0, 0]
    framed = F.pad(x, frame, mode="replicate")
    length = x.shape[axis]
    out = x * centre
    for distance, weight in enumerate(sides, start=1):
        for start in (radius - distance, radius + distance):
            out.add_(framed.narrow(axis, start, length), alpha=weight)
    return out


def _intensity(stacks: Tensor, drawn: Draw) -> None:
    """Gain about the lowest value, offset, and white noise."""
    if not ((drawn.gain != 1).any() or drawn.offset.any() or drawn.noise.any()):
        return
    low = _lowest(stacks)
    span = stacks.amax(dim=(1, 2, 3), keepdim=True) - low
    if (drawn.gain != 1).any() or drawn.offset.any():
        gain = _on(drawn.gain, stacks)
        stacks.mul_(gain).add_(low - low * gain + span * _on(drawn.offset, stacks))
    if drawn.noise.any():
        generator = torch.Generator(stacks.device).manual_seed(drawn.noise_seed)
        white = torch.randn(stacks.shape, generator=generator, device=stacks.device)
        stacks.addcmul_(white, span * _on(drawn.noise, stacks))
