"""Rows of scores as a summary, a table on screen, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence

from kitslib.evaluation.metrics.scores import Row
from kitslib.evaluation.metrics.statistics import estimate

SHOWN: dict[str, str] = {
    "tk_dice": "TK",
    "tumor_dice": "tumour",
    "composite": "composite",
    "kits23_dice": "KiTS23",
    "kits23_surface_dice": "surface",
    "hd95_kidney_mm": "HD95 TK mm",
    "hd95_tumor_mm": "HD95 tum mm",
    "tumor_fp_ml": "FP ml",
    "cyst_fp_ml": "in cyst ml",
}


def summarise(rows: Sequence[Row]) -> dict[str, object]:
    """Mean of each score over the cases in which it is defined, with its bootstrap 95 % interval.

    rows: from `score_case`. Returns `n` (cases), `warning` and `metrics`: name → `mean`, `ci`, `n`,
    `undefined`. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("there must be at least one scored case to summarise, got none")
    names = [name for name in rows[0] if name != "case"]
    found = {name: estimate([float(row[name]) for row in rows]) for name in names}
    metrics = {
        name: {"mean": e.value, "ci": list(e.ci), "n": e.n, "undefined": e.undefined}
        for name, e in found.items()
    }
    return {"n": len(rows), "warning": estimate([0.0] * len(rows)).warning, "metrics": metrics}


def format_rows(rows: Sequence[Row]) -> str:
    """The main scores as text: one line per case, then mean and interval; `–` where undefined."""
    summary = summarise(rows)
    metrics = summary["metrics"]
    lines = [["case", *SHOWN.values()]]
    lines += [[str(row["case"]), *(_number(row[name]) for name in SHOWN)] for row in rows]
    lines.append(["mean", *(_number(metrics[name]["mean"]) for name in SHOWN)])
    for bound, title in enumerate(("95 % from", "95 % to")):
        lines.append([title, *(_number(metrics[name]["ci"][bound]) for name in SHOWN)])
    lines.append(["cases", *(str(metrics[name]["n"]) for name in SHOWN)])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    text = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*text, *([summary["warning"]] if summary["warning"] else [])])


def rows_to_csv(rows: Sequence[Row]) -> str:
    """Every score of every case as CSV with a header line; an undefined value is an empty cell."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, fieldnames=list(rows[0]) if rows else ["case"], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(
        [{name: "" if _undefined(v) else v for name, v in row.items()} for row in rows]
    )
    return out.getvalue()


def rows_to_json(rows: Sequence[Row], summary: Mapping[str, object]) -> str:
    """Cases and summary as strict JSON: `{"cases": [...], "summary": {...}}`; an undefined value is null."""
    return json.dumps(_plain({"cases": list(rows), "summary": summary}), indent=1, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if _undefined(value) else value


def _undefined(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _number(value: object) -> str:
    return "–" if _undefined(value) else f"{value:.3f}"
