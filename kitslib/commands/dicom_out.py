"""A label map as a DICOM SEG and an RTSTRUCT, on the very slices that the scan was read from."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import highdicom as hd
import numpy as np
from contourpy import contour_generator
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import RTStructureSetStorage, generate_uid

from kitslib import __version__
from kitslib.config import replacing
from kitslib.data import CaseError, Geometry, is_dicom, open_series, read_header

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's patient axes are left, posterior, head
NEAR_MM = 0.01  # how far from the volume's place its series may lie
DESCRIPTION = "kitslib labels: research use, not for clinical use"
DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"  # retired, yet the class by which RTSTRUCT names a study
FRAME = "none in source"  # a Position Reference Indicator
CHECKED = (  # by highdicom, which refuses a birth date of 00000000 and Japanese names
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


class Structure(NamedTuple):
    """A label and what DICOM calls it, in codes of SNOMED CT."""

    label: int
    name: str
    category: Code
    code: Code
    region: Code | None
    role: str  # RT ROI Interpreted Type: only a clinician could call a tumour a target
    rgb: tuple[int, int, int]


ORGAN, CHANGED = codes.cid7150.AnatomicalStructure, codes.cid7150.MorphologicallyAbnormalStructure
KIDNEY, NEOPLASM = codes.SCT.Kidney, codes.SCT.Neoplasm
STRUCTURES = (
    Structure(1, "kidney", ORGAN, KIDNEY, None, "ORGAN", (18, 128, 204)),
    Structure(2, "tumour", CHANGED, NEOPLASM, KIDNEY, "", (217, 72, 15)),
)


def write_dicom(
    files: Mapping[str, Path], labels: np.ndarray, geometry: Geometry, scan: Path,
    weights: Mapping[str, str],
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Write the `dicom_seg` and `rtstruct` of `files`; return what the record says of each.

    labels: uint8 (D, H, W), 0 to 2; geometry: as read from `scan`; weights: SHA-256 of each
    network's. What cannot be made is not written, and has its sentence under `error`.
    """
    try:
        slices = source_slices(scan, geometry)
    except CaseError as error:
        return {kind: {"error": str(error)} for kind in files}
    inputs, record = {Path(item.filename).resolve() for item in slices}, {}
    if hit := [file for file in files.values() if file.resolve() in inputs]:
        raise CaseError(f"{hit[0]} is a slice of the scan itself; name another place with -o")
    planes = geometry.to_file(labels).T  # (slice, row, column)
    empty = [one for one in STRUCTURES if not (labels == one.label).any()]
    shown = [one for one in STRUCTURES if one not in empty] or [STRUCTURES[0]]
    about = {"structures": [one.name for one in shown], "empty": [one.name for one in empty]}
    about["own_frame_of_reference"] = slices[0].get("PositionReferenceIndicator") == FRAME
    about["highdicom"] = hd.__version__
    for kind, file in files.items():
        try:
            with replacing(file) as part:
                MAKERS[kind](planes, shown, slices, weights).save_as(part)
            record[kind] = {"file": file.name, **about}
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            text = f"{file.name} was not written, since the slices' headers cannot be repeated "
            text += f"({type(error).__name__}: {error}); export the scan again"
            record[kind] = {"error": text}
    return record


def source_slices(scan: Path, geometry: Geometry) -> list[Dataset]:
    """Return the headers of the CT slices that a volume was read from, in its order of slices.

    One that an anonymiser left without a frame of reference gets one of its own, the same each
    time. Raises CaseError where there is no series, or where it has no study or instances.
    """
    text = "no DICOM SEG or RTSTRUCT was written: "
    if scan.is_file() and not zipfile.is_zipfile(scan) and not is_dicom(scan):
        text += "they refer to a DICOM series, and this file is NIfTI; pass the folder of slices "
        raise CaseError(f"{text}that it was made from")
    changed = "the folder has changed since the scan was read; start again"
    try:
        with open_series(scan) as (stack, _):
            slices = [read_header(item.path, None) for item in stack]
    except CaseError as error:
        raise CaseError(f"{text}{changed} ({error})") from error
    if any(item.frame is not None for item in stack):
        raise CaseError(f"{text}the scan is multi-frame (enhanced) CT, which they cannot name")
    if not _lies_at(slices, geometry):
        raise CaseError(text + changed)
    if len({item.uid for item in stack} - {""}) < len(stack):
        text += "the slices have no SOPInstanceUID of their own, which an anonymiser took; export "
        raise CaseError(f"{text}them with it")
    for name in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not all(item.get(name) for item in slices):
            raise CaseError(f"{text}the slices have no {name}; export them with it")
    if not all(item.get("FrameOfReferenceUID") for item in slices):
        own = generate_uid(entropy_srcs=[FRAME, slices[0].SeriesInstanceUID])
        for item in slices:
            item.FrameOfReferenceUID, item.PositionReferenceIndicator = own, FRAME
    return slices


