"""The cache of preprocessed cases: content, keys, interruptions, parallel work."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kitslib
from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data import (
    CaseFiles,
    Cohort,
    CohortError,
    canonical_affine,
    find_cases,
    kidney_input,
    prepare,
    stage_labels,
    tumor_input,
    write_imaging,
    write_labels,
)
from kitslib.data import cohort as room
from kitslib.transforms import Grid, restore_labels

SPACING = (3.0, 1.0, 1.0)
KIDNEY = KidneyGrid(spacing_z=3, matrix=16, margin_mm=6)
TUMOR = TumorGrid(spacing_z=1.5, spacing_xy=2, margin_mm=6)


def write_case(data: Path, case_id: str, shape: tuple[int, int, int] = (14, 32, 40)) -> None:
    """Noise, on slices 5 to 8 a kidney of 4 x 8 x 8 voxels with a tumour of 8, a cyst of 4."""
    rng = np.random.default_rng(int(case_id[-5:]))
    labels = np.zeros(shape, np.uint8)
    labels[5:9, 10:18, 20:28] = 1
    labels[6:8, 12:14, 22:24] = 2
    kits23 = labels.copy()
    kits23[5, 10:12, 20:22] = 3
    affine = canonical_affine(SPACING)
    folder = data / case_id
    folder.mkdir(parents=True)
    write_imaging(
        folder / "imaging.nii.gz", rng.integers(-1024, 1500, shape).astype(np.int16), affine
    )
    write_labels(folder / "segmentation.nii.gz", labels, affine)
    write_labels(folder / "segmentation_kits23.nii.gz", kits23, affine)


@pytest.fixture
def files(tmp_path: Path) -> list[CaseFiles]:
    for case_id in ("case_00000", "case_00001"):
        write_case(tmp_path / "data", case_id)
    return find_cases(tmp_path / "data")


def entries(cache: Path) -> list[str]:
    """Names of everything in the stages' folders, hidden ones too."""
    return sorted(path.name for path in cache.glob("*/*"))


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a case was loaded")

    monkeypatch.setattr(room, "load_case", refuse)


def test_a_kidney_entry_is_the_whole_scan_with_ranges(
    files: list[CaseFiles], tmp_path: Path
) -> None:
    prepared = prepare(files, KIDNEY, tmp_path / "cache")
    assert prepared.case_ids == ("case_00000", "case_00001") and len(prepared) == 2
    entry, case = prepared["case_00001"], room.load_case(files[1])
    volume, mapping = kidney_input(case.imaging, case.spacing, KIDNEY)
    assert np.array_equal(entry.imaging, volume) and entry.imaging.dtype == np.int16
    assert (
        np.array_equal(entry.labels, stage_labels(case.labels, mapping))
        and entry.labels.dtype == np.uint8
    )
    assert entry.mask is None and entry.mapping == mapping and entry.spacing == (3, 2, 2)
    assert entry.meta["kidney_range"] == [5, 9] and entry.meta["train_range"] == [3, 11]
    assert entry.meta["volumes_ml"] == pytest.approx(
        {"kidney": 0.244 * 3, "tumor": 0.024, "cyst": 0.012}
    )
    assert np.array_equal(entry.meta["affine"], canonical_affine(SPACING))


def test_a_tumor_entry_is_what_the_cascade_computes_from_a_mask(
    files: list[CaseFiles], tmp_path: Path
) -> None:
    entry, case = prepare(files, TUMOR, tmp_path / "cache")["case_00000"], room.load_case(files[0])
    volume, mask, mapping = tumor_input(case.imaging, case.labels > 0, case.spacing, TUMOR)
    assert np.array_equal(entry.imaging, volume) and np.array_equal(entry.mask, mask)
    assert entry.mapping == mapping and entry.mask.dtype == np.uint8
    assert (entry.mask[entry.labels > 0] == 1).all() and entry.mask.sum() > (entry.labels > 0).sum()
    assert mapping.native == Grid(shape=(14, 32, 40), spacing=SPACING)
    assert set(np.unique(restore_labels(entry.labels, mapping))) == {0, 1, 2, 3}


