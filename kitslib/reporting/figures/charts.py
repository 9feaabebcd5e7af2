"""Tables of scores, effects, histories and HU as axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from kitslib.reporting.figures.style import CYCLE, NAMES, PALETTE, WORDS, FigureError

LINES = ("-", "--", ":")  # one after the other once all colours are used


def _table(table: Any, needed: Sequence[str], what: str) -> pd.DataFrame:
    frame = pd.DataFrame(table)
    missing = [name for name in needed if name not in frame]
    if missing or frame.empty:
        got = f"{len(frame)} rows with {', '.join(map(str, frame)) or 'no columns'}"
        raise FigureError(f"{what}: expected rows with {', '.join(needed)}, got {got}")
    return frame


def _word(column: str) -> str:
    """A column's name as an axis says it."""
    return column.removesuffix("_ml").replace("_", " ").replace("tumor", "tumour")


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return plt.subplots(figsize=size)[1] if ax is None else ax


def learning_curves(
    histories: Mapping[str, Any], *, columns: Sequence[str] = ("loss", "dice"), x: str = "epoch"
) -> Figure:
    """One panel per column, one colour per run; with a ``seed`` column thin lines per seed and the mean.

    ``histories`` maps a name to its table (frame, mapping of lists, or rows); a run without a column is
    not in its panel. Raises FigureError when there is no history or one has no ``x``.
    """
    frames = {name: _table(table, [x], f"history {name!r}") for name, table in histories.items()}
    if not frames:
        raise FigureError("learning curves: expected at least one history, got none")
    fig, axes = plt.subplots(1, len(columns), figsize=(8.8, 3.3), squeeze=False)
    for ax, column in zip(axes[0], columns, strict=True):
        for index, (name, frame) in enumerate(frames.items()):
            if column in frame:
                turn, place = divmod(index, len(CYCLE))
                style = {"color": CYCLE[place], "linestyle": LINES[turn % len(LINES)]}
                _curve(ax, frame.dropna(subset=[column]), x, column, name, style)
        ax.set(xlabel=x, title=_word(column), xlim=_whole(frames, x))
        if "dice" in column:
            ax.set_ylim(0, 1)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(frames) > 1:
        crowded = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if len(frames) > 5 else {}
        axes[0][-1].legend(**crowded)
    return fig


def _whole(frames: Mapping[str, pd.DataFrame], x: str) -> tuple[float, float]:
    """From the first to the last ``x`` of all runs, so that panels agree, with a little room on either side."""
    values = pd.concat([frame[x] for frame in frames.values()])
    room = max(0.03 * (values.max() - values.min()), 0.5)
    return values.min() - room, values.max() + room


def _curve(
    ax: Axes, frame: pd.DataFrame, x: str, column: str, name: str, style: Mapping[str, str]
) -> None:
    if "seed" in frame and frame["seed"].nunique() > 1:
        for _, one in frame.groupby("seed"):
            ax.plot(one[x], one[column], **style, linewidth=0.8, alpha=0.45)
        frame = frame.groupby(x, as_index=False)[column].mean()
    ax.plot(frame[x], frame[column], **style, label=name, marker="o" if len(frame) < 3 else None)


