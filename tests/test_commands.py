"""The commands: what they print, what they write, how they fail."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.damaged import SHAPE, write_series
from kitslib import __version__
from kitslib.commands import COMMANDS, main
from kitslib.commands.scans import find_scans, output_files, scan_name
from kitslib.commands.score import label_files
from kitslib.config import PROFILES, ROOT
from kitslib.data import canonical_affine, read_labels, read_scan, write_imaging, write_labels
from kitslib.training import WEIGHTS

AFFINE = canonical_affine((5.0, 1.0, 1.0))


def status(*words: object) -> int:
    """Exit status of a command line."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code)


def a_map(path: Path, start: int = 2) -> Path:
    labels = np.zeros((8, 12, 12), np.uint8)
    labels[start : start + 4, 2:8, 2:8] = 1
    labels[start : start + 2, 3:6, 3:6] = 2
    write_labels(path, labels, AFFINE)
    return path


@pytest.mark.parametrize(
    "words", [[], ["fly"], ["check"], ["predict", "x.nii"], ["phantom", "o", "--cases", "0"]]
)
def test_wrong_arguments_are_one_line_and_status_2(
    words: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert status(*words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture) -> None:
    assert status(command, "--help") == 0
    assert "usage" in capsys.readouterr().out


def test_errors_are_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for words in (
        ["check", tmp_path / "nowhere"],
        ["score", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"],
        ["predict", tmp_path / "a.nii.gz", "-o", tmp_path / "out", "--models", tmp_path],
        ["report", "--index", tmp_path],
        ["report"],
        ["report", "--second", tmp_path],
        ["phantom", tmp_path / "o", "--cases", 2, "--labels", tmp_path],
    ):
        assert status(*words) == 1, words
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith(f"kitslib {words[0]}: "), lines


def test_phantom_then_check_then_score(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cohort = tmp_path / "cohort"
    assert status("phantom", cohort, "--cases", 2, "--seed", 3, "--matrix", 48, "--jobs", 1) == 0
    assert status("check", cohort, "--json", tmp_path / "check.json", "--jobs", 1) == 0
    assert "case_00001" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "check.json").read_text())) == 2
    words = ["score", cohort, cohort, "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv"]
    assert status(*words) == 0
    assert "case_00000" in (tmp_path / "s.csv").read_text()
    assert '"composite"' in (tmp_path / "s.json").read_text()


def test_phantom_renders_ct_around_given_labels(tmp_path: Path) -> None:
    given = tmp_path / "given" / "case_00007"
    given.mkdir(parents=True)
    labels = np.zeros((20, 64, 64), np.uint8)
    labels[6:14, 34:44, 12:24] = labels[6:14, 34:44, 40:52] = 1
    labels[8:11, 36:41, 14:19] = 2
    write_labels(given / "segmentation.nii.gz", labels, canonical_affine((8.0, 5.0, 5.0)))
    assert status("phantom", tmp_path / "out", "--labels", tmp_path / "given", "--jobs", 1) == 0
    made, _ = read_labels(tmp_path / "out" / "case_00007" / "segmentation.nii.gz")
    np.testing.assert_array_equal(made, labels)
    assert (tmp_path / "out" / "case_00007" / "imaging.nii.gz").is_file()


def test_score_names_a_missing_prediction_unless_a_subset_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    truth, found = tmp_path / "truth", tmp_path / "found"
    for number in (1, 2):
        a_map(truth / f"case_0000{number}" / "segmentation.nii.gz")
    a_map(found / "prediction_00001.nii.gz")
    assert status("score", found, truth) == 1
    assert "case_00002" in capsys.readouterr().err
    assert status("score", found, truth, "--subset", "--json", tmp_path / "s.json") == 0
    assert json.loads((tmp_path / "s.json").read_text())["cases"][0]["tumor_dice"] == 1.0


