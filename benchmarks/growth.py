"""How a study grows with its cases: processor time, wall time, memory, disk, a second call.

For each number of cases the smoke study, with the cascade's networks alone, runs in an empty folder
and is called again, three times, of which the middle one counts; then the data stage alone, in
another empty folder, and the evaluation alone. A fifth of the cases is held out. A call of the
benchmark that is interrupted goes on with the numbers that are missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks._measure import Report, Table, command, conditions, judged
from benchmarks._study import Call, study, study_key
from kitslib.config import PROFILES, ROOT, configure, read_json, replacing, write_json
from kitslib.reporting import figures

MOST = 1.15  # of memory at the largest number beside the smallest, and of time per case
HELD_OUT = 5  # each so manieth case
AGAIN = 3  # calls with nothing to do, since one takes but seconds; their median is shown
PARTS = {"data": "01 data", "evaluation": "05 evaluation", "whole": "whole study"}
NETWORKS = {"arms": ["full"], "kidney_arms": []}  # those of the cascade alone
NOTE = (
    "Held fixed: slices of {matrix}² pixels, the grids, the two networks of the cascade, "
    "{epochs} epochs of the kidney's and {steps} steps of the tumour's. Growing with the cases: "
    "the data stage, the steps of a kidney epoch, what oversampling measures, validation and "
    "evaluation. Memory: the largest process."
)
FACTS = ("processor", "GPU", "load when started", "versions")
COLUMNS = {"wall_s": "wall, s", "processor_s": "processor, s", "peak_mb": "peak memory, MB"}


def stage(notebook: str, out: Path, options: dict[str, Any], log: Path, *more: str) -> Call:
    """Start the notebook of a stage alone, as run_all.sh does."""
    source, target = ROOT / "notebooks" / f"{notebook}.ipynb", out / f"{notebook}.ipynb"
    out.mkdir(parents=True, exist_ok=True)
    given = ["-k", "python3", "--no-progress-bar", "-r", "profile", "smoke", "-r", "out", str(out)]
    given += ["-y", json.dumps({"options": options}), *more]
    return Call([sys.executable, "-m", "papermill", str(source), str(target), *given], log)


def measured(cases: int, work: Path) -> dict[str, Any]:
    """Return what the study of so many cases takes: a `Usage` for each part, and disk in MB."""
    out, alone, log = work / "study", work / "data", work / f"calls-{cases}.log"
    for folder in (out, alone):
        shutil.rmtree(folder, ignore_errors=True)
    options = {"cohort.cases": cases, "cohort.held_out": cases // HELD_OUT, **NETWORKS}
    words = []
    for name, value in options.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    found: dict[str, Any] = {"cases": cases, "key": study_key()}
    found["whole"] = vars(study(out, *words, log=log).usage())
    again = [study(out, *words, log=log).usage() for _ in range(AGAIN)]
    found["second call"] = vars(sorted(again, key=lambda call: call.processor_s)[AGAIN // 2])
    found["disk_mb"] = {part: size_mb(out / "work" / part) for part in ("cohorts", "cache", "runs")}
    config = configure(profile="smoke", out=str(out), options=options)
    found["disk_mb"]["pages and records"] = size_mb(config.reports)
    evaluation = stage("05_evaluation", out, options, log, "-r", "arm", "full")
    found["evaluation"] = vars(evaluation.usage())
    found["data"] = vars(stage("01_data", alone, options, log, "-p", "jobs", "2").usage())
    for folder in (out, alone):
        shutil.rmtree(folder)
    return found


def size_mb(folder: Path) -> float:
    """Return what the files below a folder hold, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def tables(found: Sequence[dict[str, Any]]) -> list[Table]:
    """Return a table for time and memory, a row per part and number, and one for disk."""
    rows, disk = [], []
    for part, title in (PARTS | {"second call": "second call"}).items():
        for one in found:
            row: dict[str, Any] = {"what": title, "cases": one["cases"]}
            row |= {name: round(one[part][key], 1) for key, name in COLUMNS.items()}
            row["processor a case, s"] = round(one[part]["processor_s"] / one["cases"], 3)
            rows.append(row)
    for one in found:
        sizes = {f"{name}, MB": round(size, 1) for name, size in one["disk_mb"].items()}
        total = sum(one["disk_mb"].values())
        disk.append({"cases": one["cases"], **sizes, "MB a case": round(total / one["cases"], 2)})
    smoke = PROFILES["smoke"]
    steps = smoke.tumor.epochs * smoke.tumor.steps
    note = NOTE.format(matrix=smoke.cohort.matrix, epochs=smoke.kidney.epochs, steps=steps)
    return [
        Table(title="Time and memory", note=note, rows=rows),
        Table(title="Disk", note="What the files of a study hold.", rows=disk),
    ]


