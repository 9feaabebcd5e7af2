"""The CLAIM 2024 checklist: 44 items, each answered from a study's records or not done."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from browser import Browser
from bs4 import BeautifulSoup

from kitslib.commands import claim
from kitslib.commands.claim import answer, write_claim

ITEMS = yaml.safe_load(Path(claim.__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
CONFIG = {
    "profile": "demo", "seeds": [0], "data": None,
    "cohort": {"seed": 19, "cases": 8},
    "kidney": {"hu": "soft_tissue", "epochs": 3, "optimizer": "muon", "batch": 2},
    "tumor": {"hu": "literal", "epochs": 2, "steps": 5, "optimizer": "adam", "batch": 4},
    "kidney_grid": {"spacing_z": 5.0, "matrix": 80, "margin_mm": 200.0},
    "tumor_grid": {"spacing_z": 3.0, "spacing_xy": None, "mask_dilation_mm": 5.0},
}  # fmt: skip
HEAD = {"began": 0.0, "ended": 60.0, "config": CONFIG}
# the items that rest on a record (or the file of the split), by hand
RESTS_ON = {
    "01_data": {7, 9, 13, 14, 15, 36}, "02_kidney": {1, 3, 10, 22, 24, 26, 30, 40, 41},
    "03_tumor-full-s0": {1, 3, 22, 25, 31, 40, 41}, "04_ablations": {6, 21, 29},
    "split": {8, 12, 14, 17, 19, 20, 21, 32, 35, 36}, "made": {23},
}  # fmt: skip


def a_study(folder: Path, *, synthetic: bool = True) -> tuple[dict, dict]:
    """Summary and records of a study of eight cases, two of them to test on."""
    cases = [f"case_{index:05}" for index in range(8)]
    measured = [{"case": case, "spacing_z": 3.0 + index % 2, "spacing_xy": 0.8, "kidney_ml": 300.0,
                 "tumor_ml": 10.0 * index} for index, case in enumerate(cases)]  # fmt: skip
    lost = {"outside_kidney": 0.25, "not_seen": 0.5, "dropped": 0.0, "tumor_ml": 2.0}
    scored = [{"case": case, "tk_dice": 0.9, "found": found, "tumor_truth_ml": 8.0, **lost}
              for case, found in zip(cases[6:], (0.0, 0.5), strict=True)]  # fmt: skip
    weights = {"parameters": 1234567, "train_s": 30.0}
    records = {
        "01_data": {**HEAD, "rows": measured, "ceilings": []},
        "02_kidney": {**HEAD, **weights, "run": "kidney-s0", "readings": [{"reading": "padded"}]},
        "03_tumor-full-s0": {**HEAD, **weights, "run": "tumor-full-s0", "arm": "full"},
        "04_ablations": {**HEAD, "effects": [{"smallest": 0.04}, {"smallest": 0.1}]},
        "05_evaluation": {**HEAD, "rows": scored},
    }
    found = {
        "profile": "demo", "synthetic": synthetic, "commit": "1a2b3c4", "cases": 8, "rules": "00aa",
        "claims": [{}] * 22, "tumor": {"full": {}}, "deviations": [{}] * 3,
        "rules_history": [{"date": "2026-11-26 19:59 UTC"}],
        "cascade": {"n": 2, "tk_dice": 0.9, "tk_dice_ci": [0.8, 1.0], "tumor_dice": 0.5,
                    "composite": 0.7}, "real": [{"case": "ircad01", "dice": 0.75}],
    }  # fmt: skip
    split = {
        "labels": "kits19", "policy": "keep", "seed": 19, "used": cases, "left_out": {"x": "torn"},
        "run": {"rule": "nested", "kidney_train": cases[:6], "tumor_train": cases[:6],
                "kidney_held_out": cases[6:], "tumor_held_out": cases[6:],
                "cascade_test": cases[6:]},
    }  # fmt: skip
    made = {"python": "3.11.7", "versions": {"torch": "2.13.0"}}
    for name, value in {"work/split.json": split, "models/made.json": made}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return found, records


def rows_of(folder: Path) -> dict[int, tuple[str, str]]:
    """State and answer of each item of the page."""
    page = BeautifulSoup((folder / "claim.html").read_text(encoding="utf-8"), "html.parser")
    found = {}
    for row in page.select("tbody tr"):
        said = row.select("td")[1].get_text(" ", strip=True)
        found[int(row["id"].removeprefix("item-"))] = row.select_one(".badge").text, said
    return found


def test_every_item_is_asked_once_and_ends_in_an_answer_or_its_reason() -> None:
    numbers = [number for items in ITEMS.values() for number in items]
    assert numbers == list(range(1, 45))
    for items in ITEMS.values():
        for item in items.values():
            assert item["asks"] and item["answers"]
            assert len({"only" in one for one in item["answers"]}) == 1, item["asks"]
            for one in item["answers"]:
                (state,) = set(one) - {"page", "needs", "only"}
                assert state in claim.STATES and one.get("only") in (None, "synthetic", "given")
                assert ("page" in one) == (state == "answered"), one


def test_the_page_counts_its_items_and_says_what_the_records_say(tmp_path) -> None:
    page = write_claim(tmp_path, *a_study(tmp_path))
    found = rows_of(tmp_path)
    tally = Counter(state for state, _ in found.values())
    html = BeautifulSoup((tmp_path / "claim.html").read_text(encoding="utf-8"), "html.parser")
    counted = html.select_one(".tally").get_text(" ", strip=True)
    assert sorted(found) == list(range(1, 45))
    answered, none = tally["answered"], tally["does not apply"]
    assert counted == f"{answered} answered 1 not done {none} do not apply"
    assert f"44 items: {tally['answered']} answered" in page.about
    for number, words in {
        1: "1,234,567 weights, arm full", 4: "stored on 2026-11-26 19:59 UTC", 8: "8 of 9",
        9: "slices of 5 mm, 80 pixels", 13: "3.00 to 4.00 mm apart, pixels of 0.80 mm",
        19: "6 cases to train on, 2 held out, of which 2 test", 20: "test the cascade: 0.",
        21: "0.040 to 0.100 Dice", 23: "Python 3.11.7, torch 2.13.0; commit 1a2b3c4",
        25: "2 trainings, 1 min 00 s in all", 32: "of which 2 were seen by neither",
        33: "manual labels: mean Dice 0.750, n = 1", 36: "2 cases, median kidneys",
        37: "tumour 0.500 (no interval)", 38: "found in 1 of 2 test cases (50%, 95 % 0.09 to 0.91)",
        39: "25% lie outside the kidneys found, 50% are not seen", 40: "3 settings",
        42: "./run_all.sh --profile demo",
    }.items():  # fmt: skip
        assert found[number][0] == "answered" and words in found[number][1], found[number]
    assert found[27][0] == "does not apply" and found[44][0] == "not done"


@pytest.mark.parametrize("lost", RESTS_ON)
def test_without_its_record_an_item_is_not_done(tmp_path, lost) -> None:
    found, records = a_study(tmp_path)
    write_claim(tmp_path, found, records)
    before = rows_of(tmp_path)
    records.pop(lost, None)
    for name in {"split": ["work/split.json"], "made": ["models/made.json"]}.get(lost, ()):
        (tmp_path / name).unlink()
    write_claim(tmp_path, found, records)
    after = rows_of(tmp_path)
    changed = {number for number in before if before[number][0] != after[number][0]}
    assert changed == RESTS_ON[lost]
    for number in changed:
        assert before[number][0] == "answered" and after[number] == ("not done", claim.UNRECORDED)


def test_a_cohort_that_was_given_is_not_called_synthetic(tmp_path) -> None:
    found, records = a_study(tmp_path, synthetic=False)
    for record in records.values():
        record["config"] = CONFIG | {"data": "/secret/kits"}
    records["01_data"]["ceilings"] = [{"tumor_label_version": 0.8}, {"tumor_label_version": None}]
    write_claim(tmp_path, found, records)
    shown, text = rows_of(tmp_path), (tmp_path / "claim.html").read_text(encoding="utf-8")
    assert "ynthetic" not in BeautifulSoup(text, "html.parser").body.text and "secret" not in text
    assert [shown[number][0] for number in (5, 11, 15, 16, 17)] == ["answered"] + ["not done"] * 4
    assert "tumour Dice of 0.800 (n = 1)" in shown[18][1]
    assert shown[7][1].startswith("The cases given with --data, 8 cases.")
    records["01_data"]["ceilings"] = []
    write_claim(tmp_path, found, records)
    assert rows_of(tmp_path)[18][0] == "not done"


def test_cases_without_tumour_and_ensembles_are_told_where_they_were_scored(tmp_path) -> None:
    found, records = a_study(tmp_path)
    rows = records["05_evaluation"]["rows"]
    rows.append({**rows[0], "tumor_truth_ml": 0.0, "tumor_ml": 1.0, "case": "healthy"})
    for row in rows:
        row["ensemble of 2 seeds"] = 0.25
    write_claim(tmp_path, found, records)
    shown = rows_of(tmp_path)
    assert "1 of 2 test cases that have one" in shown[38][1] and "in 1 of 1" in shown[38][1]
    assert "ensemble of 2 seeds, tumour Dice 0.250" in shown[27][1]


def test_a_case_that_was_trained_on_and_tested_is_counted(tmp_path) -> None:
    found, records = a_study(tmp_path)
    file = tmp_path / "work" / "split.json"
    split = json.loads(file.read_text(encoding="utf-8"))
    split["run"]["kidney_train"].append(split["run"]["cascade_test"][0])
    file.write_text(json.dumps(split), encoding="utf-8")
    write_claim(tmp_path, found, records)
    shown = rows_of(tmp_path)
    assert "test the cascade: 1." in shown[20][1] and "of which 1 were seen" in shown[32][1]


def test_the_first_answer_that_can_be_given_is() -> None:
    answers = [
        {"answered": "{a} and {b}", "page": "one.html"},
        {"answered": "only {a}", "page": "{a}.html", "only": "given"},
        {"not done": "neither", "needs": ["02_kidney"]},
    ]
    assert answer(answers, {"a": "1", "b": "2"}, {"any"})["says"] == "1 and 2"
    assert answer(answers, {"a": "1"}, {"any", "given"})["href"] == "1.html"
    assert answer(answers, {"a": "1"}, {"any", "02_kidney"})["says"] == "neither"
    assert answer(answers, {}, {"any"})["says"] == claim.UNRECORDED


def test_a_page_that_is_not_there_is_named_without_a_link(tmp_path) -> None:
    found, records = a_study(tmp_path)
    write_claim(tmp_path, found, records)
    text = (tmp_path / "claim.html").read_text(encoding="utf-8")
    assert not re.findall(r'<a href="0', text) and "04 Ablations" in text
    (tmp_path / "04_ablations.html").touch()
    write_claim(tmp_path, found, records)
    text = (tmp_path / "claim.html").read_text(encoding="utf-8")
    assert text.count('<a href="04_ablations.html#Each-arm-') == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_can_be_read_at_both_widths(browser: Browser, tmp_path, width, scheme) -> None:
    write_claim(tmp_path, *a_study(tmp_path))
    assert browser.faults(tmp_path / "claim.html", width, scheme) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_no_serious_finding(browser: Browser, axe: str, tmp_path, scheme) -> None:
    write_claim(tmp_path, *a_study(tmp_path))
    browser.faults(tmp_path / "claim.html", 400, scheme)
    assert browser.axe(axe) == []