def test_score_refuses_another_grid_by_name(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    a_map(tmp_path / "a.nii.gz")
    write_labels(tmp_path / "b.nii.gz", np.ones((8, 12, 13), np.uint8), AFFINE)
    assert status("score", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz") == 1
    assert "prediction" in capsys.readouterr().err


def test_known_disagreement_of_the_two_label_versions(shared: Path, tmp_path: Path) -> None:
    for case in ("case_00023", "case_00121"):
        files = [
            shared / f / case / "segmentation.nii.gz" for f in ("kits19/data", "kits23/dataset")
        ]
        assert status("score", *files, "--json", tmp_path / "s.json") == 0
        row = json.loads((tmp_path / "s.json").read_text())["cases"][0]
        assert row["tumor_dice"] < 0.05 and row["tk_dice"] > 0.9


def test_predictions_are_named_as_kits19_wants_them(tmp_path: Path) -> None:
    names = {
        "case_00210/imaging.nii.gz": "prediction_00210.nii.gz",
        "case_00210_0000.nii.gz": "prediction_00210.nii.gz",
        "abdomen.nii": "prediction_abdomen.nii.gz",
        "my_case_00210.nii.gz": "prediction_my_case_00210.nii.gz",
    }
    for scan, labels in names.items():
        name = scan_name(tmp_path / scan)
        assert output_files(name, tmp_path / "o")["labels"] == tmp_path / "o" / labels
    one = output_files("00210", tmp_path / "prediction_mine.nii.gz")
    assert one["labels"] == tmp_path / "prediction_mine.nii.gz"
    assert [one[kind].name for kind in ("sidecar", "table", "tumor")] == [
        "prediction_mine.json", "prediction_mine.csv", "probability_mine_tumor.nii.gz",
    ]  # fmt: skip


def test_several_scans_are_not_written_into_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert status("predict", "a.nii.gz", "b.nii.gz", "-o", tmp_path / "mine.nii.gz") == 1
    assert "must be a folder" in capsys.readouterr().err


def test_scans_are_found_in_files_folders_and_cohorts(tmp_path: Path) -> None:
    for number in (7, 8):
        write_imaging(
            tmp_path / "kits" / f"case_0000{number}" / "imaging.nii.gz",
            np.zeros((2, 2, 2), np.int16),
            AFFINE,
        )
    write_imaging(tmp_path / "flat" / "abdomen.nii", np.zeros((2, 2, 2), np.int16), AFFINE)
    write_imaging(
        tmp_path / "flat" / "prediction_abdomen.nii.gz", np.zeros((2, 2, 2), np.int16), AFFINE
    )
    (tmp_path / "empty").mkdir()
    scans, empty = find_scans([tmp_path / "kits", tmp_path / "flat", tmp_path / "empty"])
    assert list(scans) == ["00007", "00008", "abdomen"]
    assert list(empty) == [tmp_path / "empty"]
    scan = tmp_path / "flat" / "abdomen.nii"
    assert find_scans([tmp_path / "flat", scan]) == ({"abdomen": scan}, {}), "once"


def test_files_that_a_killed_write_left_are_no_scans_and_no_label_maps(tmp_path: Path) -> None:
    left = tmp_path / ".abdomen.nii.gz.0123abcd.nii.gz"  # as config.replacing names them
    a_map(left)
    scans, empty = find_scans([tmp_path])
    assert not scans and "found none" in str(empty[tmp_path])
    a_map(tmp_path / "abdomen.nii.gz")
    a_map(tmp_path / "case_00003" / ".imaging.nii.gz.0123abcd.nii.gz")
    assert find_scans([tmp_path])[0] == {"abdomen": tmp_path / "abdomen.nii.gz"}
    assert label_files(tmp_path) == {"abdomen": tmp_path / "abdomen.nii.gz"}
    (tmp_path / "abdomen.nii.gz").unlink()
    a_map(tmp_path / "case_00004" / "imaging.nii.gz")
    a_map(tmp_path / ".case_00005" / "imaging.nii.gz")
    assert list(find_scans([tmp_path])[0]) == ["00004"]


def test_label_files_are_found_by_case(tmp_path: Path) -> None:
    a_map(tmp_path / "case_00003" / "segmentation.nii.gz")
    a_map(tmp_path / "flat" / "prediction_00003.nii.gz")
    assert list(label_files(tmp_path / "flat")) == ["case_00003"]
    assert list(label_files(tmp_path / "case_00003" / "segmentation.nii.gz")) == ["case_00003"]


def test_slices_given_one_by_one_are_their_series_once(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct")
    scans, empty = find_scans([*paths[2:], tmp_path / "ct.zip"])
    assert scans == {paths[2].name: paths[2], "ct": tmp_path / "ct.zip"} and not empty
    assert read_scan(paths[2]).imaging.shape == SHAPE


# terminals, pipes, files that are asked for


def in_a_process(*words: object, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kitslib", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)


def test_a_pipe_that_closes_ends_a_command_quietly(tmp_path: Path) -> None:
    a_map(tmp_path / "a.nii.gz")
    reader, writer = os.pipe()
    os.close(reader)
    done = in_a_process("score", tmp_path / "a.nii.gz", tmp_path / "a.nii.gz", stdout=writer)
    os.close(writer)
    assert done.returncode == 141
    assert not [line for line in done.stderr.splitlines() if "scored: " not in line]


def test_a_terminal_without_our_letters_shows_question_marks(tmp_path: Path) -> None:
    a_map(tmp_path / "case_ä" / "segmentation.nii.gz")
    odd = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = in_a_process("check", tmp_path, stdout=subprocess.PIPE, env=odd)
    assert "case_?" in done.stdout and "Traceback" not in done.stderr


def test_closed_outputs_end_nothing(tmp_path: Path) -> None:
    a_map(tmp_path / "a.nii.gz")
    words = f"{sys.executable} -m kitslib score {tmp_path}/a.nii.gz {tmp_path}/a.nii.gz >&- 2>&-"
    assert subprocess.run(["bash", "-c", words], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("place", ["folder", "file/x.json"])
def test_a_file_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture, place: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert status("check", tmp_path / "no such cohort", "--json", tmp_path / place) == 2
    assert "--json" in capsys.readouterr().err


def test_info_says_what_is_installed(capsys: pytest.CaptureFixture) -> None:
    assert status("info", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    for stage, about in found["networks"].items():
        weights = (WEIGHTS / stage / "weights.safetensors").read_bytes()
        assert about["sha256"] == hashlib.sha256(weights).hexdigest()
        assert about["bytes"] == len(weights) and about["parameters"] * 4 < len(weights) * 1.1
    assert set(found["profiles"]) == set(PROFILES)
    smoke = found["profiles"]["smoke"]
    assert smoke["trainings"] == 1 + 2 * 2 + 2 * 2 and smoke["cases"] == 6
    assert found["devices"][0]["device"] == "cpu" and found["software"]["kitslib"] == __version__
    assert found["folders"]["results"] == str(ROOT / "reports")
    assert status("info") == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 30 and max(map(len, text.splitlines())) < 130
    for word in ("cpu", "kidney", "tumor", "study", found["networks"]["tumor"]["sha256"][:16]):
        assert word in text
