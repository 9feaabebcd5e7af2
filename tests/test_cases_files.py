"""Reading, orientation, writing and finding of cases, on volumes of a few voxels."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from kitslib.data import (
    CaseError,
    Geometry,
    available_labels,
    canonical_affine,
    find_cases,
    fingerprint,
    load_case,
    read_imaging,
    read_labels,
    require_same_grid,
    write_imaging,
    write_labels,
)
from kitslib.data.cases import files, nifti

SPACING = (5.0, 0.75, 0.5)
LABELS = np.array(
    [[[0, 1, 2], [3, 0, 0]], [[1, 1, 0], [0, 2, 2]]], dtype=np.uint8
)  # (D, H, W) = (2, 2, 3)
ALL_CODES = [
    "".join(pair[flip] for pair, flip in zip(axes, flips, strict=True))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None, **header) -> Path:
    """Write a file with nibabel alone, so that reading is tested against another writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, canonical_affine(SPACING) if affine is None else affine)
    for field, value in header.items():
        image.header[field] = value
    image.to_filename(path)
    return path


def in_axes(array: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """A (z, y, x) array turned to other axes by nibabel, with its affine."""
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt("IPL"), orientations.axcodes2ornt(tuple(codes))
    )
    affine = canonical_affine(SPACING) @ orientations.inv_ornt_aff(turn, array.shape)
    return np.ascontiguousarray(orientations.apply_orientation(array, turn)), affine


def test_canonical_affine_places_voxels_as_kits_does() -> None:
    affine = canonical_affine((5.0, 0.75, 0.5))
    assert nib.aff2axcodes(affine) == ("I", "P", "L")
    assert (affine @ [1, 2, 4, 1]).tolist() == [
        -2.0,
        -1.5,
        -5.0,
        1.0,
    ]  # 4·0.5 left, 2·0.75 behind, 5 below


def test_ras_file_is_read_from_the_top_from_the_front_from_the_right(tmp_path: Path) -> None:
    ras = np.zeros(
        (3, 2, 2), dtype=np.int16
    )  # (x, y, z): x grows to the left-hand reader's right: R
    ras[2, 1, 1] = 7  # most right, most anterior, most superior: the first voxel of (z, y, x)
    ras[0, 1, 1] = 8  # most left of the same row: the last of x
    path = save(tmp_path / "imaging.nii.gz", ras, np.diag([0.5, 0.75, 5.0, 1.0]))
    volume, geometry = read_imaging(path)
    assert geometry.axis_codes == ("R", "A", "S")
    assert geometry.spacing == (5.0, 0.75, 0.5)
    assert volume.shape == geometry.canonical_shape == (2, 2, 3)
    assert (volume[0, 0, 0], volume[0, 0, 2]) == (7, 8)
    assert volume.flags.c_contiguous


@pytest.mark.parametrize("codes", ALL_CODES)
def test_every_axis_order_reads_the_same_and_is_exported_to_the_bit(
    tmp_path: Path, codes: str
) -> None:
    array, affine = in_axes(LABELS, codes)
    source = save(tmp_path / "source.nii.gz", array, affine)
    labels, geometry = read_labels(source)
    assert geometry.axis_codes == tuple(codes)
    assert geometry.spacing == SPACING
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_allclose(geometry.canonical_affine, canonical_affine(SPACING), atol=1e-6)

    write_labels(tmp_path / "export.nii.gz", labels, geometry)
    before, after = nib.load(source), nib.load(tmp_path / "export.nii.gz")
    np.testing.assert_array_equal(np.asarray(after.dataobj), array)
    np.testing.assert_array_equal(after.affine, before.affine)
    for field in (
        "sform_code",
        "qform_code",
        "srow_x",
        "srow_y",
        "srow_z",
        "quatern_b",
        "pixdim",
        "dim",
    ):
        np.testing.assert_array_equal(after.header[field], before.header[field])


def test_oblique_axes_take_the_nearest_codes_and_keep_their_affine(tmp_path: Path) -> None:
    tilt = np.radians(10)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = canonical_affine(SPACING)
    affine[:3, :3] = turn @ affine[:3, :3]
    path = save(tmp_path / "source.nii.gz", LABELS, affine)
    labels, geometry = read_labels(path)
    assert geometry.axis_codes == ("I", "P", "L")
    assert geometry.spacing == pytest.approx(SPACING, rel=1e-6)
    assert geometry.oblique_degrees == pytest.approx(10, abs=1e-3)
    write_labels(tmp_path / "export.nii.gz", labels, geometry)
    np.testing.assert_array_equal(
        nib.load(tmp_path / "export.nii.gz").affine, nib.load(path).affine
    )


