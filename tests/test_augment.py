"""Augmentation: every transform against its plain statement, labels in step, seeds."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kitslib.transforms import (
    JITTER,
    TRANSFORMS,
    Draw,
    SlabAugment,
    SliceAugment,
    apply,
    augment_slabs,
    augment_slices,
    contact_sheet,
    draw,
    on_cpu,
    on_gpu,
    only,
)
from kitslib.transforms.augment import BINS, _steps

EVERYTHING = SliceAugment(
    rotate=1,
    translate=1,
    cut=1,
    equalise=1,
    blur=1,
    mirror_share=1,
    intensity=1,
    noise=1,
    noise_sigma=(0.01, 0.05),
)
NOTHING = replace(only("mirror"), mirror_share=0.0)


def each(samples: int, *seeds: int) -> list[tuple[int, ...]]:
    """The seeds of every sample of a batch: these, and its place."""
    return [(*seeds, place) for place in range(samples)]


def neutral(batch: int = 1, **changes: object) -> Draw:
    """A draw that does nothing but `changes`, the same for every sample."""
    drawn = draw(NOTHING, seeds=each(batch))
    return replace(
        drawn, **{k: np.array([v] * batch) if k != "mirror" else v for k, v in changes.items()}
    )


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    labels = (images[:, :1] > 0.5) if len(shape) == 4 else (images > 0.5)
    return images, labels.to(torch.uint8)


# The draw


def test_the_seeds_alone_decide() -> None:
    images, labels = batch(4, 3, 16, 16)
    before = images.clone()
    first, again, other = (
        augment_slices(images, labels, EVERYTHING, seeds=each(4, *seeds))
        for seeds in ((1, 2), (1, 2), (1, 3))
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(images, before)


@pytest.mark.parametrize("shape", [(4, 3, 16, 12), (4, 1, 3, 16, 12)])
def test_a_sample_becomes_the_same_in_whatever_share_of_a_batch(shape: tuple[int, ...]) -> None:
    images, labels = batch(*shape)
    settings = replace(EVERYTHING, rotate=0.5, mirror_share=0.5, intensity=0.5, noise=0.5)
    whole = augment_slices(images, labels, settings, seeds=each(4, 9))
    for part in (slice(0, 1), slice(1, 4)):
        share = augment_slices(images[part], labels[part], settings, seeds=each(4, 9)[part])
        assert torch.equal(share[0], whole[0][part]) and torch.equal(share[1], whole[1][part])


def test_the_contact_sheet_has_each_transform_that_is_on_alone_and_all_together() -> None:
    images, labels = batch(1, 3, 32, 32)
    sheet = contact_sheet(images, labels, SliceAugment(blur=0.0, mirror="none"), seeds=each(1, 4))
    assert list(sheet) == ["as it is", "rotate", "translate", "cut", "equalise", "all together"]
    assert torch.equal(sheet["as it is"][0], images)
    alone = augment_slices(images, labels, only("rotate"), seeds=each(1, 4))
    assert torch.equal(sheet["rotate"][0], alone[0]) and torch.equal(sheet["rotate"][1], alone[1])
    assert all(
        not torch.equal(shown, images) for name, (shown, _) in sheet.items() if name != "as it is"
    )
    assert torch.equal(sheet["equalise"][1], labels)


def test_a_sampler_with_the_same_seeds_draws_other_numbers() -> None:
    seeds, shifts = each(64, 5, 6), replace(NOTHING, translate=0.5)  # the first number of all
    sampler = np.array([np.random.default_rng(own).random() for own in seeds])
    shifted = draw(shifts, seeds=seeds).shift.any(1)
    assert 0 < (shifted == (sampler < 0.5)).sum() < 64


@pytest.mark.parametrize("name", TRANSFORMS)
def test_switching_a_transform_off_leaves_the_others_numbers(name: str) -> None:
    settings = replace(EVERYTHING, rotate=0.5, blur=0.5, cut=0.5)
    off = replace(settings, **{"mirror_share" if name == "mirror" else name: 0.0})
    before, after = (draw(s, seeds=each(8, 3)) for s in (settings, off))
    changed = [
        f.name
        for f in fields(Draw)
        if not np.array_equal(getattr(before, f.name), getattr(after, f.name))
    ]
    own = {
        "rotate": ["degrees"],
        "translate": ["shift"],
        "cut": ["share"],
        "equalise": ["equalise"],
        "blur": ["sigma"],
        "mirror": ["mirrored"],
        "intensity": ["gain", "offset"],
        "noise": ["noise"],
    }
    assert changed == own[name]


def test_shares_and_ranges_are_kept() -> None:
    settings = SliceAugment(rotate=0.25, max_degrees=10, cut=1, cut_share=(0.5, 0.75))
    drawn = draw(settings, seeds=each(2000, 1))
    assert np.mean(drawn.degrees != 0) == pytest.approx(0.25, abs=0.03)
    assert np.abs(drawn.degrees).max() <= 10
    assert 0.5 <= drawn.share.min() < 0.52
    assert 0.73 < drawn.share.max() <= 0.75
    assert np.abs(drawn.place).max() <= 1  # so that the box stays inside


@pytest.mark.parametrize("name", TRANSFORMS)
def test_each_transform_alone_acts_and_the_neutral_draw_does_not(name: str) -> None:
    images, labels = batch(2, 3, 16, 12)
    settings = replace(SliceAugment(), noise_sigma=(0.01, 0.05))
    changed, moved = augment_slices(
        images, labels, only(name, settings), seeds=each(len(images), 7)
    )
    assert not torch.equal(changed, images)
    assert torch.equal(moved, labels) == (name in ("equalise", "blur", "intensity", "noise"))
    same, still = augment_slices(images, labels, NOTHING, seeds=each(len(images), 7))
    assert torch.equal(same, images)
    assert torch.equal(still, labels)


# Geometry


def test_the_sagittal_mirror_swaps_left_and_right() -> None:
    images, labels = batch(1, 2, 3, 4)
    mirrored, follows = apply(images, labels, neutral(mirrored=True))
    assert torch.equal(mirrored, images.flip(-1))
    assert torch.equal(follows, labels.flip(-1))


@pytest.mark.parametrize(
    ("shape", "axes"), [((1, 3, 4, 5), [1, 2, 3]), ((1, 1, 3, 4, 5), [2, 3, 4])]
)
def test_the_central_mirror_is_a_point_reflection(shape: tuple[int, ...], axes: list[int]) -> None:
    images, labels = batch(*shape)
    mirrored, follows = apply(images, labels, neutral(mirrored=True, mirror="central"))
    assert torch.equal(mirrored, images.flip(axes))
    assert torch.equal(follows, labels.flip(axes[-2:] if len(shape) == 4 else axes))


def test_a_quarter_turn_of_a_square() -> None:
    images, labels = batch(1, 2, 8, 8)
    turned, follows = apply(images, labels, neutral(degrees=90.0))
    torch.testing.assert_close(turned, images.rot90(1, (-2, -1)), atol=1e-5, rtol=0)
    assert torch.equal(follows, labels.rot90(1, (-2, -1)))


def test_a_turn_keeps_lengths_where_height_and_width_differ() -> None:
    images = torch.zeros(1, 1, 16, 32)
    images[..., 8, 16:24] = 1  # eight pixels along the row from the centre
    turned, _ = apply(images, images, neutral(degrees=90.0))
    assert turned.sum().item() == pytest.approx(8, abs=0.1)
    assert (turned[0, 0].amax(dim=1) > 0.4).sum() == 8  # now along the column


def test_a_shift_moves_whole_pixels_and_brings_in_the_lowest_value() -> None:
    images, labels = batch(1, 2, 8, 4)
    shifted, follows = apply(
        images, labels, neutral(shift=(0.25, -0.25))
    )  # two rows down, one column left
    torch.testing.assert_close(shifted[..., 2:, :-1], images[..., :-2, 1:])
    assert torch.equal(follows[..., 2:, :-1], labels[..., :-2, 1:])
    torch.testing.assert_close(shifted[..., :2, :], images.amin().expand(1, 2, 2, 4))
    assert not follows[..., -1].any()


def test_the_cut_takes_a_box_back_to_full_size() -> None:
    images, labels = batch(1, 2, 8, 8)
    for place, corner in (((-1.0, -1.0), (0, 0)), ((1.0, -1.0), (4, 0)), ((0.0, 0.0), (2, 2))):
        _, follows = apply(images, labels, neutral(share=0.5, place=place))
        box = labels[..., corner[0] : corner[0] + 4, corner[1] : corner[1] + 4]
        assert torch.equal(follows, box.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_turn_shift_and_cut_together_are_one_affine_map() -> None:
    images, labels = batch(1, 2, 12, 18)
    drawn = neutral(degrees=30.0, shift=(0.1, -0.05), share=0.8, place=(0.5, -1.0))
    cos, sin = 0.8 * np.cos(np.pi / 6), 0.8 * np.sin(np.pi / 6)
    centre = (
        0.2 * -1.0 + 2 * 0.05,
        0.2 * 0.5 - 2 * 0.1,
    )  # x, y of the box, moved against the shift
    theta = torch.tensor(
        [[[cos, -sin * 12 / 18, centre[0]], [sin * 18 / 12, cos, centre[1]]]], dtype=torch.float32
    )
    grid = F.affine_grid(theta, [1, 1, 12, 18], align_corners=False)
    low = images.amin()
    moved, follows = apply(images, labels, drawn)
    torch.testing.assert_close(moved, F.grid_sample(images - low, grid, align_corners=False) + low)
    assert torch.equal(
        follows, F.grid_sample(labels.float(), grid, mode="nearest", align_corners=False).byte()
    )


@pytest.mark.parametrize("threads", [2, 4])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    images, labels = batch(3, 2, 16, 12)
    before, alone = torch.get_num_threads(), {}
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            alone[count] = augment_slices(images, labels, EVERYTHING, seeds=each(len(images), 5))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone[1][0], alone[threads][0])
    assert torch.equal(alone[1][1], alone[threads][1])


@pytest.mark.parametrize("shape", [(4, 3, 40, 56), (2, 1, 5, 40, 56)])
def test_labels_stay_on_the_structures(shape: tuple[int, ...]) -> None:
    images = torch.zeros(shape)
    images[..., 10:28, 20:44] = 1
    labels = (images[:, :1] if len(shape) == 4 else images).to(torch.uint8) * 2
    geometry = replace(NOTHING, rotate=1, translate=1, cut=1, mirror_share=1)
    moved, follows = augment_slices(images, labels, geometry, seeds=each(len(images), 11))
    assert set(follows.unique().tolist()) == {0, 2}
    assert follows.dtype == torch.uint8
    assert not torch.equal(follows, labels)
    apart = (moved > 0.5)[:, :1] != (follows[:, :1] > 0)
    assert apart.float().mean() < 0.002  # corners, which linear interpolation rounds


def test_all_slices_of_a_sample_move_alike() -> None:
    slice_ = torch.rand(1, 1, 1, 16, 16)
    slab = slice_.expand(2, 1, 5, 16, 16)
    moved, _ = augment_slices(
        slab, slab, replace(NOTHING, rotate=1, translate=1, cut=1), seeds=each(2, 2)
    )
    torch.testing.assert_close(moved, moved[:, :, :1].expand_as(moved))
    assert not torch.allclose(moved[0], moved[1])  # and samples apart


# Values


def test_equalisation_on_paper() -> None:
    # four values above the lowest, a quarter of the range each; 64 bins over 0 to 10
    images = torch.tensor([0.0, 0, 0, 0, 1, 2, 3, 10]).reshape(1, 1, 2, 4)
    expected = torch.tensor([0.0, 0, 0, 0, 2.5 * 0.4, 2.5 * 1.8, 2.5 * 2.2, 10]).reshape(1, 1, 2, 4)
    flat, _ = apply(images, images, neutral(equalise=1.0))
    near = {
        "atol": 10 * 16 / on_cpu.FINE / 64,
        "rtol": 0,
    }  # a level, where the result rises 16 times as fast
    torch.testing.assert_close(flat, expected, **near)
    half, _ = apply(images, images, neutral(equalise=0.5))
    torch.testing.assert_close(half, (images + expected) / 2, **near)


def test_equalisation_flattens_and_keeps_the_order() -> None:
    images = torch.rand(1, 1, 100, 100, generator=torch.Generator().manual_seed(2)) ** 1.5
    flat, _ = apply(images, images, neutral(equalise=1.0))
    counts = torch.histc(flat, bins=10, min=0, max=1)
    assert ((counts - 1000).abs() < 50).all()
    order = images.flatten().argsort()
    assert (flat.flatten()[order].diff() >= -1e-6).all()


def test_a_constant_image_survives_everything() -> None:
    images = torch.full((2, 3, 16, 16), -2.0)
    changed, _ = augment_slices(
        images, torch.zeros(2, 1, 16, 16), EVERYTHING, seeds=each(len(images), 4)
    )
    torch.testing.assert_close(changed, images)


def test_the_blur_is_a_normalised_gaussian() -> None:
    images = torch.zeros(1, 2, 21, 21)
    images[:, 0, 10, 10] = 1
    images[:, 1] = 3
    blurred, _ = apply(images, images[:, :1], neutral(sigma=1.0))
    spot = blurred[0, 0]
    assert spot.sum().item() == pytest.approx(1)
    assert (spot[10, 11] / spot[10, 10]).item() == pytest.approx(np.exp(-0.5))
    assert (spot[12, 10] / spot[10, 10]).item() == pytest.approx(np.exp(-2))
    torch.testing.assert_close(blurred[0, 1], images[0, 1])  # up to the edges


def test_the_blur_ends_at_three_sigma() -> None:
    images = torch.zeros(1, 1, 21, 21)
    images[..., 10, 10] = 1
    blurred = apply(images, images, neutral(sigma=1.2))[0][0, 0]
    assert (blurred[10] > 0).sum() == (blurred[:, 10] > 0).sum() == 2 * 4 + 1


def test_every_sample_has_its_own_blur() -> None:
    images = torch.zeros(3, 1, 21, 21)
    images[..., 10, 10] = 1
    drawn = replace(neutral(3), sigma=np.array([0.0, 0.5, 1.0]))
    peaks = apply(images, images, drawn)[0].amax(dim=(1, 2, 3))
    assert peaks[0] == 1
    assert peaks[0] > peaks[1] > peaks[2]


def test_gain_and_offset_on_paper() -> None:
    images = torch.tensor([-1.0, 0, 1, 3]).reshape(1, 1, 2, 2)  # range 4
    changed, _ = apply(images, images, neutral(gain=0.5, offset=0.25))
    torch.testing.assert_close(changed.flatten(), torch.tensor([0.0, 0.5, 1, 2]))


def test_the_noise_has_its_strength_in_shares_of_the_range() -> None:
    images = torch.zeros(1, 1, 200, 200)
    images[..., 0] = 10
    noise = apply(images, images, neutral(noise=0.02))[0] - images
    assert noise.std().item() == pytest.approx(0.2, rel=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)


def test_threads_give_the_bits_that_one_gives() -> None:
    images, labels = batch(5, 5, 150, 160)
    before, done = torch.get_num_threads(), []
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            done.append(augment_slices(images, labels, EVERYTHING, seeds=each(len(images), 4)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for one in done[1:] for a, b in zip(done[0], one, strict=True))


# The two implementations: `on_cpu` by NumPy and OpenCV, `on_gpu` by torch


def by_torch(images: Tensor, labels: Tensor, drawn: Draw) -> tuple[Tensor, Tensor]:
    """What `on_gpu` makes of a batch, on the device that it lies on."""
    done = torch.empty_like(images), torch.empty_like(labels)
    steps = _steps(drawn, *images.shape[2:])
    on_gpu.augment((images, labels), done, steps, BINS)
    return done


@pytest.mark.parametrize(
    "name", ["rotate", "translate", "cut", "equalise", "blur", "mirror", "all"]
)
@pytest.mark.parametrize("mirror", ["sagittal", "central"])
@pytest.mark.parametrize("slices", [1, 2, 3, 5, 8])
def test_both_implementations_do_the_same(name: str, mirror: str, slices: int) -> None:
    noise = torch.rand(4, slices, 6, 8, generator=torch.Generator().manual_seed(3))
    images = F.interpolate(noise, (48, 64), mode="bilinear") * 4 - 2
    images[..., :12] = -2  # as behind a kidney mask
    labels = (images[:, :1] > 0.5).to(torch.uint8)
    settings = replace(EVERYTHING, intensity=0, noise=0) if name == "all" else only(name)
    drawn = draw(replace(settings, mirror=mirror), seeds=each(4, 6))
    on_the_cpu, on_the_gpu = apply(images, labels, drawn), by_torch(images, labels, drawn)
    near = 5e-3 if name in ("equalise", "all") else 1e-3  # of a range of 4
    torch.testing.assert_close(on_the_cpu[0], on_the_gpu[0], atol=near, rtol=0)
    assert (
        on_the_cpu[1] != on_the_gpu[1]
    ).float().mean() < 1e-3  # places in the middle between two pixels
    assert not torch.equal(on_the_cpu[0], images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_does_what_the_cpu_does_by_the_same_implementation() -> None:
    images, labels = batch(4, 5, 48, 64)
    drawn = draw(replace(EVERYTHING, intensity=0, noise=0), seeds=each(4, 6))
    found = by_torch(images.cuda(), labels.cuda(), drawn)
    expected = by_torch(images, labels, drawn)
    torch.testing.assert_close(found[0].cpu(), expected[0], atol=5e-3, rtol=0)
    assert (found[1].cpu() != expected[1]).float().mean() < 1e-3


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.int64, torch.bool, torch.float64]
)
def test_labels_of_any_dtype_are_moved_alike(dtype: torch.dtype) -> None:
    images, labels = batch(3, 5, 24, 20)
    geometry = replace(NOTHING, rotate=1, translate=1, cut=1, mirror_share=1)
    _, follows = augment_slices(images, labels.to(dtype), geometry, seeds=each(len(images), 8))
    assert follows.dtype == dtype
    assert torch.equal(
        follows.to(torch.uint8),
        augment_slices(images, labels, geometry, seeds=each(len(images), 8))[1],
    )


# The two stages


def test_the_kidney_stage_mirrors_or_jitters() -> None:
    images, labels = batch(16, 1, 4, 8, 8)
    mirrored, _ = augment_slabs(images, labels, SlabAugment(), seeds=each(len(images), 1))
    flipped = [torch.equal(a, b.flip(-1)) for a, b in zip(mirrored, images, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(mirrored, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 2 < sum(flipped) < 14
    assert torch.equal(
        augment_slabs(images, labels, SlabAugment(mirror="none"), seeds=each(len(images), 1))[0],
        images,
    )
    jittered, _ = augment_slabs(
        images, labels, SlabAugment(mirror="none", jitter=True), seeds=each(len(images), 1)
    )
    assert jittered.shape == images.shape
    assert not torch.allclose(jittered, images)
    drawn = draw(JITTER, seeds=each(16, 1))
    assert (drawn.gain != 1).any()
    steps = torch.where(images > images.mean(), 1.0, 0.0)
    moved, _ = augment_slabs(
        steps, labels, SlabAugment(mirror="none", move=True), seeds=each(len(images), 1)
    )
    assert not torch.equal(moved, steps)
    assert moved.min() == 0 and moved.max() == 1, "neither gain nor offset nor noise"
    assert not drawn.equalise.any()


def test_the_dtype_of_the_images_is_kept() -> None:
    images, labels = batch(2, 3, 16, 16)
    changed, _ = augment_slices(images.bfloat16(), labels, EVERYTHING, seeds=each(len(images), 1))
    assert changed.dtype == torch.bfloat16
    assert torch.isfinite(changed).all()


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate": 1.5}, r"rotate: expected a share of the samples in \[0, 1\], got 1.5"),
        ({"mirror": "left"}, "mirror: expected 'none', 'sagittal' or 'central', got 'left'"),
        ({"blur_sigma": (2.0, 1.0)}, "blur_sigma: expected 0 <= low <= high"),
        ({"cut_share": (0.0, 1.0)}, "cut_share: expected a share above 0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SliceAugment(**options)


def test_an_unknown_transform_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="one of rotate, translate, cut, equalise, blur, mirror, intensity, noise"
    ):
        only("warp")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 9), "expected images"),
        (torch.zeros(2, 1, 4, 8, 8), torch.zeros(2, 1, 8, 8), "expected images"),
        (
            torch.zeros(2, 3, 8, 8, dtype=torch.int16),
            torch.zeros(2, 1, 8, 8),
            "apply the HU window first",
        ),
        (torch.zeros(3, 3, 8, 8), torch.zeros(3, 1, 8, 8), "drawn for 2 samples, got a batch of 3"),
    ],
)
def test_batches_that_do_not_fit_are_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply(images, labels, neutral(2))
