"""The index page of a study: its question, its results, on which data, how sure."""

from __future__ import annotations

import base64
import mimetypes
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kitslib.reporting.pages.offline import asset, environment, require_offline
from kitslib.reporting.pages.outputs import number_box
from kitslib.reporting.pages.words import (
    duration,
    interval,
    moment,
    number,
    plain,
    quantity,
    setting,
)

NEEDED = ("profile", "synthetic", "commit", "wall_s", "kidney", "tumor", "cascade", "claims")
JUDGED = ("verdicts", "rules")  # needed as well where there are claims
VERDICTS = {  # each with its mark
    "reproduced": "✓", "contradicted": "✗", "practically equal": "=", "undecided": "?",
    "not testable here": "○",
}  # fmt: skip
REASONS = {  # why a number is missing; "not recorded" for all others
    "dice": "no test case was scored",
    "composite": "the cascade was not scored",
    "dice_ci": "an interval needs at least two cases",
    "dice_all_components_ci": "an interval needs at least two cases",
    "ci": "no interval for this claim",
    "n": "not counted",
    "seeds": "no training is part of it",
    "smallest_effect": "no comparison of trainings, or too few seeds",
    "p_adjusted": "too few seeds or cases to decide",
    "cyst_fp_ml": "no test case with a known cyst",
}
BAND = 0.05  # Dice: what is practically equal; a wider interval may hide a difference between arms
FEW = 20  # cases


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of the study as the index lists it; href is relative to the index."""

    title: str
    href: str
    about: str


def index_html(
    summary: Mapping[str, Any], pages: Sequence[Page],
    *, data: str = "", picture: Path | None = None, progress: Any = None,
) -> str:  # fmt: skip
    """The index page of a study as HTML, every statement on it computed from the summary.

    `summary` has the keys of summary.json; a null shows as a dash with its reason. Its `real`
    (real CT: case, kidney `dice`), `deviations` (setting, paper, here), `rules_history` (key, date,
    commit), `training_draw`, `device` and its kidney's `worst` are optional. `data` says in one
    sentence which cases were used. `picture` shows the worst, median and best test case. `progress`
    is the Watch of a study that runs. Raises ValueError for a missing key, an unknown verdict, an
    absolute link.
    """
    summary = checked(summary)
    for page in pages:
        if "://" in page.href or page.href.startswith("/"):
            words = f"the link must be relative to the index page, got {page.href!r}"
            raise ValueError(f"page {page.title!r}: {words}")
    image = None
    if picture is not None:
        content = base64.b64encode(picture.read_bytes()).decode("ascii")
        image = f"data:{mimetypes.guess_type(picture.name)[0]};base64,{content}"
    stages = [summary[key] or {} for key in ("kidney", "tumor", "cascade")]
    arm_notes, claim_notes = Notes(), Notes()
    html = environment().get_template("overview.html.j2").render(
        css=asset("page.css"), summary=summary, data=data, pages=pages, picture=image,
        kidney=stages[0], cascade=stages[2], scored=_by_dice(stages[1]), number=number,
        headline=_headline(*stages), certain=_certainty(*stages[:2]),
        wall=duration(summary["wall_s"]), progress=progress, now=f"{datetime.now():%F %T}",
        arms=[_arm(name, row, arm_notes) for name, row in stages[1].items()], arm_notes=arm_notes,
        claims=[_claim(claim, claim_notes) for claim in summary["claims"]],
        claim_notes=claim_notes, verdicts=VERDICTS, setting=setting, band=BAND,
        tally=tally(summary.get("verdicts", [])), rules=rules(summary),
    )  # fmt: skip
    require_offline(html, "index.html")
    return html


def checked(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary as plain JSON; raises ValueError for a missing key and an unknown verdict."""
    summary = plain(summary)
    needed = NEEDED
    if summary.get("claims"):
        needed += JUDGED
    if missing := [key for key in needed if key not in summary]:
        fix = "a study of other code; run it again"
        raise ValueError(
            f"summary: expected {', '.join(needed)}; missing: {', '.join(missing)}; {fix}"
        )
    for claim in [*summary["claims"], *summary.get("verdicts", [])]:
        if claim.get("verdict") not in VERDICTS:
            got = f"{claim.get('verdict')!r} for {claim.get('claim')!r}"
            raise ValueError(f"summary: expected a verdict of {', '.join(VERDICTS)}; got {got}")
    return summary


