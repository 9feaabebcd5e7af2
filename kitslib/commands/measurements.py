"""What a label map shows: volumes and diameters as a row of a table, and a preview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from kitslib.config import replacing, write_text
from kitslib.data import CaseError
from kitslib.evaluation import largest_components
from kitslib.reporting import three_planes, use_style
from kitslib.transforms import bounding_box


def measure(labels: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """Return volumes (ml) and diameters (mm) of a label map uint8 (D, H, W), spacing (z, y, x) mm.

    The diameter of kidney and masses is that of the larger side. A diameter is the longest
    distance within; the axial one lies within a slice.
    """
    labels = labels[bounding_box(labels)] if labels.any() else labels
    larger, tumor = largest_components(labels > 0, 1), labels == 2
    voxel_ml = float(np.prod(spacing)) / 1000
    row = {
        "kidney_and_masses_ml": voxel_ml * np.count_nonzero(labels),
        "kidney_and_masses_diameter_mm": longest_diameter_mm(larger, spacing),
        "tumor_ml": voxel_ml * np.count_nonzero(tumor),
        "tumor_diameter_mm": longest_diameter_mm(tumor, spacing),
        "tumor_axial_diameter_mm": max(longest_diameter_mm(s, spacing[1:]) for s in tumor),
    }
    return {name: round(float(value), 2) for name, value in row.items()}


def longest_diameter_mm(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the longest distance (mm) between voxel faces of a mask of any dimension; 0 if empty.

    The faces' centres are where a surface through the voxels' borders has its vertices.
    """
    if not mask.any():
        return 0.0
    places, lines = np.argwhere(mask.any(axis=-1)), mask[mask.any(axis=-1)]
    first = lines.argmax(axis=-1)  # along the last axis only the ends can be corners
    last = mask.shape[-1] - 1 - lines[:, ::-1].argmax(axis=-1)
    ends = np.concatenate([np.column_stack([places, first]), np.column_stack([places, last])])
    steps = np.concatenate([np.eye(mask.ndim), -np.eye(mask.ndim)]) / 2
    faces = (ends[:, None] + steps).reshape(-1, mask.ndim) * np.asarray(spacing)
    return float(pdist(faces[ConvexHull(faces).vertices]).max())


def add_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write a row into a CSV file, sorted by case; the case's older row is replaced.

    Raises CaseError where the file is another kind of table.
    """
    table = pd.concat([read_rows(path), pd.DataFrame([row])])
    table = table.drop_duplicates("case", keep="last").sort_values("case")
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def read_rows(path: Path) -> pd.DataFrame:
    """Return the rows of a CSV file of cases as text, none where there is no file.

    Raises CaseError for a file that is something else.
    """
    if not path.exists():
        return pd.DataFrame()
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        text = f"{path} cannot be read as a table ({type(error).__name__})"
        raise CaseError(f"{text}; move it away, or name another place with -o") from None
    if not {"case", "tumor_ml"} <= set(table.columns):
        text = f"{path} lacks columns of a table of `predict`"
        raise CaseError(f"{text}; move it away, or name another place with -o")
    return table


def write_preview(
    path: Path, name: str, imaging: np.ndarray, labels: np.ndarray, spacing: Sequence[float],
    row: Mapping[str, float],
) -> None:  # fmt: skip
    """Write a JPEG of three planes at true aspect, titled with the measurements.

    imaging: HU (D, H, W); labels: 0 to 2, same shape; spacing (z, y, x) mm; row: from `measure`.
    """
    plt.switch_backend("agg")
    use_style()
    words, tumor = "no kidney found", "no tumour found"
    if row["tumor_ml"]:
        tumor = f"tumour (orange) {row['tumor_ml']:.1f} ml, {row['tumor_diameter_mm']:.0f} mm"
    if row["kidney_and_masses_ml"]:
        words = f"kidneys (blue) and masses {row['kidney_and_masses_ml']:.0f} ml, {tumor}"
    title = f"{name}: {words}".replace("$", r"\$")  # else it would begin a formula
    figure = three_planes(imaging, labels, spacing=spacing, title=title)
    plt.close(figure)  # pyplot forgets it; it can still be written
    picture = BytesIO()  # Pillow does not see it where a full disk takes a part of what it writes
    figure.savefig(picture, format="jpg", dpi=130, bbox_inches="tight", pil_kwargs={"quality": 88})
    with replacing(path) as part:
        part.write_bytes(picture.getbuffer())
