"""The register of odd KiTS cases: why, who says so, and whether the strict policy leaves them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kitslib.data.cases.discovery import CaseFiles
from kitslib.data.cases.errors import CaseError

Policy = Literal["keep", "exclude"]

_CORRECTED = "KiTS19 labels of December 2019; changes listed in github MIC-DKFZ/nnUNet issue 112"
_WINNER = "F. Isensee and K. Maier-Hein, arXiv 1908.02182"
_MEASURED = "measured on the published label files"


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One entry of the register.

    `policy` is what the strict policy does with the case; a `keep` entry is there to be known. `releases` are
    the sources of `CaseFiles` that it concerns. `corrected_ml` are the volumes (label 1, label 2) of the
    corrected label map, by which an older download is recognised.
    """

    case_id: str
    reason: str
    source: str
    policy: Policy
    releases: tuple[str, ...] = ("kits19",)
    corrected_ml: tuple[float, float] | None = None


_ENTRIES = (
    Defect(
        case_id="case_00015",
        reason="fluid at the spleen was labelled as renal cyst; the paper had this label, the KiTS19 winner "
        "replaced it",
        source=f"github neheller/kits19 issue 21; {_CORRECTED}; {_WINNER}",
        policy="keep",
        corrected_ml=(404.60, 17.24),
    ),
    Defect(
        case_id="case_00023",
        reason="the tumour label before the correction does not overlap the present one (Dice 0.00); "
        "excluded by the KiTS19 winner; KiTS23 puts the tumour elsewhere again",
        source=f"{_CORRECTED}; {_WINNER}; {_MEASURED}",
        policy="exclude",
        corrected_ml=(542.57, 1.75),
    ),
    Defect(
        case_id="case_00037",
        reason="the tumour label before the correction hardly overlaps the present one (Dice 0.03); "
        "replaced by the KiTS19 winner",
        source=f"{_CORRECTED}; {_WINNER}",
        policy="keep",
        corrected_ml=(604.44, 424.21),
    ),
    Defect(
        case_id="case_00068",
        reason="labels excluded by the KiTS19 winner; KiTS23 calls 49 ml of its kidney a cyst",
        source=f"{_WINNER}; {_MEASURED}",
        policy="exclude",
    ),
    Defect(
        case_id="case_00125",
        reason="the tumour label before the correction does not overlap the present one (Dice 0.00); "
        "excluded by the KiTS19 winner",
        source=f"{_CORRECTED}; {_WINNER}",
        policy="exclude",
        corrected_ml=(494.10, 7.08),
    ),
    Defect(
        case_id="case_00133",
        reason="labels excluded by the KiTS19 winner",
        source=_WINNER,
        policy="exclude",
    ),
    Defect(
        case_id="case_00121",
        reason="the tumours of KiTS19 and KiTS23 hardly overlap",
        source=_MEASURED,
        policy="keep",
        releases=("kits19", "kits23"),
    ),
    Defect(
        case_id="case_00208",
        reason="the tumours of KiTS19 (4 ml) and KiTS23 (19 ml) hardly overlap",
        source=_MEASURED,
        policy="keep",
        releases=("kits19", "kits23"),
    ),
    Defect(
        case_id="case_00061",
        reason="29 slices, the fewest of all; a second contrast phase was reported in its first release",
        source=f"{_MEASURED}; github neheller/kits19 issue 6",
        policy="keep",
        releases=("kits19", "kits23"),
    ),
    Defect(
        case_id="case_00151",
        reason="1059 slices, the most of all",
        source=_MEASURED,
        policy="keep",
        releases=("kits19", "kits23"),
    ),
    Defect(
        case_id="case_00160",
        reason="512 x 796 in plane, where every other case has 512 x 512",
        source=f"{_MEASURED}; github neheller/kits19 issue 6",
        policy="keep",
        releases=("kits19", "kits23"),
    ),
)
DEFECTS: dict[str, Defect] = {entry.case_id: entry for entry in _ENTRIES}


def defect_of(files: CaseFiles) -> Defect | None:
    """The register's entry for this case, or None; numbers mean nothing outside their release."""
    entry = DEFECTS.get(files.case_id)
    return entry if entry is not None and files.source in entry.releases else None


def apply_policy(
    files: Sequence[CaseFiles], policy: Policy
) -> tuple[list[CaseFiles], list[CaseFiles]]:
    """Part cases into (used, left out): `keep` uses all of them, `exclude` leaves out what the register says.

    `keep` is the paper's list of 210, `exclude` is near the KiTS19 winner's of 206.
    """
    if policy not in ("keep", "exclude"):
        raise CaseError(f"policy: expected 'keep' or 'exclude', got {policy!r}", code="policy")
    if policy == "keep":
        return list(files), []
    left_out = [case for case in files if (entry := defect_of(case)) and entry.policy == "exclude"]
    return [case for case in files if case not in left_out], left_out
