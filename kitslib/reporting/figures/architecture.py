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
LINE = PALETTE["truth"]
WIDE, HIGH, STEP = 1.3, 0.62, 1.08  # inches: a level's box, and from one scale to the next
TOP = STEP * 0.85  # inches: the box above the finest level
IMAGE_X, ENCODER_X, DECODER_X = 0.5, 2.0, 4.75
MARGIN = 0.06
SIZE, SMALL = 10.5, 9.5  # points; shown at 400 pixels they are still 9 pixels high


@dataclass(frozen=True)
class Box:
    """A box by its centre and size in inches."""

    x: float
    y: float
    width: float = WIDE
    height: float = HIGH

    @property
    def bottom(self) -> float:
        return self.y - self.height / 2


def tumor_network(options: Mapping[str, Any], size: Sequence[int]) -> Figure:
    """A tumour network as it is wired: a box per level, with channels and grid, and the mechanisms.

    `options` are the keyword arguments of `networks.build`; `size` is (H, W) or (D, H, W),
    multiples of the network's divisor. Raises FigureError for another network.
    """
    drawers = {"vnet": _vnet, "unet": _unet, "deeplab": _deeplab}
    name, dims = options["name"], options.get("dims", "2.5d")
    if name not in drawers:
        raise FigureError(f"tumour network: expected one of {', '.join(drawers)}, got {name!r}")
    if len(size) != (3 if dims == "3d" else 2):
        got = f"the size {tuple(size)}"
        raise FigureError(f"tumour network: a {dims} network has another number of axes than {got}")
    fig, ax = plt.subplots()
    lowest = drawers[name](ax, options, size)
    return _finish(fig, ax, IMAGE_X - 0.5, DECODER_X + WIDE / 2, lowest)


def kidney_network(options: Mapping[str, Any], size: Sequence[int]) -> Figure:
    """The 3D ResUNet as it is wired: its encoder and decoder levels, and the supervised maps.

    `options` are the keyword arguments of `networks.build`; `size` is (D, H, W), multiples of 8.
    """
    widths = options.get("widths", (16, 32, 64, 128, 256))
    supervised = options.get("deep_supervision", True)
    fig, ax = plt.subplots()
    encoder_x, decoder_x, map_x = 0.7, 2.95, 4.9
    image = _box(ax, Box(encoder_x, TOP, height=0.42), "CT", "muted")
    encoder, decoder = [], []
    for level, dilations in enumerate(("", "", "dilations 1, 2, 4", "dilations 3, 4, 5")):
        grid = _grid(size, level)
        encoder.append(_level(ax, encoder_x, level, widths[level], grid, dilations))
        decoder.append(_level(ax, decoder_x, level, widths[level + 1], grid))
        _connect(ax, encoder[level], decoder[level])
        if supervised or level == 0:
            place = Box(map_x, -STEP * level, width=1.1)
            enlarged = f"enlarged × {2**level}" if level else "full size"
            logits = _box(ax, place, f"map {4 - level}\n{enlarged}", "tumor")
            _connect(ax, decoder[level], logits)
    _connect(ax, image, *encoder)
    _connect(ax, *reversed(decoder))
    sums = "with a residual sum" if options.get("residual", True) else "without residual sums"
    words = {
        f"blue: 2 or 3 convolutions 3 wide, {sums}": None,
        "down: halved · up: doubled · across: joined": None,
        "orange: logits" + "; all four enter the loss" * supervised: None,
    }
    left = encoder_x - WIDE / 2
    lowest = _legend(ax, words, encoder[-1].y - HIGH / 2 - 0.38, left)
    return _finish(fig, ax, left, map_x + 0.55, lowest)


