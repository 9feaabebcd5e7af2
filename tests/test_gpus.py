"""Every stage has GPUs of its own: run_all.sh, Snakefile and cards.sh with pretended GPUs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMI = """#!/bin/bash
for i in 0 1 2 3; do echo "GPU $i: pretended (UUID: GPU-$i)"; done
"""
PYTHON = f"""#!/bin/bash
case "$*" in
  *"kitslib preflight"*) exit 0 ;;
  *"kitslib report --index"*) cd "$5"; touch index.html summary.json rerun.html claim.html
    touch ro-crate.zip ;;
  *"kitslib report"*) touch "$5" ;;
  *"papermill.cli"*) shift 2; exec papermill "$@" ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
# a stage: notes its GPUs while it works, until as many as wanted have been at work at once for the
# first time; one is killed in its first attempt and leaves, as a notebook's engine does its kernel,
# a process that works on for a while
PAPERMILL = r"""#!/bin/bash
name=$(basename "$2" .ipynb)
echo "$name begin ${CUDA_VISIBLE_DEVICES-none} $(date +%s.%N)" >>"$NOTES"
if [ "$name" = "${KILLED:-}" ] && mkdir "$NOTES.killed" 2>/dev/null; then
  work="sleep 3; echo $name end $CUDA_VISIBLE_DEVICES \$(date +%s.%N) >>$NOTES"
  python3 -c "import subprocess, sys; subprocess.Popen(sys.argv[1:])" bash -c "$work"
  kill -9 $$
fi
mkdir -p "$NOTES.busy/$name"
for _ in {1..300}; do
  [ "$(ls "$NOTES.busy" | wc -l)" -lt "${AT_ONCE:-1}" ] || touch "$NOTES.enough"
  [ "$name" != 01_data ] && [ ! -e "$NOTES.enough" ] || break
  sleep 0.1
done
sleep 0.3
rmdir "$NOTES.busy/$name"
echo "$name end ${CUDA_VISIBLE_DEVICES-none} $(date +%s.%N)" >>"$NOTES"
folder=$(dirname "$(dirname "$2")")
mkdir -p "$folder/records"
echo '{}' >"$folder/records/$name.json"
touch "$2"
"""
ACCELERATE = """#!/bin/bash
echo "accelerate begin ${CUDA_VISIBLE_DEVICES-none} $(date +%s.%N)" >>"$NOTES"
echo "accelerate end ${CUDA_VISIBLE_DEVICES-none} $(date +%s.%N)" >>"$NOTES"
echo "$*" >"$NOTES.launched"
"""
SNAKEMAKE = """#!/bin/bash
echo "cards ${CUDA_VISIBLE_DEVICES-unset}, locks ${KITS_CARDS:-none}, processes $KITS_PROCESSES"
echo "given $*"
"""


@pytest.fixture
def pretended(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with four GPUs, whose stages compute nothing."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    programs = {
        "nvidia-smi": SMI,
        "python": PYTHON,
        "papermill": PAPERMILL,
        "accelerate": ACCELERATE,
    }
    for name, text in programs.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    (folder / "snakemake").symlink_to(shutil.which("snakemake"))
    wanted = 'cat requirements.txt constraints.txt pyproject.toml | cksum; echo "$PWD"'
    stamp = subprocess.run(["bash", "-c", wanted], cwd=ROOT, capture_output=True, check=True).stdout
    (folder.parent / ".kitslib-stamp").write_bytes(stamp)
    kept = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "KITS_CARDS")}
    return kept | {
        "VIRTUAL_ENV": str(folder.parent), "NOTES": str(tmp_path / "notes"),
        "PATH": f"{folder}:{os.environ['PATH']}",
    }  # fmt: skip


