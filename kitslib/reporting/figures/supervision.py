"""Deep supervision over a training: what the four maps show, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kitslib.reporting.figures.mechanisms import outline_labels
from kitslib.reporting.figures.panels import ABDOMEN, overlay_panel
from kitslib.reporting.figures.style import CYCLE, FigureError

COARSER = ("1/8", "1/4", "1/2", "full")  # resolution of the decoder stage behind each map


def maps_over_training(
    image: np.ndarray,
    maps: Mapping[int, np.ndarray],
    truth: np.ndarray,
    *,
    spacing: tuple[float, float],
    window: tuple[float, float] = ABDOMEN,
) -> Figure:
    """A row per epoch: the CT slice (H, W) in HU, then the probabilities of the four maps (4, H, W), coarsest first.

    `truth` (H, W) is outlined in all panels; `spacing` is millimetres per row and per column; one colour scale from
    0 to 1. Raises FigureError without maps and for one of another shape.
    """
    if not maps:
        raise FigureError("maps over training: expected the maps of at least one epoch, got none")
    for epoch, found in maps.items():
        if found.shape != (len(COARSER), *image.shape):
            raise FigureError(
                f"epoch {epoch}: expected maps of {(len(COARSER), *image.shape)}, got {found.shape}"
            )
    columns = 1 + len(COARSER)
    tall = image.shape[0] * spacing[0] / (image.shape[1] * spacing[1])
    height = len(maps) * (8.8 / columns * tall + 0.12) + 0.8
    fig, axes = plt.subplots(len(maps), columns, figsize=(8.8, height), squeeze=False)
    for index, (row, (epoch, found)) in enumerate(zip(axes, sorted(maps.items()), strict=True)):
        overlay_panel(
            row[0], image, None, truth, spacing=spacing, window=window, title="" if index else "CT"
        )
        row[0].set_ylabel(f"epoch {epoch}")
        for ax, one, scale in zip(row[1:], found, COARSER, strict=True):
            picture = ax.imshow(one, cmap="cividis", vmin=0, vmax=1, aspect=spacing[0] / spacing[1])
            outline_labels(ax, truth)
            ax.set(xticks=[], yticks=[], title="" if index else f"map at {scale}")
            ax.grid(False)
    for ax in axes.flat:
        ax.title.set(fontsize=9)
    fig.colorbar(
        picture,
        ax=axes,
        location="bottom",
        label="probability of kidney",
        fraction=0.04,
        pad=0.02,
        aspect=40,
    )
    return fig


def supervision_terms(history: Sequence[Mapping[str, Any]], p: Sequence[float]) -> Figure:
    """The loss of each map on one slab over the epochs, and the weight of the three coarse ones.

    `history` holds `epoch` (from 1) and `maps`, four losses, coarsest first, of the epochs that were looked at; `p`
    is the weight in every epoch. Raises FigureError where no epoch has `maps`.
    """
    seen = pd.DataFrame(
        [{"epoch": entry["epoch"], **_terms(entry["maps"])} for entry in history if "maps" in entry]
    )
    if seen.empty:
        raise FigureError(
            "supervision terms: expected epochs with the losses of the four maps, got none"
        )
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.3))
    for name, color in zip(_terms([0] * 4), CYCLE, strict=False):
        left.plot(seen["epoch"], seen[name], color=color, label=name, marker="o", markersize=3)
    left.set(xlabel="epoch", title="loss of each map on one held-out slab")
    left.legend(fontsize=8)
    right.step(np.arange(1, len(p) + 1), p, where="mid", color=CYCLE[0])
    right.set(xlabel="epoch", title="weight p of the three coarse maps", ylim=(0, 1.1 * max(p)))
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


def _terms(values: Sequence[float]) -> dict[str, float]:
    """Four losses by the name that the figure gives them."""
    names = (f"L{i} ({scale})" for i, scale in enumerate(COARSER, start=1))
    return dict(zip(names, values, strict=True))
