"""What a finished study found, without times, dates and commit, so that two can be compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bs4 import BeautifulSoup

from kitslib.config import read_json

TIMES = {  # keys of JSON
    "began", "commit", "date", "ended", "peak_mb", "processor_s", "seconds", "train_s", "wall_s",
}  # fmt: skip
TIME_FACTS = ("Date", "Duration", "Commit")  # of a page's head
SPAN = re.compile(r"(?: · )?(?:\d+ h \d\d min|\d+ min \d\d s|\d[\d.,]* (?:s|MB)\b)")
SECONDS = re.compile(r"seconds|, s\b|\bs a case\b|Training$")  # heads a column, names a number
ON_THE_WAY = re.compile(r"epoch +\d+/|.*: (resumed after epoch|finished before)")


def findings(folder: Path) -> dict[str, Any]:
    """Return all that a study found, from the folder of its pages: by kind, file and place.

    Kinds: summary, records, weights, histories and arrays of the runs, pages (their text) and
    pictures. Weights and pictures are told by their hashes, pages line by line.
    """
    runs = folder.parent / "work" / "runs"
    found: dict[str, Any] = {"summary": timeless(read_json(folder / "summary.json"))}
    found |= {kind: {} for kind in ("records", "weights", "histories", "arrays")}
    for path in sorted((folder / "work" / "records").glob("*.json")):
        found["records"][path.stem] = timeless(read_json(path))
    for path in [*runs.glob("*/*.safetensors"), *folder.glob("models/*/*.safetensors")]:
        found["weights"][f"{path.parent.name}/{path.name}"] = digest(path.read_bytes())
    for path in sorted(runs.glob("*/history.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found["histories"][path.parent.name] = timeless(rows)
    for path in sorted(runs.glob("*/*.npz")):
        with np.load(path) as arrays:
            hashes = {name: digest(array.tobytes()) for name, array in arrays.items()}
        found["arrays"][f"{path.parent.name}/{path.name}"] = hashes
    found |= {"pages": {}, "pictures": {}}
    for path in sorted(folder.glob("*.html")):
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        found["pictures"][path.stem] = timeless(pictures(soup))
        found["pages"][path.stem] = timeless(page_lines(soup))
    return found


def timeless(value: Any) -> Any:
    """Return JSON without the keys of TIMES; lists become mappings from their places."""
    if isinstance(value, list):
        value = {str(place): item for place, item in enumerate(value)}
    if not isinstance(value, Mapping):
        return value
    return {name: timeless(item) for name, item in value.items() if name not in TIMES}


def digest(content: bytes) -> str:
    """Return 16 hex digits that change with any bit."""
    return hashlib.sha256(content).hexdigest()[:16]


def pictures(soup: BeautifulSoup) -> list[str]:
    """Return a hash of each picture of a page that does not show times."""
    found = []
    for image in soup("img"):
        if "seconds" not in image.get("alt", ""):
            found.append(digest(image["src"].encode()))
    return found


def page_lines(soup: BeautifulSoup) -> list[str]:
    """Return the text of a page line by line, without times and what a training says on its way.

    Takes the times out of `soup`.
    """
    for tag in soup(["script", "style"]):
        tag.decompose()
    for fact in soup.select(".facts div"):
        if fact.dt.get_text() in TIME_FACTS:
            fact.decompose()
    for box in soup.select(".number"):
        if SECONDS.search(box.dt.get_text()):
            box.decompose()
    for table in soup("table"):
        for row in table("tr"):
            if SECONDS.fullmatch(row.find(["th", "td"]).get_text(strip=True)):
                row.decompose()
        rows = [row.find_all(["th", "td"]) for row in table("tr")]
        for back, head in enumerate(reversed(rows[0]) if table.thead else [], start=1):
            if SECONDS.search(head.get_text(strip=True)):
                for row in rows:
                    row[-back].string = ""
    lines = []
    for line in soup.get_text("\n").splitlines():
        line = SPAN.sub("", line).strip()
        if line and not ON_THE_WAY.match(line):
            lines.append(line)
    return lines


def count(value: Any) -> int:
    """Return how many single values findings hold."""
    if isinstance(value, Mapping):
        return sum(count(item) for item in value.values())
    return 1
