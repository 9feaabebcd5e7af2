"""The real label files and real CT beside the project load with the values measured before."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kitslib.data import CaseReport, check_cohort, find_cases, load_case, read_imaging, write_labels


@pytest.fixture(scope="module")
def reports(shared: Path) -> dict[str, list[CaseReport]]:
    return {name: check_cohort(shared / name, jobs=2) for name in ("kits19", "kits23", "realct")}


@pytest.mark.parametrize("release", ["kits19", "kits23"])
def test_every_label_file_has_the_published_geometry_and_volumes(
    shared: Path, reports, release: str
) -> None:
    with (shared / "kits_geometry.csv").open() as table:
        rows = {row["case"]: row for row in csv.DictReader(table)}
    assert len(reports[release]) == 36
    for report in reports[release]:
        row = rows[report.case_id]
        assert report.shape == tuple(int(row[name]) for name in ("slices", "rows", "cols"))
        spacing = [float(row[f"spacing_{axis}_mm"]) for axis in "zyx"]
        assert report.spacing == pytest.approx(spacing, abs=1e-4)
        assert report.axis_codes == ("I", "P", "L")
        assert report.volumes_ml["kidney"] == pytest.approx(
            float(row[f"{release}_kidney_ml"]), rel=1e-3
        )
        assert report.volumes_ml["tumor"] == pytest.approx(
            float(row[f"{release}_tumor_ml"]), abs=0.02
        )
        assert {finding.code for finding in report.findings if finding.level != "note"} == {
            "imaging_missing"
        }
        if release == "kits19":
            first_last = (int(row["kidney_first_slice"]), int(row["kidney_last_slice"]))
            assert report.kidney_slices == first_last
            assert "cyst" not in report.volumes_ml
        else:
            assert report.volumes_ml["cyst"] == pytest.approx(
                float(row["kits23_cyst_ml"]), abs=0.02
            )


def test_quirks_are_noted(reports) -> None:
    codes = {
        report.case_id: {finding.code for finding in report.findings}
        for report in reports["kits19"]
    }
    assert [case for case in codes if "qform_only" in codes[case]] == [
        "case_00023",
        "case_00037",
        "case_00125",
    ]
    assert [case for case in codes if "kidney_cut" in codes[case]] == ["case_00010"]
    assert not any("labels_outdated" in found for found in codes.values())
    register = [int(case[-5:]) for case in codes if "register" in codes[case]]
    assert register == [23, 37, 61, 121, 125, 133, 151, 160]


def test_odd_label_files_load_whole(shared: Path) -> None:
    wanted = {
        "case_00023": (107, 512, 512),
        "case_00061": (29, 512, 512),
        "case_00160": (252, 512, 796),
    }
    for files in find_cases(shared / "kits19"):
        if files.case_id in wanted:
            case = load_case(files)
            assert case.labels.shape == wanted[files.case_id]
            assert case.imaging is None and case.labels.dtype == np.uint8
            assert sorted(np.unique(case.labels)) == [0, 1, 2]


def test_real_ct_is_found_sound(reports) -> None:
    found = {report.case_id: report for report in reports["realct"]}
    assert sorted(found) == ["crlm1004", "ircad01", "ts_example_ct_sm"]
    assert not any(report.unusable for report in found.values())
    assert found["ircad01"].volumes_ml["kidney"] == pytest.approx(257.7, abs=0.05)
    assert 100 < found["ircad01"].kidney_hu < 260  # portal venous phase
    assert {f.code for f in found["crlm1004"].findings} == {"segmentation_missing", "padding"}


def test_real_case_is_exported_in_its_own_geometry(shared: Path, tmp_path: Path) -> None:
    files = next(case for case in find_cases(shared / "realct") if case.case_id == "ircad01")
    case = load_case(files)
    assert case.imaging.shape == case.labels.shape == (129, 512, 512)
    assert case.spacing == (1.6, 0.57, 0.57)
    assert (case.imaging.min(), case.imaging.max()) == (-1024, 1023)
    write_labels(tmp_path / "export.nii.gz", case.labels, case.geometry)
    source, export = nib.load(files.segmentation), nib.load(tmp_path / "export.nii.gz")
    np.testing.assert_array_equal(export.affine, source.affine)
    np.testing.assert_array_equal(np.asarray(export.dataobj), np.asarray(source.dataobj))


def test_real_ct_saved_as_ras_reads_the_same_and_comes_back_as_ras(
    shared: Path, tmp_path: Path
) -> None:
    folder = shared / "realct" / "data" / "ts_example_ct_sm"
    kits, _ = read_imaging(folder / "imaging.nii.gz")
    ras = nib.as_closest_canonical(nib.load(folder / "imaging.nii.gz"))
    ras.to_filename(tmp_path / "ras.nii.gz")
    volume, geometry = read_imaging(tmp_path / "ras.nii.gz")
    np.testing.assert_array_equal(volume, kits)
    body = (volume > -200).astype(np.uint8)
    write_labels(tmp_path / "body.nii.gz", body, geometry)
    export = nib.load(tmp_path / "body.nii.gz")
    assert nib.aff2axcodes(export.affine) == ("R", "A", "S")
    np.testing.assert_array_equal(export.affine, nib.load(tmp_path / "ras.nii.gz").affine)
    np.testing.assert_array_equal(np.asarray(export.dataobj), np.asarray(ras.dataobj) > -200)
