"""Which scans the arguments of a command name, how each is read, and which files are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from kitslib.data import CaseError, Geometry, find_cases, holds_dicom, read_folder, read_imaging

NIFTI = (".nii", ".nii.gz")


def scan_name(path: Path) -> str:
    """Return what a scan's outputs are called after: a KiTS case's number, else file or folder."""
    path = path.absolute()
    path = path.parent if stem(path) == "imaging" and not path.is_dir() else path
    name = path.name if path.is_dir() else stem(path)
    return re.sub(r"\Acase_(\d{5})(_0000)?\Z", r"\1", name)


def read_scan(path: Path) -> tuple[np.ndarray, Geometry, str]:
    """Return HU int16 (D, H, W), geometry, and a sentence on what was left out, or ""."""
    return read_folder(path) if path.is_dir() else (*read_imaging(path), "")


def output_files(name: str, out: Path) -> dict[str, Path]:
    """Return a scan's files by kind: KiTS19's names in the folder `out`, or beside a .nii.gz."""
    one = out.name.endswith(NIFTI)
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
    """Return scans by name, and paths without any with why. Raises CaseError for a name twice."""
    scans, empty = {}, {}
    for path in paths:
        try:
            found = _paths_of(path)
        except CaseError as error:
            found, empty[path] = [], error
        for scan in found:
            name = scan_name(scan)
            if name in scans:
                both = f"{scans[name]} and {scan} would both be called {name}"
                raise CaseError(f"{both}; predict them into two folders")
            scans[name] = scan
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
    files = sorted([*folder.glob("*.nii.gz"), *folder.glob("*.nii")])
    return [file for file in files if not file.name.startswith((".", *leave_out))]


def stem(path: Path) -> str:
    """Return a file's name without .nii or .nii.gz."""
    return path.name.removesuffix(".gz").removesuffix(".nii")
