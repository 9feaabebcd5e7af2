"""A DICOM series becomes the volume of the same scan's NIfTI file, or is refused by name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from kitslib.data import CaseError, read_imaging, write_imaging
from kitslib.data.cases.dicom import choose_series, find_series, holds_dicom, read_dicom
from kitslib.data.cases.dicom_files import hounsfield, read_header, read_image, slices_of

CT = "1.2.840.10008.5.1.4.1.1.2"
SPACING = (2.5, 0.8, 0.7)
ORIGIN = (-31.0, 42.5, 310.0)  # RAS, mm, of the voxel (0, 0, 0)


def affine(turn: float = 0.0) -> np.ndarray:
    """The (z, y, x) affine of the scan, turned by so many degrees about the body's axis."""
    angle = np.radians(turn)
    posterior, left = (
        np.array([np.sin(angle), -np.cos(angle), 0]),
        np.array([-np.cos(angle), -np.sin(angle), 0]),
    )
    made = np.eye(4)
    axes = (np.array([0, 0, -1.0]), posterior, left)
    made[:3, :3] = np.stack([axis * step for axis, step in zip(axes, SPACING, strict=True)], axis=1)
    made[:3, 3] = ORIGIN
    return made


def scan(depth: int = 7) -> np.ndarray:
    return np.random.default_rng(3).integers(-1000, 1500, (depth, 10, 12)).astype(np.int16)


def datasets(
    volume: np.ndarray, to_ras: np.ndarray, *, series: int = 1, study: str = "1.2.3"
) -> list[Dataset]:
    """The slices of a volume (z, y, x) as CT datasets: unsigned values, intercept -1024."""
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ to_ras
    rows, columns = (to_lps[:3, axis] / np.linalg.norm(to_lps[:3, axis]) for axis in (2, 1))
    made, uid = [], f"{study}.{series}"
    for z, plane in enumerate(volume):
        item = Dataset()
        item.SOPClassUID, item.SOPInstanceUID, item.Modality = CT, generate_uid(), "CT"
        item.StudyInstanceUID, item.SeriesInstanceUID, item.SeriesNumber = study, uid, series
        item.ImageType, item.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], z + 1
        item.ImageOrientationPatient = [f"{v:.6f}" for v in (*rows, *columns)]
        item.ImagePositionPatient = [f"{v:.4f}" for v in (to_lps @ [z, 0, 0, 1])[:3]]
        item.PixelSpacing, item.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
        item.Rows, item.Columns, item.SamplesPerPixel = *plane.shape, 1
        item.PhotometricInterpretation, item.PixelRepresentation = "MONOCHROME2", 0
        item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
        item.RescaleSlope, item.RescaleIntercept = 1, -1024
        item.PixelData = (plane.astype(np.int32) + 1024).astype(np.uint16).tobytes()
        made.append(item)
    return made


