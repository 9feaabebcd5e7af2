"""Which scans the words of a command name, how each is read, and where what is found in it goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kitslib.data import CaseError, Geometry, find_cases, holds_dicom, read_folder, read_imaging

NOT_IMAGING = ("prediction_", "probability_", "segmentation")
KITS_NAME = re.compile(r"case_(\d{5})(_0000)?")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """A CT to segment: a NIfTI file or a folder of DICOM slices, and what its outputs are called after."""

    name: str
    path: Path

    def read(self) -> tuple[np.ndarray, Geometry, str]:
        """Return HU int16 (D, H, W), geometry, and a sentence on what was left aside ("" where there is none)."""
        if self.path.is_dir():
            return read_folder(self.path)
        return *read_imaging(self.path), ""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files that are written for a scan."""

    labels: Path
    sidecar: Path
    preview: Path
    probabilities: dict[str, Path]

    @classmethod
    def of(cls, scan: Scan, out: Path, *, several: bool) -> Outputs:
        """Return KiTS19's names in the folder `out`, or `out` itself and files beside it where it is a .nii.gz."""
        if out.name.endswith((".nii", ".nii.gz")):
            if several:
                raise CaseError(f"-o {out}: with several scans this must be a folder, not a file")
            labels = out
        else:
            labels = out / f"prediction_{scan.name}.nii.gz"
        stem = _stem(labels)
        plain = stem.removeprefix("prediction_")
        return cls(
            labels=labels,
            sidecar=labels.with_name(f"{stem}.json"),
            preview=labels.with_name(f"{stem}.jpg"),
            probabilities={
                stage: labels.with_name(f"probability_{plain}_{stage}.nii.gz")
                for stage in ("kidney", "tumor")
            },
        )

    def refuse_existing(self, *, probabilities: bool) -> None:
        """Raise CaseError when one of the files is there already."""
        files = [
            self.labels,
            self.sidecar,
            self.preview,
            *(self.probabilities.values() if probabilities else ()),
        ]
        for file in files:
            if file.exists():
                raise CaseError(f"{file} exists; --force overwrites it")


def find_scans(paths: Sequence[Path]) -> tuple[list[Scan], list[tuple[Path, CaseError]]]:
    """Return the scans of files and folders in their order, and each path that holds none with the reason.

    Raises CaseError where two scans would get one name.
    """
    scans: list[Scan] = []
    empty: list[tuple[Path, CaseError]] = []
    for path in paths:
        try:
            scans += _scans_of(path)
        except CaseError as error:
            empty.append((path, error))
    taken: dict[str, Path] = {}
    for scan in scans:
        if scan.name in taken:
            raise CaseError(
                f"{taken[scan.name]} and {scan.path} would both be called {scan.name}; predict them into two folders"
            )
        taken[scan.name] = scan.path
    return scans, empty


def _scans_of(path: Path) -> list[Scan]:
    if not path.is_dir():
        return [Scan(name=scan_name(path), path=path)]
    files = sorted([*path.glob("*.nii.gz"), *path.glob("*.nii")])
    files = [file for file in files if not file.name.startswith((".", *NOT_IMAGING))]
    if files:
        return [Scan(name=scan_name(file), path=file) for file in files]
    try:
        cases = find_cases(path)
    except CaseError:
        cases = []
    if imaging := [case.imaging for case in cases if case.imaging]:
        return [Scan(name=scan_name(file), path=file) for file in imaging]
    if cases:
        raise CaseError(
            f"{len(cases)} cases, none with imaging.nii.gz; fetch the imaging first", code="missing"
        )
    if holds_dicom(path):
        return [Scan(name=_kits(path.absolute().name), path=path)]
    raise CaseError(
        "expected NIfTI files, KiTS cases or DICOM slices in this folder, found none",
        code="no_cases",
    )


def scan_name(file: Path) -> str:
    """Return what a NIfTI file's outputs are called after: the number of a KiTS case, else the name."""
    stem = _stem(file)
    return _kits(file.absolute().parent.name if stem == "imaging" else stem)


def _kits(name: str) -> str:
    found = KITS_NAME.fullmatch(name)
    return found.group(1) if found else name


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
