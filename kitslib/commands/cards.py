"""The cards of a study: of its networks (Hugging Face's form) and of its cohort, from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kitslib import evaluation, reporting
from kitslib.commands import followed
from kitslib.config import read_json, write_text
from kitslib.reporting import interval, markdown_table, number

SCORES = {  # of the summary: part, field, what it is
    ("kidney", "dice"): "kidney, first network alone, Dice",
    ("cascade", "tk_dice"): "kidney with tumour, cascade, Dice",
    ("cascade", "tumor_dice"): "tumour, cascade, Dice",
    ("cascade", "composite"): "KiTS19 composite, cascade",
}
MEASURED = {  # of the record of notebook 01
    "slices": "slices", "spacing_z": "slice distance, mm", "spacing_xy": "pixel, mm",
    "kidney_ml": "kidneys, ml", "tumor_ml": "tumour, ml", "cyst_ml": "cysts, ml",
}  # fmt: skip
ABOUT = {  # a card's page: its title on the index, and what it says
    "model_card.html": ("Model card", "The two networks: use, data, scores by group, limits."),
    "data_card.html": ("Data card", "The cohort: how it was made, its contents, its parts."),
}  # fmt: skip


def write_cards(
    folder: Path, found: Mapping[str, Any], records: Mapping[str, followed.Record], words: str
) -> list[reporting.Page]:
    """Write both cards as Markdown and as pages; return how the index lists the pages.

    `words` says which cases were used. The model card lies with the networks that `predict
    --models` takes. A record that lacks what a card needs leaves the card out.
    """
    last, pages = records["05_evaluation"], []
    shared = {
        "summary": found, "data": words, "command": followed.command(last),
        "citation": followed.citation(found, last),
    }  # fmt: skip
    tumor = next((r for name, r in records.items() if is_shown(name, found, last)), None)
    if tumor and tumor.get("rows") and "02_kidney" in records:
        text = model_card(folder, records["02_kidney"], tumor, last, shared)
        write_text(folder / "models" / "README.md", text)
        pages.append(page(folder, "model_card.html", text, found))
    split = folder / "work" / "split.json"
    if records.get("01_data", {}).get("rows") and split.is_file():
        text = data_card(records["01_data"], read_json(split), shared)
        write_text(folder / "DATA_CARD.md", text)
        pages.append(page(folder, "data_card.html", text, found))
    return pages


def page(folder: Path, name: str, text: str, found: Mapping[str, Any]) -> reporting.Page:
    """Write a card as a page; return how the index lists it."""
    banners = {"synthetic": found["synthetic"], "untrained": found.get("untrained", "")}
    write_text(folder / name, reporting.text_html(text, **banners))
    title, about = ABOUT[name]
    return reporting.Page(title=title, href=name, about=about)


def is_shown(name: str, found: Mapping[str, Any], last: followed.Record) -> bool:
    """Return whether a record is that of the tumour network in the cascade, its first seed."""
    arms = list(found["tumor"])
    arm = "full" if "full" in arms else arms[-1] if arms else ""
    return name == f"03_tumor-{arm}-s{last['config']['seeds'][0]}"


def model_card(
    folder: Path, kidney: followed.Record, tumor: followed.Record, last: followed.Record,
    shared: Mapping[str, Any],
) -> str:  # fmt: skip
    """Return the model card of the networks in `models/`, as Markdown."""
    found, rows = shared["summary"], []
    for (part, field), what in SCORES.items():
        value, ci = number(found[part].get(field)), interval(found[part].get(f"{field}_ci"))
        rows.append([what, value or "–", ci or "–", str(found[part].get("n"))])
    keys = [followed.kept(folder, "", record)["data"] or "not kept" for record in (kidney, tumor)]
    real = [[row["case"], number(row["dice"]) or "–"] for row in found.get("real") or []]
    scored = [row for row in last.get("rows", []) if "found" in row]
    return reporting.filled(
        "model_card.md.j2", head=front_matter(found), kidney=kidney, tumor=tumor,
        keys=", ".join(keys), healthy=sum(not row.get("tumor_truth_ml") for row in scored),
        scores=markdown_table(["", "mean", "95 %", "n"], rows), groups=groups(tumor),
        real=markdown_table(["scan", "Dice"], real) if real else "", cascade_n=len(scored),
        missed=sum(row["found"] == 0 for row in scored), **shared,
    )  # fmt: skip


def front_matter(found: Mapping[str, Any]) -> str:
    """Return what Hugging Face reads of a model card, as YAML: licence, tags, each score."""
    from huggingface_hub import EvalResult  # nothing else needs its half second

    cohort, results = "synthetic CT in KiTS19's layout" if found["synthetic"] else "KiTS19", []
    for (part, field), what in SCORES.items():
        if found[part].get(field) is not None:
            results.append(EvalResult(
                task_type="image-segmentation", dataset_type="kits19", dataset_name=cohort,
                metric_type="dice", metric_name=what, metric_value=round(found[part][field], 4),
            ))  # fmt: skip
    return card_data(found["profile"], results)


def card_data(profile: str, results: list[Any]) -> str:
    """Return licence, tags and results (`EvalResult`) of a profile's networks, as YAML."""
    from huggingface_hub import ModelCardData

    return ModelCardData(
        license="mit", library_name="pytorch", pipeline_tag="image-segmentation",
        model_name=f"kitslib {profile}", eval_results=results or None, metrics=["dice"],
        tags=["medical", "computed tomography", "kidney", "kidney tumor", "KiTS19"],
    ).to_yaml()  # fmt: skip


