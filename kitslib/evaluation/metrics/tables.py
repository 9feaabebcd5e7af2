"""Rows of scores as a summary, CSV and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kitslib.evaluation.metrics.scores import Row
from kitslib.evaluation.statistics import estimate, small_sample_warning


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Return each score's mean over the cases in which it is defined, with its 95 % interval.

    rows: from `score_case`. Returns `n` (cases), `warning` and `metrics`: name → `mean`, `ci`,
    `n`, `undefined`. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("there must be at least one scored case to summarise, got none")
    metrics = {}
    for name, values in pd.DataFrame(rows).drop(columns="case").items():
        e = estimate(values.to_numpy(float))
        metrics[name] = {"mean": e.value, "ci": list(e.ci), "n": e.n, "undefined": e.undefined}
    return {"n": len(rows), "warning": small_sample_warning(len(rows)), "metrics": metrics}


def rows_to_csv(rows: Sequence[Row]) -> str:
    """Return all scores of all cases as CSV with a header; an undefined value is an empty cell."""
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")


def rows_to_json(rows: Sequence[Row], summary: Mapping[str, object]) -> str:
    """Return strict JSON, `{"cases": [...], "summary": {...}}`; an undefined value is null."""
    return json.dumps(plain({"cases": rows, "summary": summary}), indent=1, allow_nan=False)


def plain(value: Any) -> Any:
    """Return a value as strict JSON can hold it: tuples as lists, undefined numbers as None."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
