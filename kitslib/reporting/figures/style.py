"""One palette and one style, and a figure as HTML with caption and alternative text."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import HTML, display
from matplotlib.figure import Figure
from PIL import Image

PALETTE = {
    "kidney": "#1280CC",
    "tumor": "#D9480F",
    "cyst": "#009E73",
    "truth": "#3B4252",
    "prediction": "#9C36A8",
    "muted": "#7A8494",
}
NAMES = {1: "kidney", 2: "tumor", 3: "cyst"}
WORDS = {1: "kidney", 2: "tumour", 3: "cyst"}
CYCLE = ("#1280CC", "#D9480F", "#009E73", "#9C36A8", "#B08400", "#3B4252", "#C2478A", "#5B8C2A")
DPI = 150
CSS_DPI = 96
WIDTH = 8.8  # inches: a figure that fills a page's column


class FigureError(ValueError):
    """A figure was asked for that would mislead or cannot be drawn."""


def use_style() -> None:
    """Set matplotlib's defaults for every figure: white ground, thin axes, our colour cycle."""
    mpl.rcParams.update(
        {
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.facecolor": "white",
            "axes.edgecolor": "#8A93A1",
            "axes.labelcolor": "#1C2430",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": mpl.cycler(color=CYCLE),
            "grid.color": "#E3E7ED",
            "grid.linewidth": 0.8,
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.linewidth": 1.8,
            "xtick.color": "#566072",
            "ytick.color": "#566072",
        }
    )


def figure_html(
    fig: Figure, *, caption: str, alt: str, format: Literal["jpeg", "png"] = "jpeg"
) -> str:
    """A figure as an HTML <figure> with its picture inside, its caption and its alternative text.

    JPEG suits CT panels, PNG suits line art. Raises FigureError when caption or alt is empty.
    """
    for name, text in (("caption", caption), ("alt", alt)):
        if not text.strip():
            raise FigureError(
                f"figure: expected a {name}, got an empty text; say what the reader sees"
            )
    drawn, out = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.04)
    picture = Image.open(drawn).convert("RGB")
    if format == "jpeg":
        picture.save(out, "JPEG", quality=86, optimize=True, subsampling=0)
    else:
        few = picture.quantize(255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(out, "PNG", optimize=True)
    width, height = (round(side * CSS_DPI / DPI) for side in picture.size)
    source = f"data:image/{format};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
    image = f'<img src="{source}" width="{width}" height="{height}" alt="{escape(alt)}"'
    return (
        f'<figure class="kits-figure">{image} style="max-width:100%;height:auto">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def show(fig: Figure, caption: str, alt: str, format: Literal["jpeg", "png"] = "jpeg") -> None:
    """Display a figure with caption and alternative text, and close it."""
    display(HTML(figure_html(fig, caption=caption, alt=alt, format=format)))
    plt.close(fig)
