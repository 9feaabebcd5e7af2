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
from matplotlib.patheffects import withStroke

from kitslib.reporting.figures.style import NAMES, PALETTE, FigureError

ABDOMEN = (-160.0, 240.0)
Plane = Literal["axial", "coronal", "sagittal"]
AXES = {"axial": 0, "coronal": 1, "sagittal": 2}
MARKS = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "H", "F"),
    "sagittal": ("A", "P", "H", "F"),
}


def plane_slice(volume: np.ndarray, plane: Plane, index: int) -> np.ndarray:
    """One slice of a (D, H, W) volume as it is looked at: head or front up, right or front left."""
    return np.take(volume, index, axis=AXES[plane])


def plane_spacing(spacing: Sequence[float], plane: Plane) -> tuple[float, float]:
    """Millimetres per row and per column of a slice in this plane, from a (z, y, x) spacing."""
    rest = [float(step) for axis, step in enumerate(spacing) if axis != AXES[plane]]
    return rest[0], rest[1]


def overlay_panel(
    ax: Axes,
    image: np.ndarray,
    truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    *,
    spacing: Sequence[float],
    window: tuple[float, float] = ABDOMEN,
    plane: Plane | None = "axial",
    title: str = "",
) -> Axes:
    """Draw one CT slice (rows, columns) in HU at its true aspect, truth filled and prediction outlined.

    ``spacing`` is millimetres per row and per column; ``plane`` sets the orientation marks (None: no marks).
    Raises FigureError when a label slice has another shape than the image.
    """
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels is not None and labels.shape != image.shape:
            raise FigureError(
                f"{name}: expected the image's shape {image.shape}, got {labels.shape}"
            )
    aspect = spacing[0] / spacing[1]
    ax.imshow(
        image, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="bilinear"
    )
    if truth is not None:
        ax.imshow(_fill(truth), aspect=aspect, interpolation="nearest")
    outlined = prediction if prediction is not None else truth
    if outlined is not None:
        _outline(
            ax, outlined, width=0.8 if prediction is None else 1.7, halo=prediction is not None
        )
    ax.set(xticks=[], yticks=[], facecolor="black")
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(title)
    if plane is not None:
        _marks(ax, MARKS[plane])
    _scale_bar(ax, image.shape, spacing)
    return ax


def _fill(labels: np.ndarray, alpha: float = 0.3) -> np.ndarray:
    """Labels as an RGBA picture, background transparent."""
    picture = np.zeros((*labels.shape, 4), np.float32)
    for value, name in NAMES.items():
        picture[labels == value] = (*to_rgb(PALETTE[name]), alpha)
    return picture


def _outline(ax: Axes, labels: np.ndarray, *, width: float, halo: bool) -> None:
    for value, name in NAMES.items():
        mask = labels == value
        if mask.any():
            padded = np.pad(mask.astype(np.float32), 1)
            rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
            lines = ax.contour(
                columns, rows, padded, [0.5], colors=[PALETTE[name]], linewidths=width
            )
            if halo:
                lines.set_path_effects([withStroke(linewidth=width + 1.1, foreground="white")])
    ax.set(xlim=(-0.5, labels.shape[1] - 0.5), ylim=(labels.shape[0] - 0.5, -0.5))


