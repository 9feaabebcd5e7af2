"""Training samples as a network sees them, and masks beside their labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from kitslib.reporting.figures.panels import CaseView, case_grid, three_planes
from kitslib.reporting.figures.style import show


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


def sample_grid(
    samples: Iterable[tuple[str, np.ndarray, np.ndarray, Sequence[float]]], *, columns: int
) -> Figure:
    """Draw the middle slice of each sample: title, HU and labels (…, H, W), spacing (z, y, x)."""
    return case_grid([sample_view(*sample) for sample in samples], columns=columns)


def show_mask(
    imaging: np.ndarray, labels: np.ndarray, found: np.ndarray, spacing: Sequence[float], title: str
) -> None:
    """Show a mask and its label (every value above 0), all (D, H, W), in three planes."""
    truth = (labels > 0).astype(np.uint8)
    show(
        three_planes(imaging, truth, found, spacing=spacing, title=title),
        f"{title}. Label tinted, prediction outlined.",
        f"Axial, coronal and sagittal CT slices with label and prediction; {title}.",
    )
