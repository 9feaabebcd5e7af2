"""Tables over arms: numbers that can be checked on paper."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from kitslib.evaluation import (
    PRIMARY,
    arm_means,
    arm_scores,
    case_groups,
    compare_arms,
    estimate,
    holm,
    kidney_means,
    paired_difference,
    variance_shares,
)


def record(seed: int, *dice: float, cysts: tuple = (None, 0.5, 1.5), seconds: float = 10.0) -> dict:
    rows = []
    for case, (score, cyst) in enumerate(zip(dice, cysts, strict=True)):
        scores = {"dice": score, PRIMARY: score - 0.1, "cyst_fp_ml": cyst}
        rows.append({"case": f"case_{case:05d}", **scores})
    return {"rows": rows, "seed": seed, "parameters": 7, "multiply_adds": 9, "train_s": seconds}


def arm(shift: float, seeds: tuple[float, ...], cases: tuple[float, ...]) -> pd.DataFrame:
    """Scores that are a sum of arm, seed and case."""
    return pd.DataFrame(shift + np.array(seeds)[:, None] + np.array(cases))


def test_an_arm_has_the_mean_over_cases_and_seeds_and_its_costs():
    runs = {"full": [record(0, 0.2, 0.4, 0.6), record(3, 0.4, 0.6, 0.8, seconds=20.0)]}
    (row,) = arm_means(runs).to_dict("records")
    assert row["arm"] == "full" and row["says"] and row["seeds"] == [0, 3] and row["n"] == 3
    assert row["dice"] == pytest.approx(0.5) and row["low"] < 0.5 < row["high"]
    assert row[PRIMARY] == pytest.approx(0.4), "before the component step"
    assert (row["all_low"], row["all_high"]) == pytest.approx((row["low"] - 0.1, row["high"] - 0.1))
    assert row["cyst_fp_ml"] == pytest.approx(1.0) and row["train_s"] == 15.0
    assert (row["parameters"], row["multiply_adds"]) == (7, 9)
    assert "only 3 cases" in row["warning"] and "one seed" not in row["warning"]
    assert "one seed" in arm_means({"full": runs["full"][:1]})["warning"][0]


def test_seeds_that_differ_count_in_an_arm_s_interval():
    apart = {"standard": [record(0, 0.2, 0.4, 0.6), record(1, 0.4, 0.6, 0.8)]}
    same = {"standard": [record(0, 0.3, 0.5, 0.7), record(1, 0.3, 0.5, 0.7)]}
    wide, narrow = kidney_means(apart).loc[0], kidney_means(same).loc[0]
    assert wide["dice"] == pytest.approx(narrow["dice"])
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]
    assert wide["says"].startswith("residual sums") and wide["seeds"] == [0, 1]


def test_without_known_cysts_their_volume_is_missing():
    runs = {"baseline": [record(0, 0.2, 0.4, 0.6, cysts=(None, None, None))]}
    assert np.isnan(arm_means(runs)["cyst_fp_ml"]).all()


def test_effects_are_differences_on_the_same_cases_and_seeds():
    scores = {}
    for name, dice in {"baseline": (0.1, 0.2, 0.3), "full": (0.2, 0.4, 0.6)}.items():
        seeds = {seed: record(seed, *dice)["rows"] for seed in (0, 4)}
        scores[name] = arm_scores(seeds, "dice")
    (row,) = compare_arms(scores, [("baseline", "full")]).to_dict("records")
    assert (row["arm"], row["reference"], row["n"], row["seeds"]) == ("full", "baseline", 3, 2)
    assert row["difference"] == pytest.approx(0.2) and row["lo"] < 0.2 < row["hi"]


def test_comparisons_are_corrected_over_the_table():
    draws = np.random.default_rng(0)
    base = draws.random(12) + 0.05 * draws.standard_normal((4, 12))
    arms = {"base": pd.DataFrame(base)}
    for name, gain in (("good", 0.1), ("same", 0.0)):
        arms[name] = arms["base"] + gain + 0.05 * draws.standard_normal((4, 12))
    table = compare_arms(arms, [("base", "good"), ("base", "same")])
    good, same = table.to_dict("records")
    assert good["lo"] > 0 > same["lo"] and [good["arm"], same["arm"]] == ["good", "same"]
    np.testing.assert_allclose(table["p_holm"], holm(table["p"]))
    gap = paired_difference(arms["base"], arms["good"])
    assert (good["p"], good["smallest"]) == pytest.approx((gap.p, gap.smallest_effect))
    with pytest.raises(ValueError, match="other"):
        compare_arms(arms, [("other", "base")])


def test_no_pair_gives_an_empty_table_with_its_columns():
    table = compare_arms({}, [])
    assert table.empty and {"arm", "lo", "hi", "smallest", "warning"} <= set(table)


def test_where_scores_vary_on_paper():
    seeds, cases = (-0.1, 0.1), (-0.3, 0.0, 0.3)
    arms = {"a": arm(0.2, seeds, cases), "b": arm(0.6, seeds, cases)}
    found = variance_shares(arms)
    # arms 0.4² / 2 = 0.08, seeds var(-0.1, 0.1) = 0.02, cases var(-0.3, 0, 0.3) = 0.09, rest 0
    shares = [found[name] for name in ("between arms", "seed", "case", "rest")]
    assert shares == pytest.approx([0.08 / 0.19, 0.02 / 0.19, 0.09 / 0.19, 0.0])
    assert found["sd_between"] == pytest.approx(0.4 / math.sqrt(2))
    assert found["sd_within"] == pytest.approx(math.sqrt(0.02))
    assert found["ratio"] == pytest.approx(2.0)
    assert variance_shares({"a": arms["a"]})["ratio"] is None
    one_seed = {name: scores[:1] for name, scores in arms.items()}
    assert set(variance_shares(one_seed).values()) == {None}


def test_arms_that_differ_by_chance_alone_have_no_share():
    draws, shares = np.random.default_rng(0), []
    for _ in range(40):
        arms = {}
        for name in "abcd":
            seeds, rest = draws.normal(0, 0.1, (4, 1)), draws.normal(0, 0.1, (4, 20))
            arms[name] = pd.DataFrame(seeds + np.linspace(0, 0.5, 20) + rest)
        found = variance_shares(arms)
        assert sum(found[n] for n in ("between arms", "seed", "case", "rest")) == pytest.approx(1)
        shares.append(found["between arms"])
    assert np.median(shares) < 0.05
    assert estimate(arms["a"]).components.seed > 0


def test_cases_are_grouped_by_volume_and_cyst():
    rows = [
        {"case": "a", "tumor_ml": 29.9, "cyst_ml": 0.5},
        {"case": "b", "tumor_ml": 30.0, "cyst_ml": 0.4},
        {"case": "c", "tumor_ml": 90.0, "cyst_ml": None},
    ]
    assert case_groups(rows) == {
        "below 30 ml": {"a"},
        "30 ml and more": {"b", "c"},
        "with a cyst": {"a"},
        "without": {"b"},
    }
    assert list(case_groups([rows[2]])) == ["below 30 ml", "30 ml and more"]
