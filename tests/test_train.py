"""`train`: what two processes make is what one makes, also when they were killed on the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from kitslib.commands import main
from kitslib.config import ARMS, KIDNEY_ARMS, configure
from kitslib.data import data_folder, study_files
from kitslib.phantom import write_cohort
from kitslib.recipes import KidneyRecipe, Recipe, TumorRecipe
from kitslib.training import Run, start

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "device": "cpu", "precision": "no",
    "cohort.cases": 8, "cohort.matrix": 64, "cohort.held_out": 1,
    "kidney.epochs": 3, "kidney.lr": 1e-3, "tumor.epochs": 3, "tumor.lr": 1e-3,
    "tumor.dice_over": "sample",  # over the batch is over each process's share of it
}  # fmt: skip
WORDS = ["--profile", "smoke", *(w for n, v in SETTINGS.items() for w in ("--set", f"{n}={v}"))]
PLAIN = {"device": "cpu", "precision": "no"}
LAUNCH = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]


def launched(network: str, out: Path) -> subprocess.Popen:
    """Two processes that train a network together."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, "-m", "kitslib"]
    return subprocess.Popen(
        [*command, "train", network, *WORDS, "--out", str(out)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def train(network: str, out: Path, *words: str) -> Run:
    """Train a network in this process; return the run."""
    before = set(out.glob("work/runs/*"))
    assert main(["train", network, *WORDS, *words, "--out", str(out)]) == 0
    (folder,) = set(out.glob("work/runs/*")) - before
    return Run.load(folder)


def killed(network: str, out: Path) -> None:
    """Kill the launcher of a training after its first epoch: its processes die with it."""
    launcher = launched(network, out)
    while not list(out.glob("work/runs/*/last.pt")):
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.02)
    workers = psutil.Process(launcher.pid).children(recursive=True)
    assert len(workers) == 2
    launcher.kill()
    launcher.communicate()
    assert not psutil.wait_procs(workers, timeout=20)[1]
    assert not list(out.glob("work/runs/*/weights.safetensors"))


def first_recipe(network: str, out: Path) -> Recipe:
    """The recipe that a notebook makes of the same study."""
    config = configure(profile="smoke", out=str(out), options=SETTINGS)
    files, accelerator = study_files(config, data_folder(config, write_cohort)), start(**PLAIN)
    if network == "kidney":
        return KidneyRecipe.of(config, files, accelerator)
    return TumorRecipe.of(config, files, accelerator, arm=network)


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten().double() for name in sorted(tensors)])


def weights(run: Run) -> Tensor:
    return flat(load_file(str(run.folder / "weights.safetensors")))


@pytest.mark.parametrize(
    ("network", "near"),
    [("kidney", 2e-2), ("full", 1e-4)],  # 3D norms in float32 round more
)
def test_two_processes_end_with_the_weights_of_one(
    network: str, near: float, tmp_path: Path
) -> None:
    stage = "kidney" if network == "kidney" else "tumor"
    one = train(network, tmp_path / "one")
    parts = train(network, tmp_path / "one", "--set", f"{stage}.accumulate=2")
    out = tmp_path / "two"
    if network == "kidney":
        killed(network, out)
    launcher = launched(network, out)
    printed, said = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, said
    lines = printed.splitlines()
    assert ("resumed after epoch" in printed) == (network == "kidney")
    assert [line[:11] for line in lines].count("epoch   3/3") == 1, "one process speaks"

    recipe = first_recipe(network, out)
    two = recipe.run
    assert two.finished and lines[-1] == str(two.folder)
    assert two.folder.name == one.folder.name != parts.folder.name
    for run, processes in ((one, 1), (two, 2)):
        assert [entry["processes"] for entry in run.history()] == [processes] * 3
    losses = [[entry["loss"] for entry in run.history()] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    torch.testing.assert_close(weights(two), weights(parts))  # the same sums, half by half
    moved = (weights(one) - flat(recipe.network().state_dict())).norm()
    assert (weights(two) - weights(one)).norm() < near * moved


def test_an_arm_of_either_stage_is_trained_and_an_unknown_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert not set(KIDNEY_ARMS) & {"kidney", *ARMS}, "a name says which stage is meant"
    words = ["--set", "kidney.arm_epochs=1", "--seed", "3"]
    run = train("no_deep_supervision", tmp_path, *words)
    assert run.folder.name.startswith("kidney-no_deep_supervision-s3-") and run.finished
    with pytest.raises(SystemExit):
        main(["train", "ful"])
    assert "invalid choice: 'ful'" in capsys.readouterr().err
