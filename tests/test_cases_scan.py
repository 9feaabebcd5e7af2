"""Any scan as HU: what is no CT is refused, what looks wrong is said, units and axes are right."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kitslib.commands import main
from kitslib.commands.measurements import add_row, write_preview
from kitslib.commands.scans import find_scans, output_files, scan_name
from kitslib.commands.score import alias, label_files
from kitslib.config import KidneyGrid
from kitslib.data import (
    CaseError,
    canonical_affine,
    check_cohort,
    find_cases,
    kidney_input,
    load_case,
    read_labels,
    read_scan,
    require_same_grid,
    write_imaging,
    write_labels,
)
from kitslib.data.cases.geometry import Geometry
from kitslib.transforms import TransformError

SPACING = (3.0, 0.8, 0.8)
AFFINE = canonical_affine(SPACING)


def body(depth: int = 9) -> np.ndarray:
    """Fat and muscle in noisy air, int16 HU (D, H, W)."""
    volume = np.full((depth, 24, 20), -1000, np.int16)
    volume[:, 3:21, 3:17], volume[:, 5:19, 5:15] = -100, 50
    return volume + np.random.default_rng(1).integers(-9, 10, volume.shape, dtype=np.int16)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, unit: str = "mm") -> Path:
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units(unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return path


def padded(shift: int) -> np.ndarray:
    """The body with so many added, in a circle outside of which all is -2000."""
    volume = body() + np.int16(shift)
    volume[:, :2] = volume[:, -2:] = -2000
    return volume


NO_HU = {
    "HU + 1024": (body() + np.int16(1024)).astype(np.uint16),
    "HU + 1000 with padding": padded(1000),
    "0 to 1": ((body().clip(-160, 240) + 160) / 400).astype(np.float32),
    "0 to 255": ((body().clip(-160, 240).astype(float) + 160) / 400 * 255).astype(np.uint8),
    "standardised": ((body() - body().mean()) / body().std()).astype(np.float32),
    "MR": np.abs(body() * 2).astype(np.int16),
    "one value": np.full_like(body(), -1024),
    "labels": (body() > 0).astype(np.uint8),
    "near labels": (body() > 0).astype(np.float32) * np.float32(0.99999),
    "beyond all": body().astype(np.float32) * np.float32(1e6),
}


@pytest.mark.parametrize("kind", NO_HU)
def test_what_cannot_be_hu_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(CaseError, match=r"a\.nii\.gz: ") as error:
        read_scan(save(tmp_path / "a.nii.gz", NO_HU[kind]))
    assert error.value.code in ("not_hu", "constant")


ODD_HU = {
    "clipped": (body().clip(-160, 240), "no air"),
    "halved": (body() // 2, "no air"),
    "doubled": (body() * 2, "below air"),
}


@pytest.mark.parametrize("kind", ODD_HU)
def test_what_may_be_no_hu_is_said(tmp_path: Path, kind: str) -> None:
    volume, words = ODD_HU[kind]
    scan = read_scan(save(tmp_path / "a.nii.gz", volume))
    assert len(scan.warnings) == 1 and words in scan.warnings[0]
    np.testing.assert_array_equal(scan.imaging, volume)


def test_a_sound_scan_and_one_with_padding_have_no_warnings(tmp_path: Path) -> None:
    for volume in (body(), padded(0)):
        assert read_scan(save(tmp_path / "a.nii.gz", volume)).warnings == ()


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3), ("unknown", 1)])
def test_lengths_in_other_units_are_turned_into_mm(
    tmp_path: Path, unit: str, factor: float
) -> None:
    affine = AFFINE.copy()
    affine[:3] *= factor
    path = save(tmp_path / "a.nii.gz", body(), affine, unit)
    scan = read_scan(path)
    assert scan.geometry.spacing == pytest.approx(SPACING) and scan.warnings == ()
    write_labels(tmp_path / "b.nii.gz", (body() > 0).astype(np.uint8), scan.geometry)
    made = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(made.affine, nib.load(path).affine)  # in the scan's own unit
    assert made.header.get_xyzt_units()[0] == unit


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1), ("micron", 1), ("mm", 1e-3)])
def test_voxels_that_no_ct_has_are_refused(tmp_path: Path, unit: str, factor: float) -> None:
    affine = AFFINE.copy()
    affine[:3] *= factor
    with pytest.raises(CaseError, match="unit") as error:
        read_scan(save(tmp_path / "a.nii.gz", body(), affine, unit))
    assert error.value.code == "spacing_impossible"


def without_codes(path: Path, array: np.ndarray, zooms: tuple[float, ...]) -> Path:
    image = nib.Nifti1Image(array, None)
    image.header.set_zooms(zooms)
    image.header["sform_code"] = image.header["qform_code"] = 0
    image.to_filename(path)
    return path


@pytest.mark.parametrize(
    ("order", "zooms", "codes"),
    [
        ((2, 1, 0), (0.8, 0.8, 3.0), "LPS"),
        ((2, 1, 0), (1.0, 1.0, 1.0), "LPS"),
        ((0, 1, 2), (3.0, 0.8, 0.8), "IPL"),
        ((0, 1, 2), (1.0, 1.0, 1.0), "IPL"),
    ],
)
def test_axes_are_told_from_voxel_size_or_shape_where_the_header_is_silent(
    tmp_path: Path, order: tuple[int, ...], zooms: tuple[float, ...], codes: str
) -> None:
    square = np.pad(body(), ((0, 0), (0, 0), (0, 4)), constant_values=-1000)
    array = np.ascontiguousarray(square.transpose(order))
    scan = read_scan(without_codes(tmp_path / "a.nii.gz", array, zooms))
    assert scan.imaging.shape == (9, 24, 24) and "".join(scan.geometry.axis_codes) == codes
    assert "no orientation in the header" in scan.warnings[0] and codes in scan.warnings[0]


def test_sform_and_qform_that_contradict_each_other_are_said(tmp_path: Path) -> None:
    image = nib.Nifti1Image(body(), AFFINE)
    other = AFFINE.copy()
    other[:3, 3] += [0, 0, 30]
    image.set_qform(other, code=1)
    image.to_filename(tmp_path / "a.nii.gz")
    (said,) = read_scan(tmp_path / "a.nii.gz").warnings
    assert "sform and qform put a voxel up to 10 voxels apart; sform is used" in said
    image.set_qform(AFFINE, code=1)
    image.header["srow_x"] = np.nan
    image.header["sform_code"] = 1
    (tmp_path / "b.nii").write_bytes(image.header.binaryblock + bytes(4) + body().tobytes("F"))
    (said,) = read_scan(tmp_path / "b.nii").warnings
    assert "the qform is used" in said


def test_axes_that_lean_are_said(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[1, 0] = 1.5  # slices move by half a distance
    image = nib.Nifti1Image(body(), sheared)
    image.set_qform(None, code=0)
    image.to_filename(tmp_path / "a.nii.gz")
    assert any("not at right angles" in said for said in read_scan(tmp_path / "a.nii.gz").warnings)


def test_a_header_that_cannot_be_written_back_is_refused_or_put_right(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", body())
    raw = bytearray(path.read_bytes())
    raw[72:74] = np.array([7], "<i2").tobytes()  # bits a voxel, which the type says too
    path.write_bytes(raw)
    scan = read_scan(path)
    write_labels(tmp_path / "b.nii", (body() > 0).astype(np.uint8), scan.geometry)
    assert nib.load(tmp_path / "b.nii").header["bitpix"] == 8


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((18, 4000, 1), (3, 1, 1)), ((2000, 64, 64), (3, 5, 5)), ((20, 64, 64), (3, 40, 40))],
)
def test_grids_that_no_body_has_are_refused_before_memory_is_used(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    with pytest.raises(TransformError, match="check the voxel size"):
        kidney_input(np.broadcast_to(np.int16(0), shape), spacing, KidneyGrid())


# labels and their grids


@pytest.mark.parametrize("kind", ["slope", "below", "above"])
def test_labels_within_rounding_are_whole_and_noted(tmp_path: Path, kind: str) -> None:
    labels = np.zeros((9, 24, 20), np.uint8)
    labels[2:7, 8:16, 5:15], labels[4:6, 9:12, 6:9] = 1, 2
    write_imaging(tmp_path / "c" / "a" / "imaging.nii.gz", body(), AFFINE)
    path = tmp_path / "c" / "a" / "segmentation.nii.gz"
    if kind == "slope":  # a float array under an integer header: nibabel chooses a slope
        header = nib.Nifti1Header()
        header.set_data_dtype(np.int16)
        nib.Nifti1Image(labels.astype(np.float64), AFFINE, header=header).to_filename(path)
    else:
        nudge = {"below": 0.9999999, "above": 1.0003}[kind]
        save(path, (labels * nudge).astype(np.float32))
    np.testing.assert_array_equal(read_labels(path)[0], labels)
    (report,) = check_cohort(tmp_path / "c")
    assert not report.unusable and report.label_values == (0, 1, 2)
    assert "float_labels" in {finding.code for finding in report.findings}


def test_labels_beyond_rounding_are_none(tmp_path: Path) -> None:
    for value in (1.002, np.nan):
        values = np.zeros((9, 24, 20), np.float32)
        values[0, 0, 0] = value
        with pytest.raises(CaseError, match="got also"):
            read_labels(save(tmp_path / "a.nii.gz", values))


@pytest.mark.parametrize(("axis", "mm"), [(0, 3.5), (1, 1.0), (2, 4.9)])
def test_a_shift_is_counted_in_voxels_of_its_axis(axis: int, mm: float) -> None:
    moved = AFFINE.copy()
    moved[2 - axis, 3] += mm
    first, second = (Geometry.from_affine(one, (9, 24, 20)) for one in (AFFINE, moved))
    with pytest.raises(CaseError, match=f"{mm / SPACING[axis]:.1f} voxels along an axis"):
        require_same_grid("a", first, second)
    moved[2 - axis, 3] = AFFINE[2 - axis, 3] + 0.9 * SPACING[axis]
    require_same_grid("a", first, Geometry.from_affine(moved, (9, 24, 20)))


# cohorts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version https://git-lfs.github.com/spec/v1\n", True),
        ("", True),
        ('{"case_00000": {"age": 3}}', True),
        ('[{"age": 3}]', True),
        ("\ufeff[]", False),
        ('\ufeff[{"case_id": "case_00000", "age": 3}]', False),
    ],
)
def test_kits_json_hides_no_case(tmp_path: Path, text: str, said: bool) -> None:
    write_imaging(tmp_path / "case_00000" / "imaging.nii.gz", body(), AFFINE)
    (tmp_path / "kits.json").write_text(text, encoding="utf-8")
    assert list(find_scans([tmp_path])[0]) == ["00000"]
    (report,) = check_cohort(tmp_path)
    assert ("records" in {finding.code for finding in report.findings}) == said
    assert not report.unusable
    assert load_case(find_cases(tmp_path)[0]).imaging is not None
    if "case_id" in text:
        assert find_cases(tmp_path)[0].record == {"case_id": "case_00000", "age": 3}


def test_reasons_are_the_true_ones(tmp_path: Path) -> None:
    for name in ("case_00001", "mine"):
        write_imaging(tmp_path / name / "a.nii.gz", body(), AFFINE)
        (tmp_path / name / "a.nii.gz").rename(tmp_path / name / "Imaging.NII.gz")
    (tmp_path / "case_00002").mkdir()
    (tmp_path / "case_00002" / "imaging.nii.gz").symlink_to("/nowhere/annex")
    found = {report.case_id: report.findings for report in check_cohort(tmp_path)}
    for name in ("case_00001", "mine"):
        (finding,) = found[name]
        assert "Imaging.NII.gz is misnamed; rename it to imaging.nii.gz" in finding.message
    (finding,) = found["case_00002"]
    assert "imaging.nii.gz is a link to /nowhere/annex, where there is nothing" in finding.message
    with pytest.raises(CaseError, match="found a link to nothing"):
        read_scan(tmp_path / "case_00002" / "imaging.nii.gz")


# names


def test_suffixes_count_in_letters_of_either_case(tmp_path: Path) -> None:
    path = save(tmp_path / "in" / "a.nii.gz", body())
    path.rename(path.with_name("SCAN.NII.GZ"))
    scans, _ = find_scans([tmp_path / "in"])
    assert list(scans) == ["SCAN"] and read_scan(scans["SCAN"]).imaging.shape == (9, 24, 20)
    files = output_files("SCAN", tmp_path / "MINE.NII.GZ")
    assert files["labels"].name == "MINE.NII.GZ" and files["sidecar"].name == "MINE.json"
    write_labels(files["labels"], np.zeros((9, 24, 20), np.uint8), AFFINE)
    assert files["labels"].read_bytes()[:2] == b"\x1f\x8b"
    assert list(label_files(tmp_path)) == ["MINE"]


@pytest.mark.parametrize(
    ("scan", "truth"),
    [
        ("cohort/patient_A/imaging.nii.gz", "patient_A"),
        ("cohort/7/imaging.nii.gz", "7"),
        ("cohort/case_00012/imaging.nii.gz", "case_00012"),
        ("cohort/case_12/imaging.nii.gz", "case_12"),
        ("cohort/case_000123/imaging.nii.gz", "case_000123"),
        ("cohort/00012/imaging.nii.gz", "00012"),
        ("flat/liver_1_0000.nii.gz", "liver_1"),
        ("flat/case_00012_0000.nii.gz", "case_00012"),
        ("flat/case_00012_0000.nii.gz", "case_00012_0000"),
        ("flat/a b$c.nii", "a b$c"),
    ],
)
def test_what_predict_writes_score_finds_again(tmp_path: Path, scan: str, truth: str) -> None:
    name = scan_name(tmp_path / scan)
    labels = np.zeros((9, 24, 20), np.uint8)
    labels[2:7, 8:16, 5:15], labels[4:6, 9:12, 6:9] = 1, 2
    write_labels(output_files(name, tmp_path / "out")["labels"], labels, AFFINE)
    write_labels(tmp_path / "truth" / f"{truth}.nii.gz", labels, AFFINE)
    words = ["score", str(tmp_path / "out"), str(tmp_path / "truth"), "--json"]
    assert main([*words, str(tmp_path / "s.json")]) == 0
    row = json.loads((tmp_path / "s.json").read_text())["cases"][0]
    assert row["tumor_dice"] == 1


def test_an_alias_is_only_taken_where_the_name_itself_is_no_case() -> None:
    assert alias("liver_1_0000", ["liver_1", "liver_1_0000"]) == "liver_1_0000"
    assert alias("case_00012", ["00012", "case_00012"]) == "case_00012"
    assert alias("other", ["liver_1"]) == "other"


def test_two_files_of_one_name_are_refused_and_the_others_go_on(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz", "b.nii"):
        save(tmp_path / name, body())
    scans, empty = find_scans([tmp_path])
    assert list(scans) == ["b"]
    assert {path.name for path in empty} == {"a.nii", "a.nii.gz"}
    assert all("would all be called a" in str(error) for error in empty.values())
    with pytest.raises(CaseError, match=r"are both of a; remove one"):
        label_files(tmp_path)


def test_a_dollar_in_a_name_is_no_formula(tmp_path: Path) -> None:
    row = {"tumor_ml": 0.0, "kidney_and_masses_ml": 0.0}
    labels = np.zeros((9, 24, 20), np.uint8)
    write_preview(tmp_path / "a.jpg", r"$\frac$ and $x", body(), labels, SPACING, row)
    assert (tmp_path / "a.jpg").stat().st_size > 1000


@pytest.mark.parametrize("text", ["", "a;b\n1;2\n", "case\n1\n", '"', "\0"])
def test_a_foreign_table_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(CaseError, match=r"predictions\.csv .*move it away"):
        add_row(tmp_path / "predictions.csv", {"case": "1", "tumor_ml": 3.0})
    assert (tmp_path / "predictions.csv").read_text() == text
