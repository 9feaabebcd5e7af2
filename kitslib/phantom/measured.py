"""One case by numbers: what is compared between cohorts, and the HU under its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kitslib.data import CaseFiles, LabelVersion, load_case
from kitslib.phantom.fidelity import TISSUES, complex_cysts, find_tissues, label_geometry


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredCase:
    """What `measure_case` finds.

    row: case, slices, spacing_z and spacing_xy (mm), kidney_ml (label 1), kidney_and_masses_ml,
    tumor_ml, cyst_ml, cysts_known, kidney_slices (the share of slices with kidney or mass).
    geometry: as `label_geometry` gives it, cyst_ml NaN where cysts are not known.
    medians: HU per tissue as `Tissues.medians`; hu: HU of all voxels of kidney, tumor, cyst, fat
    and, in a synthetic case, complex cyst. Without CT or labelled voxels NaN and empty.
    """

    row: dict[str, Any]
    geometry: dict[str, float]
    medians: dict[str, float]
    hu: dict[str, np.ndarray]

    def sample(self, count: int = 2000) -> dict[str, np.ndarray]:
        """HU of at most `count` voxels of each kind, always the same ones."""
        rng = np.random.default_rng(0)
        few = {name: min(len(values), count) for name, values in self.hu.items()}
        return {name: rng.choice(self.hu[name], n, replace=False) for name, n in few.items()}


def measure_case(
    item: CaseFiles, *, labels: LabelVersion, drawn: Mapping[str, Any] | None = None
) -> MeasuredCase:
    """Load a case and measure its labels and, where it has CT, its tissues.

    drawn: the parameters that a synthetic cohort was written with (seed, matrix, spacing_z, cysts).
    """
    case = load_case(item, labels)
    truth, voxel_ml = case.labels, float(np.prod(case.spacing)) / 1000
    counts = [np.count_nonzero(truth == value) for value in range(4)]
    row = {
        "case": case.case_id, "slices": len(truth),
        "spacing_z": case.spacing[0], "spacing_xy": case.spacing[1],
        "kidney_ml": voxel_ml * counts[1], "kidney_and_masses_ml": voxel_ml * sum(counts[1:]),
        "tumor_ml": voxel_ml * counts[2], "cyst_ml": voxel_ml * counts[3],
        "cysts_known": item.segmentation_kits23 is not None,
        "kidney_slices": float((truth > 0).any(axis=(1, 2)).mean()),
    }  # fmt: skip
    geometry, hu = label_geometry(truth, case.spacing), {}
    medians = dict.fromkeys(TISSUES, float("nan"))
    if not row["cysts_known"]:
        geometry["cyst_ml"] = float("nan")
    if case.imaging is not None and truth.any():
        found = find_tissues(case.imaging, truth, case.spacing)
        medians = found.medians
        for value, name in enumerate(("kidney", "tumor", "cyst"), start=1):
            hu[name] = case.imaging[truth == value]
        hu["fat"] = found.hu["fat"]
        if drawn is not None:
            index = int(case.case_id[-5:])
            hu["complex cyst"] = case.imaging[complex_cysts(truth, index, **drawn)]
    return MeasuredCase(row=row, geometry=geometry, medians=medians, hu=hu)
