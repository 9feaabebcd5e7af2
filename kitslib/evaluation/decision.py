"""Patient level: whether what a tumour network marks is called a tumour, and how often rightly.

Without contrast agent a tumour has the kidney's own grey values: such scans have thresholds, and
rates, of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import cc3d
import numpy as np

SIZES_ML = (0.0, 4.0, 10.0, 30.0, 100.0, np.inf)  # of the table by size
ABOVE_ML = 10.0  # of the one sensitivity that stands beside that of all tumours
SPECIFIC = 0.9  # wanted of a threshold on the patients that choose it
LEAST_ML = tuple(np.geomspace(0.1, 100, 61).round(2).tolist())  # tried, of certain tumour
CONTRAST_HU = 60.0  # kidneys have some 30 without contrast agent, 80 and more with it
BRIGHT = 0.7  # quantile of the HU in a kidney mask; above half, for large tumours take up less
WITH, WITHOUT = "with_contrast", "without_contrast"


@dataclass(frozen=True)
class Decision:
    """A component counts as tumour from so many ml of certain tumour on: the sum of 2 p - 1."""

    least_ml: float

    def calls(self, ml: float, certain: float) -> bool:
        """Whether a component of this volume and mean probability is called a tumour."""
        return certain_ml(ml, certain) >= self.least_ml

    def applied(self, probability: np.ndarray, voxel_ml: float) -> np.ndarray:
        """The probability (D, H, W), 0 in components that are not called."""
        pieces, rows = components(probability, voxel_ml)
        kept = [True, *(self.calls(row["ml"], row["certain"]) for row in rows)]
        return np.where(np.array(kept)[pieces], probability, np.zeros((), probability.dtype))


class Decisions(dict[str, Decision]):
    """A decision for scans with contrast agent in the kidneys, and one for those without."""

    @classmethod
    def of(cls, setting: Mapping[str, Mapping[str, Any]]) -> Decisions:
        """Read them from a network's settings, which `choose_decisions` made."""
        return cls({scan: Decision(setting[scan]["least_ml"]) for scan in (WITH, WITHOUT)})


def certain_ml(ml: float, certain: float) -> float:
    """Return the ml of certain tumour in a component of this volume and mean probability."""
    return ml * (2 * certain - 1)


def contrast(imaging: np.ndarray, kidney: np.ndarray) -> str:
    """Return `WITH` or `WITHOUT` contrast agent in the kidneys, a mask that is not empty.

    imaging: HU (D, H, W) of a scan; kidney: of its shape, tumours included.
    """
    return WITH if np.quantile(imaging[kidney > 0], BRIGHT) >= CONTRAST_HU else WITHOUT


