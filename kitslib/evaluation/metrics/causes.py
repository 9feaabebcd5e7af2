"""Where in the cascade a case's tumour was lost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kitslib.evaluation.metrics.scores import voxel_ml


def tumor_losses(
    truth: np.ndarray,
    kidney: np.ndarray,
    tumor: np.ndarray,
    labels: np.ndarray,
    spacing: tuple[float, float, float],
) -> dict[str, float]:
    """Return which shares of the true tumour each step of the cascade lost, and what was called tumour in vain.

    truth: label map (D, H, W) with tumour 2; kidney: mask that the first stage found; tumor: mask of the second,
    before components are dropped; labels: the final label map. Keys: `outside_kidney`, `not_seen`, `dropped`,
    `found`, which add up to 1 (NaN without tumour), and `false_ml`. spacing (z, y, x) in mm.
    """
    true, kept = truth == 2, labels == 2
    total = int(true.sum())
    outside = true & (kidney == 0) & ~kept
    unseen = true & ~outside & (tumor == 0)
    dropped = true & ~outside & ~unseen & ~kept
    shares = {
        "outside_kidney": outside,
        "not_seen": unseen,
        "dropped": dropped,
        "found": true & kept,
    }
    found = {
        name: float(mask.sum()) / total if total else float("nan") for name, mask in shares.items()
    }
    return {**found, "false_ml": voxel_ml(spacing) * int((kept & ~true).sum())}


def in_words(row: Mapping[str, float | str]) -> str:
    """Return a sentence on a case: `case`, `tumor_dice`, `tumor_truth_ml`, and what `tumor_losses` gave."""
    if not row["tumor_truth_ml"]:
        return f"{row['case']}: no tumour is labelled; {row['false_ml']:.1f} ml were called one."
    return (
        f"{row['case']}: tumour Dice {row['tumor_dice']:.2f}. Of {row['tumor_truth_ml']:.1f} ml of tumour "
        f"{row['outside_kidney']:.0%} lie outside the kidneys that were found, {row['not_seen']:.0%} were not seen in "
        f"them, {row['dropped']:.0%} were dropped with smaller components; {row['false_ml']:.1f} ml were called tumour "
        "in vain."
    )
