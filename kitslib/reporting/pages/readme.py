"""What a study found, as the part of the project's README that is made from its summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kitslib.reporting.pages.words import duration, interval, number, plain

BEGIN, END = (
    "<!-- findings: made by `python -m kitslib report --readme` -->",
    "<!-- end of findings -->",
)


def findings_markdown(summary: Mapping[str, Any]) -> str:
    """Return the findings of a summary as Markdown: the cascade, the arms, the verdicts, each with n and interval."""
    summary = plain(summary)
    kidney, cascade = summary["kidney"], summary["cascade"]
    data = "synthetic CT" if summary["synthetic"] else "real CT"
    head = (
        f"From `reports/summary.json`: profile `{summary['profile']}`, commit `{summary['commit']}`, {data}, "
        f"{summary['cases']} cases of which {cascade['n']} were seen by neither network, {duration(summary['wall_s'])} "
        f"in all{_where(summary)}. Dice with a bootstrap 95 % interval over the test cases.{_kidney_sentence(kidney)}"
    )
    scores = [
        ["kidney, first stage alone", *_score(kidney["dice"], kidney["dice_ci"], kidney["n"])],
        [
            "kidney with tumour, cascade",
            *_score(cascade["tk_dice"], cascade.get("tk_dice_ci"), cascade["n"]),
        ],
        [
            "tumour, cascade",
            *_score(cascade["tumor_dice"], cascade.get("tumor_dice_ci"), cascade["n"]),
        ],
        [
            "KiTS19 composite, cascade",
            *_score(cascade["composite"], cascade.get("composite_ci"), cascade["n"]),
        ],
    ]
    scores += [
        [f"kidney of the real CT {row['case']}", *_score(row["dice"], None, 1)]
        for row in summary["real"]
    ]
    arms = [
        [
            f"`{name}`",
            *_score(row["dice"], row["dice_ci"], row["n"]),
            str(len(row["seeds"])),
            f"{row['parameters']:,}",
        ]
        for name, row in summary["tumor"].items()
    ]
    tally = Counter(claim["verdict"] for claim in summary["claims"])
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in tally.most_common())
    ledger = [
        [
            str(place),
            claim["claim"],
            claim["verdict"],
            *_score(claim["value"], claim["ci"], claim["n"]),
        ]
        for place, claim in enumerate(summary["claims"], start=1)
    ]
    return "\n\n".join(
        [
            head,
            _table(["", "Dice", "95 %", "n"], scores),
            "Tumour Dice inside the true kidneys, arm by arm:",
            _table(["arm", "Dice", "95 %", "n", "seeds", "parameters"], arms),
            f"Of the paper's {len(summary['claims'])} claims: {verdicts}.",
            _table(["", "claim", "verdict", "our number", "95 %", "n"], ledger, words=3),
        ]
    )


def with_findings(readme: str, summary: Mapping[str, Any]) -> str:
    """Return the README's text with its findings made anew. Raises ValueError where their place is not marked."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README: expected the lines {BEGIN!r} and {END!r} around the findings")
    return f"{before}{begin}\n\n{findings_markdown(summary)}\n\n{end}{after}"


def _where(summary: Mapping[str, Any]) -> str:
    return f" on {summary['device']}" if summary.get("device") else ""


def _kidney_sentence(kidney: Mapping[str, Any]) -> str:
    if kidney.get("worst") is None:  # summaries of before it was noted
        return ""
    trained, worst = duration(kidney["train_s"]), number(kidney["worst"])
    return (
        f" The kidney network trained for {trained}; its worst held-out case has a Dice of {worst}."
    )


def _score(value: float | None, ci: Sequence[float] | None, n: int) -> list[str]:
    return [number(value) or "–", (interval(ci) if ci else None) or "–", str(n)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """A table whose first `words` columns read from the left."""
    lines = [head, [*["---"] * words, *["--:"] * (len(head) - words)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