def save(folder: Path, slices: list[Dataset], syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write datasets under names that say nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(slices):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, item.SOPClassUID
        meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
        path = folder / f"{item.SeriesNumber}-{number * 37 % 101:03}"
        FileDataset(path, item, preamble=b"\0" * 128, file_meta=meta).save_as(path)
    return folder


@pytest.mark.parametrize("turn", [0.0, 8.0])
@pytest.mark.parametrize("backwards", [False, True])
def test_equal_to_the_nifti_of_the_same_scan(tmp_path: Path, turn: float, backwards: bool) -> None:
    volume = scan()
    write_imaging(tmp_path / "scan.nii.gz", volume, affine(turn))
    slices = datasets(volume, affine(turn))
    folder = save(tmp_path / "series", slices[::-1] if backwards else slices)
    expected, geometry = read_imaging(tmp_path / "scan.nii.gz")
    found, place, note = read_dicom(folder)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int16 and found.flags.c_contiguous and note == []
    assert place.canonical_shape == geometry.canonical_shape and place.spacing == pytest.approx(
        geometry.spacing, rel=1e-5
    )
    np.testing.assert_allclose(place.canonical_affine, geometry.canonical_affine, atol=1e-3)


def test_a_label_map_in_its_geometry_lies_on_the_slices(tmp_path: Path) -> None:
    folder = save(tmp_path / "series", datasets(scan(), affine()))
    volume, geometry, _ = read_dicom(folder)
    write_imaging(tmp_path / "copy.nii.gz", volume, geometry)
    again, place = read_imaging(tmp_path / "copy.nii.gz")
    np.testing.assert_array_equal(again, volume)
    np.testing.assert_allclose(
        place.affine @ [0, 0, 0, 1], [*(affine() @ [6, 0, 0, 1])[:3], 1], atol=1e-3
    )
    assert place.shape == (12, 10, 7), "columns, rows, slices from the feet up"


def test_values_are_hounsfield_units(tmp_path: Path) -> None:
    slices = datasets(scan(3), affine())
    for item in slices:
        item.RescaleSlope, item.RescaleIntercept = "0.5", "-1000"
        item.PixelPaddingValue = 7
        item.PixelData = np.full((10, 12), [*range(11), 65535], np.uint16).tobytes()
    volume, _, _ = read_dicom(save(tmp_path / "series", slices))
    assert volume[0, 0].tolist() == [
        -1000,
        -1000,
        -999,
        -998,
        -998,
        -998,
        -997,
        -1024,
        -996,
        -996,
        -995,
        31768,
    ]


def test_the_largest_axial_series_is_taken_and_said_so(tmp_path: Path) -> None:
    coronal = datasets(scan(9), affine(), series=3)
    for item in coronal:
        item.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scout = datasets(scan(1), affine(), series=4)
    scout[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    folder = tmp_path / "study"
    for name, slices in (
        ("a", datasets(scan(7), affine(), series=1)),
        ("b", datasets(scan(4), affine(), series=2)),
    ):
        save(folder / name, slices)
    save(folder / "c", coronal), save(folder / "d", scout)
    (folder / "notes.txt").write_text("no DICOM")
    assert [series.number for series in find_series(folder)[0]] == [3, 1, 2]
    chosen, notes = choose_series(folder)
    assert chosen.number == 1 and len(chosen.slices) == 7
    scouts, note = notes
    assert scouts == "left aside: 1 of kind localiser"
    assert "series 1 with 7 axial slices" in note and "3 (9, not axial)" in note and "2 (4)" in note


def test_a_copy_of_a_file_counts_once(tmp_path: Path) -> None:
    slices = datasets(scan(), affine())
    folder = save(tmp_path / "series", slices)
    save(folder / "again", slices)
    found, _, notes = read_dicom(folder)
    np.testing.assert_array_equal(found, scan())
    assert notes == ["7 slices are there twice, to the pixel, and count once"]


def without(slices: list[Dataset]) -> list[Dataset]:
    return slices[:2] + slices[4:]


def moved(slices: list[Dataset]) -> list[Dataset]:
    slices[3].ImagePositionPatient[2] += 1.0
    return slices


def twice(slices: list[Dataset]) -> list[Dataset]:
    (other,) = datasets(scan()[:1] + np.int16(1), affine())  # as of another phase
    return [*slices, other]


def tilted(slices: list[Dataset]) -> list[Dataset]:
    for z, item in enumerate(slices):
        item.ImagePositionPatient[1] += z * SPACING[0] * float(np.tan(np.radians(12)))
    return slices


def turned(slices: list[Dataset]) -> list[Dataset]:
    slices[2].ImageOrientationPatient = [0.9848, 0.1736, 0, -0.1736, 0.9848, 0]
    return slices


def wider(slices: list[Dataset]) -> list[Dataset]:
    slices[2].PixelSpacing = [0.9, 0.9]
    return slices


def unscaled(slices: list[Dataset]) -> list[Dataset]:
    del slices[2].RescaleIntercept
    return slices


def cut_short(slices: list[Dataset]) -> list[Dataset]:
    slices[2].PixelData = slices[2].PixelData[:100]
    return slices


def placeless(slices: list[Dataset]) -> list[Dataset]:
    del slices[2].ImagePositionPatient
    return slices


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (without, "missing_slices", "2 slices are missing"),
        (moved, "uneven_spacing", "2.5 mm"),
        (twice, "duplicate_slices", "in one place"),
        (tilted, "gantry_tilt", "12.0 degrees"),
        (turned, "mixed_grid", "orientation"),
        (wider, "mixed_grid", "pixel spacing"),
        (unscaled, "not_hu", "RescaleIntercept"),
        (cut_short, "corrupt", "1-074"),
        (placeless, "corrupt", "ImagePositionPatient"),
        (lambda slices: slices[:1], "few_slices", "at least 2"),
    ],
)
def test_what_is_no_even_stack_is_refused_by_name(
    tmp_path: Path, change: Callable[[list[Dataset]], list[Dataset]], code: str, words: str
) -> None:
    folder = save(tmp_path / "series", change(datasets(scan(), affine())))
    with pytest.raises(CaseError, match=words) as error:
        read_dicom(folder)
    assert error.value.code == code


