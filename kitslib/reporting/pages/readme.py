"""The results of a study as the part of the README that is made from its summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kitslib.reporting.pages.words import duration, interval, number, plain, quantity

BEGIN = "<!-- results: made by `python -m kitslib report --readme` -->"
END = "<!-- end of results -->"
CLAIMS = ["", "claim", "verdict", "measure", "our number", "95 %", "n"]


def results_markdown(summary: Mapping[str, Any]) -> str:
    """Return a summary as Markdown: the cascade, the arms, the verdicts, with n and interval."""
    summary = plain(summary)
    kidney, cascade, claims = summary["kidney"], summary["cascade"], summary["claims"]
    scores = [["kidney, first stage alone", *_score(kidney, "dice")]]
    for words, field in (
        ("kidney with tumour, cascade", "tk_dice"),
        ("tumour, cascade", "tumor_dice"),
        ("KiTS19 composite, cascade", "composite"),
    ):
        scores.append([words, *_score(cascade, field)])
    for row in summary["real"]:
        scores.append(
            [f"kidney of the real CT {row['case']}", number(row["dice"]) or "–", "–", "1"]
        )
    arms = []
    for name, row in summary["tumor"].items():
        sizes = [str(len(row["seeds"])), number(row["parameters"])]
        arms.append([f"`{name}`", *_score(row, "dice"), *sizes])
    ledger = []
    for place, claim in enumerate(claims, start=1):
        row = [str(place), claim["claim"], claim["verdict"], claim.get("measure") or ""]
        value = quantity(claim["value"], claim.get("unit")) or "–"
        ledger.append([*row, value, interval(claim["ci"]) or "–", str(claim["n"])])
    tally = Counter(claim["verdict"] for claim in claims).most_common()
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in tally)
    return "\n\n".join(
        [
            _head(summary),
            _table(["", "Dice", "95 %", "n"], scores),
            "Tumour Dice inside the true kidneys, arm by arm:",
            _table(["arm", "Dice", "95 %", "n", "seeds", "parameters"], arms),
            f"Of the paper's {len(claims)} claims: {verdicts}.",
            _table(CLAIMS, ledger, words=4),
        ]
    )


def with_results(readme: str, summary: Mapping[str, Any]) -> str:
    """Return the README's text with its results made anew.

    Raises ValueError where their place is not marked.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README: expected the lines {BEGIN!r} and {END!r} around the results")
    return f"{before}{begin}\n\n{results_markdown(summary)}\n\n{end}{after}"


def _head(summary: Mapping[str, Any]) -> str:
    """The sentences above the tables: which study this is, and its kidney network."""
    data = "synthetic CT" if summary["synthetic"] else "real CT"
    where = f" on {summary['device']}" if summary.get("device") else ""
    kidney, words = summary["kidney"], ""
    if kidney.get("worst") is not None:
        words = f" The kidney network trained for {duration(kidney['train_s'])};"
        words += f" its worst held-out case has a Dice of {number(kidney['worst'])}."
    return (
        f"From `reports/summary.json`: profile `{summary['profile']}`, commit "
        f"`{summary['commit']}`, {data}, {summary['cases']} cases of which "
        f"{summary['cascade']['n']} were seen by neither network, {duration(summary['wall_s'])} "
        f"in all{where}. Dice with a bootstrap 95 % interval over the test cases.{words}"
    )


def _score(row: Mapping[str, Any], field: str) -> list[str]:
    """A score, its interval and its number of cases."""
    return [number(row[field]) or "–", interval(row.get(f"{field}_ci")) or "–", str(row["n"])]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """A table whose first `words` columns read from the left."""
    lines = [head, [*["---"] * words, *["--:"] * (len(head) - words)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
