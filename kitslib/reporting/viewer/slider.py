"""Pictures behind a slider, as HTML that works in JupyterLab and in the offline page."""

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

# JupyterLab would otherwise take the arrow keys for its own shortcuts; it looks at the focused element itself
_OWN_KEYS = 'data-lm-suppress-shortcuts="true"'


class ViewerError(ValueError):
    """A viewer was asked for something that it cannot show."""


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Pictures behind one slider, as HTML that needs nothing else.

    ``frames`` maps a picture set (a window) to base64 JPEGs, ``layers`` an overlay to base64 PNGs; all have
    the length of ``words``, the text beside the slider. ``size`` is (width, height) in CSS pixels.
    """

    title: str
    alt: str
    caption: str
    frames: Mapping[str, Sequence[str]]
    layers: Mapping[str, Sequence[str]]
    words: Sequence[str]
    start: int
    size: tuple[int, int]
    marks: tuple[str, str, str, str] | None
    legend: Sequence[tuple[str, str]]

    @property
    def id(self) -> str:
        """The same for the same content and title, on every machine."""
        digest = hashlib.sha256(self.title.encode() + b"\0")
        for name, pictures in [*self.frames.items(), *self.layers.items()]:
            digest.update(name.encode() + "".join(pictures).encode())
        return f"viewer-{digest.hexdigest()[:12]}"

    def _repr_html_(self) -> str:
        return (
            f'<figure class="kits-viewer" id="{self.id}" style="width:{self.size[0]}px">'
            + "".join(
                (
                    f"<style>{_asset('slider.css')}</style>",
                    self._stage(),
                    self._controls(),
                    self._caption(),
                    self._script(),
                    "</figure>",
                )
            )
        )

    def _stage(self) -> str:
        width, height = self.size
        first = next(iter(self.frames.values()))[self.start]
        parts = [
            f'<img class="frame" alt="{escape(self.alt)}" src="data:image/jpeg;base64,{first}">'
        ]
        for name, pictures in self.layers.items():
            source = f"data:image/png;base64,{pictures[self.start]}"
            parts.append(f'<img class="layer" data-name="{escape(name)}" alt="" src="{source}">')
        if self.marks is not None:
            places = (
                "left:6px;top:48%",
                "right:6px;top:48%",
                "left:48.5%;top:6px",
                "left:48.5%;bottom:6px",
            )
            for mark, place in zip(self.marks, places, strict=True):
                parts.append(f'<span class="mark" style="{place}">{mark}</span>')
        return f'<div class="stage" style="aspect-ratio:{width}/{height}">{"".join(parts)}</div>'

    def _controls(self) -> str:
        parts = [
            f'<input {_OWN_KEYS} type="range" min="0" max="{len(self.words) - 1}" step="1" value="{self.start}" '
            f'aria-label="{escape(self.title)}"><output>{escape(self.words[self.start])}</output>'
        ]
        if len(self.frames) > 1:
            choices = "".join(
                f'<option value="{escape(name)}">{escape(name)}</option>' for name in self.frames
            )
            parts.append(f"<label>window <select {_OWN_KEYS}>{choices}</select></label>")
        for name in self.layers:
            parts.append(
                f'<label><input {_OWN_KEYS} type="checkbox" name="{escape(name)}" checked> {escape(name)}</label>'
            )
        return f'<div class="controls">{"".join(parts)}</div>'

    def _caption(self) -> str:
        swatches = "".join(
            f' <span class="key"><span class="swatch" style="background:{color}"></span>{escape(word)}</span>'
            for word, color in self.legend
        )
        return f"<figcaption>{escape(self.caption)}{swatches}</figcaption>"

    def _script(self) -> str:
        data = {"frames": self.frames, "layers": self.layers, "words": list(self.words)}
        text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
        script = _asset("slider.js").replace("VIEWER_ID", self.id).replace("VIEWER_DATA", text)
        return f"<script>{script}</script>"


def encoded(picture: Image.Image, format: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
