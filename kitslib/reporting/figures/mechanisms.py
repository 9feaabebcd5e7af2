"""What the mechanisms do: the gates' maps over a slice, and the voxels that dilations reach."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, NullLocator

from kitslib.reporting.figures.panels import map_panel, overlay_panel, tallness
from kitslib.reporting.figures.style import PALETTE, FigureError

HOLE = to_rgba(PALETTE["tumor"], 0.85)


def attention_maps(
    image: np.ndarray,
    maps: Mapping[int, np.ndarray],
    labels: np.ndarray | None = None,
    *,
    spacing: tuple[float, float],
) -> Figure:
    """A CT slice (H, W) in HU beside the maps in [0, 1] that the gates multiply their skips by.

    `maps` maps how much coarser a gate's grid is (4, 2, 1) to its map (H, W), in the order drawn;
    `labels` (H, W) are outlined in all panels; `spacing` is millimetres per row and per column.
    Raises FigureError without maps and for one of another shape.
    """
    if not maps:
        raise FigureError(
            "attention maps: expected at least one map, got none; is attention on in this arm?"
        )
    count = 1 + len(maps)
    columns = 2 if count <= 4 else 3
    rows = -(-count // columns)
    size = (6.0, rows * (6.0 / columns * tallness(image, spacing) + 0.45) + 0.6)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    overlay_panel(axes.flat[0], image, None, labels, spacing=spacing, title="CT")
    for ax, (factor, found) in zip(axes.flat[1:], maps.items(), strict=False):
        if found.shape != image.shape:
            expected = f"expected the image's shape {image.shape}, got {found.shape}"
            raise FigureError(f"attention map {factor}: {expected}")
        where = "full resolution" if factor == 1 else f"1/{factor} resolution"
        title = f"{where}: {found.min():.2f} to {found.max():.2f}"
        picture = map_panel(ax, found, labels, spacing=spacing, title=title)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    bar = {"location": "bottom", "fraction": 0.05, "pad": 0.02}
    fig.colorbar(picture, ax=axes, label="share of the skip let through", **bar)
    return fig


def coverage_panels(coverages: Mapping[str, np.ndarray]) -> Figure:
    """How many paths lead from each input offset to the output voxel; holes are filled.

    `coverages` maps a title to a square (n, n) of odd n as `networks.hdc_coverage` makes it. All
    panels have the same scale; beyond a stack's field nothing is drawn. Raises FigureError for
    anything that is no such square.
    """
    for title, paths in coverages.items():
        if paths.ndim != 2 or paths.shape[0] != paths.shape[1] or paths.shape[0] % 2 == 0:
            raise FigureError(
                f"coverage {title!r}: expected a square of odd size, got the shape {paths.shape}"
            )
    if not coverages:
        raise FigureError("coverage: expected at least one stack, got none")
    widest = max(map(len, coverages.values())) / 2
    most = max(int(paths.max()) for paths in coverages.values())
    size = (5.8, 5.8 / len(coverages) + 0.9)
    fig, axes = plt.subplots(1, len(coverages), figsize=size, squeeze=False)
    for ax, (title, paths) in zip(axes[0], coverages.items(), strict=True):
        picture = _coverage(ax, paths, most)
        title += f"\n{np.count_nonzero(paths)} of {paths.size} voxels reached"
        ax.set(title=title, xlabel="offset, voxels", xlim=(-widest, widest), ylim=(widest, -widest))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(4, steps=[5, 10]))
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300) if tick <= most]
    bar = fig.colorbar(picture, ax=axes, location="bottom", ticks=ticks, fraction=0.06)
    bar.set_label("paths to the output voxel (orange: none)")
    bar.ax.xaxis.set(major_formatter=lambda x, _: f"{x:g}", minor_locator=NullLocator())
    return fig


def _coverage(ax: Axes, paths: np.ndarray, most: int) -> AxesImage:
    edges = np.arange(len(paths) + 1) - len(paths) / 2
    extent = (edges[0], edges[-1], edges[-1], edges[0])
    blues = ListedColormap(plt.get_cmap("Blues")(np.linspace(0.25, 1, 256)))
    style = {"cmap": blues.with_extremes(bad=HOLE), "norm": LogNorm(1, max(most, 2))}
    shown = np.ma.masked_equal(paths, 0)
    picture = ax.imshow(shown, extent=extent, interpolation="nearest", **style)
    ax.scatter([0], [0], marker="+", s=60, color="white", linewidths=2.2)
    ax.hlines(edges, edges[0], edges[-1], color="white", linewidth=0.6)
    ax.vlines(edges, edges[0], edges[-1], color="white", linewidth=0.6)
    ax.grid(False)
    return picture
