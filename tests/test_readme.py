"""The README's results are those of the committed summary, and follow its numbers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from kitslib.reporting import results_markdown, with_results

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def summary() -> dict:
    return json.loads((ROOT / "reports" / "summary.json").read_text(encoding="utf-8"))


def test_the_readme_says_what_the_committed_summary_says(summary: dict) -> None:
    assert with_results(README, summary) == README, (
        "python -m kitslib report --readme reports/summary.json"
    )


def test_the_committed_summary_is_of_a_clean_commit_and_names_no_folder(summary: dict) -> None:
    assert summary["profile"] == "demo" and not summary["commit"].endswith("+")
    assert len(summary["claims"]) == 14
    assert str(ROOT) not in json.dumps(summary)


def test_the_results_follow_the_numbers(summary: dict) -> None:
    other = copy.deepcopy(summary)
    other["kidney"] |= {"worst": 0.4321, "train_s": 123.0}
    other["device"] = "an abacus"
    other["cascade"]["composite"], other["cascade"]["composite_ci"] = 0.1234, [0.1, 0.2]
    for claim in other["claims"]:
        claim["verdict"] = "undecided"
    other["claims"][0] |= {"measure": "volume of cysts called tumour", "unit": "ml"}
    other["claims"][0] |= {"value": 1.5, "ci": [1.0, 2.0], "n": 8}
    del other["claims"][2]["measure"]  # as in older summaries
    text = results_markdown(other)
    assert f"| {other['claims'][2]['claim']} | undecided |  | 0.617 | 0.596 to 0.639 |" in text
    assert "| 0.123 | 0.100 to 0.200 |" in text and f"{len(other['claims'])} undecided" in text
    assert all(f"| {claim['claim']} | undecided |" in text for claim in other["claims"])
    assert "| undecided | volume of cysts called tumour | 1.500 ml | 1.000 to 2.000 | 8 |" in text
    assert (
        "trained for 2 min 03 s; its worst held-out case has a Dice of 0.432." in text
        and "on an abacus." in text
    )
    assert results_markdown(summary) != text


def test_an_undefined_number_is_a_dash(summary: dict) -> None:
    summary["cascade"]["tumor_dice"] = None
    assert "| tumour, cascade | – |" in results_markdown(summary)


def test_a_readme_without_the_place_is_refused(summary: dict) -> None:
    with pytest.raises(ValueError, match="around the results"):
        with_results("# Title", summary)
