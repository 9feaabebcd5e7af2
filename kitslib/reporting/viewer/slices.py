"""CT slices with label overlays behind a slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from scipy import ndimage

from kitslib.reporting.figures.panels import ABDOMEN, AXES, MARKS, Plane, plane_slice, plane_spacing
from kitslib.reporting.figures.style import NAMES, PALETTE, WORDS
from kitslib.reporting.viewer.slider import Viewer, ViewerError, encoded

HU_WINDOWS = {"abdomen": ABDOMEN, "kidney": (-20, 280), "bone": (-450, 1050), "lung": (-1350, 150)}
STORED = ("abdomen", "bone")  # the HU windows of a viewer that lies in a page
BUDGET = 1_700_000  # characters of all pictures of a viewer
WIDTH, APART_WIDTH = 340, 440  # pixels
MARGIN_MM = 15  # shown beyond the labels
# per overlay: thickness of the edge in pixels, opacity inside, opacity of the edge
DRAWN = {"labels": (1, 85, 190), "truth": (1, 95, 95), "prediction": (2, 0, 255)}


def slice_viewer(
    imaging: np.ndarray, labels: np.ndarray | None = None,
    *, spacing: Sequence[float], title: str, max_slices: int = 48,
    prediction: np.ndarray | None = None, plane: Plane = "axial",
) -> Viewer:  # fmt: skip
    """The slices of a CT (D, H, W) in HU, labels filled, a prediction outlined, each with a switch.

    `spacing` is (z, y, x) in mm. The bone HU window is left out where the pictures would weigh more
    than 1.7 MB. With labels the slices (at most `max_slices`) span them and 15 mm more.
    Raises ViewerError when shapes differ.
    """
    overlays = {"labels" if prediction is None else "truth": labels, "prediction": prediction}
    overlays = {name: volume for name, volume in overlays.items() if volume is not None}
    words = "" if prediction is None else "Truth filled, prediction outlined."
    options: dict[str, Any] = {"max_slices": max_slices, "plane": plane, "words": words}
    return viewer_of(imaging, overlays, spacing=spacing, title=title, **options)


def viewer_of(
    imaging: np.ndarray, overlays: Mapping[str, np.ndarray], *, spacing: Sequence[float],
    title: str, max_slices: int, words: str, plane: Plane = "axial", apart: bool = False,
) -> Viewer:  # fmt: skip
    """Slices of a CT (D, H, W) in HU with label maps by name, over each other or `apart`.

    The arguments are those of `slice_viewer`; `words` end the caption.
    """
    check_overlays(imaging, overlays, spacing)
    axis, step = AXES[plane], plane_spacing(spacing, plane)
    count = imaging.shape[axis]
    indices = _slices(overlays, axis, count, round(MARGIN_MM / spacing[axis]), max_slices)
    size = picture_size(plane_slice(imaging, plane, 0), step, APART_WIDTH if apart else WIDTH)
    layers, frames, left_out, weight = {}, {}, [], 0
    for name, volume in overlays.items():
        style = "labels" if apart else name
        pictures = [layer(plane_slice(volume, plane, index), size, style) for index in indices]
        layers[name] = [encoded(one, "PNG", optimize=True, bits=4) for one in pictures]
        weight += sum(map(len, layers[name]))
    for name in STORED:
        pictures = [grey(plane_slice(imaging, plane, index), size, name) for index in indices]
        codes = [encoded(one, "JPEG", quality=64, optimize=True) for one in pictures]
        weight += sum(map(len, codes))
        if frames and weight > BUDGET:
            left_out.append(name)
        else:
            frames[name] = codes
    caption = f"{title}. {len(indices)} of {count} slices"
    if left_out:
        caption += f", abdomen HU window ({', '.join(left_out)} left out to keep the page small)"
    alt = f"{title}: {plane} CT slices"
    if overlays and not apart:
        alt += f" with {' and '.join(overlays)} drawn over them"
    legend = []
    for value, name in NAMES.items():
        if any((volume == value).any() for volume in overlays.values()):
            legend.append((WORDS[value], PALETTE[name]))
    places = [f"slice {z + 1} of {count}, {z * spacing[axis]:.0f} mm" for z in indices]
    return Viewer(
        title=title, alt=alt, caption=f"{caption}. {words}".strip(), frames=frames, layers=layers,
        words=places, start=start_of(overlays, axis, indices), size=size, marks=MARKS[plane],
        legend=legend, apart=apart,
    )  # fmt: skip


def check_overlays(
    imaging: np.ndarray, overlays: Mapping[str, np.ndarray], spacing: Sequence[float]
) -> None:
    """Raise ViewerError where shapes differ or the imaging is not a volume."""
    if imaging.ndim != 3 or len(spacing) != 3:
        got = f"shape {imaging.shape}, spacing {spacing}"
        raise ViewerError(f"viewer: expected a (D, H, W) volume and 3 spacings, got {got}")
    for name, volume in overlays.items():
        if volume.shape != imaging.shape:
            got = f"the imaging's shape {imaging.shape}, got {volume.shape}"
            raise ViewerError(f"viewer: {name} must have {got}")


def _areas(volume: np.ndarray, axis: int) -> np.ndarray:
    """How many voxels of a boolean volume each slice has."""
    return np.moveaxis(volume, axis, 0).sum(axis=(1, 2))


def _slices(
    overlays: Mapping[str, np.ndarray], axis: int, count: int, margin: int, most: int
) -> list[int]:
    """Evenly spread slice numbers over the labelled part and its margin, or over all slices."""
    first, last = 0, count - 1
    where = np.flatnonzero(sum(_areas(volume > 0, axis) for volume in overlays.values()))
    if len(where):
        first, last = max(where[0] - margin, first), min(where[-1] + margin, last)
    shown = min(most, last - first + 1)
    return np.unique(np.linspace(first, last, shown).round().astype(int)).tolist()


def start_of(overlays: Mapping[str, np.ndarray], axis: int, indices: Sequence[int]) -> int:
    """The place in `indices` with most tumour, else cyst, else kidney, else the middle."""
    for wanted in (2, 3, 1):
        for volume in overlays.values():
            areas = _areas(volume == wanted, axis)[indices]
            if areas.any():
                return int(areas.argmax())
    return len(indices) // 2


def picture_size(image: np.ndarray, step: Sequence[float], width: int) -> tuple[int, int]:
    """Width and height in pixels of a slice at true aspect; `step` is mm per row and column."""
    tallness = image.shape[0] * step[0] / (image.shape[1] * step[1])
    return width, max(1, round(width * tallness))


def grey(image: np.ndarray, size: tuple[int, int], hu_window: str) -> Image.Image:
    low, high = HU_WINDOWS[hu_window]
    shade = (np.clip(image, low, high).astype(np.float32) - low) * (255 / (high - low))
    picture = Image.fromarray(shade.round().astype(np.uint8))
    return picture.resize(size, Image.Resampling.BICUBIC)


def layer(labels: np.ndarray, size: tuple[int, int], overlay: str) -> Image.Image:
    """Labels as a transparent picture: labels filled with an edge, truth filled, or outlined."""
    thickness, inside, edge = DRAWN[overlay]
    picture = Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    drawn, around = np.asarray(picture), 2 * thickness + 1
    inner = ndimage.minimum_filter(drawn, around) == ndimage.maximum_filter(drawn, around)
    colors = np.array([to_rgb(PALETTE[name]) for name in NAMES.values()])
    picture = Image.fromarray(drawn + (len(NAMES) * ((drawn > 0) & ~inner)).astype(np.uint8))
    picture.putpalette([0, 0, 0, *np.rint(255 * colors).astype(int).flatten().tolist() * 2])
    picture.info["transparency"] = bytes([0, *[inside] * len(NAMES), *[edge] * len(NAMES)])
    return picture
