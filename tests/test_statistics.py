"""Intervals over seeds and cases: numbers worked by hand, and what they promise by simulation."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng
from scipy import stats

from benchmarks import coverage
from kitslib.evaluation import (
    BAND,
    Above,
    Estimate,
    crossed,
    crossed_apart,
    estimate,
    holm,
    holm_levels,
    paired_difference,
    wilson_interval,
)
from kitslib.evaluation.statistics import Share, median_difference, over_seeds

# 3 seeds × 4 cases: seeds -1, 0, 1 about 10, cases -9, -3, 3, 9, and a pattern without either
SEEDS, CASES = np.array([-1.0, 0.0, 1.0]), np.array([-9.0, -3.0, 3.0, 9.0])
ADDITIVE = 10 + SEEDS[:, None] + CASES
PATTERN = np.outer([1.0, -2.0, 1.0], [1.0, -1.0, -1.0, 1.0])  # its squares add up to 24
NAMES = [f"case_{i:05d}" for i in range(4)]


def table(matrix: np.ndarray, seeds: list[int] | None = None) -> pd.DataFrame:
    columns = [f"case_{i:05d}" for i in range(matrix.shape[1])]
    return pd.DataFrame(matrix, index=seeds or list(range(len(matrix))), columns=columns)


def test_a_mean_over_seeds_and_cases_on_paper():
    # mean squares: seeds 4 × var(-1, 0, 1) = 4, cases 3 × var(-9, -3, 3, 9) = 180, rest 0
    found = estimate(ADDITIVE)
    assert (found.value, found.n, found.seeds, found.undefined) == (10, 4, 3, 0)
    assert found.se == pytest.approx(math.sqrt((4 + 180) / 12))
    # the seeds' share is 4 of 184; they have 2 degrees of freedom, which count 2² / 3, the cases 3
    weight = math.sqrt(4 / 184)
    assert found.df == pytest.approx(1 / (weight * 3 / 4 + (1 - weight) / 3))
    half = stats.t.ppf(0.975, found.df) * found.se
    assert found.ci == pytest.approx((10 - half, 10 + half))
    assert found.components == pytest.approx((4 / 4, 180 / 3, 0))


@pytest.mark.parametrize(("size", "variance"), [(0.5, 4 + 180 - 1), (2, 180)])
def test_the_rest_is_taken_off_but_never_below_seeds_or_cases_alone(size: float, variance: float):
    # mean square of the rest: 24 size² / 6; for size 2 it is 16, and 4 + 180 - 16 lies below 180
    found = estimate(ADDITIVE + size * PATTERN)
    assert found.se == pytest.approx(math.sqrt(variance / 12))
    seed, case, rest = found.components
    assert (rest, seed) == pytest.approx((4 * size**2, max(0, 4 - 4 * size**2) / 4))
    assert case == pytest.approx((180 - 4 * size**2) / 3)


def test_one_seed_is_student_s_t_over_cases_and_says_what_it_leaves_out():
    sample = np.array([[0.1, 0.4, 0.5, 0.9, 0.95]])
    expected = stats.ttest_1samp(sample[0], 0.0)
    found = estimate(sample)
    assert found.ci == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p == pytest.approx(expected.pvalue)
    assert "one seed" in found.warning and "only 5 cases" in found.warning
    labels = estimate(np.linspace(0, 1, 12))
    assert labels.warning == "", "no training is part of a mean over cases alone"


def test_the_undefined_are_counted_and_left_out():
    found = estimate(np.array([[0.2, 0.4, math.nan], [0.3, 0.5, 0.1]]))
    assert (found.value, found.n, found.undefined) == (pytest.approx(0.35), 2, 1)
    nothing = estimate([math.nan])
    assert math.isnan(nothing.value) and nothing.n == 0
    assert all(map(math.isnan, [*nothing.ci, nothing.p, nothing.smallest_effect]))
    assert math.isnan(estimate([0.5]).ci[0]) and estimate([0.5]).value == 0.5
    with pytest.raises(ValueError, match=r"shape \(cases,\) or \(seeds, cases\)"):
        estimate(np.zeros((2, 2, 2)))


def test_without_any_spread_the_interval_is_a_point():
    same, apart = estimate(np.full((3, 4), 0.25)), estimate(np.zeros((3, 4)))
    assert same.ci == (0.25, 0.25) and same.p == 0.0
    assert apart.ci == (0.0, 0.0) and apart.p == 1.0
    assert apart.needed(lambda ci: ci[0] > 0) is None and apart.smallest_effect == 0.0


def test_seeds_that_differ_widen_the_interval():
    cases = np.linspace(0.4, 0.6, 8)
    same = estimate(np.stack([cases, cases, cases]))
    apart = estimate(np.stack([cases - 0.2, cases, cases + 0.2]))
    assert same.value == pytest.approx(apart.value)
    assert apart.ci[1] - apart.ci[0] > 3 * (same.ci[1] - same.ci[0])


def test_shared_seeds_are_paired_by_their_index():
    b = ADDITIVE + 0.5 + 0.01 * PATTERN
    found = paired_difference(table(ADDITIVE, [0, 1, 7]), table(b[::-1], [7, 1, 0]))
    assert found.value == pytest.approx(0.5)
    # what is left of the difference is 0.01 × PATTERN: rest 0.0004, seeds and cases 0
    assert found.se == pytest.approx(0.0, abs=1e-9)
    assert found.components == pytest.approx((0, 0, 0.0004), abs=1e-9)
    assert found.seeds == 3
    some = paired_difference(table(ADDITIVE, [0, 1, 7]), table(b, [7, 8, 9]))
    assert some.seeds == 1 and some.value == pytest.approx(b[0].mean() - ADDITIVE[2].mean())
    assert "1 of 3 and 3 seeds are in both arms" in some.warning and "one seed" in some.warning


def test_seeds_that_are_not_shared_add_their_variances():
    b = ADDITIVE + 0.5
    found = paired_difference(table(ADDITIVE, [0, 1, 2]), table(b, [3, 4, 5]))
    assert found.value == pytest.approx(0.5) and found.seeds == 3
    # mean square of seeds 4 in each arm: 4 / 12 + 4 / 12; cases do not differ between the arms
    assert found.se == pytest.approx(math.sqrt(8 / 12))
    assert found.df == pytest.approx(2) and found.components == pytest.approx((2, 0, 0))
    tilted = b + np.array([0.0, 0.0, 0.0, 4.0])  # of four cases: the variance of a gap is 4
    found = paired_difference(table(ADDITIVE, [0, 1, 2]), table(tilted, [3, 4, 5]))
    assert found.se == pytest.approx(math.sqrt(8 / 12 + 4 / 4))
    assert found.components == pytest.approx((2, 4, 0))


def test_arrays_of_other_seed_counts_are_not_paired():
    cases = np.linspace(0.4, 0.6, 12)
    two, three = np.stack([cases, cases + 0.1]), np.stack([cases + 0.1, cases, cases + 0.05])
    found = paired_difference(two, three)
    apart = crossed_apart(two, three)
    assert (found.value, found.se) == pytest.approx((apart.value, math.sqrt(apart.variance)))
    assert apart.variance > 0.05**2
    assert paired_difference(two, two + 0.1).se == pytest.approx(0), "as many: the same seeds"
    with pytest.raises(ValueError, match="same cases, got 2 and 3"):
        paired_difference([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="both arrays in one order"):
        paired_difference([1, 2, 3, 4], table(ADDITIVE))


def test_a_difference_is_over_the_cases_that_both_arms_have():
    a = pd.DataFrame({"x": [0.1, 0.2], "y": [0.5, 0.4], "z": [0.9, 0.7], "only a": [0.0, 0.0]})
    b = pd.DataFrame({"z": [1.0, 0.8], "y": [0.6, 0.5], "x": [0.2, 0.3], "nan": [math.nan] * 2})
    found = paired_difference(a, b)
    assert (found.value, found.n, found.undefined) == (pytest.approx(0.1), 3, 2)
    assert "2 cases scored in one arm only" in found.warning
    assert paired_difference(a[["x"]], b[["y"]]).n == 0
    one = paired_difference(a[["x"]], b[["x"]])
    assert one.value == pytest.approx(0.1) and math.isnan(one.se)


def test_one_seed_of_a_difference_is_the_paired_t_test():
    draws = default_rng(0)
    a, b = draws.random(9), draws.random(9)
    expected = stats.ttest_rel(b, a)
    found = paired_difference(a, b)
    assert (found.p, found.df) == pytest.approx((expected.pvalue, 8))
    assert found.ci == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert paired_difference(b, a).ci == pytest.approx((-found.ci[1], -found.ci[0]))


def test_an_interval_ends_where_its_p_says():
    found = estimate(ADDITIVE)
    for level in (0.8, 0.95, 0.999):
        for end in found.interval_at(level):
            assert found.p_against(end) == pytest.approx(1 - level)
    assert found.p == pytest.approx(found.p_against(0.0))


def test_a_share_and_its_p_on_paper():
    z = 1.959963984540054
    assert wilson_interval(0, 10) == pytest.approx((0.0, z**2 / (10 + z**2)))
    lo, hi = wilson_interval(87, 210)
    assert (lo, hi) == pytest.approx((0.350, 0.482), abs=1e-3)
    share = Share(87, 210)
    assert share.ci == (lo, hi) and share.value == pytest.approx(87 / 210)
    for level in (0.8, 0.95, 0.999):
        for end in share.interval_at(level):
            assert share.p_against(end) == pytest.approx(1 - level)
    with pytest.raises(ValueError, match="not be greater than"):
        wilson_interval(3, 2)


def test_values_by_seed_follow_student_and_welch():
    a, b = np.array([0.1, 0.3, 0.2, 0.25]), np.array([0.5, 0.45, 0.7, 0.8])
    paired = over_seeds(a, b, n=5, paired=True)
    assert paired.p == pytest.approx(stats.ttest_rel(a, b).pvalue) and paired.n == 5
    apart = over_seeds(a, b[:3], paired=False)
    expected = stats.ttest_ind(b[:3], a, equal_var=False)
    assert (apart.p, apart.df) == pytest.approx((expected.pvalue, expected.df))
    assert math.isnan(over_seeds(a[:1], b[:1], paired=True).se)
    # medians over cases: 0.4 and 0.5 against 0.9 and 0.6
    first = pd.DataFrame([[0.1, 0.4, 0.9], [0.2, 0.5, 0.8]])
    second = pd.DataFrame([[0.9, 0.9, 0.1], [0.6, 0.1, 1.0]])
    found = median_difference(first, second)
    assert found.value == pytest.approx((0.5 + 0.1) / 2) and (found.seeds, found.n) == (2, 3)
    assert found.se == pytest.approx(0.2)
    assert median_difference(first[[]], second[[]]).n == 0


def test_the_smallest_effect_is_shown_in_80_percent():
    found = estimate(ADDITIVE)
    quantiles = stats.t.ppf(0.975, found.df) + stats.t.ppf(0.8, found.df)
    assert found.smallest_effect == pytest.approx(quantiles * found.se)
    spread = coverage.Spread("", 0.05, 0.1, 0.1)
    null, _ = coverage.null_rows(default_rng(0), 500, 12, 66, spread)
    effect = np.mean([null.se[i, 0] * 2.9 for i in range(500)])  # of about 30 degrees of freedom
    low, _ = null.interval_at(0.95)
    assert 0.7 < np.mean(low + effect > 0) < 0.9


def test_a_plan_says_how_many_seeds_would_decide():
    found, bar = estimate(0.08 + 0.1 * SEEDS[:, None] + np.tile([0.1, -0.1], 20)), Above()
    assert bar.word(found.ci) == "undecided"
    seeds, cases = found.needed(lambda ci: bar.word(ci) != "undecided")
    assert cases == 40 and seeds > 3
    assert bar.word(found.planned(seeds, cases).ci) == "reproduced"
    assert bar.word(found.planned(seeds - 1, cases).ci) == "undecided"
    assert found.planned(3, 40).se == pytest.approx(found.se)
    # a band narrower than what the cases leave open takes more of them
    broad = estimate(np.tile([0.3, -0.3], 20) + np.array([[-0.001], [0.0], [0.001]]))
    plan = broad.needed(lambda ci: bar.word(ci) != "undecided")
    assert plan is not None and plan[1] in (160, 320)
    at_the_edge = Estimate(**{**vars(found), "value": BAND})
    assert at_the_edge.needed(lambda ci: ci[0] > -BAND and ci[1] < BAND) is None
    assert estimate(ADDITIVE[:1]).needed(lambda ci: True) is None, "one seed tells nothing of seeds"


def test_holm_on_paper():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.02, math.nan, 0.04]) == pytest.approx([0.04, math.nan, 0.04], nan_ok=True)
    rows = np.array([[0.01, 0.04, 0.03], [0.6, 0.001, 0.5]])
    np.testing.assert_allclose(holm(rows), [holm(row) for row in rows])


def test_each_round_of_holm_has_its_level():
    # of three tests one passes 0.05 / 3, of the two that are left one passes 0.05 / 2
    levels = holm_levels([0.001, 0.02, 0.3, math.nan])
    assert 1 - levels == pytest.approx([0.05 / 3, 0.05 / 2, 0.05, 0.05])
    assert 1 - holm_levels([0.03, 0.04]) == pytest.approx([0.025, 0.025]), "none is decided"
    draws = default_rng(0)
    p = draws.beta(0.3, 2, (300, 8))
    np.testing.assert_array_equal(p <= 1 - holm_levels(p) + 1e-12, holm(p) <= 0.05)


@pytest.mark.parametrize(("seeds", "cases"), [(3, 16), (3, 66), (6, 66)])
@pytest.mark.parametrize("seed_sd", [0.012, 0.1])
def test_intervals_cover_what_they_promise(seeds: int, cases: int, seed_sd: float):
    spread = coverage.Spread("", seed_sd, 0.1, 0.05)
    for pairing, found in coverage.estimates(default_rng(0), 3000, seeds, cases, spread):
        low, high = found.ci
        covered = np.mean((low <= 0) & (high >= 0))
        assert covered >= 0.93, pairing


def test_cases_alone_would_not_cover_where_seeds_differ():
    draws, inside = default_rng(0), 0
    spread = coverage.Spread("", 0.1, 0.1, 0.05)
    first, second = coverage.arms(draws, 300, 3, 66, spread)
    for gaps in second - first:
        low, high = estimate(gaps.mean(axis=0)).ci
        inside += low <= 0 <= high
    assert inside / 300 < 0.6
    found = crossed(second - first)
    held = Estimate(value=found.value, se=np.sqrt(found.variance), df=found.df, n=66, seeds=3)
    assert np.mean((held.ci[0] <= 0) & (held.ci[1] >= 0)) > 0.93


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_ledger_without_effects_seldom_has_a_false_verdict(seeds: int):
    trials, spread = 3000, coverage.Spread("", 0.1, 0.1, 0.17)
    ours, plain = coverage.null_rows(default_rng(0), trials, seeds, 66, spread)
    rates = coverage.false_rates(ours)
    error = 3 * math.sqrt(0.05 * 0.95 / trials)
    for name in coverage.ADJUSTED:
        assert rates[name] <= 0.05 + error, name
    assert rates["no effect, any row unadjusted"] > 0.3, "sixteen rows at 5 % each"
    if seeds == 3:
        assert coverage.false_rates(plain)["no effect, any row"] > 0.05 + error, "Satterthwaite"


def test_the_band_s_edge_is_seldom_called_equal():
    spread = coverage.Spread("", 0.012, 0.05, 0.05)
    found, _ = coverage.null_rows(default_rng(0), 1500, 6, 200, spread)
    rates = coverage.false_rates(found)
    assert rates["effect of the band, one row unadjusted"] <= 0.025 + 0.003
    assert rates["effect of the band, any row"] <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1500)
    words = coverage.verdicts(found, adjusted=True)
    assert np.mean(words == "practically equal") > 0.9, "this design can tell that arms are equal"


def test_skewed_scores_are_covered_too():
    spread = coverage.Spread("", 0.012, 0.1, 0.1, skewed=True)
    for _, found in coverage.estimates(default_rng(0), 1000, 6, 66, spread):
        low, high = found.ci
        assert np.mean((low <= 0) & (high >= 0)) >= 0.93


def test_mean_squares_are_drawn_as_those_of_scores():
    spread, draws = coverage.Spread("", 0.05, 0.1, 0.05), default_rng(0)
    found = dict(coverage.estimates(draws, 2000, 4, 16, spread))["paired"]
    drawn, _ = coverage.null_rows(draws, 200, 4, 16, spread)
    assert np.median(drawn.se) == pytest.approx(np.median(found.se), rel=0.05)
    assert np.median(drawn.df) == pytest.approx(np.median(found.df), rel=0.05)


def test_spreads_are_read_from_a_study_s_ledger(tmp_path):
    rows = [
        {"band": 0.05, "components": [0.1, 0.2, 0.4]}, {"band": None, "components": [9.0] * 3},
        {"band": 0.05, "components": [0.2, 0.1, 0.2]}, {"band": 0.05, "components": None},
        {"band": 0.05, "components": [0.3, 0.3, 0.6]}, {"band": 0.05, "components": [None] * 3},
    ]  # fmt: skip
    file = tmp_path / "summary.json"
    file.write_text(json.dumps({"claims": rows}))
    middle, most = coverage.of_study(tmp_path)
    assert (middle.seed, middle.case, middle.rest) == pytest.approx(
        (0.2 / math.sqrt(2), 0.2, 0.4 / math.sqrt(2))
    )
    assert (most.seed, most.case, most.rest) == pytest.approx(
        (0.3 / math.sqrt(2), 0.3, 0.6 / math.sqrt(2))
    )
    file.write_text(json.dumps({"claims": rows[1:2]}))
    with pytest.raises(ValueError, match="no row of the ledger compares arms"):
        coverage.of_study(file)


def test_the_benchmark_writes_its_tables(capsys: pytest.CaptureFixture, tmp_path):
    assert coverage.main(["--trials", "20", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "coverage.md").read_text()
    assert "least coverage from 3 seeds on" in page and "| 12 " in page
    assert "python -m benchmarks coverage" in capsys.readouterr().out
