"""The networks that come with the package: small, their command known, of use on real CT."""

from __future__ import annotations

import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
from safetensors import safe_open

from kitslib.commands import main
from kitslib.config import (
    PROFILES,
    CohortConfig,
    KidneyConfig,
    KidneyGrid,
    TumorConfig,
    TumorGrid,
    as_dict,
)
from kitslib.evaluation import decision, dice
from kitslib.training import WEIGHTS, models_folder

COHORT = json.loads((WEIGHTS / "made.json").read_text())["settings"]["cohort"]
FILES = [WEIGHTS / stage / "weights.safetensors" for stage in ("kidney", "tumor")]


def test_they_are_used_where_none_are_named_and_small() -> None:
    assert models_folder() == WEIGHTS
    assert all(file.stat().st_size <= 8e6 for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.parent.name)
def test_each_tells_what_it_was_trained_with(file: Path) -> None:
    with safe_open(str(file), framework="pt") as found:
        about = json.loads(found.metadata()["about"])
    settings = json.loads((file.parent / "settings.json").read_text())
    settings.pop("decision", None)  # is chosen once the weights are there
    assert about["settings"] == settings
    assert {"torch", "numpy"} <= set(about["versions"]) and "seed" in about["settings"]


@pytest.mark.skipif("fresh" not in COHORT, reason="made by a release before `kitslib release`")
def test_the_release_profile_is_what_made_them() -> None:
    release = as_dict(PROFILES["release"])
    sections = {"kidney": (KidneyGrid, KidneyConfig), "tumor": (TumorGrid, TumorConfig)}
    for stage, (grid, section) in sections.items():
        made = json.loads((WEIGHTS / stage / "settings.json").read_text())
        assert as_dict(grid(**made["grid"])) == release[f"{stage}_grid"]
        assert as_dict(section(**made["training"])) == release[stage]
    assert as_dict(CohortConfig(**COHORT)) == release["cohort"]


def test_the_command_the_commit_and_the_data_are_told_and_no_folder_of_a_machine() -> None:
    text = (WEIGHTS / "made.json").read_text()
    made = json.loads(text)
    changes = "".join(f" --set {change}" for change in made["settings"]["changes"])
    assert made["command"] == "./run_all.sh --profile release" + changes
    assert made["data"] == "synthetic cohort"
    assert made["synthetic"] is True and made["commit"] and not made["commit"].endswith("+")
    assert "/" not in text.replace("./run_all.sh", "").replace("AMD/", "")


@pytest.mark.parametrize(
    ("case", "least"), [("ircad01", 0.9), ("ts_example_ct_sm", 0.8), ("crlm1004", None)]
)
def test_a_real_ct_is_segmented_in_its_geometry(
    shared: Path, tmp_path: Path, case: str, least: float | None
) -> None:
    folder = shared / "realct" / "data" / case
    began = time.perf_counter()
    assert main(["predict", str(folder / "imaging.nii.gz"), "-o", str(tmp_path)]) == 0
    assert time.perf_counter() - began < 180 and psutil.Process().memory_info().rss < 4e9
    (sidecar,) = tmp_path.glob("*.json")
    plain = case == "ts_example_ct_sm"
    assert json.loads(sidecar.read_text())["scan"] == ("without" if plain else "with") + "_contrast"
    given = nib.load(folder / "imaging.nii.gz")
    made = nib.load(tmp_path / f"prediction_{case}.nii.gz")
    assert made.shape == given.shape and np.array_equal(made.affine, given.affine)
    assert nib.aff2axcodes(made.affine) == nib.aff2axcodes(given.affine)
    if least is not None:
        truth = np.asarray(nib.load(folder / "segmentation.nii.gz").dataobj) > 0
        assert dice(np.asarray(made.dataobj) > 0, truth) > least


@pytest.mark.parametrize("least_hu", [60.0, -1e4])  # from which on kidneys show contrast agent
def test_a_scan_without_contrast_is_said_and_judged_by_its_own_threshold(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least_hu: float
) -> None:
    monkeypatch.setattr(decision, "CONTRAST_HU", least_hu)
    scan = shared / "realct" / "data" / "ts_example_ct_sm" / "imaging.nii.gz"
    assert main(["predict", str(scan), "-o", str(tmp_path), "--summary"]) == 0
    (sidecar,) = tmp_path.glob("*ts_example_ct_sm*.json")
    record, (page,) = json.loads(sidecar.read_text()), tmp_path.glob("*.html")
    plain = least_hu == 60.0  # its kidneys have 14 HU in the median
    assert record["scan"] == ("without_contrast" if plain else "with_contrast")
    assert any("no contrast agent" in text for text in record["warnings"]) == plain
    chosen = record["models"]["tumor"]["decision"]
    assert decision.decision_words(chosen, record["scan"]) in page.read_text()
