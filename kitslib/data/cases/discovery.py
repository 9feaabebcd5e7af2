"""Which cases a folder holds, and which release of KiTS (or which other source) they are from."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kitslib.config import SYNTHETIC_MARKER
from kitslib.data.cases.errors import CaseError

Source = Literal["kits19", "kits23", "synthetic", "plain"]
_TABLES = ("kits.json", "kits23.json", "kits21.json")
_KITS_ID = re.compile(r"case_\d{5}")
_KITS21_LABELS = "aggregated_MAJ_seg"


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """Where one case's files are; None for a file that is not there.

    record: the case's row of kits.json. source: whose case it is, since defects are known by number
    within one release. In a KiTS21/23 folder `segmentation` and `segmentation_kits23` are one file.
    """

    case_id: str
    imaging: Path | None
    segmentation: Path | None
    segmentation_kits23: Path | None = None
    record: dict | None = None
    source: Source = "plain"
    reasons: tuple[str, ...] = ()  # why a file of it, which seems to be missing, was not taken
    table_error: str = ""  # why there is no record: kits.json is unreadable

    @property
    def paths(self) -> tuple[Path | None, Path | None, Path | None]:
        """Imaging, segmentation and KiTS23's segmentation."""
        return self.imaging, self.segmentation, self.segmentation_kits23


def find_cases(data: Path) -> list[CaseFiles]:
    """The cases of a KiTS folder, of its data/ or dataset/, or of any folder of cases.

    Sorted by case id, numbers counted as numbers. A folder counts as a case when it holds imaging
    or segmentation (.nii.gz or .nii), or is named as in KiTS.
    A kits.json that cannot be read hides no case, it stands in `table_error`.
    Raises CaseError (`no_cases`).
    """
    data = Path(data)
    if not data.is_dir():
        raise CaseError(f"expected a folder, found none at {data}; check the path", code="no_cases")
    for folder in (data, data / "data", data / "dataset", data / "kits21" / "data"):
        if folder.is_dir() and (cases := _cases_in(folder)):
            return cases
    text = f"expected a folder of cases, got the single case {data}; pass its parent {data.parent}"
    if not _is_case(data):
        text = f"expected folders such as {data.name}/case_00000 with imaging.nii.gz or "
        text += f"segmentation.nii.gz, found none in {data}; pass a KiTS folder, its data/ or "
        text += "dataset/, or the output of `kitslib phantom`"
    raise CaseError(text, code="no_cases")


def natural_key(case_id: str) -> list[str | int]:
    """A sort key that puts case_2 before case_10."""
    parts: list[str | int] = re.split(r"(\d+)", case_id)  # text, number, text, …
    parts[1::2] = map(int, parts[1::2])
    return parts


def _cases_in(folder: Path) -> list[CaseFiles]:
    (rows, table_error), cases = _read_table(folder), []
    drawn = any((place / SYNTHETIC_MARKER).is_file() for place in (folder, folder.parent))
    declared = "kits23" if any((folder / name).is_file() for name in _TABLES[1:]) else None
    for entry in sorted(folder.iterdir(), key=lambda entry: natural_key(entry.name)):
        if entry.name.startswith(".") or not (entry.is_dir() and _is_case(entry)):  # half-written
            continue
        source, segmentation = declared, _volume(entry, "segmentation")
        if segmentation is None and (kits21 := _volume(entry, _KITS21_LABELS)):
            segmentation, source = kits21, source or "kits23"
        if drawn or (entry / SYNTHETIC_MARKER).is_file():
            source = "synthetic"
        elif source is None:
            source = "kits19" if _KITS_ID.fullmatch(entry.name) else "plain"
        newer = _volume(entry, "segmentation_kits23")
        if source == "kits23":
            newer = newer or segmentation
        case = CaseFiles(
            case_id=entry.name, imaging=_volume(entry, "imaging"), segmentation=segmentation,
            segmentation_kits23=newer, record=rows.get(entry.name), source=source,
            reasons=tuple(_reasons(entry)), table_error=table_error,
        )  # fmt: skip
        cases.append(case)
    return cases


def _is_case(folder: Path) -> bool:
    stems = ("imaging", "segmentation", _KITS21_LABELS)
    there = bool(_KITS_ID.fullmatch(folder.name)) or any(_volume(folder, stem) for stem in stems)
    return there or any(_reasons(folder))


def _volume(folder: Path, stem: str) -> Path | None:
    paths = (folder / f"{stem}.nii.gz", folder / f"{stem}.nii")
    return next((path for path in paths if path.is_file()), None)


def _reasons(folder: Path) -> Iterator[str]:
    """What stands in for a missing file: a name in other letters, or a link to nothing."""
    for stem in ("imaging", "segmentation"):
        if _volume(folder, stem):
            continue
        for path in sorted(folder.iterdir()):
            if path.name.lower() not in (f"{stem}.nii", f"{stem}.nii.gz"):
                continue
            if path.name != path.name.lower():
                yield f"{path.name} is misnamed; rename it to {path.name.lower()}"
            elif not path.exists():
                yield f"{path.name} is a link to {path.readlink()}, where there is nothing"


def _read_table(folder: Path) -> tuple[dict[str, dict], str]:
    """The rows of the first kits.json in the folder or its parent, by case id, and why none."""
    paths = [place / name for place in (folder, folder.parent) for name in _TABLES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {}, ""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
        return {row["case_id"]: row for row in rows}, ""
    except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        text = f"{path} has no records: expected a JSON list with a case_id each, got "
        text += f"{type(error).__name__}: {error}; download it again or remove it"
        return {}, text
