"""CT slices with label overlays behind a slider."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from IPython import get_ipython
from matplotlib.colors import to_rgb
from PIL import Image
from scipy import ndimage

from kitslib.reporting.figures.panels import ABDOMEN, AXES, MARKS, Plane, plane_slice, plane_spacing
from kitslib.reporting.figures.style import NAMES, PALETTE, WORDS
from kitslib.reporting.viewer.slider import Viewer, ViewerError, encoded

WINDOWS = {
    "abdomen": ABDOMEN,
    "kidney": (-20.0, 280.0),
    "bone": (-450.0, 1050.0),
    "lung": (-1350.0, 150.0),
}
BUDGET = 1_700_000
_QUALITY = 64
_LAYERS = {"labels": (1, 85, 190), "truth": (1, 95, 95), "prediction": (2, 0, 255)}


def slice_viewer(
    imaging: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    spacing: Sequence[float],
    title: str,
    max_slices: int = 48,
    width: int = 340,
    windows: Sequence[str] = ("abdomen", "bone"),
    prediction: np.ndarray | None = None,
    plane: Plane = "axial",
) -> Viewer:
    """A CT (D, H, W) in HU to leaf through, its labels filled and a prediction outlined, each with a switch.

    ``spacing`` is (z, y, x) in mm. ``windows`` are names from WINDOWS: the first is always kept, others while
    the pictures stay below 1.7 MB. With labels the slices (at most ``max_slices``) span them and 15 mm more.
    Raises ViewerError when shapes differ or a window is unknown.
    """
    overlays = (
        {"labels": labels, "prediction": prediction}
        if prediction is None
        else {"truth": labels, "prediction": prediction}
    )
    overlays = {name: volume for name, volume in overlays.items() if volume is not None}
    _check(imaging, overlays, spacing, windows)
    indices = _slices(imaging.shape, list(overlays.values()), spacing, plane, max_slices)
    rows_mm, columns_mm = plane_spacing(spacing, plane)
    shape = plane_slice(imaging, plane, 0).shape
    size = (width, max(1, round(width * shape[0] * rows_mm / (shape[1] * columns_mm))))
    layers = {
        name: [_layer(plane_slice(volume, plane, index), size, name) for index in indices]
        for name, volume in overlays.items()
    }
    frames, left_out = _frame_sets(imaging, plane, indices, size, windows, _weight(layers))
    present = sorted(
        {int(value) for volume in overlays.values() for value in np.unique(volume)} & set(NAMES)
    )
    return Viewer(
        title=title,
        alt=f"{title}: {plane} CT slices"
        + (f" with {' and '.join(overlays)} drawn over them" if overlays else ""),
        caption=_caption(
            title,
            frames,
            left_out,
            len(indices),
            imaging.shape[AXES[plane]],
            prediction is not None,
        ),
        frames=frames,
        layers=layers,
        words=[
            _words(index, imaging.shape[AXES[plane]], spacing[AXES[plane]]) for index in indices
        ],
        start=_start(overlays, plane, indices),
        size=size,
        marks=MARKS[plane],
        legend=[(WORDS[value], PALETTE[NAMES[value]]) for value in present],
    )


def _check(
    imaging: np.ndarray,
    overlays: Mapping[str, np.ndarray],
    spacing: Sequence[float],
    windows: Sequence[str],
) -> None:
    if imaging.ndim != 3 or len(spacing) != 3:
        got = f"shape {imaging.shape}, spacing {spacing}"
        raise ViewerError(f"viewer: expected a (D, H, W) volume and 3 spacings, got {got}")
    for name, volume in overlays.items():
        if volume.shape != imaging.shape:
            raise ViewerError(
                f"viewer: {name} must have the imaging's shape {imaging.shape}, got {volume.shape}"
            )
    unknown = [name for name in windows if name not in WINDOWS]
    if unknown or not windows:
        raise ViewerError(
            f"viewer: windows must be some of {', '.join(WINDOWS)}, got {', '.join(unknown) or 'none'}"
        )


def _slices(
    shape: Sequence[int],
    volumes: Sequence[np.ndarray],
    spacing: Sequence[float],
    plane: Plane,
    most: int,
) -> list[int]:
    """Evenly spread slice numbers over the labelled part and 15 mm around it, or over the whole volume."""
    axis = AXES[plane]
    others = tuple(other for other in range(3) if other != axis)
    marked = np.zeros(shape[axis], bool)
    for volume in volumes:
        marked |= (volume > 0).any(axis=others)
    first, last = 0, shape[axis] - 1
    if marked.any():
        margin = round(15 / spacing[axis])
        where = np.nonzero(marked)[0]
        first, last = max(int(where[0]) - margin, first), min(int(where[-1]) + margin, last)
    count = min(most, last - first + 1)
    return np.unique(np.linspace(first, last, count).round().astype(int)).tolist()


def _frame_sets(
    imaging: np.ndarray,
    plane: Plane,
    indices: Sequence[int],
    size: tuple[int, int],
    windows: Sequence[str],
    used: int,
) -> tuple[dict[str, list[str]], list[str]]:
    """The picture sets that fit into the budget, and the names of those that do not."""
    frames: dict[str, list[str]] = {}
    left_out = []
    for name in windows:
        pictures = [
            _frame(plane_slice(imaging, plane, index), size, WINDOWS[name]) for index in indices
        ]
        weight = _weight({name: pictures})
        if frames and used + weight > BUDGET:
            left_out.append(name)
            continue
        frames[name] = pictures
        used += weight
    return frames, left_out


def _weight(sets: Mapping[str, Sequence[str]]) -> int:
    return sum(len(picture) for pictures in sets.values() for picture in pictures)


def _frame(image: np.ndarray, size: tuple[int, int], window: tuple[float, float]) -> str:
    low, high = window
    grey = (
        ((np.clip(image, low, high).astype(np.float32) - low) * (255 / (high - low)))
        .round()
        .astype(np.uint8)
    )
    return encoded(
        Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC),
        "JPEG",
        quality=_QUALITY,
        optimize=True,
    )


def _layer(labels: np.ndarray, size: tuple[int, int], kind: str) -> str:
    """Labels as a small transparent PNG: labels filled with an edge, truth filled, a prediction outlined."""
    thickness, inside, edge = _LAYERS[kind]
    drawn = np.asarray(
        Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    )
    inner = ndimage.minimum_filter(drawn, 2 * thickness + 1) == ndimage.maximum_filter(
        drawn, 2 * thickness + 1
    )
    index = np.where(drawn == 0, 0, np.where(inner, drawn, drawn + len(NAMES))).astype(np.uint8)
    colors = [tuple(round(255 * part) for part in to_rgb(PALETTE[name])) for name in NAMES.values()]
    picture = Image.fromarray(index)
    picture.putpalette([part for color in [(0, 0, 0), *colors, *colors] for part in color])
    alphas = bytes([0] + [inside] * len(NAMES) + [edge] * len(NAMES))
    return encoded(picture, "PNG", transparency=alphas, optimize=True, bits=4)


def _start(overlays: Mapping[str, np.ndarray], plane: Plane, indices: Sequence[int]) -> int:
    """The place in ``indices`` with most tumour, else most of any label, else the middle."""
    for wanted in ((2,), (3,), (1,)):
        for volume in overlays.values():
            areas = [
                int(np.isin(plane_slice(volume, plane, index), wanted).sum()) for index in indices
            ]
            if any(areas):
                return int(np.argmax(areas))
    return len(indices) // 2


def _words(index: int, count: int, step: float) -> str:
    return f"slice {index + 1} of {count}, {index * step:.0f} mm"


def _caption(
    title: str,
    frames: Mapping[str, Any],
    left_out: Sequence[str],
    shown: int,
    count: int,
    compared: bool,
) -> str:
    text = f"{title}. {shown} of {count} slices"
    text += f", {next(iter(frames))} window" if len(frames) == 1 else ""
    text += f" ({', '.join(left_out)} left out to keep the page small)" if left_out else ""
    return text + (". Truth filled, prediction outlined." if compared else ".")


def live_viewer(
    imaging: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    spacing: Sequence[float],
    title: str,
    width: int = 480,
    prediction: np.ndarray | None = None,
) -> Any:
    """Every slice, plane and window of a CT with ipywidgets, drawn by the kernel as the slider moves.

    It opens at the slice with most tumour, as does every plane that is chosen. Needs a running kernel; call it only
    where somebody looks, never in a headless run. Raises ViewerError when there is no kernel.
    """
    if getattr(get_ipython(), "kernel", None) is None:
        raise ViewerError(
            "live viewer: expected a running notebook kernel, found none; use slice_viewer instead"
        )
    import ipywidgets

    overlays = {
        name: part
        for name, part in (("labels", labels), ("prediction", prediction))
        if part is not None
    }
    _check(imaging, overlays, spacing, list(WINDOWS))
    plane = ipywidgets.Dropdown(options=list(AXES), description="plane")
    window = ipywidgets.Dropdown(options=list(WINDOWS), description="window")
    start = _start(overlays, "axial", range(imaging.shape[0]))
    index = ipywidgets.IntSlider(
        value=start, max=imaging.shape[0] - 1, description="slice", continuous_update=True
    )
    switches = [ipywidgets.Checkbox(value=True, description=name) for name in overlays]
    picture = ipywidgets.Image(format="jpeg", layout=ipywidgets.Layout(max_width="100%"))

    def draw(_: object = None) -> None:
        chosen = {box.description: overlays[box.description] for box in switches if box.value}
        picture.value = _composed(
            imaging, chosen, spacing, plane.value, index.value, WINDOWS[window.value], width
        )

    def change_plane(_: object) -> None:
        count = imaging.shape[AXES[plane.value]]
        index.max = count - 1
        index.value = _start(overlays, plane.value, range(count))
        draw()

    plane.observe(change_plane, "value")
    for control in (window, index, *switches):
        control.observe(draw, "value")
    draw()
    return ipywidgets.VBox(
        [
            ipywidgets.HTML(f"<b>{escape(title)}</b>"),
            ipywidgets.HBox([plane, window, *switches]),
            index,
            picture,
        ]
    )


def _composed(
    imaging: np.ndarray,
    overlays: Mapping[str, np.ndarray],
    spacing: Sequence[float],
    plane: Plane,
    index: int,
    window: tuple[float, float],
    width: int,
) -> bytes:
    """One slice with its overlays as JPEG bytes."""
    rows_mm, columns_mm = plane_spacing(spacing, plane)
    image = plane_slice(imaging, plane, index)
    size = (width, max(1, round(width * image.shape[0] * rows_mm / (image.shape[1] * columns_mm))))
    base = Image.open(io.BytesIO(base64.b64decode(_frame(image, size, window)))).convert("RGBA")
    for name, volume in overlays.items():
        layer = _layer(plane_slice(volume, plane, index), size, name)
        base.alpha_composite(Image.open(io.BytesIO(base64.b64decode(layer))).convert("RGBA"))
    buffer = io.BytesIO()
    base.convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
