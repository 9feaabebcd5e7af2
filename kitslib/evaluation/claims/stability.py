"""How firm a verdict is: the same row under other reasonable readings of the scores."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from kitslib.evaluation.claims.evidence import PRIMARY, Evidence
from kitslib.evaluation.claims.ledger import parts

WORST_CASES = 2  # left out in one reading


def readings(evidence: Evidence) -> dict[str, Evidence]:
    """Return the evidence as it is, and under each other reading of the tumour arms' scores."""
    found = {"all components": evidence}
    columns = {"largest component": "dice", "surface Dice": "surface_dice", "tumour hit": "hit"}
    for name, column in columns.items():
        arms = evidence.tumor.get(column, {})
        found[name] = replace(evidence, tumor={**evidence.tumor, PRIMARY: arms})
    found["median over cases"] = replace(evidence, by_median=True)
    found[f"without the {WORST_CASES} worst cases"] = without_worst(evidence)
    return found


def without_worst(evidence: Evidence) -> Evidence:
    """Return the evidence without the cases whose mean over all tumour arms is the lowest."""
    if not evidence.arms:
        return evidence
    means = pd.DataFrame({name: scores.mean() for name, scores in evidence.arms.items()})
    worst = means.mean(axis=1).nsmallest(WORST_CASES).index
    columns = {}
    for column, arms in evidence.tumor.items():
        columns[column] = {
            name: scores.drop(columns=worst, errors="ignore") for name, scores in arms.items()
        }
    return replace(evidence, tumor=columns)


def stability(evidence: Evidence) -> pd.DataFrame:
    """Return a row per row of the ledger that compares tumour arms and was tested.

    A column per reading; verdicts are not adjusted for the number of rows. Columns: `row`, `claim`,
    one per reading, and `same`: in how many of the others it is that of the first, as in "4 of 5".
    """
    seen, table = readings(evidence), []
    for number, letter, part in parts():
        if not part.arms:
            continue
        words = {name: part.rule(reading).word() for name, reading in seen.items()}
        first, *others = words.values()
        if first == "not testable here":
            continue
        same = f"{others.count(first)} of {len(others)}"
        table.append({"row": f"{number}{letter}", "claim": part.sentence, **words, "same": same})
    return pd.DataFrame(table, columns=["row", "claim", *seen, "same"])
