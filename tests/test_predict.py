"""`predict`: what it writes for a scan, what it refuses, and how it goes on after a broken one."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.spatial.distance import pdist

from kitslib.commands import main
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
