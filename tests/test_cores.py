"""Cores that a scheduler grants, ranks that a launcher left, and whose commit it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kitslib.commands import main, parser
from kitslib.config import ROOT, cores, launched, usable_cores
from kitslib.training import commit, device_name, start

CODE = "from kitslib.config import usable_cores; print(usable_cores())"
RANKS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}


def in_a_child(**options: object) -> str:
    words = [sys.executable, "-c", CODE]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, **options)
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_the_cores_are_those_that_the_process_may_use() -> None:
    assert in_a_child(preexec_fn=lambda: os.sched_setaffinity(0, {0})) == "1"


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, [2]),
        ("0::/", {"cpu.max": "max 100000"}, []),
        ("0::/user/job", {"user/cpu.max": "300000 100000", "cpu.max": "max 100000"}, [3]),
        ("4:cpu,cpuacct:/job\n3:memory:/job",
         {"cpu,cpuacct/job/cpu.cfs_quota_us": "50000",
          "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, [1]),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("", {}, []),
    ],
)  # fmt: skip
def test_quotas_of_control_groups_count(
    tmp_path: Path, groups: str, files: dict[str, str], found: list[int]
) -> None:
    (tmp_path / "self").write_text(f"{groups}\n" * bool(groups))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert sorted(set(cores.quotas(tmp_path, tmp_path / "self"))) == found


def test_defaults_are_the_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("line", "predict"):
        monkeypatch.setattr(f"kitslib.commands.{module}.usable_cores", lambda: 1)
    assert parser().parse_args(["check", "x"]).jobs == 1
    assert parser().parse_args(["predict", "x", "-o", "y"]).threads == 1


def test_a_machine_is_named_with_the_cores_that_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitslib.training.machine.usable_cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert ", 3 of 8 cores" in device_name()
    monkeypatch.setattr("kitslib.training.machine.usable_cores", lambda: 8)
    assert ", 8 cores" in device_name()


def test_ranks_left_over_make_nothing_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in RANKS.items():  # no MASTER_PORT: no launcher set them
        monkeypatch.setenv(name, value)
    assert not launched()
    assert start(device="cpu").num_processes == 1
    assert "LOCAL_RANK" not in os.environ
    for name, value in {**RANKS, "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launched()
    assert main(["check", "/no/such/folder"]) == 1, "a command that no launcher starts"
    assert not launched() and "WORLD_SIZE" not in os.environ


def test_another_project_s_commit_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / ".gitignore").write_text("place\n")
    inside = tmp_path / "place" / "kitslib"
    inside.mkdir(parents=True)
    (inside / "__init__.py").touch()
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "theirs"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    monkeypatch.setattr("kitslib.training.machine.ROOT", inside.parent)
    assert commit() is None
    monkeypatch.setattr("kitslib.training.machine.ROOT", ROOT)
    ours = commit()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # a hook of another project calls us
    assert commit() == ours


def test_an_installed_package_writes_where_it_is_called(tmp_path: Path) -> None:
    place = tmp_path / "site-packages"
    place.mkdir()
    code = "from kitslib.config import HERE; print(HERE)"
    shutil.copytree(ROOT / "kitslib" / "config", place / "kitslib" / "config")
    shutil.copy(ROOT / "kitslib" / "__init__.py", place / "kitslib")
    environment = {**os.environ, "PYTHONPATH": str(place)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path), done.stderr


def test_there_is_at_least_one_core() -> None:
    assert usable_cores() >= 1
