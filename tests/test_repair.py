"""`check --repair` fetches what is broken, from the server of the tests of `fetch`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_fetch import LABELS, Host, call, host, imaging, packed, require_whole

from kitslib.commands import main

assert host  # a fixture


@pytest.fixture
def cohort(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two fetched cases, and one of another source."""
    monkeypatch.setenv("KITSLIB_MIRROR", host.url)
    assert call(host, tmp_path) == 0
    return tmp_path


def check(folder: Path, *words: str) -> int:
    return main(["check", str(folder), "--jobs", "1", *words])


def test_what_is_broken_is_fetched_and_nothing_else(host: Host, cohort: Path) -> None:
    first, second = cohort / "case_00001", cohort / "case_00002"
    whole = (first / "imaging.nii.gz").read_bytes()
    (first / "imaging.nii.gz").write_bytes(whole[: len(whole) // 2])
    (second / "segmentation.nii.gz").write_bytes(packed(np.full((6, 40, 40), 9, np.uint8)))
    (second / "imaging.nii.gz").unlink()
    assert check(cohort) == 1
    host.log.clear()
    assert check(cohort, "--repair") == 0
    require_whole(host, cohort, 1, 2)
    assert (second / "segmentation.nii.gz.old1").is_file()
    assert not host.asked(f"{LABELS}/case_00001/segmentation.nii.gz")
    host.log.clear()
    assert check(cohort, "--repair") == 0 and host.log == []


def test_imaging_stored_as_int16_stays_so(host: Host, cohort: Path) -> None:
    assert call(host, cohort, "--int16") == 0
    path = cohort / "case_00001" / "imaging.nii.gz"
    small = path.read_bytes()
    path.write_bytes(small[:-100])
    assert check(cohort, "--repair") == 0 and path.read_bytes() == small


def test_what_cannot_be_fetched_keeps_its_name(
    host: Host, cohort: Path, capsys: pytest.CaptureFixture
) -> None:
    labels, own = cohort / "case_00002" / "segmentation.nii.gz", cohort / "mine"
    broken = packed(np.full((6, 40, 40), 9, np.uint8))
    labels.write_bytes(broken)
    host.files.pop(f"{LABELS}/case_00002/segmentation.nii.gz")
    own.mkdir()
    (own / "imaging.nii.gz").write_bytes(packed(imaging(5) + 1024))
    assert check(cohort, "--repair") == 1
    assert labels.read_bytes() == broken
    assert "mine: cannot be fetched" in capsys.readouterr().err
    assert (own / "imaging.nii.gz").read_bytes() == packed(imaging(5) + 1024)
