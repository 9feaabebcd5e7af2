"""`release`: both networks and the decision by one command, and the same bits after a stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import detection
from kitslib.commands import main, release
from kitslib.evaluation import decision_words
from kitslib.recipes import KidneyRecipe

TINY = {
    "precision": "no", "cohort.cases": 4, "cohort.held_out": 1, "cohort.tumor_free": 0.3,
    "kidney_grid.spacing_z": 10.0, "kidney_grid.spacing_xy": 10.0, "tumor_grid.spacing_z": 10.0,
    "tumor_grid.spacing_xy": 8.0, "kidney.widths": "[4, 8, 8, 8, 8]", "kidney.slab": 16,
    "kidney.patch": 32, "kidney.window_slices": 16, "kidney.samples_per_case": 1,
    "kidney.epochs": 2, "kidney.validate_every": 2, "tumor.widths": "[4, 8, 8, 8]",
    "tumor.patch": "[16, 16]", "tumor.batch": 2, "tumor.steps": 2, "tumor.epochs": 1,
}  # fmt: skip
SMALL = {"matrix": 48, "spacing_z": (10.0,), "tumor_free": 0.5}


def made(out: Path, *more: str) -> int:
    words = ["release", "--out", str(out), "--patients", "8", "--jobs", "1", *more]
    for name, value in TINY.items():
        words += ["--set", f"{name}={value}"]
    return main(words)


def models(out: Path) -> Path:
    (folder,) = out.glob("release*/models")
    return folder


def test_a_stopped_release_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(release, "DEVELOPMENT", SMALL)
    monkeypatch.setattr(release, "AHEAD", {"kidney": 4, "tumor": 4})

    def stopped(self: KidneyRecipe, network: object, epoch: int) -> dict:
        if epoch == 1:
            raise RuntimeError("stopped here")
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(KidneyRecipe, "after_epoch", stopped)
        assert made(tmp_path / "a") == 1
    assert "stopped here" in capsys.readouterr().err
    assert made(tmp_path / "a") == 0
    said = capsys.readouterr().out
    assert "resumed after epoch 1 of 2" in said and "is called a tumour from" in said
    assert made(tmp_path / "b") == 0
    for stage in ("kidney", "tumor"):
        one, other = (models(tmp_path / name) / stage / "weights.safetensors" for name in "ab")
        assert one.read_bytes() == other.read_bytes(), stage
    folder = models(tmp_path / "a")
    found = json.loads((folder / "tumor" / "settings.json").read_text())["decision"]
    assert set(found) == {"with_contrast", "without_contrast"}
    card = (folder / "README.md").read_text()
    assert "license: mit" in card and decision_words(found) in card
    assert "| 4 to 10 ml" in card and "8 further synthetic patients" in card
    assert main(["info", "--models", str(folder)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert decision_words(found) in told
    parts = [kind[part] for kind in found.values() for part in ("chosen_on", "tested_on")]
    assert sum(part["with_tumor"] + part["without_tumor"] for part in parts) == 8
    assert len(json.loads((folder / "patients.json").read_text())) == 8
    assert str(tmp_path) not in (folder / "made.json").read_text()
    with monkeypatch.context() as patch:  # another's kidney network: none is trained
        patch.setattr(KidneyRecipe, "fit", stopped)
        shutil.copytree(folder, tmp_path / "own")
        text = (folder / "made.json").read_text()
        commit, device = (json.loads(text)[name] for name in ("commit", "device"))
        text = text.replace(commit, "0123456789ab").replace(device, "a GPU")
        (tmp_path / "own" / "made.json").write_text(text)
        assert made(tmp_path / "a", "--kidney", str(tmp_path / "own")) == 0
    about = json.loads((folder / "made.json").read_text())
    assert about["commits"] == {"kidney": "0123456789ab", "tumor": commit}
    assert about["devices"] == {"kidney": "a GPU", "tumor": device}
    assert "first at commit `0123456789ab` on a GPU" in (folder / "README.md").read_text()


def test_settings_are_tried_on_the_same_cases_and_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "DEVELOPMENT", SMALL)
    monkeypatch.setattr(release, "AHEAD", {"kidney": 4, "tumor": 4})
    monkeypatch.setattr(release, "fresh_case", release.fresh_case)  # as it was, afterwards
    monkeypatch.setattr(detection, "WATCHED", 4)
    words = ["--cases", "6", "--jobs", "1", "--work", str(tmp_path), "--out", str(tmp_path)]
    words += ["--try", "", "--try", "tumor.gamma=0"]
    for name, value in TINY.items():
        words += [] if name.startswith("kidney") else ["--set", f"{name}={value}"]
    assert detection.main(words) == 0
    (table,) = json.loads((tmp_path / "detection.json").read_text())["tables"]
    assert [row["tried"] for row in table["rows"]] == ["the profile", "tumor.gamma=0"]
    assert table["rows"][0]["loss"] != table["rows"][1]["loss"]
    cases = sorted(tmp_path.glob("fresh/*/*.z"))
    assert len(cases) == 6 + 4 + 4  # scored, of the epoch, and ahead of it: each made once
    assert len(list(tmp_path.glob("work/runs/*/weights.safetensors"))) == 2


def test_patients_are_told_apart_by_what_hits_their_tumour() -> None:
    def patient(tumor_ml: float, *found: tuple[float, bool]) -> dict:
        rows = [{"ml": ml, "certain": 1.0, "hits": hits} for ml, hits in found]
        return {"tumor_ml": tumor_ml, "found": rows}

    sick = [patient(20, (5, True)), patient(30, (1, True), (50, False)), patient(5, (99, True))]
    free = [patient(0, (3, False)), patient(0)]
    assert detection.told_apart([*sick, *free]).startswith("0.750 (")  # 5 > 3, 5 > 0, 1 < 3, 1 > 0
    assert detection.told_apart(sick) == "–"
    assert detection.found_at([*sick, *free], 0.9) == 0.5  # 5 lies above 3, and 1 does not
    assert detection.found_at(sick, 0.9) is None
