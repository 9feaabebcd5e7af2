"""An executed notebook as one HTML file that needs nothing else."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup, Tag
from jinja2 import pass_context
from latex2mathml.converter import convert as latex_to_mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from traitlets.config import Config

from kitslib.reporting.pages.offline import TEMPLATES, asset, require_offline, write_text
from kitslib.reporting.pages.outputs import ANSWER_MIME, PROVENANCE_MIME
from kitslib.reporting.pages.words import duration, interval, moment, number, setting, titled

CHIPS = 14
_WIDGET = "application/vnd.jupyter.widget-view+json"
_VISIBLE_TAGS = {"parameters", "injected-parameters"}
_NUMERIC = re.compile(r"[−+-]?[\d.,]+(e[+-]?\d+)?\s?%?|–|NaN|None|")
_RANGE = re.compile(r"–|\S+ to \S+|\S+ \[\S+ \S+\] n = \d+")  # alone or after its mean
_LONG = 24  # letters in a cell of words from which its column is kept wide
_HEADING = re.compile(r"^h[1-6]$")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ReportError(ValueError):
    """A notebook cannot become a page."""


def to_html(notebook: Path, html: Path, *, home: str = "index.html") -> Path:
    """Write an executed notebook, finished or failed, as one offline page with its answer on top.

    ``home`` is the link back to the index page. Returns ``html``.
    Raises ReportError when the notebook cannot be read and RemoteRequestError, naming it, when an output
    would load something from outside the page; an older page is then left as it was.
    """
    nb = _read(notebook)
    lifted = _lift_records(nb)
    title = _lift_title(nb)
    context = _page_context(nb, lifted, title or titled(notebook.stem), home)
    _label_cells(nb)
    body, _ = _exporter().from_notebook_node(nb, resources={"study": context})
    text = _finish(body)
    require_offline(text, notebook.name)
    return write_text(html, text)


def _read(notebook: Path) -> NotebookNode:
    if not notebook.is_file():
        raise ReportError(
            f"{notebook}: expected an executed notebook, found no file; run it with papermill first"
        )
    try:
        nb = nbformat.read(notebook, as_version=4)
    except Exception as error:
        raise ReportError(
            f"{notebook}: expected a notebook of format 4, could not read it: {error}"
        ) from error
    nb = copy.deepcopy(nb)
    nb.metadata.pop("widgets", None)
    nb.cells = [
        cell for cell in nb.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    return nb


def _outputs(nb: NotebookNode) -> Iterator[tuple[int, NotebookNode, NotebookNode]]:
    for index, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            yield index, cell, output


def _lift_records(nb: NotebookNode) -> dict[str, dict[str, Any]]:
    """Take the provenance (later ones complete it) and the answer (the last one counts) out of the cells."""
    lifted: dict[str, dict[str, Any]] = {PROVENANCE_MIME: {}, ANSWER_MIME: {}}
    for cell in nb.cells:
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            mime = next((mime for mime in lifted if mime in data), None)
            if mime is None:
                if _WIDGET in data:
                    output.data = {
                        "text/html": "<p class='reason'>A live control, shown in JupyterLab only.</p>"
                    }
                kept.append(output)
            elif mime == PROVENANCE_MIME:
                lifted[mime].update(data[mime])
            else:
                lifted[mime] = dict(data[mime])
        if "outputs" in cell:
            cell.outputs = kept
    return lifted


def _lift_title(nb: NotebookNode) -> str | None:
    """Take the notebook's first level-1 heading out of its text, because the header band shows it."""
    for cell in nb.cells:
        if cell.cell_type != "markdown":
            continue
        match = re.search(r"^# +(.+?)\s*#*$", cell.source, re.MULTILINE)
        if match is None or cell.source[: match.start()].count("```") % 2:
            continue
        cell.source = (cell.source[: match.start()] + cell.source[match.end() :]).strip()
        if not cell.source:
            nb.cells.remove(cell)
        return re.sub(r"[*_`]", "", match[1])
    return None


def _page_context(
    nb: NotebookNode, lifted: dict[str, dict[str, Any]], title: str, home: str
) -> dict[str, Any]:
    record, answer = lifted[PROVENANCE_MIME], lifted[ANSWER_MIME]
    papermill = nb.metadata.get("papermill", {})
    parameters = record.get("parameters", papermill.get("parameters", {}))
    chips = [
        {"name": key, "text": setting(value)}
        for key, value in parameters.items()
        if value not in (None, "")
    ]
    return {
        "title": str(record.get("title") or title),
        "home": home,
        "css": asset("page.css"),
        "js": asset("page.js"),
        "synthetic": record.get("synthetic") is True,
        "facts": _facts(record, papermill),
        "chips": chips[:CHIPS],
        "details": _details(record, chips),
        "failure": _failure(nb),
        "unrun": _unrun(nb),
        "answer": _answer(answer),
    }


