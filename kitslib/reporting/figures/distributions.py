"""A cohort at a glance, and beside published figures: histograms, distributions, HU per tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from kitslib.reporting.figures.charts import checked_table, name_rows, spread_out
from kitslib.reporting.figures.style import PALETTE, WIDTH, FigureError

GLANCE = {
    "spacing_z": "slice distance, mm", "slices": "slices",
    "kidney_slices": "share of slices with kidney",
    "kidney_and_masses_ml": "kidneys and masses, ml",
    "tumor_ml": "tumour, ml", "cyst_ml": "cysts, ml",
}  # fmt: skip


def cohort_at_a_glance(table: Any) -> Figure:
    """A histogram over cases of slice distance, slices and volumes.

    `table` has the columns of GLANCE; cases without tumour or cyst are only counted.
    Raises FigureError when a column is missing or there is no case.
    """
    frame = checked_table(table, list(GLANCE), "cohort")
    fig, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.6))
    for ax, (name, label) in zip(axes.flat, GLANCE.items(), strict=True):
        values = _finite(frame[name])
        if name.endswith("_ml"):
            values = values[values > 0]
        tissue = name.removesuffix("_ml").removesuffix("_and_masses")
        color = PALETTE.get(tissue, PALETTE["muted"])
        if len(values):
            style = {"color": color, "edgecolor": "white", "log_scale": _spans(values)}
            sns.histplot(x=values, bins=12, ax=ax, **style)
        if len(values) < len(frame):
            label += f" ({len(frame) - len(values)} without)"
        ax.set(xlabel=label, ylabel="")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        _plain_ticks(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("cases")
    return fig


def cohort_comparison(
    cases: Sequence[Mapping[str, float]], tissues: Sequence[Mapping[str, float]],
    reference: Mapping[str, Sequence[float]], scans: Sequence[Mapping[str, float]],
    *, labels: Mapping[str, str], names: tuple[str, str] = ("this cohort", "KiTS19"),
) -> Figure:  # fmt: skip
    """Cumulative distributions above, median HU of tissues below, each beside a reference.

    `labels` maps the keys of `cases` and `reference` to axis labels; values above 0 are drawn.
    `tissues` and `scans` hold a tissue's HU per case and per real scan, NaN where unknown.
    Raises FigureError when the reference has no value.
    """
    hu = {}
    for name in scans[0]:
        values = _finite([case[name] for case in tissues])
        if len(values):
            hu[name] = np.sort(values)
    rows = 2 if hu else 1
    fig = plt.figure(figsize=(WIDTH, 2.7 * rows))
    grid = fig.add_gridspec(rows, len(labels))
    for column, (key, label) in enumerate(labels.items()):
        ax = fig.add_subplot(grid[0, column])
        _cumulative(ax, [case[key] for case in cases], reference[key], label, names)
        if column == 0:
            ax.set_ylabel("share of cases up to")
            ax.legend(loc="lower right", handlelength=1.0, fontsize=8.5)
    if hu:
        _tissues(fig.add_subplot(grid[1, :]), hu, scans, names[0])
    return fig


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def _spans(values: np.ndarray) -> bool:
    """Whether values need a logarithmic axis."""
    return bool(values.min() > 0 and values.max() > 20 * values.min())


def _plain_ticks(ax: Axes) -> None:
    """Write 100 instead of a power of ten on a logarithmic axis."""
    if ax.get_xscale() == "log":
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())


def _cumulative(
    ax: Axes, here: Sequence[float], reference: Sequence[float], label: str, names: tuple[str, str]
) -> None:
    """Two step curves on one axis, logarithmic where the reference spans more than 20-fold."""
    ours, theirs = _finite(here), _finite(reference)
    ours, theirs = ours[ours > 0], theirs[theirs > 0]
    if not len(theirs):
        raise FigureError(f"{label}: expected positive values to compare with, got none")
    curves = (theirs, names[1], "truth", 1.4), (ours, names[0], "prediction", 2.2)
    for values, name, color, width in curves:
        style = {"color": PALETTE[color], "linewidth": width, "label": f"{name}, n = {len(values)}"}
        sns.ecdfplot(x=values, ax=ax, log_scale=_spans(theirs), **style)
    ax.set(xlabel=label, ylabel="", ylim=(0, 1.02))
    _plain_ticks(ax)


def _tissues(
    ax: Axes, hu: Mapping[str, np.ndarray], scans: Sequence[Mapping[str, float]], name: str
) -> None:
    """A dot per case and tissue, the median over cases as a bar, the real scans as diamonds."""
    ours, mark = {"color": PALETTE["prediction"]}, {"color": PALETTE["truth"], "marker": "D"}
    for row, (tissue, values) in enumerate(hu.items()):
        heights = row + spread_out(len(values), 0.5)
        dots = ax.scatter(values, heights, s=14, alpha=0.4, linewidths=0, **ours)
        middle = np.median(values)
        (bar,) = ax.plot([middle, middle], [row - 0.36, row + 0.36], linewidth=2.6, **ours)
        real = _finite([scan[tissue] for scan in scans])
        diamonds = ax.scatter(real, [row] * len(real), s=46, edgecolor="white", zorder=3, **mark)
    words = [f"{name}, a case each", "their median", "real CT, a scan each"]
    ax.legend([dots, bar, diamonds], words, loc="lower right")
    ax.set_xlabel("HU (noise: standard deviation)")
    name_rows(ax, list(hu))
