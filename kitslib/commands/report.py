"""`report`: pages of executed notebooks, the index page of a study, two studies compared."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from kitslib import reporting, training  # what a command does not use of them is not loaded
from kitslib.commands.compare import compare, load
from kitslib.config import ROOT, deviations, read_json, write_json, write_text
from kitslib.data import CaseError

NOTEBOOKS = {  # title and question of each, as the index page shows them
    "01_data": ("01 Data",
        "Is the data sound, and what does it cost to move it onto the networks' grids?"),
    "02_kidney": ("02 Kidneys", "Does the 3D ResUNet find the kidneys, and in a real CT too?"),
    "03_tumor": ("03 Tumours", "What does this arm find inside the kidneys?"),
    "04_ablations": ("04 Ablations", "What is each mechanism worth?"),
    "05_evaluation": ("05 Verdict", "What does the cascade score, and which claims hold?"),
}  # fmt: skip
RECORD = re.compile(r"([^-]+)(?:-(.+?))??(?:-s(\d+))?")  # 03_tumor-full-s1: notebook, arm, seed


def add(parser: argparse.ArgumentParser) -> None:
    argument = parser.add_argument
    argument("notebook", type=Path, nargs="?", metavar="NOTEBOOK", help="an executed notebook")
    argument("html", type=Path, nargs="?", metavar="HTML", help="the page to write")
    argument("--index", type=Path, metavar="DIR", help="write the index page of reports/<profile>")
    argument("--readme", type=Path, metavar="FILE", help="write a summary.json's results to README")
    words = "print which verdicts and numbers two studies (folder or summary.json) share; "
    words += "status 1 where a pair of verdicts contradicts"
    argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help=words)
    argument("--out", type=Path, metavar="FILE", help="write that comparison to a file as well")


def run(args: argparse.Namespace) -> int:
    """Write a notebook's page, a study's index page or README's table; or compare two studies."""
    sys.modules.setdefault("rfc3987_syntax", None)  # a grammar, unused here: seconds to load
    if args.index:
        print(index(args.index))
    elif args.readme:
        old = (ROOT / "README.md").read_text(encoding="utf-8")
        write_text(ROOT / "README.md", reporting.with_results(old, read_json(args.readme)))
    elif args.compare:
        text, contradicting = compare(*map(load, args.compare))
        print(text, end="")
        if args.out:
            write_text(args.out, text)
        return int(contradicting)
    elif args.notebook and args.html:
        print(write_text(args.html, reporting.to_html(args.notebook)))
    else:
        words = "report needs NOTEBOOK and HTML, --index DIR, --readme FILE or --compare A B"
        raise CaseError(words)
    return 0


def index(folder: Path) -> Path:
    """Write summary.json and the index page of a study's folder; return the page."""
    found, records = training.summary(folder), folder / "work" / "records"
    config = read_json(next(records.glob("*.json")))["config"]
    found |= {"deviations": deviations(config), "seeds": config["seeds"]}
    if found["synthetic"]:
        found["cohort_seed"] = config["cohort"]["seed"]
    write_json(folder / "summary.json", found)
    synthetic, given = "Synthetic CT, rendered for this study", "The cases of the folder given"
    data = f"{synthetic if found['synthetic'] else given}: {found['cases']} cases, "
    data += f"{found['cascade']['n']} of them seen by neither network."
    picture = folder / "picture.jpg"
    there = pages(records, list(found["tumor"]))
    picture = picture if picture.is_file() else None
    html = reporting.index_html(found, there, data=data, picture=picture)
    return write_text(folder / "index.html", html)


def pages(folder: Path, arms: list[str]) -> list[reporting.Page]:
    """Return the pages of a folder of records: by notebook, arm in the order of `arms`, seed.

    An arm has one page, of the study's first seed; its other seeds have records alone.
    """
    found = {}
    for file in folder.glob("*.json"):
        notebook, arm, seed = RECORD.fullmatch(file.stem).groups(default="")
        place = notebook, arms.index(arm) if arm in arms else -1, arm, seed
        if arm and seed and int(seed) != read_json(file)["config"]["seeds"][0]:
            continue
        found[place] = page_of(file.stem)
    return [found[place] for place in sorted(found)]


def page_of(name: str) -> reporting.Page:
    """Return how the index lists the page of a record."""
    notebook, arm, seed = RECORD.fullmatch(name).groups(default="")
    title, about = NOTEBOOKS[notebook]
    title += (f": {arm}" if arm else "") + (f", seed {seed}" if seed else "")
    return reporting.Page(title=title, href=f"{name}.html", about=about)