def test_slice_distances_rounded_by_the_scanner_are_even(tmp_path: Path) -> None:
    slices = datasets(scan(), affine())
    slices[3].ImagePositionPatient[2] += 0.04 * SPACING[0]
    assert read_dicom(save(tmp_path / "series", slices))[1].spacing[0] == pytest.approx(
        SPACING[0], abs=1e-5
    )


def test_compressed_pixels_are_read_where_they_can_be_and_else_refused(tmp_path: Path) -> None:
    volume = scan()
    folder = save(tmp_path / "rle", datasets(volume, affine()))
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        image.compress(RLELossless, generate_instance_uid=False)
        image.save_as(path)
    np.testing.assert_array_equal(read_dicom(folder)[0], volume)
    slices = datasets(volume, affine())
    for item in slices:
        item.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        item["PixelData"].VR = "OB"
    with pytest.raises(CaseError, match="JPEG Lossless") as error:
        read_dicom(save(tmp_path / "jpeg", slices, JPEGLosslessSV1))
    assert error.value.code == "compressed"


def test_folders_that_hold_no_single_ct_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not holds_dicom(tmp_path / "empty")
    for name, slices, code in (
        ("two", datasets(scan(), affine()) + datasets(scan(), affine(), study="1.2.4"), "studies"),
        (
            "mr",
            [_as(item, "1.2.840.10008.5.1.4.1.1.4", "MR") for item in datasets(scan(), affine())],
            "no_ct",
        ),
        (
            "multi",
            [_as(datasets(scan(1), affine())[0], "1.2.840.10008.5.1.4.1.1.2.1", "CT")],
            "few_slices",
        ),
    ):
        for number, item in enumerate(slices):
            item.SeriesNumber = number
        folder = save(tmp_path / name, slices)
        assert holds_dicom(folder)
        with pytest.raises(CaseError) as error:
            read_dicom(folder)
        assert error.value.code == code


def _as(item: Dataset, sop_class: str, modality: str) -> Dataset:
    item.SOPClassUID, item.Modality = sop_class, modality
    return item


# what people have


def edited(folder: Path, change: Callable[[Dataset, int], None]) -> Path:
    """Change the datasets of a folder, which are numbered in order of their files."""
    for number, path in enumerate(sorted(folder.iterdir())):
        image = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            change(image, number)
            image.save_as(path)
    return folder


def require_the_scan(place: Path, *words: str) -> None:
    found, geometry, notes = read_dicom(place)
    np.testing.assert_array_equal(found, scan())
    np.testing.assert_allclose(geometry.canonical_affine, affine(), atol=1e-3)
    assert len(notes) == len(words) and all(map(str.__contains__, notes, words)), notes


