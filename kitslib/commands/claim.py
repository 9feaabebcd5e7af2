"""The CLAIM 2024 checklist of a study: each item answered from its records, or not done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from kitslib import evaluation, reporting
from kitslib.commands import cards, followed
from kitslib.config import duration_text, read_json, write_text
from kitslib.reporting import interval, number

CLAIM = "claim.html"
STATES = "answered", "not done", "does not apply"
GRID = "spacing_z", "spacing_xy"
TRAITS = {"kidney_ml": "kidneys", "tumor_ml": "tumour"}
SIDES = {"train": ("kidney_train", "tumor_train"), "test": ("cascade_test",)}
Rows = Sequence[Mapping[str, Any]]
UNRECORDED = "No record of this study says it."
TITLES = {"index": ("The index page",), "rerun": ("How to cite and re-run this",)}


def write_claim(
    folder: Path, found: Mapping[str, Any], records: Mapping[str, followed.Record]
) -> reporting.Page:
    """Write the checklist as a page of a study's folder; return how the index lists it."""
    known, there = facts(folder, found, records), sources(found, records)
    sections, counts, tally = {}, Counter(), {}
    items = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    for section, asked in items.items():
        sections[section] = []
        for place, item in asked.items():
            row = {"number": place, "asks": item["asks"]} | answer(item["answers"], known, there)
            row["title"] = title(row["href"])
            page = row["href"].partition("#")[0]
            if page != "index.html" and not (folder / page).is_file():  # the index is written last
                row["href"] = ""
            sections[section].append(row)
            counts[row["state"]] += 1
    for state in STATES:
        several = state.replace("does", "do") if counts[state] != 1 else state
        tally[state] = f"{counts[state]} {several}"
    banners = {"synthetic": found["synthetic"], "untrained": found.get("untrained", "")}
    write_text(folder / CLAIM, reporting.checklist_html(sections, tally, **banners))
    about = f"What a reader of a study in medical imaging asks for, {counts.total()} items: "
    about += f"{', '.join(tally.values())}."
    return reporting.Page(title="CLAIM 2024 checklist", href=CLAIM, about=about)


def answer(
    answers: list[Mapping[str, Any]], known: Mapping[str, str], there: set[str]
) -> dict[str, str]:
    """Return the first answer that can be given, as `state`, `says` and `href`; else not done."""
    for one in answers:
        if not {*one.get("needs", ()), one.get("only", "any")} <= there:
            continue
        state = next(state for state in STATES if state in one)
        try:
            says, href = one[state].format(**known), one.get("page", "").format(**known)
        except KeyError:  # what is not known
            continue
        return {"state": state, "says": says, "href": href}
    return {"state": "not done", "says": UNRECORDED, "href": ""}


def title(href: str) -> str:
    """Return what a page is called, whichever of its headings a link leads to."""
    name = href.partition(".html")[0]
    about = cards.ABOUT | followed.NOTEBOOKS | TITLES
    return about.get(f"{name}.html", about.get(name.partition("-")[0], ("",)))[0]


def sources(found: Mapping[str, Any], records: Mapping[str, followed.Record]) -> set[str]:
    """Return what an answer can need: records, the shown `tumor` network's, `scores`, a cohort."""
    last, there = records["05_evaluation"], {*records, "any"}
    there.add("synthetic" if found["synthetic"] else "given")
    if shown(found, records):
        there.add("tumor")
    if "tk_dice" in pd.DataFrame(last.get("rows") or []):
        there.add("scores")
    return there


def shown(found: Mapping[str, Any], records: Mapping[str, followed.Record]) -> str:
    """Return the name of the record of the cascade's tumour network; "" without one."""
    last = records["05_evaluation"]
    return next((name for name in records if cards.is_shown(name, found, last)), "")


def facts(
    folder: Path, found: Mapping[str, Any], records: Mapping[str, followed.Record]
) -> dict[str, str]:
    """Return what the answers can say, by the names that claim.yaml gives it; unknown ones lack."""
    last, file = records["05_evaluation"], folder / "work" / "split.json"
    split = read_json(file) if file.is_file() else {}
    data = records.get("01_data", {})
    rows, limits = data.get("rows") or [], data.get("ceilings") or []
    known = of_summary(found) | of_settings(last["config"]) | of_scores(last.get("rows") or [])
    known |= of_split(split) | of_cases(rows, split.get("run", {})) | of_networks(found, records)
    known |= mean_of("reader", limits, "tumor_label_version")
    known |= {"cohort": followed.cohort(last["config"]).partition(";")[0].capitalize()}
    known |= {"command": followed.command(last)}
    known |= {"license": followed.citation(found, last)["license"]}
    made = folder / "models" / "made.json"
    if made.is_file():
        about = read_json(made)
        packages = ", ".join(f"{name} {text}" for name, text in about["versions"].items())
        known |= {"python": about["python"], "versions": packages}
    return {name: str(value) for name, value in known.items() if value not in (None, "")}


