"""Which scans the arguments of a command name, how each is read, and which files are written."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kitslib.data import CaseError, find_cases, holds_dicom, series_key

SUFFIX = re.compile(r"(\.nii|\.nii\.gz|\.zip|\.dcm)\Z", re.IGNORECASE)


def scan_name(path: Path) -> str:
    """Return what a scan's outputs are called after: a KiTS case's number, else file or folder."""
    path = path.absolute()
    path = path.parent if stem(path).lower() == "imaging" and not path.is_dir() else path
    name = path.name if path.is_dir() else stem(path)
    return re.sub(r"\Acase_(\d{5})(_0000)?\Z", r"\1", name)


def output_files(name: str, out: Path) -> dict[str, Path]:
    """Return a scan's files by kind: KiTS19's names in the folder `out`, or beside a .nii.gz."""
    one = is_nifti(out)
    folder, start = (out.parent, stem(out)) if one else (out, f"prediction_{name}")
    name = start.removeprefix("prediction_")
    return {
        "labels": out if one else folder / f"{start}.nii.gz",
        "sidecar": folder / f"{start}.json",
        "preview": folder / f"{start}.jpg",
        "summary": folder / f"{start}.html",
        "kidney": folder / f"probability_{name}_kidney.nii.gz",
        "tumor": folder / f"probability_{name}_tumor.nii.gz",
        "dicom_seg": folder / f"{start}_seg.dcm",
        "rtstruct": folder / f"{start}_rtstruct.dcm",
        "table": folder / (f"{start}.csv" if one else "predictions.csv"),
    }


def find_scans(paths: Sequence[Path]) -> tuple[dict[str, Path], dict[Path, CaseError]]:
    """Return scans by name, and paths that are none, or two of one name, with why."""
    named, empty, series = defaultdict(dict), {}, {}
    for path in paths:
        try:
            for scan in _paths_of(path):
                scan = series.setdefault(series_key(scan), scan)  # one slice stands for all
                named[scan_name(scan)].setdefault(scan.absolute(), scan)
        except (CaseError, OSError) as error:
            empty[path] = error
    scans = {}
    for name, found in named.items():
        scans[name], *others = found.values()
        if others:
            all_of = " and ".join(map(str, found.values()))
            text = f"{all_of} would all be called {name}; rename them, or predict into two folders"
            empty |= dict.fromkeys(found.values(), CaseError(text, code="name_twice"))
            del scans[name]
    return scans, empty


def _paths_of(path: Path) -> list[Path]:
    """The scans of one argument: a file, NIfTI files of a folder, a cohort's, or DICOM slices."""
    if not path.is_dir():
        return [path]
    if files := nifti_files(path, leave_out=("prediction_", "probability_", "segmentation")):
        return files
    cases = []
    with suppress(CaseError):
        cases = find_cases(path)
    if imaging := [case.imaging for case in cases if case.imaging]:
        return imaging
    if cases:
        words = f"{len(cases)} cases, none with imaging.nii.gz; fetch the imaging first"
        raise CaseError(words, code="missing")
    if holds_dicom(path):
        return [path]
    words = "expected NIfTI files, KiTS cases or DICOM slices in this folder, found none"
    raise CaseError(words, code="no_cases")


def nifti_files(folder: Path, *, leave_out: tuple[str, ...]) -> list[Path]:
    """Return a folder's NIfTI files, sorted, without hidden ones and those of these beginnings."""
    files = sorted(filter(is_nifti, folder.iterdir()))
    return [file for file in files if not file.name.startswith((".", *leave_out))]


def is_nifti(path: Path) -> bool:
    """Whether a file's name ends as NIfTI files do, in letters of either case."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def stem(path: Path) -> str:
    """Return a file's name without .nii, .nii.gz, .zip or .dcm, in letters of either case."""
    return SUFFIX.sub("", path.name)
