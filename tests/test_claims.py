"""Every verdict follows from the data: each claim is tried with evidence for it, against it, between and without."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
import pytest

from kitslib.evaluation import (
    CLAIMS,
    MIN_CASES,
    PUBLISHED,
    STEPS,
    ArmScores,
    CaseValues,
    Evidence,
    Verdict,
    judge,
    ledger,
)

N = 12
CASES = tuple(f"case_{i:05d}" for i in range(N))
BASE = np.linspace(0.3, 0.7, N)
NOISE = np.tile([0.01, -0.01], N // 2)  # averages to zero over cases


def arm(shift: float, spread: float = 1.0) -> ArmScores:
    """Two seeds of an arm that lies `shift` above BASE, give or take `spread` hundredths by case."""
    return ArmScores(cases=CASES, values=np.stack([BASE + shift + spread * NOISE] * 2))


def values(*numbers: float, synthetic: bool = False) -> CaseValues:
    return CaseValues(values=dict(zip(CASES, numbers, strict=False)), synthetic=synthetic)


def share(hits: int, n: int) -> CaseValues:
    return CaseValues(values={f"case_{i:05d}": float(i < hits) for i in range(n)}, synthetic=False)


def near(mean: float, spread: float = 1.0) -> CaseValues:
    return values(*(mean + spread * NOISE))


# every claim reproduced
STRONG = Evidence(
    synthetic=False,
    cysts=share(84, 210),
    kidney_cyst_overlap=near(0.7),
    cyst_tumor_overlap=near(0.8),
    kidney_slices=near(0.3),
    literal_window_loss=values(*[0.0] * N),
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
    component_before=near(0.6),
    component_after=near(0.65, spread=2),
)


def with_arms(field: str, evidence: Evidence = STRONG, **arms: ArmScores) -> Evidence:
    return replace(evidence, **{field: {**getattr(evidence, field), **arms}})


def without(field: str, *names: str) -> Evidence:
    kept: Mapping = {k: v for k, v in getattr(STRONG, field).items() if k not in names}
    return replace(STRONG, **{field: kept})


def verdict(number: int, evidence: Evidence) -> Verdict:
    return judge(CLAIMS[number - 1], evidence)


def test_strong_evidence_reproduces_all_fourteen():
    assert {v.claim.number: v.verdict for v in ledger(STRONG)} == dict.fromkeys(
        range(1, 15), "reproduced"
    )


def test_no_evidence_tests_none_and_says_what_is_missing():
    for found in ledger(Evidence(synthetic=True)):
        assert found.verdict == "not testable here"
        assert "not measured: " in found.reason
        assert math.isnan(found.value)
        assert found.n == 0


AGAINST = {
    1: [replace(STRONG, cysts=share(20, 210)), replace(STRONG, cysts=share(190, 210))],
    2: [
        replace(STRONG, cyst_tumor_overlap=near(0.2)),
        replace(STRONG, kidney_cyst_overlap=near(0.3)),
    ],
    3: [replace(STRONG, kidney_slices=near(0.8))],
    4: [
        replace(STRONG, literal_window_loss=values(*[0.0] * (N - 1), 0.4)),
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
    14: [replace(STRONG, component_after=near(0.5, spread=2))],
}

WIDE = 30.0  # hundredths by case: an interval of about ± 0.2
BETWEEN = {
    1: [replace(STRONG, cysts=share(8, 20))],
    2: [
        replace(STRONG, cyst_tumor_overlap=near(0.5, spread=WIDE)),
        replace(STRONG, kidney_cyst_overlap=near(0.5)),
    ],
    3: [replace(STRONG, kidney_slices=near(0.5))],
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
    14: [replace(STRONG, component_after=near(0.6, spread=WIDE))],
}

MISSING = {
    1: [replace(STRONG, cysts=None)],
    2: [replace(STRONG, cyst_tumor_overlap=None), replace(STRONG, kidney_cyst_overlap=None)],
    3: [replace(STRONG, kidney_slices=None)],
    4: [
        replace(STRONG, literal_window_loss=None),
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
    14: [replace(STRONG, component_after=None), replace(STRONG, component_before=None)],
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
    few = set(CASES[: MIN_CASES - 1])
    cut = {}
    for item in fields(Evidence):
        held = getattr(STRONG, item.name)
        if isinstance(held, CaseValues):
            held = replace(held, values={c: v for c, v in held.values.items() if c in few})
        elif isinstance(held, Mapping):
            held = {k: v.only(few) if isinstance(v, ArmScores) else v for k, v in held.items()}
        cut[item.name] = held
    found = verdict(number, Evidence(**cut))
    assert (found.verdict, found.n) == ("undecided", MIN_CASES - 1)
    assert "fewer than 6 cases" in found.reason


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_synthetic_cohort_confirms_nothing_about_patients(number: int):
    made = {
        item.name: replace(held, synthetic=True)
        for item in fields(Evidence)
        if isinstance(held := getattr(STRONG, item.name), CaseValues)
    }
    found = verdict(number, replace(STRONG, **made))
    assert found.verdict == "not testable here"
    assert "synthetic" in found.reason


def test_a_part_that_fails_refutes_even_when_others_are_missing():
    evidence = Evidence(synthetic=True, literal_window_loss=values(0.0, 0.3, 0.0, 0.0))
    found = verdict(4, evidence)
    assert found.verdict == "not reproduced"
    assert found.value == pytest.approx(0.075)
    assert "cases that lose more than 0.1%: 1 of 4" in found.reason
    assert "no_residual" in found.reason


def test_small_targets_are_the_tumours_below_30_ml():
    small, large = CASES[:6], CASES[6:]
    volumes = dict.fromkeys(small, 10.0) | dict.fromkeys(large, 300.0)
    rival = ArmScores(
        cases=CASES, values=np.stack([BASE + np.where(np.arange(N) < 6, -0.1, 0.5)] * 2)
    )
    found = verdict(
        6, with_arms("tumor_dice", replace(STRONG, tumor_ml=volumes), unet=rival, deeplab=rival)
    )
    assert (found.verdict, found.n) == ("reproduced", 6)
    assert found.value == pytest.approx(0.1)


def test_a_mechanism_alone_stands_in_for_the_paper_s_order():
    alone = {"baseline": arm(0.0), "only_se": arm(-0.2, spread=2)}
    found = verdict(9, replace(STRONG, tumor_dice=alone))
    assert found.verdict == "not reproduced"
    assert found.measure == "tumour Dice, only_se minus baseline"
    assert verdict(9, with_arms("tumor_dice", only_se=arm(-0.2))).verdict == "reproduced"
    assert {pair[0][0] for pair in STEPS.values()} <= {"baseline", *STEPS}


def test_value_interval_and_n_are_those_of_the_data():
    found = verdict(8, STRONG)
    assert found.value == pytest.approx(0.03)
    assert found.ci[0] < 0.03 < found.ci[1]
    assert found.n == N
    assert "tumour Dice, multi_scale minus baseline: 0.030" in found.reason
    assert "on synthetic CT" in verdict(8, replace(STRONG, synthetic=True)).reason
    one_seed = ArmScores(cases=CASES, values=arm(0.03, spread=2).values[:1])
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
    rows = [v.to_dict() for v in [*ledger(STRONG), *ledger(Evidence(synthetic=True))]]
    read = json.loads(json.dumps(rows, allow_nan=False))
    assert (
        [row["number"] for row in read]
        == [claim.number for claim in CLAIMS] * 2
        == [*range(1, 15)] * 2
    )
    assert read[0]["claim"] == CLAIMS[0].sentence
    assert read[0].keys() >= {"claim", "verdict", "value", "ci", "n", "number", "reason"}
    assert read[14]["value"] is None
    assert read[14]["ci"] == [None, None]


def test_arm_scores_bring_seeds_together():
    found = ArmScores.from_seeds([{"b": 0.2, "a": 0.1}, {"a": 0.3}])
    assert found.cases == ("a", "b")
    np.testing.assert_array_equal(found.values, [[0.1, 0.2], [0.3, np.nan]])
    assert found.by_case()["a"].tolist() == [0.1, 0.3]
    with pytest.raises(ValueError, match="2 cases as named"):
        ArmScores(cases=("a", "b"), values=np.zeros((1, 3)))


def test_published_scores_are_dice_and_means_of_their_parts():
    for row in PUBLISHED:
        given = [v for v in (row.kidney, row.tumor, row.mean, row.mean_surface) if v is not None]
        assert given, row.system
        assert all(0 < v < 1 for v in given), row.system
        if None not in (row.kidney, row.tumor, row.mean):
            assert row.mean == pytest.approx((row.kidney + row.tumor) / 2, abs=0.001), row.system
