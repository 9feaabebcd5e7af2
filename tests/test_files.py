"""Files that are written whole or not at all; sizes and durations in words."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from kitslib.config import (
    building,
    duration_text,
    read_json,
    replacing,
    size_text,
    write_json,
    write_text,
)
from kitslib.config.files import PART


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(KeyError), replacing(path) as part:
        part.write_text("half")
        raise KeyError
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_ends_as_its_file_does(tmp_path: Path) -> None:
    with replacing(tmp_path / "scan.nii.gz") as part:
        assert part.name.endswith(".nii.gz") and part.parent == tmp_path
        part.write_bytes(b"whole")
    assert (tmp_path / "scan.nii.gz").read_bytes() == b"whole"


def test_folders_are_made_and_damage_is_named(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a" / "b.json", "{half")
    with pytest.raises(ValueError, match=r"b\.json: not readable as JSON"):
        read_json(path)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 kB"), (1_500, "2 kB"), (2.5e6, "2.5 MB"), (3e9, "3.0 GB")]
)
def test_sizes_in_words(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (250, "4 min 10 s"),
     (3720, "1 h 02 min")],
)  # fmt: skip
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        path = write_text(tmp_path / "private.json", "{}")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    for name in ("ä" * 124 + ".nii.gz", "1.2.840." + "7" * 240 + ".json"):
        write_text(tmp_path / name, "whole")
        assert (tmp_path / name).read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 2


def test_an_error_of_writing_has_the_file_s_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught, replacing(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.json")
    with pytest.raises(OSError, match="No space") as caught, building(tmp_path) as place:
        write_text(place / "a.json", "")
        raise OSError(errno.ENOSPC, "No space left on device", str(place / "a.json"))
    assert caught.value.filename == str(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed_and_what_others_make_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f"{PART}-{dead.pid}-abc"
    alive = tmp_path / f"{PART}-{os.getppid()}-abc"
    for folder in (left, alive, tmp_path / ".part-of something else", tmp_path / ".part-"):
        folder.mkdir()
    with building(tmp_path) as place:
        assert place.parent == tmp_path and place.name.startswith(".")
        assert not left.exists() and alive.exists()
    assert not place.exists() and len(list(tmp_path.iterdir())) == 3
