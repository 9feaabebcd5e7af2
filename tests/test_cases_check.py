"""The check of a cohort: many kinds of damage, each with its one right answer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kitslib.data import (
    DEFECTS,
    CaseReport,
    apply_policy,
    canonical_affine,
    check_cohort,
    defect_of,
    find_cases,
    finding_rows,
    format_reports,
    reports_to_json,
    write_imaging,
    write_labels,
)

SPACING = (5.0, 4.0, 4.0)  # one voxel = 0.08 ml
AFFINE = canonical_affine(SPACING)
Damage = Callable[[Path, np.ndarray, np.ndarray], None]


def healthy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body in air, a kidney of 384 voxels, 64 of them tumour; one voxel moves with the seed."""
    rng = np.random.default_rng(seed)
    imaging = np.full((24, 20, 18), -1000, dtype=np.int16)
    imaging[:, 3:17, 3:15] = 40
    labels = np.zeros(imaging.shape, dtype=np.uint8)
    labels[8:16, 6:14, 5:11] = 1
    labels[12:16, 6:10, 5:9] = 2
    labels[8, 13, 10], labels[9 + seed // 18, 15, seed % 18] = 0, 1
    imaging[labels == 1], imaging[labels == 2] = 150, 90
    imaging += rng.integers(-5, 6, imaging.shape, dtype=np.int16)
    return imaging, labels


def write_case(folder: Path, imaging: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(parents=True)
    write_imaging(folder / "imaging.nii.gz", imaging, AFFINE)
    write_labels(folder / "segmentation.nii.gz", labels, AFFINE)


def with_nibabel(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nib.Nifti1Image(array, affine).to_filename(path)


def truncated(folder: Path, *_) -> None:
    path = folder / "imaging.nii.gz"
    path.write_bytes(path.read_bytes()[:-500])


def flipped_bits(folder: Path, *_) -> None:
    raw = bytearray((folder / "imaging.nii.gz").read_bytes())
    raw[-8] ^= 0xFF  # the stored checksum: everything inflates, nothing says so before the end
    (folder / "imaging.nii.gz").write_bytes(raw)


def no_bytes(folder: Path, *_) -> None:
    (folder / "imaging.nii.gz").write_bytes(b"")


def web_page(folder: Path, *_) -> None:
    (folder / "imaging.nii.gz").write_bytes(
        b"<!DOCTYPE html><title>Quota exceeded</title>" + b" " * 400
    )


def lfs_pointer(folder: Path, *_) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (folder / "segmentation.nii.gz").write_bytes(pointer)


def four_dimensions(folder: Path, imaging: np.ndarray, _: np.ndarray) -> None:
    with_nibabel(folder / "imaging.nii.gz", np.stack([imaging, imaging], axis=-1))


def no_voxels(folder: Path, *_) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape((0, 20, 18))
    header.set_sform(AFFINE, code=2)
    header["magic"], header["vox_offset"] = b"n+1", 352
    (folder / "imaging.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)))


def colours(folder: Path, imaging: np.ndarray, _: np.ndarray) -> None:
    rgb = np.zeros(imaging.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with_nibabel(folder / "imaging.nii.gz", rgb)


def not_a_number(folder: Path, imaging: np.ndarray, _: np.ndarray) -> None:
    values = imaging.astype(np.float64)
    values[0, 0, :5] = np.nan
    with_nibabel(folder / "imaging.nii.gz", values)


def constant(folder: Path, imaging: np.ndarray, _: np.ndarray) -> None:
    write_imaging(folder / "imaging.nii.gz", np.full_like(imaging, -1024), AFFINE)


def raw_values(folder: Path, imaging: np.ndarray, _: np.ndarray) -> None:
    write_imaging(folder / "imaging.nii.gz", imaging + np.int16(1024), AFFINE)


def normalised(folder: Path, imaging: np.ndarray, _: np.ndarray) -> None:
    with_nibabel(folder / "imaging.nii.gz", (imaging / 500).astype(np.float32))


def bright_metal(folder: Path, imaging: np.ndarray, _: np.ndarray) -> None:
    imaging[0, 5, 5] = 20_000
    write_imaging(folder / "imaging.nii.gz", imaging, AFFINE)


def label_five(folder: Path, _: np.ndarray, labels: np.ndarray) -> None:
    labels[0, 0, 0] = 5
    write_labels(folder / "segmentation.nii.gz", labels, AFFINE)


def blurred_labels(folder: Path, _: np.ndarray, labels: np.ndarray) -> None:
    values = labels.astype(np.float32)
    values[8, 6, 5] = 0.5
    with_nibabel(folder / "segmentation.nii.gz", values)


def other_grid(folder: Path, _: np.ndarray, labels: np.ndarray) -> None:
    write_labels(folder / "segmentation.nii.gz", labels[1:], AFFINE)


def other_place(folder: Path, _: np.ndarray, labels: np.ndarray) -> None:
    affine = AFFINE.copy()
    affine[2, 3] = 40
    write_labels(folder / "segmentation.nii.gz", labels, affine)


def swapped_names(folder: Path, *_) -> None:
    (folder / "imaging.nii.gz").rename(folder / "other")
    (folder / "segmentation.nii.gz").rename(folder / "imaging.nii.gz")
    (folder / "other").rename(folder / "segmentation.nii.gz")


def no_imaging(folder: Path, *_) -> None:
    (folder / "imaging.nii.gz").unlink()


def no_segmentation(folder: Path, *_) -> None:
    (folder / "segmentation.nii.gz").unlink()


def no_files(folder: Path, *_) -> None:
    no_imaging(folder)
    no_segmentation(folder)


def nothing_labelled(folder: Path, _: np.ndarray, labels: np.ndarray) -> None:
    write_labels(folder / "segmentation.nii.gz", np.zeros_like(labels), AFFINE)


def kidney_only(folder: Path, _: np.ndarray, labels: np.ndarray) -> None:
    write_labels(folder / "segmentation.nii.gz", np.minimum(labels, 1), AFFINE)


def tumour_only(folder: Path, _: np.ndarray, labels: np.ndarray) -> None:
    write_labels(folder / "segmentation.nii.gz", np.where(labels, 2, 0).astype(np.uint8), AFFINE)


def cut_kidney(folder: Path, imaging: np.ndarray, labels: np.ndarray) -> None:
    write_imaging(folder / "imaging.nii.gz", np.roll(imaging, 8, axis=0), AFFINE)
    write_labels(folder / "segmentation.nii.gz", np.roll(labels, 8, axis=0), AFFINE)


def mirrored_labels(folder: Path, imaging: np.ndarray, labels: np.ndarray) -> None:
    write_imaging(folder / "imaging.nii.gz", np.roll(imaging, 3, axis=2), AFFINE)
    write_labels(folder / "segmentation.nii.gz", np.roll(labels, -5, axis=2), AFFINE)


def wrong_record(folder: Path, *_) -> None:
    spacing = {"z_spacing": 3.0, "y_spacing": 4.0, "x_spacing": 4.0}
    records = [{"case_id": folder.name, "voxel_spacing": spacing}]
    (folder.parent / "kits.json").write_text(json.dumps(records))


def cyst_in_kits19(folder: Path, _: np.ndarray, labels: np.ndarray) -> None:
    labels[8, 6, 5] = 3
    write_labels(folder / "segmentation.nii.gz", labels, AFFINE)


def huge_header(folder: Path, imaging: np.ndarray, _: np.ndarray) -> None:
    block = bytearray(gzip.decompress((folder / "imaging.nii.gz").read_bytes()))
    block[42:48] = np.array([30_000] * 3, dtype="<i2").tobytes()
    (folder / "imaging.nii.gz").write_bytes(gzip.compress(bytes(block)))


def damaged_header(folder: Path, *_) -> None:
    block = bytearray(gzip.decompress((folder / "imaging.nii.gz").read_bytes()))
    block[70:72] = np.array([1027], dtype="<i2").tobytes()  # a voxel type that does not exist
    (folder / "imaging.nii.gz").write_bytes(gzip.compress(bytes(block)))


def far_voxels(folder: Path, *_) -> None:
    block = bytearray(gzip.decompress((folder / "imaging.nii.gz").read_bytes()))
    block[108:112] = np.array([1e12], dtype="<f4").tobytes()  # the offset of the first voxel
    (folder / "imaging.nii.gz").write_bytes(gzip.compress(bytes(block)))


def axes_unknown(folder: Path, imaging: np.ndarray, _: np.ndarray) -> None:
    image = nib.Nifti1Image(imaging, None)
    image.header.set_zooms(SPACING)
    image.header["qform_code"] = image.header["sform_code"] = 0
    image.to_filename(folder / "imaging.nii.gz")


DAMAGE: tuple[tuple[Damage, str, str], ...] = (
    (truncated, "unusable", "truncated"),
    (flipped_bits, "unusable", "corrupt"),
    (no_bytes, "unusable", "empty_file"),
    (web_page, "unusable", "not_nifti"),
    (lfs_pointer, "unusable", "not_nifti"),
    (four_dimensions, "unusable", "ndim"),
    (no_voxels, "unusable", "zero_size"),
    (colours, "unusable", "dtype"),
    (huge_header, "unusable", "truncated"),
    (damaged_header, "unusable", "corrupt"),
    (far_voxels, "unusable", "corrupt"),
    (not_a_number, "unusable", "nonfinite"),
    (constant, "unusable", "constant"),
    (raw_values, "unusable", "not_hu"),
    (normalised, "unusable", "not_hu"),
    (label_five, "unusable", "label_values"),
    (blurred_labels, "unusable", "label_values"),
    (other_grid, "unusable", "grid_mismatch"),
    (other_place, "unusable", "affine_mismatch"),
    (swapped_names, "unusable", "swapped"),
    (no_imaging, "unusable", "imaging_missing"),
    (no_files, "unusable", "empty_case"),
    (nothing_labelled, "unusable", "empty_labels"),
    (kidney_only, "warning", "no_tumor"),
    (tumour_only, "warning", "no_kidney"),
    (bright_metal, "warning", "hu_range"),
    (mirrored_labels, "warning", "labels_off_organ"),
    (wrong_record, "warning", "spacing_record"),
    (cyst_in_kits19, "warning", "label_release"),
    (axes_unknown, "warning", "orientation_assumed"),
    (cut_kidney, "note", "kidney_cut"),
    (no_segmentation, "note", "segmentation_missing"),
)
FIRST = 70  # case numbers that the register does not know


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> list[CaseReport]:
    """The reports on a folder with one case per damage, a healthy case first and last."""
    data = tmp_path_factory.mktemp("damaged")
    for number in range(len(DAMAGE) + 2):
        folder = data / f"case_{FIRST + number:05d}"
        imaging, labels = healthy(number)
        write_case(folder, imaging, labels)
        if 0 < number <= len(DAMAGE):
            DAMAGE[number - 1][0](folder, imaging, labels)
    return check_cohort(data, jobs=2)


@pytest.mark.parametrize(
    "place", range(len(DAMAGE)), ids=[damage.__name__ for damage, _, _ in DAMAGE]
)
def test_each_damage_gets_its_one_answer(damaged: list[CaseReport], place: int) -> None:
    _, level, code = DAMAGE[place]
    report = damaged[place + 1]
    assert [(finding.level, finding.code) for finding in report.findings] == [(level, code)]
    assert report.level == level
    assert report.case_id in report.findings[0].message
    assert report.unusable == (level == "unusable")
    assert not (report.trainable and report.unusable)


def test_healthy_cases_beside_damaged_ones_are_reported_in_full(damaged: list[CaseReport]) -> None:
    for report in (damaged[0], damaged[-1]):
        assert report.findings == ()
        assert report.level == "ok" and report.trainable
        assert (report.shape, report.spacing, report.axis_codes) == (
            (24, 20, 18),
            SPACING,
            ("I", "P", "L"),
        )
        assert report.label_values == (0, 1, 2)
        assert report.volumes_ml == pytest.approx({"kidney": 320 * 0.08, "tumor": 64 * 0.08})
        assert report.kidney_slices == (8, 15)
        assert (report.kidney_hu, report.tumor_hu) == (
            pytest.approx(150, abs=2),
            pytest.approx(90, abs=2),
        )
        assert report.hu_range == (-1005, 155)


def test_a_broken_imaging_does_not_hide_its_labels(damaged: list[CaseReport]) -> None:
    report = damaged[1 + [damage for damage, _, _ in DAMAGE].index(truncated)]
    assert report.volumes_ml == pytest.approx({"kidney": 320 * 0.08, "tumor": 64 * 0.08})
    assert report.imaging_key is None and not report.trainable


def test_messages_name_the_fix(damaged: list[CaseReport]) -> None:
    told = {finding.code: finding.message for report in damaged for finding in report.findings}
    assert "git lfs pull" in " ".join(f.message for report in damaged for f in report.findings)
    assert "exchange the two file names" in told["swapped"]
    assert "(24, 20, 18)" in told["grid_mismatch"] and "(23, 20, 18)" in told["grid_mismatch"]
    assert "in 5 of 8640 voxels" in told["nonfinite"]
    assert "40.0 mm apart" in told["affine_mismatch"]
    assert (
        "(3.0, 4.0, 4.0)" in told["spacing_record"] and "(5.0, 4.0, 4.0)" in told["spacing_record"]
    )


def test_table_fits_the_screen_and_names_every_case(damaged: list[CaseReport]) -> None:
    text = format_reports(damaged)
    assert max(map(len, text.splitlines())) <= 110
    assert all(text.count(report.case_id) >= 1 for report in damaged)
    assert "34 cases (kits19; labels: kits19)" in text
    assert f"{sum(level == 'unusable' for _, level, _ in DAMAGE)} unusable." in text


def test_json_has_what_the_table_has(damaged: list[CaseReport]) -> None:
    rows = json.loads(reports_to_json(damaged))
    assert [row["case_id"] for row in rows] == [report.case_id for report in damaged]
    assert [row["level"] for row in rows] == [report.level for report in damaged]
    assert rows[1]["findings"][0]["code"] == "truncated" and rows[1]["unusable"] is True
    assert rows[0]["volumes_ml"]["tumor"] == pytest.approx(5.12)
    found = finding_rows(damaged)
    assert (found[0]["case"], found[0]["code"]) == ("case_00071", "truncated")
    assert len(found) == sum(len(report.findings) for report in damaged)


def test_duplicates_point_at_each_other_even_when_compressed_differently(tmp_path: Path) -> None:
    imaging, labels = healthy(0)
    write_case(tmp_path / "case_00030", imaging, labels)
    write_case(tmp_path / "case_00031", imaging, np.roll(labels, 1, axis=1))
    path = tmp_path / "case_00031" / "imaging.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=9, mtime=7))
    write_case(tmp_path / "case_00032", *healthy(1))
    first, second, other = check_cohort(tmp_path)
    assert [finding.code for finding in first.findings] == ["duplicate"]
    assert "its imaging equals that of case_00031" in first.findings[0].message
    assert "case_00030" in second.findings[0].message
    assert other.findings == ()


def test_labels_alone_are_a_label_study_and_not_a_broken_cohort(tmp_path: Path) -> None:
    for number in (30, 31):
        write_case(tmp_path / f"case_{number:05d}", *healthy(number))
        (tmp_path / f"case_{number:05d}" / "imaging.nii.gz").unlink()
    reports = check_cohort(tmp_path)
    assert [[(f.level, f.code) for f in report.findings] for report in reports] == [
        [("warning", "imaging_missing")]
    ] * 2
    assert not any(report.trainable for report in reports)
    assert "0 can be trained on" in format_reports(reports)


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    for number in (30, 31, 32):
        write_case(tmp_path / f"case_{number:05d}", *healthy(number))
    seen: list[tuple[int, int]] = []
    check_cohort(tmp_path, jobs=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_foreign_axes_are_a_note_and_count_slices_from_the_top(tmp_path: Path) -> None:
    imaging, labels = healthy(0)
    labels[20:] = labels[:4] = 0
    labels[4, 6, 5] = 1  # slices 4 to 15 of 24 from the top
    folder = tmp_path / "case_00030"
    folder.mkdir()
    ras = np.diag([4.0, 4.0, 5.0, 1.0])
    for name, array in (("imaging", imaging), ("segmentation", labels)):
        with_nibabel(
            folder / f"{name}.nii.gz",
            np.ascontiguousarray(array.transpose(2, 1, 0)[::-1, ::-1, ::-1]),
            ras,
        )
    (report,) = check_cohort(tmp_path)
    assert {(f.level, f.code) for f in report.findings} == {("note", "reoriented")}
    assert report.axis_codes == ("R", "A", "S")
    assert (report.shape, report.spacing) == ((24, 20, 18), SPACING)
    assert report.kidney_slices == (4, 15)
    assert report.kidney_hu == pytest.approx(150, abs=2)


def test_second_label_map_is_checked_and_gives_the_cysts(tmp_path: Path) -> None:
    for number, offset in ((30, 0), (31, 4)):
        imaging, labels = healthy(number)
        newer = labels.copy()
        newer[10, 6:14, 5:11] = 3  # 48 voxels
        write_case(tmp_path / f"case_{number:05d}", imaging, labels)
        newest = tmp_path / f"case_{number:05d}" / "segmentation_kits23.nii.gz"
        write_labels(newest, newer + np.uint8(offset), AFFINE)
    sound, broken = check_cohort(tmp_path)
    assert sound.volumes_ml["cyst"] == pytest.approx(48 * 0.08)
    assert sound.label_versions == ("kits19", "kits23", "kits23_folded")
    (finding,) = broken.findings
    assert (finding.level, finding.code) == ("unusable", "label_values")
    assert "case_00031/segmentation_kits23.nii.gz" in finding.message


def make_known(data: Path, marker: str | None = None) -> None:
    for number in (23, 24, 160):
        write_case(data / f"case_{number:05d}", *healthy(number))
    if marker:
        (data / marker).write_text("[]" if marker.startswith("kits") else "{}")


def test_register_speaks_of_kits19_cases_and_never_of_synthetic_ones(tmp_path: Path) -> None:
    make_known(tmp_path / "kits19")
    make_known(tmp_path / "kits23", "kits23.json")
    make_known(tmp_path / "phantom", "synthetic.json")
    codes = {
        name: [[f.code for f in report.findings] for report in check_cohort(tmp_path / name)]
        for name in ("kits19", "kits23", "phantom")
    }
    assert codes == {
        "kits19": [
            ["register", "labels_outdated"],
            [],
            ["register"],
        ],  # 23 is not the corrected label map
        "kits23": [[], [], ["register"]],  # the relabelled case is sound, its 796 columns remain
        "phantom": [[], [], []],
    }


def test_policy_keeps_the_papers_list_or_leaves_out_the_winners_four(tmp_path: Path) -> None:
    make_known(tmp_path)
    cases = find_cases(tmp_path)
    assert apply_policy(cases, "keep") == (cases, [])
    used, left_out = apply_policy(cases, "exclude")
    assert [case.case_id for case in left_out] == ["case_00023"]
    assert [case.case_id for case in used] == ["case_00024", "case_00160"]
    with pytest.raises(ValueError, match="expected 'keep' or 'exclude', got 'drop'"):
        apply_policy(cases, "drop")
    assert {name for name, entry in DEFECTS.items() if entry.policy == "exclude"} == {
        "case_00023",
        "case_00068",
        "case_00125",
        "case_00133",
    }
    assert {f"case_{n:05d}" for n in (15, 23, 37, 61, 68, 125, 133, 151, 160)} <= set(DEFECTS)
    assert all(entry.reason and entry.source for entry in DEFECTS.values())
    assert defect_of(cases[1]) is None
