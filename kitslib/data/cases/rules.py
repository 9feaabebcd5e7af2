"""The rules of the check: from facts about files to findings, each with a level, a code and a fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kitslib.data.cases.defects import Defect
from kitslib.data.cases.discovery import CaseFiles
from kitslib.data.cases.errors import CaseError
from kitslib.data.cases.files import label_values_error, nonfinite_error, require_same_grid
from kitslib.data.cases.geometry import CANONICAL_CODES
from kitslib.data.cases.measure import ImagingFacts, LabelFacts, VolumeFacts

AIR_HU = -500  # every abdominal CT has air around the body below this
METAL_HU = 10_000
PADDING_HU = -1200
LEAST_RANGE_HU = 200
KIDNEY_HU = (
    -20,
    400,
)  # medians of kidney: 30 without contrast, up to 260 in the nephrographic phase
KIDNEY_ML = (20, 4000)  # KiTS19 with tumour: 110 to 2000
SPACING_MM = (0.2, 10.0)
RECORD_TOLERANCE = 1e-3
CORRECTED_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found: `note` is worth knowing, `warning` worth a look, `unusable` forbids the case."""

    level: Literal["note", "warning", "unusable"]
    code: str
    message: str


def note(code: str, message: str) -> Finding:
    """A finding that asks for nothing."""
    return Finding(level="note", code=code, message=message)


def warning(code: str, message: str) -> Finding:
    """A finding that a person should look at."""
    return Finding(level="warning", code=code, message=message)


def unusable(code: str, message: str) -> Finding:
    """A finding that forbids the case."""
    return Finding(level="unusable", code=code, message=message)


def file_findings(files: CaseFiles, *, labels_only: bool) -> list[Finding]:
    """Missing files: without labels it is a test case; without imaging it serves label studies only."""
    has_labels = files.segmentation is not None or files.segmentation_kits23 is not None
    if files.imaging is None and not has_labels:
        text = f"{files.case_id}: neither imaging nor segmentation; download the case or remove its folder"
        return [unusable("empty_case", text)]
    if files.imaging is None:
        text = (
            f"{files.case_id}: imaging.nii.gz is missing; the labels can be studied (volumes, `phantom "
            "--labels`), nothing can be trained or predicted; fetch the imaging with the KiTS download script"
        )
        return [
            warning("imaging_missing", text) if labels_only else unusable("imaging_missing", text)
        ]
    if not has_labels:
        text = f"{files.case_id}: no segmentation: a test case, for prediction only"
        return [note("segmentation_missing", text)]
    return []


def geometry_findings(facts: VolumeFacts) -> list[Finding]:
    """How the file is oriented and spaced, where that is not as in KiTS."""
    found = []
    geometry = facts.geometry
    if geometry.orientation_assumed:
        text = (
            f"{facts.name}: no orientation in the header; KiTS axis order (z, y, x) is assumed; "
            "write the affine if the axes are others"
        )
        found.append(warning("orientation_assumed", text))
    elif geometry.axis_codes != CANONICAL_CODES:
        codes = "".join(geometry.axis_codes)
        text = f"{facts.name}: axes {codes}, brought to IPL for reading; exports go back to {codes}"
        found.append(note("reoriented", text))
    if facts.form == "qform":
        found.append(note("qform_only", f"{facts.name}: no sform in the header, its qform is used"))
    if geometry.oblique_degrees > 1:
        text = f"{facts.name}: axes tilted by {geometry.oblique_degrees:.1f} degrees, treated as straight"
        found.append(note("oblique", text))
    low, high = SPACING_MM
    if not all(low <= size <= high for size in geometry.spacing):
        text = (
            f"{facts.name}: expected voxels of {low} to {high} mm, got {geometry.spacing} (z, y, x); "
            "check the header's units and slice thickness"
        )
        found.append(warning("spacing_unusual", text))
    sizes, zooms = sorted(geometry.spacing), sorted(facts.zooms)
    if any(
        abs(size - zoom) > RECORD_TOLERANCE * size for size, zoom in zip(sizes, zooms, strict=True)
    ):
        text = (
            f"{facts.name}: the affine says voxels of {sizes} mm, the header's pixdim says "
            f"{[round(zoom, 4) for zoom in zooms]}; the affine is used, correct the one that is wrong"
        )
        found.append(warning("spacing_header", text))
    return found