def _vnet(ax: Axes, options: Mapping[str, Any], size: Sequence[int]) -> float:
    encoder, decoder = _u_shape(ax, options, size)
    bottom = encoder[-1]
    words = {"box: 5-wide convolutions with a residual sum": None}
    if options.get("multi_scale"):
        for level, box in enumerate(encoder[1:], start=1):
            _connect(ax, _image(ax, options, size, level), box, color=MARKS["multi_scale"])
        words["the image joins every scale"] = "image", "multi_scale"
    if options.get("se"):
        for above, below in pairwise(encoder):
            _badge(ax, above.x, _between(above, below), "SE", "se")
        words["squeeze-and-excitation weighs the channels"] = "SE", "se"
    if options.get("attention"):
        for skip, (up, below) in zip(encoder, pairwise([*decoder, bottom]), strict=False):
            _gate(ax, skip, up, below)
        kind = "additive" if options.get("attention_gate") == "additive" else "concatenation"
        words[f"gate on the skip ({kind})"] = "gate", "attention"
    if options.get("hdc"):
        dilations = ", ".join(map(str, options.get("hdc_dilations", (2, 3, 5))))
        level = options.get("hdc_level", "bottom")
        place = bottom if level == "bottom" else encoder[level]
        _badge(ax, place.x + 0.62, place.bottom - 0.03, dilations, "hdc", width=0.75)
        words["convolutions with these dilations"] = dilations, "hdc"
    return _legend(ax, words, bottom.bottom - 0.45)


def _unet(ax: Axes, options: Mapping[str, Any], size: Sequence[int]) -> float:
    encoder, _ = _u_shape(ax, options, size)
    return _legend(ax, {"box: two 3-wide convolutions": None}, encoder[-1].bottom - 0.3)


def _deeplab(ax: Axes, options: Mapping[str, Any], size: Sequence[int]) -> float:
    widths, strides = options["widths"], 3
    encoder = []
    for level, width in enumerate(widths):
        dilation = 2 ** max(level - strides + 1, 0)
        extra = f"dilation {dilation}" if dilation > 1 else ""
        grid = _grid(size, min(level + 1, strides))
        encoder.append(_level(ax, ENCODER_X, level, width, grid, extra))
    _connect(ax, _image(ax, options, size, 0), encoder[0])
    _connect(ax, *encoder)
    place = Box(DECODER_X, encoder[-1].y, height=0.78)
    pyramid = _box(ax, place, "atrous pyramid\n1 × 1, mean,\nrates 6, 12, 18", "kidney", SMALL)
    decoder = _level(ax, DECODER_X, 1, widths[strides - 1], _grid(size, 2))
    _connect(ax, encoder[-1], pyramid, decoder, _output(ax, size))
    _connect(ax, encoder[1], decoder)
    left = "left: two 3-wide convolutions with a residual sum"
    words = {left: None, "up: enlarged by interpolation": None}
    return _legend(ax, words, encoder[-1].bottom - 0.3)


def _u_shape(
    ax: Axes, options: Mapping[str, Any], size: Sequence[int]
) -> tuple[list[Box], list[Box]]:
    """Encoder and decoder levels, finest first, with the skips between them."""
    levels = [(level, width, _grid(size, level)) for level, width in enumerate(options["widths"])]
    encoder = [_level(ax, ENCODER_X, *level) for level in levels]
    decoder = [_level(ax, DECODER_X, *level) for level in levels[:-1]]
    bottom = encoder[-1]
    for skip, up in zip(encoder, decoder, strict=False):
        _connect(ax, skip, up)
    _connect(ax, _image(ax, options, size, 0), encoder[0])
    _connect(ax, *encoder)
    ax.plot([bottom.x + WIDE / 2, DECODER_X], [bottom.y] * 2, color=LINE, linewidth=1.4)
    _arrow(ax, (DECODER_X, bottom.y), (DECODER_X, decoder[-1].bottom))
    _connect(ax, *reversed(decoder), _output(ax, size))
    return encoder, decoder


def _level(ax: Axes, x: float, level: int, channels: int, grid: str, extra: str = "") -> Box:
    """The box of a level: channels, grid, and what else it has."""
    text = f"{channels} channels\n{grid}"
    if not extra:
        return _box(ax, Box(x, -STEP * level), text, "kidney")
    place = Box(x, -STEP * level, height=HIGH + 0.16)
    return _box(ax, place, f"{text}\n{extra}", "kidney", SMALL)


def _image(ax: Axes, options: Mapping[str, Any], size: Sequence[int], level: int) -> Box:
    slices = {"2d": "1 slice", "2.5d": f"{options.get('slices', 5)} slices", "3d": "slab"}
    text = f"{slices[options.get('dims', '2.5d')]}\n{_grid(size, level)}"
    color = MARKS["multi_scale"] if level else "muted"
    return _box(ax, Box(IMAGE_X, -STEP * level, width=1.0, height=0.52), text, color, SMALL)