def _axes(header: Dataset) -> np.ndarray:
    """Return the matrix 4x4 from (column, row, slice, 1) to LPS in mm, slices 1 mm apart."""
    row, column = np.array(header.ImageOrientationPatient, np.float64).reshape(2, 3)
    axes, (between_rows, between_columns) = np.eye(4), header.PixelSpacing
    axes[:3, 0], axes[:3, 1] = row * float(between_columns), column * float(between_rows)
    axes[:3, 2] = np.cross(row, column)
    axes[:3, 3] = np.array(header.ImagePositionPatient, np.float64)
    return axes


def _along(header: Dataset) -> float:
    """Return a slice's place along its normal, in mm."""
    axes = _axes(header)
    return float(axes[:3, 3] @ axes[:3, 2])


def _lies_at(slices: Sequence[Dataset], geometry: Geometry) -> bool:
    """Whether sorted slices are the volume's in number and size, and begin and end where it does.

    Those between lie where their headers say, which need not be quite even.
    """
    first, wanted = slices[0], TO_LPS @ geometry.affine
    if geometry.shape != (first.Columns, first.Rows, len(slices)):
        return False
    axes, end = _axes(first), wanted @ [0, 0, len(slices) - 1, 1]
    apart = np.abs(axes - wanted)[:, [0, 1, 3]].max()
    return bool(max(apart, abs(end[:3] @ axes[:3, 2] - _along(slices[-1]))) < NEAR_MM)


def _about(weights: Mapping[str, str]) -> dict[str, Any]:
    """What an instance says of its maker and its series; the weights are the serial number."""
    return {
        "series_instance_uid": hd.UID(), "sop_instance_uid": hd.UID(), "instance_number": 1,
        "manufacturer": "kitslib", "manufacturer_model_name": "kitslib predict",
        "software_versions": __version__, "series_description": DESCRIPTION,
        "device_serial_number": "-".join(digest[:16] for digest in weights.values()),
        "specific_character_set": None,
    }  # fmt: skip


def _of_patient(made: hd.SOPClass, source: Dataset) -> Dataset:
    """Repeat the patient and the study of a slice as they stand there; our own words are ASCII."""
    if "SpecificCharacterSet" in source:
        made.SpecificCharacterSet = source.SpecificCharacterSet
    made.copy_patient_and_study_information(source)
    return made


def segmentation(
    planes: np.ndarray, structures: Sequence[Structure], slices: Sequence[Dataset],
    weights: Mapping[str, str],
) -> Dataset:  # fmt: skip
    """Return a binary SEG of labels (slice, row, column), with a segment for each structure."""
    numbers, segments = np.zeros(256, np.uint8), []
    used = {f"{stage} weights SHA-256": digest for stage, digest in weights.items()}
    family = codes.cid7162.ArtificialIntelligence
    algorithm = hd.AlgorithmIdentificationSequence("kitslib", family, __version__, "kitslib", used)
    for number, one in enumerate(structures, start=1):
        numbers[one.label] = number
        segments.append(SegmentDescription(
            number, one.name, one.category, one.code, "AUTOMATIC", algorithm,
            anatomic_regions=[one.region] if one.region else None,
            display_color=CIELabColor.from_rgb(*one.rgb),
        ))  # fmt: skip
    first = Dataset(dict(slices[0].items()))  # a copy would share its elements
    for name in ("SliceThickness", "SpacingBetweenSlices", *CHECKED):
        first.pop(name, None)
        setattr(first, name, None)
    thickness = slices[0].get("SliceThickness") or _along(slices[1]) - _along(slices[0])
    first.SliceThickness = float(thickness)  # their distance comes from their positions
    made = Segmentation(
        [first, *slices[1:]], numbers[planes], "BINARY", segments, series_number=9001,
        content_label="RESEARCH_USE", content_description=DESCRIPTION, **_about(weights),
        omit_empty_frames=bool(numbers[planes].any()),
    )  # fmt: skip
    return _of_patient(made, slices[0])