def test_qform_alone_is_used_where_the_sform_is_zero(tmp_path: Path) -> None:
    image = nib.Nifti1Image(LABELS.astype(np.uint16), None)
    image.header.set_qform(canonical_affine((3.0, 0.782, 0.782)), code=1)
    image.header["sform_code"] = 0
    for row in ("srow_x", "srow_y", "srow_z"):
        image.header[row] = 0
    image.to_filename(tmp_path / "source.nii.gz")
    labels, geometry = read_labels(tmp_path / "source.nii.gz")
    np.testing.assert_array_equal(labels, LABELS)
    assert geometry.spacing == (3.0, 0.782, 0.782)  # no float32 dust
    assert not geometry.orientation_assumed
    write_labels(tmp_path / "export.nii.gz", labels, geometry)
    header = nib.load(tmp_path / "export.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 1)
    assert header.get_data_dtype() == np.uint8


def test_zero_sform_with_a_code_does_not_hide_the_qform(tmp_path: Path) -> None:
    image = nib.Nifti1Image(LABELS, None)
    image.header.set_qform(canonical_affine(SPACING), code=1)
    image.header["sform_code"] = 1
    image.to_filename(tmp_path / "source.nii.gz")
    assert read_labels(tmp_path / "source.nii.gz")[1].spacing == SPACING


def test_no_orientation_at_all_is_assumed_and_said(tmp_path: Path) -> None:
    image = nib.Nifti1Image(LABELS, None)
    image.header.set_zooms(SPACING)
    image.header["sform_code"] = image.header["qform_code"] = 0
    image.to_filename(tmp_path / "source.nii.gz")
    labels, geometry = read_labels(tmp_path / "source.nii.gz")
    assert geometry.orientation_assumed
    assert geometry.spacing == SPACING
    np.testing.assert_array_equal(labels, LABELS)


def test_spacing_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "source.nii", LABELS)
    raw = bytearray(path.read_bytes())
    raw[76:108] = bytes(32)  # pixdim
    raw[252:256] = bytes(4)  # qform and sform codes
    path.write_bytes(raw)
    with pytest.raises(
        CaseError, match=r"source.nii: expected an affine or positive voxel sizes"
    ) as error:
        read_labels(path)
    assert error.value.code == "geometry"


def test_float_imaging_is_scaled_rounded_and_clipped(tmp_path: Path) -> None:
    values = np.array([-1000.4, 0.6, 1e6, -1e6], dtype=np.float64).reshape(4, 1, 1)
    volume, _ = read_imaging(save(tmp_path / "a.nii.gz", values))
    assert volume.ravel().tolist() == [-1000, 1, 32767, -32768]
    assert volume.dtype == np.int16


