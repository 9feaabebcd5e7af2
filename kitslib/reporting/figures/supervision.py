"""Deep supervision over a training: what the four maps show, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kitslib.reporting.figures.panels import map_panel, overlay_panel, tallness
from kitslib.reporting.figures.style import CYCLE, WIDTH, FigureError

COARSER = ("1/8", "1/4", "1/2", "full")  # resolution of the decoder level behind each map


def maps_over_training(
    image: np.ndarray, maps: Mapping[int, np.ndarray], truth: np.ndarray,
    *, spacing: tuple[float, float],
) -> Figure:  # fmt: skip
    """A row per epoch: the CT slice (H, W) in HU, then the probabilities of the four maps.

    `maps` maps an epoch to (4, H, W), coarsest first; `truth` (H, W) is outlined in all panels;
    `spacing` is millimetres per row and per column; one colour scale from 0 to 1.
    Raises FigureError without maps and for one of another shape.
    """
    if not maps:
        raise FigureError("maps over training: expected the maps of at least one epoch, got none")
    expected, columns = (len(COARSER), *image.shape), 1 + len(COARSER)
    height = len(maps) * (WIDTH / columns * tallness(image, spacing) + 0.12) + 0.8
    fig, axes = plt.subplots(len(maps), columns, figsize=(WIDTH, height), squeeze=False)
    for row, (epoch, found) in zip(axes, sorted(maps.items()), strict=True):
        if found.shape != expected:
            raise FigureError(f"epoch {epoch}: expected maps of {expected}, got {found.shape}")
        overlay_panel(row[0], image, None, truth, spacing=spacing)
        row[0].set_ylabel(f"epoch {epoch}")
        for ax, one in zip(row[1:], found, strict=True):
            picture = map_panel(ax, one, truth, spacing=spacing)
    for ax, scale in zip(axes[0], ("CT", *COARSER), strict=True):
        ax.set_title(scale if scale == "CT" else f"map at {scale}")
    bar = {"location": "bottom", "fraction": 0.04, "pad": 0.02, "aspect": 40}
    fig.colorbar(picture, ax=axes, label="probability of kidney", **bar)
    return fig


def supervision_terms(history: Sequence[Mapping[str, Any]], p: Sequence[float]) -> Figure:
    """The loss of each map on one slab over the epochs, and the weight of the three coarse ones.

    `history` holds `epoch` (from 1) and, for the epochs that were watched, `maps`: four losses,
    coarsest first; `p` is the weight in every epoch. Raises FigureError where no epoch has `maps`.
    """
    watched = {entry["epoch"]: entry["maps"] for entry in history if "maps" in entry}
    if not watched:
        raise FigureError("supervision terms: expected epochs with losses of four maps, got none")
    losses = pd.DataFrame(watched, index=COARSER).T
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.3))
    for number, (scale, color) in enumerate(zip(COARSER, CYCLE, strict=False), start=1):
        style = {"color": color, "marker": "o", "markersize": 3}
        left.plot(losses.index, losses[scale], label=f"L{number} ({scale})", **style)
    left.set(xlabel="epoch", title="loss of each map on one held-out slab")
    left.legend(fontsize=8.5)
    right.step(np.arange(1, len(p) + 1), p, where="mid", color=CYCLE[0])
    right.set(xlabel="epoch", title="weight p of the three coarse maps", ylim=(0, 1.1 * max(p)))
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig
