"""Commit a finished study: python reports/make_example.py FOLDER.

Its main pages go to reports/example, its summary and every case's scores beside that, and the
index page as Chromium draws it to reports/pictures, for the README.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
from PIL import Image

HERE = Path(__file__).resolve().parent
MOST_MB = 8
LINK = re.compile(
    r'<a (?:[^>]* )?href="([^":/#]+\.(?:html|md|zip|json))[^"]*"[^>]*>(.*?)</a>', re.S
)


def pages(study: Path) -> dict[str, str]:
    """Return the study's main pages by file name.

    A link to any other page becomes its words, the folder that the study lies in "reports". Raises
    ValueError for pages of more than MOST_MB.
    """
    summary = json.loads((study / "summary.json").read_text(encoding="utf-8"))
    arm = "full" if "full" in summary["tumor"] else list(summary["tumor"])[-1]
    tumor = f"03_tumor-{arm}-s{summary['seeds'][0]}"
    stems = ["index", "01_data", "02_kidney", tumor, "04_ablations", "05_evaluation"]
    names = [f"{stem}.html" for stem in [*stems, "rerun", "claim"]]
    found = {name: (study / name).read_text(encoding="utf-8") for name in names}
    for name, text in found.items():
        text = LINK.sub(lambda link: link[0] if link[1] in found else link[2], text)
        found[name] = text.replace(str(study.resolve().parent), "reports")
    if (size := sum(len(text.encode()) for text in found.values())) > MOST_MB * 1e6:
        raise ValueError(f"{study}: its pages take {size / 1e6:.1f} MB, at most {MOST_MB} are kept")
    return found


def scores(study: Path) -> bytes:
    """Return the scores of all records as CSV, compressed: a row for each record and case."""
    rows = []
    for file in sorted((study / "work" / "records").glob("0[235]*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        head = {"record": file.stem, "arm": record.get("arm", ""), "seed": record.get("seed", "")}
        rows += [head | row for row in record.get("rows") or []]
    text = pd.DataFrame(rows).round(4).to_csv(index=False, lineterminator="\n")
    return gzip.compress(text.encode(), mtime=0)  # the same study gives the same bytes


def screenshot(page: Path, picture: Path) -> None:
    """Write the first screen of a page as a picture, 1280 pixels wide."""
    drawn = picture.with_suffix(".png")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += ["--hide-scrollbars", "--window-size=1280,1000", f"--screenshot={drawn}"]
    subprocess.run(["chromium", *options, page.as_uri()], check=True, capture_output=True)
    Image.open(drawn).convert("RGB").save(picture, quality=85)
    drawn.unlink()


def main(study: Path, place: Path = HERE) -> None:
    """Write example/, pictures/, summary.json and scores.csv.gz into `place`."""
    shown, rows, folder = pages(study), scores(study), place / "example"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in shown.items():
        (folder / name).write_text(text, encoding="utf-8")
    (place / "scores.csv.gz").write_bytes(rows)
    shutil.copyfile(study / "summary.json", place / "summary.json")
    screenshot(folder / "index.html", place / "pictures" / "index.jpg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
