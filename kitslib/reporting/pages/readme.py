"""The results of a study as the part of the README that is made from its summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kitslib.reporting.pages.summary import BAND, beside, checked, ledger_cells, rules, tally
from kitslib.reporting.pages.words import duration, interval, markdown_table, number

BEGIN = "<!-- results: made by `python -m kitslib report --readme` -->"
END = "<!-- end of results -->"
CASCADE = {
    "tk_dice": "kidney with tumour, cascade",
    "tumor_dice": "tumour, cascade",
    "composite": "KiTS19 composite, cascade",
}
LEDGER = [
    "", "claim", "verdict", "measure", "our number", "95 %", "n", "seeds", "band",
    "smallest effect",
]  # fmt: skip


def results_markdown(summary: Mapping[str, Any]) -> str:
    """Return a summary as Markdown: the cascade, the best and worst arm, the ledger.

    Raises ValueError for a missing key and an unknown verdict.
    """
    summary = checked(summary)
    kidney, cascade = summary["kidney"], summary["cascade"]
    scores = [["kidney, first stage alone", *_score(kidney, "dice"), str(kidney["n"])]]
    for field, words in CASCADE.items():
        scores.append([words, *_score(cascade, field), str(cascade["n"])])
    for row in summary["real"]:
        name = f"kidney of the real CT {row['case']}"
        scores.append([name, number(row["dice"]) or "–", "–", "1"])
    scores += _best_and_worst(summary["tumor"])
    for row in summary.get("peers") or []:
        name = f"{row['system']}: {row['says']}"
        scores.append([name, *_score(row | {"dice_ci": row["ci"]}, "dice"), str(row["n"])])
    ledger = [_row(claim) for claim in summary["claims"]]
    verdicts = ", ".join(f"{count} {verdict}" for count, verdict in tally(summary["verdicts"]))
    parts = [
        _head(summary),
        markdown_table(["", "Dice", "95 %", "n"], scores),
        f"Of the paper's {len(summary['verdicts'])} claims: {verdicts}. {_rules(summary)}",
        markdown_table(LEDGER, ledger, words=4),
    ]
    return "\n\n".join(parts)


def with_results(readme: str, summary: Mapping[str, Any]) -> str:
    """The README with its results made anew; raises ValueError where their place is not marked."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README: expected the lines {BEGIN!r} and {END!r} around the results")
    return f"{before}{begin}\n\n{results_markdown(summary)}\n\n{end}{after}"


def _head(summary: Mapping[str, Any]) -> str:
    """The sentences above the tables: which study this is, and its kidney network."""
    data, carries = "real CT", ""
    if summary["synthetic"]:
        data, carries = "synthetic CT", " Nothing of it carries over to patients."
    where = f" on {summary['device']}" if summary.get("device") else ""
    kidney, words = summary["kidney"], ""
    if kidney.get("worst") is not None:
        words = f" The kidney network trained for {duration(kidney['train_s'])};"
        words += f" its worst held-out case has a Dice of {number(kidney['worst'])}."
    return (
        f"From `reports/summary.json`: profile `{summary['profile']}`, commit "
        f"`{summary['commit']}`, {data}, {summary['cases']} cases of which "
        f"{summary['cascade']['n']} were seen by neither network, {duration(summary['wall_s'])} "
        f"in all{where}.{carries} The 95 % intervals treat seeds and cases as random (crossed "
        f"random effects; `python -m benchmarks coverage` says what they cover).{words}"
    )


def _best_and_worst(arms: Mapping[str, Any]) -> list[list[str]]:
    """The tumour arms of the highest and the lowest Dice of all components, in the true kidneys."""
    field, rows = "dice_all_components", []
    known = {name: row for name, row in arms.items() if row[field] is not None}
    ordered = sorted(known, key=lambda name: -known[name][field])
    for words, names in {"highest": ordered[:1], "lowest": ordered[1:][-1:]}.items():
        for name in names:
            row, what = known[name], f"tumour in the true kidneys, {words} of {len(known)} arms: "
            what += f"`{name}`, seeds: {len(row['seeds'])}"
            rows.append([what, *_score(row, field), str(row["n"])])
    return rows


def _rules(summary: Mapping[str, Any]) -> str:
    """The sentences above the ledger: how its verdicts came about."""
    return (
        "Of a claim with several rows the worst counts. Verdicts are corrected for the number of "
        f"rows (Holm); practically equal: the interval lies within the band of ±{BAND} Dice. The "
        f"smallest effect is what four of five such studies would show. {' '.join(rules(summary))}"
        f" {summary.get('second', '')}".rstrip()
    )


def _row(claim: Mapping[str, Any]) -> list[str]:
    """A row of the ledger, its warning under the claim, what qualifies the verdict beside it."""
    words, verdict = claim["claim"], "; ".join([claim["verdict"], *beside(claim)])
    if claim["warning"]:
        words += f"<br>*{claim['warning']}*"
    band = "–"
    if claim["band"] and claim["value"] is not None:
        band = f"±{claim['band']}"
    cells = {field: text or "–" for field, text in ledger_cells(claim).items()}
    numbers = [cells[field] for field in ("value", "ci", "n", "seeds")]
    place = f"{claim['number']}{claim['part']}"
    return [place, words, verdict, claim["measure"], *numbers, band, cells["smallest_effect"]]


def _score(row: Mapping[str, Any], field: str) -> list[str]:
    """A score and its interval."""
    return [number(row[field]) or "–", interval(row.get(f"{field}_ci")) or "–"]
