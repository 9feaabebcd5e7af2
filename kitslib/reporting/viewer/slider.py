"""Pictures behind a slider, as HTML that works in JupyterLab and on the offline page."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

# JupyterLab would otherwise take the arrow keys for its own shortcuts
_OWN_KEYS = 'data-lm-suppress-shortcuts="true"'
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

    @property
    def id(self) -> str:
        """The same for the same content and title, on every machine."""
        digest = hashlib.sha256(self.title.encode() + b"\0")
        for name, pictures in [*self.frames.items(), *self.layers.items()]:
            digest.update(name.encode() + "".join(pictures).encode())
        return f"viewer-{digest.hexdigest()[:12]}"

    def _repr_html_(self) -> str:
        parts = f"<style>{_asset('slider.css')}</style>{self._pictures()}{self._controls()}"
        style = f"width:{self.size[0]}px"
        return (
            f'<figure class="kits-viewer" id="{self.id}" style="{style}">{parts}'
            f"{self._caption()}{self._script()}</figure>"
        )

    def _pictures(self) -> str:
        width, height = self.size
        first = next(iter(self.frames.values()))[self.start]
        source = f"data:image/jpeg;base64,{first}"
        html = f'<img class="frame" alt="{escape(self.alt)}" src="{source}">'
        for name, pictures in self.layers.items():
            source = f"data:image/png;base64,{pictures[self.start]}"
            html += f'<img class="layer" data-name="{escape(name)}" alt="" src="{source}">'
        for mark, place in zip(self.marks, _PLACES, strict=False):
            html += f'<span class="mark" style="{place}">{mark}</span>'
        return f'<div class="pictures" style="aspect-ratio:{width}/{height}">{html}</div>'

    def _controls(self) -> str:
        html = (
            f'<input {_OWN_KEYS} type="range" min="0" max="{len(self.words) - 1}" step="1" '
            f'value="{self.start}" aria-label="{escape(self.title)}">'
            f"<output>{escape(self.words[self.start])}</output>"
        )
        if len(self.frames) > 1:
            choices = ""
            for name in map(escape, self.frames):
                choices += f'<option value="{name}">{name}</option>'
            html += f"<label>HU window <select {_OWN_KEYS}>{choices}</select></label>"
        for name in map(escape, self.layers):
            box = f'<input {_OWN_KEYS} type="checkbox" name="{name}" checked>'
            html += f"<label>{box} {name}</label>"
        return f'<div class="controls">{html}</div>'

    def _caption(self) -> str:
        html = escape(self.caption)
        for word, color in self.legend:
            swatch = f'<span class="swatch" style="background:{color}"></span>'
            html += f' <span class="key">{swatch}{escape(word)}</span>'
        return f"<figcaption>{html}</figcaption>"

    def _script(self) -> str:
        data = {"frames": self.frames, "layers": self.layers, "words": list(self.words)}
        text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
        script = _asset("slider.js").replace("VIEWER_ID", self.id).replace("VIEWER_DATA", text)
        return f"<script>{script}</script>"


def encoded(picture: Image.Image, format: str, **options: Any) -> str:
    """A picture as base64, with Pillow's options of that format."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
