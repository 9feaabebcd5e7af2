"""KiTS on disk and in memory: find, read, check, split and export cases."""

from kitslib.cases.check import CaseReport, check_case, check_cohort
from kitslib.cases.defects import DEFECTS, Defect, Policy, apply_policy, defect_of
from kitslib.cases.discovery import SYNTHETIC_MARKER, CaseFiles, find_cases
from kitslib.cases.errors import CaseError
from kitslib.cases.files import (
    LABEL_VERSIONS,
    Case,
    LabelVersion,
    available_labels,
    fingerprint,
    load_case,
    read_imaging,
    read_labels,
    require_same_grid,
    write_imaging,
    write_labels,
)
from kitslib.cases.geometry import Geometry, canonical_affine
from kitslib.cases.report import format_reports, reports_to_json, summary
from kitslib.cases.rules import Finding
from kitslib.cases.splits import Fold, Split, fold, split_cases

__all__ = [
    "DEFECTS",
    "LABEL_VERSIONS",
    "SYNTHETIC_MARKER",
    "Case",
    "CaseError",
    "CaseFiles",
    "CaseReport",
    "Defect",
    "Finding",
    "Fold",
    "Geometry",
    "LabelVersion",
    "Policy",
    "Split",
    "apply_policy",
    "available_labels",
    "canonical_affine",
    "check_case",
    "check_cohort",
    "defect_of",
    "find_cases",
    "fingerprint",
    "fold",
    "format_reports",
    "load_case",
    "read_imaging",
    "read_labels",
    "reports_to_json",
    "require_same_grid",
    "split_cases",
    "summary",
    "write_imaging",
    "write_labels",
]
