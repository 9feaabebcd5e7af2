"""Where each number of a study comes from: its effects, chapters, records, and how to redo it."""

from __future__ import annotations

import hashlib
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml

from kitslib import evaluation, reporting
from kitslib.config import ARMS, KIDNEY_ARMS, MECHANISMS, ROOT, key, read_json

RERUN = "rerun.html"
Record = Mapping[str, Any]
MECHANISM = {  # as the index page names them
    "multi_scale": "Multi-scale input", "se": "Squeeze-and-excitation",
    "attention": "Attention gates", "hdc": "Hybrid dilated convolution",
    "focal_dice": "Focal + weighted Dice loss", "oversample": "Oversampling of hard cases",
}  # fmt: skip
NOTEBOOKS = {  # title and question of each, as the index page shows them
    "01_data": ("01 Data",
        "Is the data sound, and what does it cost to move it onto the networks' grids?"),
    "02_kidney": ("02 Kidneys", "Does the 3D ResUNet find the kidneys, and in a real CT too?"),
    "03_tumor": ("03 Tumours", "What does this arm find inside the kidneys?"),
    "04_ablations": ("04 Ablations", "What is each mechanism worth?"),
    "05_evaluation": ("05 Verdict", "What does the cascade score, and which claims hold?"),
}  # fmt: skip
# the heading under which a claim's comparison stands; all others are of tumour arms
IN_THEM = "01_data.html#What-is-in-them"
PARTS = "04_ablations.html#The-kidney-network-with-and-without-each-of-its-parts"
PLACES = {
    "1": IN_THEM, "3": IN_THEM, "4a": PARTS, "4b": PARTS, "5": PARTS,
    "2a": "01_data.html#Do-kidney,-tumour-and-cyst-differ-in-HU?",
    "2b": "01_data.html#Do-kidney,-tumour-and-cyst-differ-in-HU?",
    "11c": "04_ablations.html#Gridding-in-the-trained-networks",
    "14a": "04_ablations.html#All-arms", "14b": "04_ablations.html#All-arms",
}  # fmt: skip
COMPARED = "04_ablations.html#Each-arm-against-the-one-that-it-changes"


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a study's folder by name."""
    files = sorted((folder / "work" / "records").glob("*.json"))
    return {file.stem: read_json(file) for file in files}


