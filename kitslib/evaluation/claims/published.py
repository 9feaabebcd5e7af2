"""Published scores to stand beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class PublishedScore:
    """Mean scores that somebody published, named as `score_case` names ours; None: not given.

    `tk_dice`, `tumor_dice` and `composite`, their mean, are KiTS19's; `kits23_dice` and
    `kits23_surface_dice` are KiTS23's means over its three nested classes.
    """

    system: str
    challenge: str
    tk_dice: float | None = None
    tumor_dice: float | None = None
    composite: float | None = None
    kits23_dice: float | None = None
    kits23_surface_dice: float | None = None
    note: str = ""


PUBLISHED: tuple[PublishedScore, ...] = (
    PublishedScore(
        system="winner (residual 3D U-Net, nnU-Net)", challenge="KiTS19", tk_dice=0.974,
        tumor_dice=0.851, composite=0.912, note="90 test cases",
    ),
    PublishedScore(
        system="two annotators", challenge="KiTS19", tk_dice=0.983, tumor_dice=0.923,
        composite=0.953, note="one against the other",
    ),
    PublishedScore(
        system="MLPerf inference 3D U-Net reference", challenge="KiTS19", tk_dice=0.935,
        tumor_dice=0.789, composite=0.862,
    ),
    PublishedScore(
        system="winner (Auto3DSeg)", challenge="KiTS23", kits23_dice=0.835,
        kits23_surface_dice=0.723, note="means over KiTS23's three classes",
    ),
    PublishedScore(
        system="MIScnn", challenge="KiTS19", tk_dice=0.93, tumor_dice=0.30,
        note="20 cases; kidney approximate",
    ),
    PublishedScore(
        system="this paper, before oversampling", challenge="KiTS19", tumor_dice=0.45,
        note="15 cases",
    ),
    PublishedScore(
        system="this paper, after oversampling", challenge="KiTS19", tumor_dice=0.70,
        note="15 cases; approximate",
    ),
)  # fmt: skip


def beside_published(ours: Mapping[str, object]) -> pd.DataFrame:
    """Return our scores, named as PublishedScore's fields, above the published ones."""
    return pd.DataFrame([ours, *map(asdict, PUBLISHED)])
