"""Which scans the arguments of a command name, how each is read, and which files are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kitslib.data import CaseError, Geometry, find_cases, holds_dicom, read_folder, read_imaging

NIFTI = (".nii", ".nii.gz")
KITS_NAME = re.compile(r"\Acase_(\d{5})(_0000)?\Z")


def scan_name(path: Path) -> str:
    """Return what a scan's outputs are called after: a KiTS case's number, else file or folder."""
    path = path.absolute()
    name = path.name if path.is_dir() else stem(path)
    if name == "imaging" and not path.is_dir():
        name = path.parent.name
    return KITS_NAME.sub(r"\1", name)


def read_scan(path: Path) -> tuple[np.ndarray, Geometry, str]:
    """Return HU int16 (D, H, W), geometry, and a sentence on what was left out, or ""."""
    if path.is_dir():
        return read_folder(path)
    return *read_imaging(path), ""


def output_files(name: str, out: Path) -> dict[str, Path]:
    """Return the files of a scan: KiTS19's names in the folder `out`, or `out` itself, a .nii.gz.

    Keys: labels, sidecar, preview, kidney and tumor (the probabilities), and table, which all
    scans of a folder share.
    """
    folder, start, table = out, f"prediction_{name}", "predictions"
    labels = folder / f"{start}.nii.gz"
    if out.name.endswith(NIFTI):
        folder, start, table, labels = out.parent, stem(out), stem(out), out
        name = start.removeprefix("prediction_")
    return {
        "labels": labels,
        "sidecar": folder / f"{start}.json",
        "preview": folder / f"{start}.jpg",
        "kidney": folder / f"probability_{name}_kidney.nii.gz",
        "tumor": folder / f"probability_{name}_tumor.nii.gz",
        "table": folder / f"{table}.csv",
    }


def find_scans(paths: Sequence[Path]) -> tuple[dict[str, Path], dict[Path, CaseError]]:
    """Return the scans of files and folders by name, and the paths without any with the reason.

    Raises CaseError where two scans would get one name.
    """
    scans: dict[str, Path] = {}
    empty: dict[Path, CaseError] = {}
    for path in paths:
        try:
            found = _paths_of(path)
        except CaseError as error:
            empty[path] = error
            continue
        for scan in found:
            name = scan_name(scan)
            if name in scans:
                raise CaseError(
                    f"{scans[name]} and {scan} would both be called {name}; "
                    "predict them into two folders"
                )
            scans[name] = scan
    return scans, empty


def _paths_of(path: Path) -> list[Path]:
    """The scans of one argument: a file, NIfTI files of a folder, a cohort's, or DICOM slices."""
    if not path.is_dir():
        return [path]
    if files := nifti_files(path, leave_out=("prediction_", "probability_", "segmentation")):
        return files
    try:
        cases = find_cases(path)
    except CaseError:
        cases = []
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
