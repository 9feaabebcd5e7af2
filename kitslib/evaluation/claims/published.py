"""Published scores to stand beside ours."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

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