def test_entries_cannot_be_changed(files: list[CaseFiles], tmp_path: Path) -> None:
    entry = prepare(files, KIDNEY, tmp_path / "cache")["case_00000"]
    assert isinstance(entry.imaging.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        entry.imaging[0] = 0


def test_a_second_run_reads_keys_alone(
    files: list[CaseFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(files, TUMOR, tmp_path / "cache")
    forbid_loading(monkeypatch)
    told: list[tuple[int, int]] = []
    again = prepare(files, replace(TUMOR), tmp_path / "cache", progress=lambda *at: told.append(at))
    assert again.key == first.key and told == [(2, 2)]


def test_progress_counts_every_case(files: list[CaseFiles], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prepare(files[:1], KIDNEY, tmp_path / "cache")
    prepare(files, KIDNEY, tmp_path / "cache", progress=lambda *at: told.append(at))
    assert told == [(1, 2), (2, 2)]


def test_the_key_follows_parameters_labels_sources_and_code(
    files: list[CaseFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    keys = [
        prepare(files, KIDNEY, cache).key,
        prepare(files, replace(KIDNEY, margin_mm=9), cache).key,
        prepare(files, KIDNEY, cache, labels="kits23").key,
    ]
    monkeypatch.setattr(room, "code_key", lambda *rooms: "another version")
    keys.append(prepare(files, KIDNEY, cache).key)
    write_labels(files[0].segmentation, np.ones((14, 32, 40), np.uint8), canonical_affine(SPACING))
    keys.append(prepare(files, KIDNEY, cache).key)
    assert len(set(keys)) == 5
    assert KidneyGrid(spacing_z=3) == KidneyGrid(spacing_z=3.0)


@pytest.mark.parametrize("stage", [KIDNEY, TUMOR])
def test_the_key_covers_the_code_that_makes_an_entry(
    files: list[CaseFiles], tmp_path: Path, stage: KidneyGrid | TumorGrid
) -> None:
    seen: set[str] = set()
    sys.setprofile(lambda frame, event, arg: seen.add(frame.f_code.co_filename))
    try:
        arrays, meta = room._preprocess(room.load_case(files[0]), stage)
        (tmp_path / "tumor").mkdir()
        room._write_entry(tmp_path / "tumor" / "entry", arrays, meta)
    finally:
        sys.setprofile(None)
    package = Path(kitslib.__file__).parent
    code = {Path(file).relative_to(package).as_posix() for file in seen if str(package) in file}
    assert {file for file in code if not file.endswith("__init__.py")} == set(room.ENTRY_CODE)


def test_an_interrupted_write_leaves_nothing(
    files: list[CaseFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = np.save, []

    def interrupted(path: Path, array: np.ndarray) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(path, array)

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(files, TUMOR, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []
    assert prepare(files, TUMOR, tmp_path / "cache")["case_00000"].mask is not None


def test_what_a_killed_process_left_is_swept(files: list[CaseFiles], tmp_path: Path) -> None:
    stage = tmp_path / "cache" / "kidney"
    host = room.socket.gethostname()
    dead, own = stage / f".part-{host}-999999999-abc", stage / f".part-{host}-{os.getpid()}-abc"
    other, old = stage / ".part-elsewhere-1-abc", stage / ".part-elsewhere-1-old"
    for part in (dead, own, other, old):
        part.mkdir(parents=True)
    os.utime(old, (0, 0))
    prepare(files, KIDNEY, tmp_path / "cache")
    assert [part.exists() for part in (dead, own, other, old)] == [False, True, True, False]


@pytest.mark.parametrize("damage", ["truncated", "missing", "no meta"])
def test_a_damaged_entry_is_made_again(files: list[CaseFiles], tmp_path: Path, damage: str) -> None:
    first = prepare(files, KIDNEY, tmp_path / "cache")["case_00000"]
    before = np.array(first.imaging)
    (folder,) = (tmp_path / "cache" / "kidney").glob("case_00000-*")
    if damage == "truncated":
        os.truncate(folder / "imaging.npy", 1000)
    else:
        (folder / ("labels.npy" if damage == "missing" else "meta.json")).unlink()
    again = prepare(files, KIDNEY, tmp_path / "cache")["case_00000"]
    assert np.array_equal(again.imaging, before)


def test_one_broken_case_does_not_hide_the_others(files: list[CaseFiles], tmp_path: Path) -> None:
    write_case(tmp_path / "data", "case_00002")
    broken = tmp_path / "data" / "case_00001" / "imaging.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-2000])
    with pytest.raises(CohortError, match=r"1 of 3 cases.*\n  case_00001: "):
        prepare(find_cases(tmp_path / "data"), KIDNEY, tmp_path / "cache")
    assert [name[:10] for name in entries(tmp_path / "cache")] == ["case_00000", "case_00002"]


def test_a_case_without_kidney_is_named(files: list[CaseFiles], tmp_path: Path) -> None:
    for path in (files[1].segmentation, files[1].segmentation_kits23):
        write_labels(path, np.zeros((14, 32, 40), np.uint8), canonical_affine(SPACING))
    for stage in (KIDNEY, TUMOR):
        with pytest.raises(CohortError, match=r"case_00001: .*empty"):
            prepare(files, stage, tmp_path / "cache")


def test_processes_write_the_same_bytes(files: list[CaseFiles], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    one = prepare(files, TUMOR, tmp_path / "one")
    two = prepare(files, TUMOR, tmp_path / "two", jobs=2, progress=lambda *at: told.append(at))
    assert one.key == two.key and told == [(0, 2), (1, 2), (2, 2)]
    for path in (tmp_path / "one").rglob("*.*"):
        if path.is_file():
            assert (
                path.read_bytes()
                == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
            )


def test_losing_a_race_keeps_the_winners_entry(
    files: list[CaseFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_folder = os.replace

    def rival_first(part: Path, folder: Path) -> None:
        replace_folder(part, folder)  # the rival's
        part.mkdir()
        (part / "file").touch()
        replace_folder(part, folder)

    monkeypatch.setattr(os, "replace", rival_first)
    assert prepare(files[:1], KIDNEY, tmp_path / "cache")["case_00000"].labels.any()
    assert len(entries(tmp_path / "cache")) == 1


def test_cohorts_are_cut_and_copied(files: list[CaseFiles], tmp_path: Path) -> None:
    prepared = prepare(files, KIDNEY, tmp_path / "cache")
    last = prepared.subset(["case_00001"])
    assert last.case_ids == ("case_00001",) and last.key != prepared.key
    assert prepared.subset(prepared.case_ids).key == prepared.key
    prepared["case_00000"]  # opened, which must not travel
    blob = pickle.dumps(prepared)
    assert len(blob) < 1500 and np.array_equal(
        pickle.loads(blob)["case_00000"].imaging, prepared["case_00000"].imaging
    )
    for ask in (prepared.__getitem__, lambda name: prepared.subset([name])):
        with pytest.raises(CohortError, match="case_00009 is not among the 2"):
            ask("case_00009")


def test_a_vanished_entry_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="prepare the cohort again"):
        Cohort({"case_00000": tmp_path / "gone"})["case_00000"]


def test_unusable_requests_are_refused(files: list[CaseFiles], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    unlabelled = replace(files[1], segmentation=None, segmentation_kits23=None)
    for wrong, named in (
        ([], "no cases"),
        ([files[0], files[0]], "case_00000 is listed twice"),
        ([unlabelled], "case_00001 has no segmentation"),
        ([replace(files[1], imaging=None)], "case_00001 has no imaging"),
    ):
        with pytest.raises(CohortError, match=named):
            prepare(wrong, KIDNEY, cache)
    with pytest.raises(CohortError, match="labels"):
        prepare(files, KIDNEY, cache, labels="kits21")
    with pytest.raises(CohortError, match="stage"):
        prepare(files, {"spacing_z": 2}, cache)
    with pytest.raises(CohortError, match="jobs"):
        prepare(files, KIDNEY, cache, jobs=0)
    assert not cache.exists()


@pytest.mark.parametrize(
    "stage", [KidneyGrid(spacing_z=9, matrix=90), TumorGrid(spacing_z=6, region="slice")]
)
def test_preparing_a_tall_case_stays_flat(tmp_path: Path, stage: KidneyGrid | TumorGrid) -> None:
    write_case(tmp_path / "data", "case_00000", shape=(200, 180, 180))
    files = [replace(found, segmentation_kits23=None) for found in find_cases(tmp_path / "data")]
    tracemalloc.start()
    try:
        prepare(files, stage, tmp_path / "cache")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * (200 * 180 * 180) * 2


def test_meta_is_plain_json(files: list[CaseFiles], tmp_path: Path) -> None:
    meta = prepare(files, TUMOR, tmp_path / "cache", labels="kits23_folded")["case_00000"].meta
    (folder,) = (tmp_path / "cache" / "tumor").glob("case_00000-*")
    assert json.loads((folder / "meta.json").read_text(encoding="utf-8")) == meta
    assert meta["labels"] == "kits23_folded" and meta["volumes_ml"]["cyst"] == 0
    assert sorted(meta["sources"]) == [
        "imaging.nii.gz",
        "segmentation.nii.gz",
        "segmentation_kits23.nii.gz",
    ]
    assert meta["stage"] == {
        "name": "tumor",
        "spacing_z": 1.5,
        "spacing_xy": 2.0,
        "region": "slice",
        "margin_mm": 6.0,
        "mask_dilation_mm": 5.0,
        "masking": "after",
        "average": False,
    }


def test_dead_workers_are_reported_with_what_may_have_killed_them(
    files: list[CaseFiles], tmp_path: Path
) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from pathlib import Path\nfrom kitslib.data import find_cases, prepare\n"
        "from kitslib.config import KidneyGrid\n"
        f"prepare(find_cases(Path({str(tmp_path / 'data')!r})), KidneyGrid(spacing_z=3, matrix=16),"
        f" Path({str(tmp_path / 'cache')!r}), jobs=2)\n",
        encoding="utf-8",
    )
    call = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120
    )
    assert call.returncode == 1
    *_, first, second = call.stderr.rstrip().splitlines()
    for line in (first, second):
        assert "case_0000" in line and "fewer jobs" in line and "if __name__ == '__main__'" in line
