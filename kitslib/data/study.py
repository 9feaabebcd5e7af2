"""Which cases a study uses: their folder, what the policy keeps, and the split, also on disk."""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from kitslib.config import RunConfig, key, write_json
from kitslib.data.cases.defects import apply_policy, defect_of
from kitslib.data.cases.discovery import CaseFiles, find_cases
from kitslib.data.cases.errors import CaseError
from kitslib.data.cases.files import available_labels
from kitslib.data.cases.splits import Rule, Split, fold, split_cases

FOLDS = 5
PARTS = ("kidney_train", "kidney_held_out", "tumor_train", "tumor_held_out", "cascade_test")
MEASURED = ("age_at_nephrectomy", "body_mass_index", "radiographic_size", "pathologic_size")
NAMED = ("gender", "malignant", "tumor_histologic_subtype", "pathology_t_stage", "tumor_isup_grade")


def data_folder(config: RunConfig, make: Callable[..., Any], *, jobs: int = 1) -> Path:
    """Return the folder of the study's cases; `make` writes the synthetic cohort if need be."""
    if (drawn := drawn_with(config)) is None:
        return Path(config.data)
    folder = config.store / "cohorts" / key(*drawn.values(), config.cohort.cases)
    make(folder, cases=config.cohort.cases, jobs=jobs, **drawn)
    return folder


def drawn_with(config: RunConfig) -> dict[str, Any] | None:
    """Return what decides each case of the synthetic cohort; None for a folder of cases."""
    names: tuple[str, ...] = ("seed", "matrix", "spacing_z", "cysts")
    if config.cohort.variety != "kits":
        names += ("variety", "tumor_free")
    return {name: getattr(config.cohort, name) for name in names} if config.synthetic else None


def study_files(config: RunConfig, folder: Path) -> list[CaseFiles]:
    """Return the cases to train and score on: with image and labels, and kept by the policy."""
    kept, _ = apply_policy(find_cases(folder), config.cohort.defects)
    return [f for f in kept if f.imaging and config.cohort.labels in available_labels(f)]


def study_split(config: RunConfig, files: list[CaseFiles], rule: Rule | None = None) -> Split:
    """Return which cases train and which are held out, by `rule` or as the configuration says."""
    wanted, ids = config.cohort, [f.case_id for f in files]
    return split_cases(ids, seed=wanted.seed, rule=rule or wanted.split, held_out=wanted.held_out)


def store_split(config: RunConfig, found: list[CaseFiles], used: list[CaseFiles]) -> dict[str, Any]:
    """Write which cases this run uses, leaves out and holds out to `split.json`; return it.

    found: the cases of the data folder. used: those that are trained and scored on.
    Keys: policy, labels, seed, used, left_out (case id to reason), run and paper (the five lists
    of a `Split`), folds (train and held_out of five), note ("" or why there are no folds).
    Raises CaseError when `used` cannot be split.
    """
    wanted, case_ids = config.cohort, [f.case_id for f in used]
    _, excluded = apply_policy(found, wanted.defects)
    left_out = {}
    for item in found:
        if item.case_id not in case_ids:
            left_out[item.case_id] = "image or labels are missing or unusable"
            if item in excluded:
                left_out[item.case_id] = f"policy exclude: {defect_of(item).reason}"
    folds, note = [], ""
    try:
        folds = [asdict(fold(case_ids, k, seed=wanted.seed, n_folds=FOLDS)) for k in range(FOLDS)]
    except CaseError as error:
        note = str(error)
    stored = {"policy": wanted.defects, "labels": wanted.labels, "seed": wanted.seed}
    stored |= {"used": case_ids, "left_out": left_out}
    for name, rule in (("run", wanted.split), ("paper", "paper")):
        stored[name] = asdict(study_split(config, used, rule))
    stored |= {"folds": folds, "note": note}
    write_json(config.work / "split.json", stored)
    return stored


def case_list(case_ids: Iterable[str]) -> str:
    """Return case ids in short: numbers, runs of them as `00003-00007`; others as they are."""
    parts: list[tuple[str, str]] = []  # first and last of each run
    for case_id in case_ids:
        digits = re.search(r"[0-9]*$", case_id).group()
        last = parts[-1][1] if parts else ""
        if digits and last.isdigit() and int(digits) == int(last) + 1:
            parts[-1] = (parts[-1][0], digits)
        else:
            parts.append((digits or case_id, digits or case_id))
    return ", ".join(first if first == last else f"{first}-{last}" for first, last in parts)


def split_rows(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a stored split as a table: split, part, cases and numbers of each of its lists."""
    lists, titles = [], {"run": f"this run: {stored['run']['rule']}", "paper": "the paper's rule"}
    for name, part in product(titles, PARTS):
        words = part.replace("_", " ").replace("tumor", "tumour")
        lists.append((titles[name], words, stored[name][part]))
    for k, part in enumerate(stored["folds"]):
        lists.append((f"{FOLDS} folds", f"fold {k}, held out", part["held_out"]))
    rows = []
    for rule, part, ids in lists:
        rows.append({"split": rule, "part": part, "cases": len(ids), "numbers": case_list(ids)})
    return rows


def split_text(stored: dict[str, Any]) -> str:
    """Return a stored split's policy, and the cases used and left out, as Markdown."""
    used, left_out = stored["used"], stored["left_out"]
    reasons = "; ".join(f"{case_id}: {reason}" for case_id, reason in left_out.items())
    text = f"Policy `{stored['policy']}`, labels `{stored['labels']}`, seed {stored['seed']}. "
    text += f"**Used, {len(used)}:** {case_list(used)}. "
    text += f"**Left out, {len(left_out)}:** {reasons or 'none'}."
    return f"{text} No folds: {stored['note']}" if stored["note"] else text


def patient_rows(files: Iterable[CaseFiles]) -> list[dict[str, Any]]:
    """Return what kits.json says of the patients: characteristic, cases and values of each."""
    people = pd.DataFrame([f.record or {} for f in files]).rename(columns={"bmi": MEASURED[1]})
    rows = []
    for name in (*MEASURED, *NAMED):
        values = people.get(name, pd.Series(dtype=object))
        if name in MEASURED:
            values = pd.to_numeric(values, errors="coerce").dropna()
            low, middle, high = values.quantile([0.05, 0.5, 0.95])
            text = f"median {middle:.1f}, from {low:.1f} to {high:.1f} in nine of ten"
        else:
            values = values.dropna().astype(str)
            counts = values.value_counts().head(8)
            text = ", ".join(f"{value} {count}" for value, count in counts.items())
        if len(values):
            words = name.replace("_", " ").replace("tumor", "tumour")
            rows.append({"characteristic": words, "cases": len(values), "values": text})
    return rows
