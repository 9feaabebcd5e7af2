"""Published scores to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishedScore:
    """Mean Dice that somebody published; None where not given. `mean_surface` is KiTS23's surface Dice."""

    system: str
    kidney: float | None = None
    tumor: float | None = None
    mean: float | None = None
    mean_surface: float | None = None
    note: str = ""


PUBLISHED: tuple[PublishedScore, ...] = (
    PublishedScore(
        system="KiTS19 winner (residual 3D U-Net, nnU-Net)",
        kidney=0.974,
        tumor=0.851,
        mean=0.912,
        note="90 test cases",
    ),
    PublishedScore(
        system="two annotators", kidney=0.983, tumor=0.923, mean=0.953, note="one against the other"
    ),
    PublishedScore(
        system="MLPerf inference 3D U-Net reference", kidney=0.935, tumor=0.789, mean=0.862
    ),
    PublishedScore(
        system="KiTS23 winner (Auto3DSeg)",
        mean=0.835,
        mean_surface=0.723,
        note="mean over KiTS23's three classes",
    ),
    PublishedScore(
        system="MIScnn, KiTS19 entry", kidney=0.93, tumor=0.30, note="20 cases; kidney approximate"
    ),
    PublishedScore(system="this paper, before oversampling", tumor=0.45, note="15 cases"),
    PublishedScore(
        system="this paper, after oversampling", tumor=0.70, note="15 cases; approximate"
    ),
)
