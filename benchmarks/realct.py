"""What the networks of `predict` do on folders of real CT: Dice, calls, time, other fields of view.

Every scan is segmented by a process of its own, as a person would; then the same scan is given with
air around it, with air above and below, and cut in plane, and the kidneys' volume is compared.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import Report, Table, command, conditions, parser
from kitslib.commands.predict import Models
from kitslib.config import read_json
from kitslib.data import CaseFiles, find_cases, load_case, read_labels
from kitslib.evaluation import dice, segment
from kitslib.training import real_ct_folder, start

AIR_MM, AIR_SLICES, CUT_MM = 150.0, 10, 15.0
BOUNDS = (("seconds a scan", 10.0), ("peak memory, GB", 1.5), ("change of kidney volume, %", 3.0))


def predicted(item: CaseFiles, out: Path, models: Path | None, threads: int) -> dict[str, Any]:
    """Segment a scan in a process of its own: clock and processor seconds, peak GB, its files."""
    words = [sys.executable, "-m", "kitslib", "predict", str(item.imaging), "-o", str(out)]
    words += ["--threads", str(threads), *(["--models", str(models)] if models else [])]
    began = time.perf_counter()
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    row = {"seconds": round(time.perf_counter() - began, 1)}
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{item.imaging}: predict ended with {child.returncode}")
    row["processor, s"] = round(used.ru_utime + used.ru_stime, 1)
    return row | {"peak GB": round(used.ru_maxrss * 1024 / 1e9, 2)}


def scored(item: CaseFiles, found: np.ndarray, voxel_ml: float) -> dict[str, Any]:
    """Volumes of a prediction and, where a case has labels, Dice and whether its tumour is hit."""
    row = {"kidney ml": round(float((found > 0).sum() * voxel_ml), 1)}
    row |= {"tumour ml": round(float((found == 2).sum() * voxel_ml), 1)}
    if item.segmentation is None and item.segmentation_kits23 is None:
        return row
    truth = load_case(item).labels
    tumor = truth == 2
    row |= {"true kidney ml": round(float((truth > 0).sum() * voxel_ml), 1)}
    row |= {"true tumour ml": round(float(tumor.sum() * voxel_ml), 1)}
    row["kidney Dice"] = round(float(dice(found > 0, truth > 0)), 4)
    if tumor.any():
        row["tumour Dice"] = round(float(dice(found == 2, tumor)), 4)
        row["tumour hit"] = "yes" if (tumor & (found == 2)).any() else "no"
    return row


def views(scan: np.ndarray, spacing: Sequence[float]) -> dict[str, tuple[np.ndarray, tuple]]:
    """The same patient in other fields of view, and what of each is the scan's own."""
    wide = [round(AIR_MM / s) for s in spacing[1:]]
    cut = [round(CUT_MM / s) for s in spacing[1:]]
    frames = ((0, 0), (wide[0],) * 2, (wide[1],) * 2)
    tall = ((AIR_SLICES,) * 2, (0, 0), (0, 0))
    inner = np.s_[:, cut[0] : scan.shape[1] - cut[0], cut[1] : scan.shape[2] - cut[1]]
    return {
        f"{AIR_MM:g} mm of air in plane": (np.pad(scan, frames, constant_values=-1000), ()),
        f"{AIR_SLICES} slices of air": (np.pad(scan, tall, constant_values=-1024), ()),
        f"{CUT_MM:g} mm less on each side": (np.ascontiguousarray(scan[inner]), inner),
    }


def moved(item: CaseFiles, models: Models, found: np.ndarray) -> list[dict[str, Any]]:
    """How far other fields of view change the volumes of a case, in % and ml."""
    case, rows = load_case(item, "kits19"), []
    voxel_ml = float(np.prod(case.spacing)) / 1000
    for name, (scan, inner) in views(case.imaging, case.spacing).items():
        seen = segment(
            scan, case.spacing, models.kidney, models.tumor, autocast=models.accelerator.autocast
        ).labels
        part = found[inner] if inner else found
        before, after = (float((labels > 0).sum()) * voxel_ml for labels in (part, seen))
        tumor = float((seen == 2).sum() - (part == 2).sum()) * voxel_ml
        change = 100 * (after / before - 1) if before else float("nan")
        rows.append({"case": item.case_id, "view": name, "kidney, %": round(change, 2)})
        rows[-1]["tumour, ml"] = round(tumor, 2)
    return rows


def main(arguments: Sequence[str]) -> int:
    """Segment all cases of the folders, and publish two tables."""
    options = parser("realct", __doc__, threads=2, repeats=1)
    options.add_argument("folders", nargs="*", type=Path, help="of cases as KiTS has them")
    options.add_argument("--models", type=Path, help="folder of networks (default: the package's)")
    args = options.parse_args(arguments)
    folders = args.folders or [folder for folder in (real_ct_folder(),) if folder]
    files = [item for folder in folders for item in find_cases(folder) if item.imaging]
    if not files:
        print("realct: no CT was found; name folders of cases", file=sys.stderr)
        return 2
    rows, changes = [], []
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / str(number) for number in range(len(files))]
        pairs = list(zip(files, folders, strict=True))
        # all before this process grows: a child's peak begins at what its parent holds
        used = [predicted(item, out, args.models, args.threads) for item, out in pairs]
        models = Models.load(args.models, start(device="cpu", threads=args.threads))
        for (item, out), costs in zip(pairs, used, strict=True):
            (sidecar,) = out.glob("*.json")
            labels, geometry = read_labels(next(out.glob("prediction_*.nii.gz")))
            found = scored(item, labels, float(np.prod(geometry.spacing)) / 1000)
            shape = " x ".join(map(str, read_json(sidecar)["shape"]))
            rows.append({"case": item.case_id, "shape": shape} | found | costs)
            changes += moved(item, models, labels)
    Report(
        name="realct",
        question="What do the networks find on real CT, how fast, and in other fields of view?",
        command=command("realct", [word for word in arguments if "/" not in word]),
        conditions=conditions(args.threads, args.repeats),
        tables=[
            Table(title="Scans", note="Each by a process of its own, imports and all.", rows=rows),
            Table(
                title="Other fields of view",
                note="Change of what is found against the scan as it is, in the part it shares.",
                rows=changes,
            ),
        ],
        bounds=bounds(rows, changes),
    ).publish(args.out)
    return 0


def bounds(rows: list[dict[str, Any]], changes: list[dict[str, Any]]) -> list[str]:
    """What must hold, with the worst of what was measured."""
    worst = [max(row["seconds"] for row in rows), max(row["peak GB"] for row in rows)]
    air = [abs(row["kidney, %"]) for row in changes if "air" in row["view"]]
    lines = []
    for (name, bound), value in zip(BOUNDS, [*worst, max(air)], strict=True):
        verdict = "met" if value <= bound else "missed"
        lines.append(f"{name}: {value:g}, at most {bound:g} asked: {verdict}")
    free = [row for row in rows if row.get("true tumour ml") == 0]
    called = sum(row["tumour ml"] > 0 for row in free)
    return [*lines, f"tumour called in {called} of {len(free)} labelled scans without one"]
