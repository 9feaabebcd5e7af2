"""Damaged scans: refused in a sentence, or read to the right values; 400 by the benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.damaged import GOOD, PACKED, PLAIN, SERIES, damaged, predicted, verdict

KINDS = len(PLAIN) + len(PACKED) + len(SERIES) + 3


@pytest.mark.parametrize("seed", range(3 * KINDS))
def test_a_damaged_scan_is_refused_or_read_rightly(tmp_path: Path, seed: int) -> None:
    item = damaged(seed, tmp_path)
    result, said = verdict(item)
    assert result in GOOD, said
    if result == "refused":
        assert item.path.name in said.replace("/", " ") and "\n" not in said and len(said) < 500


def test_seeds_draw_every_kind_and_the_same_again(tmp_path: Path) -> None:
    first = [damaged(seed, tmp_path / "a") for seed in range(KINDS)]
    again = [damaged(seed, tmp_path / "b") for seed in range(KINDS)]
    assert len({item.kind for item in first}) == KINDS
    for one, other in zip(first, again, strict=True):
        if one.path.is_file():
            assert one.path.read_bytes() == other.path.read_bytes(), one.kind


def test_a_batch_of_damaged_scans_goes_on_and_leaves_whole_files(tmp_path: Path) -> None:
    items = [damaged(seed, tmp_path / "in") for seed in range(200, 200 + KINDS)]
    said, broken = predicted(items, tmp_path / "out")
    assert "Traceback" not in said and not broken
    done = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    for item in items:
        name = item.path.name.partition(".")[0]
        refused = f"kitslib predict: {item.path}: " in said
        assert refused != (f"prediction_{name}.nii.gz" in done), item.kind