def _facts(record: dict[str, Any], papermill: dict[str, Any]) -> list[dict[str, str]]:
    facts = {
        "Date": moment(
            record.get("date") or papermill.get("end_time") or papermill.get("start_time")
        ),
        "Duration": duration(record.get("duration_s", papermill.get("duration"))),
        "Commit": setting(record["commit"]) if record.get("commit") else None,
        "Data": setting(record["data"]) if record.get("data") else None,
    }
    return [{"name": name, "text": text} for name, text in facts.items() if text]


def _details(record: dict[str, Any], chips: list[dict[str, str]]) -> list[dict[str, str]]:
    shown = {"title", "parameters", "date", "duration_s", "commit", "data"}
    rows = [
        {"name": titled(key), "text": setting(value)}
        for key, value in record.items()
        if key not in shown
    ]
    more = [{"name": f"Parameter {chip['name']}", "text": chip["text"]} for chip in chips[CHIPS:]]
    return rows + more


def _failure(nb: NotebookNode) -> dict[str, str] | None:
    for index, _, output in _outputs(nb):
        if output.output_type == "error":
            first = _ANSI.sub("", output.evalue).strip().split("\n")[0]
            return {"text": f"{output.ename}: {first}"[:300], "anchor": _anchor(index)}
    return None


def _unrun(nb: NotebookNode) -> int:
    code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
    return sum(cell.get("execution_count") is None for cell in code)


def _answer(answer: dict[str, Any]) -> dict[str, Any] | None:
    if not answer:
        return None
    numbers = [
        {
            "label": item["label"],
            "value": {
                "text": number(item.get("value"), item.get("digits")),
                "reason": item.get("reason") or "not available",
                "note": None,
            },
            "ci": interval(item.get("ci"), item.get("digits")),
            "n": setting(item["n"]) if item.get("n") is not None else None,
            "about": item.get("about"),
        }
        for item in answer.get("numbers") or []
    ]
    html = MarkdownWithMath(renderer=_Renderer(escape=True)).render(str(answer.get("answer") or ""))
    return {"question": answer.get("question"), "html": html, "numbers": numbers}


def _anchor(index: int) -> str:
    return f"cell-{index + 1}"


def _label_cells(nb: NotebookNode) -> None:
    """Give every cell an anchor, and code cells the line that stands for them while they are folded."""
    for index, cell in enumerate(nb.cells):
        tags = set(cell.metadata.get("tags", []))
        note = {
            "anchor": _anchor(index),
            "visible": bool(tags & _VISIBLE_TAGS),
            "failed": False,
            "label": "",
        }
        if cell.cell_type == "code":
            note["failed"] = any(output.output_type == "error" for output in cell.outputs)
            note["label"] = _code_label(cell, tags)
        cell.metadata["study"] = note


def _code_label(cell: NotebookNode, tags: set[str]) -> str:
    if "injected-parameters" in tags:
        return "Parameters of this run"
    if "parameters" in tags:
        return "Parameters and their defaults"
    lines = cell.source.strip().split("\n")
    count = f"{len(lines)} line{'' if len(lines) == 1 else 's'}"
    parts = [
        "Code: " + lines[0].lstrip("# ").rstrip(". ") if lines[0].startswith("# ") else "Code",
        count,
    ]
    if cell.get("execution_count") is None:
        parts.append("not run")
    else:
        spent = duration(cell.metadata.get("papermill", {}).get("duration"))
        parts += [spent] if spent and not spent.startswith("0.") else []
    return " · ".join(parts)


