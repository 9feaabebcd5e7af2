"""The profiles day and paper at full size with the training cut: what does each stage take?

CT is rendered around label maps of KiTS19 in their own geometry: the one that is not square, the
shortest, and two of 3 and 5 mm slices. Every notebook runs as in the study, with a few steps of one
2.5D arm and of the 3D one. Memory and disk of all 210 cases are reckoned from these by the table of
KiTS19's geometries that lies beside the label maps; beside them stands what preflight says of the
whole on a GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from heapq import nlargest
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import papermill

from benchmarks._measure import (
    Report,
    Table,
    command,
    conditions,
    parser,
    peak_gb,
    process,
    shared_option,
)
from benchmarks._study import Watch
from kitslib.commands import main as kitslib
from kitslib.config import (
    ROOT,
    KidneyGrid,
    RunConfig,
    TumorGrid,
    configure,
    read_json,
    size_text,
    write_json,
)
from kitslib.data import CaseFiles, find_cases, prepare
from kitslib.phantom import write_rendered

CASES = ("case_00010", "case_00061", "case_00152", "case_00160")
PROFILES = ("day", "paper")
CUT = {  # fold4 holds out case_00061 alone, of 29 slices
    "cohort.split": "fold4",
    "seeds": [0],
    "single_seed_arms": [],
    "arms": ["full", "vnet_3d"],
    "kidney_arms": [],
    "threads": 2,
    "kidney.epochs": 1,
    "kidney.accumulate": 2,
    "tumor.epochs": 2,
    "tumor.validate_every": 2,
    "tumor.steps": 1,
    "tumor.accumulate": 4,
    "tumor.oversample_every": 1,
    "tumor.oversample_stride": 16,
    "tumor.scored_every": 24,  # the untrained kidney network marks whole patients
}
STAGES = {  # notebook and parameters by record
    "01_data": ("01_data", {"jobs": 1}),
    "02_kidney": ("02_kidney", {}),
    "03_tumor-full-s0": ("03_tumor", {"arm": "full"}),
    "03_tumor-vnet_3d-s0": ("03_tumor", {"arm": "vnet_3d"}),
    "04_ablations": ("04_ablations", {}),
    "05_evaluation": ("05_evaluation", {"arm": "full"}),
}
MEMORY_GB, DISK_GB = 64, 300  # of the machine that the profiles are meant for
JOBS = 8  # cases prepared at a time there
CARD, HOURS = "A5000", {"day": 24}  # the slower of the GPUs of 24 GB; the time that a profile has


def prepared(item: CaseFiles, grid: KidneyGrid | TumorGrid, cache: Path) -> dict[str, float]:
    """In a process of its own: processor seconds, memory so far and disk of a case on a grid."""
    base, began = peak_gb(), time.process_time()
    entry = prepare([item], grid, cache)[item.case_id]
    seconds = time.process_time() - began
    sizes = entry.meta["bytes"].values()
    return {"s": seconds, "base GB": base, "GB": peak_gb(), "cache GB": sum(sizes) / 1e9}


def case_rows(config: RunConfig, files: Sequence[CaseFiles], work: Path) -> list[dict[str, Any]]:
    """One row a case and grid, the smallest first; what was measured before is read."""
    rows, grids = [], (config.kidney_grid, config.tumor_grid)
    by_size = sorted(files, key=lambda item: item.imaging.stat().st_size)
    with process() as worker:
        for item, grid in product(by_size, grids):
            about = {"case": item.case_id, "grid": type(grid).__name__}
            kept = work / "measured" / f"{'-'.join((config.profile, *about.values()))}.json"
            if not kept.is_file():
                cache = config.store / "cache"
                write_json(kept, worker.submit(prepared, item, grid, cache).result())
            rows.append(about | read_json(kept))
    return rows


def stage_row(config: RunConfig, options: dict[str, Any], name: str, work: Path) -> dict[str, Any]:
    """Processor seconds and memory of one notebook; what was measured before is read."""
    kept = work / "measured" / f"{config.profile}-{name}.json"
    if not kept.is_file():
        notebook, more = STAGES[name]
        target = config.work / "notebooks" / f"{name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        given = {"profile": config.profile, "data": config.data, "out": config.out}
        given |= {"options": options} | more
        watch = Watch()
        watch.start()
        papermill.execute_notebook(
            str(ROOT / "notebooks" / f"{notebook}.ipynb"), str(target), parameters=given,
            kernel_name="python3", progress_bar=False,
        )  # fmt: skip
        watch.over.set()
        write_json(kept, {"processor s": watch.busy, "GB": watch.peak})
    return {"stage": name} | read_json(kept)


def reckoned(profile: str, work: Path) -> dict[str, Any]:
    """What preflight says of the whole study on the CARD; what it said before is read."""
    kept = work / "measured" / f"preflight-{profile}.json"
    if not kept.is_file():
        words = ["preflight", "--profile", profile, "--card", CARD, "--jobs", str(JOBS)]
        kitslib([*words, "--out", str(work), "--json", str(kept)])
    whole = read_json(kept)["estimate"]
    sizes = {f"{name}, GB": whole[name] / 1e9 for name in ("memory", "disk", "gpu")}
    return {"on": CARD, "hours": whole["seconds"] / 3600} | sizes


def grid_voxels(cases: pd.DataFrame, grid: KidneyGrid | TumorGrid) -> pd.Series:
    """Voxels of each case on a stage's grid, from its geometry and the extent of its kidneys."""
    sides = cases["rows"], cases["cols"]
    if isinstance(grid, KidneyGrid):
        shorter, longer = cases[["rows", "cols"]].min(axis=1), cases[["rows", "cols"]].max(axis=1)
        slices = cases["slices"] * cases["spacing_z_mm"] / grid.spacing_z
        return slices * grid.matrix**2 * longer / shorter
    inside = cases["kidney_last_slice"] - cases["kidney_first_slice"] + 1
    margin = 2 * grid.margin_mm
    slices = (inside * cases["spacing_z_mm"] + margin) / grid.spacing_z
    if grid.region == "slice":
        return slices * sides[0] * sides[1]
    rows = (cases["row_max"] - cases["row_min"] + 1) * cases["spacing_y_mm"] + margin
    columns = (cases["col_max"] - cases["col_min"] + 1) * cases["spacing_x_mm"] + margin
    return slices * rows * columns / (grid.spacing_xy or 1.0) ** 2


