"""Which cases a study uses: their folder, what the policy keeps, and the split, also on disk."""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from kitslib.config import RunConfig, code_key, key, read_json, usable_cores, write_json
from kitslib.data.cases.check import CaseReport, check_case, check_cohort
from kitslib.data.cases.defects import apply_policy, defect_of
from kitslib.data.cases.discovery import CaseFiles, find_cases
from kitslib.data.cases.errors import CaseError
from kitslib.data.cases.files import TUMOR, available_labels, fingerprint, read_labels
from kitslib.data.cases.splits import Rule, Split, fold, split_cases

FOLDS = 5
LEAST_CASES = 4  # to train on and to hold out
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
    return {name: getattr(config.cohort, name) for name in names} if config.drawn else None


def study_files(config: RunConfig, folder: Path, *, check: bool = True) -> list[CaseFiles]:
    """Return the cases to train and score on, the same in every notebook.

    With image and labels, kept by the policy, and usable by the check: its verdicts lie in the
    store, and a case without one is read from end to end (not `check`: is taken to be sound).
    """
    kept, _ = apply_policy(find_cases(folder), config.cohort.defects)
    files = [f for f in kept if f.imaging and config.cohort.labels in available_labels(f)]
    refused = verdicts(config, files, check=check)
    return [f for f in files if not refused.get(f.case_id)]


def study_reports(config: RunConfig, folder: Path, *, jobs: int = 1) -> list[CaseReport]:
    """Check a cohort, and store what is unusable for `study_files`. Raises CaseError: no cases."""
    reports = {report.case_id: report for report in check_cohort(folder, jobs=jobs)}
    found = {}
    for item in find_cases(folder):
        found[_files_key(item)] = _reason(reports[item.case_id])
    _note(config, found)
    return list(reports.values())


def verdicts(config: RunConfig, files: list[CaseFiles], *, check: bool = True) -> dict[str, str]:
    """Return why each case is unusable, "" for a sound one, by case id; unknown ones are checked.

    Not `check`: only those whose verdict is in the store.
    """
    keys, known = {item.case_id: _files_key(item) for item in files}, _known(config)
    new = [item for item in files if keys[item.case_id] not in known]
    if check and new:
        with ThreadPoolExecutor(usable_cores()) as pool:
            reasons = map(_reason, pool.map(check_case, new))
            known |= dict(zip([keys[item.case_id] for item in new], reasons, strict=True))
        _note(config, known)
    return {name: known[place] for name, place in keys.items() if place in known}


def require_study(config: RunConfig, files: list[CaseFiles]) -> None:
    """Refuse cases that no study can be made of, before anything is trained.

    Reads label maps until it has seen a tumour on both sides of the split. Raises CaseError.
    """
    if len(files) < LEAST_CASES:
        text = f"expected at least {LEAST_CASES} cases with imaging and sound labels to train on "
        raise CaseError(f"{text}and to hold out, got {len(files)}; add cases", code="split")
    split, by_id = study_split(config, files), {item.case_id: item for item in files}
    sides = {"to train the tumour network on": split.tumor_train}
    sides["held out to test it on"] = split.tumor_held_out
    for words, case_ids in sides.items():
        if not any(map(_has_tumor, map(by_id.__getitem__, case_ids))):
            text = f"none of the {len(case_ids)} cases {words} has a tumour (label 2): "
            text += f"{case_list(case_ids)}; add cases with tumours, or choose another cohort.split"
            raise CaseError(text, code="no_tumor")


def _has_tumor(files: CaseFiles) -> bool:
    """Whether a case's labels hold a tumour; what cannot be read is the check's to say."""
    with suppress(CaseError, OSError):
        labels, _ = read_labels(files.segmentation or files.segmentation_kits23)
        return bool((labels == TUMOR).any())
    return False


def _files_key(files: CaseFiles) -> str:
    """Changes with the content of a case's files; of one that is gone, never the same."""
    try:
        return key([path and fingerprint(path) for path in files.paths])
    except OSError:
        return ""


def _reason(report: CaseReport) -> str:
    found = [one.message for one in report.findings if one.level == "unusable"]
    return found[0] if found else ""


def _known(config: RunConfig) -> dict[str, str]:
    """The stored verdicts of the check as it is now."""
    with suppress(OSError, ValueError, KeyError):
        stored = read_json(config.store / "checks.json")
        if stored["code"] == code_key("data/cases"):
            return stored["verdicts"]
    return {}


def _note(config: RunConfig, found: dict[str, str]) -> None:
    stored = {"code": code_key("data/cases"), "verdicts": _known(config) | found}
    stored["verdicts"].pop("", None)
    write_json(config.store / "checks.json", stored)


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
    left_out, refused = {}, verdicts(config, found, check=False)
    for item in found:
        if item.case_id not in case_ids:
            missing = f"image or {wanted.labels} labels are missing"
            left_out[item.case_id] = refused.get(item.case_id) or missing
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
