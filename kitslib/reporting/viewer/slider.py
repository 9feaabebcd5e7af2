"""Pictures behind a slider, as HTML that works in JupyterLab and on the offline page."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from PIL import Image

_PLACES = ("left:6px;top:48%", "right:6px;top:48%", "left:48.5%;top:6px", "left:48.5%;bottom:6px")


class ViewerError(ValueError):
    """A viewer was asked for something that it cannot show."""


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Pictures behind one slider, as HTML that needs nothing else.

    `frames` maps a picture set (an HU window) to base64 JPEGs, `layers` an overlay to base64 PNGs;
    all have the length of `words`, the text beside the slider. `size` is (width, height) in CSS
    pixels; `marks` stand at the left, right, top and bottom.
    """

    title: str
    alt: str
    caption: str
    frames: Mapping[str, Sequence[str]]
    layers: Mapping[str, Sequence[str]]
    words: Sequence[str]
    start: int
    size: tuple[int, int]
    marks: Sequence[str]
    legend: Sequence[tuple[str, str]]
    apart: bool = False  # the pictures alone, then each overlay on its own, beside each other

    @property
    def id(self) -> str:
        """The same for the same content and title, on every machine."""
        digest = hashlib.sha256(self.title.encode() + b"\0")
        for name, pictures in [*self.frames.items(), *self.layers.items()]:
            digest.update(name.encode() + "".join(pictures).encode())
        return f"viewer-{digest.hexdigest()[:12]}"

    def _repr_html_(self) -> str:
        data = {"frames": self.frames, "layers": self.layers, "words": list(self.words)}
        text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
        script = _asset("slider.js").replace("VIEWER_ID", self.id).replace("VIEWER_DATA", text)
        template = Template(_asset("slider.html.j2"), autoescape=True)
        columns = columns_of(1 + len(self.layers))
        shown = {"css": _asset("slider.css"), "script": script, "places": _PLACES}
        return template.render(viewer=self, columns=columns, **shown)


def columns_of(panels: int) -> int:
    """How many panels stand beside each other at most: four are two rows of two."""
    return 2 if panels == 4 else min(panels, 3)


def encoded(picture: Image.Image, format: str, **options: Any) -> str:
    """A picture as base64, with Pillow's options of that format."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
