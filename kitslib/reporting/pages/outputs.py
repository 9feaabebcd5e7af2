"""What a notebook leaves in its outputs for its page: where it came from, and the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from kitslib.reporting.pages.words import interval, number, plain, setting

PROVENANCE_MIME = "application/vnd.kitslib.provenance+json"
ANSWER_MIME = "application/vnd.kitslib.answer+json"


class Record:
    """A dictionary for a notebook cell to display: its own MIME type for the page, HTML for JupyterLab."""

    def __init__(self, mime: str, content: dict[str, Any], html: str, text: str) -> None:
        self.mime, self.content, self.html, self.text = mime, content, html, text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {self.mime: self.content, "text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def provenance_output(record: Mapping[str, Any]) -> Record:
    """Where a notebook's results come from, for its page's header band; display it or end a cell with it.

    Known keys, all optional: title, parameters (mapping), date (ISO 8601), duration_s, commit, data and
    synthetic (bool, puts the banner on the page). Every other key becomes a row of the page's last table.
    Raises ValueError when synthetic is no bool or parameters no mapping.
    """
    content = plain(record)
    if not isinstance(content.get("synthetic", False), bool):
        raise ValueError(
            f"provenance: synthetic must be True or False, got {content['synthetic']!r}"
        )
    if not isinstance(content.get("parameters", {}), dict):
        raise ValueError(
            f"provenance: parameters must be a mapping, got {type(record['parameters']).__name__}"
        )
    left = "style='text-align:left'"
    rows = "".join(
        f"<tr><th {left}>{escape(key)}</th><td {left}>{escape(setting(value))}</td></tr>"
        for key, value in content.items()
    )
    text = "\n".join(f"{key}: {setting(value)}" for key, value in content.items())
    return Record(PROVENANCE_MIME, content, f"<table>{rows}</table>", text)


def answer_output(question: str, answer: str, numbers: Sequence[Mapping[str, Any]] = ()) -> Record:
    """A notebook's question and computed answer, lifted to its page's top; display it or end a cell with it.

    The answer is Markdown. A number has label, value (a number, text, or None), and where they exist ci (two
    bounds), n, digits, about (what it means) and reason (why there is no value).
    Raises ValueError when a number has no label or an unknown key.
    """
    items = [plain(item) for item in numbers]
    known = {"label", "value", "ci", "n", "digits", "about", "reason"}
    for item in items:
        if not item.get("label") or not set(item) <= known:
            raise ValueError(
                f"answer: a number needs a label and may have {sorted(known)}, got {sorted(item)}"
            )
    lines = [_line(item) for item in items]
    html = "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>" if lines else ""
    content = {"question": question, "answer": answer, "numbers": items}
    text = "\n".join([question, answer, *lines])
    return Record(
        ANSWER_MIME, content, f"<p><b>{escape(question)}</b></p><p>{escape(answer)}</p>{html}", text
    )


def _line(item: Mapping[str, Any]) -> str:
    shown = (
        number(item.get("value"), item.get("digits"))
        or f"– ({item.get('reason') or 'not available'})"
    )
    spread = interval(item.get("ci"), item.get("digits"))
    extra = [
        part for part in (spread, f"n = {item['n']}" if item.get("n") is not None else None) if part
    ]
    return f"{item['label']}: {shown}" + (f" ({', '.join(extra)})" if extra else "")
