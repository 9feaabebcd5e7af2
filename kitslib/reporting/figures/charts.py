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

from kitslib.reporting.figures.style import CYCLE, NAMES, PALETTE, WIDTH, WORDS, FigureError

LINES = ("-", "--", ":")  # one after the other once all colours are used
HU_LIMITS, HU_BINS = (-150.0, 350.0), 100
ROUND = {"solid_capstyle": "round"}
BESIDE = {"xycoords": ("axes fraction", "data"), "va": "center"}  # words right of a chart's row


def checked_table(table: Any, needed: Sequence[str], what: str) -> pd.DataFrame:
    """A table as a frame; raises FigureError, naming the figure, without rows or needed columns."""
    frame = pd.DataFrame(table)
    if frame.empty or not set(needed) <= set(frame):
        got = f"{len(frame)} rows with {', '.join(map(str, frame)) or 'no columns'}"
        raise FigureError(f"{what}: expected rows with {', '.join(needed)}, got {got}")
    return frame


def name_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Name rows 0, 1, … of a chart that reads from the top."""
    ax.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.45, -0.55))
    ax.grid(False, axis="y")


def spread_out(count: int, height: float) -> np.ndarray:
    """Offsets (count,) that keep dots of one row apart, within `height` of a row."""
    return ((np.arange(count) * 0.618034) % 1 - 0.5) * height


def learning_curves(histories: Mapping[str, Any]) -> Figure:
    """Loss and Dice over epochs, one colour per run; thin lines per seed where there are several.

    `histories` maps a run to its table with `epoch` and where known `loss`, `dice` and `seed`.
    Raises FigureError when there is no history or one has no `epoch`.
    """
    tables = histories.items()
    frames = {name: checked_table(one, ["epoch"], f"history {name!r}") for name, one in tables}
    if not frames:
        raise FigureError("learning curves: expected at least one history, got none")
    epochs = pd.concat(frames)["epoch"]
    room = max(0.03 * (epochs.max() - epochs.min()), 0.5)
    fig, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.3))
    for ax, column in zip(axes, ("loss", "dice"), strict=True):
        for index, (name, frame) in enumerate(frames.items()):
            turn, place = divmod(index, len(CYCLE))
            style = {"color": CYCLE[place], "linestyle": LINES[turn % len(LINES)], "label": name}
            if column in frame:
                _curve(ax, frame.dropna(subset=[column]), column, style)
        ax.set(xlabel="epoch", title=column, xlim=(epochs.min() - room, epochs.max() + room))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[1].set_ylim(0, 1)
    if len(frames) > 5:
        axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    elif len(frames) > 1:
        axes[1].legend()
    return fig


def _curve(ax: Axes, frame: pd.DataFrame, column: str, style: dict[str, str]) -> None:
    if "seed" in frame and frame["seed"].nunique() > 1:
        thin = {**style, "label": None, "linewidth": 0.8, "alpha": 0.45}
        for _, one in frame.groupby("seed"):
            ax.plot(one["epoch"], one[column], **thin)
        frame = frame.groupby("epoch", as_index=False)[column].mean()
    ax.plot(frame["epoch"], frame[column], **style, marker="o" if len(frame) < 3 else None)


def dice_strip(
    table: Any, intervals: Mapping[str, Sequence[float]] | None = None,
    *, value: str = "dice", by: str = "arm",
) -> Axes:  # fmt: skip
    """A dot per case in one row per group, the mean as a diamond, the given interval around it.

    `table` has the columns `by` and `value`; `intervals` maps a group to (low, high) of its mean.
    """
    frame = checked_table(table, [by, value], "dice strip")
    groups, intervals = list(dict.fromkeys(frame[by])), intervals or {}
    ax = plt.subplots(figsize=(WIDTH, 0.55 * len(groups) + 0.9))[1]
    dots = {"s": 20, "color": PALETTE["muted"], "alpha": 0.55, "linewidths": 0}
    mark = {"marker": "D", "s": 48, "edgecolor": "white", "zorder": 3}
    for row, group in enumerate(groups):
        points = np.sort(frame.loc[frame[by] == group, value].dropna().to_numpy(float))
        if not len(points):
            continue
        ax.scatter(points, row + spread_out(len(points), 0.4), **dots)
        if group in intervals:
            ax.plot(intervals[group], [row] * 2, color=PALETTE["tumor"], linewidth=3.2, **ROUND)
        ax.scatter([points.mean()], [row], color=PALETTE["tumor"], **mark)
        ax.annotate(f"{points.mean():.3f}", (1.01, row), fontsize=9, **BESIDE)
    name_rows(ax, groups)
    words = ", bar: its interval" if intervals else ""
    ax.set_xlabel(f"{value} (dots: cases, diamond: mean{words})")
    return ax


def forest(effects: Any, *, xlabel: str = "difference in Dice") -> Axes:
    """Effects with their intervals: filled where the interval excludes zero, else hollow.

    `effects` has the columns label, effect, low and high, and n where known.
    """
    frame = checked_table(effects, ["label", "effect", "low", "high"], "forest")
    ax = plt.subplots(figsize=(WIDTH, 0.42 * len(frame) + 0.9))[1]
    ax.axvline(0, color=PALETTE["truth"], linewidth=1)
    mark = {"s": 52, "marker": "s", "zorder": 3, "linewidths": 1.6}
    for row, one in enumerate(frame.to_dict("records")):
        color, face = PALETTE["muted"], "white"
        if one["low"] > 0 or one["high"] < 0:
            color = face = PALETTE["kidney" if one["effect"] > 0 else "tumor"]
        ax.plot((one["low"], one["high"]), [row] * 2, color=color, linewidth=2.4, **ROUND)
        ax.scatter([one["effect"]], [row], color=face, edgecolor=color, **mark)
        words = f"{one['effect']:+.3f}  [{_bound(one['low'])}, {_bound(one['high'])}]"
        if bool(pd.notna(one.get("n"))):
            words += f"  n = {int(one['n'])}"
        ax.annotate(words.replace("-", "−"), (1.01, row), fontsize=8.5, **BESIDE)
    name_rows(ax, frame["label"])
    ax.set_xlabel(xlabel)
    return ax


def _bound(value: float) -> str:
    """Three decimals, or the first digit of a value that they would hide, so its sign is seen."""
    return f"{value:+.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:+.1g}"


def dice_against_volume(table: Any) -> Axes:
    """A dot per case: `dice` over `tumor_ml` on a logarithmic axis.

    A volume of 0 ml has no place on the axis and is left out; the legend says how many.
    """
    columns = ["tumor_ml", "dice"]
    frame = checked_table(table, columns, "dice against volume").dropna(subset=columns)
    shown = frame[frame["tumor_ml"] > 0]
    ax = plt.subplots(figsize=(WIDTH, 3.6))[1]
    dots = {"s": 30, "alpha": 0.75, "color": PALETTE["tumor"], "linewidths": 0}
    ax.scatter(shown["tumor_ml"], shown["dice"], **dots)
    ax.set(xscale="log", xlabel="tumour volume, ml", ylabel="Dice", ylim=(-0.03, 1.03))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    if len(shown) < len(frame):
        ax.scatter([], [], s=0, label=f"{len(frame) - len(shown)} with 0 ml not shown")
        ax.legend()
    return ax


def dice_against_cost(table: Any, costs: Mapping[str, str]) -> Figure:
    """Mean Dice of each arm over its costs, one panel per cost on a logarithmic axis.

    `table` has arm (written at its dot), dice, low, high (an interval) and the columns of `costs`,
    which maps them to the words on their axes.
    """
    frame = checked_table(table, ["arm", "dice", "low", "high", *costs], "dice against cost")
    size = (4.6 * len(costs), 3.8)
    fig, axes = plt.subplots(1, len(costs), figsize=size, sharey=True, squeeze=False)
    spread = [frame["dice"] - frame["low"], frame["high"] - frame["dice"]]
    style = {"color": PALETTE["kidney"], "ecolor": PALETTE["muted"], "elinewidth": 1}
    for ax, (column, words) in zip(axes[0], costs.items(), strict=True):
        ax.errorbar(frame[column], frame["dice"], yerr=spread, fmt="o", markersize=5, **style)
        ax.set(xscale="log", xlabel=words)
        ax.xaxis.set_major_locator(MaxNLocator(5))  # arms differ by less than a decade
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.margins(x=0.18)
    axes[0, 0].set_ylabel("Dice")
    fig.canvas.draw()  # where the dots are on the page is known from here
    for ax, column in zip(axes[0], costs, strict=True):
        _name_dots(ax, frame[column], frame["dice"], frame["arm"])
    return fig


def _name_dots(ax: Axes, xs: Sequence[float], ys: Sequence[float], names: Sequence[str]) -> None:
    """Write each name beside its dot, on the side and at the height that is nearest and free."""
    places = [(side, height) for height in range(-60, 61, 3) for side in (6, -6)]
    places.sort(key=lambda place: abs(place[1]))
    dots = ax.transData.transform(np.column_stack([xs, ys]))
    taken = [Bbox.from_extents(*(dot - 4), *(dot + 4)) for dot in dots]
    style = {"textcoords": "offset points", "va": "center", "fontsize": 8.5}
    for x, y, name in sorted(zip(xs, ys, names, strict=True), key=lambda one: -one[1]):
        words = ax.annotate(name, (x, y), places[0], **style)
        for place in places:
            words.set(position=place, ha="left" if place[0] > 0 else "right")
            box = words.get_window_extent()
            if not any(map(box.overlaps, taken)):
                break
        taken.append(box)


def hu_distributions(samples: Mapping[str, np.ndarray]) -> Axes:
    """Density of HU per tissue, its median as a dashed line; values beyond the axis are not drawn.

    `samples` maps a tissue (kidney, tumor, cyst keep their colours) to HU of any shape.
    """
    ax = plt.subplots(figsize=(WIDTH, 3.4))[1]
    edges = np.linspace(*HU_LIMITS, HU_BINS + 1)
    words = {name: WORDS[value] for value, name in NAMES.items()}
    colors = {name: PALETTE[name] for name in words}
    spare = [color for color in CYCLE if color not in colors.values()]
    for name, values in samples.items():
        values = np.asarray(values, float).ravel()
        if not values.size:
            continue
        color = colors.setdefault(name, spare[(len(colors) - len(words)) % len(spare)])
        density = np.histogram(values, edges)[0] / (values.size * np.diff(edges))
        median = float(np.median(values))
        label = f"{words.get(name, name)}, median {median:.0f} HU".replace("-", "−")
        ax.stairs(density, edges, fill=True, color=color, alpha=0.18)
        ax.stairs(density, edges, color=color, linewidth=1.6, label=label)
        ax.axvline(median, color=color, linewidth=1.2, linestyle="--")
    ax.set(xlabel="HU", ylabel="density", xlim=HU_LIMITS, yticks=[])
    ax.legend()
    return ax


def difficulty_over_time(table: Any) -> Axes:
    """Heat map of difficulty: a row per case (hardest at the end on top), a column per epoch.

    `table` has the columns epoch, case and difficulty.
    """
    frame = checked_table(table, ["epoch", "case", "difficulty"], "difficulty over time")
    grid = frame.pivot_table(index="case", columns="epoch", values="difficulty", aggfunc="mean")
    grid = grid.sort_values(grid.columns[-1], ascending=False)
    ax = plt.subplots(figsize=(WIDTH, min(0.24 * len(grid) + 1.1, 9.0)))[1]
    style = {"aspect": "auto", "cmap": "cividis", "vmin": 0, "interpolation": "nearest"}
    picture = ax.imshow(grid.to_numpy(float), **style)
    step = -(-len(grid) // 30)
    ax.set_yticks(range(0, len(grid), step), grid.index[::step])
    ax.set_xticks(range(len(grid.columns)), grid.columns)
    ax.set_xlabel("epoch")
    ax.tick_params(axis="y", labelsize=8.5)
    ax.grid(False)
    ax.figure.colorbar(picture, ax=ax, label="difficulty", fraction=0.04, pad=0.02)
    return ax


def false_positive_split(table: Any) -> Axes:
    """Bars of the false-positive tumour volume, a case each: inside cysts, and elsewhere.

    `table` has `case`, `fp_ml` and `cyst_fp_ml` in ml; where the latter is missing, cysts are not
    known and the bar has a colour of its own. The largest stands on top.
    """
    columns = ["case", "fp_ml", "cyst_fp_ml"]
    frame = checked_table(table, columns, "false positives").sort_values("fp_ml")
    ax = plt.subplots(figsize=(6.4, 1.0 + 0.24 * len(frame)))[1]
    inside = pd.to_numeric(frame["cyst_fp_ml"])
    known, inside = inside.notna(), inside.fillna(0)
    names, elsewhere = frame["case"].astype(str).str[-5:], frame["fp_ml"] - inside
    style = {"left": inside, "color": PALETTE["tumor"], "label": "elsewhere"}
    ax.barh(names, inside, color=PALETTE["cyst"], label="inside cysts")
    ax.barh(names, elsewhere.where(known, 0), **style)
    if not known.all():
        ax.barh(names, elsewhere.mask(known, 0), color="grey", label="cysts not labelled")
    ax.set(xlabel="false-positive tumour volume, ml")
    ax.grid(axis="y", visible=False)
    ax.legend(loc="lower right")
    return ax


def reliability_diagram(counts: Any) -> Axes:
    """The share of tumour against the predicted probability, bin by bin; bars count the voxels.

    `counts` is (3, bins): number of voxels, sums of probabilities and of truths. Raises
    FigureError without voxels.
    """
    number, predicted, true = np.asarray(counts, float)
    filled = number > 0
    if not filled.any():
        raise FigureError("reliability diagram: expected voxels, got none")
    ax = plt.subplots(figsize=(4.6, 4.2))[1]
    ax.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="calibrated")
    shares = predicted[filled] / number[filled], true[filled] / number[filled]
    ax.plot(*shares, marker="o", color=CYCLE[0], label="measured")
    ax.set(xlabel="predicted probability", ylabel="share that is tumour", xlim=(0, 1), ylim=(0, 1))
    other, width = ax.twinx(), 1 / len(number)
    middles = (np.arange(len(number)) + 0.5) * width
    other.bar(middles, number, width=0.9 * width, color="grey", alpha=0.2)
    other.set(yscale="log", ylabel="voxels")
    other.grid(False)
    ax.legend(loc="upper left")
    return ax
