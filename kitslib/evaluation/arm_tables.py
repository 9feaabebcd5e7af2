"""Tables over the arms of a study: means, differences, variances, groups of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kitslib.config import ARMS, KIDNEY_ARMS
from kitslib.evaluation.claims.evidence import LEAST_CYST_ML, PRIMARY, Rows, arm_scores
from kitslib.evaluation.claims.ledger import parts
from kitslib.evaluation.claims.rules import SMALL_TUMOR_ML
from kitslib.evaluation.metrics.tables import plain
from kitslib.evaluation.statistics import NAN, estimate, holm, paired_difference

Records = Sequence[Mapping[str, Any]]  # of an arm's seeds: rows, seed, parameters, train_s
ABOUT = {name: arm.description for name, arm in {**KIDNEY_ARMS, **ARMS}.items()}


def arm_means(runs: Mapping[str, Records]) -> pd.DataFrame:
    """Return a row per tumour arm: mean Dice over cases and seeds, and the arm's costs.

    runs: the records of each arm's seeds, which have `multiply_adds` too. Columns: those of
    `kidney_means`, `dice_all_components`, `all_low`, `all_high` (before the component step),
    `cyst_fp_ml` (mean, NaN without known cysts) and `multiply_adds`.
    """
    table = kidney_means(runs)
    more = []
    for records in runs.values():
        before = estimate(_scores(records, PRIMARY))
        cysts = _scores(records, "cyst_fp_ml").to_numpy()
        more.append({
            PRIMARY: before.value, "all_low": before.ci[0], "all_high": before.ci[1],
            "cyst_fp_ml": np.mean(cysts[~np.isnan(cysts)]) if cysts.size else NAN,
            "multiply_adds": records[0]["multiply_adds"],
        })  # fmt: skip
    return pd.concat([table, pd.DataFrame(more, index=table.index)], axis=1)


def kidney_means(runs: Mapping[str, Records]) -> pd.DataFrame:
    """Return a row per arm: mean Dice over cases and seeds with its interval, and its costs.

    Columns: `arm`, `says` (its description), `dice`, `low`, `high`, `n`, `seeds` (a list),
    `parameters`, `train_s` (mean over seeds), `warning`.
    """
    table = []
    for name, records in runs.items():
        mean = estimate(_scores(records, "dice"))
        table.append({
            "arm": name, "says": ABOUT[name], **mean.row("dice"),
            "seeds": [record["seed"] for record in records],
            "parameters": records[0]["parameters"],
            "train_s": np.mean([record["train_s"] for record in records]),
            "warning": mean.warning,
        })  # fmt: skip
    return pd.DataFrame(table)


def arm_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what summary.json says of each arm, from the rows of `arm_means` as recorded.

    Keys: `dice`, `dice_ci`, `dice_all_components`, `dice_all_components_ci`, `n`, `seeds`,
    `cyst_fp_ml`, `parameters`, `train_s`.
    """
    kept = "dice", PRIMARY, "n", "seeds", "cyst_fp_ml", "parameters", "train_s"
    arms = {}
    for row in rows:
        intervals = {"dice_ci": [row["low"], row["high"]]}
        intervals[f"{PRIMARY}_ci"] = [row["all_low"], row["all_high"]]
        arms[row["arm"]] = intervals | {name: row[name] for name in kept}
    return arms


def compare_arms(
    arms: Mapping[str, ArrayLike | pd.DataFrame], pairs: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """Return a row per pair (reference, arm) with Holm's correction over all of them.

    Columns: `arm`, `reference`, `difference`, `lo`, `hi`, `p`, `p_holm`, `smallest` (the effect
    shown with 80 % power), `n`, `seeds`, `warning`. Raises ValueError for an arm that is missing.
    """
    if absent := set().union(*pairs) - set(arms):
        raise ValueError(f"pairs name {sorted(absent)}; the arms are {sorted(arms)}")
    columns = "arm reference difference lo hi p smallest n seeds warning"
    rows = []
    for reference, name in pairs:
        d = paired_difference(arms[reference], arms[name])
        effects = d.value, *d.ci, d.p, d.smallest_effect
        rows.append((name, reference, *effects, d.n, d.seeds, d.warning))
    table = pd.DataFrame(rows, columns=columns.split())
    table.insert(6, "p_holm", holm(table["p"]))
    return table


def variance_shares(arms: Mapping[str, pd.DataFrame]) -> dict[str, float | None]:
    """Return where scores vary, as shares of the variance, and how far apart arms lie.

    arms: tables (seeds, cases); those of one seed or one case are left out, and with fewer than
    two others all is None. Keys: `between arms`, `seed`, `case` and `rest` (a seed on a case),
    which add up to 1; `sd_between`, the standard deviation of the arms' means; `sd_within`, that
    of the seeds' means within an arm; their `ratio`. Source of the ratio: Isensee et al. 2024,
    arXiv 2404.09556.
    """
    names = "between arms", "seed", "case", "rest", "sd_between", "sd_within", "ratio"
    kept = [scores for scores in arms.values() if min(scores.shape) > 1]
    if len(kept) < 2:
        return dict.fromkeys(names)
    gaps = [paired_difference(*pair) for pair in combinations(kept, 2)]
    between = np.mean([(gap.value**2 - gap.se**2) / 2 for gap in gaps])
    inside = np.mean([estimate(scores).components for scores in kept], axis=0)  # (3,)
    variances = np.array([max(0.0, between), *inside])
    sd_between = np.std([scores.to_numpy().mean() for scores in kept], ddof=1)
    sd_within = np.sqrt(np.mean([scores.mean(axis=1).var() for scores in kept]))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = *(variances / variances.sum()), sd_between, sd_within, sd_between / sd_within
    return plain(dict(zip(names, map(float, values), strict=True)))


def without_effect(effects: pd.DataFrame) -> str:
    """Return, as Markdown, a line for each row of `compare_arms` that shows no gain."""
    lines = []
    for one in effects[~(effects["lo"] > 0)].to_dict("records"):
        end = "worse" if one["hi"] < 0 else "the interval includes zero, so no effect is shown"
        lines.append(
            f"- **{one['arm']}** against {one['reference']}: {one['difference']:+.3f} "
            f"[{one['lo']:+.3f}, {one['hi']:+.3f}], n = {one['n']}, seeds = {one['seeds']}: {end}."
        )
    return "\n".join(lines) or f"All {len(effects)} comparisons have an interval above zero."


def mechanism_places() -> dict[str, str]:
    """Return, for each mechanism of the paper, the row of the ledger that says what it is worth."""
    places = {}
    for number, letter, part in parts():
        if mechanism := getattr(part.rule, "keywords", {}).get("mechanism"):
            places[mechanism] = f"{number}{letter}"
    return places


def kidney_summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what summary.json says of the kidney network, from its record.

    Keys: `dice`, `dice_ci`, `n`, `worst`, `train_s`.
    """
    scores = pd.DataFrame(record["rows"])["dice"]
    mean = estimate(scores)
    found = {"dice": mean.value, "dice_ci": mean.ci, "n": mean.n, "worst": float(scores.min())}
    return plain(found | {"train_s": record["train_s"]})


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


def _scores(records: Records, column: str) -> pd.DataFrame:
    return arm_scores({record["seed"]: record["rows"] for record in records}, column)
