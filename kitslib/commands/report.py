"""`report`: pages of executed notebooks, and the index page of a study."""

from __future__ import annotations

import argparse
import re
from operator import itemgetter
from pathlib import Path

from kitslib.config import ROOT, read_json, write_json, write_text
from kitslib.data import CaseError
from kitslib.reporting import Page, index_html, to_html, with_results
from kitslib.training import summary

NOTEBOOKS = {  # title and question of each, as the index page shows them
    "01_data": (
        "01 Data",
        "Is the data sound, and what does it cost to move it onto the networks' grids?",
    ),
    "02_kidney": ("02 Kidneys", "Does the 3D ResUNet find the kidneys, and in a real CT too?"),
    "03_tumor": ("03 Tumours", "What does this arm find inside the kidneys?"),
    "04_ablations": ("04 Ablations", "What is each mechanism worth?"),
    "05_evaluation": ("05 Verdict", "What does the cascade score, and which claims hold?"),
}
RECORD = re.compile(r"([^-]+)(?:-(.+?))??(?:-s(\d+))?")  # notebook, arm, seed


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    argument = parser.add_argument
    argument("notebook", type=Path, nargs="?", metavar="NOTEBOOK", help="an executed notebook")
    argument("html", type=Path, nargs="?", metavar="HTML", help="the page to write")
    argument(
        "--index", type=Path, metavar="FOLDER", help="write the index page of reports/<profile>"
    )
    argument(
        "--readme", type=Path, metavar="SUMMARY", help="write a summary.json's results into README"
    )


def run(args: argparse.Namespace) -> int:
    """Write a notebook's page, a study's index page or README's table."""
    readme = ROOT / "README.md"
    if args.index:
        print(index(args.index))
    elif args.readme:
        text = with_results(readme.read_text(encoding="utf-8"), read_json(args.readme))
        write_text(readme, text)
    elif args.notebook and args.html:
        print(write_text(args.html, to_html(args.notebook)))
    else:
        raise CaseError("report needs NOTEBOOK and HTML, --index FOLDER or --readme SUMMARY")
    return 0


def index(folder: Path) -> Path:
    """Write summary.json and the index page of a study's folder; return the page."""
    found = summary(folder)
    write_json(folder / "summary.json", found)
    data = "The cases of the folder given"
    if found["synthetic"]:
        data = "Synthetic CT, rendered for this study"
    data += f": {found['cases']} cases, {found['cascade']['n']} of them seen by neither network."
    picture = folder / "picture.jpg"
    html = index_html(
        found,
        pages(folder / "work" / "records", list(found["tumor"])),
        data=data,
        picture=picture if picture.is_file() else None,
        picture_alt="CT slices of the worst, median and best test case: labels and predictions.",
        picture_caption="Worst, median and best test case: label tinted, prediction outlined.",
    )
    return write_text(folder / "index.html", html)


def pages(folder: Path, arms: list[str]) -> list[Page]:
    """Return the pages of a folder of records: by notebook, arm in the order of `arms`, seed.

    `03_tumor-full-s1.json` is of notebook 03_tumor, arm full, seed 1.
    """
    found = []
    for file in folder.glob("*.json"):
        notebook, arm, seed = RECORD.fullmatch(file.stem).groups(default="")
        title, about = NOTEBOOKS[notebook]
        if arm:
            title += f": {arm}"
        if seed:
            title += f", seed {seed}"
        place = notebook, arms.index(arm) if arm in arms else -1, arm, seed
        found.append((place, Page(title=title, href=f"{file.stem}.html", about=about)))
    return [page for _, page in sorted(found, key=itemgetter(0))]