class _Renderer(IPythonRenderer):
    """Markdown whose formulas become MathML."""

    def block_math(self, body: str) -> str:
        return _math(body, "block")

    def inline_math(self, body: str) -> str:
        return _math(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        inner = (
            body
            if name.rstrip("*") in ("equation", "displaymath")
            else f"\\begin{{{name}}}{body}\\end{{{name}}}"
        )
        return _math(inner, "block")


def _math(latex: str, display: str) -> str:
    """LaTeX as MathML, or as code where the converter does not know a command."""
    try:
        formula = latex_to_mathml(latex.strip(), display=display)
        return f'<span class="formula">{formula}</span>' if display == "block" else formula
    except Exception:
        return f"<code>{escape(latex.strip())}</code>"


def _latex_output(latex: str) -> str:
    """A text/latex output (with its dollar signs) as MathML."""
    body = latex.strip().strip("$").removeprefix(r"\displaystyle")
    return _math(re.sub(r"^\\\[|\\\]$", "", body), "block")


class _Exporter(HTMLExporter):
    """nbconvert's exporter with formulas drawn at conversion time."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Renderer(escape=False, attachments=attachments, exclude_anchor_links=True)
        return MarkdownWithMath(renderer=renderer).render(source)


def _exporter() -> HTMLExporter:
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = {"remove-cell"}
    config.TagRemovePreprocessor.remove_input_tags = {"remove-input"}
    config.TagRemovePreprocessor.remove_all_outputs_tags = {"remove-output"}
    config.CoalesceStreamsPreprocessor.enabled = True
    return _Exporter(
        config=config,
        template_name="study",
        extra_template_basedirs=[str(TEMPLATES)],
        preprocessors=["nbconvert.preprocessors.CoalesceStreamsPreprocessor"],
        filters={"latex2math": _latex_output},
    )


def _finish(html: str) -> str:
    """Headings in order with a table of contents, tables that scroll inside themselves, few tab stops."""
    soup = BeautifulSoup(html, "html.parser")
    _order_headings(soup)
    for table in soup.find_all("table"):
        if "scroll" not in (table.parent.get("class") or []):
            table.wrap(soup.new_tag("div", attrs={"class": "scroll"}))
    for box in soup.select("div.scroll, main pre"):
        box["tabindex"] = "0"
    for box in soup.select(".jp-OutputArea-output[tabindex]"):
        del box["tabindex"]
    for style in soup.select("main style[scoped]"):  # what pandas writes beside each of its tables
        style.decompose()
    for table in soup.select("table[border]"):
        del table["border"]
    for table in soup.select("table.dataframe"):
        _name_index_in_one_row(table)
        _align_words(table)
    return str(soup)


def _name_index_in_one_row(table: Tag) -> None:
    """Put the index's name, to which pandas gives a row of its own, before the columns' names."""
    rows = table.select("thead > tr")
    if len(rows) != 2:
        return
    upper, lower = (row.find_all("th") for row in rows)
    named = [cell for cell in lower if cell.get_text(strip=True)]
    if len(upper) != len(lower) or any(cell.get_text(strip=True) for cell in upper[: len(named)]):
        return
    for cell, name in zip(upper, named, strict=False):
        cell.string = name.get_text()
    rows[1].decompose()


def _align_words(table: Tag) -> None:
    """Mark the columns of words, which read from the left, and of intervals, kept in one line; numbers stand right."""
    head = table.select("thead > tr:last-child > th")
    body = [row.find_all(["th", "td"]) for row in table.select("tbody > tr")]
    for back, title in enumerate(
        reversed(head), start=1
    ):  # from the right: cells on the left may span rows
        column = [cells[-back] for cells in body if len(cells) >= back]
        texts = [cell.get_text(strip=True) for cell in column]
        if all(_NUMERIC.fullmatch(text) for text in texts):
            continue
        whole = all(_RANGE.fullmatch(text) for text in texts)
        kind = "words whole" if whole else "words long" if max(map(len, texts)) > _LONG else "words"
        for cell in (title, *column):
            cell["class"] = [*cell.get("class", []), *kind.split()]


def _order_headings(soup: BeautifulSoup) -> None:
    """One h1 (the band's), no level left out, anchors, and the list of headings in the contents."""
    level, used, entries = 1, {tag["id"] for tag in soup.select("[id]")}, []
    for heading in soup.select_one("main").find_all(_HEADING):
        level = min(max(int(heading.name[1]), 2), level + 1)
        heading.name = f"h{level}"
        if not heading.get("id"):
            heading["id"] = _unused(heading.get_text().strip().replace(" ", "-"), used)
        if level <= 3:
            entries.append((level, heading))
    _write_contents(soup, entries)


def _unused(name: str, used: set[str]) -> str:
    """The name, with a number after it where the page has it already."""
    candidate, count = name or "section", 1
    while candidate in used:
        count += 1
        candidate = f"{name}-{count}"
    used.add(candidate)
    return candidate


def _write_contents(soup: BeautifulSoup, entries: list[tuple[int, Tag]]) -> None:
    body = soup.select_one(".toc-body")
    if not entries:
        soup.select_one(".toc").decompose()
        return
    top = soup.new_tag("ul")
    body.append(top)
    inner = None
    for level, heading in entries:
        item, link = soup.new_tag("li"), soup.new_tag("a", href=f"#{heading['id']}")
        link.string = heading.get_text().strip()
        item.append(link)
        if level == 2:
            top.append(item)
            inner = None
            continue
        if inner is None:
            inner = soup.new_tag("ul")
            top.find_all("li", recursive=False)[-1].append(inner)
        inner.append(item)


__all__ = ["ReportError", "to_html"]
