"""The index page of a study: its question, its results, on which data, how sure."""

from __future__ import annotations

import base64
import mimetypes
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kitslib.reporting.pages.offline import asset, environment, require_offline
from kitslib.reporting.pages.words import duration, interval, number, plain, quantity

NEEDED = ("profile", "synthetic", "commit", "wall_s", "kidney", "tumor", "cascade", "claims")
VERDICTS = {  # each with its mark and its class in the style sheet
    "reproduced": ("✓", "reproduced"),
    "not reproduced": ("✗", "not-reproduced"),
    "undecided": ("?", "undecided"),
    "not testable here": ("○", "not-testable"),
}
REASONS = {  # why a number is missing
    "dice": "no test case was scored",
    "composite": "the cascade was not scored",
    "dice_ci": "an interval needs at least two cases",
    "ci": "no interval for this claim",
    "n": "not counted",
    "seeds": "not recorded",
    "cyst_fp_ml": "no test case with a known cyst",
    "parameters": "not recorded",
    "train_s": "not recorded",
    "value": "no number for this claim",
}
TIGHT = 0.05  # Dice: an interval wider than this may hide a difference between arms
FEW = 20  # cases


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of the study as the index lists it; href is relative to the index."""

    title: str
    href: str
    about: str


def index_html(
    summary: Mapping[str, Any],
    pages: Sequence[Page],
    *,
    data: str = "",
    picture: Path | None = None,
    picture_alt: str = "",
    picture_caption: str = "",
) -> str:
    """The index page of a study as HTML, every statement on it computed from the summary.

    `summary` has the keys of summary.json; a null shows as a dash with its reason. Its `real`
    (real CT that the kidney network was tried on: case, dice), its `device`, its kidney's `worst`
    and a claim's `measure` and `unit` are shown where they are there. `data` says in one sentence
    which cases were used. Raises ValueError when a key is missing, a verdict unknown, a link
    absolute or a picture without alternative text or caption.
    """
    summary = plain(summary)
    _check(summary, pages)
    image = None
    if picture is not None:
        if not (picture_alt.strip() and picture_caption.strip()):
            raise ValueError(
                f"{picture}: a picture on the index page needs picture_alt and picture_caption"
            )
        content = base64.b64encode(picture.read_bytes()).decode("ascii")
        source = f"data:{mimetypes.guess_type(picture.name)[0]};base64,{content}"
        image = {"src": source, "alt": picture_alt, "caption": picture_caption}
    kidney, tumor, cascade = (summary[key] or {} for key in ("kidney", "tumor", "cascade"))
    arm_notes, claim_notes = Notes(), Notes()
    tally = Counter(claim["verdict"] for claim in summary["claims"])
    html = (
        environment()
        .get_template("overview.html.j2")
        .render(
            css=asset("page.css"),
            summary=summary,
            results=_results(kidney, tumor, cascade, summary.get("real") or []),
            headline=_headline(kidney, tumor, cascade),
            certainty=_certainty(kidney, tumor, summary["synthetic"]),
            data=data,
            wall=duration(summary["wall_s"]),
            arms=[_arm(name, row, arm_notes) for name, row in tumor.items()],
            arm_notes=arm_notes,
            claims=[_claim(claim, claim_notes) for claim in summary["claims"]],
            claim_notes=claim_notes,
            tally=[(tally[verdict], verdict) for verdict in VERDICTS if tally[verdict]],
            verdicts=VERDICTS,
            pages=pages,
            picture=image,
        )
    )
    require_offline(html, "index.html")
    return html


def _check(summary: Mapping[str, Any], pages: Sequence[Page]) -> None:
    missing = [key for key in NEEDED if key not in summary]
    if missing:
        raise ValueError(
            f"summary: expected the keys {', '.join(NEEDED)}; missing: {', '.join(missing)}"
        )
    for claim in summary["claims"]:
        if claim.get("verdict") not in VERDICTS:
            got = f"{claim.get('verdict')!r} for {claim.get('claim')!r}"
            raise ValueError(f"summary: expected a verdict of {', '.join(VERDICTS)}; got {got}")
    for page in pages:
        if "://" in page.href or page.href.startswith("/"):
            raise ValueError(
                f"page {page.title!r}: the link must be relative to the index page, "
                f"got {page.href!r}"
            )


class Notes(dict[str, str]):
    """The footnotes of one table: a letter per reason why a number is missing."""

    def cell(self, field: str, text: str | None) -> dict[str, str | None]:
        """A table cell: its text, or the reason why there is none and its footnote's letter."""
        if text is not None:
            return {"text": text}
        reason = REASONS[field]
        letter = self.setdefault(reason, chr(ord("a") + len(self)))
        return {"text": None, "reason": reason, "note": letter}


