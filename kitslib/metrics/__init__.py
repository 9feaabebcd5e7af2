"""Scores of label maps as KiTS19 and KiTS23 define them, and the statistics that compare them."""

from kitslib.metrics.calibration import calibration_counts, calibration_error
from kitslib.metrics.causes import in_words, tumor_losses
from kitslib.metrics.overlap import histogram_overlap
from kitslib.metrics.scores import (
    KITS23_CLASSES,
    KITS23_TOLERANCE_MM,
    cyst_false_positive_ml,
    dice,
    false_positive_ml,
    kits19_scores,
    kits23_scores,
    match_cases,
    score_case,
    volumes_ml,
)
from kitslib.metrics.statistics import (
    Estimate,
    PairedDifference,
    bootstrap_interval,
    compare_arms,
    estimate,
    holm,
    paired_difference,
    small_sample_warning,
    wilson_interval,
)
from kitslib.metrics.surface import (
    ScoreError,
    SurfaceDistances,
    hd95_mm,
    surface_dice,
    surface_distances,
)
from kitslib.metrics.tables import format_rows, rows_to_csv, rows_to_json, summarise

__all__ = [
    "KITS23_CLASSES",
    "KITS23_TOLERANCE_MM",
    "Estimate",
    "PairedDifference",
    "ScoreError",
    "SurfaceDistances",
    "bootstrap_interval",
    "calibration_counts",
    "calibration_error",
    "compare_arms",
    "cyst_false_positive_ml",
    "dice",
    "estimate",
    "false_positive_ml",
    "format_rows",
    "hd95_mm",
    "histogram_overlap",
    "holm",
    "in_words",
    "kits19_scores",
    "kits23_scores",
    "match_cases",
    "paired_difference",
    "rows_to_csv",
    "rows_to_json",
    "score_case",
    "small_sample_warning",
    "summarise",
    "surface_dice",
    "surface_distances",
    "tumor_losses",
    "volumes_ml",
    "wilson_interval",
]
