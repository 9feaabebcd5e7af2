"""What the ledger looks at, as the notebooks measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class CaseValues:
    """One number per case id; `synthetic` says whether the cases are our own phantoms."""

    values: Mapping[str, float]
    synthetic: bool


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """Scores of one arm: `values` is (seeds, cases) in the order of `cases`; NaN where undefined."""

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
        """Bring one mapping from case id to score per seed into one table; a case a seed lacks is NaN."""
        cases = tuple(sorted({case for scores in seeds for case in scores}))
        return cls(
            cases=cases,
            values=np.array([[s.get(c, NAN) for c in cases] for s in seeds], dtype=float),
        )

    @classmethod
    def from_rows(cls, seeds: Sequence[Sequence[Mapping[str, Any]]], column: str) -> ArmScores:
        """Take one column of the rows that a stage recorded, one list of rows per seed; None is left out."""
        return cls.from_seeds(
            [{r["case"]: r[column] for r in rows if r[column] is not None} for rows in seeds]
        )

    def by_case(self) -> dict[str, np.ndarray]:
        """Scores of all seeds, (seeds,), by case id."""
        return dict(zip(self.cases, np.asarray(self.values).T, strict=True))

    def only(self, cases: set[str]) -> ArmScores:
        """The scores of these cases alone."""
        kept = [i for i, case in enumerate(self.cases) if case in cases]
        return ArmScores(
            cases=tuple(self.cases[i] for i in kept), values=np.asarray(self.values)[:, kept]
        )


Arms = Mapping[str, ArmScores]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the ledger looks at; what was not measured stays None or empty and is named as missing.

    Dice is in [0, 1], volumes are in ml. Arms of `tumor_dice` and `cyst_fp_ml`: those of STEPS, `unet`,
    `deeplab`, `vnet_3d`; of `kidney_dice`: `standard`, `no_residual`, `no_deep_supervision`, `mirror_none`;
    of `hdc_level_dice`: `bottom` and the other levels; of `hdc_coverage`: `hdc`, `plain_dilation`.
    """

    synthetic: bool  # whether the networks were scored on our own phantoms
    cysts: CaseValues | None = None  # above 0 where the case has a cyst
    kidney_cyst_overlap: CaseValues | None = None  # share of HU histogram area in common, 0..1
    cyst_tumor_overlap: CaseValues | None = None
    kidney_slices: CaseValues | None = None  # share of a case's slices that hold kidney
    literal_window_loss: CaseValues | None = (
        None  # share of a kidney that the window as printed never outputs
    )
    kidney_dice: Arms = field(default_factory=dict)
    tumor_dice: Arms = field(default_factory=dict)
    cyst_fp_ml: Arms = field(default_factory=dict)  # NaN in cases without known cysts
    tumor_ml: Mapping[str, float] = field(default_factory=dict)  # true tumour volume by case
    hdc_level_dice: Arms = field(default_factory=dict)
    hdc_coverage: Mapping[str, bool] = field(
        default_factory=dict
    )  # whether every voxel about the centre is seen
    component_before: CaseValues | None = None  # final tumour Dice per case, all components kept
    component_after: CaseValues | None = None  # and with the largest alone
