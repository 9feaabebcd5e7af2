"""DICOM SEG and RTSTRUCT: read again and laid on the slices' own pixels, no voxel has moved."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from kitslib.commands import main, predict
from kitslib.commands.dicom_out import STRUCTURES, rings, source_slices, write_dicom
from kitslib.data import CaseError, write_imaging, write_labels
from kitslib.data.cases.dicom import choose_series, read_dicom

HU = {0: -1000, 1: 150, 2: 300}
STEP, PIXEL = 2.5, (0.8, 0.6)  # between slices, rows and columns
WEIGHTS = {"kidney": "ab" * 32, "tumor": "cd" * 32}
PATIENT = {
    "PatientID": "K-7", "PatientName": "Grün^Ä", "PatientBirthDate": "19510203", "PatientSex": "F",
    "StudyID": "9", "StudyDate": "20240102", "AccessionNumber": "A1", "PatientAge": "072Y",
}  # fmt: skip
X, Y, Z = np.eye(3)


def turned(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    """A rotation by so many degrees about each of the patient's axes."""
    turn = np.eye(3)
    for (first, second), degrees in zip(((1, 2), (0, 2), (0, 1)), (x, y, z), strict=True):
        angle, one = np.radians(degrees), np.eye(3)
        one[[first, second], [first, second]] = np.cos(angle)
        one[first, second], one[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    return turn


OBLIQUE, TILTED = turned(12, -20, 7), turned(x=15)
# along a row and down a column; in which order slices are stored; where the patient lies
SERIES = {
    "axial": (X, Y, 1, "HFS"),
    "head to feet": (X, Y, -1, "HFS"),
    "feet first": (-X, Y, 1, "FFS"),
    "feet first, other order": (-X, Y, -1, "FFS"),
    "prone": (-X, -Y, 1, "HFP"),
    "feet first and prone": (X, -Y, -1, "FFP"),
    "rows down the patient": (Y, -X, 1, "HFDR"),
    "oblique": (OBLIQUE @ X, OBLIQUE @ Y, 1, "HFS"),
    "oblique and prone": (OBLIQUE @ -X, OBLIQUE @ -Y, -1, "HFP"),
    "tilted planes": (TILTED @ X, TILTED @ Y, -1, "HFS"),
    "uneven": (X, Y, 1, "HFS"),
}


def scattered(depth: int = 6) -> np.ndarray:
    """Labels (slice, row, column) with holes, lone pixels, touching corners and the image's rim."""
    return np.random.default_rng(2).choice(3, (depth, 9, 11), p=(0.5, 0.3, 0.2)).astype(np.uint8)


def write_series(folder: Path, kind: str, labels: np.ndarray, **fields: object) -> Path:
    """Write a small CT series whose pixels say their label, under names without an order."""
    row, column, order, position = SERIES[kind]
    folder.mkdir(parents=True, exist_ok=True)
    study, series, frame = "1.2.3", generate_uid(), generate_uid()
    for index, plane in enumerate(labels):
        item = Dataset()
        item.SpecificCharacterSet, item.Modality = "ISO_IR 100", "CT"
        item.SOPClassUID, item.SOPInstanceUID = pydicom.uid.CTImageStorage, generate_uid()
        item.StudyInstanceUID, item.SeriesInstanceUID = study, series
        item.FrameOfReferenceUID, item.SeriesNumber, item.PatientPosition = frame, 4, position
        item.InstanceNumber, item.ImageType = index + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        along = order * STEP * (index + 0.04 * (kind == "uneven") * (index % 2))
        place = np.array([-31.25, 42.5, 310.0]) + along * np.cross(row, column)
        item.ImageOrientationPatient = [f"{v:.8f}" for v in (*row, *column)]
        item.ImagePositionPatient = [f"{v:.6f}" for v in place]
        item.PixelSpacing, item.SliceThickness = list(PIXEL), 2
        item.Rows, item.Columns, item.SamplesPerPixel = *plane.shape, 1
        item.PhotometricInterpretation, item.PixelRepresentation = "MONOCHROME2", 1
        item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
        item.RescaleSlope, item.RescaleIntercept = 1, 0
        item.PixelData = np.vectorize(HU.get)(plane).astype(np.int16).tobytes()
        for name, value in (PATIENT | fields).items():
            setattr(item, name, value)
        save(item, folder / f"{series[-4:]}-{index * 37 % 131:03}")
    return folder


def save(item: Dataset, path: Path) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = item.SOPClassUID
    meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    FileDataset(path, item, preamble=b"\0" * 128, file_meta=meta).save_as(path)


def labels_of(imaging: np.ndarray) -> np.ndarray:
    return (imaging > 100).astype(np.uint8) + (imaging > 200)


def exported(folder: Path, out: Path) -> tuple[dict[str, Path], dict]:
    """Read a series, take its labels from its HU, write both outputs; files and record."""
    imaging, geometry, _ = read_dicom(folder)
    files = {kind: out / f"{kind}.dcm" for kind in ("dicom_seg", "rtstruct")}
    return files, write_dicom(files, labels_of(imaging), geometry, folder, WEIGHTS)


def images(folder: Path) -> dict[str, Dataset]:
    found = [pydicom.dcmread(path) for path in folder.iterdir()]
    return {image.SOPInstanceUID: image for image in found}


def truth(image: Dataset, name: str) -> np.ndarray:
    """A structure's mask from an image's own pixels: nothing of ours lies between."""
    hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    return labels_of(hu) == {one.name: one.label for one in STRUCTURES}[name]


def require_seg(path: Path, sources: dict[str, Dataset]) -> None:
    """Every frame is the mask of the image that it refers to, and lies where that lies."""
    seg = pydicom.dcmread(path)
    shared, left = seg.SharedFunctionalGroupsSequence[0], set()
    for uid, image in sources.items():
        left |= {(uid, one.name) for one in STRUCTURES if truth(image, one.name).any()}
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, about in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        of = about if "SegmentIdentificationSequence" in about else shared  # shared by one segment
        number = of.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        name = seg.SegmentSequence[number - 1].SegmentLabel
        uid = about.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        np.testing.assert_array_equal(frame, truth(sources[uid], name))
        place = about.PlanePositionSequence[0].ImagePositionPatient
        assert list(place) == list(sources[uid].ImagePositionPatient)
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        assert np.allclose(orientation, sources[uid].ImageOrientationPatient)
        assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == sources[uid].PixelSpacing
        left.remove((uid, name))
    assert not left, "every mask has its frame"
    referred = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {item.ReferencedSOPInstanceUID for item in referred} == set(sources)


def contours_of(path: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Structure, image and places (n, 3) of each contour of an RTSTRUCT."""
    dataset = pydicom.dcmread(path)
    names = {roi.ROINumber: roi.ROIName for roi in dataset.StructureSetROISequence}
    for roi in dataset.ROIContourSequence:
        for contour in roi.get("ContourSequence", ()):
            places = np.array(contour.ContourData, np.float64).reshape(-1, 3)
            assert len(places) == contour.NumberOfContourPoints >= 3
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            yield names[roi.ReferencedROINumber], uid, places


def filled(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Whether a pixel's centre lies in rings (n, 2) of (row, column), by the even-odd rule."""
    toggles = np.zeros((shape[0], shape[1] + 1), int)
    for ring in rings:
        first, second = ring, np.roll(ring, -1, axis=0)
        slant = first[:, 0] != second[:, 0]
        first, second = first[slant], second[slant]
        low, high = np.minimum(first[:, 0], second[:, 0]), np.maximum(first[:, 0], second[:, 0])
        row = np.ceil(low)
        while (crossed := row < high).any():
            share = (row - first[:, 0]) / (second[:, 0] - first[:, 0])
            column = np.floor(first[:, 1] + share * (second[:, 1] - first[:, 1])) + 1
            np.add.at(toggles, (row[crossed].astype(int), column[crossed].astype(int)), 1)
            row += 1
    return toggles[:, :-1].cumsum(axis=1) % 2 == 1


def in_pixels(places: np.ndarray, image: Dataset) -> np.ndarray:
    """Places (n, 3) in the patient as (row, column) of an image, by its header alone."""
    row, column = np.reshape(np.array(image.ImageOrientationPatient, float), (2, 3))
    offset = places - np.array(image.ImagePositionPatient, float)
    assert np.abs(offset @ np.cross(row, column)).max() < 1e-3, "within the slice's plane"
    between_rows, between_columns = image.PixelSpacing
    return np.stack([offset @ column / between_rows, offset @ row / between_columns], axis=1)


def require_rtstruct(path: Path, sources: dict[str, Dataset]) -> None:
    """Contours drawn again on their images are the masks, whether readers unite or exclude."""
    drawn: dict[tuple[str, str], list[np.ndarray]] = {}
    for name, uid, places in contours_of(path):
        drawn.setdefault((uid, name), []).append(in_pixels(places, sources[uid]))
    for uid, image in sources.items():
        for one in STRUCTURES:
            mask, found = truth(image, one.name), drawn.pop((uid, one.name), [])
            np.testing.assert_array_equal(filled(found, mask.shape), mask)
            each = [filled([ring], mask.shape) for ring in found if mask.size < 1000]
            assert not each or (np.any(each, axis=0) == mask).all()
    assert not drawn


@pytest.mark.parametrize("kind", SERIES)
def test_every_voxel_is_where_the_scan_has_it(tmp_path: Path, kind: str) -> None:
    folder = write_series(tmp_path / "in", kind, scattered())
    files, record = exported(folder, tmp_path)
    assert record["dicom_seg"]["structures"] == ["kidney", "tumour"]
    require_seg(files["dicom_seg"], images(folder))
    require_rtstruct(files["rtstruct"], images(folder))


@pytest.mark.parametrize("kind", [kind for kind in SERIES if kind != "uneven"])
def test_the_seg_and_the_nifti_file_agree_in_space(tmp_path: Path, kind: str) -> None:
    folder = write_series(tmp_path / "in", kind, scattered())
    imaging, geometry, _ = read_dicom(folder)
    files, _ = exported(folder, tmp_path)
    write_labels(tmp_path / "labels.nii.gz", labels_of(imaging), geometry)
    file = nib.load(tmp_path / "labels.nii.gz")
    volume = hd.seg.segread(files["dicom_seg"]).get_volume(combine_segments=True)
    index = np.argwhere(volume.array > 0)
    lps = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    to_index = np.linalg.inv(file.affine)
    voxels = (lps * [-1, -1, 1]) @ to_index[:3, :3].T + to_index[:3, 3]
    assert np.abs(voxels - np.rint(voxels)).max() < 1e-3
    found = np.asarray(file.dataobj)[tuple(np.rint(voxels).astype(int).T)]
    np.testing.assert_array_equal(found, volume.array[tuple(index.T)])
    assert len(index) == np.count_nonzero(file.dataobj)


def test_the_seg_says_what_it_is_and_whose(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in", "axial", scattered())
    files, _ = exported(folder, tmp_path)
    source = next(iter(images(folder).values()))
    for path in files.values():
        made = pydicom.dcmread(path)
        assert "research use, not for clinical use" in made.SeriesDescription
        for name in (*PATIENT, "StudyInstanceUID", "FrameOfReferenceUID"):
            assert made[name].value == source[name].value, name
        assert made.SeriesInstanceUID != source.SeriesInstanceUID
    seg, structures = map(pydicom.dcmread, files.values())
    for segment, name, code, meaning in zip(
        seg.SegmentSequence, ("kidney", "tumour"), ("64033007", "108369006"),
        ("Kidney", "Neoplasm"), strict=True,
    ):  # fmt: skip
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (segment.SegmentLabel, kind.CodeValue, kind.CodeMeaning) == (name, code, meaning)
        assert kind.CodingSchemeDesignator == "SCT" and segment.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmName == "kitslib" and algorithm.AlgorithmVersion
        assert all(digest in algorithm.AlgorithmParameters for digest in WEIGHTS.values())
    assert seg.SegmentSequence[1].AnatomicRegionSequence[0].CodeValue == "64033007"
    assert structures.ApprovalStatus == "UNAPPROVED"
    code = structures.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert code.CodeValue == "64033007"


@pytest.mark.parametrize(
    ("present", "shown", "empty"),
    [
        ((0, 1), ["kidney"], ["tumour"]),
        ((0, 2), ["tumour"], ["kidney"]),
        ((0,), ["kidney"], ["kidney", "tumour"]),
    ],
)
def test_what_was_not_found_is_no_segment_and_is_in_the_record(
    tmp_path: Path, present: tuple[int, ...], shown: list[str], empty: list[str]
) -> None:
    labels = scattered()
    labels[~np.isin(labels, present)] = 0
    folder = write_series(tmp_path / "in", "head to feet", labels)
    files, record = exported(folder, tmp_path)
    for kind in files:
        assert record[kind]["structures"] == shown and record[kind]["empty"] == empty
    seg, structures = map(pydicom.dcmread, files.values())
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == shown
    assert [roi.ROIName for roi in structures.StructureSetROISequence] == shown
    if present == (0,):
        assert not seg.pixel_array.any() and not list(contours_of(files["rtstruct"]))
    else:
        require_seg(files["dicom_seg"], images(folder))
        require_rtstruct(files["rtstruct"], images(folder))


def area(ring: np.ndarray) -> float:
    after = np.roll(ring, -1, axis=0)
    return abs(float((ring[:, 0] * after[:, 1] - ring[:, 1] * after[:, 0]).sum())) / 2


def test_rings_by_hand() -> None:
    mask = np.zeros((5, 7), bool)
    mask[2, 3] = True
    (diamond,) = rings(mask)
    assert sorted(map(tuple, diamond.tolist())) == [(1.5, 3), (2, 2.5), (2, 3.5), (2.5, 3)]
    mask[1:4, 2:5] = True
    (block,) = rings(mask)
    assert len(block) == 12 and area(block) == 9 - 0.5, "four corners cut by an eighth"
    mask[2, 3] = False
    (holed,) = rings(mask)
    assert len(holed) == 12 + 4 + 2 and area(holed) == 8.5 - 0.5, "out, round the hole, and back"
    assert not rings(np.zeros((3, 3), bool))


def test_holes_islands_and_corners_are_kept() -> None:
    mask = np.zeros((40, 44), bool)
    mask[2:38, 2:42] = True
    mask[5:30, 5:30] = False
    mask[10:24, 10:24] = True  # an island
    mask[14:18, 14:18] = mask[14:18, 20:22] = mask[32:35, 33:39] = False
    mask[0, 0] = mask[39, 43] = mask[1, 1] = True
    for seed in range(3):
        noisy = mask ^ (np.random.default_rng(seed).random(mask.shape) < 0.05 * seed)
        found = [filled([ring], mask.shape) for ring in rings(noisy)]
        np.testing.assert_array_equal(np.sum(found, axis=0), noisy, "no pixel in two rings")


def test_a_channel_to_a_hole_runs_through_the_mask_alone() -> None:
    mask = np.ones((31, 31), bool)
    mask[4:6, 3:9] = mask[12:20, 12:20] = mask[22:24, 12:20] = mask[12:20, 22:25] = False
    (ring,) = rings(mask)
    for first, second in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        for share in np.linspace(0, 1, 50):
            place = first + share * (second - first)
            centre = np.rint(place).astype(int)
            if np.abs(place - centre).max() < 0.2:
                assert mask[tuple(centre)], "where readers count a ring's own points as inside"


def test_of_two_series_in_one_place_it_is_the_one_that_was_read(tmp_path: Path) -> None:
    for number in (7, 3, 5):
        write_series(tmp_path / "in", "oblique", scattered(), SeriesNumber=number)
    _, geometry, _ = read_dicom(tmp_path / "in")
    slices = source_slices(tmp_path / "in", geometry)
    chosen, _ = choose_series(tmp_path / "in")
    assert {item.SOPInstanceUID for item in slices} == {item.uid for item in chosen.slices}
    assert slices[0].SeriesNumber == 3


def test_a_localiser_or_an_older_output_in_the_folder_does_not_matter(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in", "prone", scattered())
    sources = images(folder)
    write_series(folder / "scout", "axial", scattered(1), ImageType=["ORIGINAL", "", "LOCALIZER"])
    for _ in range(2):
        files, _ = exported(folder, folder / "out")
    require_seg(files["dicom_seg"], sources)
    require_rtstruct(files["rtstruct"], sources)


def edited(folder: Path, **fields: object) -> Path:
    """Change fields of every slice; None removes one."""
    for path in folder.iterdir():
        item = pydicom.dcmread(path)
        for name, value in fields.items():
            item.pop(name, None)
            if value is not None:
                setattr(item, name, value)
        item.save_as(path)
    return folder


def test_an_anonymised_scan_has_no_frame_of_reference_and_its_outputs_share_one(
    tmp_path: Path,
) -> None:
    folder = write_series(tmp_path / "in", "feet first", scattered())
    edited(folder, FrameOfReferenceUID=None, SliceThickness=None, **dict.fromkeys(PATIENT))
    files, record = exported(folder, tmp_path)
    require_seg(files["dicom_seg"], images(folder))
    require_rtstruct(files["rtstruct"], images(folder))
    assert len({pydicom.dcmread(path).FrameOfReferenceUID for path in files.values()}) == 1
    assert all(about["own_frame_of_reference"] for about in record.values())


@pytest.mark.filterwarnings("ignore:Invalid value", "ignore:The value length")
def test_odd_values_of_the_patient_are_repeated_as_they_stand(tmp_path: Path) -> None:
    odd = {"PatientBirthDate": "00000000", "PatientSex": "Male", "StudyID": "9" * 30}
    odd |= {"StudyDate": "2024", "SpecificCharacterSet": ["", "ISO 2022 IR 87"]}
    odd |= {"PatientName": "Yamada^Tarou=山田^太郎"}
    with pydicom.config.disable_value_validation():
        folder = edited(write_series(tmp_path / "in", "axial", scattered()), **odd)
    files, record = exported(folder, tmp_path)
    assert not record["dicom_seg"]["own_frame_of_reference"]
    for path in files.values():
        for name, value in odd.items():
            assert pydicom.dcmread(path)[name].value == value, name
    require_seg(files["dicom_seg"], images(folder))


def test_what_headers_do_not_allow_is_a_sentence_and_no_file(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in", "axial", scattered())
    first = pydicom.dcmread(min(folder.iterdir()))
    first.FrameOfReferenceUID = generate_uid()
    first.save_as(first.filename)
    _, record = exported(folder, tmp_path / "out")
    text = record["dicom_seg"]["error"]
    assert "dicom_seg.dcm was not written" in text and "same series" in text and "\n" not in text
    edited(folder, StudyInstanceUID="")
    _, record = exported(folder, tmp_path / "other")
    assert "no StudyInstanceUID" in record["rtstruct"]["error"]
    assert [path.name for path in tmp_path.rglob("*.dcm")] == ["rtstruct.dcm"]


def test_no_output_lands_on_a_slice_and_a_changed_folder_is_said(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in", "axial", scattered())
    imaging, geometry, _ = read_dicom(folder)
    first, *others = sorted(folder.iterdir())
    with pytest.raises(CaseError, match="is a slice of the scan"):
        write_dicom({"rtstruct": first}, labels_of(imaging), geometry, folder, WEIGHTS)
    assert pydicom.dcmread(first).Modality == "CT"
    others[-1].unlink()
    record = write_dicom({"rtstruct": tmp_path / "a"}, imaging * 0, geometry, folder, WEIGHTS)
    assert "has changed" in record["rtstruct"]["error"]


REAL = {
    "an even part": "small_series/sliceincrement/001/IM-0001-000*-0001.dcm",
    "feet first": "transfer_syntaxes/CTImage.dcm_LittleEndianExplicit*",
    "feet first, RLE": "transfer_syntaxes/CTImage.dcm_RLE*",
    "feet first, big endian": "transfer_syntaxes/CTImage.dcm_BigEndian*",
}


@pytest.mark.parametrize("kind", REAL)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_series_keep_every_voxel(tmp_path: Path, shared: Path, kind: str) -> None:
    paths = sorted((shared / "dicom").glob(REAL[kind]))
    if not paths:
        pytest.skip(f"small real DICOM series not found in {shared / 'dicom'}")
    alone, folder = len(paths) == 1, tmp_path / "in"
    folder.mkdir()
    for index, path in enumerate(paths * 3 if alone else paths):
        item = pydicom.dcmread(path)
        if alone:  # one real slice three times, 7 mm apart
            item.SOPInstanceUID = generate_uid()
            item.ImagePositionPatient[2] -= 7 * index
        else:
            item.RescaleIntercept = 0  # its pixels are noise from 0 to 254: a corner will do
            item.PixelData = item.pixel_array[:48, :40].tobytes()
            item.Rows, item.Columns = 48, 40
        item.save_as(folder / f"{index}.dcm")
    files, record = exported(folder, tmp_path)
    assert record["dicom_seg"]["structures"] == ["kidney", "tumour"]
    require_seg(files["dicom_seg"], images(folder))
    require_rtstruct(files["rtstruct"], images(folder))


# the command


def status(*words: object) -> int:
    """Exit status of a command line."""
    try:
        return main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code)


@pytest.fixture
def thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that call voxels by their HU, so that a scan's pixels say what is right."""
    about = {stage: {"weights": digest, "settings": ""} for stage, digest in WEIGHTS.items()}

    def load(folder: Path | None, accelerator: object) -> predict.Models:
        kidney = SimpleNamespace(mask=lambda imaging, spacing, autocast: imaging > 100)
        return predict.Models(
            kidney=kidney, tumor=None, accelerator=accelerator, about=about, description="test"
        )

    def segment(imaging: np.ndarray, *words: object, **options: object) -> SimpleNamespace:
        return SimpleNamespace(labels=labels_of(imaging))

    monkeypatch.setattr(predict.Models, "load", load)
    monkeypatch.setattr(predict, "segment", segment)


def test_predict_writes_both_beside_the_label_map(thresholds: None, tmp_path: Path) -> None:
    folder, out = write_series(tmp_path / "ct", "feet first", scattered()), tmp_path / "out"
    words = ("predict", folder, "-o", out, "--dicom-seg", "--rtstruct", "--device", "cpu")
    assert status(*words) == 0
    require_seg(out / "prediction_ct_seg.dcm", images(folder))
    require_rtstruct(out / "prediction_ct_rtstruct.dcm", images(folder))
    record = json.loads((out / "prediction_ct.json").read_text())
    assert record["dicom_seg"]["file"] == "prediction_ct_seg.dcm"
    assert record["rtstruct"]["structures"] == ["kidney", "tumour"]
    assert status(*words) == 1, "files that exist are kept"
    assert status(*words, "--force") == 0
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_predict_keeps_a_seg_that_exists(
    thresholds: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_series(tmp_path / "ct", "axial", scattered())
    target = tmp_path / "prediction_ct_seg.dcm"
    target.write_bytes(b"precious")
    assert status("predict", folder, "-o", tmp_path, "--dicom-seg") == 1
    assert f"{target} exists; --resume keeps what is done" in capsys.readouterr().err
    assert target.read_bytes() == b"precious"
    assert status("predict", folder, "-o", tmp_path / "a.nii.gz", "--dicom-seg") == 0
    require_seg(tmp_path / "a_seg.dcm", images(folder))


def test_a_nifti_scan_gets_its_label_map_and_one_sentence(
    thresholds: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, out = write_series(tmp_path / "ct", "axial", scattered()), tmp_path / "out"
    imaging, geometry, _ = read_dicom(folder)
    write_imaging(tmp_path / "born.nii.gz", imaging, geometry)
    words = ("predict", tmp_path / "born.nii.gz", folder, "-o", out, "--dicom-seg", "--rtstruct")
    assert status(*words, "--device", "cpu") == 1
    said = capsys.readouterr().err
    assert said.count("born.nii.gz") == 1 and "this file is NIfTI" in said
    assert (out / "prediction_born.nii.gz").is_file() and "born,ct" in ",".join(
        line.partition(",")[0] for line in (out / "predictions.csv").read_text().splitlines()
    )
    assert "NIfTI" in json.loads((out / "prediction_born.json").read_text())["rtstruct"]["error"]
    assert sorted(path.name for path in out.glob("*.dcm")) == [
        "prediction_ct_rtstruct.dcm", "prediction_ct_seg.dcm",
    ]  # fmt: skip


def test_a_tilted_gantry_is_refused_before_anything_is_written(
    thresholds: None, tmp_path: Path, shared: Path
) -> None:
    folder = shared / "dicom" / "gantry_tilt"
    if not folder.is_dir():
        pytest.skip(f"tilted series not found: {folder}")
    assert status("predict", folder, "-o", tmp_path / "out", "--dicom-seg", "--rtstruct") == 1
    assert not list(tmp_path.rglob("*.*"))


def test_predict_loads_highdicom_only_when_asked() -> None:
    code = "import sys, kitslib.commands.predict as p; p.data.read_scan; "
    code += "print('highdicom' in sys.modules)"
    call = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert call.stdout.strip() == "False"


@pytest.mark.parametrize("how", ["zip", "one slice", "no preamble", "linked"])
def test_a_series_that_is_given_otherwise_gets_both(tmp_path: Path, how: str) -> None:
    folder = write_series(tmp_path / "in", "feet first", scattered())
    sources, place = images(folder), folder
    if how == "zip":
        place = tmp_path / "in.zip"
        with zipfile.ZipFile(place, "w") as packed:
            for path in folder.iterdir():
                packed.write(path, path.name)
    elif how == "one slice":
        place = max(folder.iterdir())
    elif how == "no preamble":
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes()[132:])
    else:
        place = tmp_path / "link"
        place.mkdir()
        (place / "ct").symlink_to(folder)
    files, record = exported(place, tmp_path / "out")
    assert "error" not in record["dicom_seg"], record
    require_seg(files["dicom_seg"], sources)
    require_rtstruct(files["rtstruct"], sources)


@pytest.mark.parametrize("name", ["SOPInstanceUID", "SeriesInstanceUID", "SOPClassUID"])
def test_uids_that_an_anonymiser_took_are_a_sentence_and_no_file(tmp_path: Path, name: str) -> None:
    folder = edited(write_series(tmp_path / "in", "axial", scattered()), **{name: None})
    files, record = exported(folder, tmp_path / "out")
    for kind in files:
        if name != "SOPClassUID" or kind == "dicom_seg":
            assert name in record[kind]["error"] or "repeated" in record[kind]["error"]
