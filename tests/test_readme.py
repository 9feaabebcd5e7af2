"""The README's findings are those of the committed summary, and follow its numbers."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from kitslib.reporting import findings_markdown, with_findings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def summary() -> dict:
    return json.loads((ROOT / "reports" / "summary.json").read_text(encoding="utf-8"))


def test_the_readme_says_what_the_committed_summary_says(summary: dict) -> None:
    assert with_findings(README, summary) == README, (
        "python -m kitslib report --readme reports/summary.json"
    )


def test_the_committed_summary_is_of_a_clean_commit_and_names_no_folder(summary: dict) -> None:
    assert summary["profile"] == "demo" and not summary["commit"].endswith("+")
    assert len(summary["claims"]) == 14
    assert str(ROOT) not in json.dumps(summary)


def test_the_findings_follow_the_numbers(summary: dict) -> None:
    other = copy.deepcopy(summary)
    other["kidney"] |= {"worst": 0.4321, "train_s": 123.0}
    other["device"] = "an abacus"
    other["cascade"]["composite"], other["cascade"]["composite_ci"] = 0.1234, [0.1, 0.2]
    for claim in other["claims"]:
        claim["verdict"] = "undecided"
    text = findings_markdown(other)
    assert "| 0.123 | 0.100 to 0.200 |" in text and f"{len(other['claims'])} undecided" in text
    assert all(f"| {claim['claim']} | undecided |" in text for claim in other["claims"])
    assert (
        "trained for 2 min 03 s; its worst held-out case has a Dice of 0.432." in text
        and "on an abacus." in text
    )
    assert findings_markdown(summary) != text


def test_an_undefined_number_is_a_dash(summary: dict) -> None:
    summary["cascade"]["tumor_dice"] = None
    assert "| tumour, cascade | – |" in findings_markdown(summary)


def test_a_readme_without_the_place_is_refused(summary: dict) -> None:
    with pytest.raises(ValueError, match="around the findings"):
        with_findings("# Title", summary)
