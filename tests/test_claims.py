"""Every verdict follows from the data: evidence for a claim, against it, between and without."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kitslib.config import ARMS
from kitslib.evaluation import (
    BAND,
    CLAIMS,
    MIN_CASES,
    MIN_SEEDS,
    PRIMARY,
    STEPS,
    Above,
    Evidence,
    Within,
    arm_scores,
    assemble,
    claims_of,
    ledger,
    paired_difference,
)

N, SEEDS = 12, 4
CASES = tuple(f"case_{i:05d}" for i in range(N))
BASE = np.linspace(0.3, 0.7, N)
WIDE = 0.3  # Dice: an interval of about ± 0.2


def arm(shift: float, spread: float = 0.01, seeds: int = SEEDS) -> pd.DataFrame:
    """An arm that lies about `shift` above BASE, each seed and each seed's cases ± `spread`."""
    draws = np.random.default_rng(round(1000 * (shift + 10)))
    apart = np.linspace(-spread, spread, seeds)[:, None] if seeds > 1 else 0.0
    rest = spread * draws.standard_normal((seeds, N))
    return pd.DataFrame(BASE + shift + apart[::-1] + rest, index=range(seeds), columns=CASES)


def ml(hits: int, n: int, size: float = 1.0) -> list[float]:
    return [size] * hits + [0.0] * (n - hits)


