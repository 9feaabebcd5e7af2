"""The page of a scan: where the tumour is, and that it needs no other file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from test_predict import a_scan, models, predict

from kitslib.commands.summary import hollow, tumor_position
from kitslib.reporting.pages.offline import remote_requests

assert models  # a fixture
SPACING = (2.0, 1.0, 1.0)


def body(side: str, tumor: slice, *, kidneys: str = "both") -> tuple[np.ndarray, np.ndarray]:
    """Labels and HU (60, 100, 200): kidneys of 30 × 30 pixels on slices 10 to 49, each with a sinus
    of 10 pixels that is open towards the middle, and a tumour beside one on some slices."""
    labels, imaging = np.zeros((60, 100, 200), np.uint8), np.full((60, 100, 200), -1000, np.int16)
    imaging[:, 20:80, 20:180] = 40
    if kidneys in ("both", "right"):
        labels[10:50, 35:65, 40:70] = 1  # the patient's right is at low columns
        labels[10:50, 45:55, 60:70] = 0
    if kidneys in ("both", "left"):
        labels[10:50, 35:65, 130:160] = 1
        labels[10:50, 45:55, 130:140] = 0
    labels[tumor, 45:55, slice(160, 170) if side == "left" else slice(30, 40)] = 2
    return labels, imaging


@pytest.mark.parametrize("kidneys", ["both", "one"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("tumor", "pole", "along"),
    [
        (slice(12, 17), "upper", 0.1),
        (slice(27, 32), "middle", 0.49),
        (slice(42, 47), "lower", 0.87),
    ],
)
def test_side_pole_and_distance_can_be_told_from_the_labels(
    side: str, tumor: slice, pole: str, along: float, kidneys: str
) -> None:
    labels, imaging = body(side, tumor, kidneys=side if kidneys == "one" else kidneys)
    found = tumor_position(labels, imaging, SPACING)
    assert (found["side"], found["pole"]) == (side, pole)
    assert found["along_kidney"] == pytest.approx(along, abs=0.02)
    within = tumor.start >= 20 and tumor.stop <= 40  # the sinus is looked for in the middle half
    assert found["sinus_mm"] == 21.0 if within else found["sinus_mm"] > 21.0


def test_what_cannot_be_told_is_none() -> None:
    labels, imaging = body("left", slice(27, 32))
    assert tumor_position(np.minimum(labels, 1), imaging, SPACING) == {}
    labels[labels == 1] = 0
    found = tumor_position(labels, imaging, SPACING)
    assert found == {"side": "left", "pole": None, "along_kidney": None, "sinus_mm": None}


def test_a_hollow_is_open_towards_the_middle_alone() -> None:
    labels, _ = body("left", slice(0, 0), kidneys="right")
    kidney = labels == 1
    assert hollow(kidney, to_left=True).sum() == 20 * 10 * 10
    assert hollow(kidney, to_left=False).sum() == 0


def test_a_scan_gets_a_page_that_needs_no_other_file(models: Path, tmp_path: Path) -> None:
    scan = a_scan(tmp_path / "<b>&.nii.gz")
    assert predict(models, scan, "-o", tmp_path / "o", "--summary") == 0
    page = (tmp_path / "o" / "prediction_<b>&.html").read_text(encoding="utf-8")
    assert remote_requests(page) == [] and "Research use only" in page
    assert "data:image/jpeg;base64," in page and "<b>" not in page and "&lt;b&gt;&amp;" in page
    with (tmp_path / "o" / "predictions.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert f"{float(row['tumor_ml']):.1f} ml" in page
    assert f"{float(row['tumor_diameter_mm']):.0f} mm" in page
    assert "too little kidney tissue" in page, "these networks call everything tumour"
    assert "torch 2." in page and page.count("SHA-256") == 2
