"""Where in the cascade a case's tumour was lost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kitslib.evaluation.metrics.scores import false_positive_ml
from kitslib.evaluation.metrics.surface import NAN, Spacing


def tumor_losses(
    truth: np.ndarray, kidney: np.ndarray, tumor: np.ndarray, labels: np.ndarray, spacing: Spacing
) -> dict[str, float]:
    """Return which share of the true tumour each step of the cascade lost.

    truth: label map (D, H, W) with tumour 2; kidney: mask of the first stage; tumor: mask of the
    second, before components are dropped; labels: the final label map; spacing (z, y, x) in mm.
    Keys: `outside_kidney`, `not_seen`, `dropped`, `found`, which add up to 1 (NaN without tumour),
    and `false_ml`, the false-positive tumour volume.
    """
    true, kept = truth == 2, labels == 2
    total = int(true.sum())
    outside = true & (kidney == 0) & ~kept
    unseen = true & ~outside & (tumor == 0)
    dropped = true & ~outside & ~unseen & ~kept
    masks = {"outside_kidney": outside, "not_seen": unseen, "dropped": dropped}
    masks["found"] = true & kept
    row = {name: float(mask.sum()) / total if total else NAN for name, mask in masks.items()}
    return row | {"false_ml": false_positive_ml(labels, truth, spacing)}


def in_words(row: Mapping[str, float | str]) -> str:
    """Return a sentence on a case: `case`, `tumor_dice`, `tumor_truth_ml`, and `tumor_losses`."""
    if not row["tumor_truth_ml"]:
        return f"{row['case']}: no labelled tumour; {row['false_ml']:.1f} ml are false positives."
    return (
        f"{row['case']}: tumour Dice {row['tumor_dice']:.2f}. Of {row['tumor_truth_ml']:.1f} ml of "
        f"tumour {row['outside_kidney']:.0%} lie outside the kidneys that were found, "
        f"{row['not_seen']:.0%} were not seen in them, {row['dropped']:.0%} were dropped with "
        f"smaller components; {row['false_ml']:.1f} ml are false-positive tumour."
    )