def release_card(
    made: Mapping[str, Any], patients: Sequence[Mapping[str, Any]], decision: dict[str, Any]
) -> str:
    """Return the card of the package's own networks, as Markdown.

    made: what made.json says. patients: the development patients, with `kidney_dice`. decision:
    that of the tumour network's settings.
    """
    rows: dict[str, list[str]] = {}
    for kind in decision.values():
        for row in kind["tested_on"]["by_size"]:
            share = row["sensitivity"]
            found = "–" if share is None else f"{100 * share:.0f} %"
            rows.setdefault(row["tumor"], []).extend([str(row["patients"]), found])
    return reporting.filled(
        "release_card.md.j2", head=card_data(made["profile"], []), made=made, patients=patients,
        share=f"{100 * made['settings']['cohort']['tumor_free']:.0f}",
        dice=sorted(patient["kidney_dice"] for patient in patients),
        words=evaluation.decision_words(decision),
        sizes=markdown_table(
            ["tumour", "patients with contrast", "found in", "without contrast", "found in"],
            [[size, *numbers] for size, numbers in rows.items()],
        ),
    )  # fmt: skip


def groups(tumor: followed.Record) -> str:
    """Return the tumour network's mean Dice by size of the tumour and by cysts, as Markdown."""
    scores, rows = evaluation.arm_scores({0: tumor["rows"]}, evaluation.PRIMARY), []
    for title, cases in evaluation.case_groups(tumor["rows"]).items():
        part = scores.filter(sorted(cases))
        if part.shape[1]:
            mean = evaluation.estimate(part)
            rows.append([title, number(mean.value), interval(mean.ci) or "–", str(mean.n)])
    return markdown_table(["tumours", "mean", "95 %", "n"], rows)


def data_card(record: followed.Record, split: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """Return the data card of the cohort, as Markdown."""
    cases, contents = pd.DataFrame(record["rows"]), []
    for column, words in MEASURED.items():
        values = cases.get(column, pd.Series(dtype=float)).dropna().to_numpy(float)
        if len(values):
            shown = [number(np.quantile(values, place), 1) for place in (0, 0.5, 1)]
            contents.append([words, *shown, str(len(values))])
    lists = {name: ids for name, ids in split["run"].items() if isinstance(ids, list)}
    parts, near = [[name.replace("_", " "), str(len(ids))] for name, ids in lists.items()], []
    for row in record.get("fidelity") or []:
        place = [number(row["here"], 2), number(row["reference"], 2)]
        near.append([row["quantity"], *[one or "–" for one in place], str(row["difference"])])
    return reporting.filled(
        "data_card.md.j2", cohort=followed.cohort(record["config"]).capitalize(),
        labels=split["labels"], policy=split["policy"],
        contents=markdown_table(["", "least", "median", "most", "cases"], contents),
        parts=markdown_table(["part", "cases"], parts),
        fidelity=near and markdown_table(["", "here", "KiTS", "difference"], near), **shared,
    )  # fmt: skip
