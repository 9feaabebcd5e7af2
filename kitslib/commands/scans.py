"""Which scans the arguments of a command name, how each is read, and which files are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kitslib.data import CaseError, Geometry, find_cases, holds_dicom, read_folder, read_imaging

NIFTI = (".nii", ".nii.gz")
KITS_NAME = re.compile(r"\Acase_(\d{5})(_0000)?\Z")


@dataclass(frozen=True)
class Scan:
    """A CT to segment: a NIfTI file or a folder of DICOM slices."""

    path: Path

    @property
    def name(self) -> str:
        """What its outputs are called after: a KiTS case's number, else the file or folder."""
        path = self.path.absolute()
        name = path.name if path.is_dir() else stem(path)
        if name == "imaging" and not path.is_dir():
            name = path.parent.name
        return KITS_NAME.sub(r"\1", name)

    def read(self) -> tuple[np.ndarray, Geometry, str]:
        """Return HU int16 (D, H, W), geometry, and a sentence on what was left out, or ""."""
        if self.path.is_dir():
            return read_folder(self.path)
        return *read_imaging(self.path), ""


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


def find_scans(paths: Sequence[Path]) -> tuple[list[Scan], list[tuple[Path, CaseError]]]:
    """Return the scans of files and folders in their order, and paths without any with the reason.

    Raises CaseError where two scans would get one name.
    """
    scans: dict[str, Scan] = {}
    empty: list[tuple[Path, CaseError]] = []
    for path in paths:
        try:
            found = _paths_of(path)
        except CaseError as error:
            empty.append((path, error))
            continue
        for scan in map(Scan, found):
            if scan.name in scans:
                raise CaseError(
                    f"{scans[scan.name].path} and {scan.path} would both be called {scan.name}; "
                    "predict them into two folders"
                )
            scans[scan.name] = scan
    return list(scans.values()), empty


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
