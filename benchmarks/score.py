"""Our scorer beside published ones on real label maps: the same numbers, and how quick?

Each pair is one patient's label map as KiTS19 and as KiTS23 published it. Surface Dice, at KiTS23's
tolerances, beside DeepMind's surface-distance and MONAI; HD95 beside both and MedPy. All are given
the same box around both masks, one voxel wider; times are of both scores of a mask.

Ours follows DeepMind's definition, as KiTS23 does: surface elements between eight voxels, weighed
by their area, each side's percentile by area, the larger one counts. MONAI counts the voxels of an
edge alike and measures between their centres; MedPy takes one percentile of both sides together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import (
    Cell,
    Report,
    Table,
    command,
    conditions,
    installed,
    judged,
    missing,
    now,
    parser,
    shared_option,
    timed,
)
from kitslib.data import find_cases, read_labels, require_same_grid
from kitslib.evaluation import KITS23_CLASSES, score_case, surface_distances

MASKS = {"kidney_and_masses": "kidney and masses", "tumor": "tumour"}
SURFACE, HD95 = "surface Dice", "HD95, mm"
SAME = 1e-6  # from the scorer whose definition ours follows
Spacing = tuple[float, float, float]
Scorer = Callable[[np.ndarray, np.ndarray, Spacing, float], dict[str, float]]


def ours(pred: np.ndarray, truth: np.ndarray, spacing: Spacing, mm: float) -> dict[str, float]:
    """Surface Dice at a tolerance of `mm`, and HD95, of two masks (D, H, W)."""
    found = surface_distances(pred, truth, spacing)
    return {SURFACE: found.dice(mm), HD95: found.hd95_mm()}


def deepmind(pred: np.ndarray, truth: np.ndarray, spacing: Spacing, mm: float) -> dict[str, float]:
    """DeepMind's surface-distance: areas of marching cubes, as in Nikolov et al. 1809.04430."""
    import surface_distance as peer

    found = peer.compute_surface_distances(truth, pred, spacing)
    surface = peer.compute_surface_dice_at_tolerance(found, mm)
    return {SURFACE: float(surface), HD95: float(peer.compute_robust_hausdorff(found, 95))}


def monai(pred: np.ndarray, truth: np.ndarray, spacing: Spacing, mm: float) -> dict[str, float]:
    """MONAI's defaults: every voxel of an edge counts alike."""
    return _monai(pred, truth, spacing, mm, False)


def monai_subvoxels(
    pred: np.ndarray, truth: np.ndarray, spacing: Spacing, mm: float
) -> dict[str, float]:
    """MONAI with `use_subvoxels`, which weighs areas as DeepMind does; HD95 has no such option."""
    return _monai(pred, truth, spacing, mm, True)


def medpy(pred: np.ndarray, truth: np.ndarray, spacing: Spacing, mm: float) -> dict[str, float]:
    """MedPy's hd95: the percentile of the distances of both directions together."""
    from medpy.metric import binary

    return {HD95: float(binary.hd95(pred, truth, voxelspacing=spacing))}


def _monai(
    pred: np.ndarray, truth: np.ndarray, spacing: Spacing, mm: float, subvoxels: bool
) -> dict[str, float]:
    import torch
    from monai import metrics

    masks = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (pred, truth)]
    how = {"include_background": True, "spacing": spacing}
    surface = metrics.compute_surface_dice(*masks, [mm], use_subvoxels=subvoxels, **how)
    found = {SURFACE: float(surface)}
    if not subvoxels:
        found[HD95] = float(metrics.compute_hausdorff_distance(*masks, percentile=95, **how))
    return found


PEERS: dict[str, tuple[str, Scorer]] = {  # by name the package, and how it is called
    "DeepMind surface-distance": ("surface_distance", deepmind),
    "MONAI": ("monai", monai),
    "MONAI, subvoxels": ("monai", monai_subvoxels),
    "MedPy": ("medpy", medpy),
}


def pairs(shared: Path, most: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, Spacing]]:
    """Yield case id, KiTS19's labels, KiTS23's, and spacing, of cases with a tumour in both."""
    older = {item.case_id: item for item in find_cases(shared / "kits19" / "data")}
    count = 0
    for item in find_cases(shared / "kits23" / "dataset"):
        if count == most:
            return
        if item.case_id not in older or item.segmentation is None:
            continue
        first, first_grid = read_labels(older[item.case_id].segmentation)
        second, grid = read_labels(item.segmentation)
        require_same_grid(item.case_id, first_grid, grid, ("KiTS19's labels", "KiTS23's"))
        if (first == 2).any() and (second == 2).any() and (first != second).any():
            count += 1
            yield item.case_id, first, second, grid.spacing