def _marks(ax: Axes, marks: tuple[str, str, str, str]) -> None:
    places = ((0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center"))
    places += ((0.5, 0.985, "center", "top"), (0.5, 0.015, "center", "bottom"))
    for mark, (x, y, horizontal, vertical) in zip(marks, places, strict=True):
        letter = ax.text(
            x, y, mark, ha=horizontal, va=vertical, transform=ax.transAxes, color="white"
        )
        letter.set(
            fontsize=9,
            fontweight="bold",
            path_effects=[withStroke(linewidth=1.8, foreground="black")],
        )


def _scale_bar(ax: Axes, shape: tuple[int, int], spacing: Sequence[float]) -> None:
    """A white bar of 5 cm, or 1 cm where the slice is small, at the lower right."""
    width_mm = shape[1] * spacing[1]
    length = 50 if width_mm > 120 else 10
    right, bottom = 0.96 * shape[1], 0.95 * shape[0]
    left = right - length / spacing[1]
    ax.plot([left, right], [bottom, bottom], color="white", linewidth=2, solid_capstyle="butt")
    ax.text(
        (left + right) / 2,
        bottom,
        f"{length // 10} cm",
        color="white",
        fontsize=7.5,
        ha="center",
        va="bottom",
    )


def three_planes(
    imaging: np.ndarray,
    truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    *,
    spacing: Sequence[float],
    centre: Sequence[int] | None = None,
    window: tuple[float, float] = ABDOMEN,
    title: str = "",
) -> Figure:
    """Axial, coronal and sagittal slice through one voxel of a (D, H, W) volume at one scale, cranial up.

    ``centre`` is (z, y, x); without it the middle of the tumour, else of the kidney, else of the volume.
    """
    labels = truth if truth is not None else prediction
    centre = tuple(centre) if centre is not None else focus_voxel(labels, imaging.shape)
    depth, height, width = (size * step for size, step in zip(imaging.shape, spacing, strict=True))
    wide = 8.8
    tallest = max(height, depth)
    figure_height = min(wide * tallest / (2 * width + height) + (0.75 if title else 0.45), 8.5)
    fig, axes = plt.subplots(
        1, 3, figsize=(wide, figure_height), width_ratios=[width, width, height]
    )
    for ax, plane in zip(axes, AXES, strict=True):
        index = centre[AXES[plane]]
        slices = [
            None if part is None else plane_slice(part, plane, index)
            for part in (imaging, truth, prediction)
        ]
        words = f"{plane}, slice {index + 1} of {imaging.shape[AXES[plane]]}"
        overlay_panel(
            ax,
            *slices,
            spacing=plane_spacing(spacing, plane),
            window=window,
            plane=plane,
            title=words,
        )
        ax.title.set(fontsize=9, fontweight="normal")
        ax.set_anchor("N")
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return fig


def focus_voxel(labels: np.ndarray | None, shape: Sequence[int]) -> tuple[int, int, int]:
    """The voxel (z, y, x) to look at: in the slice with most tumour, else cyst, else kidney, else central."""
    for wanted in (2, 3, 1):
        mask = None if labels is None else labels == wanted
        if mask is not None and mask.any():
            z = int(mask.sum(axis=(1, 2)).argmax())
            rows, columns = np.nonzero(mask[z])
            nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
            return z, int(rows[nearest]), int(columns[nearest])
    return shape[0] // 2, shape[1] // 2, shape[2] // 2


@dataclass(frozen=True, kw_only=True)
class CaseView:
    """One panel of a case grid: a slice (rows, columns), its labels and millimetres per row and column."""

    title: str
    image: np.ndarray
    truth: np.ndarray | None
    prediction: np.ndarray | None
    spacing: tuple[float, float]


def case_view(
    title: str,
    imaging: np.ndarray,
    truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    *,
    spacing: Sequence[float],
    margin_mm: float = 25.0,
) -> CaseView:
    """The axial slice of a case with most tumour (else most kidney), cut to its labels and a margin."""
    parts = [part for part in (truth, prediction) if part is not None]
    z = focus_voxel(parts[0] if parts else None, imaging.shape)[0]
    marked = np.zeros(imaging.shape[1:], bool)
    for part in parts:
        marked |= part[z] > 0
    box = _box(marked, spacing[1:], margin_mm)
    cut = [None if part is None else part[z][box] for part in (imaging, truth, prediction)]
    return CaseView(
        title=title,
        image=cut[0],
        truth=cut[1],
        prediction=cut[2],
        spacing=(float(spacing[1]), float(spacing[2])),
    )


def _box(mask: np.ndarray, spacing: Sequence[float], margin_mm: float) -> tuple[slice, slice]:
    if not mask.any():
        return slice(None), slice(None)
    spans = []
    for axis in (0, 1):
        where = np.nonzero(mask.any(axis=1 - axis))[0]
        margin = round(margin_mm / spacing[axis])
        spans.append(slice(max(where[0] - margin, 0), where[-1] + margin + 1))
    return spans[0], spans[1]


def case_grid(
    views: Sequence[CaseView], *, columns: int = 3, window: tuple[float, float] = ABDOMEN
) -> Figure:
    """Panels side by side (worst, median, best, say): truth filled, prediction outlined.

    Raises FigureError when there is nothing to show.
    """
    if not views:
        raise FigureError("case grid: expected at least one case, got none")
    columns = min(columns, len(views))
    rows = -(-len(views) // columns)
    tall = [
        view.image.shape[0] * view.spacing[0] / (view.image.shape[1] * view.spacing[1])
        for view in views
    ]
    wide = 8.8 if columns > 1 else 5.0
    lines = max(view.title.count("\n") + 1 for view in views)
    height = min(rows * (wide / columns * max(tall) + 0.2 + 0.2 * lines), 11.0)
    fig, axes = plt.subplots(rows, columns, figsize=(wide, height), squeeze=False)
    for ax in axes.flat[len(views) :]:
        ax.set_visible(False)
    for ax, view in zip(axes.flat, views, strict=False):
        overlay_panel(
            ax,
            view.image,
            view.truth,
            view.prediction,
            spacing=view.spacing,
            window=window,
            title=view.title,
        )
        ax.title.set(fontsize=9)
    return fig
