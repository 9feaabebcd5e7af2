"""An executed notebook as one HTML file that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
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

from kitslib.reporting.pages.offline import TEMPLATES, asset, require_offline
from kitslib.reporting.pages.outputs import ANSWER_MIME, PROVENANCE_MIME, number_box
from kitslib.reporting.pages.words import duration, moment, setting, titled

CHIPS = 14
MANY = 8  # columns, from which a table is set closer
_WIDGET = "application/vnd.jupyter.widget-view+json"
_NO_WIDGET = "<p class='reason'>A live control, shown in JupyterLab only.</p>"
_VISIBLE_TAGS = {"parameters", "injected-parameters"}
_NUMERIC = re.compile(r"[−+-]?[\d.,]+(e[+-]?\d+)?\s?%?|–|NaN|None|")
_RANGE = re.compile(r"–|\S+ to \S+|\S+ \[\S+ \S+\] n = \d+")  # alone or after its mean
_LONG = 24  # letters in a cell of words from which its column is kept wide
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ReportError(ValueError):
    """A notebook cannot become a page."""


def to_html(
    notebook: Path, record: Mapping[str, Any] | None = None, links: Mapping[str, str] | None = None
) -> str:
    """An executed notebook, finished or failed, as one offline page with its answer on top.

    `record` is what the page's last table says of where its numbers are kept: `record` (its name),
    `run`, `seed`, `code`, `cases`; `links` maps the name of an arm to its page: rows of tables that
    are named so lead there. Raises ReportError when the notebook cannot be read and
    RemoteRequestError, naming it, when an output would load something from outside the page.
    """
    nb = _read(notebook)
    provenance, answer = _lift_outputs(nb)
    title = _lift_title(nb) or titled(notebook.stem)
    context = _page_context(nb, provenance | _kept(record), answer, title)
    for index, cell in enumerate(nb.cells):
        cell.metadata["study"] = _cell_note(cell, index)
    exporter = _Exporter(
        template_name="study", extra_template_basedirs=[str(TEMPLATES)],
        preprocessors=["nbconvert.preprocessors.CoalesceStreamsPreprocessor"],
        filters={"latex2math": _latex_output},
    )  # fmt: skip
    body, _ = exporter.from_notebook_node(nb, resources={"study": context})
    text = _finish(body, links or {})
    require_offline(text, notebook.name)
    return text


def _read(notebook: Path) -> NotebookNode:
    try:
        nb = nbformat.read(notebook, as_version=4)
    except Exception as error:
        expected = "expected an executed notebook of format 4"
        raise ReportError(f"{notebook}: {expected}, got {error}; run it first") from error
    nb.metadata.pop("widgets", None)
    tag = "papermill-error-cell-tag"
    nb.cells = [cell for cell in nb.cells if tag not in cell.metadata.get("tags", [])]
    return nb


def _lift_outputs(nb: NotebookNode) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take the provenance (later ones complete it) and the last answer out of the cells."""
    provenance, answer = {}, {}
    for cell in nb.cells:
        for output in list(cell.get("outputs", [])):
            data = output.get("data", {})
            provenance |= data.get(PROVENANCE_MIME, {})
            answer = data.get(ANSWER_MIME, answer)
            if PROVENANCE_MIME in data or ANSWER_MIME in data:
                cell.outputs.remove(output)
            elif _WIDGET in data:
                output.data = {"text/html": _NO_WIDGET}
    return provenance, answer


def _lift_title(nb: NotebookNode) -> str | None:
    """Take the notebook's first level-1 heading out of its text: the header band shows it."""
    for cell in nb.cells:
        match = re.search(r"^# +(.+?)\s*#*$", cell.source, re.MULTILINE)
        if cell.cell_type != "markdown" or match is None:
            continue
        before, after = cell.source[: match.start()], cell.source[match.end() :]
        if before.count("```") % 2:
            continue
        cell.source = (before + after).strip()
        if not cell.source:
            nb.cells.remove(cell)
        return re.sub(r"[*_`]", "", match[1])
    return None


