"""Splits and folds: the paper's numbers, no leaks, and stability when cases are added."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from kitslib.data import CaseError, fold, split_cases, training_draw

KITS19 = [f"case_{number:05d}" for number in range(210)]


def test_the_papers_numbers() -> None:
    split = split_cases(KITS19, seed=0, rule="paper")
    assert (len(split.kidney_train), len(split.kidney_held_out)) == (190, 20)
    assert split.tumor_train == tuple(KITS19[:195])
    assert split.tumor_held_out == tuple(KITS19[195:])
    assert set(split.cascade_test) == set(split.kidney_held_out) & set(KITS19[195:])


@pytest.mark.parametrize("seed", range(5))
def test_nested_leaves_every_tumour_test_case_unseen_by_the_kidney_stage(seed: int) -> None:
    split = split_cases(KITS19, seed=seed)
    assert (len(split.kidney_train), len(split.kidney_held_out)) == (190, 20)
    assert split.cascade_test == split.tumor_held_out == tuple(KITS19[195:])
    assert set(split.tumor_held_out) < set(split.kidney_held_out)
    assert not set(split.cascade_test) & (set(split.kidney_train) | set(split.tumor_train))
    assert sorted(split.kidney_train + split.kidney_held_out) == KITS19


def test_seed_changes_the_draw_and_order_of_the_input_does_not() -> None:
    assert split_cases(KITS19, seed=1) == split_cases(KITS19[::-1], seed=1)
    assert (
        split_cases(KITS19, seed=1).kidney_held_out != split_cases(KITS19, seed=2).kidney_held_out
    )


def test_one_more_case_changes_at_most_one_place_of_a_draw() -> None:
    for more in ("case_00010a", "case_00300", "case_00301"):
        before = set(split_cases(KITS19, seed=3, rule="paper").kidney_held_out)
        after = set(split_cases([*KITS19, more], seed=3, rule="paper").kidney_held_out)
        assert len(after) == 20
        assert before - after == set() or (len(before - after) == 1 and after - before == {more})


@pytest.mark.parametrize(
    ("cases", "tumour", "kidney"),
    [
        (489, 35, 47),
        (210, 15, 20),
        (105, 8, 10),
        (40, 5, 5),
        (24, 5, 5),
        (12, 3, 3),
        (8, 2, 2),
        (3, 1, 1),
        (2, 1, 1),
    ],
)
def test_other_sizes_are_proportional_with_a_minimum(cases: int, tumour: int, kidney: int) -> None:
    split = split_cases([f"case_{number:05d}" for number in range(cases)], seed=0)
    assert (len(split.tumor_held_out), len(split.kidney_held_out)) == (tumour, kidney)


def test_held_out_is_a_number_of_tumour_cases() -> None:
    split = split_cases(KITS19[:24], seed=0, held_out=8)
    assert (len(split.tumor_held_out), len(split.kidney_held_out), len(split.cascade_test)) == (
        8,
        8,
        8,
    )


def test_cases_are_in_case_order_and_not_in_letter_order() -> None:
    split = split_cases(["p_10", "p_9", "p_8", "p_1"], seed=0)
    assert split.tumor_train == ("p_1", "p_8", "p_9")
    assert split.tumor_held_out == ("p_10",)


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(CaseError, match="at least 2 cases"):
        split_cases(["case_00000"], seed=0)
    with pytest.raises(CaseError, match="got 4"):
        split_cases(KITS19[:4], seed=0, held_out=4)
    with pytest.raises(CaseError, match="got case_00001 again"):
        split_cases(["case_00000", "case_00001", "case_00001"], seed=0)
    with pytest.raises(CaseError, match=r"one of 'nested', 'paper', 'fold0'.*, got 'random'"):
        split_cases(KITS19, seed=0, rule="random")


def test_a_leak_cannot_be_built() -> None:
    split = split_cases(KITS19[:24], seed=0)
    leaked = split.tumor_held_out[0]
    with pytest.raises(CaseError, match=f"tumour split: {leaked}"):
        replace(split, tumor_train=(*split.tumor_train, leaked))
    with pytest.raises(CaseError, match="cascade split: case_00000"):
        replace(split, cascade_test=("case_00000",))


def test_a_split_is_plain_data() -> None:
    stored = asdict(split_cases(KITS19[:8], seed=4, rule="paper"))
    assert (stored["seed"], stored["rule"]) == (4, "paper")
    assert all(isinstance(case, str) for case in stored["kidney_train"])


def test_each_seed_draws_its_training_cases() -> None:
    cases = [f"case_{number:05}" for number in range(40)]
    drawn = [training_draw(cases, 0.75, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(found) == 30 and list(found) == sorted(found) for found in drawn)
    assert training_draw(cases, 1.0, 5) == tuple(cases)
    assert training_draw(cases[:2], 0.1, 0)


def test_folds_partition_a_cohort_evenly() -> None:
    folds = [fold(KITS19, k, seed=0) for k in range(5)]
    assert sorted(case for one in folds for case in one.held_out) == KITS19
    assert [len(one.held_out) for one in folds] == [42] * 5
    for one in folds:
        assert sorted(one.train + one.held_out) == KITS19


def test_a_rule_can_be_a_fold_which_both_stages_hold_out() -> None:
    tested = []
    for k in range(5):
        split = split_cases(KITS19, seed=19, rule=f"fold{k}", held_out=3)
        assert split.kidney_held_out == split.tumor_held_out == split.cascade_test
        assert split.kidney_train == split.tumor_train == fold(KITS19, k, seed=19).train
        tested += split.cascade_test
    assert sorted(tested) == KITS19


def test_folds_do_not_move_when_cases_are_added() -> None:
    some = KITS19[3:200:7]
    for k in range(5):
        held_out = set(fold(some, k, seed=1).held_out)
        assert held_out == set(fold(KITS19, k, seed=1).held_out) & set(some)


def test_folds_depend_on_the_seed_and_refuse_nonsense() -> None:
    assert fold(KITS19, 0, seed=0).held_out != fold(KITS19, 0, seed=1).held_out
    with pytest.raises(CaseError, match="from 0 to 4, got 5"):
        fold(KITS19, 5, seed=0)
    with pytest.raises(CaseError, match="0 of 1 cases"):
        [fold(["case_00000"], k, seed=0) for k in range(5)]
    names = [f"patient {letter}" for letter in "abcdefghijklmnopqrst"]
    assert (
        sorted(case for k in range(2) for case in fold(names, k, seed=0, n_folds=2).held_out)
        == names
    )