def test_slope_and_intercept_of_the_header_are_honoured(tmp_path: Path) -> None:
    image = nib.Nifti1Image(
        np.array([0, 512, 1024], dtype=np.int16).reshape(3, 1, 1), canonical_affine(SPACING)
    )
    path = tmp_path / "a.nii"
    image.to_filename(path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([2.0, -1024.0], dtype="<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(raw)
    assert read_imaging(path)[0].ravel().tolist() == [-1024, 0, 1024]


def test_unsigned_integers_beyond_int16_are_clipped(tmp_path: Path) -> None:
    values = np.array([0, 40000, 65535], dtype=np.uint16).reshape(3, 1, 1)
    assert read_imaging(save(tmp_path / "a.nii.gz", values))[0].ravel().tolist() == [
        0,
        32767,
        32767,
    ]


def test_nan_and_infinity_are_refused_with_their_number(tmp_path: Path) -> None:
    values = np.zeros((4, 3, 2), dtype=np.float32)
    values[0, 0, 0], values[1, 1, 1], values[3, 2, 1] = np.nan, np.inf, -np.inf
    with pytest.raises(CaseError, match="in 3 of 24 voxels") as error:
        read_imaging(save(tmp_path / "case_00001" / "imaging.nii.gz", values))
    assert error.value.code == "nonfinite"
    assert "case_00001/imaging.nii.gz" in str(error.value)


def test_big_endian_and_nifti2_files_are_read_and_exported(tmp_path: Path) -> None:
    big = nib.Nifti1Image(
        LABELS.astype(">i2"), canonical_affine(SPACING), nib.Nifti1Header(endianness=">")
    )
    big.to_filename(tmp_path / "big.nii.gz")
    second = nib.Nifti2Image(LABELS.astype(np.int32), canonical_affine(SPACING))
    second.to_filename(tmp_path / "two.nii.gz")
    for name in ("big.nii.gz", "two.nii.gz"):
        labels, geometry = read_labels(tmp_path / name)
        np.testing.assert_array_equal(labels, LABELS)
        write_labels(tmp_path / f"export_{name}", labels, geometry)
        image = nib.load(tmp_path / f"export_{name}")
        assert type(image) is type(nib.load(tmp_path / name))
        np.testing.assert_array_equal(np.asarray(image.dataobj), LABELS)


def test_trailing_axes_of_one_are_dropped_and_come_back(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", LABELS[..., None])
    labels, geometry = read_labels(path)
    assert labels.shape == (2, 2, 3)
    write_labels(tmp_path / "b.nii.gz", labels, geometry)
    assert nib.load(tmp_path / "b.nii.gz").shape == (2, 2, 3, 1)


def test_names_do_not_decide_about_compression(tmp_path: Path) -> None:
    plain = save(tmp_path / "plain.nii", LABELS)
    (tmp_path / "misnamed.nii.gz").write_bytes(
        plain.read_bytes()
    )  # some browsers unpack while downloading
    np.testing.assert_array_equal(read_labels(tmp_path / "misnamed.nii.gz")[0], LABELS)


def test_whole_numbers_stored_as_floats_are_labels_and_others_are_named(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        read_labels(save(tmp_path / "a.nii.gz", LABELS.astype(np.float64)))[0], LABELS
    )
    blurred = LABELS.astype(np.float32)
    blurred[0, 0, 0], blurred[1, 1, 1] = 0.5, 7
    with pytest.raises(CaseError, match=r"got also 0\.5, 7;") as error:
        read_labels(save(tmp_path / "b.nii.gz", blurred))
    assert error.value.code == "label_values"


def test_writing_is_deterministic_atomic_and_leaves_no_parts(tmp_path: Path, monkeypatch) -> None:
    first, second = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    write_labels(first, LABELS, canonical_affine(SPACING), "arm full, seed 1")
    write_labels(second, LABELS, canonical_affine(SPACING), "arm full, seed 1")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4)  # no time in the gzip header
    assert bytes(nib.load(first).header["descrip"]).rstrip(b"\0") == b"arm full, seed 1"

    def fail(*_) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(nifti, "_write_slabs", fail)
    with pytest.raises(OSError, match="disk full"):
        write_labels(first, LABELS, canonical_affine(SPACING))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]


def test_export_carries_no_free_text_of_the_source(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.nii.gz", LABELS, descrip=b"Name^Patient", db_name=b"Clinic", aux_file=b"1970"
    )
    labels, geometry = read_labels(path)
    write_labels(tmp_path / "b.nii.gz", labels, geometry, "x" * 200)
    header = nib.load(tmp_path / "b.nii.gz").header
    assert bytes(header["descrip"]).rstrip(b"\0") == b"x" * 79
    assert not header["db_name"].item() and not header["aux_file"].item()


def test_writers_refuse_what_does_not_fit(tmp_path: Path) -> None:
    _, geometry = read_labels(save(tmp_path / "a.nii.gz", LABELS))
    with pytest.raises(CaseError, match=r"\(2, 2, 3\).*got \(2, 3, 2\)"):
        write_labels(tmp_path / "b.nii.gz", np.zeros((2, 3, 2), np.uint8), geometry)
    with pytest.raises(CaseError, match="integer labels"):
        write_labels(tmp_path / "b.nii.gz", np.full((2, 2, 3), 0.5), geometry)
    with pytest.raises(CaseError, match="ends in"):
        write_labels(tmp_path / "b.mha", LABELS, geometry)
    with pytest.raises(CaseError, match="expected int16 HU, got float32"):
        write_imaging(tmp_path / "b.nii.gz", np.zeros((2, 2, 3), np.float32), geometry)
    assert not (tmp_path / "b.nii.gz").exists()


def test_imaging_round_trip_in_plain_and_packed_files(tmp_path: Path) -> None:
    volume = np.arange(-12, 12, dtype=np.int16).reshape(2, 3, 4)
    for name in ("a.nii", "a.nii.gz"):
        write_imaging(tmp_path / name, volume, canonical_affine((0.5, 0.9199, 0.9199)))
        again, geometry = read_imaging(tmp_path / name)
        np.testing.assert_array_equal(again, volume)
        assert geometry.spacing == (0.5, 0.9199, 0.9199)
        image = nib.load(tmp_path / name)
        assert (int(image.header["sform_code"]), image.get_data_dtype()) == (2, np.int16)


def test_many_slabs_give_the_same_volume_in_one_int16_volume_of_memory(
    tmp_path: Path, monkeypatch
) -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, 1000, (60, 128, 128), dtype=np.int16)
    array, affine = in_axes(volume, "LPS")
    for source in (
        save(tmp_path / "a.nii.gz", volume.astype(np.float64)),
        save(tmp_path / "b.nii", array, affine),
    ):
        monkeypatch.setattr(nifti, "_SLAB_VOXELS", 1 << 15)
        tracemalloc.start()
        read, geometry = read_imaging(source)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(read, volume)
        assert (
            peak < read.nbytes + 2_000_000
        )  # the float64 file holds 7.9 MB, the int16 volume 2.0 MB
        write_imaging(tmp_path / "c.nii.gz", read, geometry)
        np.testing.assert_array_equal(
            np.asarray(nib.load(tmp_path / "c.nii.gz").dataobj),
            np.asarray(nib.load(source).dataobj),
        )


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    zeros = np.zeros((64, 64, 64), dtype=np.uint8)  # 256 KiB, so the middle is in neither end
    middle = zeros.copy()
    middle[32, 32, 32] = 1
    for suffix in (".nii", ".nii.gz"):
        a, b, c = (tmp_path / f"{name}{suffix}" for name in "abc")
        for path, array in ((a, zeros), (b, zeros), (c, middle)):
            write_labels(path, array, canonical_affine(SPACING))
        assert fingerprint(a) == fingerprint(b)
        assert fingerprint(a) != fingerprint(c)
        assert len(fingerprint(a)) == 32