def components(
    probability: np.ndarray, voxel_ml: float
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """The pieces of a probability map (D, H, W) above 0.5: their numbers from 1, 0 elsewhere.

    A row for each: `ml` and `certain`, the mean probability of its voxels.
    """
    pieces, count = cc3d.connected_components(probability > 0.5, return_N=True)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    sums = np.bincount(pieces.ravel(), probability.ravel().astype(float), count + 1)[1:]
    pairs = zip((sizes * voxel_ml).tolist(), (sums / np.maximum(sizes, 1)).tolist(), strict=True)
    return pieces, [{"ml": ml, "certain": certain} for ml, certain in pairs]


def marked(probability: np.ndarray, tumor: np.ndarray, voxel_ml: float) -> list[dict[str, Any]]:
    """A patient's components on the stage's grid, each with whether it `hits` the true tumour.

    tumor: bool of the probability's shape.
    """
    pieces, rows = components(probability, voxel_ml)
    touched = set(np.unique(pieces[tumor]).tolist())
    return [row | {"hits": number in touched} for number, row in enumerate(rows, start=1)]


def outcome(patient: dict[str, Any], decision: Decision) -> tuple[bool, bool]:
    """Whether a tumour is called in a patient, and whether one that is called hits the true one."""
    called = [row for row in patient["found"] if decision.calls(row["ml"], row["certain"])]
    return bool(called), any(row["hits"] for row in called)


def rates(patients: Sequence[dict[str, Any]], decision: Decision) -> dict[str, Any]:
    """How often a decision is right: specificity, sensitivity, and that by size, with numbers.

    A tumour is found where a component that is called overlaps it. NaN-free: None without cases.
    """
    free = [outcome(p, decision)[0] for p in patients if p["tumor_ml"] == 0]
    sick = [(p["tumor_ml"], outcome(p, decision)[1]) for p in patients if p["tumor_ml"] > 0]
    rows = []
    for low, high in pairwise(SIZES_ML):
        some = [hit for ml, hit in sick if low < ml <= high]
        name = f"above {low:g} ml" if np.isinf(high) else f"{low:g} to {high:g} ml"
        rows.append({"tumor": name, "patients": len(some), "sensitivity": _share(some)})
    above = [hit for ml, hit in sick if ml > ABOVE_ML]
    return {
        "without_tumor": len(free), "specificity": _share([not called for called in free]),
        "with_tumor": len(sick), "sensitivity": _share([hit for _, hit in sick]),
        "sensitivity_above_10_ml": _share(above), "by_size": rows,
    }  # fmt: skip


def _share(right: Sequence[bool]) -> float | None:
    return round(sum(right) / len(right), 4) if right else None


def choose_decision(patients: Sequence[dict[str, Any]]) -> Decision:
    """The lowest threshold that is as specific as is wanted, else the highest that was tried.

    Raises ValueError without patients of both kinds.
    """
    kinds = {patient["tumor_ml"] > 0 for patient in patients}
    if kinds != {True, False}:
        raise ValueError("decision: expected patients with and without tumour, got one kind alone")
    for least_ml in LEAST_ML:
        if rates(patients, Decision(least_ml))["specificity"] >= SPECIFIC:
            return Decision(least_ml)
    return Decision(LEAST_ML[-1])


def choose_decisions(patients: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Thresholds and rates with and without contrast agent, as a network's settings have them.

    patients: each with `case`, `scan` (see `contrast`), `tumor_ml` (0: none) and `found` (see
    `marked`). Every second one by size chooses, the others test. Where one kind of scan lacks
    patients of both kinds, those of the other one choose too.
    """
    found, by_size = {}, sorted(patients, key=lambda p: (p["tumor_ml"], p["case"]))
    for scan in (WITH, WITHOUT):
        own = [patient for patient in by_size if patient["scan"] == scan]
        choose_on, test_on = own[::2], own[1::2]
        enough = len({patient["tumor_ml"] > 0 for patient in choose_on}) == 2
        decision = choose_decision(choose_on if enough else by_size[::2])
        about = {"chosen_on": rates(choose_on, decision), "tested_on": rates(test_on, decision)}
        found[scan] = asdict(decision) | about
    return found


def decision_words(decision: Mapping[str, Any], scan: str | None = None) -> str:
    """What `choose_decisions` gave, in words: thresholds, and how often they are right.

    scan: that kind alone.
    """
    kinds = {WITH: "With contrast agent in the kidneys", WITHOUT: "Without contrast agent"}
    return " ".join(_words(kinds[s], decision[s]) for s in kinds if scan in (None, s))


def _words(where: str, decision: Mapping[str, Any]) -> str:
    found = decision["tested_on"]
    text = (
        f"{where}, a component is called a tumour from {decision['least_ml']:g} ml of certain "
        f"tumour on: of {found['without_tumor']} patients without one "
        f"{_percent(found['specificity'])} were told so; of {found['with_tumor']} with one it was "
        f"found in {_percent(found['sensitivity'])}"
    )
    if found["sensitivity_above_10_ml"] is None:
        return f"{text}."
    return f"{text}, above 10 ml in {_percent(found['sensitivity_above_10_ml'])}."


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"
