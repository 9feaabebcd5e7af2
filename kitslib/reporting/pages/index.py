"""The index page of a study: what was asked, what was found, on which data, how sure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kitslib.reporting.pages.offline import asset, environment, require_offline, write_text
from kitslib.reporting.pages.words import duration, interval, number, picture_type, plain

QUESTION = (
    "A 2019 entry to the KiTS19 challenge finds the kidneys in a CT with a 3D network and the tumours in "
    "them with a second one that carries six extra mechanisms. Does it work as described, and what is each "
    "mechanism worth?"
)
VERDICTS = ("reproduced", "not reproduced", "undecided", "not testable here")
_MARKS = {"reproduced": "✓", "not reproduced": "✗", "undecided": "?", "not testable here": "○"}
_CLASSES = {"not reproduced": "not-reproduced", "not testable here": "not-testable"}
_REASONS = {
    "dice": "no test case was scored",
    "tk_dice": "the cascade was not scored",
    "tumor_dice": "the cascade was not scored",
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
TIGHT = 0.05


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of the study as the index lists it; href is relative to the index."""

    title: str
    href: str
    about: str = ""
    status: Literal["done", "failed", "missing"] = "done"


def write_index(
    folder: Path,
    summary: Mapping[str, Any],
    pages: Sequence[Page],
    *,
    picture: Path | None = None,
    picture_alt: str = "",
    picture_caption: str = "",
    data: str = "",
    question: str = QUESTION,
) -> Path:
    """Write ``folder/index.html``, every statement on it computed from the summary.

    ``summary`` has the keys of summary.json; a null shows as a dash with its reason, which comes from the
    optional ``summary["reasons"]`` (a sentence per dotted path: "tumor.full.cyst_fp_ml", "claims.3.ci"). The
    optional ``summary["real"]`` lists real CT ({case, dice}) that the kidney network was tried on;
    ``summary["device"]`` and ``summary["kidney"]["worst"]`` are shown where they are there.
    ``data`` says in one sentence which cases were used. A picture needs its alt text and caption.
    Raises ValueError when a key is missing, a verdict unknown, a link absolute or a picture without words.
    """
    summary = plain(summary)
    _check(summary, pages, picture, picture_alt, picture_caption)
    reader = _Reader(summary)
    context = {
        "css": asset("page.css"),
        "question": question,
        "summary": summary,
        "findings": _findings(summary),
        "headline": _headline(reader),
        "sure": _how_sure(summary),
        "data": data,
        "wall": duration(summary["wall_s"]),
        "arms": _arms(reader),
        "arm_notes": reader.notes("tumor."),
        "claims": _claims(reader),
        "claim_notes": reader.notes("claims."),
        "tally": _tally(summary["claims"]),
        "pages": pages,
        "picture": _picture(picture, picture_alt, picture_caption),
    }
    html = environment().get_template("overview.html.j2").render(context)
    require_offline(html, "index.html")
    return write_text(folder / "index.html", html)


def _check(
    summary: Mapping[str, Any], pages: Sequence[Page], picture: Path | None, alt: str, caption: str
) -> None:
    needed = ("profile", "synthetic", "commit", "wall_s", "kidney", "tumor", "cascade", "claims")
    missing = [key for key in needed if key not in summary]
    if missing:
        raise ValueError(
            f"summary: expected the keys {', '.join(needed)}; missing: {', '.join(missing)}"
        )
    for claim in summary["claims"]:
        if claim.get("verdict") not in VERDICTS:
            got = f"{claim.get('verdict')!r} for {claim.get('claim')!r}"
            raise ValueError(f"summary: expected a verdict of {', '.join(VERDICTS)}; got {got}")
    for page in pages:
        if "://" in page.href or page.href.startswith("/"):
            raise ValueError(
                f"page {page.title!r}: the link must be relative to the index page, got {page.href!r}"
            )
    if picture is not None and not (alt.strip() and caption.strip()):
        raise ValueError(
            f"{picture}: a picture on the index page needs picture_alt and picture_caption"
        )


