"""The ledger of claims as a strip of verdicts and as rows that fold into cards on a phone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from IPython.display import HTML

from kitslib.reporting.pages.offline import ENGINE
from kitslib.reporting.pages.summary import VERDICTS, beside, ledger_cells, tally


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a number comes from: the chapter's title and link, and the records it was read from."""

    title: str
    href: str
    records: Sequence[str] = ()


def ledger_rows(
    claims: Sequence[Mapping[str, Any]], sources: Mapping[str, Source] | None = None
) -> list[dict[str, Any]]:
    """The ledger's rows in text; `sources` maps a row's number and part ("11a") to its source."""
    rows, seen = [], set()
    for claim in claims:
        place = f"{claim['number']}{claim['part']}"
        anchors = [f"claim-{place}"]
        if claim["part"] and claim["number"] not in seen:  # the strip leads to the first part
            anchors.insert(0, f"claim-{claim['number']}")
        seen.add(claim["number"])
        unit = unit_of(claim)
        rows.append({
            **claim, **ledger_cells(claim | {"unit": unit}), "place": place,
            "anchors": anchors, "beside": beside(claim), "source": (sources or {}).get(place),
            "share": f"±{claim['band']:g} {unit}".rstrip() if claim["band"] else "",
        })  # fmt: skip
    return rows


def unit_of(claim: Mapping[str, Any]) -> str:
    """The unit of a row's number: its own, Dice where its measure is one, none for shares."""
    return claim["unit"] or ("Dice" if re.search(r"\bDice\b", claim["measure"]) else "")


def strip(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the strip of verdicts shows: the claims, the marks, and how many have each verdict."""
    return {"verdicts": verdicts, "marks": VERDICTS, "tally": tally(verdicts)}


def ledger_output(
    verdicts: Sequence[Mapping[str, Any]], claims: Sequence[Mapping[str, Any]]
) -> HTML:
    """The ledger as a notebook displays it: `claims_of` and the rows of `evaluation.ledger`."""
    page = ENGINE.get_template("ledger.html.j2")
    return HTML(page.render(strip=strip(verdicts), rows=ledger_rows(claims)))