def structure_set(
    planes: np.ndarray, structures: Sequence[Structure], slices: Sequence[Dataset],
    weights: Mapping[str, str],
) -> Dataset:  # fmt: skip
    """Return an RTSTRUCT of labels (slice, row, column), with closed contours on each slice."""
    source = slices[0]
    made = hd.SOPClass(
        source.StudyInstanceUID, sop_class_uid=RTStructureSetStorage, modality="RTSTRUCT",
        series_number=9002, **_about(weights),
    )  # fmt: skip
    made.OperatorsName, made.ApprovalStatus = "", "UNAPPROVED"
    made.StructureSetLabel, made.StructureSetDescription = "RESEARCH USE", DESCRIPTION
    made.StructureSetDate = made.InstanceCreationDate
    made.StructureSetTime = made.InstanceCreationTime
    frame = made.FrameOfReferenceUID = source.FrameOfReferenceUID
    made.PositionReferenceIndicator = source.get("PositionReferenceIndicator")
    images = [_reference(one.SOPClassUID, one.SOPInstanceUID) for one in slices]
    study = _reference(DETACHED_STUDY, source.StudyInstanceUID)
    study.RTReferencedSeriesSequence = [
        _item(SeriesInstanceUID=source.SeriesInstanceUID, ContourImageSequence=images)
    ]
    made.ReferencedFrameOfReferenceSequence = [
        _item(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])
    ]
    rois, contours, observations = [], [], []
    for number, one in enumerate(structures, start=1):
        rois.append(_item(ROINumber=number, ROIName=one.name, ROIGenerationAlgorithm="AUTOMATIC"))
        rois[-1].ReferencedFrameOfReferenceUID = frame
        found = list(_contours(planes == one.label, slices, images))
        contours.append(_item(ReferencedROINumber=number, ROIDisplayColor=list(one.rgb)))
        if found:
            contours[-1].ContourSequence = found
        observations.append(_item(ObservationNumber=number, ReferencedROINumber=number))
        observations[-1].RTROIInterpretedType, observations[-1].ROIInterpreter = one.role, ""
        code = hd.sr.CodedConcept.from_code(one.code)
        observations[-1].RTROIIdentificationCodeSequence = [code]
    made.StructureSetROISequence, made.ROIContourSequence = rois, contours
    made.RTROIObservationsSequence = observations
    return _of_patient(made, source)


def _contours(
    mask: np.ndarray, slices: Sequence[Dataset], images: Sequence[Dataset]
) -> Iterator[Dataset]:
    """The contours of a mask (slice, row, column), each with the slice that it lies on."""
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        axes = _axes(slices[index])
        for ring in rings(mask[index]):
            places = ring[:, ::-1] @ axes[:3, :2].T + axes[:3, 3]
            item = _item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(places))
            item.ContourData = [f"{value:.4f}" for value in places.ravel()]
            item.ContourImageSequence = [images[index]]
            yield item


def rings(mask: np.ndarray) -> list[np.ndarray]:
    """Return closed rings (n, 2) of (row, column) round a mask's pixel centres and no others.

    They run halfway between centres (marching squares at 0.5). A hole is joined to the ring about
    it by a channel without width, the keyhole of DICOM PS3.3 C.8.8.6.3.
    """
    image = np.pad(mask, 1)
    lines = contour_generator(z=image.astype(np.float64), fill_type="OuterOffset")
    joined = []
    for points, starts in zip(*lines.filled(0.5, 1.5), strict=True):
        parts = [part[:-1] for part in np.split(points, starts[1:-1])]
        joined.append(_joined(parts, image)[:, ::-1] - 1)
    return joined


def _joined(parts: list[np.ndarray], image: np.ndarray) -> np.ndarray:
    """Make an outer ring and its holes, (n, 2) of (column, row), one ring.

    A channel leads from a hole's leftmost point to the left, through the mask alone, up to the
    ring that ends the mask there: the outer one or that of a hole whose own leftmost lies beyond.
    """
    where, loops = {}, defaultdict(list)  # loops: which begin and end at a point of a ring
    for number, part in enumerate(parts):
        where |= {tuple(point): (number, at) for at, point in enumerate(part.tolist())}
    for number in sorted(range(len(parts)), key=lambda n: -parts[n][:, 0].min()):  # outer last
        pieces, done = [], 0
        for at, loop in sorted(loops[number], key=lambda pair: pair[0]):
            pieces += [parts[number][done : at + 1], loop]
            done = at
        ring = np.concatenate([*pieces, parts[number][done:]])
        if number:
            start = int(ring[:, 0].argmin())
            column, row = ring[start]
            end = np.flatnonzero(~image[int(row), : int(column)])[-1] + 0.5
            other, at = where[end, row]
            loops[other].append((at, np.concatenate([ring[start:], ring[: start + 1]])))
    return ring


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _reference(kind: str, uid: str) -> Dataset:
    return _item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=uid)


MAKERS = {"dicom_seg": segmentation, "rtstruct": structure_set}
