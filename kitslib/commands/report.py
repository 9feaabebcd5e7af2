"""`report`: pages of executed notebooks, and the index page of a profile."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kitslib.commands.line import command

if TYPE_CHECKING:
    from kitslib.reporting import Page

TITLES = {
    "01_data": "01 Data",
    "02_kidney": "02 Kidneys",
    "03_tumor": "03 Tumours",
    "04_ablations": "04 Ablations",
    "05_evaluation": "05 Verdict",
}

ASKS = {  # what each notebook asks, as the index page says it
    "01_data": "Is the data sound, and what does it cost to move it onto the networks' grids?",
    "02_kidney": "Does the 3D ResUNet find the kidneys, and in a real CT too?",
    "03_tumor": "What does this arm find inside the kidneys?",
    "04_ablations": "What is each mechanism worth?",
    "05_evaluation": "What does the cascade score, and which claims hold?",
}


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command's words."""
    made = command(commands, "report", run)
    made.add_argument(
        "notebook", type=Path, nargs="?", metavar="NOTEBOOK", help="an executed notebook"
    )
    made.add_argument("html", type=Path, nargs="?", metavar="HTML", help="the page to write")
    made.add_argument(
        "--index", type=Path, metavar="FOLDER", help="write the index page of reports/<profile>"
    )
    made.add_argument(
        "--readme",
        type=Path,
        metavar="SUMMARY",
        help="write the results of a summary.json into README",
    )


def run(args: argparse.Namespace) -> int:
    """Turn an executed notebook into an offline page, a profile's records into its index page or the README's table."""
    from kitslib.config import ROOT, read_json, write_text
    from kitslib.data import CaseError
    from kitslib.reporting import to_html, with_results

    if args.index:
        print(_index(args.index))
        return 0
    if args.readme:
        text = with_results(
            (ROOT / "README.md").read_text(encoding="utf-8"), read_json(args.readme)
        )
        write_text(ROOT / "README.md", text)
        return 0
    if not (args.notebook and args.html):
        raise CaseError("report needs NOTEBOOK and HTML, --index FOLDER or --readme SUMMARY")
    print(write_text(args.html, to_html(args.notebook)))
    return 0


def _index(folder: Path) -> Path:
    from kitslib.config import write_json, write_text
    from kitslib.reporting import index_html
    from kitslib.training import summary

    found = summary(folder)
    names = {path.stem for path in (folder / "work" / "records").glob("*.json")}
    arms = list(found["tumor"])
    pages = [_page(name) for name in sorted(names, key=lambda name: _place(name, arms))]
    data = (
        "Synthetic CT, rendered for this study"
        if found["synthetic"]
        else "The cases of the folder given"
    )
    write_json(folder / "summary.json", found)
    picture = folder / "picture.jpg"
    html = index_html(
        found,
        pages,
        data=f"{data}: {found['cases']} cases, {found['cascade']['n']} of them seen by neither network.",
        picture=picture if picture.is_file() else None,
        picture_alt="CT slices of the worst, median and best test case with labels and predictions.",
        picture_caption="Worst, median and best test case: label tinted, prediction outlined.",
    )
    return write_text(folder / "index.html", html)


def _parts(name: str) -> tuple[str, str, str]:
    """Notebook, arm and seed of a page: `03_tumor-full-s1` is 03_tumor, full, 1; "" where there is none."""
    notebook, _, rest = name.partition("-")
    arm, dash, seed = rest.rpartition("-s")
    return (notebook, arm, seed) if dash and seed.isdigit() else (notebook, rest, "")


def _place(name: str, arms: list[str]) -> tuple[str, int, str, str]:
    """Sorts the pages by notebook, then by arm as the summary has them, then by seed."""
    notebook, arm, seed = _parts(name)
    return notebook, arms.index(arm) if arm in arms else -1, arm, seed


def _page(name: str) -> Page:
    from kitslib.reporting import Page

    notebook, arm, seed = _parts(name)
    title = TITLES[notebook] + (f": {arm}" if arm else "") + (f", seed {seed}" if seed else "")
    return Page(title=title, href=f"{name}.html", about=ASKS[notebook])
