"""Every verdict follows from the data: evidence for a claim, against it, between and without."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from kitslib.evaluation import (
    CLAIMS,
    MIN_CASES,
    PUBLISHED,
    STEPS,
    Evidence,
    Verdict,
    arm_scores,
    assemble,
    beside_published,
    ledger,
)

N = 12
CASES = tuple(f"case_{i:05d}" for i in range(N))
BASE = np.linspace(0.3, 0.7, N)
NOISE = np.tile([0.01, -0.01], N // 2)  # averages to zero over cases


def arm(shift: float, spread: float = 1.0) -> pd.DataFrame:
    """Two seeds of an arm that lies `shift` above BASE, ± `spread` hundredths by case."""
    return pd.DataFrame([BASE + shift + spread * NOISE] * 2, columns=CASES)


def share(hits: int, n: int) -> list[float]:
    return [1.0] * hits + [0.0] * (n - hits)


def near(mean: float, spread: float = 1.0) -> list[float]:
    return (mean + spread * NOISE).tolist()


def level(mean: float, spread: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame([mean + spread * NOISE], columns=CASES)


def components(**largest: pd.DataFrame) -> Evidence:
    return with_arms("component_dice", **{"largest component": largest["largest"]})


# every claim reproduced
STRONG = Evidence(
    synthetic=False,
    cysts=share(84, 210),
    kidney_cyst_overlap=near(0.7),
    cyst_tumor_overlap=near(0.8),
    empty_slices=near(0.7),
    literal_window_loss=[0.0] * N,
    kidney_dice={
        "standard": arm(0.2),
        "no_residual": arm(0.1, spread=2),
        "no_deep_supervision": arm(0.15, spread=2),
        "mirror_none": arm(0.15, spread=2),
    },
    tumor_dice={
        "baseline": arm(0.0),
        "unet": arm(-0.05, spread=2),
        "deeplab": arm(-0.1, spread=2),
        "vnet_3d": arm(-0.05, spread=2),
        "multi_scale": arm(0.03, spread=2),
        "se": arm(0.05),
        "attention": arm(0.15, spread=2),
        "hdc": arm(0.18),
        "focal_dice": arm(0.2, spread=2),
        "full": arm(0.5),
    },
    cyst_fp_ml={"focal_dice": arm(8.0), "full": arm(1.0, spread=20)},
    tumor_ml={case: 5.0 * (i + 1) for i, case in enumerate(CASES[: N // 2])}
    | dict.fromkeys(CASES[N // 2 :], 20.0),
    hdc_level_dice={
        "bottom": arm(0.1),
        "level 1": arm(0.0, spread=2),
        "level 2": arm(0.05, spread=2),
    },
    hdc_coverage={"hdc": True, "plain_dilation": False},
    component_dice={"all components": level(0.6), "largest component": level(0.65, spread=2)},
)


def with_arms(field: str, evidence: Evidence = STRONG, **arms: pd.DataFrame) -> Evidence:
    return replace(evidence, **{field: {**getattr(evidence, field), **arms}})


def without(field: str, *names: str) -> Evidence:
    kept: Mapping = {k: v for k, v in getattr(STRONG, field).items() if k not in names}
    return replace(STRONG, **{field: kept})


def verdict(number: int, evidence: Evidence) -> Verdict:
    return CLAIMS[number - 1].rule(evidence)


def test_strong_evidence_reproduces_all_fourteen():
    found = {row["number"]: row["verdict"] for row in ledger(STRONG)}
    assert found == dict.fromkeys(range(1, 15), "reproduced")


def test_no_evidence_tests_none_and_says_what_is_missing():
    for number in range(1, 15):
        found = verdict(number, Evidence(synthetic=True))
        assert found.verdict == "not testable here"
        assert found.measure
        assert "not measured: " in found.reason
        assert math.isnan(found.value)
        assert found.n == 0


AGAINST = {
    1: [replace(STRONG, cysts=share(20, 210)), replace(STRONG, cysts=share(190, 210))],
    2: [
        replace(STRONG, cyst_tumor_overlap=near(0.2)),
        replace(STRONG, kidney_cyst_overlap=near(0.3)),
    ],
    3: [replace(STRONG, empty_slices=near(0.2))],
    4: [
        replace(STRONG, literal_window_loss=[0.0] * (N - 1) + [0.4]),
        with_arms("kidney_dice", no_residual=arm(0.3, spread=2)),
        with_arms("kidney_dice", no_deep_supervision=arm(0.3, spread=2)),
    ],
    5: [with_arms("kidney_dice", mirror_none=arm(0.3, spread=2))],
    6: [
        with_arms("tumor_dice", unet=arm(0.1, spread=2)),
        with_arms("tumor_dice", deeplab=arm(0.1, spread=2)),
    ],
    7: [with_arms("tumor_dice", vnet_3d=arm(0.1, spread=2))],
    8: [with_arms("tumor_dice", multi_scale=arm(-0.1, spread=2))],
    9: [with_arms("tumor_dice", se=arm(0.0))],
    10: [
        with_arms("tumor_dice", attention=arm(0.0, spread=2)),
        with_arms("tumor_dice", attention=arm(0.07, spread=2)),  # a gain of 0.02 is not great
    ],
    11: [
        with_arms("tumor_dice", hdc=arm(0.0)),
        with_arms("hdc_level_dice", **{"level 2": arm(0.2, spread=2)}),
        replace(STRONG, hdc_coverage={"hdc": True, "plain_dilation": True}),
        replace(STRONG, hdc_coverage={"hdc": False, "plain_dilation": False}),
    ],
    12: [with_arms("tumor_dice", focal_dice=arm(0.1, spread=2))],
    13: [
        with_arms("tumor_dice", full=arm(0.0)),
        with_arms("tumor_dice", full=arm(0.3)),  # a lift of 0.1 is not one from 0.45 to 0.70
        with_arms("cyst_fp_ml", full=arm(12.0, spread=20)),
    ],
    14: [components(largest=level(0.5, spread=2))],
}

WIDE = 30.0  # hundredths by case: an interval of about ± 0.2
BETWEEN = {
    1: [replace(STRONG, cysts=share(8, 20))],
    2: [
        replace(STRONG, cyst_tumor_overlap=near(0.5, spread=WIDE)),
        replace(STRONG, kidney_cyst_overlap=near(0.5)),
    ],
    3: [replace(STRONG, empty_slices=near(0.5))],
    4: [
        with_arms("kidney_dice", no_residual=arm(0.2, spread=WIDE)),
        with_arms("kidney_dice", no_deep_supervision=arm(0.2, spread=WIDE)),
    ],
    5: [with_arms("kidney_dice", mirror_none=arm(0.2, spread=WIDE))],
    6: [with_arms("tumor_dice", unet=arm(0.0, spread=WIDE))],
    7: [with_arms("tumor_dice", vnet_3d=arm(0.0, spread=WIDE))],
    8: [with_arms("tumor_dice", multi_scale=arm(0.0, spread=WIDE))],
    9: [with_arms("tumor_dice", se=arm(0.03, spread=WIDE))],
    10: [
        with_arms("tumor_dice", attention=arm(0.05, spread=WIDE)),
        with_arms(
            "tumor_dice", attention=arm(0.09, spread=5)
        ),  # above zero, but 0.04 with 0.05 in reach
    ],
    11: [
        with_arms("tumor_dice", hdc=arm(0.15, spread=WIDE)),
        with_arms("hdc_level_dice", **{"level 1": arm(0.1, spread=WIDE)}),
    ],
    12: [with_arms("tumor_dice", focal_dice=arm(0.18, spread=WIDE))],
    13: [
        with_arms("tumor_dice", full=arm(0.2, spread=WIDE)),
        with_arms("cyst_fp_ml", full=arm(8.0, spread=WIDE)),
    ],
    14: [components(largest=level(0.6, spread=WIDE))],
}

MISSING = {
    1: [replace(STRONG, cysts=[])],
    2: [replace(STRONG, cyst_tumor_overlap=[]), replace(STRONG, kidney_cyst_overlap=[])],
    3: [replace(STRONG, empty_slices=[])],
    4: [
        replace(STRONG, literal_window_loss=[]),
        without("kidney_dice", "no_residual"),
        without("kidney_dice", "no_deep_supervision"),
    ],
    5: [without("kidney_dice", "mirror_none")],
    6: [
        without("tumor_dice", "unet"),
        without("tumor_dice", "deeplab"),
        replace(STRONG, tumor_ml={}),
    ],
    7: [without("tumor_dice", "vnet_3d")],
    8: [without("tumor_dice", "multi_scale")],
    9: [without("tumor_dice", "se")],
    10: [without("tumor_dice", "attention")],
    11: [
        without("tumor_dice", "hdc"),
        without("hdc_level_dice", "level 1", "level 2"),
        without("hdc_level_dice", "bottom"),
        without("hdc_coverage", "plain_dilation"),
    ],
    12: [without("tumor_dice", "focal_dice")],
    13: [without("tumor_dice", "full"), without("cyst_fp_ml", "focal_dice")],
    14: [without("component_dice", name) for name in ("all components", "largest component")],
}


@pytest.mark.parametrize("number", range(1, 15))
def test_flipped_data_flip_the_verdict(number: int):
    for expected, table in (
        ("not reproduced", AGAINST),
        ("undecided", BETWEEN),
        ("not testable here", MISSING),
    ):
        for i, evidence in enumerate(table[number]):
            found = verdict(number, evidence)
            assert found.verdict == expected, (i, found.reason)


@pytest.mark.parametrize("number", [5, 7, 8, 9, 10, 12, 14])
def test_few_cases_decide_nothing(number: int):
    few = list(CASES[: MIN_CASES - 1])
    cut = {}
    for item in fields(Evidence):
        held = getattr(STRONG, item.name)
        if isinstance(held, Mapping):
            held = {k: v[few] if isinstance(v, pd.DataFrame) else v for k, v in held.items()}
        cut[item.name] = held[: len(few)] if isinstance(held, list) else held
    found = verdict(number, Evidence(**cut))
    assert (found.verdict, found.n) == ("undecided", MIN_CASES - 1)
    assert "fewer than 6 cases" in found.reason


def test_the_hu_of_a_synthetic_cohort_confirm_nothing_about_patients():
    found = verdict(2, replace(STRONG, synthetic=True))
    assert found.verdict == "not testable here"
    assert "the cohort is synthetic" in found.reason and "the cohort is synthetic" in found.also[0]


def test_a_part_that_fails_refutes_even_when_others_are_missing():
    evidence = Evidence(synthetic=True, literal_window_loss=[0.0, 0.3, 0.0, 0.0])
    found = verdict(4, evidence)
    assert found.verdict == "not reproduced"
    assert found.value == pytest.approx(0.075)
    assert "cases that lose more than 0.1%: 1 of 4" in found.reason
    assert "no_residual" in found.reason


def test_small_targets_are_the_tumours_below_30_ml():
    small, large = CASES[:6], CASES[6:]
    volumes = dict.fromkeys(small, 10.0) | dict.fromkeys(large, 300.0)
    rival = pd.DataFrame([BASE + np.where(np.arange(N) < 6, -0.1, 0.5)] * 2, columns=CASES)
    found = verdict(
        6, with_arms("tumor_dice", replace(STRONG, tumor_ml=volumes), unet=rival, deeplab=rival)
    )
    assert (found.verdict, found.n) == ("reproduced", 6)
    assert found.value == pytest.approx(0.1)


def test_a_mechanism_alone_stands_in_for_the_paper_s_order():
    alone = {"baseline": arm(0.0), "only_se": arm(-0.2, spread=2)}
    found = verdict(9, replace(STRONG, tumor_dice=alone))
    assert found.verdict == "not reproduced"
    assert found.measure == "difference in tumour Dice, only_se minus baseline"
    assert verdict(9, with_arms("tumor_dice", only_se=arm(-0.2))).verdict == "reproduced"
    assert {pair[0][0] for pair in STEPS.values()} <= {"baseline", *STEPS}


def test_value_interval_and_n_are_those_of_the_data():
    found = verdict(8, STRONG)
    assert found.value == pytest.approx(0.03)
    assert found.ci[0] < 0.03 < found.ci[1]
    assert found.n == N
    assert "tumour Dice, multi_scale minus baseline: 0.030" in found.reason
    assert "on synthetic CT" in verdict(8, replace(STRONG, synthetic=True)).reason
    one_seed = arm(0.03, spread=2)[:1]
    assert "one seed" in verdict(8, with_arms("tumor_dice", multi_scale=one_seed)).reason
    shares = verdict(1, STRONG)
    assert (shares.value, shares.n) == (pytest.approx(0.4), 210)


@pytest.mark.parametrize(
    ("side", "sign", "end"), [("above", 1, "[0.0002, "), ("below", -1, ", -0.0002]")]
)
def test_an_interval_that_all_but_touches_zero_says_so(side: str, sign: int, end: str):
    plain = verdict(8, STRONG)
    shift = sign * (plain.value - plain.ci[0] + 0.0002)
    close = verdict(8, with_arms("tumor_dice", multi_scale=arm(shift, spread=1 + sign)))
    assert f"the interval lies {side} zero, only just" in close.reason
    assert end in close.reason
    assert "only just" not in plain.reason


def test_rows_of_the_summary_are_strict_json():
    rows = [*ledger(STRONG), *ledger(Evidence(synthetic=True))]
    read = json.loads(json.dumps(rows, allow_nan=False))
    assert (
        [row["number"] for row in read]
        == [claim.number for claim in CLAIMS] * 2
        == [*range(1, 15)] * 2
    )
    assert read[0]["claim"] == CLAIMS[0].sentence
    expected = {"claim", "verdict", "value", "ci", "n", "number", "reason", "measure", "unit"}
    assert read[0].keys() == expected
    assert all(row["measure"] for row in read)
    assert read[14]["value"] is None
    assert read[14]["ci"] == [None, None]


def test_arm_scores_bring_seeds_together():
    first = [{"case": "b", "dice": 0.2}, {"case": "a", "dice": 0.1}, {"case": "c", "dice": None}]
    found = arm_scores([first, [{"case": "a", "dice": 0.3}]], "dice")
    assert found.columns.to_list() == ["a", "b"]
    np.testing.assert_array_equal(found, [[0.1, 0.2], [0.3, np.nan]])


def test_every_number_says_what_it_is_and_in_what_unit():
    measures = {row["number"]: row["measure"] for row in ledger(STRONG)}
    assert measures[1] == "share of cases with a cyst"
    assert measures[9] == "difference in tumour Dice, se minus multi_scale"
    lost = replace(STRONG, literal_window_loss=[0.0] * (N - 1) + [0.4])
    assert verdict(4, lost).measure == "share of the kidney lost by the literal window"
    assert {row["unit"] for row in ledger(STRONG)} == {""}
    more = with_arms("cyst_fp_ml", full=arm(12.0, spread=20))
    found = verdict(13, more)
    assert found.measure.startswith("difference in false-positive tumour volume in cysts")
    assert (
        found.unit == "ml" and f"{found.value:.3f} [" in found.reason and "] ml, n" in found.reason
    )
    assert verdict(13, without("cyst_fp_ml", "focal_dice")).unit == "ml"


CASE_ROWS = [
    {"case": "a", "cysts_known": True, "cyst_ml": 0.5, "kidney_slices": 0.25,
     "kidney_cyst_overlap": 0.75, "cyst_tumor_overlap": None},
    {"case": "b", "cysts_known": False, "cyst_ml": 9.0, "kidney_slices": 0.5,
     "kidney_cyst_overlap": None, "cyst_tumor_overlap": None},
]  # fmt: skip


def assembled(synthetic: bool) -> Evidence:
    seed = [{"case": "a", "dice": 0.5, "cyst_fp_ml": None, "tumor_ml": 3.0}]
    return assemble(
        synthetic=synthetic,
        data={"rows": CASE_ROWS, "ceilings": [{"case": "a", "literal_window_loss": 0.25}]},
        kidney={"standard": seed},
        tumor={"hdc": [seed, [{**seed[0], "dice": 0.75}]], "hdc_level_0": [seed]},
        cascade=[{"case": "a", "tumor_dice": 0.5, "all components": 0.25}],
        patients={"cyst_ml": np.array([0.0, 0.5, 2.0]), "kidney_slices": np.array([0.5] * 3)},
    )


def test_evidence_is_assembled_from_records():
    found = assembled(synthetic=False)
    assert found.cysts == [1.0], "b's are not known"
    assert found.empty_slices == [0.75, 0.5]
    assert found.kidney_cyst_overlap == [0.75] and found.cyst_tumor_overlap == []
    assert found.literal_window_loss == [0.25]
    np.testing.assert_array_equal(found.tumor_dice["hdc"], [[0.5], [0.75]])
    assert found.cyst_fp_ml["hdc"].empty
    assert found.tumor_ml == {"a": 3.0}
    assert list(found.hdc_level_dice) == ["hdc_level_0", "bottom"]
    assert found.hdc_coverage == {"hdc": True, "plain_dilation": False}
    dice = {name: scores.to_dict("list") for name, scores in found.component_dice.items()}
    assert dice == {"all components": {"a": [0.25]}, "largest component": {"a": [0.5]}}


def test_public_labels_stand_for_patients_where_the_cohort_is_synthetic():
    found = assembled(synthetic=True)
    assert found.cysts == [0.0, 1.0, 1.0] and found.empty_slices == [0.5] * 3
    assert found.synthetic and found.kidney_cyst_overlap == [0.75]


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