class _Reader:
    """Reads the summary by path; a null becomes a dash with a reason and a footnote letter per table."""

    def __init__(self, summary: Mapping[str, Any]) -> None:
        self.summary = summary
        self.given = summary.get("reasons") or {}
        self._notes: dict[str, dict[str, str]] = {}

    def entry(
        self, table: str, path: str, field: str, source: Mapping[str, Any], text: str | None
    ) -> dict[str, Any]:
        """A table cell: its text, or the footnote of the reason why there is none."""
        if text is not None:
            return {"text": text, "reason": None, "note": None}
        reason = self.reason(f"{path}.{field}", field)
        letters = self._notes.setdefault(table, {})
        letter = letters.setdefault(reason, chr(ord("a") + len(letters)))
        return {"text": None, "reason": reason, "note": letter}

    def reason(self, path: str, field: str) -> str:
        return self.given.get(path) or _REASONS.get(field, "not available")

    def notes(self, table: str) -> list[dict[str, str]]:
        return [
            {"letter": letter, "reason": reason}
            for reason, letter in self._notes.get(table, {}).items()
        ]


def _headline(reader: _Reader) -> list[dict[str, Any]]:
    """The headline boxes: kidney, best tumour arm, cascade."""
    summary = reader.summary
    best = best_arm(summary["tumor"])
    boxes = [
        (
            "Kidney Dice",
            "kidney",
            "kidney",
            summary["kidney"],
            "dice",
            _kidney_words(summary["kidney"]),
        )
    ]
    if best is not None:
        label = f"Tumour Dice, arm “{best}”"
        boxes.append(
            (
                label,
                "tumor",
                f"tumor.{best}",
                summary["tumor"][best],
                "dice",
                "the best of the arms below",
            )
        )
    cascade = summary["cascade"]
    boxes.append(
        ("Whole cascade, composite", "", "cascade", cascade, "composite", _cascade_words(cascade))
    )
    return [_box(reader, *box) for box in boxes]


def _box(
    reader: _Reader,
    label: str,
    kind: str,
    path: str,
    source: Mapping[str, Any] | None,
    field: str,
    about: str,
) -> dict[str, Any]:
    source = source or {}
    text = number(source.get(field))
    reason = None if text is not None else reader.reason(f"{path}.{field}", field)
    return {
        "label": label,
        "kind": kind,
        "value": {"text": text, "reason": reason, "note": None},
        "ci": interval(source.get(f"{field}_ci")),
        "n": number(source.get("n")),
        "about": about,
    }


def _kidney_words(kidney: Mapping[str, Any] | None) -> str:
    worst = number((kidney or {}).get("worst"))
    return f"held-out cases, the worst {worst}" if worst else "held-out cases"


def _cascade_words(cascade: Mapping[str, Any] | None) -> str:
    kidney, tumor = (number((cascade or {}).get(key)) for key in ("tk_dice", "tumor_dice"))
    parts = [f"kidney and tumour {kidney}" if kidney else "", f"tumour {tumor}" if tumor else ""]
    return ", ".join(part for part in parts if part)


def best_arm(tumor: Mapping[str, Mapping[str, Any]] | None) -> str | None:
    """The arm with the highest Dice; the first arm where none has one."""
    if not tumor:
        return None
    return max(
        tumor, key=lambda arm: -1.0 if tumor[arm].get("dice") is None else tumor[arm]["dice"]
    )


def _findings(summary: Mapping[str, Any]) -> list[str]:
    """The result in sentences, computed."""
    sentences = []
    kidney, cascade, tumor = (
        summary["kidney"] or {},
        summary["cascade"] or {},
        summary["tumor"] or {},
    )
    if kidney.get("dice") is not None:
        sentences.append(
            f"The kidney network reaches a mean Dice of {number(kidney['dice'])} on cases it has not seen."
        )
    scored = {arm: row["dice"] for arm, row in tumor.items() if row.get("dice") is not None}
    if scored:
        best, worst = max(scored, key=scored.__getitem__), min(scored, key=scored.__getitem__)
        alone = f"The tumour arm “{best}” reaches a mean Dice of {number(scored[best])}."
        among = f"Of {len(scored)} tumour arms “{best}” has the highest mean Dice, {number(scored[best])}, "
        among += f"and “{worst}” the lowest, {number(scored[worst])}."
        sentences.append(among if len(scored) > 1 else alone)
    if cascade.get("composite") is not None:
        sentences.append(
            f"Together, from CT to label map, they score a composite of {number(cascade['composite'])}."
        )
    for row in summary.get("real") or []:
        sentences.append(
            f"On the real CT {row['case']} the kidney network scores {number(row['dice'])}."
        )
    return sentences or [
        "No stage has been scored yet; the pages below say how far the study came."
    ]


