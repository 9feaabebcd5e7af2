"""What each mechanism is worth: a forest plot in HTML, and a sentence for the mechanism's page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from kitslib.reporting.pages.words import interval, number

MECHANISM = re.compile(r'(<p class="effect" data-mechanism="(\w+)">).*?(</p>)', re.DOTALL)
ROOM = 1.12  # of the widest interval, on either side of zero


def forest_rows(effects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the forest plot shows: its rows, the end of its axis, and how wide the band is.

    `effects` have `label`, `name` (of the mechanism, "" for several), `measure`, `value`, `ci`,
    `band`, `n`, `seeds`, `smallest_effect`, `verdict` ("" where none is given), `place` (of the
    claim) and `reason`. Places on the axis run from 0 to 100. Effects that were not measured stand
    apart, as `missing`.
    """
    known = [row for row in effects if row["value"] is not None]
    band = max([row["band"] or 0.0 for row in effects], default=0.0)
    ends = [abs(end) for row in known for end in (*row["ci"], row["value"]) if end is not None]
    limit = ROOM * max([band, *ends]) or 1.0

    def place(value: float) -> float:
        return round(50 + 50 * value / limit, 2)

    rows = []
    for row in known:
        low, high = (row["value"] if end is None else end for end in row["ci"])
        sure = low > 0 or high < 0
        rows.append({
            **row, "at": [place(low), place(row["value"]), place(high)], "sure": sure,
            "text": signed(row["value"]), "interval": interval(row["ci"]) or "no interval",
            "counts": counts(row),
        })  # fmt: skip
    missing = [row for row in effects if row["value"] is None]
    return {
        "rows": rows, "missing": missing, "band": [place(-band), place(band)],
        "width": number(band, 2), "limit": number(limit, 2),
    }  # fmt: skip


def counts(row: Mapping[str, Any]) -> str:
    """What an effect rests on, in words."""
    words = [f"{row['n']} cases", f"{row['seeds']} seed{'' if row['seeds'] == 1 else 's'}"]
    if row["smallest_effect"] is not None:
        words.append(f"an effect of {number(row['smallest_effect'])} could have been shown")
    return ", ".join(words)


def signed(value: float) -> str:
    """An effect in Dice with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def effect_words(row: Mapping[str, Any]) -> str:
    """What was measured of one mechanism, as a sentence without its end."""
    if row["value"] is None:
        lacking = row["reason"].removeprefix("not measured: ").removesuffix("; ")
        return f"nothing, as this study has no {lacking}"
    words = f"{signed(row['value'])} in tumour Dice, 95 % interval {interval(row['ci']) or '–'}"
    return f"{words}, {counts(row)}: {row['verdict']}"


def with_effects(html: str, effects: Sequence[Mapping[str, Any]]) -> str:
    """A page whose places for the measured effect of a mechanism are filled.

    Such a place is `<p class="effect" data-mechanism="se">…</p>`; it leads to the study's index.
    """
    told = {row["name"]: effect_words(row) for row in effects if row["name"]}

    def fill(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in told:
            return match[0]
        link = f'<a href="index.html#mechanism-{name}">beside the others</a>'
        return f"{begin}<strong>Measured here:</strong> {escape(told[name])}; {link}.{end}"

    return MECHANISM.sub(fill, html)
