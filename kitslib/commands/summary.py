"""A page for one scan: its preview, volumes, diameters, and where in which kidney the tumour is."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cc3d
import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from scipy.ndimage import distance_transform_edt

from kitslib.config import write_text
from kitslib.evaluation import decision_words
from kitslib.transforms import bounding_box

TEMPLATE = Path(__file__).with_name("summary.html.j2")
BODY_HU = -200  # the body, without air
LEAST_KIDNEY_ML, LEAST_SINUS_ML = 5.0, 0.3  # of less nothing is said
THIRDS = ("upper", "middle", "lower")


def tumor_position(
    labels: np.ndarray, imaging: np.ndarray, spacing: Sequence[float]
) -> dict[str, Any]:
    """Return where the tumour is: `side`, `pole`, `along_kidney` and `sinus_mm`; {} without one.

    labels: uint8 (D, H, W), 0 to 2, cranial slice first, columns to the patient's left; imaging:
    HU, same shape; spacing (z, y, x) mm. It is the mass that holds most of the tumour.
    side: "left" or "right" of the middle of the body in its slices. along_kidney: its centre from
    the kidney's upper end, 0, to the lower, 1; pole: "upper", "middle" or "lower" third.
    sinus_mm: from the tumour to the renal sinus, taken to be the hollow of the kidney towards the
    middle of the body, as no label says where it is. None: not to be told from these labels.
    """
    if not (labels == 2).any():
        return {}
    parts = cc3d.connected_components(labels > 0)
    mass = parts == np.bincount(parts[labels == 2]).argmax()
    box = bounding_box(mass)
    place = np.argwhere(mass & (labels == 2)).mean(axis=0)
    middle = _middle_of_body(imaging[box[0]], box)
    side = "left" if place[2] > middle else "right"
    found: dict[str, Any] = {"side": side, "pole": None, "along_kidney": None, "sinus_mm": None}
    own = np.where(mass[box], labels[box], 0)
    kidney, voxel_ml = own == 1, float(np.prod(spacing)) / 1000
    if voxel_ml * np.count_nonzero(kidney) < LEAST_KIDNEY_ML:
        return found
    slices = np.flatnonzero(kidney.any(axis=(1, 2)))
    along = (place[0] - box[0].start - slices[0]) / max(slices[-1] - slices[0], 1)
    found["along_kidney"] = round(float(along), 2)
    found["pole"] = THIRDS[int(np.clip(along * 3, 0, 2))]
    sinus = hollow(kidney, to_left=side == "right") & (own == 0)
    if voxel_ml * np.count_nonzero(sinus) >= LEAST_SINUS_ML:
        away = distance_transform_edt(~sinus, sampling=spacing)
        found["sinus_mm"] = round(float(away[own == 2].min()), 1)
    return found


def _middle_of_body(slab: np.ndarray, box: tuple[slice, ...]) -> float:
    """The column that halves the body in the slices of a mass; of the image, where all is air."""
    columns = np.cumsum((slab > BODY_HU).sum(axis=(0, 1), dtype=np.int64))
    if not columns[-1]:
        return (slab.shape[2] - 1) / 2
    return float(np.searchsorted(columns, columns[-1] / 2))


def hollow(kidney: np.ndarray, *, to_left: bool) -> np.ndarray:
    """Return what a kidney's outline encloses and the kidney does not fill, boolean (D, H, W).

    Of each slice of its middle half: the convex outline's part beyond the kidney's centre,
    towards higher columns (`to_left`) or lower ones.
    """
    found = np.zeros(kidney.shape, bool)
    slices = np.flatnonzero(kidney.any(axis=(1, 2)))
    quarter = len(slices) // 4
    for z in slices[quarter : len(slices) - quarter]:
        rows, columns = np.nonzero(kidney[z])
        points = np.column_stack([columns, rows]).astype(np.int32)
        outline = np.zeros(kidney.shape[1:], np.uint8)
        cv2.fillConvexPoly(outline, cv2.convexHull(points), 1)
        beyond = np.arange(kidney.shape[2]) > columns.mean()
        found[z] = (outline > 0) & ~kidney[z] & (beyond if to_left else ~beyond)
    return found


def write_summary(path: Path, record: Mapping[str, Any], preview: Path) -> None:
    """Write a scan's page, which needs no other file; record: as beside its label map."""
    picture = base64.b64encode(preview.read_bytes()).decode("ascii")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = page.from_string(TEMPLATE.read_text(encoding="utf-8"))
    row, position = record["measurements"], record["tumor_position"]
    decision = record["models"]["tumor"].get("decision")
    sizes = " × ".join(f"{size:.2f}" for size in record["spacing_mm"])
    write_text(path, template.render(
        record=record, row=row, position=position, picture=picture, sizes=sizes,
        shape=" × ".join(map(str, record["shape"])), decision=decision,
        decision_words=decision_words, scan=record["scan"],
    ))  # fmt: skip
