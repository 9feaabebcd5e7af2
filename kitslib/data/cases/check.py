"""Reading a whole cohort once and saying, case by case, what is wrong with it and what to do."""

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kitslib.data.cases import rules
from kitslib.data.cases.defects import defect_of
from kitslib.data.cases.discovery import CaseFiles, find_cases
from kitslib.data.cases.errors import CaseError, short_name
from kitslib.data.cases.files import LabelVersion, available_labels
from kitslib.data.cases.measure import ImagingFacts, LabelFacts, measure_imaging, measure_labels
from kitslib.data.cases.rules import LEVELS, Finding, Level


@dataclass(frozen=True, kw_only=True)
class CaseReport:
    """What one case holds and what the check says of it; None where it could not be read.

    shape (D, H, W) and spacing (z, y, x) mm are after reorientation, axis_codes the file's own.
    volumes_ml: kidney (label 1), tumor, and cyst where one is labelled apart (KiTS23).
    kidney_slices: the first and last slice with any label. HU medians lie under labels 1 and 2.
    Keys are equal for equal voxels.
    """

    case_id: str
    source: str
    label_versions: tuple[LabelVersion, ...]
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    axis_codes: tuple[str, str, str] | None = None
    label_values: tuple[int, ...] = ()
    volumes_ml: dict[str, float] | None = None
    kidney_slices: tuple[int, int] | None = None
    hu_range: tuple[float, float] | None = None
    kidney_hu: float | None = None
    tumor_hu: float | None = None
    imaging_key: str | None = None
    labels_key: str | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def level(self) -> Level:
        """The worst finding's level, `ok` without findings."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="ok")

    @property
    def unusable(self) -> bool:
        """Whether a finding forbids using the case."""
        return self.level == "unusable"

    @property
    def trainable(self) -> bool:
        """Whether a network can be trained on it: sound imaging and sound labels."""
        return not self.unusable and self.imaging_key is not None and self.labels_key is not None


def check_cohort(
    data: Path, *, jobs: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[CaseReport]:
    """Read every file of a folder once, in slabs, and report per case in case order.

    A broken case becomes a finding and never hides the others. `jobs` threads read a case each;
    `progress(done, total)` is called from the caller's thread.
    Raises CaseError when the folder has no cases, or its kits.json is unreadable.
    """
    cases = find_cases(data)
    labels_only = all(case.imaging is None for case in cases)
    pool = ThreadPoolExecutor(max_workers=max(1, jobs))
    try:
        reports = [pool.submit(check_case, case, labels_only=labels_only) for case in cases]
        for done, _ in enumerate(as_completed(reports), start=1):
            if progress is not None:
                progress(done, len(cases))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the cases not begun
    return _mark_duplicates([report.result() for report in reports])


def check_case(files: CaseFiles, *, labels_only: bool = False) -> CaseReport:
    """Check one case; `labels_only`: no case of its folder has imaging, so its absence is meant."""
    findings = list(rules.file_findings(files, labels_only=labels_only))
    old, new = files.segmentation, files.segmentation_kits23
    labels = _try(measure_labels, old, findings)
    newer = _try(measure_labels, new if new != old else None, findings)
    imaging = _try(lambda path: measure_imaging(path, labels), files.imaging, findings)
    measured = [facts for facts in (imaging, labels, newer) if facts]

    is_ct = labels and labels.low < 0 and labels.high - labels.low > rules.LEAST_RANGE_HU
    if imaging and imaging.can_be_labels and is_ct:
        text = "imaging holds a label map and segmentation holds CT; exchange the two file names"
        findings.append(rules.finding("unusable", files.case_id, "swapped", text))
    else:
        about_imaging = list(rules.imaging_findings(imaging)) if imaging else []
        findings += about_imaging
        for facts in filter(None, (labels, newer)):
            findings += rules.label_findings(facts)
        if imaging and labels and all(finding.level != "unusable" for finding in about_imaging):
            findings += rules.hu_under_labels(imaging, labels)
    findings += rules.grid_findings(files.case_id, measured)
    if imaging or labels:
        findings += rules.record_findings(files, imaging or labels)
    if labels:
        findings += rules.release_findings(files, labels)
    if entry := defect_of(files):
        findings += rules.register_findings(entry, labels)
    return _report(files, imaging, labels, newer, findings)


def _try(measure: Callable[[Path], Any], path: Path | None, findings: list[Finding]) -> Any:
    """The facts of a file, or None; any failure becomes a finding and does not end the check."""
    if path is None:
        return None
    try:
        return measure(path)
    except CaseError as error:
        findings.append(rules.refusal(error))
    except Exception as error:  # whatever a damaged file provokes
        text = f"could not be read ({type(error).__name__}: {error}); check disk and file rights"
        findings.append(rules.finding("unusable", short_name(path), "unreadable", text))
    return None


def _report(
    files: CaseFiles, imaging: ImagingFacts | None, labels: LabelFacts | None,
    newer: LabelFacts | None, findings: list[Finding],
) -> CaseReport:  # fmt: skip
    versions, truth = available_labels(files), labels or newer
    known = {"case_id": files.case_id, "source": files.source, "label_versions": versions}
    if facts := imaging or truth:
        known["shape"] = facts.geometry.canonical_shape
        known["spacing"], known["axis_codes"] = facts.geometry.spacing, facts.geometry.axis_codes
    if imaging:
        known["kidney_hu"], known["tumor_hu"] = imaging.kidney_hu, imaging.tumor_hu
        known["imaging_key"] = imaging.key
        if imaging.low <= imaging.high:
            known["hu_range"] = (imaging.low, imaging.high)
    if truth:
        known["labels_key"], known["kidney_slices"] = truth.key, truth.kidney_slices
        known["label_values"] = tuple(np.flatnonzero(truth.counts).tolist())
        known["volumes_ml"] = volumes = truth.volumes_ml
        if newer:
            volumes["cyst"] = newer.volumes_ml["cyst"]
        elif "kits23" not in versions and not truth.counts[3]:
            del volumes["cyst"]
    return CaseReport(findings=tuple(findings), **known)


def _mark_duplicates(reports: list[CaseReport]) -> list[CaseReport]:
    """Add a warning to every case whose imaging, or labels, equal another case's by voxel."""
    twins: dict[tuple[str, str], list[str]] = defaultdict(list)
    for report in reports:
        if report.imaging_key:
            twins["imaging", report.imaging_key].append(report.case_id)
        if report.labels_key and report.kidney_slices:
            twins["segmentation", report.labels_key].append(report.case_id)
    marked = {report.case_id: list(report.findings) for report in reports}
    for (kind, _), case_ids in sorted(twins.items()):
        for case_id in case_ids if len(case_ids) > 1 else ():
            others = ", ".join(other for other in case_ids if other != case_id)
            text = f"its {kind} equals that of {others} voxel by voxel; keep one, else a patient "
            text += "stands on both sides of a split"
            marked[case_id].append(rules.finding("warning", case_id, "duplicate", text))
    return [replace(report, findings=tuple(marked[report.case_id])) for report in reports]
