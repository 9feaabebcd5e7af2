"""What a study's summary.json says, as its index page and the README show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from kitslib.reporting.pages.outputs import number_box
from kitslib.reporting.pages.words import duration, interval, moment, number, plain, quantity

NEEDED = ("profile", "synthetic", "commit", "wall_s", "kidney", "tumor", "cascade", "claims")
JUDGED = ("verdicts", "rules")  # needed as well where there are claims
VERDICTS = {  # each with its mark
    "reproduced": "✓", "contradicted": "✗", "practically equal": "=", "undecided": "?",
    "not testable here": "○",
}  # fmt: skip
BAND = 0.05  # Dice: what is practically equal; a wider interval may hide a difference between arms
FEW = 20  # cases
WHOLE = "full"  # the paper's arm, with all six mechanisms
SCORE, BOUNDS = "dice_all_components", "dice_all_components_ci"  # that arms are judged by


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
    counts = Counter(map(itemgetter("verdict"), verdicts))
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


def headline(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The four numbers of the first screen: kidney, tumour, cascade, real CT.

    The tumour number is that of the paper's arm, or where it is missing of the best one.
    """
    kidney, tumor, cascade = (summary[key] or {} for key in ("kidney", "tumor", "cascade"))
    worst, arm = number(kidney.get("worst")), next(iter(by_dice(tumor) or tumor), "")
    arm = WHOLE if WHOLE in tumor else arm
    about = f"on unseen scans; the worst {worst}" if worst else "on unseen scans"
    inside = f"arm “{arm}”, inside the true kidneys" if arm else ""
    known = {"kidney and tumour": cascade.get("tk_dice"), "tumour": cascade.get("tumor_dice")}
    parts = [f"{words} {number(dice)}" for words, dice in known.items() if dice is not None]
    return [
        _box("Kidney, Dice", "kidney", kidney, "dice", about),
        _box("Tumour, Dice", "tumor", tumor.get(arm, {}), "dice", inside),
        _box("Both in a row, KiTS19 composite", "cascade", cascade, "composite", ", ".join(parts)),
        _real_box(summary),
    ]


def _box(label: str, kind: str, row: Mapping[str, Any], field: str, about: str) -> dict[str, Any]:
    reason = "the cascade was not scored" if kind == "cascade" else "no test case was scored"
    item = {"label": label, "value": row.get(field), "reason": reason, "about": about}
    box = number_box(item | {"ci": row.get(f"{field}_ci"), "n": row.get("n")})
    return box | {"kind": kind}


def _real_box(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The mean over real CT with manual labels; of a few cases the range stands beside it.

    Its interval is `real_ci`, missing where there are too few cases for one.
    """
    scores = [row["dice"] for row in summary.get("real") or [] if row["dice"] is not None]
    reason = "no real CT with labels was given" if "real" in summary else "not scored yet"
    item = {"label": "Kidney in real CT, Dice", "reason": reason}
    if scores:
        ci, about = summary.get("real_ci"), "patients' scans, none trained on"
        if not interval(ci):
            about = "too few patients for an interval"
            about += f"; {number(min(scores))} to {number(max(scores))}" if len(scores) > 1 else ""
        item |= {"value": sum(scores) / len(scores), "n": len(scores), "ci": ci, "about": about}
    return number_box(item) | {"kind": "real"}


def says(summary: Mapping[str, Any]) -> str:
    """What the picture shows, in a sentence; "" without a picture."""
    return (summary.get("picture") or {}).get("says", "")


def by_dice(tumor: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The Dice of the arms that have one, all components, the highest first."""
    scored = {arm: row[SCORE] for arm, row in tumor.items() if row.get(SCORE) is not None}
    return dict(sorted(scored.items(), key=lambda item: -item[1]))


def certainty(kidney: Mapping[str, Any], tumor: Mapping[str, Any]) -> dict[str, Any]:
    """What the intervals allow to say: the widest, how many touch the best arm's, what is few."""
    rows = {"kidney": kidney} | {f"tumour “{arm}”": row for arm, row in tumor.items()}
    spans = {name: row.get(BOUNDS, row.get("dice_ci")) for name, row in rows.items()}
    bounded = {name: bounds for name, bounds in spans.items() if interval(bounds)}
    widths = {name: high - low for name, (low, high) in bounded.items()}
    widest = max(widths, key=widths.get, default="")
    counts = [row["n"] for row in rows.values() if row.get("n") is not None]
    found = {"widest": widest, "width": widths.get(widest), "others": 0}
    found["few"] = min((count for count in counts if count < FEW), default=None)
    found["once"] = sum(len(row.get("seeds") or []) == 1 for row in tumor.values())
    arms = {arm: row[BOUNDS] for arm, row in tumor.items() if interval(row.get(BOUNDS))}
    if len(arms) > 1:
        best = next(arm for arm in by_dice(tumor) if arm in arms)
        low = arms.pop(best)[0]
        touching = sum(high >= low for _, high in arms.values())
        found |= {"best": best, "touching": touching, "others": len(arms)}
    return found


def arm_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A tumour arm in text, and its Dice and interval as places on a line from 0 to 100."""
    value, spread = row.get(SCORE), interval(row.get(BOUNDS))
    low, high = row[BOUNDS] if spread else (value, value)
    bar = [round(100 * place, 1) for place in (low, value, high)] if value is not None else None
    shown = {
        "dice": number(value), "ci": spread, "largest": number(row.get("dice")),
        "n": number(row.get("n")), "seeds": number(len(row.get("seeds") or [])),
        "parameters": number(row.get("parameters")), "train_s": duration(row.get("train_s")),
    }  # fmt: skip
    return {"arm": name, "bar": bar, **{field: text or "–" for field, text in shown.items()}}


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
    found, words = [], {claim["verdict"], claim["verdict_unadjusted"]}
    if len(words) > 1:
        found.append(f"before correction: {claim['verdict_unadjusted']}")
    if claim["within_002"] and "practically equal" in words:
        found.append("within ±0.02 too")
    if claim["verdict"] == "undecided" and claim["needed"]:
        found.append(f"would decide: {claim['needed']}")
    if claim.get("second", claim["verdict"]) != claim["verdict"]:
        found.append(f"in a second study: {claim['second']}")
    return found
