"""`predict`: what it writes for a scan, what it refuses, and how it goes on after a broken one."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.spatial.distance import pdist

from kitslib.commands import main, outputs
from kitslib.commands.measurements import longest_diameter_mm
from kitslib.commands.predict import write_submission
from kitslib.config import PROFILES, arm, as_dict
from kitslib.data import CaseError, canonical_affine, write_imaging
from kitslib.networks import build
from kitslib.training import Run

AFFINE = canonical_affine((5.0, 3.0, 3.0))
CODES = {"RAS": ((2, 1, 0), (-1, -1, 1)), "LPS": ((2, 1, 0), (1, 1, 1))}


def status(*words: object) -> int:
    """Exit status of a command line."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code)


def a_scan(path: Path) -> Path:
    """A body with two bright kidneys; random networks find something or nothing in it."""
    imaging = np.full((20, 64, 64), -80, np.int16)
    imaging[4:16, 24:40, 12:26] = imaging[4:16, 24:40, 38:52] = 180
    write_imaging(path, imaging, AFFINE)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of the smoke profile that call everything kidney and everything in it tumour."""
    folder, config = tmp_path_factory.mktemp("models"), PROFILES["smoke"]
    chosen = arm("baseline")
    options = {
        "kidney": {
            "name": "resunet3d",
            "widths": config.kidney.widths,
            "norm": True,
            "dropout": 0.0,
        },
        "tumor": chosen.network_options(
            slices=config.tumor.slices, widths=config.tumor.widths, norm=config.tumor.norm
        ),
    }
    for stage, network_options in options.items():
        settings = {
            "network": network_options,
            "grid": as_dict(getattr(config, f"{stage}_grid")),
            "training": as_dict(getattr(config, stage)),
            "arm": as_dict(chosen) if stage == "tumor" else {"name": ""},
            "seed": 0,
            "data": "none",
        }
        run = Run.open(folder / "runs", stage, settings)
        torch.manual_seed(0)
        run.finish(build(**network_options))
        weights = load_file(str(run.folder / "weights.safetensors"))
        *_, last = [
            name for name in weights if name.endswith("bias") and weights[name].shape == (1,)
        ]
        weights = {
            name: t if name != last else torch.full_like(t, 50.0) for name, t in weights.items()
        }
        save_file(weights, str(run.folder / "weights.safetensors"))
        run.folder.rename(folder / stage)
    return folder


def test_a_scan_gets_labels_preview_record_and_row(models: Path, tmp_path: Path) -> None:
    scan, out = a_scan(tmp_path / "case_00211" / "imaging.nii.gz"), tmp_path / "out"
    assert (
        status("predict", scan, "-o", out, "--models", models, "--device", "cpu", "--probabilities")
        == 0
    )
    given, made = nib.load(scan), nib.load(out / "prediction_00211.nii.gz")
    assert made.shape == given.shape and np.array_equal(made.affine, given.affine)
    labels = np.asarray(made.dataobj)
    assert set(np.unique(labels)) == {2}, "these networks call everything tumour"
    record = json.loads((out / "prediction_00211.json").read_text())
    assert record["measurements"]["tumor_ml"] == pytest.approx(labels.size * 5 * 3 * 3 / 1000)
    about = bytes(made.header["descrip"]).decode()
    for stage in ("kidney", "tumor"):
        assert record["models"][stage]["weights"][:8] in about
        found = nib.load(out / f"probability_00211_{stage}.nii.gz")
        assert found.shape == given.shape and np.asarray(found.dataobj).min() > 0.99
    assert (
        record["software"]["torch"] == torch.__version__.partition("+")[0]
        or "torch" in record["software"]
    )
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["00211"]
    assert float(rows[0]["tumor_diameter_mm"]) == pytest.approx(
        np.sqrt(100**2 + 2 * 192**2), rel=0.03
    )
    with Image.open(out / "prediction_00211.jpg") as picture:
        assert picture.width > 600 and np.asarray(picture).std() > 10


def test_nothing_is_overwritten_unless_asked(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scan, target = a_scan(tmp_path / "a.nii.gz"), tmp_path / "mine.nii.gz"
    target.write_bytes(b"precious")
    words = ["predict", scan, "-o", target, "--models", models, "--device", "cpu"]
    assert status(*words) == 1 and "--force" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert status(*words, "--force") == 0
    assert nib.load(target).shape == nib.load(scan).shape


def test_a_broken_scan_is_named_and_the_others_are_done(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    good, bad = a_scan(tmp_path / "in" / "good.nii.gz"), tmp_path / "in" / "bad.nii.gz"
    bad.write_bytes(good.read_bytes()[:200])
    out = tmp_path / "out"
    assert status("predict", tmp_path / "in", "-o", out, "--models", models, "--device", "cpu") == 1
    errors = capsys.readouterr().err
    assert "bad.nii.gz" in errors and "Traceback" not in errors
    assert sorted(file.name for file in out.glob("*.nii.gz")) == ["prediction_good.nii.gz"]


@pytest.mark.parametrize("codes", CODES)
def test_a_scan_in_other_axes_gets_its_labels_in_these(
    models: Path, tmp_path: Path, codes: str
) -> None:
    base = a_scan(tmp_path / "base.nii.gz")
    turned = nib.load(base).as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.io_orientation(nib.load(base).affine),
            nib.orientations.axcodes2ornt(tuple(codes)),
        )
    )
    nib.save(turned, tmp_path / "turned.nii.gz")
    assert (
        status("predict", tmp_path / "turned.nii.gz", "-o", tmp_path / "o", "--models", models) == 0
    )
    made = nib.load(tmp_path / "o" / "prediction_turned.nii.gz")
    assert nib.aff2axcodes(made.affine) == tuple(codes) and made.shape == turned.shape
    assert np.allclose(made.affine, turned.affine)


def test_a_damaged_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for stage in ("kidney", "tumor"):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "settings.json").write_text("{}")
        (tmp_path / stage / "weights.safetensors").write_bytes(b"none")
    words = ["predict", a_scan(tmp_path / "a.nii.gz"), "-o", tmp_path / "o", "--models", tmp_path]
    assert status(*words) == 1
    assert f"{tmp_path / 'kidney'}: not a network of this version" in capsys.readouterr().err


def test_a_submission_holds_the_test_cases_and_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="prediction_00210"):
        write_submission(tmp_path / "s.zip", tmp_path)
    for name in (
        "prediction_00210.nii.gz",
        "prediction_00299.nii.gz",
        "prediction_00009.nii.gz",
        "other.nii.gz",
    ):
        (tmp_path / name).write_bytes(name.encode())
    said = write_submission(tmp_path / "s.zip", tmp_path)
    assert "2 of 90" in said and "00211" in said
    with zipfile.ZipFile(tmp_path / "s.zip") as packed:
        assert packed.namelist() == ["prediction_00210.nii.gz", "prediction_00299.nii.gz"]
        assert packed.read("prediction_00210.nii.gz") == b"prediction_00210.nii.gz"


def test_the_longest_diameter_is_that_of_all_pairs_of_faces() -> None:
    rng = np.random.default_rng(5)
    spacing = np.array([3.0, 0.8, 1.1])
    for _ in range(5):
        mask = rng.random((6, 9, 7)) > 0.9
        half = np.eye(3) / 2
        faces = (
            np.concatenate([np.argwhere(mask) + sign * step for step in half for sign in (-1, 1)])
            * spacing
        )
        assert longest_diameter_mm(mask, spacing) == pytest.approx(pdist(faces).max())
    assert longest_diameter_mm(np.zeros((2, 2, 2), bool), spacing) == 0


# where results go


def predict(models: Path, *words: object) -> int:
    return status("predict", *words, "--models", models, "--device", "cpu")


def times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


@pytest.mark.parametrize("how", ["name", "link", "hard link", "spelling", "prediction", "no .gz"])
def test_no_output_lands_on_an_input(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture, how: str
) -> None:
    scan, out = a_scan(tmp_path / "a.nii.gz"), tmp_path / "b.nii.gz"
    words: list[object] = [scan]
    if how == "name":
        out = scan
    elif how == "link":
        out.symlink_to(scan)
    elif how == "hard link":
        out.hardlink_to(scan)
    elif how == "spelling":
        (tmp_path / "c").mkdir()
        out = tmp_path / "c" / ".." / "a.nii.gz"
    elif how == "prediction":
        words += [a_scan(tmp_path / "prediction_a.nii.gz")]
        out = tmp_path
    else:
        out = tmp_path / "a.nii"
    before = {file: file.read_bytes() for file in tmp_path.glob("*.nii.gz")}
    for force in ([], ["--force"]):
        assert predict(models, *words, "-o", out, *force) == 1
        said = capsys.readouterr().err
        assert "which is read" in said or "taken for it" in said
    assert {file: file.read_bytes() for file in tmp_path.glob("*.nii.gz")} == before
    assert not list(tmp_path.glob("*.json"))


def test_a_table_and_a_report_are_no_inputs_either(models: Path, tmp_path: Path) -> None:
    scan = a_scan(tmp_path / "a.nii.gz")
    before = scan.read_bytes()
    for words in (["--report", scan], ["--report", tmp_path / "o" / "prediction_a.json"]):
        assert predict(models, scan, "-o", tmp_path / "o", *words, "--force") == 1
    assert scan.read_bytes() == before and not (tmp_path / "o").exists()


def test_what_is_in_the_way_is_said_before_any_network_is_loaded(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, file, folder = a_scan(tmp_path / "a.nii.gz"), tmp_path / "file", tmp_path / "folder"
    file.write_text("a file")
    (folder / "prediction_a.jpg").mkdir(parents=True)
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "predictions.csv").write_text("name;volume\n")
    monkeypatch.setattr("kitslib.commands.predict.Models.load", None)  # would end in a traceback
    for out, said in {
        file: "file is a file, not a folder",
        file / "deeper": "file is a file, not a folder",
        folder: "prediction_a.jpg is a folder",
        tmp_path / "table": "lacks columns of a table",
        tmp_path / ("x" * 300): "File name too long",
    }.items():
        assert predict(models, scan, "-o", out) == 1
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 1 and said in errors[0]
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("kitslib.commands.outputs.shutil.disk_usage", lambda folder: full)
    assert predict(models, scan, "-o", tmp_path / "full") == 1
    assert "has 1 kB left" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_said(models: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir(mode=0o555)
    assert predict(models, a_scan(tmp_path / "a.nii.gz"), "-o", tmp_path / "o") == 1


def test_a_name_too_long_is_that_scan_s_trouble_alone(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scans, out = tmp_path / "in", tmp_path / "o"
    long = a_scan(scans / f"{'l' * 240}.nii.gz")
    a_scan(scans / "a.nii.gz")
    most = a_scan(scans / f"{'m' * 236}.nii.gz")  # prediction_….nii.gz of 254 bytes
    assert predict(models, scans, "-o", out) == 1
    assert long.name in capsys.readouterr().err
    assert (out / "prediction_a.nii.gz").is_file()
    assert (out / f"prediction_{most.name}").is_file()


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, models: Path) -> None:
    """Files may grow to 2 kB alone: what is written beyond is refused, as by a full disk."""
    scan, out = a_scan(tmp_path / "a.nii.gz"), tmp_path / "o"
    code = "import resource, sys; from kitslib.commands import main; "
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); sys.exit(main(sys.argv[1:]))"
    words = ["predict", scan, "-o", out, "--models", models, "--device", "cpu"]
    call = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True
    )
    assert call.returncode == 1 and "Traceback" not in call.stderr
    assert f"{scan}: {out / 'prediction_a.jpg'}: File too large" in call.stderr
    assert list(out.iterdir()) == []


def test_a_batch_goes_on_where_it_was_ended(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, out = tmp_path / "in", tmp_path / "o"
    for name in "abc":
        a_scan(scans / f"{name}.nii.gz")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    settle, done = outputs.settle, []
    monkeypatch.setattr(
        "kitslib.commands.predict.settle",
        lambda *files: killed() if len(done) == 2 else done.append(settle(*files)),
    )
    assert predict(models, scans, "-o", out) == 130
    assert "prediction_c.nii.gz" not in times(out), "nothing of a scan that was not finished"
    assert not [name for name in times(out) if "_c" in name or name.startswith(".")]
    monkeypatch.undo()
    before = times(out)
    assert predict(models, scans, "-o", out) == 1
    assert "--resume" in capsys.readouterr().err and times(out) == before
    (out / "predictions.csv").unlink()  # as if killed before the table
    assert predict(models, scans, "-o", out, "--resume") == 0
    said = capsys.readouterr().out
    assert said.count("done before") == 2 and "prediction_c.nii.gz in " in said
    after = times(out)
    assert {name: after[name] for name in before if name != "predictions.csv"} == {
        name: time for name, time in before.items() if name != "predictions.csv"
    }
    with (out / "predictions.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["a", "b", "c"]


@pytest.mark.parametrize("change", ["scan", "networks", "labels", "record", "fewer", "more"])
def test_resuming_keeps_only_what_was_made_alike(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture, change: str
) -> None:
    scan, out = a_scan(tmp_path / "a.nii.gz"), tmp_path / "o"
    assert predict(models, scan, "-o", out) == 0
    labels, words = out / "prediction_a.nii.gz", []
    first = labels.read_bytes()
    if change == "scan":
        other = np.full((20, 64, 64), 40, np.int16)
        other[:, :8] = -1000
        write_imaging(scan, other, AFFINE)
    elif change == "networks":
        models = Path(shutil.copytree(models, tmp_path / "models"))
        weights = load_file(str(models / "tumor" / "weights.safetensors"))
        weights = {name: values + 1 for name, values in weights.items()}
        save_file(weights, str(models / "tumor" / "weights.safetensors"))
    elif change == "labels":
        labels.write_bytes(b"corrected by hand")
    elif change == "record":
        (out / "prediction_a.json").write_text("{half")
    elif change == "fewer":
        labels.unlink()
    else:
        words = ["--summary"]
    before = labels.read_bytes() if labels.exists() else b""
    status_then = predict(models, scan, "-o", out, "--resume", *words)
    if change in ("fewer", "more"):
        assert status_then == 0 and labels.read_bytes() == first
        assert (out / "prediction_a.html").is_file() == (change == "more")
        return
    assert status_then == 1 and "--force overwrites it" in capsys.readouterr().err
    assert labels.read_bytes() == before
    assert predict(models, scan, "-o", out, "--resume", "--force") == 0
    assert set(np.unique(np.asarray(nib.load(labels).dataobj))) == {2}
    assert predict(models, scan, "-o", out, "--resume") == 0
    assert "done before" in capsys.readouterr().out


def test_the_report_says_what_the_call_did(models: Path, tmp_path: Path) -> None:
    good, bad = a_scan(tmp_path / "in" / "good.nii.gz"), tmp_path / "in" / "bad.nii.gz"
    bad.write_bytes(good.read_bytes()[:200])
    report, out = tmp_path / "report.json", tmp_path / "o"
    assert predict(models, tmp_path / "in", "-o", out, "--report", report) == 1
    said = json.loads(report.read_text())
    assert said["finished"] and said["exit_status"] == 1 and said["seconds"] > 0
    weights = (models / "tumor" / "weights.safetensors").read_bytes()
    assert said["models"]["tumor"]["weights"] == hashlib.sha256(weights).hexdigest()
    assert said["software"]["torch"] and said["device"] and said["precision"]
    first, second = said["scans"]
    assert (first["status"], second["status"]) == ("failed", "segmented")
    assert "bad.nii.gz" in first["errors"][0] and second["errors"] == []
    row = json.loads((out / "prediction_good.json").read_text())["measurements"]
    assert second["measurements"] == row
    assert second["files"]["labels"] == str(out / "prediction_good.nii.gz")
    assert set(second["seconds"]) == {"reading", "kidneys", "tumor", "writing"}
    assert predict(models, good, "-o", out, "--report", report, "--resume") == 0
    assert [scan["status"] for scan in json.loads(report.read_text())["scans"]] == ["kept"]


def test_more_threads_than_cores_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert status("predict", "a.nii.gz", "-o", tmp_path, "--threads", 100_000) == 2
    assert "--threads" in capsys.readouterr().err
