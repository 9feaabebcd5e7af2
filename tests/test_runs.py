"""A run's files are whole or absent, and belong to its settings."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kitslib.training import DEAD_S, Run, RunError, differing


def test_other_settings_get_another_folder_and_the_same_the_same(tmp_path: Path) -> None:
    first = Run.open(tmp_path, "kidney", {"lr": 1e-3, "cases": ("a", "b")})
    assert Run.open(tmp_path, "kidney", {"cases": ["a", "b"], "lr": 1e-3}).folder == first.folder
    assert Run.open(tmp_path, "kidney", {"lr": 1e-4, "cases": ("a", "b")}).folder != first.folder
    assert Run.load(first.folder).settings == {"lr": 1e-3, "cases": ["a", "b"]}


def test_a_checkpoint_of_other_settings_is_refused_by_naming_them(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "kidney", {"training": {"lr": 1e-3}, "seed": 0})
    run.save_checkpoint({"network": {}})
    other = Run(run.folder, {"training": {"lr": 1e-4}, "seed": 0})
    with pytest.raises(RunError, match=r"training\.lr \(0\.001 there, 0\.0001 here\)"):
        other.load_checkpoint()


def test_a_checkpoint_knows_its_settings_and_versions(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "kidney", {"data": "0f3a", "seed": 0})
    run.save_checkpoint({"network": {}})
    state = run.load_checkpoint()
    assert state["settings"] == {"data": "0f3a", "seed": 0}
    assert state["versions"]["torch"] == torch.__version__


def test_parts_of_writers_killed_long_ago_are_swept_and_those_at_work_left(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "net", {})
    old, new = run.folder / ".last.pt.abc", run.folder / ".last.pt.def"
    for part in (old, new):
        part.write_bytes(b"half")
    long_ago = time.time() - 2 * DEAD_S
    os.utime(old, (long_ago, long_ago))
    Run.open(tmp_path, "net", {})
    assert not old.exists() and new.exists()


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "kidney", {})
    (run.folder / "last.pt").write_bytes(b"half a file")
    with pytest.raises(RunError, match=r"last\.pt: damaged"):
        run.load_checkpoint()


def test_final_weights_come_back_to_the_bit(tmp_path: Path) -> None:
    run, net = Run.open(tmp_path, "net", {"a": 1}), nn.Conv2d(1, 2, 3)
    with pytest.raises(RunError, match="not come to its end"):
        run.load_weights(nn.Conv2d(1, 2, 3))
    run.save_checkpoint({})
    run.finish(net)
    again = run.load_weights(nn.Conv2d(1, 2, 3))
    assert torch.equal(again.weight, net.weight)
    assert not (run.folder / "last.pt").exists()


def test_differing_names_added_and_removed_keys() -> None:
    assert differing({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}) == []
    assert differing({"b": {"c": 2}}, {"b": {"d": 2}}) == [
        "b.c (2 there, None here)",
        "b.d (None there, 2 here)",
    ]


def test_arrays_beside_the_weights_come_back_and_missing_ones_are_none(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "r", {"a": 1})
    run.save_arrays("maps", one=np.arange(6).reshape(2, 3), two=np.ones(2, np.float16))
    found = run.load_arrays("maps")
    np.testing.assert_array_equal(found["one"], [[0, 1, 2], [3, 4, 5]])
    assert found["two"].dtype == np.float16 and run.load_arrays("others") == {}
    assert not list(run.folder.glob(".maps*"))
