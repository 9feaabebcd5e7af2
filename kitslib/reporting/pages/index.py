"""The index page of a study on one screen and one scroll, and the page that says how to redo it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from kitslib.reporting.pages import summary as told
from kitslib.reporting.pages.forest import forest_rows
from kitslib.reporting.pages.ledger import Source, ledger_rows, strip
from kitslib.reporting.pages.offline import ENGINE, asset, require_offline
from kitslib.reporting.pages.words import duration, interval, number, plain, setting

PANELS = ("The scan", "The truth", "What was found")


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of the study as the index lists it; href is relative to the index, "" for none.

    `arms` are the pages that are folded into it.
    """

    title: str
    href: str
    about: str
    arms: tuple[Page, ...] = ()


def index_html(
    summary: Mapping[str, Any], pages: Sequence[Page],
    *, data: str = "", picture: Path | None = None, progress: Any = None,
    sources: Mapping[str, Source] | None = None, rerun: str = "",
) -> str:  # fmt: skip
    """The index page of a study as HTML, every statement on it computed from the summary.

    `summary` has the keys of summary.json; a null shows as a dash with its reason. Its `real`
    (real CT: case, kidney `dice`), `real_ci`, `deviations` (setting, paper, here), `effects` (see
    `forest_rows`), `peers` (system, `says`, `dice`, `ci`, `n`), `picture` (`says`), `rules_history`
    (key, date, commit), `second` (what another study says), `training_draw`, `device` and its
    kidney's `worst` are optional. `data` says in one sentence which cases were used. `picture`
    holds three squares beside each other, scan, truth and found, of the case that the summary's
    `picture` tells of. `progress` is the Watch of a study that runs. `sources` says where the
    numbers come from: of the boxes by `kidney`, `tumor`, `cascade` and `real`, of the ledger by
    row. `rerun` is the page of `rerun_html`. Raises ValueError for a missing key, an unknown
    verdict, an absolute link.
    """
    summary, sources = told.checked(summary), sources or {}
    listed = [one for page in pages for one in (page, *page.arms)]
    for page in [*listed, *sources.values()]:
        if "://" in page.href or page.href.startswith("/"):
            words = f"the link must be relative to the index page, got {page.href!r}"
            raise ValueError(f"page {page.title!r}: {words}")
    kidney, tumor = summary["kidney"] or {}, summary["tumor"] or {}
    boxes = [box | {"source": sources.get(box["kind"])} for box in told.headline(summary)]
    scored = told.by_dice(tumor)
    html = ENGINE.get_template("overview.html.j2").render(
        css=asset("page.css"), js=asset("page.js"), summary=summary, data=data, pages=pages,
        panels=_panels(picture) if summary.get("picture") else [], says=told.says(summary),
        headline=boxes, strip=strip(summary.get("verdicts", [])), scored=scored,
        forest=forest_rows(summary.get("effects") or []),
        arms=[told.arm_row(name, row) for name, row in tumor.items()],
        claims=ledger_rows(summary["claims"], sources), rules=told.rules(summary), band=told.BAND,
        real=summary.get("real") or [], peers=summary.get("peers") or [], sources=sources,
        certain=told.certainty(kidney, tumor), wall=duration(summary["wall_s"]), rerun=rerun,
        number=number, interval=interval, setting=setting, progress=progress,
        now=f"{datetime.now():%F %T}",
    )  # fmt: skip
    require_offline(html, "index.html")
    return html


def _panels(picture: Path | None) -> list[tuple[str, str]]:
    """The squares of a picture, each with its title and as a data URI; none without a picture."""
    if picture is None:
        return []
    image, found = Image.open(picture).convert("RGB"), []
    side = image.width // len(PANELS)
    for index, title in enumerate(PANELS):
        out, box = io.BytesIO(), (index * side, 0, (index + 1) * side, image.height)
        image.crop(box).save(out, "JPEG", quality=88)
        content = base64.b64encode(out.getvalue()).decode("ascii")
        found.append((title, f"data:image/jpeg;base64,{content}"))
    return found


def rerun_html(
    *, command: str, facts: Mapping[str, Any], citation: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]], synthetic: bool, untrained: str = "",
) -> str:  # fmt: skip
    """The page "How to cite and re-run this" as HTML.

    `command` makes the study; `facts` (name to value) pin it: commit, lock, keys; `citation` has
    title, authors (a string), year, version, license and url. `records` are what the numbers were
    read from: `name`, `href` of its page ("" for none), `run` (folder of the training), `seed`,
    `cases` (ids), `data` (key), `commit` and `ended` (a moment), "" or None for what it has not.
    `untrained` says, where it is so, that the networks are.
    """
    html = ENGINE.get_template("rerun.html.j2").render(
        css=asset("page.css"), js=asset("page.js"), command=command, citation=plain(citation),
        facts=[(name, setting(value)) for name, value in facts.items() if value],
        records=plain(records), synthetic=synthetic, untrained=untrained, number=number,
    )  # fmt: skip
    require_offline(html, "rerun.html")
    return html
