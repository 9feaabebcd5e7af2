"""What the mechanisms do: the gates' maps over a slice, and which voxels stacked dilations reach."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator

from kitslib.reporting.figures.panels import ABDOMEN, overlay_panel
from kitslib.reporting.figures.style import NAMES, PALETTE, FigureError

HOLE = to_rgba(PALETTE["tumor"], 0.85)


def attention_maps(
    image: np.ndarray,
    maps: Mapping[int, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    spacing: tuple[float, float],
    window: tuple[float, float] = ABDOMEN,
) -> Figure:
    """A CT slice (H, W) in HU beside the map in [0, 1] that each gate multiplies its skip by, coarsest first.

    `maps` maps how much coarser a gate's grid is (4, 2, 1) to its map (H, W); `labels` (H, W) are outlined in all
    panels; `spacing` is millimetres per row and per column. The colours run from 0 to 1 in every map.
    Raises FigureError without maps and for one of another shape.
    """
    if not maps:
        raise FigureError(
            "attention maps: expected at least one map, got none; is attention on in this arm?"
        )
    for factor, found in maps.items():
        if found.shape != image.shape:
            raise FigureError(
                f"attention map {factor}: expected the image's shape {image.shape}, got {found.shape}"
            )
    count = 1 + len(maps)
    columns = min(count, 2 if count <= 4 else 3)
    rows = -(-count // columns)
    tall = image.shape[0] * spacing[0] / (image.shape[1] * spacing[1])
    fig, axes = plt.subplots(
        rows, columns, figsize=(6.0, rows * (6.0 / columns * tall + 0.45) + 0.6), squeeze=False
    )
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    overlay_panel(axes.flat[0], image, None, labels, spacing=spacing, window=window, title="CT")
    for ax, (factor, found) in zip(axes.flat[1:], maps.items(), strict=False):
        picture = ax.imshow(found, cmap="cividis", vmin=0, vmax=1, aspect=spacing[0] / spacing[1])
        if labels is not None:
            outline_labels(ax, labels)
        ax.set(xticks=[], yticks=[], title=_gate_title(factor, found))
        ax.grid(False)
    for ax in axes.flat:
        ax.title.set(fontsize=10)
    fig.colorbar(
        picture,
        ax=axes,
        location="bottom",
        label="share of the skip let through",
        fraction=0.05,
        pad=0.02,
    )
    return fig


def coverage_panels(coverages: Mapping[str, np.ndarray]) -> Figure:
    """How many paths lead from each input offset to the output voxel, stack beside stack; holes are filled.

    `coverages` maps a title to a square (n, n) of odd n as `networks.hdc_coverage` makes it. All panels have the
    same scale; beyond a stack's field nothing is drawn. Raises FigureError for anything that is no such square.
    """
    for title, paths in coverages.items():
        if paths.ndim != 2 or paths.shape[0] != paths.shape[1] or paths.shape[0] % 2 == 0:
            raise FigureError(
                f"coverage {title!r}: expected a square of odd size, got the shape {paths.shape}"
            )
    if not coverages:
        raise FigureError("coverage: expected at least one stack, got none")
    widest = max(len(paths) for paths in coverages.values()) // 2
    most = max(int(paths.max()) for paths in coverages.values())
    fig, axes = plt.subplots(
        1, len(coverages), figsize=(5.8, 5.8 / len(coverages) + 0.9), squeeze=False
    )
    for ax, (title, paths) in zip(axes[0], coverages.items(), strict=True):
        picture = _coverage(ax, paths, most)
        seen = int((paths > 0).sum())
        ax.set(
            title=f"{title}\n{seen} of {paths.size} voxels reached",
            xlabel="offset, voxels",
            xlim=(-widest - 0.5, widest + 0.5),
            ylim=(widest + 0.5, -widest - 0.5),
        )
        ax.title.set(fontsize=10)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(4, steps=[5, 10]))
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300) if tick <= most]
    bar = fig.colorbar(picture, ax=axes, location="bottom", ticks=ticks, fraction=0.06)
    bar.set_label("paths to the output voxel (orange: none)")
    bar.ax.xaxis.set(major_formatter=lambda x, _: f"{x:g}", minor_locator=NullLocator())
    return fig


def _coverage(ax: Axes, paths: np.ndarray, most: int) -> AxesImage:
    reach = len(paths) // 2
    shown = np.ma.masked_equal(paths, 0)
    extent = (-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5)
    colors = ListedColormap(plt.get_cmap("Blues")(np.linspace(0.25, 1, 256))).with_extremes(
        bad=HOLE
    )
    picture = ax.imshow(
        shown, cmap=colors, norm=LogNorm(1, max(most, 2)), extent=extent, interpolation="nearest"
    )
    ax.scatter([0], [0], marker="+", s=60, color="white", linewidths=2.2)
    edges = np.arange(-reach - 0.5, reach + 1)
    ax.hlines(edges, edges[0], edges[-1], color="white", linewidth=0.6)
    ax.vlines(edges, edges[0], edges[-1], color="white", linewidth=0.6)
    ax.grid(False)
    return picture


def outline_labels(ax: Axes, labels: np.ndarray) -> None:
    """Outline each label of a slice (H, W) in its colour, with a white halo."""
    for value, name in NAMES.items():
        if (labels == value).any():
            lines = ax.contour(labels == value, [0.5], colors=[PALETTE[name]], linewidths=1.3)
            lines.set_path_effects([withStroke(linewidth=2.4, foreground="white")])


def _gate_title(factor: int, found: np.ndarray) -> str:
    where = "full resolution" if factor == 1 else f"1/{factor} resolution"
    return f"{where}: {found.min():.2f} to {found.max():.2f}"