def _output(ax: Axes, size: Sequence[int]) -> Box:
    place = Box(DECODER_X, TOP, height=0.48)
    return _box(ax, place, f"tumour logits\n{_grid(size, 0)}", "tumor", SMALL)


def _gate(ax: Axes, skip: Box, up: Box, below: Box) -> None:
    """A gate on the skip to the level `up`, steered by what comes up from `below`."""
    x = (skip.x + skip.width / 2 + up.x - up.width / 2) / 2
    corner = _between(up, below) if below.x == up.x else up.bottom - (STEP - HIGH) / 2
    style = {"color": MARKS["attention"], "linewidth": 1.4, "marker": "o", "markersize": 4}
    ax.plot([up.x, x], [corner, corner], markevery=[0], **style)
    _arrow(ax, (x, corner), (x, skip.y - 0.13), MARKS["attention"])
    _badge(ax, x, skip.y, "gate", "attention", width=0.55)


def _between(above: Box, below: Box) -> float:
    return (above.bottom + below.y + below.height / 2) / 2


def _grid(size: Sequence[int], scale: int) -> str:
    return " × ".join(str(axis // 2**scale) for axis in size)


def _box(ax: Axes, box: Box, text: str, color: str, fontsize: float = SIZE) -> Box:
    edge = PALETTE.get(color, color)
    corner, style = (box.x - box.width / 2, box.bottom), "round,pad=0,rounding_size=0.06"
    shape = FancyBboxPatch(corner, box.width, box.height, boxstyle=style, linewidth=1.3)
    shape.set(edgecolor=edge, facecolor=(*to_rgb(edge), 0.1), zorder=2)
    ax.add_patch(shape)
    ax.text(box.x, box.y, text, ha="center", va="center", fontsize=fontsize, zorder=4)
    return box


def _badge(ax: Axes, x: float, y: float, text: str, mechanism: str, *, width: float = 0.42) -> None:
    corner, style = (x - width / 2, y - 0.125), "round,pad=0,rounding_size=0.1"
    shape = FancyBboxPatch(corner, width, 0.25, boxstyle=style)
    shape.set(edgecolor="white", facecolor=MARKS[mechanism], linewidth=1.0, zorder=5)
    ax.add_patch(shape)
    words = {"ha": "center", "va": "center", "fontsize": SMALL, "fontweight": "bold"}
    ax.text(x, y - 0.01, text, color="white", zorder=6, **words)


def _arrow(ax: Axes, start: Sequence[float], end: Sequence[float], color: str = LINE) -> None:
    style = {"arrowstyle": "-|>", "linewidth": 1.4, "mutation_scale": 11, "color": color}
    ax.annotate("", end, start, arrowprops={"shrinkA": 0, "shrinkB": 0, **style}, zorder=3)


def _connect(ax: Axes, *boxes: Box, color: str = LINE) -> None:
    """Arrows from box to box: upright between boxes in one column, else to the right."""
    for start, end in pairwise(boxes):
        if start.x == end.x:
            up = 0.5 if end.y > start.y else -0.5
            ends = (start.x, start.y + up * start.height), (end.x, end.y - up * end.height)
        else:
            ends = (start.x + start.width / 2, start.y), (end.x - end.width / 2, end.y)
        _arrow(ax, *ends, color)


def _legend(ax: Axes, words: Mapping[str, Any], top: float, x: float = 0.0) -> float:
    """A line per key, after its mark and mechanism where it has them; returns where they end."""
    for row, (text, mark) in enumerate(words.items()):
        y = top - 0.32 * row
        if mark:
            _badge(ax, x + 0.4, y, *mark, width=0.75)
        ax.text(x + (0.9 if mark else 0.02), y, text, va="center", fontsize=SIZE)
    return y - 0.15


def _finish(fig: Figure, ax: Axes, left: float, right: float, bottom: float) -> Figure:
    """One inch of the drawing is one inch of the figure."""
    top = TOP + 0.25
    fig.set_layout_engine("none")
    fig.set_size_inches(right - left + 2 * MARGIN, top - bottom + 2 * MARGIN)
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(left - MARGIN, right + MARGIN), ylim=(bottom - MARGIN, top + MARGIN))
    ax.axis("off")
    return fig
