"""Which cases a folder holds, and which release of KiTS (or which other source) they come from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kitslib.data.cases.errors import CaseError

Source = Literal["kits19", "kits23", "synthetic", "plain"]
SYNTHETIC_MARKER = "synthetic.json"
_RECORDS = ("kits.json", "kits23.json", "kits21.json")
_KITS_ID = re.compile(r"case_\d{5}")
_KITS21_LABELS = "aggregated_MAJ_seg"


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """Where one case's files are; None for a file that is not there.

    `record` is the case's row of kits.json. `source` says whose case it is, since defects are known by
    number within one release. In a KiTS21/23 folder `segmentation` and `segmentation_kits23` are one file.
    """

    case_id: str
    imaging: Path | None
    segmentation: Path | None
    segmentation_kits23: Path | None = None
    record: dict | None = None
    source: Source = "plain"


def find_cases(data: Path) -> list[CaseFiles]:
    """The cases of a KiTS19 folder or its data/, a KiTS21/23 folder or its dataset/, or any folder of cases.

    Sorted by case id, numbers counted as numbers. A folder counts as a case when it holds imaging or
    segmentation (.nii.gz or .nii), or is named as in KiTS. Raises CaseError: `no_cases`, or `records` where
    kits.json cannot be read.
    """
    data = Path(data)
    if not data.is_dir():
        raise CaseError(
            f"expected a folder of cases, found none at {data}; check the path", code="no_cases"
        )
    for folder in (data, data / "data", data / "dataset", data / "kits21" / "data"):
        if folder.is_dir():
            cases = _cases_in(folder)
            if cases:
                return cases
    if _is_case(data):
        raise CaseError(
            f"expected a folder of cases, got the single case {data}; pass its parent {data.parent}",
            code="no_cases",
        )
    raise CaseError(
        f"expected folders such as {data.name}/case_00000 with imaging.nii.gz or segmentation.nii.gz, found "
        f"none in {data}; pass a KiTS folder, its data/ or dataset/, or the output of `kitslib phantom`",
        code="no_cases",
    )


def natural_key(case_id: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts case_2 before case_10."""
    parts = re.split(r"(\d+)", case_id)
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)


def _cases_in(folder: Path) -> list[CaseFiles]:
    visible = (
        entry for entry in folder.iterdir() if not entry.name.startswith(".")
    )  # not half-written ones
    cases = [entry for entry in visible if entry.is_dir() and _is_case(entry)]
    records = _read_records(folder)
    source = _folder_source(folder)
    return [
        _case_files(entry, records.get(entry.name), source)
        for entry in sorted(cases, key=lambda entry: natural_key(entry.name))
    ]


def _case_files(folder: Path, record: dict | None, source: Source | None) -> CaseFiles:
    segmentation, newer = _volume(folder, "segmentation"), _volume(folder, "segmentation_kits23")
    kits21 = _volume(folder, _KITS21_LABELS)
    if segmentation is None and kits21 is not None:
        segmentation, source = kits21, source or "kits23"
    if (folder / SYNTHETIC_MARKER).is_file():
        source = "synthetic"
    elif source is None:
        source = "kits19" if _KITS_ID.fullmatch(folder.name) else "plain"
    if source == "kits23" and newer is None:
        newer = segmentation
    return CaseFiles(
        case_id=folder.name,
        imaging=_volume(folder, "imaging"),
        segmentation=segmentation,
        segmentation_kits23=newer,
        record=record,
        source=source,
    )


def _is_case(folder: Path) -> bool:
    stems = ("imaging", "segmentation", _KITS21_LABELS)
    return bool(_KITS_ID.fullmatch(folder.name)) or any(_volume(folder, stem) for stem in stems)


def _volume(folder: Path, stem: str) -> Path | None:
    for name in (f"{stem}.nii.gz", f"{stem}.nii"):
        if (folder / name).is_file():
            return folder / name
    return None


def _folder_source(folder: Path) -> Source | None:
    """The source that the folder's own files declare, or None where only the case names can tell."""
    near = (folder, folder.parent)
    if any((place / SYNTHETIC_MARKER).is_file() for place in near):
        return "synthetic"
    if any((folder / name).is_file() for name in ("kits21.json", "kits23.json")):
        return "kits23"
    return None


def _read_records(folder: Path) -> dict[str, dict]:
    for place in (folder, folder.parent):
        for name in _RECORDS:
            path = place / name
            if path.is_file():
                return _parse_records(path)
    return {}


def _parse_records(path: Path) -> dict[str, dict]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {row["case_id"]: row for row in rows}
    except (ValueError, TypeError, KeyError) as error:
        raise CaseError(
            f"{path}: expected a JSON list of records with a case_id each, got {type(error).__name__}: "
            f"{error}; download it again or remove it",
            code="records",
        ) from error
