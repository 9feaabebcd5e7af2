"""What keeps a page whole: styles and scripts put inside it, and no request that leaves it."""

from __future__ import annotations

import re
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"

_SOURCES = re.compile(
    "src|srcset|imagesrcset|srcdoc|poster|data|longdesc|ping|action|formaction|background"
    "|href|xlink:href"
)
_LOCAL = re.compile(r"\s*(#|data:|blob:|about:blank|$)", re.IGNORECASE)
_STYLE_URL = re.compile(
    r"(?:url\(\s*|@import\s+(?:url\()?\s*)['\"]?(?P<target>[^'\");]*)", re.IGNORECASE
)
_SCRIPT_REQUEST = re.compile(
    r"\b(?:fetch|importScripts|XMLHttpRequest|WebSocket|EventSource|sendBeacon|requirejs)\b\s*\("
    r"|\bimport\s*\(?\s*['\"]|\bimport\s*\(|(?:https?|wss?)://(?!www\.w3\.org/)[^\s'\"`<>)]+"
)
_CODE_TYPES = ("", "module", "text/javascript", "application/javascript")


class RemoteRequestError(ValueError):
    """A page would ask something from outside itself."""


def remote_requests(html: str) -> list[str]:
    """Name every script, style, font, image, frame or fetch in a page that is not part of it.

    Links that a reader follows by hand (``<a href>``) are not requests.
    """
    tags = BeautifulSoup(html, "html.parser").find_all(True)
    return [request for tag in tags for request in _requests_of(tag)]


def _requests_of(tag: Tag) -> list[str]:
    """What one element would load: by its attributes, its style, its script."""
    found, scripts, styles = [], [], [tag.get("style", "")]
    for name, value in tag.attrs.items():
        if _SOURCES.fullmatch(name) and not (tag.name == "a" and name == "href"):
            # an image set may hold data URIs, which have a comma of their own
            parts = re.split(r"\s,|,\s", value) if name.endswith("srcset") else [value]
            if not all(map(_LOCAL.match, parts)):
                found.append(f'<{tag.name} {name}="{value[:120]}">')
        elif name.startswith("on"):
            scripts.append(value)
    content = tag.get("content", "")
    if tag.get("http-equiv", "").lower() == "refresh" and not content.isdigit():  # of another page
        found.append(f'<meta http-equiv="refresh" content="{content[:120]}">')
    if tag.name == "style":
        styles.append(tag.string or "")
    if tag.name == "script" and tag.get("type", "").lower() in _CODE_TYPES:
        scripts.append(tag.string or "")
    for text in styles:
        for match in _STYLE_URL.finditer(text):
            if not _LOCAL.match(match["target"]):
                found.append(f"<{tag.name} style>: {match[0][:120]}")
    for text in scripts:
        found += [f"<{tag.name} script>: {one[0][:120]}" for one in _SCRIPT_REQUEST.finditer(text)]
    return found


def require_offline(html: str, name: str) -> None:
    """Raise RemoteRequestError, with the page's name, where it would load what is not in it."""
    found = remote_requests(html)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise RemoteRequestError(
            f"{name}: expected a page that loads nothing, found {'; '.join(found[:3])}{more}; "
            "put the content into the page (figures.show, data URIs) or drop the output"
        )


def asset(name: str) -> str:
    """The text of one of this package's style sheets or scripts."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


ENGINE = Environment(  # of pages that do not come from a notebook; a template is compiled once
    loader=FileSystemLoader([TEMPLATES, TEMPLATES / "study"]), autoescape=True,
    undefined=StrictUndefined, trim_blocks=True,
)  # fmt: skip
