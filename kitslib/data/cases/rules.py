"""The rules of the check: from facts about files to findings, each with a level, code and fix."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from kitslib.data.cases.defects import Defect
from kitslib.data.cases.discovery import CaseFiles
from kitslib.data.cases.errors import CaseError
from kitslib.data.cases.files import label_values_error, nonfinite_error, require_same_grid
from kitslib.data.cases.geometry import CANONICAL_CODES
from kitslib.data.cases.measure import ImagingFacts, LabelFacts, VolumeFacts

AIR_HU = -800  # every abdominal CT has air around the body below this
METAL_HU, PADDING_HU, LEAST_RANGE_HU = 10_000, -1200, 200
IMPOSSIBLE_HU = 100_000  # beyond this nothing is HU, not even padding
SHIFTED_FAT, SHIFTED_BODY = (-150, -50), (700, 1300)  # where fat is, and where a body is at + 1024
KIDNEY_HU = (-20, 400)  # medians: 30 without contrast, up to 260 in the nephrographic phase
KIDNEY_ML = (20, 4000)  # KiTS19 with tumour: 110 to 2000
SPACING_MM, POSSIBLE_MM = (0.2, 10.0), (0.05, 50.0)  # usual, and of any CT
OBLIQUE_DEGREES, SHEARED = 20, 0.01
SPACING_TOLERANCE, CORRECTED_TOLERANCE = 1e-3, 0.01  # relative
Findings = Iterator["Finding"]
Level = Literal["ok", "note", "warning", "unusable"]  # `ok` is a case without findings
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that the check says of a file.

    `note` is worth knowing, `warning` asks a person to inspect the case, `unusable` forbids it.
    """

    level: Level
    code: str
    message: str


def finding(level: Level, name: str, code: str, text: str) -> Finding:
    """A finding about the file or case `name`."""
    return Finding(level=level, code=code, message=f"{name}: {text}")


def refusal(error: CaseError) -> Finding:
    """The finding for a file that was refused."""
    return Finding(level="unusable", code=error.code, message=str(error))


def file_findings(files: CaseFiles, *, labels_only: bool) -> Findings:
    """Missing files: without labels it is a test case; without imaging it serves label studies."""
    if not any(files.paths) and not files.reasons:
        text = "neither imaging nor segmentation; download the case or remove its folder"
        yield finding("unusable", files.case_id, "empty_case", text)
    elif files.imaging is None and not files.reasons:
        text = "imaging.nii.gz is missing; labels can be studied (volumes, `phantom --labels`), "
        text += "nothing trained or predicted; fetch the imaging with the KiTS download script"
        level = "warning" if labels_only else "unusable"
        yield finding(level, files.case_id, "imaging_missing", text)
    elif not any(files.paths[1:]) and not files.reasons:
        text = "no segmentation: a test case, for prediction only"
        yield finding("note", files.case_id, "segmentation_missing", text)
    for text in files.reasons:
        yield finding("unusable", files.case_id, "misnamed", text)
    if files.table_error:
        yield finding("warning", files.case_id, "records", files.table_error)