def run_all(environment: dict[str, str], out: Path, *words: str) -> subprocess.CompletedProcess:
    command = ["bash", "run_all.sh", "--profile", "smoke", "--out", str(out), *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def notes(environment: dict[str, str]) -> list[tuple[str, str, list[str]]]:
    """What stages that need a GPU noted, in time order: name, "begin" or "end", GPUs."""
    found = []
    for line in Path(environment["NOTES"]).read_text().splitlines():
        name, what, cards, seconds = line.split()
        if name not in ("01_data", "04_ablations"):
            found.append((float(seconds), name, what, cards.split(",")))
    return [note for _, *note in sorted(found)]


def most_at_once(noted: list[tuple[str, str, list[str]]]) -> int:
    """The most GPUs that were at work; none of them is at work for two stages at once."""
    at_work: dict[str, str] = {}  # of a GPU: the stage
    most = 0
    for name, what, cards in noted:
        if what == "end":
            assert all(at_work.pop(card) == name for card in cards)
            continue
        assert not set(cards) & set(at_work), f"{name} has {cards}, at work: {at_work}"
        at_work |= dict.fromkeys(cards, name)
        most = max(most, len(at_work))
    assert not at_work
    return most


def test_one_call_makes_everything_anew_that_is_of_older_code(
    pretended: dict[str, str], tmp_path: Path
) -> None:
    call = partial(run_all, pretended, tmp_path / "out", "--set", "seeds=[0]")
    assert call().returncode == 0
    Path(pretended["NOTES"]).unlink()
    assert call().returncode == 0
    assert not Path(pretended["NOTES"]).exists()  # nothing to do
    (work,) = tmp_path.glob("out/*/work")
    behind = [file.stem for file in work.glob("records/0[235]*.json")]
    for older, anew in ("data", []), ("", sorted(behind)):
        for file in work.glob(".snakemake/metadata/*"):
            made = json.loads(file.read_text(encoding="utf-8"))
            if made["rule"] not in ("page", "index") and older in ("", made["rule"]):
                file.write_text(json.dumps(made | {"params": ["'older'"]}), encoding="utf-8")
        assert call().returncode == 0
        assert sorted(name for name, what, _ in notes(pretended) if what == "begin") == anew
        Path(pretended["NOTES"]).unlink()


def test_no_gpu_is_used_twice_and_a_killed_stage_gives_its_own_back(
    pretended: dict[str, str], tmp_path: Path
) -> None:
    arms, killed = ["baseline", "multi_scale", "se", "full"], "03_tumor-full-s0"
    words = ["--jobs", "9", "--set", f"arms={json.dumps(arms)}"]
    call = run_all(pretended | {"KILLED": killed, "AT_ONCE": "4"}, tmp_path / "out", *words)
    assert call.returncode == 0, call.stderr[-2000:]
    noted = notes(pretended)
    assert most_at_once(noted) == 4
    begun = [name for name, what, _ in noted if what == "begin"]
    assert begun.count(killed) == 2, "killed once, and executed again"
    assert len(set(begun)) == 3 + len(arms) + 1


def test_a_training_by_two_processes_has_two_gpus(
    pretended: dict[str, str], tmp_path: Path
) -> None:
    words = ["--jobs", "9", "--gpus", "3", "--processes", "2", "--set", "kidney.epochs=2"]
    call = run_all(pretended, tmp_path / "out", *words)
    assert call.returncode == 0, call.stderr[-2000:]
    noted = notes(pretended)
    assert most_at_once([note for note in noted if note[0] != "accelerate"]) <= 3
    cards = {name: found for name, _, found in noted}
    assert cards["accelerate"] == cards["02_kidney"]
    assert {name: len(found) for name, found in cards.items() if len(found) > 1} == {
        "accelerate": 2, "02_kidney": 2,
    }  # fmt: skip
    launched = Path(pretended["NOTES"] + ".launched").read_text()
    assert "--num_processes 2 " in launched and "-m kitslib train kidney " in launched
    assert "--profile smoke " in launched and launched.strip().endswith("=2 --seed 0")
    again = run_all(pretended, tmp_path / "out", *words[:2], "--gpus", "1", *words[-2:])
    assert again.returncode == 0 and notes(pretended) == noted, "a second call does nothing"


@pytest.mark.parametrize(
    ("words", "set_before", "used"),
    [
        ([], None, "0,1,2,3"),
        (["--gpus", "2"], None, "0,1"),
        ([], "2,3", "2,3"),
        (["--gpus", "1"], "GPU-aa,GPU-bb", "GPU-aa"),
    ],
)
def test_which_gpus_are_used(
    pretended: dict[str, str], tmp_path: Path, words: list[str], set_before: str | None, used: str
) -> None:
    found = environment_of(pretended, tmp_path, words, set_before)
    assert f"cards {used}, locks {tmp_path / 'out' / 'work' / 'cards'}, processes 1" in found
    assert f"--resources gpu={used.count(',') + 1} " in found


@pytest.mark.parametrize(
    ("words", "set_before", "seen"),
    [(["--gpus", "0"], None, ""), ([], "", ""), ([], "-1", "-1"), (["--gpus", "0"], "2", "")],
)
def test_without_gpus_there_is_no_limit_and_no_lock(
    pretended: dict[str, str], tmp_path: Path, words: list[str], set_before: str | None, seen: str
) -> None:
    found = environment_of(pretended, tmp_path, [*words, "--processes", "2"], set_before)
    assert f"cards {seen}, locks none, processes 2" in found and "--resources" not in found


def environment_of(
    pretended: dict[str, str], tmp_path: Path, words: list[str], set_before: str | None
) -> str:
    """What the engine is given."""
    engine = Path(pretended["VIRTUAL_ENV"]) / "bin" / "snakemake"
    engine.unlink()
    engine.write_text(SNAKEMAKE, encoding="utf-8")
    engine.chmod(0o755)
    if set_before is not None:
        pretended = pretended | {"CUDA_VISIBLE_DEVICES": set_before}
    call = run_all(pretended, tmp_path / "out", *words)
    assert call.returncode == 0, call.stderr
    return call.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--gpus", "5"], 1, "--gpus 5: 4 can be used"),
        (["--gpus", "two"], 2, "--gpus: 'two' is not a number"),
        (["--processes", "0"], 2, "--processes: '0' is not a number"),
        (["--processes", "3", "--gpus", "2"], 1, "needs as many GPUs, 2 can be used"),
    ],
)
def test_gpus_that_are_not_there_are_refused_in_one_sentence(
    pretended: dict[str, str], tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    call = run_all(pretended, tmp_path / "out", *words)
    assert call.returncode == status and said in call.stderr
    assert len(call.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_batch_that_cannot_be_shared_out_is_refused_at_the_start(
    pretended: dict[str, str], tmp_path: Path
) -> None:
    words = ["--gpus", "0", "--processes", "3"]
    call = run_all(pretended, tmp_path / "out", *words)
    assert call.returncode == 1 and not Path(pretended["NOTES"]).exists()
    said = "kidney.batch: 2 cannot be shared out equally to --processes 3 with kidney.accumulate 1;"
    assert f"{said} use --set kidney.batch=3" in call.stderr.splitlines()


def test_the_last_process_of_a_stage_gives_its_gpu_back(tmp_path: Path) -> None:
    """A killed shell leaves a process at work: until that ends too, the next stage waits."""
    environment = {**os.environ, "KITS_CARDS": str(tmp_path), "CUDA_VISIBLE_DEVICES": "7"}
    stage = "set -euo pipefail; . ./cards.sh 1; echo $CUDA_VISIBLE_DEVICES; "

    def begin(work: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", "-c", stage + work], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    first = begin("sleep 600 & echo $!; wait")
    assert first.stdout.readline() == "7\n"
    left = int(first.stdout.readline())
    try:
        second = begin("true")
        assert "waiting for a GPU: all of 7 are taken" in second.stderr.readline()
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(1.2)
        assert second.poll() is None, "the first one's process still has it"
    finally:
        os.kill(left, signal.SIGKILL)
    assert second.communicate(timeout=20)[0] == "7\n" and second.returncode == 0