def test_geometry_of_a_new_file_says_where_its_voxels_are() -> None:
    geometry = Geometry.from_affine(np.diag([0.5, 0.75, 5.0, 1.0]), (3, 2, 2))
    assert (geometry.canonical_shape, geometry.spacing) == ((2, 2, 3), (5.0, 0.75, 0.5))
    # the first canonical voxel is the most superior, anterior and right one
    assert geometry.canonical_affine[:3, 3].tolist() == [1.0, 0.75, 5.0]


def make_case(folder: Path, labels: np.ndarray | None = LABELS, *, imaging: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if imaging:
        write_imaging(
            folder / "imaging.nii.gz", np.full((2, 2, 3), 40, np.int16), canonical_affine(SPACING)
        )
    if labels is not None:
        write_labels(folder / "segmentation.nii.gz", labels, canonical_affine(SPACING))
    return folder


def test_find_cases_in_every_layout(tmp_path: Path) -> None:
    kits19 = tmp_path / "kits19" / "data"
    for number in (10, 2):
        make_case(kits19 / f"case_{number:05d}")
    (kits19 / "kits.json").write_text(json.dumps([{"case_id": "case_00002", "gender": "female"}]))
    for root in (kits19, kits19.parent):
        found = find_cases(root)
        assert [case.case_id for case in found] == ["case_00002", "case_00010"]
        assert [case.source for case in found] == ["kits19", "kits19"]
        assert (
            found[0].record == {"case_id": "case_00002", "gender": "female"}
            and found[1].record is None
        )

    kits23 = tmp_path / "kits23" / "dataset"
    make_case(kits23 / "case_00002")
    (kits23 / "kits23.json").write_text("[]")
    (case,) = find_cases(kits23.parent)
    assert (case.source, case.segmentation_kits23) == ("kits23", case.segmentation)

    kits21 = tmp_path / "kits21" / "kits21" / "data" / "case_00003"
    make_case(kits21, None)
    write_labels(kits21 / "aggregated_MAJ_seg.nii.gz", LABELS, canonical_affine(SPACING))
    (case,) = find_cases(tmp_path / "kits21")
    assert (case.source, case.segmentation.name) == ("kits23", "aggregated_MAJ_seg.nii.gz")

    synthetic = make_case(tmp_path / "phantom" / "case_00000")
    (synthetic.parent / "synthetic.json").write_text("{}")
    assert find_cases(synthetic.parent)[0].source == "synthetic"

    make_case(tmp_path / "plain" / ".patient_11.part", None)
    for name in ("patient_10", "patient_9"):
        make_case(tmp_path / "plain" / name, None)
    found = find_cases(tmp_path / "plain")
    assert [(case.case_id, case.source) for case in found] == [
        ("patient_9", "plain"),
        ("patient_10", "plain"),
    ]
    assert found[0].segmentation is None


def test_find_cases_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="found none at"):
        find_cases(tmp_path / "nowhere")
    with pytest.raises(CaseError, match="found none in"):
        find_cases(tmp_path)
    case = make_case(tmp_path / "case_00000")
    with pytest.raises(CaseError, match="pass its parent"):
        find_cases(case)
    (tmp_path / "kits.json").write_text("{broken")
    (found,) = find_cases(tmp_path)
    assert "kits.json has no records: expected a JSON list" in found.table_error


