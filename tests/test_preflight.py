"""`preflight`: what a study takes, and what is in the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kitslib.commands import main
from kitslib.commands.preflight.costs import estimate
from kitslib.commands.preflight.machine import Machine
from kitslib.commands.preflight.sizes import CaseSize, Sizes, cohort_sizes
from kitslib.commands.preflight.timing import NetworkSpeed, Speed, saved_bytes
from kitslib.config import configure
from kitslib.data import canonical_affine, write_imaging, write_labels
from kitslib.networks import build
from kitslib.training import start

SLOW = NetworkSpeed(
    step=0.01, train=1e-10, infer=3e-11, held=400.0, widest=32.0, casts=1e6, augment=1e-8
)
SPEED = Speed(
    start=3.0, read=1e-8, packed=0.5, render=(0.5, 1e-7), handle=1e-7, handle_bytes=12.0,
    networks={"kidney": SLOW, "tumor": SLOW},
)  # fmt: skip
ROOMY = Machine(name="test", cores=2, disk=10**13, held=0, memory=10**12, base=3 * 10**8, gpu=0)
SIZES = Sizes(
    cases=tuple(
        CaseSize(case_id=f"case_{i:05}", shape=(100, 512, 512), spacing=(3.0, 0.8, 0.8))
        for i in range(210)
    ),
    kidneys=(130.0, 90.0, 250.0),
)


def found(
    profile: str = "paper", machine: Machine = ROOMY, hours: float | None = None, **options: object
):
    config = configure(profile=profile, options=options)
    return estimate(config, SIZES, SPEED, machine, jobs=2, hours=hours)


def test_every_stage_has_its_row_and_a_roomy_machine_fits() -> None:
    config, result = configure(profile="paper"), found()
    stages = [cost.stage for cost in result.costs]
    arms = sum(len(config.seeds_of(name)) for name in config.arms)
    assert stages == [
        "01_data", *["02_kidney"] * (1 + len(config.kidney_arms)), *["03_tumor"] * arms, "04_ablations",
        "05_evaluation",
    ]  # fmt: skip
    assert result.problems == () and result.disk == sum(cost.disk for cost in result.costs)


def test_twice_the_epochs_take_twice_the_training() -> None:
    epochs = configure(profile="paper").kidney.epochs
    once, twice = (
        found(**{"kidney.epochs": n, "kidney.validate_every": n}).costs[1]
        for n in (epochs, 2 * epochs)
    )
    fixed = found(**{"kidney.epochs": 1, "kidney.validate_every": 1}).costs[1].seconds
    assert (twice.seconds - fixed) / (once.seconds - fixed) == pytest.approx(2.0, rel=0.01)


def test_looking_at_mirrored_scans_takes_time() -> None:
    once, twice = found(), found(**{"kidney.test_time_mirroring": True})
    assert (
        twice.costs[1].seconds > once.costs[1].seconds
        and twice.costs[-1].seconds > once.costs[-1].seconds
    )
    assert twice.costs[2].seconds == once.costs[2].seconds  # the arms do without
    tumor = 1 + len(configure(profile="paper").kidney_arms) + 1
    assert (
        found(**{"tumor.test_time_mirroring": True}).costs[tumor].seconds
        > once.costs[tumor].seconds
    )


@pytest.mark.parametrize(
    ("less", "said"),
    [({"disk": 10**6}, "disk:"), ({"memory": 10**9}, "memory:"), ({"gpu": 10**6}, "GPU memory:")],
)
def test_what_does_not_fit_is_named_with_what_to_do(less: dict[str, int], said: str) -> None:
    problems = found(machine=replace(ROOMY, **less)).problems
    assert len(problems) == 1 and problems[0].startswith(said)
    assert "lower" in problems[0] or "--jobs" in problems[0]


def test_too_little_time_says_how_many_epochs_fit() -> None:
    whole = found().seconds / 3600
    (problem,) = found(hours=whole / 2).problems
    assert problem.startswith("time:") and "kidney.epochs from 500 to 2" in problem


def test_more_cases_cost_disk_but_no_memory() -> None:
    few = Sizes(cases=SIZES.cases[:20], kidneys=SIZES.kidneys)
    config = configure(profile="paper", options={"cohort.held_out": 2})
    small, large = (estimate(config, sizes, SPEED, ROOMY, jobs=2) for sizes in (few, SIZES))
    assert large.memory == small.memory
    assert large.costs[0].disk == pytest.approx(small.costs[0].disk * 10.5, rel=0.01)


def test_sizes_come_from_headers_alone(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / f"case_0000{number}"
        write_imaging(
            folder / "imaging.nii.gz",
            np.zeros((5, 12, 10), np.int16),
            canonical_affine((4.0, 2.0, 2.0)),
        )
        write_labels(
            folder / "segmentation.nii.gz",
            np.ones((5, 12, 10), np.uint8),
            canonical_affine((4.0, 2.0, 2.0)),
        )
    cut = tmp_path / "case_00001" / "imaging.nii.gz"
    cut.write_bytes(cut.read_bytes()[:20])
    sizes = cohort_sizes(configure(profile="smoke", data=str(tmp_path)))
    assert [case.case_id for case in sizes.cases] == ["case_00000", "case_00002"]
    assert sizes.unreadable == ("case_00001",) and sizes.cases[0].shape == (5, 12, 10)


def test_saved_bytes_foretell_a_larger_input() -> None:
    accelerator = start(device="cpu", precision="no")
    network = build(name="vnet", dims="2.5d", slices=5, widths=(4, 8, 8), norm=True)
    held, _, casts = saved_bytes(network, (1, 5, 32, 32), accelerator)
    larger, _, _ = saved_bytes(network, (1, 5, 64, 64), accelerator)
    assert held > 4 and casts >= 0
    assert larger == pytest.approx(held, rel=0.1)
    assert all(p.device == torch.device("cpu") for p in network.parameters())


def test_the_command_prints_the_table_and_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["preflight", "--profile", "smoke", "--out", str(tmp_path), "--jobs", "1"]
    assert main([*words, "--json", str(tmp_path / "p.json")]) == 0
    said = capsys.readouterr().out
    assert "03_tumor" in said and "The profile smoke fits this machine." in said
    assert json.loads((tmp_path / "p.json").read_text())["estimate"]["problems"] == []
    assert main([*words, "--hours", "0.0001"]) == 1
    assert "does not fit: time" in capsys.readouterr().out
