"""Tables of results, rounded and named for a reader."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import pandas as pd
from IPython.display import HTML, display

from kitslib.reporting.pages.words import interval, number, plain, setting

SENTENCE = 24  # letters from which a cell is a sentence
GROUPS = {  # of ARM_GROUPS
    "cumulative": "The paper's order: each mechanism added to all before it",
    "left_out": "Each mechanism left out of the whole",
    "alone": "Each mechanism alone on the baseline",
    "rivals": "Other networks and other inputs",
    "levels": "The level of the hybrid dilated convolutions",
    "variants": "Other forms of a mechanism",
}
EFFECTS = {  # what a table of comparisons calls the columns of `evaluation.compare_arms`
    "reference": "against", "difference": "difference in Dice", "interval": "95 % interval",
    "p": "p", "p_holm": "p, Holm", "smallest": "smallest effect shown", "n": "n",
    "seeds": "seeds", "warning": "warning",
}  # fmt: skip
PAPER = {  # those of `evaluation.paper_evidence`
    "sd": "SD of the differences, Dice", "p_false_13": "claim 13: chance that it is no gain",
    "least": "other claims: gain needed, Dice",
}  # fmt: skip


def show(
    frame: pd.DataFrame, columns: dict[str, str] | None = None,
    digits: int | dict[str, int] = 3, index: str | None = None, most: int | None = None,
) -> None:  # fmt: skip
    """Display a table once: numbers rounded, whole numbers without decimals, missing values as –.

    With `most` the first so many rows, and how many there are. A column that says the same in
    every row becomes a line below.

    `columns` maps a column to the name that is shown, in the order shown; without it all columns
    keep their names. `digits` counts decimals, for all columns or by column (3 for the others).
    `index` is the column (by its own name) that becomes the index; row numbers are not shown.
    Raises KeyError for a column
    that the frame does not have.
    """
    if most is not None and len(frame) > most:
        print(f"the first {most} of {len(frame)} rows; all stand in the record")
        frame = frame.head(most)
    shown = shaped(frame, columns, digits, index)
    with pd.option_context("display.max_colwidth", None, "display.max_columns", None):
        if isinstance(shown.index, pd.RangeIndex) and shown.index.name is None:
            shown.index = [""] * len(shown)
        same = _said_once(shown)
        shown = shown.drop(columns=list(same))
        display(shown)
    for title, words in same.items():
        display(HTML(f"<p>{escape(title.capitalize())}, in every row: {escape(words)}</p>"))


def shaped(
    frame: pd.DataFrame, columns: dict[str, str] | None = None,
    digits: int | dict[str, int] = 3, index: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return the table that `show` displays, its cells as text."""
    names = columns or {name: name for name in frame}
    decimals = digits if isinstance(digits, dict) else dict.fromkeys(names, digits)
    shown = pd.DataFrame(index=frame.index if index is None else frame[index])
    shown.index.name = names.get(index, index or frame.index.name)
    for name, title in names.items():
        if name != index:
            shown[title] = _cells(frame[name], decimals.get(name, 3))
    return shown


def intervals(low: Iterable[float], high: Iterable[float]) -> list[str]:
    """Intervals as a column of words: "0.812 to 0.931", – where a bound is missing."""
    return [interval(bounds) or "–" for bounds in zip(low, high, strict=True)]


def mean_text(value: float, ci: tuple[float, float], n: int) -> str:
    """A mean with its interval and number of cases as one cell: "0.18 [0.01, 0.48] n = 8"."""
    return f"{value:.2f} [{ci[0]:.2f}, {ci[1]:.2f}] n = {n}" if n else "no case"


def _said_once(shown: pd.DataFrame) -> dict[str, str]:
    """Columns that say one and the same sentence in each of several rows."""
    same = [name for name in shown if len(shown) > 1 and shown[name].nunique() == 1]
    said = {name: shown[name].iloc[0] for name in same}
    return {name: words for name, words in said.items() if len(words) > SENTENCE}


def _cells(column: pd.Series, digits: int) -> list[str]:
    values = plain(column.astype(object).where(column.notna(), None).tolist())
    numbers = [value for value in values if isinstance(value, int | float)]
    whole = all(value == int(value) for value in numbers)
    return [_cell(value, 0 if whole else digits) for value in values]


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "–"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (number(value, digits) or "") if is_number else setting(value)
