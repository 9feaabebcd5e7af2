"""Any scan as HU: a NIfTI file or a DICOM series, refused or with warnings by the check's rules."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kitslib.data.cases.dicom import read_dicom
from kitslib.data.cases.dicom_files import is_dicom
from kitslib.data.cases.errors import CaseError
from kitslib.data.cases.geometry import Geometry
from kitslib.data.cases.measure import facts_of, read_measured
from kitslib.data.cases.rules import imaging_findings


class Scan(NamedTuple):
    """HU int16 (D, H, W), where they lie, and sentences on what was left aside or looks wrong."""

    imaging: np.ndarray
    geometry: Geometry
    warnings: tuple[str, ...]


def read_scan(path: Path) -> Scan:
    """Read a NIfTI file, a folder of DICOM slices, a zip of one, or one slice's whole series.

    Raises CaseError where it cannot be read, or where what `check` knows makes it unusable: no HU,
    an impossible voxel size, NaN.
    """
    path, notes = Path(path), []
    if path.is_dir() or zipfile.is_zipfile(path) or (path.is_file() and is_dicom(path)):
        volume, geometry, notes = read_dicom(path)
        facts = facts_of(path.name, volume, geometry)
    else:
        volume, facts = read_measured(path)
    for found in imaging_findings(facts):
        if found.level == "unusable":
            raise CaseError(found.message, code=found.code)
        if found.level == "warning":
            notes.append(found.message)
    return Scan(volume, facts.geometry, tuple(notes))
