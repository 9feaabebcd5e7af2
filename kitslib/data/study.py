"""Which cases a study uses: their folder, what the policy keeps, the split, and both in words and on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kitslib.config import RunConfig, key
from kitslib.data.cases.defects import apply_policy, defect_of
from kitslib.data.cases.discovery import CaseFiles, find_cases
from kitslib.data.cases.errors import CaseError
from kitslib.data.cases.files import available_labels
from kitslib.data.cases.splits import Split, fold, split_cases

FOLDS = 5


def data_folder(config: RunConfig, make: Callable[..., Any], *, jobs: int = 1) -> Path:
    """Return the folder of the study's cases; `make` writes the synthetic cohort where it is not there yet."""
    if not config.synthetic:
        return Path(config.data)
    wanted = config.cohort
    folder = (
        config.store / "cohorts" / key(wanted.seed, wanted.matrix, wanted.spacing_z, wanted.cysts)
    )
    make(
        folder,
        cases=wanted.cases,
        seed=wanted.seed,
        matrix=wanted.matrix,
        spacing_z=wanted.spacing_z,
        cysts=wanted.cysts,
        jobs=jobs,
    )
    return folder


def study_files(config: RunConfig, folder: Path) -> list[CaseFiles]:
    """Return the cases to train and score on: image and labels are there, and the policy keeps them."""
    wanted = config.cohort
    kept, _ = apply_policy(find_cases(folder), wanted.defects)
    return [f for f in kept if f.imaging is not None and wanted.labels in available_labels(f)]


def study_split(config: RunConfig, files: list[CaseFiles]) -> Split:
    """Return which cases train and which are held out, as the configuration says."""
    wanted = config.cohort
    return split_cases(
        [f.case_id for f in files], seed=wanted.seed, rule=wanted.split, held_out=wanted.held_out
    )


def store_split(config: RunConfig, found: list[CaseFiles], used: list[CaseFiles]) -> dict[str, Any]:
    """Write which cases this run uses, leaves out and holds out to `split.json` in its work folder; return it.

    found: the cases of the data folder. used: those that are trained and scored on. Keys: policy, labels, seed,
    used, left_out (case id to reason), run and paper (the five lists of a `Split`), folds (train and held_out
    of five), note ("" or why there are no folds). Raises CaseError when `used` cannot be split.
    """
    wanted, case_ids = config.cohort, [f.case_id for f in used]
    _, excluded = apply_policy(found, wanted.defects)
    excluded = [f for f in excluded if f.case_id not in case_ids]
    reasons = {
        f.case_id: "image or labels are missing or unusable"
        for f in found
        if f.case_id not in case_ids
    }
    folds, note = [], ""
    try:
        folds = [asdict(fold(case_ids, k, seed=wanted.seed, n_folds=FOLDS)) for k in range(FOLDS)]
    except CaseError as error:
        note = str(error)
    record = {
        "policy": wanted.defects,
        "labels": wanted.labels,
        "seed": wanted.seed,
        "used": case_ids,
        "left_out": reasons
        | {f.case_id: f"policy exclude: {defect_of(f).reason}" for f in excluded},
        "run": asdict(study_split(config, used)),
        "paper": asdict(
            split_cases(case_ids, seed=wanted.seed, rule="paper", held_out=wanted.held_out)
        ),
        "folds": folds,
        "note": note,
    }
    config.work.mkdir(parents=True, exist_ok=True)
    part = config.work / f".split.json.{os.getpid()}"
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(part, config.work / "split.json")
    return record


def case_list(case_ids: Iterable[str]) -> str:
    """Return case ids in short: their numbers, runs of them as `00003-00007`; an id without a number as it is."""
    parts: list[tuple[str, str]] = []
    for case_id in case_ids:
        digits = case_id[len(case_id.rstrip("0123456789")) :]
        last = parts[-1][1] if parts else ""
        if digits and last.isdigit() and int(digits) == int(last) + 1:
            parts[-1] = parts[-1][0], digits
        else:
            parts.append((digits or case_id,) * 2)
    return ", ".join(first if first == last else f"{first}-{last}" for first, last in parts)


def split_rows(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Lay a stored split out as a table: split, part, cases and numbers of the run's, the paper's and the folds."""
    lists = [
        (words, part.replace("_", " ").replace("tumor", "tumour"), stored[name][part])
        for name, words in (
            ("run", f"this run: {stored['run']['rule']}"),
            ("paper", "the paper's rule"),
        )
        for part in (
            "kidney_train",
            "kidney_held_out",
            "tumor_train",
            "tumor_held_out",
            "cascade_test",
        )
    ]
    lists += [
        (f"{FOLDS} folds", f"fold {k}, held out", part["held_out"])
        for k, part in enumerate(stored["folds"])
    ]
    return [
        {"split": rule, "part": part, "cases": len(case_ids), "numbers": case_list(case_ids)}
        for rule, part, case_ids in lists
    ]