def _how_sure(summary: Mapping[str, Any]) -> list[str]:
    """What the intervals allow to say, computed from their widths and the numbers of cases."""
    rows = {"kidney": summary["kidney"] or {}} | {
        f"tumour “{arm}”": row for arm, row in (summary["tumor"] or {}).items()
    }
    widths = {
        name: row["dice_ci"][1] - row["dice_ci"][0]
        for name, row in rows.items()
        if interval(row.get("dice_ci"))
    }
    sentences = []
    if widths:
        widest = max(widths, key=widths.__getitem__)
        sentences.append(
            f"95 % bootstrap intervals over cases; the widest, {widest}, spans {number(widths[widest])} Dice"
            + (
                ": smaller differences between arms may be chance."
                if widths[widest] > TIGHT
                else "."
            )
        )
    overlap = _overlap(summary["tumor"] or {})
    if overlap:
        sentences.append(overlap)
    counts = [row["n"] for row in rows.values() if row.get("n") is not None]
    if counts and min(counts) < 20:
        sentences.append(
            f"The smallest test set has {min(counts)} case{'' if min(counts) == 1 else 's'}, which is few."
        )
    if summary["synthetic"]:
        sentences.append(
            "The CT is computer-generated: differences between arms may carry over to patients, levels not."
        )
    return sentences or ["No interval has been computed yet."]


def _overlap(tumor: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Whether the best arm's interval is clear of the others'."""
    bounds = {arm: row["dice_ci"] for arm, row in tumor.items() if interval(row.get("dice_ci"))}
    best = best_arm({arm: tumor[arm] for arm in bounds})
    if best is None or len(bounds) < 2:
        return None
    touching = [arm for arm, (_, high) in bounds.items() if arm != best and high >= bounds[best][0]]
    if not touching:
        return f"The interval of “{best}” is clear of every other arm's."
    return f"The interval of “{best}” overlaps with that of {len(touching)} of {len(bounds) - 1} other arms."


def _arms(reader: _Reader) -> list[dict[str, Any]]:
    """The table of arms in the order of the summary."""
    rows = []
    for arm, row in (reader.summary["tumor"] or {}).items():
        shown = {
            "dice": number(row.get("dice")),
            "dice_ci": interval(row.get("dice_ci")),
            "n": number(row.get("n")),
            "seeds": _seeds(row.get("seeds")),
            "cyst_fp_ml": number(row.get("cyst_fp_ml"), 2),
            "parameters": number(row.get("parameters")),
            "train_s": duration(row.get("train_s")),
        }
        cells = {
            field: reader.entry("tumor.", f"tumor.{arm}", field, row, text)
            for field, text in shown.items()
        }
        rows.append({"arm": arm, "cells": cells, "bar": _bar(row), "label": _bar_label(row)})
    return rows


def _seeds(seeds: Any) -> str | None:
    """The number of seeds, whether it came as a count or as their list."""
    return number(len(seeds) if isinstance(seeds, list) else seeds)


def _bar(row: Mapping[str, Any]) -> dict[str, float] | None:
    """Dice and interval as positions on a line from 0 to 100."""
    if row.get("dice") is None:
        return None
    low, high = row["dice_ci"] if interval(row.get("dice_ci")) else (row["dice"], row["dice"])
    return {
        "low": round(100 * low, 1),
        "high": round(100 * high, 1),
        "dice": round(100 * row["dice"], 1),
    }


def _bar_label(row: Mapping[str, Any]) -> str:
    spread = interval(row.get("dice_ci"))
    return f"Dice {number(row.get('dice'))}" + (f", 95 % interval {spread}" if spread else "")


def _claims(reader: _Reader) -> list[dict[str, Any]]:
    rows = []
    for index, claim in enumerate(reader.summary["claims"]):
        shown = {
            "value": number(claim.get("value")),
            "ci": interval(claim.get("ci")),
            "n": number(claim.get("n")),
        }
        path = f"claims.{index + 1}"
        cells = {
            field: reader.entry("claims.", path, field, claim, text)
            for field, text in shown.items()
        }
        rows.append({"claim": claim["claim"], "badge": _badge(claim["verdict"]), "cells": cells})
    return rows


def _badge(verdict: str) -> dict[str, str]:
    return {"text": f"{_MARKS[verdict]} {verdict}", "kind": _CLASSES.get(verdict, verdict)}


def _tally(claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    counts = {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}
    return [
        {"badge": _badge(verdict), "count": count} for verdict, count in counts.items() if count
    ]


def _picture(picture: Path | None, alt: str, caption: str) -> dict[str, str] | None:
    if picture is None:
        return None
    content = base64.b64encode(picture.read_bytes()).decode("ascii")
    return {"src": f"data:{picture_type(picture)};base64,{content}", "alt": alt, "caption": caption}
