"""Which components are called a tumour: numbers that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kitslib.evaluation import (
    WITH,
    WITHOUT,
    Decision,
    TumorStage,
    choose_decision,
    choose_decisions,
    contrast,
    decision_words,
    marked,
    rates,
)


def found(ml: float, certain: float, hits: bool) -> dict:
    return {"ml": ml, "certain": certain, "hits": hits}


def patient(tumor_ml: float, *rows: dict, scan: str = WITH) -> dict:
    return {"case": "c", "tumor_ml": tumor_ml, "found": list(rows), "scan": scan}


def test_a_patient_is_what_its_components_say() -> None:
    probability = np.zeros((3, 4, 6), np.float16)
    probability[0, 0, :2] = 0.75
    probability[2, 2:, 4:] = 1.0
    truth = np.zeros(probability.shape, bool)
    truth[2, 3, 5] = True
    rows = marked(probability, truth, 0.25)
    assert rows == [found(0.5, 0.75, False), found(1.0, 1.0, True)]
    decision = Decision(0.75)
    kept = decision.applied(probability, 0.25)
    assert kept.dtype == np.float16 and not kept[0].any() and (kept[2, 2:, 4:] == 1).all()
    assert np.array_equal(Decision(0).applied(probability, 1), probability)


def test_rates_are_counted_by_size() -> None:
    patients = [
        patient(0), patient(0, found(2, 0.9, False)), patient(3, found(1, 0.9, True)),
        patient(20, found(9, 0.9, False)), patient(40, found(30, 0.95, True)),
    ]  # fmt: skip
    told = rates(patients, Decision(1.4))
    assert (told["specificity"], told["without_tumor"]) == (0.5, 2)
    assert told["sensitivity"] == pytest.approx(1 / 3, abs=1e-4)
    assert told["sensitivity_above_10_ml"] == 0.5
    by_size = {row["tumor"]: (row["patients"], row["sensitivity"]) for row in told["by_size"]}
    assert by_size["0 to 4 ml"] == (1, 0.0) and by_size["30 to 100 ml"] == (1, 1.0)
    assert by_size["4 to 10 ml"] == (0, None) and by_size["10 to 30 ml"] == (1, 0.0)


def test_the_choice_is_specific_first() -> None:
    free = [patient(0, found(1.0, 0.7, False)) for _ in range(20)]
    sick = [patient(15, found(8, 0.9, True)) for _ in range(9)]
    small = [patient(2, found(0.9, 0.8, True))]
    decision = choose_decision([*free, *sick, *small])
    told = rates([*free, *sick, *small], decision)
    assert told["specificity"] == 1 and told["sensitivity"] == 1
    assert 0.4 <= decision.least_ml <= 0.54  # 1.0 ml of 0.7 against 0.9 ml of 0.8
    with pytest.raises(ValueError, match="one kind"):
        choose_decision(sick)


@pytest.mark.parametrize("hu", [32, 140])
@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("noise", [5, 25])
def test_contrast_is_seen_in_the_kidneys_whatever_the_tumour(
    hu: int, share: float, noise: int
) -> None:
    rng = np.random.default_rng(5)
    kidney = np.zeros((10, 20, 20), np.uint8)
    kidney[2:8, 4:16, 4:16] = 1
    imaging = np.where(rng.uniform(size=kidney.shape) < share, 20, hu)  # a tumour without uptake
    imaging = np.where(kidney > 0, imaging, -900) + rng.normal(0, noise, kidney.shape)
    assert contrast(imaging.astype(np.int16), kidney) == (WITH if hu > 60 else WITHOUT)


def test_scans_without_contrast_have_thresholds_of_their_own() -> None:
    patients = []
    for scan, certain in ((WITH, 0.7), (WITHOUT, 0.9)):
        patients += [patient(0, found(1.0, certain, False), scan=scan) for _ in range(20)]
        patients += [patient(15, found(8, certain + 0.05, True), scan=scan) for _ in range(20)]
    chosen = choose_decisions(patients)
    assert 0.4 <= chosen[WITH]["least_ml"] < 0.8 <= chosen[WITHOUT]["least_ml"] < 1
    for scan in (WITH, WITHOUT):
        assert chosen[scan]["tested_on"]["sensitivity"] == 1
        assert chosen[scan]["tested_on"]["without_tumor"] == 10
    words = decision_words(chosen)
    assert decision_words(chosen, WITHOUT) in words and "Without contrast" in words
    assert "Without" not in decision_words(chosen, WITH)
    lone = [one for one in patients if one["scan"] == WITH or one["tumor_ml"]]
    assert choose_decisions(lone)[WITHOUT]["tested_on"]["specificity"] is None


def test_a_stage_reads_its_decisions_from_the_settings() -> None:
    patients = [patient(ml, scan=scan) for ml in (0, 0, 5, 5) for scan in (WITH, WITHOUT)]
    setting = choose_decisions(patients)
    training = {"hu": "foreground", "slices": 5, "slab": 8, "test_time_mirroring": False}
    settings = {
        "training": training | {"patch": [48, 48]}, "arm": {"dims": "2.5d"}, "grid": {},
        "decision": setting,
    }  # fmt: skip
    decisions = TumorStage.of(None, settings).decisions
    assert decisions is not None and set(decisions) == {WITH, WITHOUT}
    for scan, decision in decisions.items():
        assert decision == Decision(setting[scan]["least_ml"])
    del settings["decision"]
    assert TumorStage.of(None, settings).decisions is None
