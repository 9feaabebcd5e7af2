"""What a notebook found, as a record that other notebooks of the same study read."""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from kitslib.config import (
    RESULTS,
    ROOT,
    RULES,
    RunConfig,
    as_dict,
    code_key,
    read_json,
    replacing,
    write_json,
)
from kitslib.training.machine import commit, device_name, versions
from kitslib.training.runs import Run, RunError, differing

WEIGHTS = ROOT / "kitslib" / "weights"  # of the networks that come with the package


def provenance(config: RunConfig, **more: Any) -> dict[str, Any]:
    """Return where a result comes from: commit, versions, device, data, date."""
    return {
        "profile": config.profile,
        "settings": list(config.changes),
        "synthetic": config.synthetic,
        "untrained": config.untrained,
        "data": config.data or "synthetic cohort",
        "labels": config.cohort.labels,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "device": _device(config),
        "python": platform.python_version(),
        "versions": versions(),
        **more,
    }


def _device(config: RunConfig) -> str:
    return device_name("cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu")


def record_path(config: RunConfig, name: str) -> Path:
    """Return where a record lies: `work/records/03_tumor-full-s0.json` in the study's folder."""
    return config.work / "records" / f"{name}.json"


def begin(config: RunConfig, name: str) -> float:
    """Return the time, in seconds since 1970, at which a notebook began; store the rules.

    Raises RunError where its record is there already and was made with other settings.
    """
    stored_rules(config)
    path = record_path(config, name)
    if path.is_file() and (names := differing(read_json(path).get("config", {}), _shared(config))):
        fix = "give this run a folder of its own with out, or remove the record"
        raise RunError(f"{path} was made with other settings: {', '.join(names)}; {fix}")
    return time.time()


def stored_rules(config: RunConfig) -> list[dict[str, Any]]:
    """Return by which rules the study's results become verdicts, and each later change of them.

    Rows of `key` (of the code of rules, splits, metrics and statistics), `cohort` (its settings),
    `date` and `commit`, kept in `work/rules.json`: the first is there before anything is scored.
    """
    path = config.work / "rules.json"
    now = {"key": code_key(*RULES), "cohort": as_dict(config.cohort)}
    found = read_json(path) if path.is_file() else []
    if not found or differing({name: found[-1][name] for name in now}, now):
        date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        found.append({**now, "date": date, "commit": commit()})
        write_json(path, found)
    return found


def record(config: RunConfig, name: str, *, began: float, **values: Any) -> Path:
    """Write what a notebook found, as its last act; `began` is what `begin` returned."""
    head = {"record": name, "began": began, "ended": time.time(), "commit": commit()}
    head |= {"device": _device(config), "torch": torch.__version__}
    head |= {"processor_s": round(sum(os.times()[:4]), 1)}  # of this process and its children
    head |= {"config": _shared(config), "code": code_key(*RESULTS)}
    return write_json(record_path(config, name), head | values)


def recorded(config: RunConfig, name: str) -> dict[str, Any]:
    """Return a record of this study.

    Raises RunError, with the command that makes it, where it is missing or made with other
    settings or code.
    """
    path = record_path(config, name)
    if not path.is_file():
        notebook, _, rest = name.partition("-")
        arm, _, seed = rest.rpartition("-s")
        words = f"papermill notebooks/{notebook}.ipynb {name}.ipynb -k python3 -p profile "
        words += config.profile + (f" -p arm {arm} -p seed {seed}" if rest else "")
        raise RunError(f"{path} is missing; make it with: {words}  (or all: {config.command})")
    found = read_json(path)
    names = differing(found.get("config", {}), _shared(config))
    if found.get("code") != code_key(*RESULTS):
        names.append(f"its code (commit {found.get('commit')} there, {commit()} here)")
    if names:
        words = f"{', '.join(names)}; make it anew with: {config.command}"
        raise RunError(f"{path} does not belong to this study: {words}")
    return found


def _shared(config: RunConfig) -> dict[str, Any]:
    """The settings that two records of one study share: all but where results go and the seed."""
    return {name: v for name, v in as_dict(config).items() if name not in ("out", "seed")}


def summary(reports: Path) -> dict[str, Any]:
    """Return what summary.json says: the evaluation's summary, where all ran, and what it took."""
    records = [read_json(path) for path in sorted((reports / "work" / "records").glob("*.json"))]
    found = [r["summary"] for r in records if "summary" in r]
    if not found:
        raise RunError(f"{reports}: no evaluation is recorded there; run ./run_all.sh first")
    wall, end = 0.0, 0.0
    for began, ended in sorted((r["began"], r["ended"]) for r in records):
        wall += max(0.0, ended - max(began, end))
        end = max(end, ended)
    devices = {r.get("device") or found[-1].get("device", "") for r in records}
    whole = {"device": " and ".join(sorted(devices)), "wall_s": round(wall, 1)}
    return found[-1] | whole | {"processor_s": round(sum(r["processor_s"] for r in records), 1)}


def models_folder(folder: Path | None = None) -> Path:
    """Return the folder with kidney/ and tumor/: the one named, or the package's own."""
    folder = WEIGHTS if folder is None else folder
    for place in (folder / "kidney", folder / "tumor"):
        if not (place / "weights.safetensors").is_file():
            fix = "give --models a folder with both, such as reports/demo/models of ./run_all.sh"
            raise RunError(f"{place}: no trained network is there; {fix}")
    return folder


def export_models(config: RunConfig, *, kidney: Run, tumor: Run) -> Path:
    """Copy weights and settings of two finished runs to where `--models` finds them."""
    folder = config.reports / "models"
    for name, run in (("kidney", kidney), ("tumor", tumor)):
        for file in ("settings.json", "weights.safetensors"):
            with replacing(folder / name / file) as part:
                shutil.copyfile(run.folder / file, part)
    made = {"command": config.command, **provenance(config), "settings": _shared(config)}
    made["data"] = "synthetic cohort" if config.drawn else "--data DIR"
    made["settings"].pop("data")
    write_json(folder / "made.json", made)
    return folder


def real_ct_folder(named: str = "") -> Path | None:
    """Return the folder of real CT: the one named, else $KITS_SHARED's or ../shared's, else None.

    Raises RunError where the one named is not a folder.
    """
    shared = Path(os.environ.get("KITS_SHARED", ROOT.parent / "shared"))
    folder = ROOT / named if named else shared / "realct" / "data"
    if named and not folder.is_dir():
        raise RunError(f"real: {folder} is not a folder")
    return folder if folder.is_dir() else None
