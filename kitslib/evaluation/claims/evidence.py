"""What the ledger judges by, as the notebooks measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kitslib.config import ARM_GROUPS
from kitslib.networks import hole_free_reach

LEAST_CYST_ML = 0.5  # what counts as a cyst
Rows = Sequence[Mapping[str, Any]]
Arms = Mapping[str, pd.DataFrame]  # an arm's scores, (seeds, cases) with case ids as columns


def arm_scores(seeds: Sequence[Rows], column: str) -> pd.DataFrame:
    """Return one column of recorded rows as a table (seeds, cases), case ids as its columns.

    seeds: a list of rows for each seed. None is left out; a case that only some seeds have is NaN.
    """
    scores = []
    for rows in seeds:
        scores.append({row["case"]: row[column] for row in rows if row[column] is not None})
    return pd.DataFrame(scores, dtype=float).sort_index(axis=1)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the ledger judges by; what was not measured stays empty.

    Dice and shares are in [0, 1], volumes in ml; sequences have a value per case. Arms of
    `tumor_dice` and `cyst_fp_ml`: those of STEPS, `unet`, `deeplab`, `vnet_3d`; of `kidney_dice`:
    `standard`, `no_residual`, `no_deep_supervision`, `mirror_none`; of `hdc_level_dice`: `bottom`
    and the other levels; of `hdc_coverage`: `hdc`, `plain_dilation`.
    """

    synthetic: bool  # whether the networks and HU are of our own phantoms
    cysts: Sequence[float] = ()  # of patients: above 0 where the case has a cyst
    empty_slices: Sequence[float] = ()  # of patients: share of a case's slices without kidney
    kidney_cyst_overlap: Sequence[float] = ()  # share of HU histogram area in common
    cyst_tumor_overlap: Sequence[float] = ()
    literal_window_loss: Sequence[float] = ()  # share of a kidney that it never outputs
    kidney_dice: Arms = field(default_factory=dict)
    tumor_dice: Arms = field(default_factory=dict)
    cyst_fp_ml: Arms = field(default_factory=dict)  # NaN in cases without known cysts
    tumor_ml: Mapping[str, float] = field(default_factory=dict)  # true tumour volume by case
    hdc_level_dice: Arms = field(default_factory=dict)
    hdc_coverage: Mapping[str, bool] = field(default_factory=dict)  # all voxels about the centre
    component_dice: Arms = field(default_factory=dict)  # final: all components, largest component


def assemble(
    *, synthetic: bool, data: Mapping[str, Any], kidney: Mapping[str, Rows],
    tumor: Mapping[str, Sequence[Rows]], cascade: Rows, patients: Mapping[str, np.ndarray],
) -> Evidence:  # fmt: skip
    """Bring together what the notebooks recorded.

    data: the record of 01 (`rows`, `ceilings`); kidney: rows of each kidney arm; tumor: rows of
    each seed of each tumour arm; cascade: rows of `score_cascade`; patients: KiTS's public label
    maps as measured, `cyst_ml` and `kidney_slices`, one value a case. They stand for a synthetic
    cohort in what is said of patients, which phantoms cannot tell.
    """
    cases, limits = pd.DataFrame(data["rows"]), pd.DataFrame(data["ceilings"])
    if synthetic:
        about = pd.DataFrame({name: patients[name] for name in ("cyst_ml", "kidney_slices")})
    else:
        about = cases.copy()
        about.loc[~cases["cysts_known"].astype(bool), "cyst_ml"] = np.nan
    about["cyst"] = (about["cyst_ml"] >= LEAST_CYST_ML).where(about["cyst_ml"].notna())
    about["empty_slices"] = 1 - about["kidney_slices"]
    tumor_dice = {name: arm_scores(seeds, "dice") for name, seeds in tumor.items()}
    names = {name: name for name in ARM_GROUPS["levels"]} | {"hdc": "bottom"}
    levels = {names[arm]: tumor_dice[arm] for arm in names if arm in tumor_dice}
    components = {"all components": "all components", "largest component": "tumor_dice"}
    dilations = {"hdc": (2, 3, 5), "plain_dilation": (2, 2, 2)}
    return Evidence(
        synthetic=synthetic,
        cysts=_known(about, "cyst"),
        empty_slices=_known(about, "empty_slices"),
        kidney_cyst_overlap=_known(cases, "kidney_cyst_overlap"),
        cyst_tumor_overlap=_known(cases, "cyst_tumor_overlap"),
        literal_window_loss=_known(limits, "literal_window_loss"),
        kidney_dice={name: arm_scores([rows], "dice") for name, rows in kidney.items()},
        tumor_dice=tumor_dice,
        cyst_fp_ml={name: arm_scores(seeds, "cyst_fp_ml") for name, seeds in tumor.items()},
        tumor_ml={row["case"]: row["tumor_ml"] for row in next(iter(tumor.values()))[0]},
        hdc_level_dice=levels,
        hdc_coverage={name: hole_free_reach(rates) > 0 for name, rates in dilations.items()},
        component_dice={arm: arm_scores([cascade], name) for arm, name in components.items()},
    )


def _known(table: pd.DataFrame, column: str) -> list[float]:
    """The finite values of a column that the table may lack."""
    values = table.get(column, pd.Series()).astype(float)
    return values[np.isfinite(values)].to_list()
