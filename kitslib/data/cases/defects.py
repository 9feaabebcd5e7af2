"""The register of odd KiTS cases: why, who says so, and whether the strict policy omits them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from kitslib.data.cases.discovery import CaseFiles
from kitslib.data.cases.errors import CaseError

Policy = Literal["keep", "exclude"]


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
    releases: Sequence[str]
    corrected_ml: Sequence[float] | None = None


_ROWS = json.loads((files("kitslib.data.cases") / "defects.json").read_text(encoding="utf-8"))
DEFECTS: dict[str, Defect] = {row["case_id"]: Defect(**row) for row in _ROWS}


def defect_of(case: CaseFiles) -> Defect | None:
    """The register's entry for this case, or None; numbers mean nothing outside their release."""
    entry = DEFECTS.get(case.case_id)
    return entry if entry is not None and case.source in entry.releases else None


def apply_policy(cases: Sequence[CaseFiles], policy: Policy) -> tuple[list[CaseFiles], ...]:
    """Part cases into (used, left out): `keep` uses all, `exclude` omits what the register says.

    `keep` is the paper's list of 210, `exclude` is near the KiTS19 winner's of 206.
    """
    if policy not in ("keep", "exclude"):
        raise CaseError(f"policy: expected 'keep' or 'exclude', got {policy!r}", code="policy")
    used, left_out = [], []
    for case in cases:
        entry = defect_of(case)
        excluded = policy == "exclude" and entry is not None and entry.policy == "exclude"
        (left_out if excluded else used).append(case)
    return used, left_out
