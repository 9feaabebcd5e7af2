"""Cards: Markdown filled from a study's records, and the same as a page; a checklist as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bs4 import BeautifulSoup

from kitslib.reporting.pages.offline import ENGINE, asset, require_offline
from kitslib.reporting.pages.page import to_markup
from kitslib.reporting.pages.words import duration, number


def filled(template: str, **values: Any) -> str:
    """A card's Markdown: one of this package's templates with the values put in."""
    words = ENGINE.overlay(autoescape=False)
    return words.get_template(template).render(number=number, duration=duration, **values)


def text_html(markdown: str, *, synthetic: bool, untrained: str = "") -> str:
    """Markdown as a page of the study, named by its first heading; its front matter is left out."""
    text = markdown.removeprefix("---\n").partition("\n---\n")[2] or markdown
    title = next(line for line in text.splitlines() if line.startswith("# ")).removeprefix("# ")
    body = BeautifulSoup(to_markup(text.replace(f"# {title}", "", 1)), "html.parser")
    for table in body.find_all("table"):
        table.wrap(body.new_tag("div", attrs={"class": "scroll"}))
    page, shown = ENGINE.get_template("text.html.j2"), {"title": title, "body": str(body)}
    shown |= {"synthetic": synthetic, "untrained": untrained}
    html = page.render(css=asset("page.css"), js=asset("page.js"), **shown)
    require_offline(html, title)
    return html


def checklist_html(
    sections: Mapping[str, Sequence[Mapping[str, Any]]], tally: Mapping[str, str], *,
    synthetic: bool, untrained: str = "",
) -> str:  # fmt: skip
    """The CLAIM 2024 checklist as a page of the study.

    `sections` maps a heading to its items: `number`, `asks`, `state`, `says`, and `href` and
    `title` of where that is shown ("" for nowhere). `tally` says of each state how many have it.
    """
    shown = {"sections": sections, "tally": tally, "synthetic": synthetic, "untrained": untrained}
    page = ENGINE.get_template("claim.html.j2")
    html = page.render(css=asset("page.css"), js=asset("page.js"), **shown)
    require_offline(html, "claim.html")
    return html