def one_uid(image: Dataset, number: int) -> None:
    image.SOPInstanceUID = "1.2.3"


def pairs_of_uids(image: Dataset, number: int) -> None:
    image.SOPInstanceUID = f"1.2.3.{number // 2}"


def no_uids(image: Dataset, number: int) -> None:
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "SeriesNumber"):
        del image[name]


def no_class(image: Dataset, number: int) -> None:
    image.SOPClassUID = ""


def replaced_class(image: Dataset, number: int) -> None:
    image.SOPClassUID, image.Modality = "2.25.1234", ""


def screenshot_class(image: Dataset, number: int) -> None:
    image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"  # as some converters write a CT


def odd_texts(image: Dataset, number: int) -> None:
    image.SeriesNumber, image.ImageType = "1.5", "AXIAL"
    image.SOPClassUID = [CT, "1.2"]
    image.add(pydicom.DataElement("PixelPaddingValue", "US", [60000, 60001]))


def inverse_display(image: Dataset, number: int) -> None:
    image.PhotometricInterpretation = "MONOCHROME1"  # of the display: HU stay HU


@pytest.mark.parametrize(
    "change",
    [
        one_uid,
        pairs_of_uids,
        no_uids,
        no_class,
        replaced_class,
        screenshot_class,
        odd_texts,
        inverse_display,
    ],
)
def test_an_anonymised_series_is_read_by_what_it_holds(
    tmp_path: Path, change: Callable[[Dataset, int], None]
) -> None:
    require_the_scan(edited(save(tmp_path / "in", datasets(scan(), affine())), change))


@pytest.mark.parametrize("meta", [True, False], ids=["with meta", "without meta"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_slices_without_preamble_are_read(tmp_path: Path, syntax: str, meta: bool) -> None:
    folder = save(tmp_path / "in", datasets(scan(), affine()), syntax)
    for path in folder.iterdir():
        if meta:
            path.write_bytes(path.read_bytes()[132:])
            continue
        image = pydicom.dcmread(path)
        image.file_meta, image.preamble = FileMetaDataset(), None
        image.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    require_the_scan(folder)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_missing_transfer_syntax_is_told_from_the_bytes(tmp_path: Path, syntax: str) -> None:
    folder = save(tmp_path / "in", datasets(scan(), affine()), syntax)
    for path in folder.iterdir():
        raw = path.read_bytes()
        at = raw.index(b"\x02\0\x10\0UI")
        size = int.from_bytes(raw[at + 6 : at + 8], "little")
        path.write_bytes(raw[:at] + raw[at + 8 + size :])
    require_the_scan(folder)


@pytest.mark.parametrize(
    "syntax", [DeflatedExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless]
)
def test_every_lossless_syntax_gives_the_same_volume(tmp_path: Path, syntax: str) -> None:
    folder = save(tmp_path / "in", datasets(scan(), affine()))
    for path in folder.iterdir():
        image = pydicom.dcmread(path)
        if syntax == JPEGLSLossless:
            image.compress(syntax, generate_instance_uid=False)
        elif syntax == JPEG2000Lossless:
            picture, packed = Image.fromarray(image.pixel_array), io.BytesIO()
            picture.save(packed, "JPEG2000", no_jp2=True)
            image.PixelData, image["PixelData"].VR = encapsulate([packed.getvalue()]), "OB"
            image["PixelData"].is_undefined_length = True
            image.file_meta.TransferSyntaxUID = syntax
        else:
            image.file_meta.TransferSyntaxUID = syntax
        image.save_as(path)
    require_the_scan(folder)


def test_pictures_of_other_kinds_in_a_series_are_left_aside_and_said(tmp_path: Path) -> None:
    (small, scout, shot) = datasets(scan(3), affine())
    small.Rows = small.Columns = 4
    small.PixelData = bytes(32)
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "SCOUT"]
    del shot.ImagePositionPatient
    for one, item, words in (
        ("small", small, "of another size [4, 4] than [10, 12]"),
        ("scout", scout, "1 of kind localiser"),
        ("shot", shot, "needs ImagePositionPatient"),
    ):
        folder = save(tmp_path / one, datasets(scan(), affine()))
        extra = save(tmp_path / f"{one} alone", [item])
        next(extra.iterdir()).rename(folder / "extra")
        require_the_scan(folder, words)


def test_a_file_named_like_a_slice_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", datasets(scan(), affine()))
    first = min(folder.iterdir())
    (folder / "README").write_text("notes may stand beside them")
    require_the_scan(folder)
    first.write_bytes(b"")
    with pytest.raises(CaseError, match=f"{first.name}: expected a DICOM slice.* got 0 bytes"):
        read_dicom(folder)


def test_links_zips_and_single_slices_lead_to_the_series(tmp_path: Path) -> None:
    store = save(tmp_path / "store", datasets(scan(), affine()))
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "ct").symlink_to(store)
    (store / "back").symlink_to(linked)  # a circle
    require_the_scan(linked)
    require_the_scan(store)
    with zipfile.ZipFile(tmp_path / "ct.zip", "w") as packed:
        for path in filter(Path.is_file, store.iterdir()):
            packed.write(path, f"export/{path.name}")
    require_the_scan(tmp_path / "ct.zip")
    save(store, datasets(scan(9), affine(8), series=2))
    require_the_scan(store / "1-037")
    with pytest.raises(CaseError, match=r"bad\.zip: the zip cannot be unpacked"):
        raw = (tmp_path / "ct.zip").read_bytes()
        (tmp_path / "bad.zip").write_bytes(raw[:60] + bytes(300) + raw[360:])
        read_dicom(tmp_path / "bad.zip")