def effects(
    claims: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return what each mechanism adds to tumour Dice, as the index's forest plot takes it.

    From the ledger's rows; after them those comparisons of notebook 04 that add several at once.
    """
    places, rows = evaluation.mechanism_places(), []
    by_place = {f"{claim['number']}{claim['part']}": claim for claim in claims}
    for name in MECHANISMS:
        if claim := by_place.get(places[name]):
            keys = "value", "ci", "band", "n", "seeds", "smallest_effect", "verdict", "reason"
            row = {"label": MECHANISM[name], "name": name, "place": places[name]}
            row["measure"] = claim["measure"].rpartition(", ")[2]
            rows.append(row | {key: claim[key] for key in keys})
    for one in compared:
        if not {one["arm"], one["reference"]} <= ARMS.keys():
            continue  # of other code
        before, after = (set(ARMS[one[side]].mechanisms) for side in ("reference", "arm"))
        added = [name for name in MECHANISMS if name in after - before]
        if len(added) < 2 or before - after:
            continue
        label = f"All {len(added)} together"
        if len(added) < len(MECHANISMS):
            label = " and ".join(map(MECHANISM.__getitem__, added))
        rows.append({
            "label": label, "name": "", "place": "", "verdict": "", "reason": "",
            "measure": f"{one['arm']} minus {one['reference']}", "value": one["difference"],
            "ci": [one["lo"], one["hi"]], "band": evaluation.BAND, "n": one["n"],
            "seeds": one["seeds"], "smallest_effect": one["smallest"],
        })  # fmt: skip
    return rows


def sources(found: Mapping[str, Any], records: Mapping[str, Record]) -> dict[str, reporting.Source]:
    """Return where the index's boxes and the rows of the ledger come from."""
    kept = {
        "kidney": source("02_kidney.html#Held-out-cases,-in-native-geometry", ["02_kidney"]),
        "tumor": source("04_ablations.html#All-arms", ["04_ablations"]),
        "cascade": source("05_evaluation.html#As-KiTS19-and-KiTS23-count", ["05_evaluation"]),
        "real": source("02_kidney.html#A-real-CT", ["02_kidney"]),
    }
    for claim in found["claims"]:
        place = f"{claim['number']}{claim['part']}"
        href = PLACES.get(place, COMPARED)
        kept[place] = source(href, behind(claim, href, records))
    return kept


def source(href: str, names: Sequence[str]) -> reporting.Source:
    """Return the source at a chapter's heading."""
    title, _ = NOTEBOOKS[href.partition(".")[0]]
    return reporting.Source(title=title, href=href, records=tuple(names))


def behind(claim: Record, href: str, records: Mapping[str, Record]) -> list[str]:
    """Return the names of the records that a row of the ledger was computed from.

    Those of the arms that its measure names, where it has a number; else of its chapter.
    """
    if claim["value"] is None:
        return []
    words, names = set(re.findall(r"\w+", claim["measure"])), []
    for name, record in records.items():
        kinds = KIDNEY_ARMS if name.startswith("02_kidney") else ARMS
        if record.get("arm") in kinds.keys() & words:
            names.append(name)
    return names or [href.partition(".")[0]]


def rerun_page(folder: Path, found: Mapping[str, Any], records: Mapping[str, Record]) -> str:
    """Return the page "How to cite and re-run this" of a study's folder, as HTML."""
    last, about = records["05_evaluation"], citation(found, records["05_evaluation"])
    lock = hashlib.sha256((ROOT / "constraints.txt").read_bytes()).hexdigest()[:16]
    code = sorted({record["code"] for record in records.values() if "code" in record})
    facts = {
        "Commit": found["commit"], "Lock": f"constraints.txt, SHA-256 {lock}…",
        "Data": cohort(last["config"]), "Settings changed": last["config"].get("changes"),
        "Key of the code behind scores": code, "Key of the rules of verdicts": found.get("rules"),
        "Seeds": found["seeds"], "Device": found.get("device"),
        "Processor time": f"{found.get('processor_s', 0) / 3600:.1f} h",
    }  # fmt: skip
    return reporting.rerun_html(
        command=command(last), facts=facts, citation=about, synthetic=found["synthetic"],
        untrained=found.get("untrained", ""),
        records=[kept(folder, name, record) for name, record in records.items()],
    )  # fmt: skip


def citation(found: Mapping[str, Any], last: Record) -> dict[str, str]:
    """Return how the study is cited: the project's CITATION.cff, its year and commit."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    about = {name: cited[name] for name in ("title", "version", "license")}
    about["authors"] = " and ".join(map(itemgetter("name"), cited["authors"]))
    about["year"] = time.strftime("%Y", time.gmtime(last["ended"]))
    return about | {"commit": found["commit"], "url": cited.get("repository-code", "")}


def command(last: Record) -> str:
    """Return the command that makes the study, without the folders of the machine it ran on."""
    words = ["./run_all.sh", "--profile", last["config"]["profile"]]
    for change in last["config"].get("changes", []):
        words += ["--set", change]
    return shlex.join(words) + (" --data DIR" if last["config"].get("data") else "")


def cohort(config: Record) -> str:
    """Return the key of the synthetic cohort, which is its folder's name, in words."""
    if config.get("data"):
        return "the cases given with --data; the key of each training's cases stands below"
    drawn = list(map(config["cohort"].get, ("seed", "matrix", "spacing_z", "cysts")))
    return f"synthetic cohort, key {key(*drawn, config['cohort'].get('cases'))}"


def kept(folder: Path, name: str, record: Record) -> dict[str, Any]:
    """Return a record as a row of that page."""
    page, run = f"{name}.html", record.get("run", "")
    settings = folder.parent / "work" / "runs" / run / "settings.json"
    rows = record.get("rows") or []
    return {
        "name": name, "href": page if (folder / page).is_file() else "", "run": run,
        "seed": record.get("seed"), "cases": [row["case"] for row in rows if "case" in row],
        "data": read_json(settings).get("data", "") if run and settings.is_file() else "",
        "commit": record.get("commit"),
        "ended": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record["ended"])),
    }  # fmt: skip
