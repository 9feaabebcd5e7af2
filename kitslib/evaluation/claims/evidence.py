"""What the ledger judges by, as the notebooks measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

LEAST_CYST_ML = 0.5  # what counts as a cyst
PRIMARY = "dice_all_components"  # tumour Dice before the component step: what arms are judged by
COLUMNS = (PRIMARY, "dice", "surface_dice", "hit", "cyst_fp_ml", "cyst_fp_all_ml")  # of tumour rows
Rows = Sequence[Mapping[str, Any]]
Seeds = Mapping[int, Rows]  # the rows of each seed
Arms = Mapping[str, pd.DataFrame]  # an arm's scores, (seeds, cases), case ids as columns


def arm_scores(seeds: Seeds, column: str) -> pd.DataFrame:
    """Return one column of recorded rows as a table (seeds, cases), case ids as its columns.

    None is left out; a case that only some seeds have is NaN there. A column that the rows lack
    gives a table without cases.
    """
    scores = []
    for rows in seeds.values():
        scores.append({row["case"]: row[column] for row in rows if row.get(column) is not None})
    return pd.DataFrame(scores, index=list(seeds), dtype=float).sort_index(axis=1)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the ledger judges by; what was not measured stays empty.

    Dice and shares are in [0, 1], volumes in ml; sequences have a value per case.
    """

    synthetic: bool  # whether the networks and HU are of our own phantoms
    cyst_ml: Sequence[float] = ()  # of patients: volume of a case's cysts
    empty_slices: Sequence[float] = ()  # of patients: share of a case's slices without kidney
    kidney_cyst_overlap: Sequence[float] = ()  # share of HU histogram area in common
    cyst_tumor_overlap: Sequence[float] = ()
    kidney_dice: Arms = field(default_factory=dict)
    tumor: Mapping[str, Arms] = field(default_factory=dict)  # by column of COLUMNS
    tumor_ml: Mapping[str, float] = field(default_factory=dict)  # true tumour volume by case
    # of `hdc` and `plain_dilation`, a value a seed: how uneven the gradient of the output at the
    # centre is over even and odd offsets of the input
    gridding: Mapping[str, Sequence[float]] = field(default_factory=dict)
    by_median: bool = False  # the median over cases in place of the mean, for `stability`

    @property
    def arms(self) -> Arms:
        """The tumour arms in what they are judged by."""
        return self.tumor.get(PRIMARY, {})


def assemble(
    *, synthetic: bool, data: Mapping[str, Any], kidney: Mapping[str, Seeds],
    tumor: Mapping[str, Seeds], patients: Mapping[str, np.ndarray],
    gridding: Mapping[str, Sequence[float]] | None = None,
) -> Evidence:  # fmt: skip
    """Bring together what the notebooks recorded.

    data: the record of 01 (`rows`); kidney, tumor: the rows of each arm and seed; patients: KiTS's
    public label maps as measured, `cyst_ml` and `kidney_slices`, one value a case. They stand for
    a synthetic cohort in what is said of patients, which phantoms cannot tell.
    """
    cases = about = pd.DataFrame(data["rows"])
    if synthetic:
        about = pd.DataFrame({name: patients[name] for name in ("cyst_ml", "kidney_slices")})
    known = about[about["cysts_known"].astype(bool)] if "cysts_known" in about else about
    columns, volumes = {}, {}
    for column in COLUMNS:
        columns[column] = {name: arm_scores(seeds, column) for name, seeds in tumor.items()}
    for seeds in tumor.values():
        for rows in seeds.values():
            volumes |= {row["case"]: row["tumor_ml"] for row in rows}
    return Evidence(
        synthetic=synthetic,
        cyst_ml=_known(known, "cyst_ml"),
        empty_slices=[1 - share for share in _known(about, "kidney_slices")],
        kidney_cyst_overlap=_known(cases, "kidney_cyst_overlap"),
        cyst_tumor_overlap=_known(cases, "cyst_tumor_overlap"),
        kidney_dice={name: arm_scores(seeds, "dice") for name, seeds in kidney.items()},
        tumor=columns,
        tumor_ml=volumes,
        gridding=gridding or {},
    )


def _known(table: pd.DataFrame, column: str) -> list[float]:
    """The finite values of a column that the table may lack."""
    values = table.get(column, pd.Series()).astype(float)
    return values[np.isfinite(values)].to_list()
