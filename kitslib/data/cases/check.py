"""Reading a whole cohort once and saying, case by case, what is wrong with it and what to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kitslib.data.cases import rules
from kitslib.data.cases.defects import defect_of
from kitslib.data.cases.discovery import CaseFiles, find_cases
from kitslib.data.cases.errors import CaseError, short_name
from kitslib.data.cases.files import LabelVersion, available_labels
from kitslib.data.cases.measure import ImagingFacts, LabelFacts, measure_imaging, measure_labels
from kitslib.data.cases.rules import Finding

Level = Literal["ok", "note", "warning", "unusable"]
_ORDER: tuple[Level, ...] = ("ok", "note", "warning", "unusable")


@dataclass(frozen=True, kw_only=True)
class CaseReport:
    """What one case holds and what was found; None where it could not be read.

    `shape` (D, H, W) and `spacing` (z, y, x) mm are after reorientation, `axis_codes` the file's own.
    `volumes_ml` has kidney (label 1), tumor, and cyst where one is labelled apart (KiTS23).
    `kidney_slices` are the first and last slice with any label. HU medians lie under label 1 and label 2.
    `trainable`: imaging and labels are both there and sound. Keys are equal for equal voxels.
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
        return max((finding.level for finding in self.findings), key=_ORDER.index, default="ok")

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

    A broken case becomes a finding and never hides the others. `jobs` cases are read at a time (threads:
    decompression releases the interpreter); `progress(done, total)` is called from the caller's thread.
    Raises CaseError when the folder has no cases at all, or its kits.json cannot be read.
    """
    cases = find_cases(data)
    labels_only = all(case.imaging is None for case in cases)
    reports: dict[str, CaseReport] = {}
    pool = ThreadPoolExecutor(max_workers=max(1, jobs))
    try:
        waiting = {pool.submit(check_case, case, labels_only=labels_only): case for case in cases}
        for done, future in enumerate(as_completed(waiting), start=1):
            reports[waiting[future].case_id] = future.result()
            if progress is not None:
                progress(done, len(cases))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the cases not begun
    return _mark_duplicates([reports[case.case_id] for case in cases])


def check_case(files: CaseFiles, *, labels_only: bool = False) -> CaseReport:
    """Check one case; `labels_only`: no case of its folder has imaging, so that its absence is meant."""
    findings = rules.file_findings(files, labels_only=labels_only)
    labels = _try(measure_labels, files.segmentation, findings)
    newer_path = (
        files.segmentation_kits23 if files.segmentation_kits23 != files.segmentation else None
    )
    newer = _try(measure_labels, newer_path, findings)
    imaging = _try(lambda path: measure_imaging(path, labels), files.imaging, findings)

    if imaging is not None and labels is not None and rules.swapped(imaging, labels):
        findings.append(rules.swapped_finding(files.case_id))
    else:
        about_imaging = rules.imaging_findings(imaging) if imaging else []
        findings += about_imaging
        findings += rules.label_findings(labels) if labels else []
        findings += rules.label_findings(newer) if newer else []
        if imaging and labels and all(finding.level != "unusable" for finding in about_imaging):
            findings += rules.hu_under_labels(imaging, labels)
    findings += rules.grid_findings(files.case_id, imaging, labels, newer)
    findings += rules.record_findings(files, imaging or labels)
    findings += rules.release_findings(files, labels)
    entry = defect_of(files)
    findings += rules.register_findings(entry, labels) if entry else []
    return _report(files, imaging, labels, newer, tuple(findings))


def _try(
    measure: Callable, path: Path | None, findings: list[Finding]
) -> ImagingFacts | LabelFacts | None:
    """Measure a file; any failure becomes a finding, since one broken file must not end the check."""
    if path is None:
        return None
    try:
        return measure(path)
    except CaseError as error:
        findings.append(Finding(level="unusable", code=error.code, message=str(error)))
    except (
        Exception
    ) as error:  # whatever a damaged file provokes, the other cases are still to be read
        reason = f"{type(error).__name__}: {error}"
        message = f"{short_name(path)}: could not be read ({reason}); check the disk and the file's rights"
        findings.append(Finding(level="unusable", code="unreadable", message=message))
    return None


def _report(
    files: CaseFiles,
    imaging: ImagingFacts | None,
    labels: LabelFacts | None,
    newer: LabelFacts | None,
    findings: tuple[Finding, ...],
) -> CaseReport:
    facts = imaging or labels or newer
    truth = labels or newer
    cysts_known = "kits23" in available_labels(files) or bool(truth and truth.counts[3])
    return CaseReport(
        case_id=files.case_id,
        source=files.source,
        label_versions=available_labels(files),
        shape=facts.geometry.canonical_shape if facts else None,
        spacing=facts.geometry.spacing if facts else None,
        axis_codes=facts.geometry.axis_codes if facts else None,
        label_values=tuple(value for value in range(4) if truth and truth.counts[value]),
        volumes_ml=_volumes(truth, newer, cysts_known=cysts_known) if truth else None,
        kidney_slices=truth.kidney_slices if truth else None,
        hu_range=(imaging.low, imaging.high) if imaging and imaging.low <= imaging.high else None,
        kidney_hu=imaging.kidney_hu if imaging else None,
        tumor_hu=imaging.tumor_hu if imaging else None,
        imaging_key=imaging.key if imaging else None,
        labels_key=truth.key if truth else None,
        findings=findings,
    )


def _volumes(truth: LabelFacts, newer: LabelFacts | None, *, cysts_known: bool) -> dict[str, float]:
    volumes = dict(truth.volumes_ml)
    if newer is not None:
        volumes["cyst"] = newer.volumes_ml["cyst"]
    elif not cysts_known:
        del volumes["cyst"]
    return volumes


def _mark_duplicates(reports: list[CaseReport]) -> list[CaseReport]:
    """Add a warning to every case whose imaging, or whose labels, equal another case's voxel by voxel."""
    twins: dict[tuple[str, str], list[str]] = defaultdict(list)
    for report in reports:
        if report.imaging_key:
            twins["imaging", report.imaging_key].append(report.case_id)
        if report.labels_key and report.kidney_slices:
            twins["segmentation", report.labels_key].append(report.case_id)
    return [_with_twins(report, twins) for report in reports]


def _with_twins(report: CaseReport, twins: dict[tuple[str, str], list[str]]) -> CaseReport:
    extra = []
    for kind, key in (("imaging", report.imaging_key), ("segmentation", report.labels_key)):
        others = [twin for twin in twins.get((kind, key or ""), ()) if twin != report.case_id]
        if others:
            extra.append(rules.duplicate_finding(report.case_id, kind, others))
    return replace(report, findings=(*report.findings, *extra))
