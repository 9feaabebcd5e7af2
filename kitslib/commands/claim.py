"""The CLAIM 2024 checklist of a study: each item answered from its records, or not done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kitslib import evaluation, reporting
from kitslib.commands import cards, followed
from kitslib.config import duration_text, read_json, write_text
from kitslib.reporting import interval, number

CLAIM = "claim.html"
STATES = "answered", "not done", "does not apply"
UNRECORDED = "No record of this study says it."
TITLES = {"index": "The index page", "rerun": "How to cite and re-run this"}  # of other pages


def write_claim(
    folder: Path, found: Mapping[str, Any], records: Mapping[str, followed.Record]
) -> reporting.Page:
    """Write the checklist as a page of a study's folder; return how the index lists it."""
    known, there, sections = facts(folder, found, records), sources(found, records), {}
    items = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    for section, asked in items.items():
        sections[section] = [
            {"number": place, "asks": item["asks"]} | answer(item["answers"], known, there)
            for place, item in asked.items()
        ]
    rows = [row for section in sections.values() for row in section]
    for row in rows:
        row["title"] = title(row["href"])
        if not (folder / row["href"].partition("#")[0]).is_file():
            row["href"] = ""
    counts, tally = Counter(row["state"] for row in rows), {}
    for state in STATES:
        several = state.replace("does", "do") if counts[state] != 1 else state
        tally[state] = f"{counts[state]} {several}"
    banners = {"synthetic": found["synthetic"], "untrained": found.get("untrained", "")}
    write_text(folder / CLAIM, reporting.checklist_html(sections, tally, **banners))
    words = ", ".join(tally.values())
    about = f"What a reader of a study in medical imaging asks for, {len(rows)} items: {words}."
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
    named = {page.removesuffix(".html"): words for page, (words, _) in cards.ABOUT.items()}
    chapter = followed.NOTEBOOKS.get(name.partition("-")[0], ("",))[0]
    return chapter or (TITLES | named).get(name, "")


def sources(found: Mapping[str, Any], records: Mapping[str, followed.Record]) -> set[str]:
    """Return what an answer can need: records, the shown `tumor` network's, `scores`, a cohort."""
    last, there = records["05_evaluation"], {*records, "any"}
    there.add("synthetic" if found["synthetic"] else "given")
    if shown(found, records):
        there.add("tumor")
    if any("tk_dice" in row for row in last.get("rows", [])):
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
    known |= mean_of("reader", [row.get("tumor_label_version") for row in limits])
    known |= {"cohort": followed.cohort(last["config"]).capitalize()}
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
    known = {name: found.get(name) for name in ("cases", "commit", "rules")}
    known |= {"claims": len(found["claims"]) or None, "n": cascade.get("n")}
    known |= {"deviations": len(found.get("deviations") or [])}
    for name in ("tk_dice", "tumor_dice", "composite"):
        if value := number(cascade.get(name)):
            known[name] = f"{value} ({interval(cascade.get(f'{name}_ci')) or 'no interval'})"
    if history:
        known |= {"rules_date": history[0]["date"], "rules_changes": len(history) - 1}
    return known | mean_of("real", [row["dice"] for row in found.get("real") or []])


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


def of_cases(rows: list[Mapping[str, Any]], parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the cases are like: all of them, and those of each side of the split."""
    known: dict[str, Any] = {}
    for name in ("spacing_z", "spacing_xy"):
        if values := [row[name] for row in rows if row.get(name)]:
            known[name] = span(values, 2)
    sides = {"train": ("kidney_train", "tumor_train"), "test": ("cascade_test",)}
    for side, names in sides.items():
        ids, words = {case for name in names for case in parts.get(name, ())}, []
        for column, what in (("kidney_ml", "kidneys"), ("tumor_ml", "tumour")):
            values = [row[column] for row in rows if row["case"] in ids and row.get(column)]
            if values:
                words.append(f"{what} {number(np.median(values), 1)} ml")
        if words:
            known[f"{side}_traits"] = f"{len(ids)} cases, median {', '.join(words)}"
    return known


def of_networks(found: Mapping[str, Any], records: Mapping[str, followed.Record]) -> dict[str, Any]:
    """Return what was trained, and what its comparisons could have shown."""
    trained = {record["run"]: record["train_s"] for record in records.values() if record.get("run")}
    compared = records.get("04_ablations", {}).get("effects") or []
    least = [row["smallest"] for row in compared if number(row.get("smallest"))]
    kidney = records.get("02_kidney", {})
    known: dict[str, Any] = {"kidney_weights": number(kidney.get("parameters"))}
    known["comparisons"] = len(compared) or None
    known["readings"] = len({row["reading"] for row in kidney.get("readings") or []}) or None
    if least:
        known["smallest"] = span(least, 3)
    if trained:
        known |= {"trainings": len(trained), "trained": duration_text(sum(trained.values()))}
    if name := shown(found, records):
        tumor = records[name]
        known |= {"tumor_arm": tumor["arm"], "tumor_weights": number(tumor["parameters"])}
        known["tumor_page"] = f"{name}.html"
    return known


def of_scores(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what became of the tumours of the test cases, from the cascade's rows."""
    known: dict[str, Any] = {}
    for name in ("outside_kidney", "not_seen", "dropped"):
        if values := [row[name] for row in rows if row.get(name) is not None]:
            known[name] = f"{np.mean(values):.0%}"
    tumors = [row["found"] > 0 for row in rows if row.get("tumor_truth_ml") and "found" in row]
    healthy = [row["tumor_ml"] > 0 for row in rows if row.get("tumor_truth_ml") == 0]
    if tumors:
        hits = sum(tumors)
        known |= {"hits": hits, "with_tumor": len(tumors), "hit_share": f"{hits / len(tumors):.0%}"}
        known["hit_ci"] = interval(evaluation.wilson_interval(hits, len(tumors)), 2)
    if healthy:
        known |= {"healthy": len(healthy), "alarms": sum(healthy)}
    ensembles = {name for row in rows for name in row if name.startswith("ensemble of ")}
    for name in sorted(ensembles):
        known |= {"ensemble": name} | mean_of("ensemble", [row.get(name) for row in rows])
    return known


def span(values: list[float], digits: int) -> str:
    """Return the least and the largest of some numbers: "3.00 to 5.00"; one where both are that."""
    return " to ".join(dict.fromkeys(number(end, digits) for end in (min(values), max(values))))


def mean_of(name: str, values: list[float | None]) -> dict[str, Any]:
    """Return a mean Dice and the number of cases that have one; nothing where none has."""
    there = [value for value in values if number(value)]
    return {f"{name}_n": len(there), f"{name}_dice": number(np.mean(there))} if there else {}