def near(mean: float, spread: float = 0.01) -> list[float]:
    return (mean + spread * np.tile([1.0, -1.0], N // 2)).tolist()


SHIFTS = {  # a gain of 0.1 or more in every comparison of the ledger
    "unet": -0.1, "deeplab": -0.2, "vnet_3d": -0.15, "baseline": 0.0, "multi_scale": 0.1, "se": 0.2,
    "attention": 0.33, "hdc": 0.45, "hdc_level_0": 0.2, "hdc_level_1": 0.3, "focal_dice": 0.55,
    "full": 0.9, "hdc_per_sample": 0.05, "focal_dice_per_sample": 0.25,
}  # fmt: skip
DICE = {name: arm(shift) for name, shift in SHIFTS.items()}
# every row reproduced
STRONG = Evidence(
    synthetic=False,
    cyst_ml=ml(84, 210),
    kidney_cyst_overlap=near(0.7),
    cyst_tumor_overlap=near(0.8),
    empty_slices=near(0.7),
    kidney_dice={
        "standard": arm(0.2), "no_residual": arm(0.1), "no_deep_supervision": arm(0.05),
        "mirror_none": arm(0.0),
    },
    tumor={
        PRIMARY: DICE,
        "dice": {name: arm(shift + 0.1) for name, shift in SHIFTS.items()},
        "surface_dice": DICE,
        "hit": DICE,
        "cyst_fp_ml": {"focal_dice": arm(4.0), "full": arm(1.0)},
        "cyst_fp_all_ml": {"focal_dice": arm(8.0), "full": arm(2.0)},
    },
    tumor_ml={case: 5.0 * (i + 1) for i, case in enumerate(CASES[: N // 2])}
    | dict.fromkeys(CASES[N // 2 :], 20.0),
    gridding={"hdc": [0.10, 0.12, 0.11, 0.10], "plain_dilation": [0.5, 0.6, 0.55, 0.52]},
)  # fmt: skip


def tumor(column: str = PRIMARY, **arms: pd.DataFrame) -> Evidence:
    """STRONG with other arms in one column of scores."""
    return replace(STRONG, tumor={**STRONG.tumor, column: {**STRONG.tumor[column], **arms}})


def kidney(**arms: pd.DataFrame) -> Evidence:
    return replace(STRONG, kidney_dice={**STRONG.kidney_dice, **arms})


def without(*names: str, column: str = PRIMARY) -> Evidence:
    kept = {name: scores for name, scores in STRONG.tumor[column].items() if name not in names}
    return replace(STRONG, tumor={**STRONG.tumor, column: kept})


def row(name: str, evidence: Evidence) -> dict[str, Any]:
    """The ledger's row of that number and letter."""
    (found,) = [one for one in ledger(evidence) if f"{one['number']}{one['part']}" == name]
    return found


ROWS = [f"{one['number']}{one['part']}" for one in ledger(Evidence(synthetic=True))]


def test_a_claim_of_two_halves_has_two_rows():
    letters = {2: "ab", 4: "ab", 6: "ab", 11: "abc", 12: "ab", 13: "ab", 14: "ab"}
    expected = []
    for number in range(1, 15):
        expected += [f"{number}{letter}" for letter in letters.get(number, [""])]
    assert expected == ROWS
    for claim in CLAIMS:
        assert len(claim.parts) > 1 or claim.parts[0].sentence == claim.sentence


def test_strong_evidence_reproduces_every_row():
    rows = ledger(STRONG)
    assert {one["verdict"] for one in rows} == {"reproduced"}
    assert {one["verdict"] for one in claims_of(rows)} == {"reproduced"}
    assert [one["number"] for one in claims_of(rows)] == list(range(1, 15))


def test_no_evidence_tests_none_and_says_what_is_missing():
    for found in ledger(Evidence(synthetic=True)):
        assert found["verdict"] == found["verdict_unadjusted"] == "not testable here"
        assert found["measure"] and found["reason"].startswith("not measured: ")
        assert found["value"] is found["p"] is found["smallest_effect"] is None
        assert found["n"] == found["seeds"] == 0


NEAR = 0.004  # Dice: as good as nothing
VERDICTS: dict[str, dict[str, list[Evidence]]] = {
    "contradicted": {
        "1": [replace(STRONG, cyst_ml=ml(20, 210)), replace(STRONG, cyst_ml=ml(190, 210))],
        "2a": [replace(STRONG, kidney_cyst_overlap=near(0.3))],
        "2b": [replace(STRONG, cyst_tumor_overlap=near(0.2))],
        "3": [replace(STRONG, empty_slices=near(0.2))],
        "4a": [kidney(no_residual=arm(0.3))],
        "4b": [kidney(no_deep_supervision=arm(0.3))],
        "5": [kidney(mirror_none=arm(0.3))],
        "6a": [tumor(unet=arm(0.1))],
        "6b": [tumor(deeplab=arm(0.1))],
        "7": [tumor(vnet_3d=arm(0.1))],
        "10": [tumor(attention=arm(0.22))],  # a gain of 0.02 is not great
        "11b": [tumor(hdc_level_1=arm(0.6))],
        "11c": [replace(STRONG, gridding={**STRONG.gridding, "plain_dilation": [0.01] * 4})],
        "12b": [tumor(focal_dice_per_sample=arm(-0.1))],
        # a lift of 0.05 or 0.15 is not one from 0.45 to 0.70
        "13a": [tumor(full=arm(0.6)), tumor(full=arm(0.7)), tumor(full=arm(0.3))],
        "13b": [tumor("cyst_fp_all_ml", full=arm(12.0))],
        "14a": [tumor("dice", full=arm(0.7))],
        "14b": [tumor("dice", hdc_per_sample=arm(-0.1))],
    },
    "practically equal": {
        "4a": [kidney(no_residual=arm(0.2 + NEAR))],
        "4b": [kidney(no_deep_supervision=arm(0.2 + NEAR))],
        "5": [kidney(mirror_none=arm(0.2 - NEAR))],
        "6a": [tumor(unet=arm(NEAR))],
        "6b": [tumor(deeplab=arm(-NEAR))],
        "7": [tumor(vnet_3d=arm(NEAR))],
        "11b": [tumor(hdc_level_1=arm(0.45 + NEAR))],
        "12b": [tumor(focal_dice_per_sample=arm(0.05 + NEAR))],
        "14a": [tumor("dice", full=arm(0.9 + NEAR))],
        "14b": [tumor("dice", hdc_per_sample=arm(0.05 + NEAR))],
    },
    "undecided": {
        "1": [replace(STRONG, cyst_ml=ml(8, 20))],
        "2a": [replace(STRONG, kidney_cyst_overlap=near(0.5))],
        "2b": [replace(STRONG, cyst_tumor_overlap=near(0.55, WIDE))],
        "3": [replace(STRONG, empty_slices=near(0.5))],
        "4a": [kidney(no_residual=arm(0.15, WIDE))],
        "4b": [kidney(no_deep_supervision=arm(0.15, WIDE))],
        "5": [kidney(mirror_none=arm(0.2, WIDE))],
        "6a": [tumor(unet=arm(0.0, WIDE))],
        "6b": [tumor(deeplab=arm(-0.05, WIDE))],
        "7": [tumor(vnet_3d=arm(0.01, WIDE))],
        "10": [tumor(attention=arm(0.25, WIDE)), tumor(attention=arm(0.252))],
        "11b": [tumor(hdc_level_1=arm(0.45, WIDE))],
        "11c": [replace(STRONG, gridding={"hdc": [0.1, 0.5, 0.3], "plain_dilation": [0.4] * 3})],
        "12b": [tumor(focal_dice_per_sample=arm(0.1, WIDE))],
        "13a": [tumor(full=arm(0.8, WIDE)), tumor(full=arm(0.8))],
        "13b": [tumor("cyst_fp_all_ml", full=arm(8.0, WIDE))],
        "14a": [tumor("dice", full=arm(0.9, WIDE))],
        "14b": [tumor("dice", hdc_per_sample=arm(0.05, WIDE))],
    },
    "not testable here": {
        "1": [replace(STRONG, cyst_ml=[])],
        "2a": [replace(STRONG, kidney_cyst_overlap=[]), replace(STRONG, synthetic=True)],
        "2b": [replace(STRONG, cyst_tumor_overlap=[]), replace(STRONG, synthetic=True)],
        "3": [replace(STRONG, empty_slices=[])],
        "4a": [replace(STRONG, kidney_dice={"standard": arm(0.2)})],
        "4b": [replace(STRONG, kidney_dice={"no_deep_supervision": arm(0.2)})],
        "5": [replace(STRONG, kidney_dice={})],
        "6a": [without("unet"), replace(STRONG, tumor_ml={})],
        "6b": [without("deeplab"), replace(STRONG, tumor_ml=dict.fromkeys(CASES, 50.0))],
        "7": [without("vnet_3d")],
        "10": [without("attention")],
        "11b": [without("hdc"), without("hdc_level_0", "hdc_level_1")],
        "11c": [replace(STRONG, gridding={}), replace(STRONG, gridding={"hdc": [0.1] * 4})],
        "12b": [without("hdc_per_sample")],
        "13a": [without("full")],
        "13b": [
            without("focal_dice", column="cyst_fp_all_ml"),
            tumor("cyst_fp_all_ml", full=arm(1)[[]]),
        ],
        "14a": [without("full"), without("full", column="dice")],
        "14b": [without("hdc_per_sample")],
    },
}  # fmt: skip
for name, mechanism in {"8": "multi_scale", "9": "se", "11a": "hdc", "12a": "focal_dice"}.items():
    before = SHIFTS[STEPS[mechanism][0][0]]
    VERDICTS["contradicted"][name] = [tumor(**{mechanism: arm(before - 0.1)})]
    VERDICTS["practically equal"][name] = [tumor(**{mechanism: arm(before + NEAR)})]
    VERDICTS["undecided"][name] = [tumor(**{mechanism: arm(before + 0.01, WIDE)})]
    VERDICTS["not testable here"][name] = [without(mechanism)]


def judged(table: Mapping[str, list[Evidence]]) -> list[tuple[str, int, dict[str, Any]]]:
    return [(name, i, row(name, one)) for name, many in table.items() for i, one in enumerate(many)]


@pytest.mark.parametrize("word", VERDICTS)
def test_flipped_data_flip_the_verdict(word: str):
    for name, i, found in judged(VERDICTS[word]):
        assert found["verdict"] == word, (name, i, found["reason"])
    expected = set(ROWS)
    if word == "practically equal":  # no Dice, or a gain of so much
        expected -= {"1", "2a", "2b", "3", "10", "11c", "13a", "13b"}
    assert set(VERDICTS[word]) == expected


def test_an_interval_inside_the_band_comes_before_its_side_of_zero():
    bar = Above()
    assert bar.word((0.01, 0.04)) == bar.word((-0.04, -0.01)) == "practically equal"
    assert (bar.word((0.01, 0.06)), bar.word((-0.06, -0.01))) == ("reproduced", "contradicted")
    assert bar.word((-0.01, 0.06)) == "undecided"
    assert Above(band=None).word((0.01, 0.04)) == "reproduced"
    great = Above(0.05)
    assert (great.word((0.051, 0.2)), great.word((0.01, 0.049))) == ("reproduced", "contradicted")
    assert great.word((0.04, 0.2)) == "undecided", "the lower bound must reach it"
    share = Within(0.3, 0.5)
    assert share.word((0.31, 0.49)) == "reproduced" and share.word((0.51, 0.6)) == "contradicted"
    assert share.word((0.29, 0.49)) == share.word((0.2, 0.6)) == "undecided"


@pytest.mark.parametrize("bar", [Above(), Above(band=None), Above(0.05), Above(0.25)])
def test_p_is_the_smallest_alpha_that_decides(bar: Above):
    for shift in (-0.1, -0.02, 0.0, 0.01, 0.03, 0.06, 0.2, 0.3):
        for spread in (0.01, 0.05):
            found = paired_difference(arm(0.001), arm(shift, spread))
            p = float(bar.p_decide(found))
            if 0 < p < 0.99:
                assert bar.word(found.interval_at(1 - p * 1.001)) != "undecided"
                assert bar.word(found.interval_at(1 - p * 0.999)) == "undecided"


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(seeds: int):
    assert seeds < MIN_SEEDS
    few = {name: scores[:seeds] for name, scores in STRONG.kidney_dice.items()}
    columns = {}
    for column, arms in STRONG.tumor.items():
        columns[column] = {name: scores[:seeds] for name, scores in arms.items()}
    gridding = {name: values[:seeds] for name, values in STRONG.gridding.items()}
    evidence = replace(STRONG, kidney_dice=few, tumor=columns, gridding=gridding)
    for found in ledger(evidence):
        if found["number"] in (1, 2, 3):
            assert (found["verdict"], found["seeds"]) == ("reproduced", 0), "no training"
            continue
        assert found["verdict"] == found["verdict_unadjusted"] == "undecided"
        assert found["p"] is found["p_adjusted"] is None
        assert "fewer than 3 seeds decide nothing" in found["reason"]
        assert found["seeds"] == seeds and ("one seed" in found["warning"]) == (seeds == 1)
        if seeds == 1:
            assert found["needed"] == "at least 3 seeds"


@pytest.mark.parametrize("name", ["5", "7", "8", "10", "12b", "14a"])
def test_few_cases_decide_nothing(name: str):
    few = list(CASES[: MIN_CASES - 1])
    kidney_dice = {arm_name: scores[few] for arm_name, scores in STRONG.kidney_dice.items()}
    columns = {}
    for column, arms in STRONG.tumor.items():
        columns[column] = {arm_name: scores[few] for arm_name, scores in arms.items()}
    found = row(name, replace(STRONG, kidney_dice=kidney_dice, tumor=columns))
    assert (found["verdict"], found["n"]) == ("undecided", MIN_CASES - 1)
    assert "fewer than 6 cases" in found["reason"] and "only 5 cases" in found["warning"]


def test_an_undecided_row_says_what_it_could_have_shown_and_what_would_decide_it():
    found = row("8", tumor(multi_scale=arm(0.08, 0.2)))
    assert found["verdict"] == "undecided"
    difference = paired_difference(DICE["baseline"], arm(0.08, 0.2))
    assert found["smallest_effect"] == pytest.approx(difference.smallest_effect)
    assert found["smallest_effect"] > found["ci"][1] - found["value"]
    seeds, cases = map(int, found["needed"].removesuffix(" cases").split(" seeds × "))
    assert seeds > SEEDS and cases == N
    assert Above().word(difference.planned(seeds, cases).ci) != "undecided"
    assert row("8", STRONG)["needed"] == ""
    beyond = row("8", tumor(multi_scale=arm(BAND, 9.0)))["needed"]
    assert beyond == f"more than 100 seeds × {8 * N} cases"


def test_the_narrow_band_is_reported_beside_the_verdict():
    near_by = row("12b", tumor(focal_dice_per_sample=arm(0.05 + NEAR)))
    assert (near_by["band"], near_by["within_002"]) == (0.05, True)
    small = row("12b", tumor(focal_dice_per_sample=arm(0.05 + 0.025)))
    assert (small["verdict"], small["within_002"]) == ("practically equal", False)
    volume = row("13b", STRONG)
    assert volume["band"] is volume["within_002"] is None and volume["unit"] == "ml"


def test_three_cuts_of_a_cyst_are_shown_and_the_middle_one_judges():
    volumes = [0.0] * 110 + [0.2] * 13 + [1.0] * 25 + [5.0] * 62
    found = row("1", replace(STRONG, cyst_ml=volumes))
    assert (found["verdict"], found["n"]) == ("reproduced", 210)
    assert found["value"] == pytest.approx(87 / 210)
    assert "any cyst: 0.476 [0.410, 0.544], undecided" in found["reason"]
    assert "at least 2 ml: 0.295 [0.238, 0.360], undecided" in found["reason"]


def test_small_targets_are_the_tumours_below_30_ml():
    small, large = CASES[:6], CASES[6:]
    volumes = dict.fromkeys(small, 10.0) | dict.fromkeys(large, 300.0)
    rival = arm(-0.1) + np.where(np.arange(N) < 6, 0.0, 0.9)
    found = row("6a", replace(tumor(unet=rival), tumor_ml=volumes))
    assert (found["verdict"], found["n"]) == ("reproduced", 6)
    assert found["value"] == pytest.approx(0.1, abs=0.02)


def test_a_mechanism_alone_stands_in_for_the_paper_s_order():
    alone = {"baseline": arm(0.0), "only_se": arm(-0.2)}
    found = row("9", replace(STRONG, tumor={PRIMARY: alone}))
    assert found["verdict"] == "contradicted"
    assert found["measure"] == "difference in tumour Dice, only_se minus baseline"
    assert row("9", tumor(only_se=arm(-0.2)))["verdict"] == "reproduced"
    assert {pair[0][0] for pair in STEPS.values()} <= {"baseline", *STEPS}


def test_the_cost_of_leaving_a_mechanism_out_stands_beside_the_step():
    assert "leaving it out" not in row("9", STRONG)["reason"]
    found = row("9", tumor(no_se=arm(0.7)))
    gap = paired_difference(arm(0.7), DICE["full"])
    assert f"leaving it out of full costs {gap.value:.3f} [" in found["reason"]
    assert "with the largest component alone: " in found["reason"]
    assert "leaving it out" not in row("13a", STRONG)["reason"], "the step itself"
    for mechanism in STEPS:
        assert mechanism == "oversample" or f"no_{mechanism}" in ARMS


def test_arms_are_judged_before_the_component_step():
    found = row("8", tumor("dice", multi_scale=arm(-0.5)))
    assert found["verdict"] == "reproduced" and found["value"] == pytest.approx(0.1, abs=0.02)
    assert row("8", tumor(multi_scale=arm(-0.5)))["verdict"] == "contradicted"


def test_the_closest_level_judges_whether_the_bottom_is_best():
    found = row("11b", STRONG)
    assert found["measure"] == "difference in tumour Dice with HDC, hdc minus hdc_level_1"
    gap = paired_difference(DICE["hdc_level_1"], DICE["hdc"])
    assert found["ci"] == pytest.approx(gap.interval_at(1 - 0.05 / 2)), "of two levels at once"
    assert found["p"] == pytest.approx(2 * gap.p)


def test_the_component_step_says_what_it_removes_in_cysts():
    found = row("14a", STRONG)
    assert found["measure"].endswith("of full, largest component minus all components")
    assert "removed of false positives in cysts: 0.999 [0.994, 1.004] ml" in found["reason"]
    assert "removed" not in row("14b", STRONG)["reason"], "not measured there"


def test_value_interval_seeds_and_n_are_those_of_the_data():
    found = row("8", STRONG)
    gap = paired_difference(DICE["baseline"], DICE["multi_scale"])
    assert found["value"] == pytest.approx(gap.value) and found["ci"] == pytest.approx(gap.ci)
    assert (found["n"], found["seeds"]) == (N, SEEDS)
    assert found["components"] == pytest.approx([math.sqrt(v) for v in gap.components])
    assert "tumour Dice, multi_scale minus baseline: 0." in found["reason"]
    assert f"n = {N}, seeds = {SEEDS}" in found["reason"]
    assert "on synthetic CT" in row("8", replace(STRONG, synthetic=True))["reason"]


def test_arms_without_a_common_seed_are_compared_all_the_same():
    other = DICE["multi_scale"].set_axis(range(10, 10 + SEEDS))
    found, paired = row("8", tumor(multi_scale=other)), row("8", STRONG)
    assert found["verdict"] == "reproduced" and found["seeds"] == SEEDS
    assert found["value"] == pytest.approx(paired["value"])
    assert found["ci"] != pytest.approx(paired["ci"])


def test_arm_scores_bring_seeds_together():
    first = [{"case": "b", "dice": 0.2}, {"case": "a", "dice": 0.1}, {"case": "c", "dice": None}]
    found = arm_scores({3: first, 5: [{"case": "a", "dice": 0.3}]}, "dice")
    assert found.columns.to_list() == ["a", "b"] and found.index.to_list() == [3, 5]
    np.testing.assert_array_equal(found, [[0.1, 0.2], [0.3, np.nan]])
    assert arm_scores({3: first}, "hit").shape == (1, 0)


CASE_ROWS = [
    {"case": "a", "cysts_known": True, "cyst_ml": 0.5, "kidney_slices": 0.25,
     "kidney_cyst_overlap": 0.75, "cyst_tumor_overlap": None},
    {"case": "b", "cysts_known": False, "cyst_ml": 9.0, "kidney_slices": 0.5,
     "kidney_cyst_overlap": None, "cyst_tumor_overlap": None},
]  # fmt: skip


def assembled(synthetic: bool) -> Evidence:
    seed = [{
        "case": "a", "dice": 0.5, PRIMARY: 0.4, "surface_dice": 0.3, "hit": 1.0, "tumor_ml": 3.0,
        "cyst_fp_ml": None, "cyst_fp_all_ml": None,
    }]  # fmt: skip
    return assemble(
        synthetic=synthetic,
        data={"rows": CASE_ROWS},
        kidney={"standard": {0: seed, 1: [{**seed[0], "dice": 0.75}]}},
        tumor={"hdc": {0: seed, 4: [{**seed[0], PRIMARY: 0.75}]}, "hdc_level_0": {0: seed}},
        patients={"cyst_ml": np.array([0.0, 0.5, 2.0]), "kidney_slices": np.array([0.5] * 3)},
        gridding={"hdc": [0.1]},
    )


def test_evidence_is_assembled_from_records():
    found = assembled(synthetic=False)
    assert found.cyst_ml == [0.5], "b's are not known"
    assert found.empty_slices == [0.75, 0.5]
    assert found.kidney_cyst_overlap == [0.75] and found.cyst_tumor_overlap == []
    np.testing.assert_array_equal(found.kidney_dice["standard"], [[0.5], [0.75]])
    np.testing.assert_array_equal(found.arms["hdc"], [[0.4], [0.75]])
    assert found.arms["hdc"].index.to_list() == [0, 4]
    np.testing.assert_array_equal(found.tumor["dice"]["hdc"], [[0.5], [0.5]])
    assert found.tumor["cyst_fp_ml"]["hdc"].empty
    assert found.tumor_ml == {"a": 3.0} and found.gridding == {"hdc": [0.1]}


def test_public_labels_stand_for_patients_where_the_cohort_is_synthetic():
    found = assembled(synthetic=True)
    assert found.cyst_ml == [0.0, 0.5, 2.0] and found.empty_slices == [0.5] * 3
    assert found.synthetic and found.kidney_cyst_overlap == [0.75]
