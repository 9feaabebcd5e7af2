"""What a notebook leaves in its outputs for its page: its provenance and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from kitslib.reporting.pages.words import interval, number, plain, setting

PROVENANCE_MIME = "application/vnd.kitslib.provenance+json"
ANSWER_MIME = "application/vnd.kitslib.answer+json"
NUMBER_KEYS = {"label", "value", "ci", "n", "digits", "about", "reason"}


class Output:
    """A dictionary that a cell displays: its own MIME type for the page, HTML for JupyterLab."""

    def __init__(self, mime: str, content: dict[str, Any], html: str, text: str) -> None:
        self.mime, self.content, self.html, self.text = mime, content, html, text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {self.mime: self.content, "text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def provenance_output(entries: Mapping[str, Any]) -> Output:
    """Where a notebook's results come from, for its page's header band; end a cell with it.

    Known keys, all optional: title, parameters (mapping), date (ISO 8601), duration_s, commit,
    data and synthetic (bool, puts the banner on the page). Every other key becomes a row of the
    page's last table. Raises ValueError when synthetic is no bool or parameters no mapping.
    """
    content = plain(entries)
    synthetic, parameters = content.get("synthetic", False), content.get("parameters", {})
    if not isinstance(synthetic, bool):
        raise ValueError(f"provenance: synthetic must be True or False, got {synthetic!r}")
    if not isinstance(parameters, dict):
        kind = type(entries["parameters"]).__name__
        raise ValueError(f"provenance: parameters must be a mapping, got {kind}")
    left, html, text = "style='text-align:left'", "", []
    for key, value in content.items():
        words = setting(value)
        html += f"<tr><th {left}>{escape(key)}</th><td {left}>{escape(words)}</td></tr>"
        text.append(f"{key}: {words}")
    return Output(PROVENANCE_MIME, content, f"<table>{html}</table>", "\n".join(text))


def answer_output(question: str, answer: str, numbers: Sequence[Mapping[str, Any]] = ()) -> Output:
    """A notebook's question and computed answer, shown at its page's top; end a cell with it.

    The answer is Markdown. A number has label, value (a number, text, or None), and where they
    exist ci (two bounds), n, digits, about (what it means) and reason (why there is no value).
    Raises ValueError when a number has no label or an unknown key.
    """
    items = plain(numbers)
    for item in items:
        if not item.get("label") or not set(item) <= NUMBER_KEYS:
            known = sorted(NUMBER_KEYS)
            raise ValueError(
                f"answer: a number needs a label and may have {known}, got {sorted(item)}"
            )
    lines = [_line(item) for item in items]
    html = f"<p><b>{escape(question)}</b></p><p>{escape(answer)}</p>"
    if lines:
        html += "<ul><li>" + "</li><li>".join(map(escape, lines)) + "</li></ul>"
    content = {"question": question, "answer": answer, "numbers": items}
    return Output(ANSWER_MIME, content, html, "\n".join([question, answer, *lines]))


def _line(item: Mapping[str, Any]) -> str:
    digits = item.get("digits")
    shown = number(item.get("value"), digits) or f"– ({item.get('reason') or 'not available'})"
    extra = [interval(item.get("ci"), digits)]
    if item.get("n") is not None:
        extra.append(f"n = {item['n']}")
    words = ", ".join(filter(None, extra))
    return f"{item['label']}: {shown}" + (f" ({words})" if words else "")