def tally(verdicts: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """How many claims have each verdict, in the order of VERDICTS; those that none has left out."""
    counts = Counter(claim["verdict"] for claim in verdicts)
    return [(counts[verdict], verdict) for verdict in VERDICTS if counts[verdict]]


def rules(summary: Mapping[str, Any]) -> list[str]:
    """Which rules gave the verdicts, whether they stood before the first test score, each change.

    Sentences from `rules` and `rules_history`; none where nothing was judged.
    """
    judged, history = summary.get("rules"), summary.get("rules_history") or []
    if not judged:
        return []
    if not history:
        words = f"The rules, bands and statistics behind the verdicts have the key {judged}; "
        return [words + "that they were stored before the first test score is not recorded."]
    first, *later = history
    words = f"The rules, bands and statistics were stored before the first test score, {_at(first)}"
    if first["key"] == judged and not later:
        words += ", and not changed since"
    found = [f"{words}."]
    found += [f"They were changed after it, {_at(change)}." for change in later]
    if history[-1]["key"] != judged:
        found.append(f"The verdicts are by rules with another key, {judged}, that was not stored.")
    elif later:
        found.append("The verdicts are by the last of these.")
    return found


def _at(change: Mapping[str, Any]) -> str:
    """When rules were stored, by which commit, and their key."""
    return f"on {moment(change['date'])} at commit {change['commit']}, with the key {change['key']}"


class Notes(dict[str, str]):
    """The footnotes of one table: a letter per reason why a number is missing."""

    def cells(
        self, shown: Mapping[str, str | None], reasons: Mapping[str, str] = REASONS
    ) -> dict[str, dict[str, str | None]]:
        """Table cells: each its text, or the reason why there is none and its footnote's letter."""
        cells = {field: {"text": text} for field, text in shown.items()}
        for field, cell in cells.items():
            if cell["text"] is None:
                reason = reasons.get(field, "not recorded")
                letter = self.setdefault(reason, chr(ord("a") + len(self)))
                cell |= {"reason": reason, "note": letter}
        return cells


def _headline(
    kidney: Mapping[str, Any], tumor: Mapping[str, Any], cascade: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The headline boxes: kidney, best tumour arm, cascade."""
    worst = number(kidney.get("worst"))
    about = f"held-out cases, the worst {worst}" if worst else "held-out cases"
    boxes = [_box("Kidney Dice", "kidney", kidney, "dice", about)]
    if tumor:
        best = next(iter(_by_dice(tumor) or tumor))
        about = "the best of the arms below"
        boxes.append(_box(f"Tumour Dice, arm “{best}”", "tumor", tumor[best], "dice", about))
    known = {"kidney and tumour": cascade.get("tk_dice"), "tumour": cascade.get("tumor_dice")}
    parts = [f"{words} {number(dice)}" for words, dice in known.items() if dice is not None]
    return [*boxes, _box("Whole cascade, composite", "", cascade, "composite", ", ".join(parts))]


def _box(label: str, kind: str, row: Mapping[str, Any], field: str, about: str) -> dict[str, Any]:
    item = {"label": label, "value": row.get(field), "reason": REASONS[field], "about": about}
    box = number_box(item | {"ci": row.get(f"{field}_ci"), "n": row.get("n")})
    return box | {"kind": kind}


def _by_dice(tumor: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The Dice of the arms that have one, the highest first."""
    scored = {arm: row["dice"] for arm, row in tumor.items() if row.get("dice") is not None}
    return dict(sorted(scored.items(), key=lambda item: -item[1]))


def _certainty(kidney: Mapping[str, Any], tumor: Mapping[str, Any]) -> dict[str, Any]:
    """What the intervals allow to say: the widest, how many touch the best arm's, what is few."""
    rows = {"kidney": kidney} | {f"tumour “{arm}”": row for arm, row in tumor.items()}
    bounded = {name: row["dice_ci"] for name, row in rows.items() if interval(row.get("dice_ci"))}
    widths = {name: high - low for name, (low, high) in bounded.items()}
    widest = max(widths, key=widths.get, default="")
    counts = [row["n"] for row in rows.values() if row.get("n") is not None]
    found = {"widest": widest, "width": widths.get(widest), "others": 0}
    found["few"] = min((count for count in counts if count < FEW), default=None)
    found["once"] = sum(len(row.get("seeds") or []) == 1 for row in tumor.values())
    arms = {arm: row for arm, row in tumor.items() if interval(row.get("dice_ci"))}
    if len(arms) > 1:
        best = next(iter(_by_dice(arms)))
        low = arms.pop(best)["dice_ci"][0]
        touching = sum(row["dice_ci"][1] >= low for row in arms.values())
        found |= {"best": best, "touching": touching, "others": len(arms)}
    return found


def _arm(name: str, row: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """A row of the table of arms, with Dice and interval as positions on a line from 0 to 100."""
    dice, spread = row.get("dice"), interval(row.get("dice_ci"))
    shown = {
        "dice": number(dice),
        "dice_ci": spread,
        "dice_all_components": number(row.get("dice_all_components")),
        "dice_all_components_ci": interval(row.get("dice_all_components_ci")),
        "n": number(row.get("n")),
        "seeds": number(len(row.get("seeds") or [])),
        "cyst_fp_ml": number(row.get("cyst_fp_ml"), 2),
        "parameters": number(row.get("parameters")),
        "train_s": duration(row.get("train_s")),
    }
    low, high = row["dice_ci"] if spread else (dice, dice)
    bar = [round(100 * place, 1) for place in (low, dice, high)] if dice is not None else None
    return {"arm": name, "cells": notes.cells(shown), "bar": bar}


def _claim(claim: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """A row of the ledger."""
    shown = ledger_cells(claim)
    reasons = REASONS
    if claim["value"] is None:
        reasons = dict.fromkeys(shown, "not measured here")
    return {**claim, "cells": notes.cells(shown, reasons), "beside": beside(claim)}


def ledger_cells(claim: Mapping[str, Any]) -> dict[str, str | None]:
    """The numbers of a row of the ledger as text; None where there is none."""
    unit, p = claim["unit"], number(claim["p_adjusted"])
    return {
        "value": quantity(claim["value"], unit),
        "ci": interval(claim["ci"]),
        "n": number(claim["n"] or None),
        "seeds": number(claim["seeds"] or None),
        "smallest_effect": quantity(claim["smallest_effect"], unit),
        "p_adjusted": "< 0.001" if p == "0.000" else p,
    }


def beside(claim: Mapping[str, Any]) -> list[str]:
    """What a verdict must not be read without."""
    found = []
    if claim["verdict_unadjusted"] != claim["verdict"]:
        found.append(f"before correction: {claim['verdict_unadjusted']}")
    if claim["within_002"] and "practically equal" in (
        claim["verdict"],
        claim["verdict_unadjusted"],
    ):
        found.append("within ±0.02 too")
    if claim["verdict"] == "undecided" and claim["needed"]:
        found.append(f"would decide: {claim['needed']}")
    return found
