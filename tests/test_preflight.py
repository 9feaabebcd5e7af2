"""`preflight`: what a study takes, and what is in the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kitslib.commands import main
from kitslib.commands.preflight import Cost, estimate, problems, table
from kitslib.commands.timing import CARDS, PER_BYTE, Measured, NetworkCost, measure, step_bytes
from kitslib.config import ConfigError, arm, configure
from kitslib.data import CaseError, canonical_affine, read_labels, write_imaging, write_labels
from kitslib.networks import build, multiply_adds
from kitslib.training import start

ROOMY = Cost("this machine", "test", seconds=0, disk=10**13, memory=10**12)


def measured(profile: str = "demo", count: int = 0, **changes: object) -> Measured:
    """Round numbers: a step takes 0.1 s, a case 1 s of a network and 2 s of reading."""
    one = NetworkCost(step=0.1, case=1.0, weights=10**6, memory=10**8)
    config = configure(profile=profile)
    count = count or config.cohort.cases
    values = {
        "case_ids": [f"case_{index:05}" for index in range(count)], "unreadable": [],
        "loading": 1.0, "base": 10**8, "make": 3.0 * count, "prepare": 2.0 * count,
        "disk": 10**9, "memory": [10**7] * count,
        "networks": dict.fromkeys(("kidney", *config.arms), one),
    }  # fmt: skip
    return Measured(**(values | changes))


def costs(profile: str = "demo", *, jobs: int = 2, gpus: int = 0, **options: object):
    config = configure(profile=profile, options=options)
    return estimate(config, measured(profile, config.cohort.cases), jobs=jobs, gpus=gpus)


def test_every_notebook_has_its_row_and_the_whole_adds_them() -> None:
    config, (*found, whole) = configure(profile="paper"), costs("paper")
    runs = sum(len(config.seeds_of(name)) for name in config.arms)
    kidneys = 1 + len(config.kidney_arms) * len(config.seeds)
    assert [cost.stage for cost in found] == [
        "01_data", *["02_kidney"] * kidneys, *["03_tumor"] * runs, "04_ablations", "05_evaluation",
    ]  # fmt: skip
    assert whole.disk == sum(cost.disk for cost in found)
    # threads of the paper's profile leave one place: one after the other
    assert whole.seconds == pytest.approx(sum(cost.seconds for cost in found))


def test_seconds_can_be_checked_on_paper() -> None:
    found = costs("demo")
    kidney, baseline = found[1], next(cost for cost in found if "baseline" in cost.what)
    # 128 cases, 16 held out: 112 steps; a validation, and at the end the scans and their mirror
    assert kidney.what == "kidney: 17 epochs of 112 steps"
    readings = 6 * 4  # that 02 tries on 4 cases
    assert kidney.seconds == pytest.approx(
        5 + 17 * 112 * 0.1 + 16 * (1 + 2) * 1 + readings + 16 * 0.1 * 2
    )
    assert baseline.seconds == pytest.approx(5 + 12 * 33 * 0.1 + 16 * (1 + 2) * 1)
    full = next(cost for cost in found if "full" in cost.what)
    # difficulty after epochs 4 and 8, on a sixth of the slices of the 112 training cases
    assert full.seconds - baseline.seconds == pytest.approx(2 * 112 / 6)
    assert found[0].seconds == pytest.approx(5 + 128 * (3 + 3 * 2) / 2)


def test_further_seeds_have_no_page_and_200_cases_are_watched_as_16_are() -> None:
    plain, options = costs("demo"), {"cohort.cases": 312, "cohort.held_out": 200, "seeds": [0, 1]}
    (_, _, first, second, *_), alone = costs("demo", **options), plain[2]
    assert first.what == second.what and first.seconds - second.seconds == pytest.approx(5 - 1.5)
    assert first.seconds - alone.seconds == pytest.approx((200 - 16) * 2 * 1)


def test_stages_at_a_time_share_the_cores() -> None:
    options = {"seeds": [0, 1]}
    (*_, alone), (*_, two) = (costs("demo", jobs=jobs, **options) for jobs in (1, 2))
    assert 0.5 < two.seconds / alone.seconds < 0.6
    assert two.memory > alone.memory


def test_twice_the_epochs_take_twice_the_training() -> None:
    once, twice, fixed = (
        costs(**{"kidney.epochs": n, "kidney.validate_every": n})[1].seconds for n in (50, 100, 1)
    )
    assert twice - once == pytest.approx(50 * 112 * 0.1)
    assert once - fixed == pytest.approx(49 * 112 * 0.1)


def test_mirrored_scans_take_time_except_in_the_arms() -> None:
    once, twice = costs("paper"), costs("paper", **{"kidney.test_time_mirroring": True})
    assert twice[1].seconds > once[1].seconds and twice[-2].seconds > once[-2].seconds
    assert twice[2].seconds == once[2].seconds


@pytest.mark.parametrize(
    ("less", "said"),
    [({"disk": 10**6}, "disk:"), ({"memory": 10**8}, "memory:"), ({"gpu": 10**6}, "GPU memory:")],
)
def test_what_does_not_fit_is_named_with_what_to_do(less: dict[str, int], said: str) -> None:
    config = configure(profile="demo")
    found = costs("demo", gpus=int("gpu" in less))
    machine = replace(ROOMY, **({"gpu": 10**9} if "gpu" in less else {}))
    assert problems(config, found, machine) == []
    (problem,) = problems(config, found, replace(machine, **less))
    assert problem.startswith(said) and "lower" in problem


def test_each_gpu_has_a_stage_as_far_as_there_are_cores_for_its_threads() -> None:
    one = costs("paper", jobs=32, gpus=1)[-1]
    for cores, stages in ((32, 4), (16, 2)):  # of 8 threads each
        four = costs("paper", jobs=cores, gpus=4)[-1]
        assert one.seconds == pytest.approx(stages * four.seconds, rel=0.05)
        assert four.gpu == one.gpu, "each has memory of its own"


def test_fewer_stages_at_a_time_where_one_fits() -> None:
    found = costs("demo")
    largest = max(cost.memory for cost in found[1:-1])
    (problem,) = problems(configure(profile="demo"), found, replace(ROOMY, memory=largest))
    assert problem.startswith("memory:") and "--jobs 1" in problem


def test_a_smaller_batch_is_named_where_one_sample_fits() -> None:
    found = costs("paper", gpus=1)
    (problem,) = problems(configure(profile="paper"), found, replace(ROOMY, gpu=5 * 10**7))
    assert problem.endswith("lower kidney.batch from 2 to 1")
    config = configure(profile="demo")  # whose kidney batch is one sample
    (problem,) = problems(config, costs("demo", gpus=1), replace(ROOMY, gpu=10**6))
    assert problem.endswith("lower kidney.patch, slab or widths")


def test_the_3d_arm_is_told_to_lower_its_own_batch() -> None:
    options = {"arms": ["vnet_2d", "vnet_3d"], "tumor.slab_batch": 4, "tumor.batch": 8}
    config, cost = configure(profile="demo", options=options), measured().networks["kidney"]
    networks = {"kidney": cost, "vnet_2d": cost, "vnet_3d": replace(cost, memory=4 * cost.memory)}
    found = estimate(config, measured(networks=networks), jobs=1, gpus=1)
    (problem,) = problems(config, found, replace(ROOMY, gpu=2 * cost.memory))
    assert problem.endswith("lower tumor.slab_batch from 4 to 2")
    networks |= {"vnet_2d": networks["vnet_3d"], "vnet_3d": cost}
    found = estimate(config, measured(networks=networks), jobs=1, gpus=1)
    (problem,) = problems(config, found, replace(ROOMY, gpu=2 * cost.memory))
    assert problem.endswith("lower tumor.batch from 8 to 4")


def test_too_little_time_says_how_many_epochs_fit() -> None:
    found = costs("paper")
    machine = replace(ROOMY, seconds=found[-1].seconds / 2)
    (problem,) = problems(configure(profile="paper"), found, machine)
    assert problem.startswith("time:") and "kidney.epochs from 500 to 250 and" in problem


def test_equal_runs_are_one_row() -> None:
    options = {"seeds": [0, 1, 2], "kidney_arms": ["standard", "no_residual"]}
    text = table([*costs("demo", **options), ROOMY])
    assert text.count("baseline") == 2 and "2 × baseline: 12 epochs of 33 steps" in text
    assert "2 × kidney: 3 epochs" in text and "4 × kidney: 3 epochs" in text  # the 4 have no page


def a_case(folder: Path) -> None:
    """A body with two kidneys, one with a tumour."""
    labels = np.zeros((12, 48, 48), np.uint8)
    labels[3:9, 20:30, 8:18] = labels[3:9, 20:30, 30:40] = 1
    labels[4:7, 22:26, 10:14] = 2
    imaging = np.where(labels > 0, 150, -80).astype(np.int16)
    write_imaging(folder / "imaging.nii.gz", imaging, canonical_affine((5.0, 5.0, 5.0)))
    write_labels(folder / "segmentation.nii.gz", labels, canonical_affine((5.0, 5.0, 5.0)))


def test_a_real_cohort_is_measured_without_what_cannot_be_read(tmp_path: Path) -> None:
    for number in range(6):
        a_case(tmp_path / f"case_0000{number}")
    cut = tmp_path / "case_00001" / "imaging.nii.gz"
    cut.write_bytes(cut.read_bytes()[:20])
    options = {"arms": ["baseline"], "tumor.batch": 2}
    config = configure(profile="smoke", data=str(tmp_path), options=options)
    before = sorted(tmp_path.rglob("*"))
    found = measure(config, start(device="cpu", precision="no"))
    assert found.case_ids == [f"case_0000{number}" for number in (0, 2, 3, 4, 5)]
    assert found.unreadable == ["case_00001"] and set(found.networks) == {"kidney", "baseline"}
    assert found.disk > 0 and len(found.memory) == 5 and min(found.memory) > 12 * 48 * 48 * 18
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left in the cohort's folder"
    for number in (0, 2, 3, 4, 5):
        (tmp_path / f"case_0000{number}" / "imaging.nii.gz").write_bytes(b"no")
    with pytest.raises(CaseError, match="check says what is wrong"):
        measure(config, start(device="cpu", precision="no"))


def test_a_batch_larger_than_memory_is_refused_by_name(tmp_path: Path) -> None:
    for number in range(5):
        a_case(tmp_path / f"case_0000{number}")
    for name in ("kidney.batch", "tumor.batch"):
        options = {"arms": ["baseline"], name: 10**9}
        config = configure(profile="smoke", data=str(tmp_path), options=options)
        with pytest.raises(ConfigError, match=rf"{name}: 1000000000 samples take .* lower it to"):
            measure(config, start(device="cpu", precision="no"))


def test_a_cohort_without_tumours_is_refused_before_anything_is_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for number in range(5):
        a_case(tmp_path / f"case_0000{number}")
        labels = tmp_path / f"case_0000{number}" / "segmentation.nii.gz"
        found, geometry = read_labels(labels)
        write_labels(labels, np.minimum(found, 1), geometry)
    assert main(["preflight", str(tmp_path), "--profile", "smoke", "--out", str(tmp_path)]) == 1
    assert "has a tumour (label 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("card", "dims", "published"), [
        ("A100", 3, 41.10), ("2080Ti", 3, 101.54), ("A100", 2, 39.71), ("2080Ti", 2, 92.54),
    ],
)  # fmt: skip
def test_cards_are_as_quick_as_nnunet_found_them(card: str, dims: int, published: float) -> None:
    # seconds of 250 steps and 50 validations on the liver: 2 patches of 128³ or 12 of 512²
    side, batch, widths = {
        3: (128, 2, (32, 64, 128, 256, 320, 320)),
        2: (512, 12, (32, 64, 128, 256, 512, 512, 512, 512)),
    }[dims]
    total, before = 0, 1
    for level, width in enumerate(widths):
        sites = (side / 2**level) ** dims
        total += sites * 3**dims * (before * width + width * width)
        if level + 1 < len(widths):  # up-convolution, and two convolutions of both halves
            total += sites * (widths[level + 1] * width + 3**dims * (2 + 1) * width * width)
        before = width
    seconds = 2 * total * batch * (3 * 250 + 50) / (PER_BYTE * CARDS[card][1])
    assert 0.95 < seconds / published < 1.7


def test_a_card_that_is_not_here_is_reckoned_from_multiply_adds(tmp_path: Path) -> None:
    for number in range(5):
        a_case(tmp_path / f"case_0000{number}")
    config = configure(profile="smoke", data=str(tmp_path), options={"arms": ["baseline"]})
    bytes_a_second = 1e4  # so slow that drawing the samples takes no time beside
    accelerator = start(device="cpu", precision="bf16")
    found = measure(config, accelerator, bytes_a_second).networks
    size, t = (48, 48), config.tumor
    stack = (t.batch, t.slices, *t.patch)
    options = arm("baseline").network_options(slices=t.slices, widths=t.widths, norm=t.norm)
    forward = 2 * multiply_adds(build(**options), stack) / (PER_BYTE * bytes_a_second)
    assert found["baseline"].step == pytest.approx(3 * forward, rel=1e-3)
    cubes = (config.kidney.batch, 1, config.kidney.slab, *size)
    per_voxel = found["kidney"].step / 3 / np.prod(cubes)
    # 12 slices of 5 mm are 10 of 6 mm, and each is seen twice
    assert found["kidney"].case == pytest.approx(2 * per_voxel * 10 * 48 * 48, rel=1e-3)


class Toy:
    """As much of a recipe as the bytes of a step need."""

    accelerator = start(device="cpu", precision="no")

    def network(self) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU())


def test_bytes_of_a_step_are_those_that_are_saved() -> None:
    # the convolution keeps its input (64 voxels), the rectifier its output (2 x 64), in float32;
    # three of the largest are at work
    assert step_bytes(Toy(), (1, 1, 8, 8)) == 4 * 64 * (1 + 2) + 3 * 4 * 2 * 64


def test_bytes_of_a_step_are_those_of_the_real_network() -> None:
    class Real(Toy):
        def network(self) -> torch.nn.Module:
            options = arm("full").network_options(slices=5, widths=(4, 8, 8), norm=True)
            return build(**options)

    network, kept = Real().network(), {}
    own = {weight.data_ptr() for weight in network.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = network(torch.randn(2, 5, 32, 32))
    sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    assert output.shape == (2, 1, 32, 32)
    assert step_bytes(Real(), (2, 5, 32, 32)) == pytest.approx(
        sum(sizes) + 3 * max(sizes), rel=0.02
    )


def test_the_command_prints_the_table_and_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["preflight", "--profile", "smoke", "--out", str(tmp_path), "--jobs", "1"]
    words += ["--set", 'arms=["baseline"]', "--set", "kidney.epochs=7"]
    assert main([*words, "--json", str(tmp_path / "p.json")]) == 0
    said = capsys.readouterr().out
    assert "baseline: 3 epochs of 4 steps" in said and "kidney: 7 epochs of 2 steps" in said
    assert "The profile smoke fits this machine." in said
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["estimate"]["problems"] == [] and found["machine"]["disk"] > 0
    assert [cost["stage"] for cost in found["estimate"]["costs"]][:2] == ["01_data", "02_kidney"]
    assert main([*words, "--hours", "0.0001"]) == 1
    assert "does not fit: time" in capsys.readouterr().out


def test_the_command_reckons_for_a_workstation_with_a_card(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["preflight", "--profile", "smoke", "--out", str(tmp_path), "--set", 'arms=["unet"]']
    assert main([*words, "--card", "A5000"]) == 0
    said = capsys.readouterr().out
    machine = next(line.split() for line in said.splitlines() if line.startswith("a PC with A5000"))
    assert machine[4:] == ["300.0", "GB", "64.0", "GB", "24.0", "GB", "by", "data", "sheet"]
    assert "The profile smoke fits a PC with A5000." in said
