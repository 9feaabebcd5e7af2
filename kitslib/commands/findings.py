"""What was found in a scan: volumes and diameters as a row of a table, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from kitslib.config import replacing
from kitslib.evaluation import largest_components, volumes_ml
from kitslib.transforms import bounding_box

COLUMNS = (
    "case", "kidney_and_masses_ml", "kidney_and_masses_diameter_mm", "tumor_ml", "tumor_diameter_mm", "tumor_axial_diameter_mm", "seconds",
)  # fmt: skip
Row = dict[str, str | float]


def measure(labels: np.ndarray, spacing: Sequence[float]) -> Row:
    """Return volumes in ml and diameters in mm of a label map uint8 (D, H, W) with spacing (z, y, x) in mm.

    `kidney_and_masses_ml` has both kidneys with what grows in them; `kidney_and_masses_diameter_mm` is the longest
    one through the larger kidney, `tumor_diameter_mm` that through the tumour, `tumor_axial_diameter_mm` the longest
    within one slice.
    """
    if labels.any():
        labels = labels[bounding_box(labels)]
    volumes, tumor = volumes_ml(labels, spacing), labels == 2
    row = {
        "kidney_and_masses_ml": volumes["kidney_and_masses"],
        "kidney_and_masses_diameter_mm": longest_diameter_mm(
            largest_components(labels > 0, 1), spacing
        ),
        "tumor_ml": volumes["tumor"],
        "tumor_diameter_mm": longest_diameter_mm(tumor, spacing),
        "tumor_axial_diameter_mm": max(
            (longest_diameter_mm(plane, spacing[1:]) for plane in tumor if plane.any()), default=0.0
        ),
    }
    return {name: round(float(value), 2) for name, value in row.items()}


def longest_diameter_mm(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the longest distance (mm) within a mask of any number of axes, between its voxels' faces; 0 if empty.

    The faces' centres are where a surface through the voxels' borders has its vertices.
    """
    if not mask.any():
        return 0.0
    lines = mask.any(axis=-1)
    ends = mask[lines].argmax(axis=-1), mask.shape[-1] - 1 - mask[lines][:, ::-1].argmax(axis=-1)
    line = np.argwhere(lines)
    voxels = np.concatenate(
        [np.column_stack([line, end]) for end in ends]
    )  # a line's inner voxels are no corners
    half = np.eye(mask.ndim) / 2
    faces = np.concatenate(
        [voxels + sign * step for step in half for sign in (-1, 1)]
    ) * np.asarray(spacing)
    return float(pdist(faces[ConvexHull(faces).vertices]).max())


def add_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows into a CSV file; a case that is there already is replaced, the others stay."""
    kept: dict[str, Row] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            kept = {row["case"]: row for row in csv.DictReader(file)}
    kept |= {str(row["case"]): row for row in rows}
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept[name] for name in sorted(kept))


def write_preview(
    path: Path,
    name: str,
    imaging: np.ndarray,
    labels: np.ndarray,
    spacing: Sequence[float],
    row: Row,
):
    """Write a JPEG of three planes through the tumour, or the kidney, at true aspect, with the findings as its title.

    imaging: HU (D, H, W); labels: 0 to 2 of the same shape; spacing (z, y, x) in mm; row: from `measure`.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from kitslib.reporting import three_planes, use_style

    use_style()
    kidneys = row["kidney_and_masses_ml"]
    words = [f"kidneys {kidneys:.0f} ml (blue)" if kidneys else "no kidney found"]
    if row["tumor_ml"]:
        words.append(
            f"tumour {row['tumor_ml']:.1f} ml, {row['tumor_diameter_mm']:.0f} mm across (orange)"
        )
    elif kidneys:
        words.append("no tumour found")
    fig = three_planes(imaging, labels, spacing=spacing, title=f"{name}: {', '.join(words)}")
    try:
        with replacing(path) as part:
            fig.savefig(
                part, format="jpg", dpi=130, bbox_inches="tight", pil_kwargs={"quality": 88}
            )
    finally:
        plt.close(fig)