def test_a_multi_frame_file_is_read_frame_by_frame(tmp_path: Path) -> None:
    slices = datasets(scan(), affine())
    item, frames = slices[0], []
    for one in slices[::-1]:
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = one.ImagePositionPatient
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    shared, plane, measures, scale = (Dataset() for _ in range(4))
    plane.ImageOrientationPatient, measures.PixelSpacing = (
        item.ImageOrientationPatient,
        item.PixelSpacing,
    )
    scale.RescaleSlope, scale.RescaleIntercept = 1, -1024
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    shared.PixelValueTransformationSequence = [scale]
    item.PixelData = b"".join(one.PixelData for one in slices[::-1])
    item.SharedFunctionalGroupsSequence, item.PerFrameFunctionalGroupsSequence = [shared], frames
    item.NumberOfFrames, item.SOPClassUID = len(slices), f"{CT}.1"
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del item[name]
    del item.RescaleSlope, item.RescaleIntercept
    folder = save(tmp_path / "in", [item])
    require_the_scan(folder)
    require_the_scan(next(folder.iterdir()))


@pytest.mark.parametrize(
    ("position", "row", "column"), [("HFS", 1, 1), ("FFS", -1, 1), ("HFP", -1, -1), ("FFP", 1, -1)]
)
def test_feet_first_and_prone_patients_are_turned_by_their_tags(
    tmp_path: Path, position: str, row: int, column: int
) -> None:
    volume, slices = scan(), datasets(scan(), affine())
    first = affine() @ [0, 9 * (column < 0), 11 * (row < 0), 1]  # the place of the first pixel
    for z, item in enumerate(slices):
        plane = volume[z, ::column, ::row].astype(np.int32) + 1024
        item.PatientPosition, item.PixelData = position, plane.astype(np.uint16).tobytes()
        item.ImageOrientationPatient = [row, 0, 0, 0, column, 0]
        item.ImagePositionPatient = [-first[0], -first[1], first[2] - z * SPACING[0]]
    require_the_scan(save(tmp_path / "in", slices))


