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
from matplotlib.text import Text
from PIL import Image

PALETTE = {
    "kidney": "#1280CC", "tumor": "#D9480F", "cyst": "#009E73",
    "truth": "#3B4252", "prediction": "#9C36A8", "muted": "#7A8494",
}  # fmt: skip
NAMES = {1: "kidney", 2: "tumor", 3: "cyst"}
WORDS = {1: "kidney", 2: "tumour", 3: "cyst"}
CYCLE = ("#1280CC", "#D9480F", "#009E73", "#9C36A8", "#B08400", "#3B4252", "#C2478A", "#5B8C2A")
DPI = 150
CSS_DPI = 96
WIDTH = 8.8  # inches: a figure that fills a page's column
LEGIBLE = 11  # CSS pixels: the smallest text of a figure as it is shown


class FigureError(ValueError):
    """A figure was asked for that would mislead or cannot be drawn."""


def use_style() -> None:
    """Set matplotlib's defaults for every figure: white ground, thin axes, our colour cycle."""
    mpl.rc("figure", **{"facecolor": "white", "constrained_layout.use": True})
    mpl.rc("axes", facecolor="white", edgecolor="#8A93A1", labelcolor="#1C2430", labelsize=10)
    mpl.rc("axes", titlesize=11, titleweight="bold", titlelocation="left")
    mpl.rc("axes", grid=True, axisbelow=True, prop_cycle=mpl.cycler(color=CYCLE))
    mpl.rc("axes.spines", top=False, right=False)
    mpl.rc("grid", color="#E3E7ED", linewidth=0.8)
    mpl.rc("font", family="DejaVu Sans", size=9.5)
    mpl.rc("legend", frameon=False, fontsize=9)
    mpl.rc("lines", linewidth=1.8)
    mpl.rc(("xtick", "ytick"), color="#566072")


def figure_html(
    fig: Figure, *, caption: str, alt: str, format: Literal["jpeg", "png"] = "jpeg"
) -> str:
    """A figure as an HTML <figure> with its picture inside, its caption and its alternative text.

    JPEG suits CT panels, PNG suits line art. Where the window is narrow it shrinks no further than
    its smallest text can be read, and scrolls. Raises FigureError when caption or alt is empty.
    """
    for name, text in (("caption", caption), ("alt", alt)):
        if not text.strip():
            raise FigureError(f"figure: expected a {name}, got none; say what the reader sees")
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
    least = round(width * LEGIBLE / smallest_text(fig)) if smallest_text(fig) else 0
    image += f' style="max-width:100%;min-width:{least}px;height:auto">'
    return (
        f'<figure class="kits-figure"><div class="scroll figure" style="overflow-x:auto">{image}'
        f"</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def smallest_text(fig: Figure) -> float:
    """Return the height of a figure's smallest text in CSS pixels at its natural size; 0: none."""
    texts = [text for text in fig.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return min((text.get_fontsize() for text in texts), default=0.0) * CSS_DPI / 72


def show(fig: Figure, caption: str, alt: str, format: Literal["jpeg", "png"] = "jpeg") -> None:
    """Display a figure with caption and alternative text, and close it."""
    display(HTML(figure_html(fig, caption=caption, alt=alt, format=format)))
    plt.close(fig)
