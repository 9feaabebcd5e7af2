"""What the ledger judges by, as the notebooks measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kitslib.config import ARM_GROUPS
from kitslib.networks import hole_free_reach

NAN = float("nan")
LEAST_CYST_ML = 0.5  # what counts as a cyst
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class CaseValues:
    """One number per case id; `synthetic` says whether the cases are our own phantoms."""

    values: Mapping[str, float]
    synthetic: bool

    @classmethod
    def of(cls, table: pd.DataFrame, column: str, synthetic: bool) -> CaseValues | None:
        """Take a column by `case`, without the cases that lack it; None where all do."""
        if column not in table:
            return None
        values = table.set_index("case")[column].astype(float)
        values = values[np.isfinite(values)].to_dict()
        return cls(values=values, synthetic=synthetic) if values else None


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """Scores of an arm: `values` is (seeds, cases) in the order of `cases`; NaN: undefined."""

    cases: tuple[str, ...]
    values: np.ndarray

    def __post_init__(self) -> None:
        if np.ndim(self.values) != 2 or np.shape(self.values)[1] != len(self.cases):
            raise ValueError(
                f"ArmScores.values must be (seeds, cases) with {len(self.cases)} cases as named, "
                f"got the shape {np.shape(self.values)}"
            )

    @classmethod
    def from_seeds(cls, seeds: Sequence[Mapping[str, float]]) -> ArmScores:
        """Bring one mapping from case id to score per seed together; a case a seed lacks is NaN."""
        table = pd.DataFrame(seeds, dtype=float).sort_index(axis=1)
        return cls(cases=tuple(table.columns), values=table.to_numpy())

    @classmethod
    def from_rows(cls, seeds: Sequence[Rows], column: str) -> ArmScores:
        """Take one column of recorded rows, one list of rows per seed; None is left out."""
        scores = []
        for rows in seeds:
            scores.append({r["case"]: r[column] for r in rows if r[column] is not None})
        return cls.from_seeds(scores)

    def by_case(self) -> dict[str, np.ndarray]:
        """Return the scores of all seeds, (seeds,), by case id."""
        return dict(zip(self.cases, self.values.T, strict=True))

    def only(self, cases: set[str]) -> ArmScores:
        """Return the scores of these cases alone."""
        kept = [case in cases for case in self.cases]
        return ArmScores(
            cases=tuple(np.array(self.cases, object)[kept]), values=self.values[:, kept]
        )


Arms = Mapping[str, ArmScores]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the ledger judges by; what was not measured stays None or empty.

    Dice is in [0, 1], volumes are in ml. Arms of `tumor_dice` and `cyst_fp_ml`: those of STEPS,
    `unet`, `deeplab`, `vnet_3d`; of `kidney_dice`: `standard`, `no_residual`,
    `no_deep_supervision`, `mirror_none`; of `hdc_level_dice`: `bottom` and the other levels; of
    `hdc_coverage`: `hdc`, `plain_dilation`.
    """

    synthetic: bool  # whether the networks were scored on our own phantoms
    cysts: CaseValues | None = None  # above 0 where the case has a cyst
    kidney_cyst_overlap: CaseValues | None = None  # share of HU histogram area in common, 0..1
    cyst_tumor_overlap: CaseValues | None = None
    empty_slices: CaseValues | None = None  # share of a case's slices without kidney
    literal_window_loss: CaseValues | None = None  # share of a kidney that it never outputs
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
        about["case"] = [f"case_{number:05}" for number in about.index]
    else:
        about = cases.copy()
        about.loc[~cases["cysts_known"].astype(bool), "cyst_ml"] = NAN
    about["cyst"] = (about["cyst_ml"] >= LEAST_CYST_ML).where(about["cyst_ml"].notna())
    about["empty_slices"] = 1 - about["kidney_slices"]
    tumor_dice = {name: ArmScores.from_rows(seeds, "dice") for name, seeds in tumor.items()}
    levels = {name: tumor_dice[name] for name in ARM_GROUPS["levels"] if name in tumor_dice}
    if "hdc" in levels:
        levels["bottom"] = levels.pop("hdc")
    first_seed = next(iter(tumor.values()))[0]
    return Evidence(
        synthetic=synthetic,
        cysts=CaseValues.of(about, "cyst", synthetic=False),
        kidney_cyst_overlap=CaseValues.of(cases, "kidney_cyst_overlap", synthetic),
        cyst_tumor_overlap=CaseValues.of(cases, "cyst_tumor_overlap", synthetic),
        empty_slices=CaseValues.of(about, "empty_slices", synthetic=False),
        literal_window_loss=CaseValues.of(limits, "literal_window_loss", synthetic),
        kidney_dice={name: ArmScores.from_rows([rows], "dice") for name, rows in kidney.items()},
        tumor_dice=tumor_dice,
        cyst_fp_ml={name: ArmScores.from_rows(rows, "cyst_fp_ml") for name, rows in tumor.items()},
        tumor_ml={row["case"]: row["tumor_ml"] for row in first_seed},
        hdc_level_dice=levels,
        hdc_coverage={
            "hdc": hole_free_reach((2, 3, 5)) > 0,
            "plain_dilation": hole_free_reach((2, 2, 2)) > 0,
        },
        component_dice={
            "all components": ArmScores.from_rows([cascade], "all components"),
            "largest component": ArmScores.from_rows([cascade], "tumor_dice"),
        },
    )