def of_summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the study's summary says."""
    cascade, history = found["cascade"], found.get("rules_history") or []
    known = {"cases": found["cases"], "commit": found["commit"], "rules": found.get("rules")}
    known |= {"claims": len(found["claims"]) or None, "n": cascade.get("n")}
    known |= {"deviations": len(found.get("deviations") or [])}
    for name in ("tk_dice", "tumor_dice", "composite"):
        if value := number(cascade.get(name)):
            known[name] = f"{value} ({interval(cascade.get(f'{name}_ci')) or 'no interval'})"
    if history:
        known |= {"rules_date": history[0]["date"], "rules_changes": len(history) - 1}
    return known | mean_of("real", found.get("real") or [], "dice")


def of_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was set for the grids and the trainings."""
    known: dict[str, Any] = {"seeds": ", ".join(map(str, config["seeds"]))}
    for stage in ("kidney", "tumor"):
        training, grid = config.get(stage, {}), config.get(f"{stage}_grid", {})
        for name in ("hu", "epochs", "steps", "optimizer", "batch"):
            known[f"{stage}_{name}"] = training.get(name)
        for name in ("spacing_z", "spacing_xy", "matrix", "margin_mm", "mask_dilation_mm"):
            if grid.get(name) is not None:
                known[f"{stage}_{name}"] = f"{grid[name]:g}"
    return known


def of_split(split: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the cases were taken in and divided; nothing without a split."""
    if not split:
        return {}
    parts, used = split["run"], split["used"]
    train, test = {*parts["kidney_train"], *parts["tumor_train"]}, parts["cascade_test"]
    unseen, held = set(test) - train, {*parts["kidney_held_out"], *parts["tumor_held_out"]}
    return {
        "policy": split["policy"], "labels": split["labels"], "rule": parts["rule"],
        "split_seed": split["seed"], "used": len(used), "left_out": len(split["left_out"]),
        "offered": len(used) + len(split["left_out"]), "train": len(train), "held": len(held),
        "test": len(test), "unseen": len(unseen), "shared": len(test) - len(unseen),
    }  # fmt: skip


def of_cases(rows: Rows, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the cases are like: all of them, and those of each side of the split."""
    cases, known = pd.DataFrame(rows, columns=["case", *GRID, *TRAITS]).set_index("case"), {}
    for name in GRID:
        if cases[name].notna().any():
            known[name] = span(cases[name].dropna(), 2)
    for side, names in SIDES.items() if parts else ():
        ids, words = cases.index.intersection(list(chain(*map(parts.get, names)))), []
        for column, what in TRAITS.items():
            if median := number(cases.loc[ids, column].median(), 1):
                words.append(f"{what} {median} ml")
        if words:
            known[f"{side}_traits"] = f"{len(ids)} cases, median {', '.join(words)}"
    return known


def of_networks(found: Mapping[str, Any], records: Mapping[str, followed.Record]) -> dict[str, Any]:
    """Return what was trained, and what its comparisons could have shown."""
    trained, known, kidney = {}, {}, records.get("02_kidney", {})
    for record in records.values():
        if record.get("run"):
            trained[record["run"]] = record["train_s"]
    compared = pd.DataFrame(records.get("04_ablations", {}).get("effects") or [])
    known["kidney_weights"] = number(kidney.get("parameters"))
    if len(compared):
        known["comparisons"] = len(compared)
        if compared["smallest"].notna().any():
            known["smallest"] = span(compared["smallest"].dropna(), 3)
    if readings := kidney.get("readings"):
        known["readings"] = pd.DataFrame(readings)["reading"].nunique()
    if trained:
        known |= {"trainings": len(trained), "trained": duration_text(sum(trained.values()))}
    if name := shown(found, records):
        tumor = records[name]
        known["tumor_weights"] = number(tumor.get("parameters"))
        known["tumor_arm"] = tumor.get("arm")
        known["tumor_page"] = f"{name}.html"
    return known


def of_scores(rows: Rows) -> dict[str, Any]:
    """Return what became of the tumours of the test cases, from the cascade's rows."""
    scores, known = pd.DataFrame(rows), {}
    for name in scores.columns.intersection(["outside_kidney", "not_seen", "dropped"]):
        known[name] = f"{scores[name].mean():.0%}"
    if {"found", "tumor_truth_ml", "tumor_ml"} <= set(scores):
        healthy = scores["tumor_truth_ml"] == 0
        n, hits = int((~healthy).sum()), int((scores["found"][~healthy] > 0).sum())
        known |= {"hits": hits, "with_tumor": n, "hit_share": f"{hits / max(n, 1):.0%}"}
        known["hit_ci"] = interval(evaluation.wilson_interval(hits, n), 2) if n else None
        if healthy.any():
            known["healthy"] = int(healthy.sum())
            known["alarms"] = int((scores["tumor_ml"][healthy] > 0).sum())
    for name in map(str, scores):
        if name.startswith("ensemble of "):
            known |= {"ensemble": name} | mean_of("ensemble", rows, name)
    return known


def span(values: Iterable[float], digits: int) -> str:
    """Return the least and the largest of some numbers: "3.00 to 5.00"; one where both are that."""
    ends = number(min(values), digits), number(max(values), digits)
    return " to ".join(dict.fromkeys(ends))


def mean_of(name: str, rows: Rows, column: str) -> dict[str, Any]:
    """Return a mean Dice and the number of cases that have one; nothing where none has."""
    there = pd.to_numeric(pd.DataFrame(rows, columns=[column])[column]).dropna()
    return {f"{name}_n": len(there), f"{name}_dice": number(there.mean())} if len(there) else {}