def geometry_findings(facts: VolumeFacts) -> Findings:
    """How the file is oriented and spaced, where that is not as in KiTS."""
    name, geometry = facts.name, facts.geometry
    if geometry.orientation_assumed:
        text = "no orientation in the header (no sform, no qform), assumed to be "
        text += f"{''.join(geometry.axis_codes)}; write the affine if the axes are others"
        yield finding("warning", name, "orientation_assumed", text)
    elif (codes := "".join(geometry.axis_codes)) != CANONICAL_CODES:
        text = f"axes {codes}, brought to IPL for reading; exports go back to {codes}"
        yield finding("note", name, "reoriented", text)
    if facts.qform_only:
        yield finding("note", name, "qform_only", "no sform in the header, its qform is used")
    if facts.conflict:
        text = f"{facts.conflict}; {'qform' if facts.qform_only else 'sform'} is used, correct the "
        yield finding("warning", name, "affine_conflict", f"{text}one that is wrong")
    if geometry.oblique_degrees > 1:
        text = f"axes tilted by {geometry.oblique_degrees:.1f} degrees, treated as straight"
        level = "warning" if geometry.oblique_degrees > OBLIQUE_DEGREES else "note"
        yield finding(level, name, "oblique", text)
    if geometry.sheared > SHEARED:
        text = f"axes not at right angles: volumes come out {geometry.sheared:.1%} too large; "
        yield finding("warning", name, "sheared", f"{text}resample it to a straight grid")
    low, high = SPACING_MM
    sizes, zooms = sorted(geometry.spacing), sorted(facts.zooms)
    if not POSSIBLE_MM[0] <= sizes[0] <= sizes[-1] <= POSSIBLE_MM[1]:
        text = f"expected voxels of {low} to {high} mm, got {geometry.spacing} (z, y, x), which no "
        text += "CT has; correct the header's voxel size or its unit (xyzt_units)"
        yield finding("unusable", name, "spacing_impossible", text)
        return
    if not low <= sizes[0] <= sizes[-1] <= high:
        text = f"expected voxels of {low} to {high} mm, got {geometry.spacing} (z, y, x); "
        text += "check the header's units and slice thickness"
        yield finding("warning", name, "spacing_unusual", text)
    if not np.allclose(zooms, sizes, rtol=SPACING_TOLERANCE, atol=0):
        shown = [round(zoom, 4) for zoom in zooms]
        text = f"the affine says voxels of {sizes} mm, the header's pixdim says {shown}; "
        text += "the affine is used, correct the one that is wrong"
        yield finding("warning", name, "spacing_header", text)


def imaging_findings(facts: ImagingFacts) -> Findings:
    """Whether the voxels can be Hounsfield units."""
    yield from geometry_findings(facts)
    name, low, high = facts.name, facts.low, facts.high
    span = f"{low:g} to {high:g}"
    if facts.nonfinite:
        size = int(np.prod(facts.geometry.shape[:3]))
        yield refusal(nonfinite_error(name, facts.nonfinite, size))
    code, text = "not_hu", ""
    if low > high:  # nothing finite at all
        return
    if low == high:
        code, text = "constant", f"every voxel is {low:g}; empty export, convert from DICOM again"
    elif max(-low, high) > IMPOSSIBLE_HU:
        text = f"expected HU, got {span}; check the header's slope and intercept, or convert again"
    elif facts.can_be_labels:
        text = f"expected HU, got values {span} as in a label map; put the CT in its place"
    elif low >= 0:
        text = f"expected HU with air near -1000, got {span}; subtract the rescale intercept "
        text += "(usually 1024) or convert from DICOM again; MR is not read"
    elif (shifted := facts.share(*SHIFTED_BODY)) > max(0.01, 5 * facts.share(*SHIFTED_FAT)):
        text = f"expected fat near -100 HU, got {shifted:.0%} of the voxels near 1000 and next to "
        text += "none there; subtract the rescale intercept (usually 1024)"
    elif high - low < LEAST_RANGE_HU:
        text = f"expected HU, got only {span}, as after normalisation; use the original CT"
    if text:
        yield finding("unusable", name, code, text)
        return
    if low > AIR_HU:
        text = f"no air, HU {span}: clipped, cropped or scaled; use the original CT if you can"
        yield finding("warning", name, "hu_range", text)
    if high > METAL_HU or low < -METAL_HU:
        text = f"HU {span} beyond any tissue or metal; inspect the slices, values clip at int16"
        yield finding("warning", name, "hu_range", text)
    elif facts.share(low + 1, PADDING_HU) > 0.05:
        text = f"{facts.share(low, PADDING_HU):.0%} of the voxels are below air, down to {low:g}; "
        yield finding("warning", name, "hu_range", f"{text}check the header's slope and intercept")
    elif low < PADDING_HU:
        yield finding("note", name, "padding", f"padding of {low:g} outside the scan circle")


