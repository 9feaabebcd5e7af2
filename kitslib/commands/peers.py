"""What the benchmarks found of peers on a study's cases, as rows beside our cascade."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

from kitslib.config import ROOT, read_json

PEERS = ("nnunet", "monai")  # jobs of `python -m benchmarks`
SCORES = ("tk_dice", "tumor_dice", "composite")
SAME = 1e-9
FOLDER = ROOT / "reports" / "benchmarks"


def peer_rows(summary: Mapping[str, Any], folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return the peers' rows of a study, for its index page and README; none where none ran.

    summary: of the study; a peer that ran on another profile's cases is left out. Rows have
    `system`, `hours` (of training), `n`, each of SCORES with its `_ci`, ours minus it as
    `<score>_gap` and `<score>_gap_ci`, `study` (its name and commit when the peer was scored), and
    `current`, whether the cascade that it was compared with has the summary's composite.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in (folder / f"{name}.json" for name in PEERS):
        report = read_json(file) if file.is_file() else {"tables": []}
        study = report.get("conditions", {}).get("study", "")
        tables = {table["title"]: table["rows"] for table in report["tables"]}
        rows = [row for row in tables.get("Each score beside ours", []) if row["score"] in SCORES]
        ours = {row["score"]: row["mean"] for row in rows if row["hours"] is None}
        apart = abs(ours.get("composite", inf) - (summary["cascade"]["composite"] or 0.0))
        if study.partition(", ")[0] != summary["profile"]:
            continue
        for row in (row for row in rows if row["hours"] is not None):
            about = {"system": row["system"], "hours": row["hours"], "n": row["n"]}
            about |= {"study": study, "current": apart < SAME}
            score, scores = row["score"], found.setdefault(row["system"], about)
            scores |= {score: row["mean"], f"{score}_ci": [row["low"], row["high"]]}
            scores |= {f"{score}_gap": row.get("ours minus it")}
            scores |= {f"{score}_gap_ci": [row.get("from"), row.get("to")]}
    return list(found.values())


def in_brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `peer_rows` as the index page shows it: its composite, ours beside it."""
    says = f"KiTS19 composite after {row['hours']:.2g} h of training"
    if row["composite_gap"] is not None:
        low, high = row["composite_gap_ci"]
        says += f"; ours minus it {row['composite_gap']:+.3f}, 95 % {low:+.3f} to {high:+.3f}"
    says += "" if row["current"] else f"; compared with another run ({row['study']})"
    return {
        "system": row["system"], "says": says, "dice": row["composite"],
        "ci": row["composite_ci"], "n": row["n"],
    }  # fmt: skip
