"""Drawings of the networks, made from the options that they are built with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from kitslib.reporting.figures.style import CYCLE, PALETTE, FigureError

MARKS = {"multi_scale": CYCLE[2], "se": "#8A6800", "attention": CYCLE[3], "hdc": CYCLE[1]}
WIDE, HIGH, STEP = 1.3, 0.62, 1.08  # inches: a stage's box, and from one scale to the next
IMAGE_X, ENCODER_X, DECODER_X = 0.5, 2.0, 4.75
SIZE, SMALL = 10.5, 9.5  # points; shown at 400 pixels they are still 9 pixels high


@dataclass(frozen=True)
class Box:
    """A box by its centre and size in inches; its sides are where arrows end."""

    x: float
    y: float
    width: float = WIDE
    height: float = HIGH

    @property
    def left(self) -> tuple[float, float]:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> tuple[float, float]:
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x, self.y - self.height / 2


def tumor_network(options: Mapping[str, Any], size: Sequence[int]) -> Figure:
    """A tumour network as it is wired: a box per scale with channels and resolution, a mark per mechanism.

    `options` are the keyword arguments of `networks.build` and `size` is the input's, (H, W) or (D, H, W), each
    axis a multiple of the network's divisor. Raises FigureError for another network.
    """
    drawers = {"vnet": _vnet, "unet": _unet, "deeplab": _deeplab}
    if options["name"] not in drawers:
        raise FigureError(
            f"tumour network: expected one of {', '.join(drawers)}, got {options['name']!r}"
        )
    dims = options.get("dims", "2.5d")
    if len(size) != (3 if dims == "3d" else 2):
        raise FigureError(
            f"tumour network: a {dims} network has another number of axes than the size {tuple(size)}"
        )
    fig, ax = plt.subplots()
    lowest = drawers[options["name"]](ax, options, tuple(size))
    return _finish(
        fig,
        ax,
        left=IMAGE_X - 0.5,
        right=DECODER_X + WIDE / 2,
        top=STEP * 0.85 + 0.25,
        bottom=lowest,
    )


def kidney_network(options: Mapping[str, Any], size: Sequence[int]) -> Figure:
    """The 3D ResUNet as it is wired: four encoder and four decoder stages, and the maps that are supervised.

    `options` are the keyword arguments of `networks.build` and `size` is the input's (D, H, W), multiples of 8.
    """
    w1, w2, w3, w4, w5 = options.get("widths", (16, 32, 64, 128, 256))
    supervised, residual = options.get("deep_supervision", True), options.get("residual", True)
    fig, ax = plt.subplots()
    encoder_x, decoder_x, map_x = 0.7, 2.95, 4.9
    image = _box(ax, Box(encoder_x, STEP * 0.85, height=0.42), ["CT"], "muted")
    dilated = {2: "dilations 1, 2, 4", 3: "dilations 3, 4, 5"}
    encoder = [
        _stage(ax, encoder_x, level, width, size, extra=dilated.get(level, ""))
        for level, width in enumerate((w1, w2, w3, w4))
    ]
    decoder = [
        _stage(ax, decoder_x, level, width, size) for level, width in enumerate((w2, w3, w4, w5))
    ]
    _arrow(ax, image.bottom, encoder[0].top)
    for level in range(3):
        _arrow(ax, encoder[level].bottom, encoder[level + 1].top)
        _arrow(ax, encoder[level].right, decoder[level].left)
        _arrow(ax, decoder[level + 1].top, decoder[level].bottom)
    _arrow(ax, encoder[3].right, decoder[3].left)
    for level in range(4):
        if supervised or level == 0:
            label = _box(
                ax,
                Box(map_x, -STEP * level, width=1.1),
                [f"map {4 - level}", _enlarged(level)],
                "tumor",
            )
            _arrow(ax, decoder[level].right, label.left)
    sums = "with a residual sum" if residual else "without residual sums"
    words = [
        (None, f"blue: 2 or 3 convolutions 3 wide, {sums}"),
        (None, "down: halved · up: doubled · across: joined"),
        (None, "orange: logits; all four enter the loss" if supervised else "orange: logits"),
    ]
    lowest = _legend(ax, words, -STEP * 3 - HIGH / 2 - 0.38, x=encoder_x - WIDE / 2)
    return _finish(
        fig,
        ax,
        left=encoder_x - WIDE / 2,
        right=map_x + 0.55,
        top=STEP * 0.85 + 0.25,
        bottom=lowest,
    )


def _vnet(ax: Axes, options: Mapping[str, Any], size: tuple[int, ...]) -> float:
    encoder, decoder = _u_shape(ax, options, size)
    words: list[tuple[str | None, str]] = [(None, "box: 5-wide convolutions with a residual sum")]
    if options.get("multi_scale"):
        for level in range(1, len(encoder)):
            _arrow(
                ax,
                _image(ax, options, size, level).right,
                encoder[level].left,
                MARKS["multi_scale"],
            )
        words.append(("multi_scale", "the image joins every scale"))
    if options.get("se"):
        for above, below in pairwise(encoder):
            _badge(ax, above.x, _between(above, below), "SE", "se")
        words.append(("se", "squeeze-and-excitation weighs the channels"))
    if options.get("attention"):
        kind = options.get("attention_gate", "concat")
        for level, (stage, up) in enumerate(zip(encoder, decoder, strict=False)):
            below = decoder[level + 1] if level + 1 < len(decoder) else encoder[-1]
            _gate(ax, stage, up, below)
        words.append(
            (
                "attention",
                f"gate on the skip ({'additive' if kind == 'additive' else 'concatenation'})",
            )
        )
    dilations = ", ".join(map(str, options.get("hdc_dilations", (2, 3, 5))))
    if options.get("hdc"):
        level = options.get("hdc_level", "bottom")
        stage = encoder[-1 if level == "bottom" else level]
        _badge(ax, stage.x + 0.62, stage.bottom[1] - 0.03, dilations, "hdc", width=0.75)
        words.append(("hdc", "convolutions with these dilations"))
    return _legend(ax, words, encoder[-1].bottom[1] - 0.45, dilations=dilations)


def _unet(ax: Axes, options: Mapping[str, Any], size: tuple[int, ...]) -> float:
    encoder, _ = _u_shape(ax, options, size)
    return _legend(ax, [(None, "box: two 3-wide convolutions")], encoder[-1].bottom[1] - 0.3)


def _deeplab(ax: Axes, options: Mapping[str, Any], size: tuple[int, ...]) -> float:
    widths, strides = options["widths"], 3
    scales = [min(level + 1, strides) for level in range(len(widths))]
    encoder = []
    for level, (width, scale) in enumerate(zip(widths, scales, strict=True)):
        dilation = 2 ** max(level - strides + 1, 0)
        extra = f"dilation {dilation}" if dilation > 1 else ""
        encoder.append(_stage(ax, ENCODER_X, level, width, size, scale=scale, extra=extra))
    _arrow(ax, _image(ax, options, size, 0).right, encoder[0].left)
    for above, below in pairwise(encoder):
        _arrow(ax, above.bottom, below.top)
    pyramid = _box(
        ax, Box(DECODER_X, encoder[-1].y, height=0.78),
        ["atrous pyramid", "1 × 1, mean,", "rates 6, 12, 18"], "kidney", small=True,
    )  # fmt: skip
    _arrow(ax, encoder[-1].right, pyramid.left)
    decoder = _stage(ax, DECODER_X, 1, widths[strides - 1], size, scale=2)
    _arrow(ax, pyramid.top, decoder.bottom)
    _arrow(ax, encoder[1].right, decoder.left)
    _output(ax, decoder, size)
    words = [
        (None, "left: two 3-wide convolutions with a residual sum"),
        (None, "up: enlarged by interpolation"),
    ]
    return _legend(ax, words, encoder[-1].bottom[1] - 0.3)


def _u_shape(
    ax: Axes, options: Mapping[str, Any], size: tuple[int, ...]
) -> tuple[list[Box], list[Box]]:
    """Encoder (finest first) and decoder stages, with the skips between them."""
    widths = options["widths"]
    encoder = [_stage(ax, ENCODER_X, level, width, size) for level, width in enumerate(widths)]
    decoder = [_stage(ax, DECODER_X, level, width, size) for level, width in enumerate(widths[:-1])]
    _arrow(ax, _image(ax, options, size, 0).right, encoder[0].left)
    for above, below in pairwise(encoder):
        _arrow(ax, above.bottom, below.top)
    for stage, up in zip(encoder, decoder, strict=False):
        _arrow(ax, stage.right, up.left)
    for below, above in zip(decoder[1:], decoder, strict=False):
        _arrow(ax, below.top, above.bottom)
    ax.plot(
        [encoder[-1].right[0], DECODER_X],
        [encoder[-1].y] * 2,
        color=PALETTE["truth"],
        linewidth=1.4,
    )
    _arrow(ax, (DECODER_X, encoder[-1].y), decoder[-1].bottom)
    _output(ax, decoder[0], size)
    return encoder, decoder


def _stage(
    ax: Axes,
    x: float,
    level: int,
    channels: int,
    size: Sequence[int],
    *,
    scale: int | None = None,
    extra: str = "",
) -> Box:
    lines = [
        f"{channels} channels",
        _grid(size, level if scale is None else scale),
        *([extra] if extra else []),
    ]
    return _box(
        ax,
        Box(x, -STEP * level, height=HIGH + 0.16 * bool(extra)),
        lines,
        "kidney",
        small=bool(extra),
    )


def _image(ax: Axes, options: Mapping[str, Any], size: Sequence[int], level: int) -> Box:
    many = {"2d": "1 slice", "2.5d": f"{options.get('slices', 5)} slices", "3d": "slab"}[
        options.get("dims", "2.5d")
    ]
    place = Box(IMAGE_X, -STEP * level, width=1.0, height=0.52)
    return _box(
        ax,
        place,
        [many, _grid(size, level)],
        "muted" if level == 0 else MARKS["multi_scale"],
        small=True,
    )


def _output(ax: Axes, last: Box, size: Sequence[int]) -> None:
    logits = _box(
        ax,
        Box(DECODER_X, STEP * 0.85, height=0.48),
        ["tumour logits", _grid(size, 0)],
        "tumor",
        small=True,
    )
    _arrow(ax, last.top, logits.bottom)


def _gate(ax: Axes, stage: Box, up: Box, below: Box) -> None:
    """A gate on the skip from `stage` to `up`, steered by what comes up from `below`."""
    x = (stage.right[0] + up.left[0]) / 2
    corner = _between(up, below) if below.x == up.x else up.bottom[1] - (STEP - HIGH) / 2
    ax.plot(
        [up.x, x],
        [corner, corner],
        color=MARKS["attention"],
        linewidth=1.4,
        marker="o",
        markevery=[0],
        markersize=4,
    )
    _arrow(ax, (x, corner), (x, stage.y - 0.13), MARKS["attention"])
    _badge(ax, x, stage.y, "gate", "attention", width=0.55)


def _between(above: Box, below: Box) -> float:
    return (above.bottom[1] + below.top[1]) / 2


def _grid(size: Sequence[int], level: int) -> str:
    return " × ".join(str(axis // 2**level) for axis in size)


def _enlarged(level: int) -> str:
    return f"enlarged × {2**level}" if level else "full size"


def _box(ax: Axes, box: Box, lines: Sequence[str], color: str, *, small: bool = False) -> Box:
    edge = PALETTE.get(color, color)
    corner = (box.left[0], box.bottom[1])
    shape = FancyBboxPatch(
        corner, box.width, box.height, boxstyle="round,pad=0,rounding_size=0.06", linewidth=1.3
    )
    shape.set(edgecolor=edge, facecolor=(*to_rgb(edge), 0.1), zorder=2)
    ax.add_patch(shape)
    ax.text(
        box.x,
        box.y,
        "\n".join(lines),
        ha="center",
        va="center",
        fontsize=SMALL if small else SIZE,
        zorder=4,
    )
    return box


def _badge(ax: Axes, x: float, y: float, text: str, mechanism: str, *, width: float = 0.42) -> None:
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.125), width, 0.25, boxstyle="round,pad=0,rounding_size=0.1"
    )
    shape.set(edgecolor="white", facecolor=MARKS[mechanism], linewidth=1.0, zorder=5)
    ax.add_patch(shape)
    ax.text(
        x,
        y - 0.01,
        text,
        ha="center",
        va="center",
        color="white",
        fontsize=SMALL,
        fontweight="bold",
        zorder=6,
    )


def _arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = PALETTE["truth"]
) -> None:
    style = {
        "arrowstyle": "-|>",
        "color": color,
        "linewidth": 1.4,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 11,
    }
    ax.annotate("", xy=end, xytext=start, arrowprops=style, zorder=3)


def _legend(
    ax: Axes,
    words: Sequence[tuple[str | None, str]],
    top: float,
    *,
    x: float = 0.0,
    dilations: str = "",
) -> float:
    """A line per mark that is on; returns the height where it ends."""
    names = {"multi_scale": "image", "se": "SE", "attention": "gate", "hdc": dilations}
    for row, (mechanism, text) in enumerate(words):
        y = top - 0.32 * row
        if mechanism:
            _badge(ax, x + 0.4, y, names[mechanism], mechanism, width=0.75)
        ax.text(x + (0.9 if mechanism else 0.02), y, text, va="center", fontsize=SIZE)
    return top - 0.32 * (len(words) - 1) - 0.15


def _finish(
    fig: Figure, ax: Axes, *, left: float, right: float, top: float, bottom: float
) -> Figure:
    """One inch of the drawing is one inch of the figure."""
    margin = 0.06
    fig.set_layout_engine("none")
    fig.set_size_inches(right - left + 2 * margin, top - bottom + 2 * margin)
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin))
    ax.axis("off")
    return fig
