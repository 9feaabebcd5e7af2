"""bf16 or float32: what is quicker here, measured once for a study and kept with its times."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kitslib.config import configure, read_json
from kitslib.recipes import chosen_precision, precision, start_study

CPU = torch.device("cpu")
DEMO = {"tumor.widths": [8, 8, 8], "tumor.patch": [16, 16], "tumor.batch": 1}


def steps_of(seconds: dict[bool, float], monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let a step take so long with bf16 and without; returns the list of steps taken."""
    taken: list[bool] = []

    def step(network: nn.Module, images: torch.Tensor) -> float:
        taken.append(torch.is_autocast_enabled("cpu"))
        return seconds[taken[-1]]

    monkeypatch.setattr(precision, "timed_step", step)
    return taken


@pytest.mark.parametrize(("bf16", "chosen"), [(1.0, "bf16"), (3.0, "no")])
def test_the_quicker_one_is_chosen_and_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: float, chosen: str
) -> None:
    taken = steps_of({True: bf16, False: 2.0}, monkeypatch)
    config = configure(profile="demo", out=str(tmp_path), options=DEMO)
    found = chosen_precision(config, CPU)
    assert (found["chosen"], found["bf16_s"], found["float32_s"]) == (chosen, bf16, 2.0)
    assert len(taken) == 2 * (precision.TURNS + 1)
    steps_of({True: 9.0, False: 9.0}, monkeypatch)
    again = chosen_precision(config, CPU)
    assert (again["chosen"], again["bf16_s"]) == (chosen, bf16)
    assert list(read_json(tmp_path / "work" / "precision.json").values()) == [again]


def test_a_wrong_bf16_convolution_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_of({True: 1.0, False: 2.0}, monkeypatch)
    monkeypatch.setattr(precision, "convolution_error", lambda device: 0.5)
    config = configure(profile="demo", out=str(tmp_path), options=DEMO)
    assert chosen_precision(config, CPU)["chosen"] == "no"


def test_bf16_here_rounds_and_no_more() -> None:
    assert 0 < precision.convolution_error(CPU) < 0.01


def test_a_step_is_timed_forward_and_backward() -> None:
    network = nn.Conv2d(1, 1, 3)
    assert precision.timed_step(network, torch.ones(1, 1, 8, 8)) > 0
    assert network.weight.grad is None


@pytest.mark.parametrize(("bf16", "chosen"), [(1.0, "bf16"), (3.0, "no")])
def test_a_study_computes_in_what_was_quicker_whatever_the_processor_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bf16: float, chosen: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True})
    steps_of({True: bf16, False: 2.0}, monkeypatch)
    config = configure(profile="demo", out=str(tmp_path), options={**DEMO, "device": "cpu"})
    assert start_study(config).mixed_precision == chosen


@pytest.mark.parametrize("wanted", ["no", "bf16"])
def test_a_precision_that_is_named_is_not_measured(tmp_path: Path, wanted: str) -> None:
    config = configure(profile="demo", out=str(tmp_path), options={"precision": wanted})
    assert start_study(config).mixed_precision == wanted
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arms", [["vnet_3d"], ["unet", "vnet_3d"], ["baseline", "full"]])
def test_a_study_of_any_arms_is_measured(tmp_path: Path, arms: list[str]) -> None:
    options = {**DEMO, "tumor.slab": 8, "arms": arms, "tumor.widths": [8, 8, 8, 8]}
    found = chosen_precision(configure(profile="demo", out=str(tmp_path), options=options), CPU)
    assert found["float32_s"] > 0 and found["bf16_s"] > 0
