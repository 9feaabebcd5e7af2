"""Tables of results, rounded and named for a reader."""

from __future__ import annotations

from typing import Any

import pandas as pd
from IPython.display import display

from kitslib.reporting.pages.words import number, plain, setting


def show(
    frame: pd.DataFrame,
    columns: dict[str, str] | None = None,
    digits: int | dict[str, int] = 3,
    index: str | None = None,
) -> None:
    """Display a table once: numbers rounded, whole numbers without decimals, missing values as –.

    `columns` maps a column to the name that is shown, in the order shown; without it all columns
    keep their names. `digits` counts decimals, for all columns or by column (3 for the others).
    `index` is the column (by its own name) that becomes the index. Raises KeyError for a column
    that the frame does not have.
    """
    names = columns or {name: name for name in frame}
    decimals = digits if isinstance(digits, dict) else dict.fromkeys(names, digits)
    shown = pd.DataFrame(index=frame.index if index is None else frame[index])
    shown.index.name = names.get(index, index or frame.index.name)
    for name, title in names.items():
        if name != index:
            shown[title] = _cells(frame[name], decimals.get(name, 3))
    with pd.option_context("display.max_colwidth", None, "display.max_columns", None):
        display(shown)


def _cells(column: pd.Series, digits: int) -> list[str]:
    values = plain(column.astype(object).where(column.notna(), None).tolist())
    numbers = [value for value in values if isinstance(value, int | float)]
    whole = all(value == int(value) for value in numbers)
    return [_cell(value, 0 if whole else digits) for value in values]


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "–"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return number(value, digits) if is_number else setting(value)