def _page_context(
    nb: NotebookNode, provenance: dict[str, Any], answer: dict[str, Any], title: str
) -> dict[str, Any]:
    """What the page's template shows besides the cells."""
    found, papermill = dict(provenance), nb.metadata.get("papermill", {})
    ended = papermill.get("end_time") or papermill.get("start_time")
    facts = {
        "Date": moment(found.pop("date", ended)),
        "Duration": duration(found.pop("duration_s", papermill.get("duration"))),
        "Commit": found.pop("commit", None),
        "Data": found.pop("data", None),
    }
    parameters = found.pop("parameters", papermill.get("parameters", {})).items()
    chips = [(name, setting(value)) for name, value in parameters if value not in (None, "")]
    details = [(f"Parameter {name}", text) for name, text in chips[CHIPS:]]
    code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
    return {
        "title": str(found.pop("title", title)), "css": asset("page.css"), "js": asset("page.js"),
        "synthetic": found.get("synthetic") is True, "untrained": found.pop("untrained", ""),
        "facts": [(name, setting(value)) for name, value in facts.items() if value],
        "chips": chips[:CHIPS],
        "details": [(titled(key), setting(value)) for key, value in found.items()] + details,
        "failure": _failure(nb), "answer": _answer(answer),
        "unrun": sum(cell.get("execution_count") is None for cell in code),
    }  # fmt: skip