def changed_scale(slices: list[Dataset]) -> list[Dataset]:
    slices[2].RescaleIntercept = -1000
    return slices


def test_slices_of_another_scale_are_said(tmp_path: Path) -> None:
    _, _, notes = read_dicom(save(tmp_path / "in", changed_scale(datasets(scan(), affine()))))
    assert "differ between its slices" in notes[0]


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("PixelSpacing", ["0.7"]),
        ("PixelSpacing", ["0", "0"]),
        ("PixelSpacing", ["0.7"] * 3),
        ("ImageOrientationPatient", [1, 0, 0, 0, 1]),
        ("ImageOrientationPatient", [0] * 6),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        ("ImageOrientationPatient", [2, 0, 0, 0, 2, 0]),
        ("ImagePositionPatient", [0, 0]),
        ("ImagePositionPatient", ["", "", ""]),
        ("RescaleSlope", "0"),
        ("RescaleSlope", "1e9"),
        ("RescaleSlope", ["1", "2"]),
        ("RescaleIntercept", ["0", "0"]),
        ("Rows", 0),
        ("BitsAllocated", 8),
        ("SamplesPerPixel", 3),
        ("Modality", "MR"),
        ("PixelData", None),
        ("PixelRepresentation", None),
        ("PhotometricInterpretation", None),
    ],
)
@pytest.mark.parametrize("every", [True, False], ids=["all", "one"])
def test_a_tag_that_says_nothing_is_refused_by_name(
    tmp_path: Path, tag: str, value: object, every: bool
) -> None:
    def change(image: Dataset, number: int) -> None:
        if not every and number != 3:
            return
        if value is None:
            del image[tag]
        else:
            setattr(image, tag, value)
        if tag == "Modality":
            image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"

    folder = edited(save(tmp_path / "in", datasets(scan(), affine())), change)
    with pytest.raises(CaseError):
        read_dicom(folder)


REAL_SYNTAXES = (
    "BigEndianExplicit", "Deflated", "JPEG2000LosslessOnly", "JPEGLSLossless", 
    "LittleEndianImplicit", "RLELossless",
)  # fmt: skip


def test_real_slices_of_every_syntax_hold_the_same_hu_or_are_refused_by_name(shared: Path) -> None:
    folder, found = shared / "dicom" / "transfer_syntaxes", {}
    for path in sorted(folder.glob("CTImage.dcm_*")):
        (item,) = slices_of(path, read_header(path))
        try:
            found[path.name] = hounsfield(item, read_image(path))
        except CaseError as error:
            assert error.code == "compressed" and "pip install" in str(error)
    (usual,) = (hu for name, hu in found.items() if "LittleEndianExplicit" in name)
    for syntax in REAL_SYNTAXES:
        (hu,) = (hu for name, hu in found.items() if f"_{syntax}" in name)
        np.testing.assert_array_equal(hu, usual, syntax)
    assert usual.min() == -3024


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("small_series/gantrytilting/001", "gantry_tilt"),
        ("small_series/sliceincrement/001", "missing_slices"),
        ("small_series/notavolume/001", "duplicate_slices"),
        ("gantry_tilt", "gantry_tilt"),
        ("philips_localizers", "no_ct"),
    ],
)
def test_real_series_that_are_no_volume_are_refused(shared: Path, place: str, code: str) -> None:
    with pytest.raises(CaseError) as error:
        read_dicom(shared / "dicom" / place)
    assert error.value.code == code


def test_a_real_multi_frame_ct_is_read(shared: Path) -> None:
    volume, geometry, _ = read_dicom(shared / "dicom" / "enhanced_multiframe")
    assert volume.shape == (2, 512, 512) and volume.min() == -1024
    assert geometry.spacing == pytest.approx((10, 0.388672, 0.388672))
