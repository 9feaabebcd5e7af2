"""`report`: pages of executed notebooks, the index page of a study, two studies compared."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

# what a command does not use of them is not loaded
from kitslib import evaluation, reporting, training
from kitslib.commands import cards, claim, crate, followed
from kitslib.commands.compare import Summary, by_place, compare, in_words, load
from kitslib.commands.followed import NOTEBOOKS
from kitslib.commands.peers import peer_rows
from kitslib.config import ARMS, KIDNEY_ARMS, ROOT, deviations, read_json, write_json, write_text
from kitslib.data import CaseError

RECORD = re.compile(r"([^-]+)(?:-(.+?))??(?:-s(\d+))?")  # 03_tumor-full-s1: notebook, arm, seed


def add(parser: argparse.ArgumentParser) -> None:
    argument = parser.add_argument
    argument("notebook", type=Path, nargs="?", metavar="NOTEBOOK", help="an executed notebook")
    argument("html", type=Path, nargs="?", metavar="HTML", help="the page to write")
    argument("--index", type=Path, metavar="DIR", help="write the index page of reports/<profile>")
    argument("--second", type=Path, metavar="B", help="with --index: a study to stand beside it")
    argument("--readme", type=Path, metavar="FILE", help="write a summary.json's results to README")
    words = "compare two studies (folder or summary.json); status 1 where verdicts contradict"
    argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help=words)
    argument("--out", type=Path, metavar="FILE", help="write that comparison to a file as well")


def run(args: argparse.Namespace) -> int:
    """Write a notebook's page, a study's index page or README's table; or compare two studies."""
    sys.modules.setdefault("rfc3987_syntax", None)  # a grammar, unused here: seconds to load
    if args.second and not args.index:
        raise CaseError("report: --second goes with --index DIR")
    if args.index:
        print(index(args.index, args.second and load(args.second)))
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
        print(write_text(args.html, page_html(args.notebook)))
    else:
        raise CaseError("report: give NOTEBOOK HTML, --index DIR, --readme FILE or --compare A B")
    return 0


def page_html(notebook: Path) -> str:
    """Return a notebook's page, with its record and the arms' pages where they lie beside it."""
    records = notebook.parent.parent / "records"
    file = records / f"{notebook.stem}.json"
    record = read_json(file) if file.is_file() else None
    links = {}
    told = record and notebook.stem.startswith(("04", "05"))  # their rows are arms
    for page in pages(records, []) if told else []:
        links |= {RECORD.fullmatch(Path(arm.href).stem)[2]: arm.href for arm in page.arms}
    return reporting.to_html(notebook, record, links)


def index(folder: Path, second: Summary | None = None) -> Path:
    """Write summary.json, the index page and those that come with it; return the index page.

    The chapters' places for what a mechanism is worth are filled. `second`: of a study to compare.
    """
    found, records = training.summary(folder), followed.read_records(folder)
    config = records["05_evaluation"]["config"]
    found |= {"deviations": deviations(config), "seeds": config["seeds"]}
    if found["synthetic"]:
        found["cohort_seed"] = config["cohort"]["seed"]
    real = [row["dice"] for row in found.get("real") or []]
    if len(real) >= evaluation.MIN_CASES:
        found["real_ci"] = evaluation.estimate(real).ci
    compared = records.get("04_ablations", {}).get("effects", [])
    found["effects"] = followed.effects(found["claims"], compared)
    found["peers"] = peer_rows(found)
    if second:
        found["second"] = f"A second study (B) beside this one (A): {in_words(found, second)}"
        for place, row in by_place(found["claims"]).items():
            row["second"] = by_place(second["claims"]).get(place, {}).get("verdict", "–")
    write_json(folder / "summary.json", found)
    for page in folder.glob("0*.html"):
        text = page.read_text(encoding="utf-8")
        if (filled := reporting.with_effects(text, found["effects"])) != text:
            write_text(page, filled)
    synthetic, given = "Synthetic CT, rendered for this study", "The cases of the folder given"
    words = f"{synthetic if found['synthetic'] else given}: {found['cases']} cases, "
    words += f"{found['cascade']['n']} of them seen by neither network."
    listed = pages(folder / "work" / "records", list(found["tumor"]))
    listed += cards.write_cards(folder, found, records, words)
    write_text(folder / followed.RERUN, followed.rerun_page(folder, found, records))
    listed.append(claim.write_claim(folder, found, records))
    listed.append(reporting.Page(title="RO-Crate", href=crate.CRATE, about=crate.ABOUT))
    picture = folder / "picture.jpg"
    html = reporting.index_html(
        found, listed, data=words, picture=picture if picture.is_file() else None,
        sources=followed.sources(found, records), rerun=followed.RERUN,
    )  # fmt: skip
    page = write_text(folder / "index.html", html)
    crate.write_crate(folder, found, records)
    return page


def pages(folder: Path, arms: list[str]) -> list[reporting.Page]:
    """Return the chapters of a folder of records, their arms in the order of `arms` folded in.

    An arm has one page, of the study's first seed; its other seeds have records alone.
    """
    found: dict[str, dict[tuple, reporting.Page]] = {}
    for file in folder.glob("*.json"):
        notebook, arm, seed = RECORD.fullmatch(file.stem).groups(default="")
        chapter = found.setdefault(notebook, {})
        if arm and int(seed) != read_json(file)["config"]["seeds"][0]:
            continue
        chapter[arms.index(arm) if arm in arms else -1, arm] = page_of(file.stem)
    chapters = []
    for notebook, listed in sorted(found.items()):
        own = listed.pop((-1, ""), None)
        title, about = NOTEBOOKS[notebook]
        folded = tuple(listed[place] for place in sorted(listed))
        href = own.href if own else ""
        chapters.append(reporting.Page(title=title, href=href, about=about, arms=folded))
    return chapters


def page_of(name: str) -> reporting.Page:
    """Return how the index lists the page of a record."""
    notebook, arm, seed = RECORD.fullmatch(name).groups(default="")
    title, about = NOTEBOOKS[notebook]
    if arm:
        title, about = f"{title}: {arm}, seed {seed}", described(notebook, arm)
    return reporting.Page(title=title, href=f"{name}.html", about=about)


def described(notebook: str, arm: str) -> str:
    """Return what an arm is; "" for one that this code does not know."""
    known = KIDNEY_ARMS if notebook == "02_kidney" else ARMS
    return known[arm].description if arm in known else ""