def imaging_findings(facts: ImagingFacts) -> list[Finding]:
    """Whether the voxels can be Hounsfield units."""
    found = geometry_findings(facts)
    size = facts.geometry.shape[0] * facts.geometry.shape[1] * facts.geometry.shape[2]
    if facts.nonfinite:
        found.append(_as_finding(nonfinite_error(facts.name, facts.nonfinite, size)))
    if facts.low > facts.high:  # nothing finite at all
        return found
    span = f"{facts.low:g} to {facts.high:g}"
    if facts.low == facts.high:
        text = (
            f"{facts.name}: every voxel is {facts.low:g}; an empty export, convert from DICOM again"
        )
        found.append(unusable("constant", text))
    elif facts.looks_like_labels:
        text = f"{facts.name}: expected HU, got values {span} as in a label map; put the CT in its place"
        found.append(unusable("not_hu", text))
    elif facts.low >= 0:
        text = (
            f"{facts.name}: expected HU with air near -1000, got {span}; subtract the rescale intercept "
            "(usually 1024) or convert from DICOM again"
        )
        found.append(unusable("not_hu", text))
    elif facts.high - facts.low < LEAST_RANGE_HU:
        text = f"{facts.name}: expected HU, got only {span}, as after normalisation; use the original CT"
        found.append(unusable("not_hu", text))
    else:
        found += _hu_range_findings(facts, span)
    return found


def _hu_range_findings(facts: ImagingFacts, span: str) -> list[Finding]:
    found = []
    if facts.low > AIR_HU:
        text = f"{facts.name}: no air, HU {span}: clipped or cropped before; use the original CT if there is one"
        found.append(warning("hu_range", text))
    if facts.high > METAL_HU or facts.low < -METAL_HU:
        text = f"{facts.name}: HU {span} beyond any tissue or metal; look at the slices, values clip at int16"
        found.append(warning("hu_range", text))
    elif facts.low < PADDING_HU:
        found.append(
            note("padding", f"{facts.name}: padding of {facts.low:g} outside the scan circle")
        )
    return found


def label_findings(facts: LabelFacts) -> list[Finding]:
    """Whether the voxels are KiTS labels, and whether kidney and tumour are there and whole."""
    found = geometry_findings(facts)
    if facts.foreign or facts.nonfinite:
        found.append(_as_finding(label_values_error(facts.name, facts.foreign)))
        return found
    if "float" in facts.stored_type:
        found.append(
            note(
                "float_labels",
                f"{facts.name}: labels stored as {facts.stored_type}, all whole numbers",
            )
        )
    if facts.kidney_slices is None:
        text = f"{facts.name}: no voxel is labelled; remove the file if this is a test case, else fetch it again"
        found.append(unusable("empty_labels", text))
        return found
    if not facts.counts[1]:
        found.append(warning("no_kidney", f"{facts.name}: no kidney (label 1); look at the case"))
    if not facts.counts[2]:
        text = f"{facts.name}: no tumour (label 2), which every KiTS case has; kidney studies only"
        found.append(warning("no_tumor", text))
    total = sum(facts.volumes_ml.values())
    if not KIDNEY_ML[0] <= total <= KIDNEY_ML[1]:
        text = (
            f"{facts.name}: expected {KIDNEY_ML[0]} to {KIDNEY_ML[1]} ml of kidney and masses, got "
            f"{total:.1f} ml; check the spacing and the label values"
        )
        found.append(warning("kidney_volume", text))
    first, last = facts.kidney_slices
    slices = facts.geometry.canonical_shape[0]
    if first == 0 or last == slices - 1:
        where = " and ".join(
            name for name, cut in (("first", first == 0), ("last", last == slices - 1)) if cut
        )
        text = f"{facts.name}: the kidney reaches the {where} slice, so the scan cuts it; volumes are too small"
        found.append(note("kidney_cut", text))
    return found


def hu_under_labels(imaging: ImagingFacts, labels: LabelFacts) -> list[Finding]:
    """Whether the labels lie on kidney: mirrored or shifted labels lie on fat, gas or bone."""
    low, high = KIDNEY_HU
    if imaging.kidney_hu is None or low <= imaging.kidney_hu <= high or labels.counts[1] < 50:
        return []
    text = (
        f"{labels.name}: expected a median of {low} to {high} HU under the kidney label, got "
        f"{imaging.kidney_hu:g}; labels may be mirrored or belong to another case: look at the overlay"
    )
    return [warning("labels_off_organ", text)]


