"""What `check --repair` does: fetches the files of KiTS cases that cannot be used."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from kitslib.commands import fetch
from kitslib.commands.line import Parser
from kitslib.commands.manifest import IMAGING, Manifest, set_aside
from kitslib.data import CaseFiles, CaseReport, check_case, find_cases

PLACES = (".", "data", "dataset")  # of a KiTS folder's cases


def repair(data: Path, reports: Sequence[CaseReport]) -> list[CaseReport]:
    """Fetch anew what is broken in KiTS19 and KiTS23 cases; return all reports as they are then.

    A label map that cannot be used is set aside first, and gets its name back where none comes in
    its place; imaging is replaced where its hash is not the published one.
    """
    cases = {case.case_id: case for case in find_cases(data)}
    wanted: dict[tuple[str, Path], list[CaseReport]] = defaultdict(list)
    for report in filter(lambda report: report.unusable, reports):
        folder, case = _folder(data, report.case_id), cases[report.case_id]
        if problem := _not_to_be_fetched(case):
            print(f"kitslib check: {report.case_id}: {problem}", file=sys.stderr)
        else:
            wanted[case.source, folder].append(report)
    for (release, folder), broken in wanted.items():
        fetch_anew(release, folder, broken)
    mended = {report.case_id for broken in wanted.values() for report in broken}
    new = {case.case_id: check_case(case) for case in find_cases(data) if case.case_id in mended}
    return [new.get(report.case_id, report) for report in reports]


def fetch_anew(release: str, folder: Path, broken: Sequence[CaseReport]) -> None:
    """Call `fetch` for the cases of these reports in a folder of a release."""
    aside = {}
    for report in broken:
        labels = folder / fetch.LABELS.format(_number(report.case_id))
        if labels.is_file() and _labels_are_broken(report):
            aside[labels] = set_aside(labels)
    words = [release, str(folder), "--verify"]
    words += ["--cases", ",".join(str(_number(report.case_id)) for report in broken)]
    stored = Manifest(folder, release).files.values()
    words += ["--int16"] * any(known.get("int16") == "stored" for known in stored)
    parser = Parser(prog="python -m kitslib fetch")
    fetch.add(parser)
    try:
        fetch.run(parser.parse_args(words))
    finally:
        for labels, old in aside.items():
            if not labels.exists():
                old.rename(labels)
            else:
                print(f"{labels.parent.name}: its former label map is now {old.name}")


def _not_to_be_fetched(case: CaseFiles) -> str:
    """Why a case's files cannot be fetched, or ""."""
    if case.source not in fetch.RELEASES or not re.fullmatch(r"case_\d{5}", case.case_id):
        return f"cannot be fetched, it is no case of KiTS but {case.source}; mend it by hand"
    release, number = fetch.RELEASES[case.source], _number(case.case_id)
    if number not in (*release.labelled, *release.unlabelled):
        return f"cannot be fetched, {release.title} has no such case"
    if case.segmentation and not case.segmentation.name.startswith("segmentation."):
        return "cannot be fetched, it is of KiTS21; fetch kits23 into another folder"
    return ""


def _labels_are_broken(report: CaseReport) -> bool:
    """Whether the check has something against the label map, or against the two together."""
    imaging = IMAGING.format(_number(report.case_id)).removesuffix(".gz")
    absent = "imaging_missing", "empty_case"
    found = [f for f in report.findings if f.level == "unusable" and f.code not in absent]
    return not all(one.message.startswith(imaging) for one in found)


def _folder(data: Path, case_id: str) -> Path:
    return next((data / p for p in PLACES if (data / p / case_id).is_dir()), data)


def _number(case_id: str) -> int:
    return int(case_id.removeprefix("case_"))
