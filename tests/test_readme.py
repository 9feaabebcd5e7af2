"""The README's results are those of the committed summary, and follow its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kitslib.reporting import results_markdown, with_results

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def committed() -> dict:
    return json.loads((ROOT / "reports" / "summary.json").read_text(encoding="utf-8"))


def row(number: int, part: str, claim: str, verdict: str, **other) -> dict:
    """A row of the ledger; what is not given is as of a row that was not measured."""
    return {
        "number": number, "part": part, "claim": claim, "verdict": verdict,
        "verdict_unadjusted": verdict, "value": None, "ci": [None, None], "n": 0, "seeds": 0,
        "measure": "a measure", "unit": "", "p": None, "p_adjusted": None, "band": 0.05,
        "within_002": None, "smallest_effect": None, "needed": "", "warning": "", "reason": "",
    } | other  # fmt: skip


def arm(dice: float, seeds: int) -> dict:
    return {
        "dice": 0.7, "dice_ci": [0.6, 0.8], "dice_all_components": dice, "n": 200,
        "dice_all_components_ci": [dice - 0.1, dice + 0.1], "seeds": list(range(seeds)),
    }  # fmt: skip


@pytest.fixture
def summary() -> dict:
    decided = {"n": 200, "seeds": 6, "value": 0.012, "ci": [-0.01, 0.034], "smallest_effect": 0.03}
    claims = [
        row(3, "", "Slices without kidney are the majority", "reproduced", value=0.617,
            ci=[0.596, 0.639], n=210, band=None),
        row(8, "", "Multi-scale input helps", "practically equal", **decided),
        row(11, "a", "HDC helps", "undecided", verdict_unadjusted="reproduced",
            needed="9 seeds × 200 cases", warning="2 seeds are in both arms", **decided),
        row(11, "c", "Plain dilation shows gridding", "not testable here"),
        row(13, "b", "Cysts", "contradicted", **decided | {"value": -1.5, "ci": [-2.0, -1.0]},
            unit="ml", band=None),
    ]  # fmt: skip
    verdicts = [
        {"number": 3, "claim": "Slices", "verdict": "reproduced"},
        {"number": 8, "claim": "Multi-scale", "verdict": "practically equal"},
        {"number": 11, "claim": "HDC", "verdict": "undecided"},
        {"number": 13, "claim": "Cysts", "verdict": "contradicted"},
    ]
    return {
        "profile": "study", "synthetic": True, "commit": "1a2b3c4", "device": "an abacus",
        "cases": 312, "wall_s": 7260.0, "rules": "00aa11bb",
        "rules_history": [{"key": "00aa11bb", "date": "2026-11-27", "commit": "1a2b3c4"}],
        "kidney": {"dice": 0.93, "dice_ci": [0.9, 0.95], "n": 200, "worst": 0.4321,
                   "train_s": 123.0},
        "tumor": {"baseline": arm(0.5, 6), "attention": arm(0.55, 6), "full": arm(0.58, 1)},
        "cascade": {"tk_dice": 0.92, "tumor_dice": 0.57, "composite": 0.1234, "n": 200,
                    "composite_ci": [0.1, 0.2]},
        "real": [{"case": "ircad01", "dice": 0.88}], "claims": claims, "verdicts": verdicts,
    }  # fmt: skip


def test_the_readme_says_what_the_committed_summary_says(committed: dict) -> None:
    assert with_results(README, committed) == README, (
        "python -m kitslib report --readme reports/summary.json"
    )


def test_the_committed_summary_is_of_a_clean_commit_and_names_no_folder(committed: dict) -> None:
    assert committed["profile"] in ("demo", "study") and not committed["commit"].endswith("+")
    assert len(committed["verdicts"]) == 14
    assert committed["profile"] == "demo" or len(committed["seeds"]) >= 6
    assert str(ROOT) not in json.dumps(committed)


def test_the_readme_is_short() -> None:
    assert README.count("\n") < 200


def test_the_scores_follow_the_numbers(summary: dict) -> None:
    text = results_markdown(summary)
    assert "| KiTS19 composite, cascade | 0.123 | 0.100 to 0.200 | 200 |" in text
    assert "| kidney of the real CT ircad01 | 0.880 | – | 1 |" in text
    assert "trained for 2 min 03 s; its worst held-out case has a Dice of 0.432." in text
    assert "2 h 01 min in all on an abacus. Nothing of it carries over to patients." in text
    assert "treat seeds and cases as random" in text and "bootstrap" not in text
    assert "highest of 3 arms: `full`, seeds: 1 | 0.580 | 0.480 to 0.680 | 200 |" in text
    assert "lowest of 3 arms: `baseline`, seeds: 6 | 0.500 | 0.400 to 0.600 | 200 |" in text
    assert "`attention`" not in text


def test_a_peer_has_a_row_of_its_own(summary: dict) -> None:
    peer = {"system": "nnU-Net", "says": "after 10 min", "dice": 0.7, "ci": [0.6, 0.8], "n": 16}
    text = results_markdown(summary | {"peers": [peer]})
    assert "| nnU-Net: after 10 min | 0.700 | 0.600 to 0.800 | 16 |" in text.splitlines()


def test_of_a_real_cohort_it_is_not_said_that_nothing_carries_over(summary: dict) -> None:
    assert "carries over" not in results_markdown(summary | {"synthetic": False})


def test_one_arm_is_named_once_and_none_not_at_all(summary: dict) -> None:
    text = results_markdown(summary | {"tumor": {"full": arm(0.58, 1)}})
    assert text.count("`full`") == 1 and "lowest" not in text
    assert "arms:" not in results_markdown(summary | {"tumor": {}})


@pytest.mark.parametrize("line", [
    "| 3 | Slices without kidney are the majority | reproduced | a measure | 0.617 | 0.596 to 0.639"
    " | 210 | – | – | – |",
    "| 8 | Multi-scale input helps | practically equal | a measure | 0.012 | −0.010 to 0.034"
    " | 200 | 6 | ±0.05 | 0.030 |",
    "| 11a | HDC helps<br>*2 seeds are in both arms* | undecided; before correction: reproduced;"
    " would decide: 9 seeds × 200 cases | a measure | 0.012 | −0.010 to 0.034 | 200 | 6 | ±0.05 |"
    " 0.030 |",
    "| 11c | Plain dilation shows gridding | not testable here | a measure"
    " | – | – | – | – | – | – |",
    "| 13b | Cysts | contradicted | a measure | −1.500 ml | −2.000 to −1.000 | 200 | 6 | – |"
    " 0.030 ml |",
])  # fmt: skip
def test_each_row_of_the_ledger_stands_with_what_qualifies_it(summary: dict, line: str) -> None:
    assert line in results_markdown(summary).splitlines()


def test_the_tally_is_of_claims_and_the_rules_are_named(summary: dict) -> None:
    text = results_markdown(summary)
    words = "4 claims: 1 reproduced, 1 contradicted, 1 practically equal, 1 undecided."
    assert words in text
    assert "stored before the first test score" in text and "not changed since" in text
    later = {"key": "ff", "date": "2026-11-28", "commit": "9f"}
    summary["rules"] = "ff"
    summary["rules_history"].append(later)
    assert "changed after it, on 2026-11-28" in results_markdown(summary)


def test_an_undefined_number_is_a_dash(summary: dict) -> None:
    summary["cascade"]["tumor_dice"] = None
    assert "| tumour, cascade | – |" in results_markdown(summary)


def test_a_summary_of_other_code_is_refused(summary: dict) -> None:
    del summary["verdicts"]
    with pytest.raises(ValueError, match="missing: verdicts"):
        results_markdown(summary)
    summary["verdicts"] = [{"number": 1, "claim": "x", "verdict": "not reproduced"}]
    with pytest.raises(ValueError, match="got 'not reproduced' for 'x'"):
        results_markdown(summary)


def test_a_readme_without_the_place_is_refused(summary: dict) -> None:
    with pytest.raises(ValueError, match="around the results"):
        with_results("# Title", summary)
