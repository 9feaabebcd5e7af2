"""The register of odd KiTS cases: why, who says so, and whether the strict policy omits them."""

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
_ISSUE_6 = f"{_MEASURED}; github neheller/kits19 issue 6"
_MOVED = "the tumour label before the correction does not overlap the present one"
_BOTH = ("kits19", "kits23")


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One entry of the register.

    policy: what the strict policy does with the case; a `keep` entry is there to be known.
    releases: the sources of `CaseFiles` that it concerns. corrected_ml: volumes (label 1, label 2)
    of the corrected label map, by which an older download is recognised.
    """

    case_id: str
    reason: str
    source: str
    policy: Policy
    releases: tuple[str, ...] = ("kits19",)
    corrected_ml: tuple[float, float] | None = None


def _defect(number: int, policy: Policy, source: str, reason: str, **more: tuple) -> Defect:
    case_id = f"case_{number:05d}"
    return Defect(case_id=case_id, policy=policy, source=source, reason=reason, **more)


_ENTRIES = (
    _defect(
        15,
        "keep",
        f"github neheller/kits19 issue 21; {_CORRECTED}; {_WINNER}",
        "fluid at the spleen was labelled as renal cyst; the paper had this label, the KiTS19 "
        "winner replaced it",
        corrected_ml=(404.60, 17.24),
    ),
    _defect(
        23,
        "exclude",
        f"{_CORRECTED}; {_WINNER}; {_MEASURED}",
        f"{_MOVED} (Dice 0.00); excluded by the KiTS19 winner; KiTS23 puts the tumour elsewhere "
        "again",
        corrected_ml=(542.57, 1.75),
    ),
    _defect(
        37,
        "keep",
        f"{_CORRECTED}; {_WINNER}",
        "the tumour label before the correction hardly overlaps the present one (Dice 0.03); "
        "replaced by the KiTS19 winner",
        corrected_ml=(604.44, 424.21),
    ),
    _defect(
        68,
        "exclude",
        f"{_WINNER}; {_MEASURED}",
        "labels excluded by the KiTS19 winner; KiTS23 calls 49 ml of its kidney a cyst",
    ),
    _defect(
        125,
        "exclude",
        f"{_CORRECTED}; {_WINNER}",
        f"{_MOVED} (Dice 0.00); excluded by the KiTS19 winner",
        corrected_ml=(494.10, 7.08),
    ),
    _defect(133, "exclude", _WINNER, "labels excluded by the KiTS19 winner"),
    _defect(
        121, "keep", _MEASURED, "the tumours of KiTS19 and KiTS23 hardly overlap", releases=_BOTH
    ),
    _defect(
        208,
        "keep",
        _MEASURED,
        "the tumours of KiTS19 (4 ml) and KiTS23 (19 ml) hardly overlap",
        releases=_BOTH,
    ),
    _defect(
        61,
        "keep",
        _ISSUE_6,
        "29 slices, the fewest of all; a second contrast phase was reported in its first release",
        releases=_BOTH,
    ),
    _defect(151, "keep", _MEASURED, "1059 slices, the most of all", releases=_BOTH),
    _defect(
        160,
        "keep",
        _ISSUE_6,
        "512 x 796 in plane, where every other case has 512 x 512",
        releases=_BOTH,
    ),
)
DEFECTS: dict[str, Defect] = {entry.case_id: entry for entry in _ENTRIES}


def defect_of(files: CaseFiles) -> Defect | None:
    """The register's entry for this case, or None; numbers mean nothing outside their release."""
    entry = DEFECTS.get(files.case_id)
    if entry is None or files.source not in entry.releases:
        return None
    return entry


def apply_policy(
    files: Sequence[CaseFiles], policy: Policy
) -> tuple[list[CaseFiles], list[CaseFiles]]:
    """Part cases into (used, left out): `keep` uses all, `exclude` omits what the register says.

    `keep` is the paper's list of 210, `exclude` is near the KiTS19 winner's of 206.
    """
    if policy not in ("keep", "exclude"):
        raise CaseError(f"policy: expected 'keep' or 'exclude', got {policy!r}", code="policy")
    used, left_out = [], []
    for case in files:
        entry = defect_of(case)
        excluded = policy == "exclude" and entry is not None and entry.policy == "exclude"
        (left_out if excluded else used).append(case)
    return used, left_out
