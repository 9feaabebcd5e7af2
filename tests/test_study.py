"""Which cases a study uses: the stored split, its table, and case ids in short."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from kitslib.config import configure, key, write_json
from kitslib.data import (
    CaseError,
    CaseFiles,
    CaseReport,
    apply_policy,
    canonical_affine,
    case_list,
    check_case,
    drawn_with,
    find_cases,
    patient_rows,
    require_study,
    split_rows,
    split_text,
    store_split,
    study_files,
    study_reports,
    study_split,
    write_imaging,
    write_labels,
)

AFFINE = canonical_affine((5.0, 3.0, 3.0))


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
    assert stored["left_out"] == {"case_00009": "image or kits19 labels are missing"}
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


# one list of cases for all notebooks


def cohort(folder: Path, tumors: Sequence[bool]) -> Path:
    """Cases of 8 × 12 × 12 voxels, with a tumour or without."""
    for number, tumor in enumerate(tumors):
        labels = np.zeros((8, 12, 12), np.uint8)
        labels[2:6, 2:8, 2:8] = 1
        labels[2:4, 3:6, 3:6] = 1 + tumor
        imaging = np.full(labels.shape, -1000, np.int16)
        imaging[labels > 0] = 100
        imaging += np.int16(number)  # no two are alike
        case = folder / f"case_{number:05}"
        write_imaging(case / "imaging.nii.gz", imaging, AFFINE)
        write_labels(case / "segmentation.nii.gz", labels, AFFINE)
    return folder


def ids(files: Sequence[CaseFiles]) -> list[str]:
    return [item.case_id for item in files]


def spoil(folder: Path, number: int) -> None:
    """Store a case's imaging as scanners do, 1024 too high: the check calls it unusable."""
    path = folder / f"case_{number:05}" / "imaging.nii.gz"
    write_imaging(
        path, np.full((8, 12, 12), 24, np.int16) + np.arange(12, dtype=np.int16) * 99, AFFINE
    )


def test_what_the_check_calls_unusable_is_in_no_notebook_s_list(tmp_path: Path) -> None:
    folder = cohort(tmp_path / "data", [True] * 6)
    spoil(folder, 3)
    config = configure(profile="smoke", data=str(folder), out=str(tmp_path / "out"))
    reports = study_reports(config, folder, jobs=1)
    sound = [report.case_id for report in reports if not report.unusable]
    used = study_files(config, folder)
    assert ids(used) == sound and "case_00003" not in sound and len(sound) == 5
    stored = store_split(config, find_cases(folder), used)
    assert list(stored["left_out"]) == ["case_00003"]
    assert "subtract the rescale intercept" in stored["left_out"]["case_00003"]
    alone = configure(profile="smoke", data=str(folder), out=str(tmp_path / "other"))
    assert ids(study_files(alone, folder)) == sound, "a notebook that runs without the first"
    assert stored["run"] == asdict(study_split(alone, study_files(alone, folder)))


def test_a_verdict_is_kept_until_files_or_check_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, checked = cohort(tmp_path / "data", [True] * 5), []
    config = configure(profile="smoke", data=str(folder), out=str(tmp_path / "out"))
    study_reports(config, folder, jobs=1)

    def counted(files: CaseFiles) -> CaseReport:
        checked.append(files.case_id)
        return check_case(files)

    monkeypatch.setattr("kitslib.data.study.check_case", counted)
    assert len(study_files(config, folder)) == 5 and checked == []
    spoil(folder, 1)
    assert "case_00001" in ids(study_files(config, folder, check=False)) and checked == []
    assert "case_00001" not in ids(study_files(config, folder)) and checked == ["case_00001"]
    assert "case_00001" not in ids(study_files(config, folder, check=False))
    monkeypatch.setattr("kitslib.data.study.code_key", lambda *places: "other code")
    assert len(study_files(config, folder)) == 4 and len(checked) == 6
    (config.store / "checks.json").write_text("{half")
    assert len(study_files(config, folder)) == 4


@pytest.mark.parametrize(
    ("tumors", "said"),
    [
        ([True] * 3, "expected at least 4 cases"),
        ([False] * 7, "to train the tumour network on has a tumour"),
        ([False] * 6 + [True], "to train the tumour network on has a tumour"),
        ([True] * 6 + [False], "held out to test it on has a tumour"),
        ([True, False, False, True], ""),
    ],
)
def test_a_cohort_that_no_study_can_be_made_of_is_refused(
    tmp_path: Path, tumors: list[bool], said: str
) -> None:
    folder = cohort(tmp_path / "data", tumors)
    config = configure(
        profile="smoke", data=str(folder), out=str(tmp_path), options={"cohort.held_out": 1}
    )
    files = study_files(config, folder)
    if said:
        with pytest.raises(CaseError, match=said):
            require_study(config, files)
    else:
        require_study(config, files)


def listing(folder: Path) -> str:
    """The key of a cohort's files, by the Snakefile's own function."""
    text = (ROOT / "Snakefile").read_text(encoding="utf-8")
    found: dict[str, object] = {}
    exec(re.search(r"def listing\(folder\):.*?\n\n\n", text, re.DOTALL).group(), found)
    return key(found["listing"](folder))


def test_the_engine_watches_the_cases_also_through_links_and_nothing_else(tmp_path: Path) -> None:
    store, linked = cohort(tmp_path / "store", [True] * 3), tmp_path / "linked"
    linked.mkdir()
    for case in store.iterdir():
        (linked / case.name).symlink_to(case)
    for folder in (store, linked):
        before = listing(folder)
        out = folder / "reports" / "work"
        out.mkdir(parents=True)
        (out / "record.json").write_text("{}")
        assert listing(folder) == before, "--out inside --data"
        spoil(store, 2)
        assert listing(folder) != before
        before = listing(folder)
        os.utime(store / "case_00000" / "segmentation.nii.gz", (1, 1))
        assert listing(folder) != before
        cohort(store, [True] * 3)


def test_the_cascade_has_a_studys_first_seed(tmp_path: Path) -> None:
    given = {"profile": "smoke", "data": "", "out": str(tmp_path), "options": {"seeds": [3, 4]}}
    file = write_json(tmp_path / "study.json", given)
    words = ["snakemake", "--dry-run", "--printshellcmds", "--cores", "1", "--configfile", file]
    words += ["--snakefile", ROOT / "Snakefile", "--directory", tmp_path, "--nolock"]
    said = subprocess.run(words, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    for notebook in ("02_kidney", "05_evaluation"):
        ours = f"notebooks/{notebook}.ipynb -k"  # not an arm's
        (command,) = [line for line in said.stdout.splitlines() if ours in line]
        assert "-p seed 3" in command
    assert "seed 0" not in said.stdout