def extrapolated(
    config: RunConfig, rows: list[dict[str, Any]], cases: pd.DataFrame
) -> dict[str, float]:
    """Cache (GB), preparation (hours of one core) and its memory (GB) for all cases of a table.

    A case's memory goes with the voxels of its scan and of the larger of its grids.
    """
    found = {"cache, GB": 0.0, "preparation, h of one core": 0.0}
    here = cases[cases["case"].isin(CASES)].set_index("case")
    scans = (cases["slices"] * cases["rows"] * cases["cols"]).set_axis(cases["case"])
    larger = pd.Series(0.0, index=scans.index)
    for grid in (config.kidney_grid, config.tumor_grid):
        mine = pd.DataFrame([row for row in rows if row["grid"] == type(grid).__name__])
        voxels = grid_voxels(cases, grid).set_axis(cases["case"])
        larger = larger.clip(lower=voxels)
        found["cache, GB"] += mine["cache GB"].sum() * voxels.sum() / voxels[here.index].sum()
        hours = mine["s"].sum() / 3600 * scans.sum() / scans[mine["case"]].sum()
        found["preparation, h of one core"] += hours
    held, base = scans + larger, min(row["base GB"] for row in rows)  # GB before a first case
    peaks = pd.DataFrame(rows).groupby("case")["GB"].max()
    a_voxel = ((peaks - base) / held[peaks.index]).max()
    found[f"memory, {JOBS} at a time, GB"] = sum(nlargest(JOBS, held)) * a_voxel + JOBS * base
    return found


