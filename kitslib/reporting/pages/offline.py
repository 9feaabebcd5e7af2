"""What makes a page safe to keep: no request leaves it, and it is never half written."""

from __future__ import annotations

import os
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"

_SOURCES = {
    "script": ("src", "href", "xlink:href"),
    "img": ("src", "srcset", "longdesc"),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "track": ("src",),
    "iframe": ("src", "srcdoc"),
    "frame": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src", "formaction"),
    "button": ("formaction",),
    "form": ("action",),
    "link": ("href", "imagesrcset"),
    "base": ("href",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
    "feimage": ("href", "xlink:href"),
    "a": ("ping",),
    "body": ("background",),
    "table": ("background",),
    "td": ("background",),
}
_LOCAL = re.compile(r"\s*(#|data:|blob:|about:blank|$)", re.IGNORECASE)
_STYLE_URL = re.compile(
    r"url\(\s*['\"]?([^'\")]*)|@import\s+(?:url\()?\s*['\"]?([^'\");]*)", re.IGNORECASE
)
_SCRIPT_REQUEST = re.compile(
    r"\b(?:fetch|importScripts|XMLHttpRequest|WebSocket|EventSource|sendBeacon|requirejs)\b\s*\(|\bimport\s*\(?\s*['\"]"
    r"|\bimport\s*\(|(?:https?|wss?)://(?!www\.w3\.org/)[^\s'\"`<>)]+"
)
_CODE_TYPES = ("", "module", "text/javascript", "application/javascript")


class RemoteRequestError(ValueError):
    """A page would ask something from outside itself."""


class _RequestFinder(HTMLParser):
    """Collects every place where a browser would load something that is not inside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        for name in _SOURCES.get(tag, ()):
            value = given.get(name, "")
            local = _local_srcset(value) if name.endswith("srcset") else _LOCAL.match(value)
            if not local:
                self.found.append(f'<{tag} {name}="{value[:120]}">')
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.found.append(
                f'<meta http-equiv="refresh" content="{given.get("content", "")[:120]}">'
            )
        self._style(given.get("style", ""), f"<{tag} style>")
        for name, value in given.items():
            if name.startswith("on"):
                self._script(value, f"<{tag} {name}>")
        code = tag == "script" and given.get("type", "").lower() in _CODE_TYPES
        self._inside = "script" if code else "style" if tag == "style" else None

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self._style(data, "<style>")
        elif self._inside == "script":
            self._script(data, "<script>")

    def _style(self, text: str, place: str) -> None:
        for match in _STYLE_URL.finditer(text):
            target = match[1] if match[1] is not None else match[2]
            if not _LOCAL.match(target):
                self.found.append(f"{place}: {match[0][:120]}")

    def _script(self, text: str, place: str) -> None:
        self.found += [f"{place}: {match[0][:120]}" for match in _SCRIPT_REQUEST.finditer(text)]


def _local_srcset(value: str) -> bool:
    """Whether every candidate of an image set is a data URI (which has a comma of its own)."""
    return all(_LOCAL.match(part) for part in re.split(r"\s,|,\s", value))


def remote_requests(html: str) -> list[str]:
    """Name every script, style, font, image, frame or fetch in a page that is not part of it.

    Links that a reader follows by hand (``<a href>``) are not requests.
    """
    finder = _RequestFinder()
    finder.feed(html)
    finder.close()
    return finder.found


def require_offline(html: str, name: str) -> None:
    """Refuse a page that would load anything from outside itself.

    Raises RemoteRequestError with the page's name and what it would load.
    """
    found = remote_requests(html)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise RemoteRequestError(
            f"{name}: expected a page that loads nothing, found {'; '.join(found[:3])}{more}; "
            "put the content into the page (figures.show, data URIs) or drop the output"
        )


def write_text(path: Path, text: str) -> Path:
    """Write a text file in one step: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return path


def asset(name: str) -> str:
    """The text of one of this package's style sheets or scripts."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def environment() -> Environment:
    """The template engine for pages that do not come from a notebook."""
    loader = FileSystemLoader([TEMPLATES, TEMPLATES / "study"])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
