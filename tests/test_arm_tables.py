"""Tables over arms: numbers that can be checked on paper."""

from __future__ import annotations

import numpy as np
import pytest

from kitslib.evaluation import arm_means, arm_scores, case_groups, compare_arms


def record(seed: int, *dice: float, cysts: tuple = (None, 0.5, 1.5), seconds: float = 10.0) -> dict:
    rows = []
    for case, (score, cyst) in enumerate(zip(dice, cysts, strict=True)):
        rows.append({"case": f"case_{case:05d}", "dice": score, "cyst_fp_ml": cyst})
    return {"rows": rows, "seed": seed, "parameters": 7, "multiply_adds": 9, "train_s": seconds}


def test_an_arm_has_the_mean_over_cases_and_seeds_and_its_costs():
    runs = {"full": [record(0, 0.2, 0.4, 0.6), record(3, 0.4, 0.6, 0.8, seconds=20.0)]}
    (row,) = arm_means(runs).to_dict("records")
    assert row["arm"] == "full" and row["says"] and row["seeds"] == [0, 3] and row["n"] == 3
    assert row["dice"] == pytest.approx(0.5) and row["low"] < 0.5 < row["high"]
    assert row["cyst_fp_ml"] == pytest.approx(1.0) and row["train_s"] == 15.0
    assert (row["parameters"], row["multiply_adds"]) == (7, 9)


def test_without_known_cysts_their_volume_is_missing():
    runs = {"baseline": [record(0, 0.2, 0.4, 0.6, cysts=(None, None, None))]}
    assert np.isnan(arm_means(runs)["cyst_fp_ml"]).all()


def test_effects_are_differences_on_the_same_cases():
    scores = {}
    for name, dice in {"baseline": (0.1, 0.2, 0.3), "full": (0.2, 0.4, 0.6)}.items():
        scores[name] = arm_scores([record(0, *dice)["rows"]], "dice")
    (row,) = compare_arms(scores, [("baseline", "full")]).to_dict("records")
    assert (row["arm"], row["reference"], row["n"]) == ("full", "baseline", 3)
    assert row["difference"] == pytest.approx(0.2)


def test_no_pair_gives_an_empty_table_with_its_columns():
    table = compare_arms({}, [])
    assert table.empty and {"arm", "lo", "hi", "warning"} <= set(table)


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
