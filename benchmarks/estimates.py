"""What preflight measured and reckoned on some machine, as tables: stages that cost alike as one.

Reads what `python -m kitslib preflight --profile day --json FILE` wrote there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._measure import Report, Table, command, parser
from kitslib.config import read_json


def rows(estimate: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each stage, the longest of those of one name and content, and one of the whole."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for cost in [*estimate["costs"], estimate]:
        about = cost["stage"], cost["what"]
        known = found.get(about)
        if known is None or known["h"] < cost["seconds"] / 3600:
            stage, what = about
            found[about] = {"stage": stage, "what": what, "h": cost["seconds"] / 3600}
            for name in ("memory", "gpu", "disk"):
                found[about][f"{name}, GB"] = cost[name] / 1e9
    return list(found.values())


def main(arguments: Sequence[str]) -> int:
    """Read the estimates, and publish a table of each."""
    options = parser("estimates", __doc__, threads=1, repeats=1)
    options.add_argument("files", type=Path, nargs="+", help="of preflight --json")
    args = options.parse_args(arguments)
    tables, machines = [], {}
    for path in args.files:
        found, title = read_json(path), path.stem.removeprefix("preflight_")
        machines[title], *_ = found["machine"]["what"].split(";")
        note = "With what keeps it from fitting: " + "; ".join(found["estimate"]["problems"])
        note = note if found["estimate"]["problems"] else "It fits."
        tables.append(Table(title=title, note=note, rows=rows(found["estimate"])))
    Report(
        name="estimates",
        question="What would the profiles take on that machine?",
        command=command("estimates", arguments),
        conditions=machines,
        tables=tables,
        bounds=[],
    ).publish(args.out)
    return 0
