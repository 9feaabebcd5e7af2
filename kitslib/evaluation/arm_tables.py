"""Tables over the arms of a study: means, groups of cases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kitslib.config import ARMS
from kitslib.evaluation.claims.evidence import LEAST_CYST_ML, Rows, arm_scores
from kitslib.evaluation.claims.rules import SMALL_TUMOR_ML
from kitslib.evaluation.statistics import estimate


def arm_means(runs: Mapping[str, Rows]) -> pd.DataFrame:
    """One row per arm: mean Dice over cases and seeds with its interval, and the arm's costs.

    `runs` maps an arm to the records of its seeds (rows, seed, parameters, multiply_adds,
    train_s). Columns: arm, says (its description), dice, low, high, n, seeds (a list), cyst_fp_ml
    (mean, NaN without known cysts), parameters, multiply_adds, train_s (mean over seeds).
    """
    table = []
    for name, records in runs.items():
        rows = [record["rows"] for record in records]
        dice, cysts = estimate(arm_scores(rows, "dice")), arm_scores(rows, "cyst_fp_ml").to_numpy()
        first, means = records[0], {"arm": name, "says": ARMS[name].description} | dice.row("dice")
        table.append(means | {
            "seeds": [record["seed"] for record in records],
            "cyst_fp_ml": np.mean(cysts[~np.isnan(cysts)]) if cysts.size else np.nan,
            "parameters": first["parameters"], "multiply_adds": first["multiply_adds"],
            "train_s": np.mean([record["train_s"] for record in records]),
        })  # fmt: skip
    return pd.DataFrame(table)


def case_groups(rows: Rows) -> dict[str, set[str]]:
    """Case ids by the tumour's volume and, where cysts are known, by whether there is a cyst.

    `rows` have case, tumor_ml and cyst_ml (None where cysts are not labelled).
    """
    table = pd.DataFrame(rows).set_index("case")
    small, cysts = table["tumor_ml"] < SMALL_TUMOR_ML, table["cyst_ml"].dropna().astype(float)
    groups = {"below 30 ml": small.index[small], "30 ml and more": small.index[~small]}
    if len(cysts):
        groups["with a cyst"] = cysts.index[cysts >= LEAST_CYST_ML]
        groups["without"] = cysts.index[cysts < LEAST_CYST_ML]
    return {title: set(cases) for title, cases in groups.items()}