def test_label_versions(tmp_path: Path) -> None:
    old = np.array([[[1, 1, 2], [0, 0, 0]], [[1, 1, 0], [0, 2, 2]]], dtype=np.uint8)
    new = np.array([[[3, 1, 3], [3, 0, 0]], [[1, 1, 0], [0, 2, 0]]], dtype=np.uint8)
    folder = make_case(tmp_path / "case_00000", old)
    write_labels(folder / "segmentation_kits23.nii.gz", new, canonical_affine(SPACING))
    (case,) = find_cases(tmp_path)
    assert available_labels(case) == ("kits19", "kits23", "kits23_folded")
    marked = old.copy()
    marked[0, 0, 0] = 3  # a cyst only where KiTS19 has kidney: neither on its tumour nor outside
    np.testing.assert_array_equal(load_case(case).labels, marked)
    np.testing.assert_array_equal(load_case(case, "kits23").labels, new)
    np.testing.assert_array_equal(
        load_case(case, "kits23_folded").labels, np.where(new == 3, 1, new)
    )
    with pytest.raises(CaseError, match="expected one of kits19, kits23, kits23_folded"):
        load_case(case, "kits20")


def test_asking_kits23_for_kits19_labels_is_refused_by_name(tmp_path: Path) -> None:
    make_case(tmp_path / "case_00007")
    (tmp_path / "kits23.json").write_text("[]")
    (case,) = find_cases(tmp_path)
    with pytest.raises(
        CaseError, match="case_00007: expected 'kits19' labels, its folder has kits23"
    ):
        load_case(case)


def test_load_case_with_one_file_with_none_and_with_two_grids(tmp_path: Path) -> None:
    make_case(tmp_path / "case_00000", None)
    make_case(tmp_path / "case_00001", imaging=False)
    (tmp_path / "case_00002").mkdir()
    make_case(tmp_path / "case_00003", np.zeros((3, 2, 3), np.uint8))
    test_case, labels_only, empty, odd = find_cases(tmp_path)
    assert load_case(test_case).labels is None
    case = load_case(labels_only)
    assert case.imaging is None and case.spacing == SPACING
    np.testing.assert_array_equal(case.labels, LABELS)
    with pytest.raises(CaseError, match="case_00002: expected imaging"):
        load_case(empty)
    with pytest.raises(
        CaseError, match=r"case_00003: .*imaging \(2, 2, 3\) and segmentation \(3, 2, 3\)"
    ):
        load_case(odd)


def test_labels_elsewhere_in_space_are_refused_and_a_shift_below_a_voxel_is_not() -> None:
    here, near, far = (canonical_affine(SPACING) for _ in range(3))
    near[2, 3], far[2, 3] = 4.0, 6.0  # mm, slices are 5 mm apart
    geometry = [Geometry.from_affine(affine, (2, 2, 3)) for affine in (here, near, far)]
    require_same_grid("case_00000", geometry[0], geometry[1])
    with pytest.raises(
        CaseError, match=r"truth and prediction in one place.* 6\.0 mm apart"
    ) as error:
        require_same_grid("case_00000", geometry[0], geometry[2], names=("truth", "prediction"))
    assert error.value.code == "affine_mismatch"


def test_imaging_and_labels_in_different_axes_meet_in_memory(tmp_path: Path) -> None:
    folder = make_case(tmp_path / "case_00000", None)
    array, affine = in_axes(LABELS, "RAS")
    save(folder / "segmentation.nii.gz", array, affine)
    case = load_case(find_cases(tmp_path)[0])
    np.testing.assert_array_equal(case.labels, LABELS)
    assert case.geometry.axis_codes == ("I", "P", "L")


def test_split_labels_names_some_foreign_value_however_rare() -> None:
    values = np.zeros(10_000, dtype=np.int16)
    values[7777] = 9
    labels, foreign = files.split_labels(values)
    assert foreign == {9.0}
    assert labels.max() == 0
