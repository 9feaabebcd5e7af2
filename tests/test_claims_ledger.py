"""The ledger as a whole: Holm's correction, 14 claims, stability, published numbers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_claims import BASE, CASES, DICE, ROWS, SHIFTS, STRONG, VERDICTS, WIDE, N, arm, tumor

from kitslib.evaluation import (
    PRIMARY,
    PUBLISHED,
    WORST,
    Evidence,
    beside_published,
    claims_of,
    false_claim_probability,
    holm,
    ledger,
    paper_evidence,
    smallest_credible,
    stability,
)


def noisy(seed: int) -> Evidence:
    """Arms without any effect, six seeds: what is decided is decided by chance or by the band."""
    draws = np.random.default_rng(seed)
    arms = {}
    for name in SHIFTS:
        seeds, rest = draws.normal(0, 0.03, (6, 1)), draws.normal(0, 0.1, (6, N))
        arms[name] = pd.DataFrame(BASE + seeds + rest, index=range(6), columns=CASES)
    return replace(STRONG, tumor=dict.fromkeys(STRONG.tumor, arms))


def test_the_ledger_adjusts_by_holm_over_its_rows_on_trainings():
    decided_alone = 0
    for seed in range(6):
        rows = ledger(noisy(seed))
        trained = [one for one in rows if one["number"] > 3 and one["p"] is not None]
        assert [one["p_adjusted"] for one in trained] == pytest.approx(
            holm([one["p"] for one in trained])
        )
        for one in trained:
            assert (one["verdict"] != "undecided") == (one["p_adjusted"] <= 0.05)
            assert (one["verdict_unadjusted"] != "undecided") == (one["p"] <= 0.05)
            if one["verdict"] != one["verdict_unadjusted"]:
                decided_alone += 1
                assert "%, which so many rows ask for" in one["reason"]
        for one in rows[:4]:
            assert one["p_adjusted"] == one["p"], "labels and HU are no part of the family"
    assert decided_alone > 0


def test_the_worst_row_decides_a_claim():
    assert set(WORST) == {*VERDICTS, "reproduced"}
    rows = ledger(STRONG)
    for worse, better in pairwise(WORST):
        for one in rows:
            is_11a = one["number"] == 11 and one["part"] == "a"
            one["verdict"] = worse if is_11a else better
        claims = {one["number"]: one for one in claims_of(rows)}
        assert (claims[11]["verdict"], claims[12]["verdict"]) == (worse, better)
        assert claims[11]["claim"].startswith("HDC helps, the bottom is its best level")


def test_rows_of_the_summary_are_strict_json():
    rows = [*ledger(STRONG), *ledger(Evidence(synthetic=True)), *ledger(noisy(0))]
    read = json.loads(json.dumps(rows, allow_nan=False))
    assert read[0].keys() == {
        "number", "part", "claim", "verdict", "verdict_unadjusted", "value", "ci", "n", "seeds",
        "measure", "unit", "p", "p_adjusted", "band", "within_002", "smallest_effect", "needed",
        "components", "warning", "reason",
    }  # fmt: skip
    assert all(one["measure"] for one in read)
    assert read[len(ROWS)]["value"] is None and read[len(ROWS)]["ci"] == [None, None]


def test_a_verdict_is_firm_where_other_readings_give_it_too():
    table = stability(STRONG).set_index("row")
    assert " ".join(table.index) == "6a 6b 7 8 9 10 11a 11b 12a 12b 13a"
    assert set(table["same"]) == {"5 of 5"}
    flipped = tumor("surface_dice", multi_scale=arm(-0.1))
    hits = {**DICE, "multi_scale": arm(0.03, WIDE)}
    flipped = replace(flipped, tumor={**flipped.tumor, "hit": hits})
    found = stability(flipped).set_index("row").loc["8"]
    assert (found["all components"], found["surface Dice"]) == ("reproduced", "contradicted")
    assert (found["tumour hit"], found["same"]) == ("undecided", "3 of 5")


def test_two_cases_alone_do_not_make_a_firm_verdict():
    worst = BASE.argsort()[:2]
    pushed = DICE["baseline"].copy()
    pushed.iloc[:, worst] += 0.15  # the two worst cases alone gain
    found = stability(tumor(multi_scale=pushed + 0.001)).set_index("row").loc["8"]
    assert found["without the 2 worst cases"] == "practically equal" != found["all components"]
    assert found["median over cases"] == "practically equal"


def test_a_column_that_was_not_scored_is_not_testable():
    bare = replace(STRONG, tumor={PRIMARY: DICE})
    found = stability(bare).set_index("row").loc["8"]
    assert found["surface Dice"] == found["tumour hit"] == "not testable here"
    assert found["same"] == "2 of 5"
    few = replace(
        STRONG, tumor={PRIMARY: {name: DICE[name] for name in ("baseline", "multi_scale")}}
    )
    assert list(stability(few)["row"]) == ["8"], "what was not tested is not firm"
    none = stability(replace(STRONG, tumor={PRIMARY: {}}))
    assert none.empty and "row" in none


def test_how_probable_a_false_claim_is_on_paper():
    assert false_claim_probability(0.0, 15, 0.2) == 0.5
    sample = stats.norm.ppf((np.arange(15) + 0.5) / 15)
    sample = 0.08 + 0.2 * (sample - sample.mean()) / sample.std(ddof=1)
    expected = stats.ttest_1samp(sample, 0.0, alternative="greater").pvalue
    assert false_claim_probability(0.08, 15, 0.2) == pytest.approx(expected)
    least = smallest_credible(15, 0.2)
    assert false_claim_probability(least, 15, 0.2) == pytest.approx(0.05)
    assert least == pytest.approx(1.761 * 0.2 / math.sqrt(15), rel=1e-3)
    table = paper_evidence().set_index("sd")
    assert table.index.to_list() == [0.1, 0.2, 0.3]
    assert table.loc[0.2, "least"] == pytest.approx(least)
    expected = false_claim_probability(0.25, 15, 0.3)
    assert table.loc[0.3, "p_false_13"] == pytest.approx(expected)


def test_a_mean_of_kits23_does_not_stand_under_kits19_s_composite():
    kits19, kits23 = ["tk_dice", "tumor_dice", "composite"], ["kits23_dice", "kits23_surface_dice"]
    for _, row in PUBLISHED.iterrows():
        given, other = kits19, kits23
        if row["challenge"] == "KiTS23":
            given, other = kits23, kits19
        values = row[given].dropna()
        assert len(values) and values.between(0, 1).all(), row["system"]
        assert row[other].isna().all(), row["system"]
        if row[kits19].notna().all():
            mean = (row["tk_dice"] + row["tumor_dice"]) / 2
            assert row["composite"] == pytest.approx(mean, abs=0.001), row["system"]


def test_ours_stands_beside_the_published_in_the_columns_of_both_challenges():
    ours = {"system": "ours", "composite": 0.5, "kits23_dice": 0.4, "kits23_surface_dice": 0.3}
    table = beside_published(ours).set_index("system")
    assert len(table) == len(PUBLISHED) + 1
    winner = table.loc["winner (Auto3DSeg)"]
    assert (winner["challenge"], winner["kits23_dice"]) == ("KiTS23", 0.835)
    assert winner["kits23_surface_dice"] == 0.723 and pd.isna(winner["composite"])
    assert table.loc["ours", "kits23_surface_dice"] == 0.3
    assert table["note"].str.contains("15 cases").sum() == 2
