"""Tables: what a reader sees of a frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kitslib.reporting import show_source, tables
from kitslib.reporting.tables import show

FRAME = pd.DataFrame(
    {
        "arm": ["baseline", "full"],
        "dice": [0.61234, -0.5],
        "n": [12.0, np.nan],
        "seeds": [[0, 1], [0]],
        "parameters": [1234567, 89],
        "says": ["x" * 80, None],
    }
)


@pytest.fixture
def shown(monkeypatch) -> list[pd.DataFrame]:
    """What is displayed, frame by frame."""
    found = []
    monkeypatch.setattr(tables, "display", found.append)
    return found


def test_columns_are_picked_renamed_and_ordered(shown):
    show(FRAME, {"n": "cases", "arm": "Arm", "dice": "Dice"}, digits={"dice": 2}, index="arm")
    (table,) = shown
    assert table.index.name == "Arm" and table.index.tolist() == ["baseline", "full"]
    assert table.to_dict("list") == {"cases": ["12", "–"], "Dice": ["0.61", "−0.50"]}


def test_without_columns_all_are_shown(shown):
    show(FRAME)
    (table,) = shown
    assert list(table) == list(FRAME)
    assert table.iloc[0].tolist() == ["baseline", "0.612", "12", "0, 1", "1,234,567", "x" * 80]
    assert table.iloc[1].tolist() == ["full", "−0.500", "–", "0", "89", "–"]


def test_long_words_are_shown_in_full(capsys):
    show(FRAME, {"says": "says"})
    assert "x" * 80 in capsys.readouterr().out


def test_a_column_that_is_not_there_is_named(shown):
    with pytest.raises(KeyError, match="precision"):
        show(FRAME, {"precision": "Precision"})
    assert not shown


def test_an_empty_frame_has_its_head_only(shown):
    show(FRAME.head(0), {"arm": "Arm", "dice": "Dice"}, index="arm")
    assert list(shown[0]) == ["Dice"] and shown[0].empty


def test_source_is_dedented_and_fenced(monkeypatch):
    found = []
    monkeypatch.setattr("kitslib.reporting.source.display", lambda one: found.append(one.data))

    def inner(x: int) -> int:
        return x + 1

    show_source(inner)
    assert found == ["````python\ndef inner(x: int) -> int:\n    return x + 1\n````"]


def test_intervals_and_means_as_words():
    assert tables.intervals([0.1, np.nan], [0.25, 0.3]) == ["0.100 to 0.250", "–"]
    assert tables.mean_text(0.182, (0.01, 0.479), 8) == "0.18 [0.01, 0.48] n = 8"
    assert tables.mean_text(np.nan, (np.nan, np.nan), 0) == "no case"


def test_row_numbers_are_not_shown(shown):
    show(FRAME)
    assert list(shown[0].index) == [""] * len(FRAME)


def test_a_column_that_says_one_thing_is_a_line_below(shown):
    said = "one seed: the interval leaves out how much training varies"
    frame = pd.DataFrame({"arm": ["a", "b"], "n": [16, 16], "warning": [said, said]})
    show(frame, index="arm")
    table, line = shown
    assert list(table) == ["n"] and line.data == f"<p>Warning, in every row: {said}</p>"
    show(frame.head(1), index="arm")
    assert list(shown[2]) == ["n", "warning"], "one row says it itself"
