"""A peer beside our cascade: the study's cases, stages that are kept, our scorer, our intervals."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks._measure import Cell, Report, Table, command, conditions
from benchmarks._study import Call, Watch
from kitslib.config import ROOT, RunConfig, configure, key, parse_settings, read_json, write_json
from kitslib.data import (
    Case,
    CaseFiles,
    data_folder,
    load_case,
    read_labels,
    require_same_grid,
    study_files,
    study_split,
    write_labels,
)
from kitslib.evaluation import Estimate, estimate, paired_difference, score_case
from kitslib.phantom import write_cohort
from kitslib.training import summary

DICE = {"composite": "composite Dice", "tk_dice": "kidney and masses Dice"}
DICE |= {"tumor_dice": "tumour Dice"}
SCORES = DICE | {
    "kits23_kidney_and_masses_surface_dice": "kidney and masses surface Dice",
    "kits23_tumor_surface_dice": "tumour surface Dice",
    "hd95_kidney_and_masses_mm": "kidney and masses HD95, mm",
    "hd95_tumor_mm": "tumour HD95, mm",
    "tumor_fp_ml": "false-positive tumour, ml",
    "cyst_fp_ml": "of it in cysts, ml",
}
SIZES = {"tumours below 10 ml": (0, 10), "10 to 30 ml": (10, 30), "above 30 ml": (30, float("inf"))}
OURS = "ours, the cascade"
BUDGETS = (1, 4)  # times what the whole study took


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a peer gets: the study's cases, and where it works; ours: our rows, none if not scored.

    `hours` are the budgets. `taken` has our training, in s, and all processor time, in s.
    """

    config: RunConfig
    train: list[CaseFiles]
    test: list[CaseFiles]
    ours: list[dict[str, Any]]
    taken: dict[str, float]
    commit: str
    hours: list[float]
    threads: int
    work: Path

    def labels(self, item: CaseFiles) -> Case:
        """A case with its labels alone, cysts as kidney."""
        case = load_case(replace(item, imaging=None), self.config.cohort.labels)
        case.labels[case.labels == 3] = 1
        return case

    def labelled(self) -> list[dict[str, str]]:
        """Files of each training case: `image`, and `label` with cysts as kidney."""
        found = []
        for item in self.train:
            target = self.work / "labels" / f"{item.case_id}.nii.gz"
            if not target.is_file():
                case = self.labels(item)
                write_labels(target, case.labels, case.geometry)
            found.append({"image": str(item.imaging), "label": str(target)})
        return found

    def own_cost(self) -> list[dict[str, Cell]]:
        """A row of what our trainings took; none where the study is not finished."""
        return [cost(OURS, "both trainings", self.taken)] if self.taken else []

    def measured(
        self, name: str, words: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> dict[str, float]:
        """Run a stage of the peer, unless it ran before: its seconds, processor seconds and GB.

        What interrupted attempts took is added, as far as it was noted when they ended.
        """
        kept, part = self.work / "stages" / f"{name}.json", self.work / "stages" / f"{name}.part"
        if kept.is_file():
            return read_json(kept)
        print(f"{name} …", flush=True)
        before = read_json(part) if part.is_file() else dict.fromkeys(("s", "processor s", "GB"), 0)
        threads = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        log = self.work / "logs" / f"{name}.log"
        call, watch = Call(words, log, threads | dict(environment or {})), Watch()
        watch.start()
        target, taken = part, {}
        try:
            used = call.usage()
            target, taken = kept, {"s": used.wall_s, "processor s": used.processor_s}
        finally:
            watch.over.set()
            taken = taken or {"s": call.age(), "processor s": watch.busy}
            taken = {field: value + before[field] for field, value in taken.items()}
            write_json(target, taken | {"GB": max(watch.peak, before["GB"])})
            call.kill()
        part.unlink(missing_ok=True)
        return read_json(kept)

    def scored(self, name: str, predictions: Path) -> list[dict[str, Any]]:
        """The rows of label maps `<case>.nii.gz` by our scorer, in native geometry; kept."""
        kept = self.work / "stages" / f"{name}.json"
        if kept.is_file():
            return read_json(kept)
        rows = []
        for item in self.test:
            found, geometry = read_labels(predictions / f"{item.case_id}.nii.gz")
            truth = load_case(replace(item, imaging=None), self.config.cohort.labels)
            require_same_grid(item.case_id, truth.geometry, geometry, ("truth", "prediction"))
            row = score_case(found, truth.labels, truth.spacing, case_id=item.case_id)
            rows.append(json.loads(pd.Series(row).to_json(double_precision=15)))
        write_json(kept, rows)
        return rows


def options(reader: argparse.ArgumentParser) -> None:
    """Add the options that say which study's cases, which budgets, and where to work."""
    add = reader.add_argument
    add("--profile", default="demo", help="whose cases and cascade (%(default)s)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="as in run_all.sh")
    add("--data", default="", metavar="DIR", help="folder of a KiTS cohort")
    add("--study", default="", metavar="DIR", help="run_all.sh's --out: where the study lies")
    words = "of training, one network each (default: 1 and 4 times what the whole study took)"
    add("--hours", type=float, nargs="+", metavar="H", help=words)
    add("--work", type=Path, default=ROOT / "reports" / "peers", help="folder (%(default)s)")


def end_with_stages() -> None:
    """Make a SIGTERM end this process as an exception does, so that what it started ends too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def task(reader: argparse.ArgumentParser, args: argparse.Namespace) -> Task:
    """Find the study's cases, our rows where it is finished, and the budgets."""
    end_with_stages()
    config = configure(
        profile=args.profile, data=args.data and str(Path(args.data).absolute()),
        out=args.study and str(Path(args.study).absolute()), options=parse_settings(args.set),
    )  # fmt: skip
    records = config.work / "records"
    ours, hours, taken, commit = [], args.hours, {}, "none"
    if (records / "05_evaluation.json").is_file():
        ours, whole = read_json(records / "05_evaluation.json")["rows"], summary(config.reports)
        hours = hours or [round(times * whole["wall_s"] / 3600, 3) for times in BUDGETS]
        made = [read_json(path) for path in records.glob("0[23]_*.json")]
        ours_are = "02_kidney", f"03_tumor-full-s{config.seeds[0]}"
        cascade = [r for r in made if r["record"] in ours_are]
        taken = {"s": sum(r.get("train_s", 0.0) for r in cascade)}
        busy = sum(r["processor_s"] for r in cascade)
        if busy < taken["s"]:  # of records made again, whose networks were trained before
            busy = float("nan")
        taken |= {"processor s": busy, "GB": float("nan")}
        commit = whole["commit"]
    if not hours:
        reader.error(f"--hours: needed, no finished study lies in {config.reports}")
    if min(hours) <= 0:
        reader.error(f"--hours: expected hours above 0, got {min(hours):g}")
    files = study_files(config, data_folder(config, write_cohort, jobs=args.threads))
    split = study_split(config, files)
    training = {*split.kidney_train, *split.tumor_train} - {*split.cascade_test}
    train = [item for item in files if item.case_id in training]
    test = [item for item in files if item.case_id in split.cascade_test]
    made_of = [str(item.imaging) for item in (*train, *test)], config.cohort.labels
    work = args.work / f"{config.study}-{key(*made_of, args.threads)[:8]}"
    return Task(
        config=config, train=train, test=test, ours=ours, taken=taken, commit=commit, hours=hours,
        threads=args.threads, work=work.absolute(),
    )  # fmt: skip


def child(module: str, stage: str, job: Mapping[str, Any]) -> list[str]:
    """The words that run a stage of a peer in a process of its own; its job is plain JSON."""
    return [sys.executable, "-m", module, stage, json.dumps(dict(job))]


def score_tables(
    ours: list[dict[str, Any]], peers: Mapping[str, tuple[float, list[dict[str, Any]]]]
) -> list[Table]:
    """Means with intervals, ours minus each peer's case by case, and tumours by their size.

    peers: by name the budget in hours and the rows of `score_case`.
    """
    systems = ({OURS: (float("nan"), ours)} if ours else {}) | dict(peers)
    means, gaps, sizes = [], [], []
    for name, (hours, rows) in systems.items():
        table = pd.DataFrame(rows).set_index("case")
        means.append({"system": name})
        for score, words in SCORES.items():
            values = table[score].astype(float)
            mean = estimate(values.to_numpy())
            means[-1][words] = _spread(mean)
            row = {"system": name, "hours": hours, "score": score, **mean.row("mean")}
            if ours and name != OURS:
                gap = paired_difference(*_both(rows, ours, score))
                row |= {"ours minus it": gap.value, "from": gap.ci[0], "to": gap.ci[1]}
                row["pairs"] = gap.n
            gaps.append({field: _plain(value) for field, value in row.items()})
        for size, (low, high) in SIZES.items():
            some = table[(table["tumor_truth_ml"] > low) & (table["tumor_truth_ml"] <= high)]
            found = estimate(some["tumor_dice"].astype(float).to_numpy())
            sizes.append({"system": name, "tumours": size, "cases": len(some)})
            sizes[-1]["tumour Dice"] = _spread(found)
    note = "Means over the test cases with 95 % intervals over cases, in the scans' own geometry."
    paired = "Cases paired, 95 % intervals; what another seed would change is not in them."
    return [
        Table(title="Scores", note=note, rows=means),
        Table(title="Each score beside ours", note=paired, rows=gaps),
        Table(title="Tumours by size", note="By their true volume.", rows=sizes),
    ]


def ahead(ours: list[dict[str, Any]], name: str, rows: list[dict[str, Any]]) -> str:
    """Whether our composite Dice is ahead of a peer's, in a sentence."""
    if not ours:
        return f"{name}: our cascade was not scored on these cases"
    gap = paired_difference(*_both(rows, ours, "composite"))
    low, high = gap.ci
    words = f"composite Dice, ours minus {name}: {gap.value:.3f} [{low:.3f}, {high:.3f}]"
    verdict = "neither is ahead"
    if low > 0:
        verdict = "ours is ahead"
    elif high < 0:
        verdict = "the peer is ahead"
    return f"{words}, {gap.n} cases: {verdict}"


def cost(system: str, stage: str, taken: Mapping[str, float]) -> dict[str, Cell]:
    """A row of what a stage took."""
    row = {"system": system, "stage": stage, "min": taken["s"] / 60}
    row["processor min"] = _plain(taken["processor s"] / 60)
    return row | {"peak memory, GB": _plain(taken["GB"])}


def publish(
    name: str, question: str, task: Task, arguments: Sequence[str], out: Path | None,
    tables: Sequence[Table], bounds: Sequence[str], *packages: str,
) -> None:  # fmt: skip
    """Print the page of a peer, and write it where `out` is a folder."""
    about = conditions(task.threads, 1, *packages)
    about["study"] = f"{task.config.study}, commit {task.commit}"
    about["data"] = "given" if task.config.data else "synthetic"
    about["cases"] = f"{len(task.train)} for training, {len(task.test)} for testing"
    about["repeats"] = "one training each"
    Report(
        name=name, question=question, command=command(name, arguments), conditions=about,
        tables=list(tables), bounds=list(bounds),
    ).publish(out)  # fmt: skip


def link(source: Path, target: Path) -> None:
    """Make `target` a link to a file; one that is there already is kept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        os.symlink(source.absolute(), target)


def _both(
    rows: list[dict[str, Any]], ours: list[dict[str, Any]], score: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A score of the peer's and of our rows as tables (1, cases)."""
    tables = []
    for some in (rows, ours):
        tables.append(pd.DataFrame([{row["case"]: row[score] for row in some}]).astype(float))
    return tables[0], tables[1]


def _spread(found: Estimate) -> str:
    low, high = found.ci
    return f"{found.value:.3f} [{low:.3f}, {high:.3f}]" if found.n else "–"


def _plain(value: Any) -> Cell:
    """A cell that JSON can hold."""
    return None if isinstance(value, float) and value != value else value