def bounds(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return each bound with its number: memory, time per case, added time, the second call."""
    first, middle, last = found[0], found[-2], found[-1]
    few, some, many = (one["cases"] for one in (first, middle, last))
    lines, judge = [], partial(judged, bound=MOST, at="most")
    for part, title in PARTS.items():
        memory = last[part]["peak_mb"] / first[part]["peak_mb"]
        lines.append(judge(f"{title}, memory at {many} cases beside {few}", memory))
        late, early = (one[part]["processor_s"] / one["cases"] for one in (last, middle))
        what = f"{title}, processor time a case at {many} cases beside {some}"
        lines.append(judge(what, late / early))
    second = last["second call"]["processor_s"] / first["second call"]["processor_s"]
    return [*lines, judge(f"second call, processor time at {many} cases beside {few}", second)]


def drawn(found: Sequence[dict[str, Any]]) -> Figure:
    """Draw processor time, memory and disk over the number of cases."""
    figures.use_style()
    fig, axes = plt.subplots(1, 3, figsize=(8.8, 2.8))
    cases = [one["cases"] for one in found]
    for part, title in (PARTS | {"second call": "second call"}).items():
        axes[0].plot(cases, [one[part]["processor_s"] for one in found], "o-", label=title)
        if part in PARTS:
            axes[1].plot(cases, [one[part]["peak_mb"] for one in found], "o-", label=title)
    for name in found[0]["disk_mb"]:
        axes[2].plot(cases, [one["disk_mb"][name] for one in found], "o-", label=name)
    titles = ("Processor time, s", "Memory of the largest process, MB", "Disk, MB")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(xlabel="cases", ylim=(0, None), xticks=cases)
        ax.set_title(title, fontsize=9)
        ax.legend(fontsize=7)
    return fig


def main(arguments: Sequence[str]) -> int:
    """Measure the numbers of cases that are missing; publish tables, bounds and picture."""
    options = argparse.ArgumentParser(prog="python -m benchmarks growth", description=__doc__)
    add = options.add_argument
    add("--cases", type=int, nargs="+", default=[20, 60, 210], help="at least two (%(default)s)")
    add("--work", type=Path, default=ROOT / "reports" / "growth", help="folder for the studies")
    add("--out", type=Path, help="folder for growth.md, .json and .svg; else they are only printed")
    args = options.parse_args(arguments)
    if len(args.cases) < 2 or min(args.cases) < HELD_OUT:
        options.error(f"--cases: expected two numbers or more, each at least {HELD_OUT}")
    work, found, facts = args.work.resolve(), [], conditions(1, 1)
    for cases in sorted(args.cases):
        path = work / f"{cases}.json"
        if not path.is_file() or read_json(path)["key"] != study_key():
            write_json(path, measured(cases, work))
        found.append(read_json(path))
    Report(
        name="growth",
        question="Does a study's memory stay flat and its time grow in proportion to its cases?",
        command=command("growth", arguments),
        conditions={name: facts[name] for name in FACTS},
        tables=tables(found),
        bounds=bounds(found),
        picture="growth.svg",
    ).publish(args.out)
    if args.out:
        with replacing(args.out / "growth.svg") as part:
            drawn(found).savefig(part, format="svg", metadata={"Date": None})
    return 0
