"""A cohort at a glance, and beside published figures: histograms, cumulative distributions, HU per tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from kitslib.reporting.figures.style import PALETTE, FigureError

GLANCE = {
    "spacing_z": "slice distance, mm",
    "slices": "slices",
    "kidney_slices": "share of slices with kidney",
    "kidney_and_masses_ml": "kidneys and masses, ml",
    "tumor_ml": "tumour, ml",
    "cyst_ml": "cysts, ml",
}


def cohort_at_a_glance(table: Any) -> Figure:
    """A histogram over cases of slice distance, slices and volumes; cases without tumour or cyst are only counted.

    ``table`` has the columns of GLANCE. Raises FigureError when one is missing or there is no case.
    """
    frame = pd.DataFrame(table)
    missing = [name for name in GLANCE if name not in frame]
    if missing or frame.empty:
        raise FigureError(
            f"cohort: expected cases with {', '.join(GLANCE)}, got {len(frame)} without {missing}"
        )
    fig, axes = plt.subplots(2, 3, figsize=(8.8, 4.6))
    for ax, (name, label) in zip(axes.flat, GLANCE.items(), strict=True):
        values = _finite(frame[name])
        values = values[values > 0] if name.endswith("_ml") else values
        left_out = len(frame) - len(values)
        color = PALETTE.get(name.removesuffix("_ml"), PALETTE["muted"])
        if len(values):
            sns.histplot(
                x=values, bins=12, log_scale=_spans(values), color=color, edgecolor="white", ax=ax
            )
        ax.set(
            xlabel=label + (f" ({left_out} without)" if left_out else ""),
            ylabel="cases" if ax in axes[:, 0] else "",
        )
        ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        _plain_ticks(ax)
    return fig


def cohort_comparison(
    cases: Sequence[Mapping[str, float]],
    tissues: Sequence[Mapping[str, float]],
    reference: Mapping[str, Sequence[float]],
    scans: Sequence[Mapping[str, float]],
    *,
    labels: Mapping[str, str],
    names: tuple[str, str] = ("this cohort", "KiTS19"),
) -> Figure:
    """Cumulative distributions of some quantities above, median HU of tissues below, each beside a reference.

    ``labels`` maps the keys of ``cases`` and ``reference`` to axis labels; values above 0 are drawn. ``tissues`` and
    ``scans`` hold a tissue's HU per case and per real scan, NaN where unknown. Raises FigureError when the reference
    has no value.
    """
    hu = {name: _finite([case[name] for case in tissues]) for name in scans[0]}
    hu = {name: values for name, values in hu.items() if len(values)}
    rows = 2 if hu else 1
    fig = plt.figure(figsize=(8.8, 2.7 * rows))
    grid = fig.add_gridspec(rows, len(labels))
    for column, (key, label) in enumerate(labels.items()):
        ax = fig.add_subplot(grid[0, column])
        _cumulative(ax, [case[key] for case in cases], reference[key], label, names)
        if column == 0:
            ax.set_ylabel("share of cases up to")
            ax.legend(loc="lower right", handlelength=1.0, fontsize=8)
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
    """Two step curves on one axis, logarithmic where the reference spans more than a factor of 20."""
    ours, theirs = (values[values > 0] for values in (_finite(here), _finite(reference)))
    if not len(theirs):
        raise FigureError(f"{label}: expected positive values to compare with, got none")
    for values, name, color, width in (
        (theirs, names[1], PALETTE["truth"], 1.4),
        (ours, names[0], PALETTE["prediction"], 2.2),
    ):
        text = f"{name}, n = {len(values)}"
        sns.ecdfplot(
            x=values, ax=ax, log_scale=_spans(theirs), color=color, linewidth=width, label=text
        )
    ax.set(xlabel=label, ylabel="", ylim=(0, 1.02))
    _plain_ticks(ax)


def _tissues(
    ax: Axes, hu: Mapping[str, np.ndarray], scans: Sequence[Mapping[str, float]], name: str
) -> None:
    """A dot per case and tissue, the median over cases as a bar, the real scans as diamonds."""
    for row, (tissue, values) in enumerate(hu.items()):
        ordered = np.sort(values)
        shift = ((np.arange(len(ordered)) * 0.618034) % 1 - 0.5) * 0.5
        ax.scatter(
            ordered, row + shift, s=14, color=PALETTE["prediction"], alpha=0.4, linewidths=0,
            label=f"{name}, a case each" if row == 0 else None,
        )  # fmt: skip
        middle = float(np.median(ordered))
        ax.plot(
            [middle] * 2, [row - 0.36, row + 0.36], color=PALETTE["prediction"], linewidth=2.6,
            label="their median" if row == 0 else None,
        )  # fmt: skip
        real = _finite([scan[tissue] for scan in scans])
        ax.scatter(
            real, [row] * len(real), marker="D", s=46, color=PALETTE["truth"], edgecolor="white", zorder=3,
            label="real CT, a scan each" if row == 0 else None,
        )  # fmt: skip
    ax.set(
        yticks=range(len(hu)),
        yticklabels=hu,
        ylim=(len(hu) - 0.45, -0.55),
        xlabel="HU (noise: standard deviation)",
    )
    ax.grid(False, axis="y")
    ax.legend(loc="lower right")