def swapped(imaging: ImagingFacts, labels: LabelFacts) -> bool:
    """Whether imaging holds labels and segmentation holds CT."""
    return imaging.looks_like_labels and labels.looks_like_ct


def swapped_finding(case_id: str) -> Finding:
    """The finding for a case whose two files carry each other's name."""
    text = f"{case_id}: imaging holds a label map and segmentation holds CT; exchange the two file names"
    return unusable("swapped", text)


def grid_findings(
    case_id: str, imaging: VolumeFacts | None, labels: VolumeFacts | None, newer: VolumeFacts | None
) -> list[Finding]:
    """Files of one case that do not share a grid."""
    present = [facts for facts in (imaging, labels, newer) if facts is not None]
    found = []
    for other in present[1:]:
        try:
            names = (_stem(present[0]), _stem(other))
            require_same_grid(case_id, present[0].geometry, other.geometry, names=names)
        except CaseError as error:
            found.append(_as_finding(error))
    return found


def record_findings(files: CaseFiles, facts: VolumeFacts | None) -> list[Finding]:
    """The header's spacing against kits.json (KiTS19 records carry `voxel_spacing`)."""
    expected = (files.record or {}).get("voxel_spacing")
    if facts is None or not isinstance(expected, dict):
        return []
    try:
        recorded = tuple(float(expected[f"{axis}_spacing"]) for axis in "zyx")
    except (KeyError, TypeError, ValueError):
        text = f"{files.case_id}: kits.json has a voxel_spacing that cannot be read: {expected}; correct it"
        return [warning("record_unreadable", text)]
    pairs = zip(facts.geometry.spacing, recorded, strict=True)
    if all(abs(got - told) <= RECORD_TOLERANCE * told for got, told in pairs):
        return []
    text = (
        f"{facts.name}: expected the spacing {recorded} (z, y, x) of kits.json, got "
        f"{facts.geometry.spacing}; the header is used, take imaging and kits.json from the same release"
    )
    return [warning("spacing_record", text)]


def release_findings(files: CaseFiles, labels: LabelFacts | None) -> list[Finding]:
    """A cyst label in what should be a KiTS19 map."""
    if labels is None or files.source != "kits19" or not labels.counts[3]:
        return []
    text = (
        f"{labels.name}: expected KiTS19 labels 0, 1, 2, got also 3 (cyst), so these are KiTS21/23 labels; "
        "name the file segmentation_kits23.nii.gz, or put kits23.json into the folder"
    )
    return [warning("label_release", text)]


def register_findings(entry: Defect, labels: LabelFacts | None) -> list[Finding]:
    """The defect register's entry, and whether a corrected label map is really the corrected one."""
    tail = (
        "the policy `exclude` leaves it out"
        if entry.policy == "exclude"
        else "both policies keep it"
    )
    found = [note("register", f"{entry.case_id}: {entry.reason} ({entry.source}); {tail}")]
    if entry.corrected_ml is None or labels is None:
        return found
    got = (labels.volumes_ml["kidney"], labels.volumes_ml["tumor"])
    pairs = zip(got, entry.corrected_ml, strict=True)
    if any(
        abs(volume - corrected) > CORRECTED_TOLERANCE * corrected for volume, corrected in pairs
    ):
        text = (
            f"{labels.name}: expected kidney and tumour of {entry.corrected_ml} ml as of December 2019, "
            f"got ({got[0]:.2f}, {got[1]:.2f}) ml; pull the current KiTS19 labels"
        )
        found.append(warning("labels_outdated", text))
    return found


def duplicate_finding(case_id: str, kind: str, twins: list[str]) -> Finding:
    """The warning that a case's imaging or segmentation is another's."""
    text = (
        f"{case_id}: its {kind} equals that of {', '.join(twins)} voxel by voxel; keep one, else a patient "
        "stands on both sides of a split"
    )
    return warning("duplicate", text)


def _stem(facts: VolumeFacts) -> str:
    return facts.name.rpartition("/")[2].removesuffix(".gz").removesuffix(".nii")


def _as_finding(error: CaseError) -> Finding:
    return unusable(error.code, str(error))