def dice_strip(
    table: Any,
    intervals: Mapping[str, Sequence[float]] | None = None,
    *,
    value: str = "dice",
    by: str = "arm",
    ax: Axes | None = None,
) -> Axes:
    """A dot per case in one row per group, the mean as a diamond, and the given interval around it.

    ``table`` has the columns ``by`` and ``value``; ``intervals`` maps a group to (low, high) of its mean.
    """
    frame = _table(table, [by, value], "dice strip")
    groups = list(dict.fromkeys(frame[by]))
    ax = _axes(ax, (8.8, 0.55 * len(groups) + 0.9))
    for row, group in enumerate(groups):
        points = np.sort(frame.loc[frame[by] == group, value].dropna().to_numpy(float))
        if not len(points):
            continue
        shift = ((np.arange(len(points)) * 0.618034) % 1 - 0.5) * 0.4
        ax.scatter(points, row + shift, s=20, color=PALETTE["muted"], alpha=0.55, linewidths=0)
        if intervals and group in intervals:
            ax.plot(
                intervals[group],
                [row, row],
                color=PALETTE["tumor"],
                linewidth=3.2,
                solid_capstyle="round",
            )
        ax.scatter(
            [points.mean()],
            [row],
            marker="D",
            s=48,
            color=PALETTE["tumor"],
            edgecolor="white",
            zorder=3,
        )
        ax.annotate(
            f"{points.mean():.3f}",
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
        )
    ax.set(
        yticks=range(len(groups)),
        yticklabels=groups,
        ylim=(len(groups) - 0.45, -0.55),
        xlabel=f"{_word(value)} (dots: cases, diamond: mean{', bar: its interval' if intervals else ''})",
    )
    ax.grid(False, axis="y")
    return ax


def forest(effects: Any, *, xlabel: str = "difference in Dice", ax: Axes | None = None) -> Axes:
    """Effects with their intervals against zero: filled where the interval excludes zero, else hollow.

    ``effects`` has the columns label, effect, low and high, and n where known.
    """
    frame = _table(effects, ["label", "effect", "low", "high"], "forest")
    ax = _axes(ax, (8.8, 0.42 * len(frame) + 0.9))
    ax.axvline(0, color=PALETTE["truth"], linewidth=1)
    for row, one in enumerate(frame.to_dict("records")):
        clear = one["low"] > 0 or one["high"] < 0
        color = (
            PALETTE["muted"]
            if not clear
            else PALETTE["kidney"]
            if one["effect"] > 0
            else PALETTE["tumor"]
        )
        ax.plot(
            [one["low"], one["high"]],
            [row, row],
            color=color,
            linewidth=2.4,
            solid_capstyle="round",
        )
        ax.scatter(
            [one["effect"]],
            [row],
            s=52,
            marker="s",
            zorder=3,
            color=color if clear else "white",
            edgecolor=color,
            linewidths=1.6,
        )
        words = f"{one['effect']:+.3f}  [{_bound(one['low'])}, {_bound(one['high'])}]".replace(
            "-", "−"
        )
        if pd.notna(one.get("n")):
            words += f"  n = {int(one['n'])}"
        ax.annotate(
            words, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8.5
        )
    ax.set(
        yticks=range(len(frame)),
        yticklabels=frame["label"],
        ylim=(len(frame) - 0.4, -0.6),
        xlabel=xlabel,
    )
    ax.grid(False, axis="y")
    return ax


def _bound(value: float) -> str:
    """Three decimals, or the first digit of a value that they would hide: beside zero its side is what counts."""
    return f"{value:+.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:+.1g}"