def judged(what: str, number: float, most: float, unit: str = "GB") -> str:
    """An upper bound and the number that meets or misses it."""
    verdict = "met" if number <= most else "missed"
    return f"{what}: {number:.1f} {unit}, at most {most} asked: {verdict}"


def measure(
    profile: str, folder: Path, work: Path, table: pd.DataFrame, stages: Sequence[str]
) -> tuple[list, list]:
    """Run the stages of one profile; return its tables and bounds."""
    config = configure(profile=profile, data=str(folder), out=str(work), options=CUT)
    rows = case_rows(config, find_cases(folder), work)
    ran = [stage_row(config, CUT, name, work) for name in stages]
    left = [{"stage": name, "remark": "not run"} for name in STAGES if name not in stages]
    everything, estimate = extrapolated(config, rows, table), reckoned(profile, work)
    imaging = 2 * float((table["slices"] * table["rows"] * table["cols"]).sum()) / 1e9
    disk = everything["cache, GB"] + imaging
    memory = max(everything[f"memory, {JOBS} at a time, GB"], *(row["GB"] for row in ran))
    settings = ", ".join(f"{name} {value}" for name, value in CUT.items())
    everything = {"of": f"{len(table)} cases"} | everything
    tables = [
        Table(
            title=f"{profile}: cases moved onto the grids",
            note="In processor seconds; GB at most so far, and before.",
            rows=rows,
        ),
        Table(title=f"{profile}: stages", note=f"Cut: {settings}.", rows=[*ran, *left]),
        Table(title=f"{profile}: KiTS19", note="Reckoned from the above.", rows=[everything]),
        Table(title=f"{profile}: preflight", note="For the uncut profile.", rows=[estimate]),
    ]
    bounds = [
        judged(f"{profile}, memory", memory, MEMORY_GB),
        judged(f"{profile}, cache and {size_text(imaging * 1e9)} of scans", disk, DISK_GB),
    ]
    if profile in HOURS:
        bounds.append(judged(f"{profile} on {CARD}", estimate["hours"], HOURS[profile], "h"))
    return tables, bounds


def main(arguments: list[str]) -> int:
    """Render the cases, run both profiles, and publish the tables."""
    options = parser("fullsize", __doc__, threads=2, repeats=1)
    shared_option(options, "kits19/data and kits_geometry.csv")
    options.add_argument("--work", type=Path, default=ROOT / "reports" / "fullsize")
    options.add_argument("--profiles", nargs="+", choices=PROFILES, default=PROFILES)
    options.add_argument("--stages", nargs="+", choices=tuple(STAGES), default=tuple(STAGES))
    args = options.parse_args(arguments)
    files = [item for item in find_cases(args.shared / "kits19" / "data") if item.case_id in CASES]
    folder, began = args.work / "cohort", time.perf_counter()
    write_rendered(folder, files, seed=19, jobs=args.threads)
    os.environ["KITS_SHARED"] = str(folder)  # notebook 02 looks there for real CT, and finds none
    print(f"rendered in {time.perf_counter() - began:.0f} s", flush=True)
    table = pd.read_csv(args.shared / "kits_geometry.csv")
    table = table[table["case"] < "case_00210"]
    tables, bounds = [], []
    for profile in args.profiles:
        found = measure(profile, folder, args.work, table, args.stages)
        tables, bounds = tables + found[0], bounds + found[1]
    Report(
        name="fullsize",
        question="Do the profiles for real KiTS19 run at full size, and what do they take?",
        command=command("fullsize", arguments),
        conditions=conditions(args.threads, args.repeats),
        tables=tables,
        bounds=bounds,
    ).publish(args.out)
    return 0
