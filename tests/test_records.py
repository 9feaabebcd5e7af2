"""A record belongs to one study, and says where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kitslib.config import configure, read_json, write_json
from kitslib.training import (
    RunError,
    begin,
    models_folder,
    provenance,
    record,
    recorded,
    records,
    stored_rules,
    summary,
)


def test_a_missing_record_names_the_command_that_makes_it(tmp_path: Path) -> None:
    config = configure(profile="smoke", out=str(tmp_path))
    with pytest.raises(
        RunError,
        match=r"papermill notebooks/03_tumor\.ipynb .* -p arm full -p seed 1 .*run_all\.sh",
    ):
        recorded(config, "03_tumor-full-s1")
    record(config, "03_tumor-full-s1", began=0.0, rows=[1])
    assert recorded(config, "03_tumor-full-s1")["rows"] == [1]


def test_the_rules_are_stored_before_the_first_score_and_each_change_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(profile="smoke", out=str(tmp_path))
    begin(config, "01_data")
    first = stored_rules(config)
    begin(config, "03_tumor-full-s0")
    assert len(first) == 1 and stored_rules(config) == first
    monkeypatch.setattr(records, "code_key", lambda *places: "others")
    begin(config, "05_evaluation")
    now = stored_rules(config)
    assert now[:1] == first and len(now) == 2 and now[1]["key"] != first[0]["key"]


def test_a_summary_names_each_machine_and_counts_overlapping_stages_once(tmp_path: Path) -> None:
    stages = tmp_path / "work" / "records"
    for name, began, ended, more in (
        ("a", 0, 10, {"device": "one"}),
        ("b", 5, 20, {"device": "another"}),
        ("c", 100, 110, {"device": "one", "summary": {"n": 1}}),
    ):
        times = {"began": began, "ended": ended, "processor_s": 5.5}
        write_json(stages / f"{name}.json", times | more)
    found = {"n": 1, "wall_s": 30.0, "processor_s": 16.5}
    assert summary(tmp_path) == {**found, "device": "another and one"}


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


def test_other_settings_have_another_folder_that_is_named_after_them(tmp_path: Path) -> None:
    plain = configure(profile="smoke", out=str(tmp_path))
    options = {"tumor.epochs": 20, "tumor.lr": 0.01, "seeds": [0, 1, 2]}
    other = configure(profile="smoke", out=str(tmp_path), options=options)
    assert other.reports.name == "smoke+seeds=0,1,2+tumor.epochs=20"  # 0.01 is the profile's own
    record(plain, "03_tumor-full-s0", began=0.0, rows=[1])
    began = begin(other, "03_tumor-full-s0")
    record(other, "03_tumor-full-s0", began=began, rows=[2])
    assert recorded(plain, "03_tumor-full-s0")["rows"] == [1]
    assert recorded(other, "03_tumor-full-s0")["rows"] == [2]


def test_a_foreign_record_is_refused_by_name_with_the_command_that_mends_it(tmp_path: Path) -> None:
    plain = configure(profile="smoke", out=str(tmp_path))
    other = configure(profile="smoke", out=str(tmp_path), options={"tumor.epochs": 20})
    path = record(other, "03_tumor-full-s0", began=0.0)
    (plain.work / "records").mkdir(parents=True)
    path.rename(plain.work / "records" / path.name)
    with pytest.raises(
        RunError, match=r"03_tumor-full-s0\.json .*tumor\.epochs \(20 there, 3"
    ) as told:
        recorded(plain, "03_tumor-full-s0")
    assert f"./run_all.sh --profile smoke --out {tmp_path}" in str(told.value)
    with pytest.raises(RunError, match=r"out, or remove the record"):
        begin(plain, "03_tumor-full-s0")


def test_a_record_of_other_data_is_not_written_over(tmp_path: Path) -> None:
    plain = configure(profile="smoke", out=str(tmp_path))
    record(plain, "01_data", began=0.0)
    real = configure(profile="smoke", out=str(tmp_path), data=str(tmp_path))
    with pytest.raises(RunError, match=r"data \(None there"):
        begin(real, "01_data")
    assert begin(plain, "01_data") > 0


def test_a_record_of_other_code_is_refused(tmp_path: Path) -> None:
    config = configure(profile="smoke", out=str(tmp_path))
    path = record(config, "02_kidney", began=0.0, dice=0.9)
    assert recorded(config, "02_kidney")["dice"] == 0.9
    write_json(path, read_json(path) | {"code": "another", "commit": "abc"})
    with pytest.raises(RunError, match=r"its code \(commit abc there"):
        recorded(config, "02_kidney")
    assert begin(config, "02_kidney") > 0  # its own notebook makes it anew
