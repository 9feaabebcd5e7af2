"""CT slices with labels over them: the right way up, at true aspect, with orientation marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from kitslib.reporting.figures.style import NAMES, PALETTE, WIDTH, FigureError

ABDOMEN = (-160.0, 240.0)  # HU window
FILL = 0.3  # opacity of a filled label
MARGIN_MM = 25.0  # around the labels of a case view
Plane = Literal["axial", "coronal", "sagittal"]
AXES = {"axial": 0, "coronal": 1, "sagittal": 2}
# letters at the left, right, top and bottom
MARKS = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}


def plane_slice(volume: np.ndarray, plane: Plane, index: int) -> np.ndarray:
    """One slice of a (D, H, W) volume as it is shown: head or front up, right or front left."""
    return np.take(volume, index, axis=AXES[plane])


def plane_spacing(spacing: Sequence[float], plane: Plane) -> tuple[float, float]:
    """Millimetres per row and per column of a slice in this plane, from a (z, y, x) spacing."""
    return tuple(np.delete(np.asarray(spacing, float), AXES[plane]).tolist())


def tallness(image: np.ndarray, spacing: Sequence[float]) -> float:
    """Height over width of a slice in mm."""
    return image.shape[0] * spacing[0] / (image.shape[1] * spacing[1])


def check_shape(name: str, array: np.ndarray | None, image: np.ndarray) -> None:
    """Raise FigureError where what is drawn over an image, if anything, has another shape."""
    if array is not None and array.shape != image.shape:
        raise FigureError(f"{name}: expected the image's shape {image.shape}, got {array.shape}")


def overlay_panel(
    ax: Axes, image: np.ndarray, truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    *, spacing: Sequence[float], plane: Plane | None = "axial", title: str = "",
) -> Axes:  # fmt: skip
    """Draw one CT slice (rows, columns) in HU, truth filled and prediction outlined.

    `spacing` is millimetres per row and per column; `plane` sets the orientation marks, None leaves
    them and the scale out. Raises FigureError when a label slice has another shape than the image.
    """
    check_shape("truth", truth, image)
    check_shape("prediction", prediction, image)
    aspect = spacing[0] / spacing[1]
    ax.imshow(image, "gray", aspect=aspect, interpolation="bilinear", clim=ABDOMEN)
    if truth is not None:
        picture = np.zeros((*truth.shape, 4), np.float32)
        for value, name in NAMES.items():
            picture[truth == value] = (*to_rgb(PALETTE[name]), FILL)
        ax.imshow(picture, aspect=aspect, interpolation="nearest")
    if prediction is not None:
        outline(ax, prediction, width=1.7)
    elif truth is not None:
        outline(ax, truth, width=0.8, halo=0)
    ax.set(xticks=[], yticks=[], facecolor="black", title=title)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    if plane:
        _marks(ax, image.shape, spacing, MARKS[plane])
    return ax


def map_panel(
    ax: Axes, found: np.ndarray, labels: np.ndarray | None,
    *, spacing: Sequence[float], title: str = "",
) -> AxesImage:  # fmt: skip
    """Draw a map (rows, columns) in [0, 1] with labels outlined; `spacing` as for a CT slice."""
    aspect = spacing[0] / spacing[1]
    picture = ax.imshow(found, cmap="cividis", vmin=0, vmax=1, aspect=aspect)
    if labels is not None:
        outline(ax, labels, width=1.3)
    ax.set(xticks=[], yticks=[], title=title)
    ax.grid(False)
    return picture


def outline(ax: Axes, labels: np.ndarray, *, width: float, halo: float = 1.1) -> None:
    """Outline each label of a slice in its colour, closed at the border, with a white halo."""
    rows, columns = (np.arange(-1, size + 1) for size in labels.shape)
    for value, name in NAMES.items():
        mask = np.pad((labels == value).astype(np.float32), 1)
        if mask.any():
            style = {"colors": [PALETTE[name]], "linewidths": width}
            lines = ax.contour(columns, rows, mask, [0.5], **style)
            if halo:
                lines.set_path_effects([withStroke(linewidth=width + halo, foreground="white")])
    ax.set(xlim=(-0.5, labels.shape[1] - 0.5), ylim=(labels.shape[0] - 0.5, -0.5))


def _marks(ax: Axes, shape: Sequence[int], spacing: Sequence[float], marks: str) -> None:
    """Orientation letters, and a white bar of 5 cm, or 1 cm where the slice is small."""
    style = {"transform": ax.transAxes, "color": "white", "fontsize": 9, "fontweight": "bold"}
    stroke = [withStroke(linewidth=1.8, foreground="black")]
    places = ((0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center"))
    places += ((0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom"))
    for mark, (x, y, across, down) in zip(marks, places, strict=True):
        ax.text(x, y, mark, ha=across, va=down, path_effects=stroke, **style)
    length = 50 if shape[1] * spacing[1] > 120 else 10
    right, bottom = 0.96 * shape[1], 0.95 * shape[0]
    left = right - length / spacing[1]
    ax.plot([left, right], [bottom, bottom], color="white", linewidth=2, solid_capstyle="butt")
    style = {"color": "white", "fontsize": 8.5, "ha": "center", "va": "bottom"}
    ax.text((left + right) / 2, bottom, f"{length // 10} cm", **style)


def three_planes(
    imaging: np.ndarray, truth: np.ndarray | None = None, prediction: np.ndarray | None = None,
    *, spacing: Sequence[float], title: str = "",
) -> Figure:  # fmt: skip
    """Axial, coronal and sagittal slice of a (D, H, W) volume at one scale, cranial up.

    They meet in the middle of the tumour, else of the kidney, else of the volume.
    """
    focus = focus_voxel(prediction if truth is None else truth, imaging.shape)
    depth, height, width = np.array(imaging.shape) * spacing
    room = 0.75 if title else 0.45
    tall = min(WIDTH * max(height, depth) / (2 * width + height) + room, 8.5)
    fig, axes = plt.subplots(1, 3, figsize=(WIDTH, tall), width_ratios=[width, width, height])
    for ax, (plane, axis) in zip(axes, AXES.items(), strict=True):
        index = focus[axis]
        parts = imaging, truth, prediction
        slices = [None if part is None else plane_slice(part, plane, index) for part in parts]
        words = f"{plane}, slice {index + 1} of {imaging.shape[axis]}"
        step = plane_spacing(spacing, plane)
        overlay_panel(ax, *slices, spacing=step, plane=plane, title=words)
        ax.set_anchor("N")
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def focus_voxel(labels: np.ndarray | None, shape: Sequence[int]) -> tuple[int, int, int]:
    """The voxel (z, y, x) in the slice of most tumour, else cyst, else kidney, else the centre."""
    for wanted in (2, 3, 1) if labels is not None else ():
        mask = labels == wanted
        if mask.any():
            z = int(mask.sum(axis=(1, 2)).argmax())
            rows, columns = np.nonzero(mask[z])
            nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            return z, int(rows[nearest]), int(columns[nearest])
    return shape[0] // 2, shape[1] // 2, shape[2] // 2


@dataclass(frozen=True, kw_only=True)
class CaseView:
    """One panel of a case grid: a slice (rows, columns), its labels, millimetres per step."""

    title: str
    image: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray | None
    spacing: tuple[float, float]


def case_view(
    title: str, imaging: np.ndarray, truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    *, spacing: Sequence[float], side_mm: float = 0.0,
) -> CaseView:  # fmt: skip
    """The axial slice of a case with most tumour, else most kidney, cut to its labels and 25 mm.

    With `side_mm` cut to a square of that side about the tumour, else the kidney. The volumes are
    not kept alive by it.
    """
    z, *middle = focus_voxel(prediction if truth is None else truth, imaging.shape)
    parts = [None if part is None else part[z].copy() for part in (imaging, truth, prediction)]
    where = np.argwhere(sum(part > 0 for part in parts[1:] if part is not None))
    step = (float(spacing[1]), float(spacing[2]))
    if side_mm:
        size = np.minimum(np.rint(np.divide(side_mm, step)).astype(int), imaging.shape[1:])
        low = np.clip(np.array(middle) - size // 2, 0, imaging.shape[1:] - size)
        box = tuple(map(slice, low, low + size))
        parts = [None if part is None else part[box] for part in parts]
    elif len(where):
        margin = np.rint(np.divide(MARGIN_MM, step)).astype(int)
        low, high = np.maximum(where.min(axis=0) - margin, 0), where.max(axis=0) + margin + 1
        box = slice(low[0], high[0]), slice(low[1], high[1])
        parts = [None if part is None else part[box] for part in parts]
    image, truth, prediction = parts
    return CaseView(title=title, image=image, truth=truth, prediction=prediction, spacing=step)


def close_up(view: CaseView) -> Figure:
    """Three equal squares without words: the scan, the truth in it, what was found in it.

    `view` is a square of `case_view`, with both label maps.
    """
    fig = Figure(figsize=(9, 3), layout="none")  # a notebook does not show it by itself
    axes = fig.subplots(1, 3)
    fig.subplots_adjust(0, 0, 1, 1, 0, 0)
    for ax, labels in zip(axes, (None, view.truth, view.prediction), strict=True):
        overlay_panel(ax, view.image, labels, spacing=view.spacing, plane=None)
        ax.set_aspect("auto")
    return fig


def case_grid(views: Sequence[CaseView], *, columns: int = 3) -> Figure:
    """Panels side by side: truth filled, prediction outlined; raises FigureError without a view."""
    if not views:
        raise FigureError("case grid: expected at least one case, got none")
    columns = min(columns, len(views))
    rows = -(-len(views) // columns)
    wide = WIDTH if columns > 1 else 5.0
    tallest = max(tallness(view.image, view.spacing) for view in views)
    lines = max(view.title.count("\n") for view in views) + 1
    height = min(rows * (wide / columns * tallest + 0.2 + 0.2 * lines), 11.0)
    fig, axes = plt.subplots(rows, columns, figsize=(wide, height), squeeze=False)
    for ax in axes.flat[len(views) :]:
        ax.set_visible(False)
    for ax, view in zip(axes.flat, views, strict=False):
        parts = view.image, view.truth, view.prediction
        overlay_panel(ax, *parts, spacing=view.spacing, title=view.title)
    return fig
