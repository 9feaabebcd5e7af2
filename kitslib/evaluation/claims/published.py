"""Published scores to stand beside ours, and what the paper's own 15 cases can tell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

PAPER_CASES = 15  # 195 to 209
PAPER_GAIN = 0.25  # tumour Dice from 0.45 to about 0.70 by oversampling
PAPER_SDS = (0.1, 0.2, 0.3)  # of paired differences in Dice, which the paper does not give

# mean scores, named as `score_case` names ours: KiTS19's three, then KiTS23's two, which are means
# over its three nested classes and no composite; None: not given
PUBLISHED = pd.DataFrame([
    ("winner (residual 3D U-Net, nnU-Net)", "KiTS19", 0.974, 0.851, 0.912, None, None,
     "90 test cases"),
    ("two annotators", "KiTS19", 0.983, 0.923, 0.953, None, None, "one against the other"),
    ("MLPerf inference 3D U-Net reference", "KiTS19", 0.935, 0.789, 0.862, None, None, ""),
    ("winner (Auto3DSeg)", "KiTS23", None, None, None, 0.835, 0.723, "means over three classes"),
    ("MIScnn", "KiTS19", 0.93, 0.30, None, None, None, "20 cases; kidney approximate"),
    ("this paper, before oversampling", "KiTS19", None, 0.45, None, None, None, "15 cases"),
    ("this paper, after oversampling", "KiTS19", None, 0.70, None, None, None,
     "15 cases; approximate"),
], columns=["system", "challenge", "tk_dice", "tumor_dice", "composite", "kits23_dice",
            "kits23_surface_dice", "note"])  # fmt: skip


def beside_published(ours: Mapping[str, object]) -> pd.DataFrame:
    """Return our scores, named as in PUBLISHED, above the published ones."""
    return pd.DataFrame([ours, *PUBLISHED.to_dict("records")])


def false_claim_probability(difference: float, n: int, sd: float) -> float:
    """Return how probable it is that a gain of this size, measured on n cases, is none at all.

    difference: the mean over the cases; sd: the standard deviation of their paired differences.
    With a flat prior the true gain has Student's t distribution, n - 1 degrees of freedom, about
    the measured one. Source: Christodoulou et al. 2025, arXiv 2505.04720.
    """
    return float(stats.t.sf(difference * np.sqrt(n) / sd, n - 1))


def smallest_credible(n: int, sd: float, probability: float = 0.05) -> float:
    """Return the gain on n cases that is false with this probability."""
    return float(stats.t.isf(probability, n - 1) * sd / np.sqrt(n))


def paper_evidence() -> pd.DataFrame:
    """Return what the paper's own 15 cases tell, a row per standard deviation of the differences.

    Columns: `sd` (Dice), `p_false_13` (that the gain of claim 13, 0.45 to 0.70, is none) and
    `least` (the gain that the other claims, which have no number, need for 5 %).
    """
    rows = []
    for sd in PAPER_SDS:
        false = false_claim_probability(PAPER_GAIN, PAPER_CASES, sd)
        rows.append({"sd": sd, "p_false_13": false, "least": smallest_credible(PAPER_CASES, sd)})
    return pd.DataFrame(rows)
