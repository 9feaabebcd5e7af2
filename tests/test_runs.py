"""A run's files are whole or absent, and say where they come from."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kitslib.config import configure, read_json, replacing, write_json
from kitslib.training import (
    DEAD_S,
    Run,
    RunError,
    device_name,
    differing,
    models_folder,
    provenance,
    record,
    recorded,
    start,
    summary,
)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(KeyError), replacing(path) as part:
        part.write_text("half")
        raise KeyError
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


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


def test_the_best_weights_come_back_with_their_epoch_and_not_into_another_run(
    tmp_path: Path,
) -> None:
    run, net = Run.open(tmp_path, "net", {"seed": 0, "data": "0f3a"}), nn.Conv2d(1, 2, 3)
    with pytest.raises(RunError, match="no epoch was scored"):
        run.load_best(net)
    run.save_best(net, {"epoch": 3, "dice": 0.9})
    again = nn.Conv2d(1, 2, 3)
    assert run.load_best(again) == {"epoch": 3, "dice": 0.9}
    assert torch.equal(again.weight, net.weight)
    with pytest.raises(RunError, match=r"best\.safetensors: .*data \('0f3a' there, '77b2' here\)"):
        Run(run.folder, {"seed": 0, "data": "77b2"}).load_best(again)


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


def test_a_missing_record_names_the_command_that_makes_it(tmp_path: Path) -> None:
    config = configure(profile="smoke", out=str(tmp_path))
    with pytest.raises(
        RunError,
        match=r"papermill notebooks/03_tumor\.ipynb .* -p arm full -p seed 1 .*run_all\.sh",
    ):
        recorded(config, "03_tumor-full-s1")
    record(config, "03_tumor-full-s1", began=0.0, rows=[1])
    assert recorded(config, "03_tumor-full-s1")["rows"] == [1]


def test_wall_time_counts_overlapping_stages_once(tmp_path: Path) -> None:
    stages = tmp_path / "work" / "records"
    for name, began, ended, more in (
        ("a", 0, 10, {}),
        ("b", 5, 20, {}),
        ("c", 100, 110, {"summary": {"n": 1}}),
    ):
        write_json(stages / f"{name}.json", {"began": began, "ended": ended, **more})
    assert summary(tmp_path) == {"n": 1, "wall_s": 30.0}


def test_summary_without_an_evaluation_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run_all\.sh"):
        summary(tmp_path)


def test_missing_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="kidney"):
        models_folder(tmp_path)


def test_provenance_states_versions_device_and_data(tmp_path: Path) -> None:
    found = provenance(configure(profile="smoke"), title="t")
    assert found["synthetic"] is True and found["title"] == "t"
    assert found["versions"]["torch"] == torch.__version__
    assert "cores" in found["device"] or torch.cuda.is_available()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(RunError, match="no CUDA device"):
        start(device="cuda")


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(RunError, match="'fp16' needs a GPU"):
        start(device="cpu", precision="fp16")


def test_a_second_start_may_ask_for_another_precision() -> None:
    assert start(device="cpu", precision="bf16").mixed_precision == "bf16"
    assert start(device="cpu", precision="no").mixed_precision == "no"


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        ({"avx512_f": True}, "no"),
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
    ],
)
def test_bf16_is_taken_where_the_cpu_has_it_and_not_where_it_is_emulated(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert start(device="cpu").mixed_precision == precision
    assert device_name().endswith("without bf16") == (precision == "no")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.delattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    assert start(device="cpu").mixed_precision == "no"


def test_arrays_beside_the_weights_come_back_and_missing_ones_are_none(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "r", {"a": 1})
    run.save_arrays("maps", one=np.arange(6).reshape(2, 3), two=np.ones(2, np.float16))
    found = run.load_arrays("maps")
    np.testing.assert_array_equal(found["one"], [[0, 1, 2], [3, 4, 5]])
    assert found["two"].dtype == np.float16 and run.load_arrays("others") == {}
    assert not list(run.folder.glob(".maps*"))