def label_findings(facts: LabelFacts) -> Findings:
    """Whether the voxels are KiTS labels, and whether kidney and tumour are there and whole."""
    yield from geometry_findings(facts)
    name = facts.name
    if facts.foreign or facts.nonfinite:
        yield refusal(label_values_error(name, facts.foreign))
        return
    if "float" in facts.stored_type or facts.rounding:
        text = f"labels stored as {facts.stored_type} lie up to {facts.rounding:.1g} from whole "
        text += "numbers, to which they are rounded"
        yield finding("note", name, "float_labels", text)
    if facts.kidney_slices is None:
        text = "no voxel is labelled; remove the file if this is a test case, else fetch it again"
        yield finding("unusable", name, "empty_labels", text)
        return
    if not facts.counts[1]:
        yield finding("warning", name, "no_kidney", "no kidney (label 1); inspect the case")
    if not facts.counts[2]:
        text = "no tumour (label 2), which every KiTS case has; kidney studies only"
        yield finding("warning", name, "no_tumor", text)
    total = sum(facts.volumes_ml.values())
    low, high = KIDNEY_ML
    if not low <= total <= high:
        text = f"expected {low} to {high} ml of kidney and masses, got {total:.1f} ml; "
        text += "check the spacing and the label values"
        yield finding("warning", name, "kidney_volume", text)
    ends = {"first": 0, "last": facts.geometry.canonical_shape[0] - 1}
    if ends := [end for end, at in ends.items() if at in facts.kidney_slices]:
        text = f"the kidney reaches the {' and '.join(ends)} slice, so the scan cuts it; "
        yield finding("note", name, "kidney_cut", text + "volumes are too small")


def hu_under_labels(imaging: ImagingFacts, labels: LabelFacts) -> Findings:
    """Whether the labels lie on kidney: mirrored or shifted labels lie on fat, gas or bone."""
    low, high = KIDNEY_HU
    hu = imaging.kidney_hu
    if hu is not None and not low <= hu <= high and labels.counts[1] >= 50:
        text = f"expected a median of {low} to {high} HU under the kidney label, got {hu:g}; "
        text += "labels may be mirrored or belong to another case: inspect the overlay"
        yield finding("warning", labels.name, "labels_off_organ", text)


def grid_findings(case_id: str, facts: list[VolumeFacts]) -> Findings:
    """Files of one case that do not share a grid with the first."""
    stems = [one.name.rpartition("/")[2].removesuffix(".gz").removesuffix(".nii") for one in facts]
    for other, stem in zip(facts[1:], stems[1:], strict=True):
        try:
            require_same_grid(case_id, facts[0].geometry, other.geometry, (stems[0], stem))
        except CaseError as error:
            yield refusal(error)


def record_findings(files: CaseFiles, facts: VolumeFacts) -> Findings:
    """The header's spacing against kits.json (KiTS19 records carry `voxel_spacing`)."""
    expected = (files.record or {}).get("voxel_spacing")
    if not isinstance(expected, dict):
        return
    try:
        recorded = tuple(float(expected[f"{axis}_spacing"]) for axis in "zyx")
    except (KeyError, TypeError, ValueError):
        text = f"kits.json has a voxel_spacing that cannot be read: {expected}; correct it"
        yield finding("warning", files.case_id, "record_unreadable", text)
        return
    spacing = facts.geometry.spacing
    if not np.allclose(spacing, recorded, rtol=SPACING_TOLERANCE, atol=0):
        text = f"expected the spacing {recorded} (z, y, x) of kits.json, got {spacing}; "
        text += "the header is used, take imaging and kits.json from the same release"
        yield finding("warning", facts.name, "spacing_record", text)


def release_findings(files: CaseFiles, labels: LabelFacts) -> Findings:
    """A cyst label in what should be a KiTS19 map."""
    if files.source == "kits19" and labels.counts[3]:
        text = "expected KiTS19 labels 0, 1, 2, got also 3 (cyst), so these are KiTS21/23 labels; "
        text += "name the file segmentation_kits23.nii.gz, or put kits23.json into the folder"
        yield finding("warning", labels.name, "label_release", text)


def register_findings(entry: Defect, labels: LabelFacts | None) -> Findings:
    """The defect register's entry, and whether a corrected label map is the corrected one."""
    tail = "the policy `exclude` leaves it out"
    tail = tail if entry.policy == "exclude" else "both policies keep it"
    yield finding("note", entry.case_id, "register", f"{entry.reason} ({entry.source}); {tail}")
    if entry.corrected_ml is None or labels is None:
        return
    got = (labels.volumes_ml["kidney"], labels.volumes_ml["tumor"])
    if not np.allclose(got, entry.corrected_ml, rtol=CORRECTED_TOLERANCE, atol=0):
        wanted = tuple(entry.corrected_ml)
        text = f"expected kidney and tumour of {wanted} ml as of December 2019, got "
        text += f"({got[0]:.2f}, {got[1]:.2f}) ml; pull the current KiTS19 labels"
        yield finding("warning", labels.name, "labels_outdated", text)