def _headline(
    kidney: Mapping[str, Any], tumor: Mapping[str, Any], cascade: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The headline boxes: kidney, best tumour arm, cascade."""
    worst = number(kidney.get("worst"))
    about = f"held-out cases, the worst {worst}" if worst else "held-out cases"
    boxes = [_box("Kidney Dice", "kidney", kidney, "dice", about)]
    if tumor:
        scored = _scored(tumor) or dict.fromkeys(tumor, 0.0)
        best = max(scored, key=scored.get)
        label = f"Tumour Dice, arm “{best}”"
        boxes.append(_box(label, "tumor", tumor[best], "dice", "the best of the arms below"))
    parts = []
    for words, field in (("kidney and tumour", "tk_dice"), ("tumour", "tumor_dice")):
        if cascade.get(field) is not None:
            parts.append(f"{words} {number(cascade[field])}")
    return [*boxes, _box("Whole cascade, composite", "", cascade, "composite", ", ".join(parts))]


def _box(label: str, kind: str, row: Mapping[str, Any], field: str, about: str) -> dict[str, Any]:
    return {
        "label": label,
        "kind": kind,
        "value": {"text": number(row.get(field)), "reason": REASONS[field]},
        "ci": interval(row.get(f"{field}_ci")),
        "n": number(row.get("n")),
        "about": about,
    }


def _scored(tumor: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The Dice of the arms that have one."""
    return {arm: row["dice"] for arm, row in tumor.items() if row.get("dice") is not None}


def _results(
    kidney: Mapping[str, Any],
    tumor: Mapping[str, Any],
    cascade: Mapping[str, Any],
    real: Sequence[Mapping[str, Any]],
) -> list[str]:
    """The results in sentences."""
    sentences = []
    if kidney.get("dice") is not None:
        sentences.append(
            f"The kidney network reaches a mean Dice of {number(kidney['dice'])} on cases it has "
            "not seen."
        )
    scored = _scored(tumor)
    if scored:
        best, worst = max(scored, key=scored.get), min(scored, key=scored.get)
        top, bottom = number(scored[best]), number(scored[worst])
        among = f"Of {len(scored)} tumour arms “{best}” has the highest mean Dice, {top}, "
        among += f"and “{worst}” the lowest, {bottom}."
        alone = f"The tumour arm “{best}” reaches a mean Dice of {top}."
        sentences.append(among if len(scored) > 1 else alone)
    if cascade.get("composite") is not None:
        sentences.append(
            "Together, from CT to label map, they score a composite of "
            f"{number(cascade['composite'])}."
        )
    for row in real:
        sentences.append(
            f"On the real CT {row['case']} the kidney network scores {number(row['dice'])}."
        )
    return sentences or [
        "No stage has been scored yet; the pages below say how far the study came."
    ]


def _certainty(kidney: Mapping[str, Any], tumor: Mapping[str, Any], synthetic: bool) -> list[str]:
    """What the intervals allow to say, from their widths and the numbers of cases."""
    rows = {"kidney": kidney} | {f"tumour “{arm}”": row for arm, row in tumor.items()}
    widths, counts, sentences = {}, [], []
    for name, row in rows.items():
        if interval(row.get("dice_ci")):
            widths[name] = row["dice_ci"][1] - row["dice_ci"][0]
        if row.get("n") is not None:
            counts.append(row["n"])
    if widths:
        widest = max(widths, key=widths.get)
        end = ": smaller differences between arms may be chance." * (widths[widest] > TIGHT) or "."
        sentences.append(
            f"95 % bootstrap intervals over cases; the widest, {widest}, spans "
            f"{number(widths[widest])} Dice{end}"
        )
    sentences += _overlap(tumor)
    if counts and min(counts) < FEW:
        cases = "1 case" if min(counts) == 1 else f"{min(counts)} cases"
        sentences.append(f"The smallest test set has {cases}, which is few.")
    if synthetic:
        sentences.append(
            "The CT is computer-generated: differences between arms may carry over to patients, "
            "levels not."
        )
    return sentences or ["No interval has been computed yet."]


def _overlap(tumor: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Whether the best arm's interval is clear of the others'."""
    bounded = {arm: row for arm, row in tumor.items() if interval(row.get("dice_ci"))}
    if len(bounded) < 2:
        return []
    scored = _scored(bounded)
    best = max(scored, key=scored.get)
    low = bounded.pop(best)["dice_ci"][0]
    touching = sum(row["dice_ci"][1] >= low for row in bounded.values())
    if not touching:
        return [f"The interval of “{best}” is clear of every other arm's."]
    return [
        f"The interval of “{best}” overlaps with that of {touching} of {len(bounded)} other arms."
    ]


def _arm(name: str, row: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """A row of the table of arms, with Dice and interval as positions on a line from 0 to 100."""
    seeds, dice, spread = row.get("seeds"), row.get("dice"), interval(row.get("dice_ci"))
    if isinstance(seeds, list):
        seeds = len(seeds)
    shown = {
        "dice": number(dice),
        "dice_ci": spread,
        "n": number(row.get("n")),
        "seeds": number(seeds),
        "cyst_fp_ml": number(row.get("cyst_fp_ml"), 2),
        "parameters": number(row.get("parameters")),
        "train_s": duration(row.get("train_s")),
    }
    bar, label = None, f"Dice {number(dice)}"
    if dice is not None:
        low, high = row["dice_ci"] if spread else (dice, dice)
        bar = {
            "low": round(100 * low, 1),
            "high": round(100 * high, 1),
            "dice": round(100 * dice, 1),
        }
    if spread:
        label += f", 95 % interval {spread}"
    cells = {field: notes.cell(field, text) for field, text in shown.items()}
    return {"arm": name, "cells": cells, "bar": bar, "label": label}


def _claim(claim: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """A row of the table of claims."""
    shown = {
        "value": quantity(claim.get("value"), claim.get("unit")),
        "ci": interval(claim.get("ci")),
        "n": number(claim.get("n")),
    }
    cells = {field: notes.cell(field, text) for field, text in shown.items()}
    return {**claim, "measure": claim.get("measure") or "", "cells": cells}