def dice_against_volume(
    table: Any,
    *,
    volume: str = "tumor_ml",
    value: str = "dice",
    by: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A dot per case: Dice over volume in ml on a logarithmic axis, coloured by the column ``by`` if given.

    A volume of 0 ml has no place on the axis and is left out; the legend says how many.
    """
    frame = _table(table, [volume, value] + ([by] if by else []), "dice against volume").dropna(
        subset=[volume, value]
    )
    ax = _axes(ax, (8.8, 3.6))
    shown = frame[frame[volume] > 0]
    groups = shown.groupby(by, sort=False) if by else [(None, shown)]
    for index, (name, part) in enumerate(groups):
        color = CYCLE[index % len(CYCLE)] if by else PALETTE["tumor"]
        ax.scatter(
            part[volume], part[value], s=30, alpha=0.75, color=color, linewidths=0, label=name
        )
    dropped = len(frame) - len(shown)
    if dropped:
        ax.scatter([], [], s=0, label=f"{dropped} with 0 ml not shown")
    ax.set(
        xscale="log", xlabel=f"{_word(volume)} volume, ml", ylabel=_word(value), ylim=(-0.03, 1.03)
    )
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    if by or dropped:
        ax.legend()
    return ax


def dice_against_cost(table: Any, costs: Mapping[str, str]) -> Figure:
    """Mean Dice of each arm over what it costs, one panel per cost on a logarithmic axis, arms named at their dots.

    ``table`` has the columns arm, dice, low, high (an interval) and those of ``costs``, which maps a column to the
    words on its axis.
    """
    frame = _table(table, ["arm", "dice", "low", "high", *costs], "dice against cost")
    fig, axes = plt.subplots(
        1, len(costs), figsize=(4.6 * len(costs), 3.8), sharey=True, squeeze=False
    )
    for ax, (column, words) in zip(axes[0], costs.items(), strict=True):
        spread = [frame["dice"] - frame["low"], frame["high"] - frame["dice"]]
        ax.errorbar(
            frame[column], frame["dice"], yerr=spread, fmt="o", color=PALETTE["kidney"], ecolor=PALETTE["muted"],
            elinewidth=1, markersize=5,
        )  # fmt: skip
        ax.set(xscale="log", xlabel=words)
        ax.xaxis.set_major_locator(MaxNLocator(5))  # arms differ by less than a decade
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.margins(x=0.18)
    axes[0, 0].set_ylabel(_word("dice"))
    fig.canvas.draw()  # where the dots are on the page is known from here
    for ax, column in zip(axes[0], costs, strict=True):
        _name_dots(ax, frame[column], frame["dice"], frame["arm"])
    return fig


def _name_dots(ax: Axes, xs: Sequence[float], ys: Sequence[float], names: Sequence[str]) -> None:
    """Write each name beside its dot, on the side and at the height that is nearest and still free."""
    steps = sorted(np.arange(-60, 61, 3), key=abs)
    places = sorted(((x, y) for y in steps for x in (6, -6)), key=lambda place: abs(place[1]))
    dots = ax.transData.transform(np.column_stack([xs, ys]))
    taken = [Bbox.from_extents(*(dot - 4), *(dot + 4)) for dot in dots]
    for x, y, name in sorted(zip(xs, ys, names, strict=True), key=lambda one: -one[1]):
        words = ax.annotate(
            name, (x, y), places[0], textcoords="offset points", va="center", fontsize=7.5
        )
        for place in places:
            words.set(position=place, ha="left" if place[0] > 0 else "right")
            box = words.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def hu_distributions(
    samples: Mapping[str, np.ndarray],
    *,
    limits: tuple[float, float] = (-150.0, 350.0),
    bins: int = 100,
    ax: Axes | None = None,
) -> Axes:
    """Density of HU per tissue with its median as a dashed line; values outside the limits are not drawn.

    ``samples`` maps a tissue (kidney, tumor, cyst keep their colours) to an array of HU of any shape.
    """
    ax = _axes(ax, (8.8, 3.4))
    edges = np.linspace(*limits, bins + 1)
    spare = iter(
        [color for color in CYCLE if color not in {PALETTE[name] for name in NAMES.values()}] * 4
    )
    words = {name: WORDS[value] for value, name in NAMES.items()}
    for name, values in samples.items():
        values = np.asarray(values, float).ravel()
        if not values.size:
            continue
        color = PALETTE[name] if name in words else next(spare)
        density = np.histogram(values, edges)[0] / (values.size * np.diff(edges))
        median = float(np.median(values))
        label = f"{words.get(name, name)}, median {median:.0f} HU".replace("-", "−")
        ax.stairs(density, edges, fill=True, color=color, alpha=0.18)
        ax.stairs(density, edges, color=color, linewidth=1.6, label=label)
        ax.axvline(median, color=color, linewidth=1.2, linestyle="--")
    ax.set(xlabel="HU", ylabel="density", xlim=limits, yticks=[])
    ax.legend()
    return ax


def difficulty_over_time(table: Any, *, value: str = "difficulty", ax: Axes | None = None) -> Axes:
    """Heat map of difficulty, a row per case (hardest at the end on top) and a column per measured epoch.

    ``table`` has the columns epoch, case and ``value``.
    """
    frame = _table(table, ["epoch", "case", value], "difficulty over time")
    grid = frame.pivot_table(index="case", columns="epoch", values=value, aggfunc="mean")
    grid = grid.sort_values(grid.columns[-1], ascending=False)
    ax = _axes(ax, (8.8, min(0.24 * len(grid) + 1.1, 9.0)))
    picture = ax.imshow(
        grid.to_numpy(float), aspect="auto", cmap="cividis", vmin=0, interpolation="nearest"
    )
    step = max(1, -(-len(grid) // 30))
    ax.set(
        yticks=range(0, len(grid), step),
        yticklabels=grid.index[::step],
        xticks=range(len(grid.columns)),
        xticklabels=grid.columns,
        xlabel="epoch",
    )
    ax.tick_params(axis="y", labelsize=7.5)
    ax.grid(False)
    ax.figure.colorbar(picture, ax=ax, label=_word(value), fraction=0.04, pad=0.02)
    return ax


def false_positive_split(table: Any, *, ax: Axes | None = None) -> Axes:
    """Bars of the volume called tumour in vain, a case each: inside cysts, and elsewhere; most at the top.

    ``table`` has ``case``, ``fp_ml`` and ``cyst_fp_ml`` in ml; where the latter is missing, cysts are not known and
    the bar is of one colour of its own. Raises FigureError on a missing column or without cases.
    """
    frame = _table(table, ["case", "fp_ml", "cyst_fp_ml"], "false positives").sort_values("fp_ml")
    if frame.empty:
        raise FigureError("false positives: expected at least one case, got none")
    ax = _axes(ax, (6.4, 1.0 + 0.24 * len(frame)))
    inside = pd.to_numeric(frame["cyst_fp_ml"])
    known = inside.notna().to_numpy()
    names = [str(case)[-5:] for case in frame["case"]]
    elsewhere = np.where(known, frame["fp_ml"] - inside.fillna(0), 0)
    ax.barh(
        names, np.where(known, inside.fillna(0), 0), color=PALETTE["cyst"], label="inside cysts"
    )
    ax.barh(names, elsewhere, left=inside.fillna(0), color=PALETTE["tumor"], label="elsewhere")
    if not known.all():
        ax.barh(names, np.where(known, 0, frame["fp_ml"]), color="grey", label="cysts not labelled")
    ax.set(xlabel="called tumour in vain, ml")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower right")
    return ax


def reliability_diagram(counts: Any, *, ax: Axes | None = None) -> Axes:
    """How often what is given a probability is true, bin by bin, against the diagonal; the bars count the voxels.

    ``counts`` is (3, bins): number of voxels, sums of probabilities and of truths. Raises FigureError without voxels.
    """
    number, claimed, true = np.asarray(counts, float)
    filled = number > 0
    if not filled.any():
        raise FigureError("reliability diagram: expected voxels, got none")
    ax = _axes(ax, (4.6, 4.2))
    ax.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="as often as claimed")
    ax.plot(
        claimed[filled] / number[filled],
        true[filled] / number[filled],
        marker="o",
        color=CYCLE[0],
        label="found",
    )
    ax.set(xlabel="probability given", ylabel="share that is tumour", xlim=(0, 1), ylim=(0, 1))
    other = ax.twinx()
    width = 1 / len(number)
    other.bar(
        (np.arange(len(number)) + 0.5) * width, number, width=0.9 * width, color="grey", alpha=0.2
    )
    other.set(yscale="log", ylabel="voxels")
    other.grid(False)
    ax.legend(loc="upper left")
    return ax