def boxed(pred: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks in the box around them and a voxel more, as arrays of their own."""
    where = np.nonzero(pred | truth)
    box = tuple(slice(at.min(), at.max() + 1) for at in where)
    return tuple(np.pad(mask[box], 1) for mask in (pred, truth))


def measure(
    scorers: dict[str, Scorer],
    cases: Iterator[tuple[str, np.ndarray, np.ndarray, Spacing]],
    clock: str,
) -> list[dict[str, Any]]:
    """One row a case, mask and scorer: its scores and seconds, and those of `score_case`."""
    rows = []
    for case_id, first, second, spacing in cases:
        seconds = timed(partial(score_case, first, second, spacing, case_id=case_id), clock)()
        for mask in MASKS:
            labels, mm = KITS23_CLASSES[mask]
            masks = boxed(np.isin(first, labels), np.isin(second, labels))
            for name, scorer in scorers.items():
                began = now(clock)
                found = scorer(*masks, spacing, mm)
                row = {"case": case_id, "mask": mask, "scorer": name, **found}
                rows.append(row | {"s": now(clock) - began, "whole case, s": seconds})
    return rows


def deviations(rows: list[dict[str, Any]]) -> list[dict[str, Cell]]:
    """One row a mask, score and peer: how far its values are from ours, and times."""
    found = []
    mine = {(row["case"], row["mask"]): row for row in rows if row["scorer"] == "ours"}
    for mask in MASKS:
        for name in dict.fromkeys(row["scorer"] for row in rows):
            some = [row for row in rows if (row["scorer"], row["mask"]) == (name, mask)]
            own = [mine[row["case"], mask] for row in some]
            row: dict[str, Cell] = {"mask": MASKS[mask], "scorer": name}
            for score in (SURFACE, HD95):
                if score in some[0]:
                    values = np.array([each[score] for each in some])
                    apart = values - [each[score] for each in own]
                    row[f"{score}, mean"] = float(values.mean())
                    row[f"{score}, mean difference"] = float(apart.mean())
                    row[f"{score}, largest"] = float(np.abs(apart).max())
            seconds = [sum(each["s"] for each in part) for part in (some, own)]
            row["s a case"] = seconds[0] / len(some)
            row["ours is quicker, times"] = seconds[0] / seconds[1]
            found.append(row)
    return found


def bounds(table: list[dict[str, Cell]]) -> list[str]:
    """Whether ours gives the numbers of the definition it follows, and is no slower than a peer."""
    followed = [row for row in table if row["scorer"] == "DeepMind surface-distance"]
    found = []
    for score in (SURFACE, HD95) if followed else ():
        apart = max(float(row[f"{score}, largest"]) for row in followed)
        what = f"{score}, largest difference from DeepMind's, whose definition ours follows"
        verdict = "met" if apart <= SAME else "missed"
        found.append(f"{what}: {apart:.1e}, at most {SAME:g} asked: {verdict}")
    for name in PEERS:
        times = [float(row["ours is quicker, times"]) for row in table if row["scorer"] == name]
        found.append(judged(f"quicker than {name}", min(times, default=None), 1.0))
    return found


def case_rows(rows: list[dict[str, Any]]) -> list[dict[str, Cell]]:
    """One row a case and mask with the value of every scorer."""
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    for row in rows:
        at = found.setdefault((row["case"], row["mask"]), {"case": row["case"]})
        at["mask"] = MASKS[row["mask"]]
        for score in (SURFACE, HD95):
            if score in row:
                at[f"{score}: {row['scorer']}"] = row[score]
    return list(found.values())


def main(arguments: Sequence[str]) -> int:
    """Score the pairs by all scorers, print deviations, times and every value."""
    reader = parser("score", __doc__, threads=1, repeats=1)
    shared_option(reader, "kits19/data and kits23/dataset, of the same patients")
    reader.add_argument("--cases", type=int, default=20, help="pairs of label maps (%(default)s)")
    options = reader.parse_args(arguments)
    there = {name: scorer for name, (package, scorer) in PEERS.items() if installed(package)}
    rows = measure({"ours": ours} | there, pairs(options.shared, options.cases), options.clock)
    if not rows:
        reader.error(f"--shared: no case of both releases with a tumour in {options.shared}")
    table = deviations(rows)
    lacking = [missing(name, "scorer") for name in PEERS if name not in there]
    note = "Differences are the scorer's value minus ours, over the cases; largest by size. Ours "
    note += "follows DeepMind's definition: surface elements weighed by area, each side's own "
    note += "percentile, the larger counts. MONAI counts the voxels of an edge alike, between "
    note += "their centres; MedPy takes one percentile of both sides together."
    every = "KiTS19's label map as the prediction, KiTS23's as the truth."
    whole = {row["case"]: row["whole case, s"] for row in rows}
    facts = conditions(
        options.threads, options.repeats, "monai", "medpy", "surface_distance", clock=options.clock
    )
    facts["repeats"] = "each pair once"
    facts["score_case, all scores of a case"] = f"{np.mean(list(whole.values())):.2f} s on average"
    Report(
        name="score",
        question="Do published scorers give the same numbers on the same masks, and how quick?",
        command=command("score", arguments),
        conditions=facts,
        tables=[
            Table(title=f"{len(whole)} pairs", note=note, rows=[*table, *lacking]),
            Table(title="Every value", note=every, rows=case_rows(rows)),
        ],
        bounds=bounds(table),
    ).publish(options.out)
    return 0
