"""Training samples as a network sees them, one slice of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kitslib.reporting.figures.panels import CaseView


def center(stack: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Return the slice (H, W) of a sample (…, H, W) at `share` of its depth, the middle one."""
    slices = np.asarray(stack).reshape(-1, *np.shape(stack)[-2:])
    return slices[int(len(slices) * share)]


def sample_view(
    title: str, hu: np.ndarray, labels: np.ndarray, spacing: Sequence[float], share: float = 0.5
) -> CaseView:
    """Return one slice of a sample, HU and labels (…, H, W), as a panel; spacing (z, y, x) mm."""
    truth = center(labels, share).astype(np.uint8)
    return CaseView(
        title=title, image=center(hu, share), truth=truth, prediction=None, spacing=spacing[1:]
    )
