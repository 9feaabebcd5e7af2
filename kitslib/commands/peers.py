"""What the benchmarks found of peers on a study's cases, as rows beside our cascade."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kitslib.config import ROOT, read_json

PEERS = ("nnunet", "monai")  # jobs of `python -m benchmarks`
SAME = 1e-9
FOLDER = ROOT / "reports" / "benchmarks"


def peer_rows(summary: Mapping[str, Any], folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return the peers' rows beside a study, for its index page and README; none where none ran.

    summary: of the study; peers that ran on data of the other kind, real or synthetic, are left
    out. Rows have `system`, `says`, `dice` (the KiTS19 composite), its `ci`, and `n`. Where peers
    were compared with another run than the summary's, its cascade has a row too.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in (folder / f"{name}.json" for name in PEERS):
        report = read_json(file) if file.is_file() else {"tables": [], "conditions": {}}
        about, tables = report["conditions"], {t["title"]: t["rows"] for t in report["tables"]}
        if about.get("data") != ("synthetic" if summary["synthetic"] else "given"):
            continue
        rows = [row for row in tables["Each score beside ours"] if row["score"] == "composite"]
        for row in rows:
            says = f"KiTS19 composite on the test cases of {about['study']}"
            if row["hours"] is not None:
                says += f", after {60 * row['hours']:.0f} min of training"
            elif abs((row["mean"] or 0.0) - (summary["cascade"]["composite"] or 0.0)) < SAME:
                continue  # the page has it
            if row.get("ours minus it") is not None:
                gap, low, high = (row[name] for name in ("ours minus it", "from", "to"))
                says += f"; ours minus it {gap:+.3f}, 95 % {low:+.3f} to {high:+.3f}"
            one = {"system": row["system"], "says": says, "dice": row["mean"], "n": row["n"]}
            found[row["system"]] = one | {"ci": [row["low"], row["high"]]}
    return list(found.values())
