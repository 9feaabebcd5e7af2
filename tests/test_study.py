"""Which cases a study uses: the stored split, its table, and case ids in short."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from kitslib.config import configure
from kitslib.data import (
    CaseFiles,
    apply_policy,
    case_list,
    drawn_with,
    patient_rows,
    split_rows,
    split_text,
    store_split,
    study_split,
)


def numbered(tmp_path: Path, numbers: list[int]) -> list[CaseFiles]:
    """KiTS19 cases of which nothing is read."""
    path = tmp_path / "file.nii.gz"
    ids = [f"case_{n:05d}" for n in numbers]
    return [CaseFiles(case_id=i, imaging=path, segmentation=path, source="kits19") for i in ids]


def test_the_split_is_stored_with_the_run(tmp_path: Path) -> None:
    found = numbered(tmp_path, list(range(210)))
    config = configure(profile="paper", out=str(tmp_path), options={"cohort.defects": "exclude"})
    used, _ = apply_policy(found, "exclude")
    stored = store_split(config, found, used)
    assert json.loads((config.work / "split.json").read_text()) == json.loads(json.dumps(stored))
    assert sorted(int(case[-5:]) for case in stored["left_out"]) == [23, 68, 125, 133]
    assert all(reason.startswith("policy exclude: ") for reason in stored["left_out"].values())
    assert (stored["policy"], stored["labels"], len(stored["used"])) == ("exclude", "kits19", 206)
    held_out = [case for part in stored["folds"] for case in part["held_out"]]
    assert (
        sorted(held_out) == sorted(stored["used"])
        and len(stored["folds"]) == 5
        and stored["note"] == ""
    )
    run = study_split(config, used)
    assert (
        stored["run"]["tumor_held_out"] == run.tumor_held_out and stored["paper"]["rule"] == "paper"
    )
    assert not list(config.work.glob(".split*"))


def test_the_papers_rule_on_its_210_cases_is_the_papers_split(tmp_path: Path) -> None:
    found = numbered(tmp_path, list(range(210)))
    rows = split_rows(store_split(configure(profile="paper", out=str(tmp_path)), found, found))
    paper = {row["part"]: row for row in rows if row["split"] == "the paper's rule"}
    assert {part: row["cases"] for part, row in paper.items()}["kidney train"] == 190
    assert paper["tumour train"]["numbers"] == "00000-00194"
    assert (paper["tumour held out"]["cases"], paper["tumour held out"]["numbers"]) == (
        15,
        "00195-00209",
    )
    assert [row["cases"] for row in rows if row["split"] == "5 folds"] == [42] * 5


def test_too_few_cases_for_folds_are_said_and_the_unusable_are_named(tmp_path: Path) -> None:
    found = numbered(tmp_path, [0, 1, 2, 3, 9])
    stored = store_split(configure(profile="smoke", out=str(tmp_path)), found, found[:4])
    assert stored["folds"] == [] and "use fewer folds" in stored["note"]
    assert stored["left_out"] == {"case_00009": "image or labels are missing or unusable"}
    text = split_text(stored)
    assert "**Used, 4:** 00000-00003." in text and "**Left out, 1:** case_00009: image" in text
    assert text.endswith(f"No folds: {stored['note']}")


def test_case_lists_are_short() -> None:
    ids = [
        "case_00001",
        "case_00002",
        "case_00003",
        "case_00007",
        "ircad",
        "case_00009",
        "case_00010",
    ]
    assert case_list(ids) == "00001-00003, 00007, ircad, 00009-00010"
    assert case_list([]) == ""


def test_a_folder_of_cases_is_not_drawn(tmp_path: Path) -> None:
    drawn = drawn_with(configure(profile="smoke", out=str(tmp_path)))
    assert list(drawn) == ["seed", "matrix", "spacing_z", "cysts"]
    assert drawn_with(configure(profile="smoke", out=str(tmp_path), data=str(tmp_path))) is None


def test_patients_are_described_as_far_as_kits_json_does(tmp_path: Path) -> None:
    records = [{"gender": "male", "bmi": 20}, {"gender": "female"}, {"gender": "male"}, None]
    files = numbered(tmp_path, [0, 1, 2, 3])
    files = [replace(f, record=r) for f, r in zip(files, records, strict=True)]
    assert patient_rows(files) == [
        {
            "characteristic": "body mass index",
            "cases": 1,
            "values": "median 20.0, from 20.0 to 20.0 in nine of ten",
        },
        {"characteristic": "gender", "cases": 3, "values": "male 2, female 1"},
    ]
    assert patient_rows(files[3:]) == []