def _kept(record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where a page's numbers are kept, as rows of its last table."""
    if not record:
        return {}
    kept = {"record": f"work/records/{record['record']}.json", "code key": record.get("code")}
    if record.get("run"):
        kept["run folder"] = f"work/runs/{record['run']}, seed {record['seed']}"
    cases = [row["case"] for row in record.get("rows", []) if "case" in row]
    if cases:
        kept["cases scored"] = f"{len(cases)}: {', '.join(cases)}"
    return kept


def _failure(nb: NotebookNode) -> dict[str, str] | None:
    """The first error among the outputs, and where its cell stands."""
    for index, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                first = _ANSI.sub("", output.evalue).strip().split("\n")[0]
                return {"text": f"{output.ename}: {first}"[:300], "anchor": f"cell-{index + 1}"}
    return None


def to_markup(markdown: str) -> str:
    """Markdown as HTML, formulas drawn, HTML in it shown as it is written."""
    return MarkdownWithMath(renderer=_Renderer(escape=True)).render(markdown)


def _answer(answer: dict[str, Any]) -> dict[str, Any] | None:
    if not answer:
        return None
    html = to_markup(answer["answer"])
    numbers = [number_box(item) for item in answer["numbers"]]
    return {"question": answer["question"], "html": html, "numbers": numbers}


def _cell_note(cell: NotebookNode, index: int) -> dict[str, Any]:
    """A cell's anchor, and the line that stands for its code while that is folded."""
    tags = set(cell.metadata.get("tags", []))
    return {
        "anchor": f"cell-{index + 1}",
        "visible": bool(tags & _VISIBLE_TAGS),
        "failed": any(output.output_type == "error" for output in cell.get("outputs", [])),
        "label": _code_label(cell, tags) if cell.cell_type == "code" else "",
    }


def _code_label(cell: NotebookNode, tags: set[str]) -> str:
    if "injected-parameters" in tags:
        return "Parameters of this run"
    if "parameters" in tags:
        return "Parameters and their defaults"
    first, *rest = cell.source.strip().split("\n")
    name = "Code: " + first.lstrip("# ").rstrip(". ") if first.startswith("# ") else "Code"
    parts = [name, f"{1 + len(rest)} lines" if rest else "1 line"]
    spent = duration(cell.metadata.get("papermill", {}).get("duration"))
    if cell.get("execution_count") is None:
        parts.append("not run")
    elif spent and not spent.startswith("0."):
        parts.append(spent)
    return " · ".join(parts)


class _Renderer(IPythonRenderer):
    """Markdown whose formulas become MathML."""

    def block_math(self, body: str) -> str:
        return _math(body, "block")

    def inline_math(self, body: str) -> str:
        return _math(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        if name.rstrip("*") not in ("equation", "displaymath"):
            body = f"\\begin{{{name}}}{body}\\end{{{name}}}"
        return _math(body, "block")


def _math(latex: str, display: str) -> str:
    """LaTeX as MathML, or as code where the converter does not know a command."""
    try:
        formula = latex_to_mathml(latex.strip(), display=display)
    except Exception:
        return f"<code>{escape(latex.strip())}</code>"
    return f'<span class="{"formula" if display == "block" else "in-line"}">{formula}</span>'


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


def _finish(html: str, links: Mapping[str, str]) -> str:
    """Headings in order and in a table of contents, tables that scroll alone, few tab stops."""
    soup = BeautifulSoup(html, "html.parser")
    _order_headings(soup)
    for table in soup.find_all("table"):
        del table["border"]
        if "scroll" not in table.parent.get("class", []):
            table.wrap(soup.new_tag("div", attrs={"class": "scroll"}))
    for box in soup.select("div.scroll, main pre"):
        box["tabindex"] = "0"
    for box in soup.select(".jp-OutputArea-output[tabindex]"):
        del box["tabindex"]
    for style in soup.select("main style[scoped]"):  # what pandas writes beside each of its tables
        style.decompose()
    for table in soup.select("table.dataframe"):
        _name_index_in_one_row(table)
        _drop_blank_index(table)
        _align_words(table)
        if len(table.tr.find_all("th")) >= MANY:
            table["class"] = [*table["class"], "many"]
    for cell in soup.select("table.dataframe tbody th"):
        if name := links.get(cell.get_text(strip=True)):
            cell.string.wrap(soup.new_tag("a", href=name))
    return str(soup)


def _name_index_in_one_row(table: Tag) -> None:
    """Put the index's name, which pandas gives a row of its own, before the columns' names."""
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


def _drop_blank_index(table: Tag) -> None:
    """Leave out the first column where it says nothing, as that of rows without a name."""
    first = [row.find(["th", "td"]) for row in table.find_all("tr")]
    if first and not any(cell is None or cell.get_text(strip=True) for cell in first):
        for cell in first:
            cell.decompose()


def _align_words(table: Tag) -> None:
    """Mark columns of words, which read from the left, and of intervals, kept in one line."""
    head = table.select("thead > tr:last-child > th")
    body = [row.find_all(["th", "td"]) for row in table.select("tbody > tr")]
    for back in range(1, len(head) + 1):  # from the right: cells on the left may span rows
        column = [cells[-back] for cells in body if len(cells) >= back]
        texts = [cell.get_text(strip=True) for cell in column]
        if all(map(_NUMERIC.fullmatch, texts)):
            continue
        kind = ["words"]
        if all(map(_RANGE.fullmatch, texts)):
            kind.append("whole")
        elif max(map(len, texts)) > _LONG:
            kind.append("long")
        for cell in (head[-back], *column):
            cell["class"] = [*cell.get("class", []), *kind]


def _order_headings(soup: BeautifulSoup) -> None:
    """One h1 (the band's), no level left out, anchors, and two levels of them in the contents."""
    level, used, contents = 1, {str(tag["id"]) for tag in soup.select("[id]")}, soup.new_tag("ul")
    for heading in soup.select_one("main").find_all(re.compile("^h[1-6]$")):
        level = min(max(int(heading.name[1]), 2), level + 1)
        heading.name = f"h{level}"
        if not heading.get("id"):
            anchor = name = heading.get_text().strip().replace(" ", "-") or "section"
            count = 1
            while anchor in used:
                count += 1
                anchor = f"{name}-{count}"
            used.add(anchor)
            heading["id"] = anchor
        if level > 3:
            continue
        place, text = contents, heading.get_text().strip()
        if level == 3:
            above = contents.contents[-1]
            place = above.ul or above.append(soup.new_tag("ul"))
        item = place.append(soup.new_tag("li"))
        item.append(soup.new_tag("a", href=f"#{heading['id']}", string=text))
    if contents.contents:
        soup.select_one(".toc-body").append(contents)
    else:
        soup.select_one(".toc").decompose()
