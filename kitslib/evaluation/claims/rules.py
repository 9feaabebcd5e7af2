"""One rule per row of the ledger: from the evidence to a number and what it is held against."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from kitslib.config import ARM_GROUPS
from kitslib.evaluation.claims.evidence import LEAST_CYST_ML, PRIMARY, Arms, Evidence
from kitslib.evaluation.claims.intervals import ZERO, Above, Answer, Within, number_text
from kitslib.evaluation.statistics import (
    Estimate,
    Share,
    estimate,
    median_difference,
    over_seeds,
    paired_difference,
)

CYST_CUTS_ML = (0.0, LEAST_CYST_ML, 2.0)  # shown; LEAST_CYST_ML judges
ABOUT_40 = Within(0.30, 0.50)  # what "about 40 %" can mean
SAME_HU = 0.5  # histograms share more than half of their area: "almost the same"
MAJORITY = 0.5
SMALL_TUMOR_ML = 30.0  # a small target: below the median of KiTS19's 210 cases
GREATLY = 0.05  # the least gain in Dice that "greatly" can mean
OVERSAMPLE_LIFT = 0.25  # from about 0.45 to about 0.70

# (without, with) in order of preference: the paper's own order of adding, then the mechanism alone
STEPS: dict[str, tuple[tuple[str, str], ...]] = {
    "multi_scale": (("baseline", "multi_scale"), ("baseline", "only_multi_scale")),
    "se": (("multi_scale", "se"), ("baseline", "only_se")),
    "attention": (("se", "attention"), ("baseline", "only_attention")),
    "hdc": (("attention", "hdc"), ("baseline", "only_hdc")),
    "focal_dice": (("hdc", "focal_dice"), ("baseline", "only_focal_dice")),
    "oversample": (("focal_dice", "full"), ("baseline", "only_oversample")),
}


def cyst_share(evidence: Evidence) -> Answer:
    """Reproduced when the Wilson interval of cases with 0.5 ml of cyst or more is in 0.30 to 0.50.

    Contradicted when it lies outside; the shares at two other cuts stand beside it.
    """
    measure = f"share of cases with at least {LEAST_CYST_ML:g} ml of cyst"
    if not len(evidence.cyst_ml):
        return Answer(measure=measure, lacking="which cases have a cyst")
    shares, beside = {}, []
    for cut in CYST_CUTS_ML:
        hits = sum(ml > 0 and ml >= cut for ml in evidence.cyst_ml)
        shares[cut] = found = Share(hits, len(evidence.cyst_ml))
        if cut != LEAST_CYST_ML:
            name = f"at least {cut:g} ml" if cut else "any cyst"
            numbers = number_text(found.value, found.ci)
            beside.append(f"{name}: {numbers}, {ABOUT_40.word(found.ci)}")
    return Answer(
        measure=measure, found=shares[LEAST_CYST_ML], bar=ABOUT_40, trainings=False,
        beside=tuple(beside),
    )  # fmt: skip


def hu_overlap(evidence: Evidence, one: str, other: str) -> Answer:
    """Reproduced when the interval of the mean overlap of two HU histograms lies above 0.5.

    A synthetic cohort cannot test it: it has the HU that its generator gave it.
    """
    what = f"HU histogram overlap of {one} and {other}".replace("tumor", "tumour")
    if evidence.synthetic:
        made = f"{what} in patients; the cohort is synthetic and has what its generator gave it"
        return Answer(measure=f"mean {what}", lacking=made)
    return _mean_share(getattr(evidence, f"{one}_{other}_overlap"), what, SAME_HU)


def empty_slices(evidence: Evidence) -> Answer:
    """Reproduced when the interval of the mean share of slices without kidney lies above 0.5."""
    return _mean_share(evidence.empty_slices, "share of slices without kidney", MAJORITY)


def kidney_part(evidence: Evidence, without: str) -> Answer:
    """Reproduced when the standard kidney network's Dice lies above that of the arm `without` it.

    Practically equal when the interval lies within ±0.05.
    """
    return _gain(evidence, evidence.kidney_dice, without, "standard", "kidney Dice")


def vnet_on_small_targets(evidence: Evidence, rival: str) -> Answer:
    """Reproduced when VNet's tumour Dice lies above the rival's on tumours below 30 ml."""
    what = f"tumour Dice below {SMALL_TUMOR_ML:g} ml"
    if not evidence.tumor_ml:
        lacking = "tumour volumes, which tell the small targets"
        return Answer(measure=f"difference in {what}", lacking=lacking)
    small = {case for case, ml in evidence.tumor_ml.items() if ml < SMALL_TUMOR_ML}
    return tumor_gain(evidence, rival, "baseline", what=what, cases=small)


def slices_against_volume(evidence: Evidence) -> Answer:
    """Reproduced when the interval of 2.5D VNet minus 3D VNet in tumour Dice lies above zero."""
    return tumor_gain(evidence, "vnet_3d", "baseline")


def step(evidence: Evidence, mechanism: str, least: float = 0.0) -> Answer:
    """Reproduced when the interval of what `mechanism` adds to tumour Dice lies above `least`.

    Contradicted when it ends below `least`; where that is zero, practically equal when it lies
    within ±0.05. What leaving the mechanism out of `full` costs stands beside it.
    """
    pairs = STEPS[mechanism]
    pair = next((pair for pair in pairs if evidence.arms.keys() >= set(pair)), pairs[0])
    found = tumor_gain(evidence, *pair, bar=Above(least))
    left_out = "focal_dice" if mechanism == "oversample" else f"no_{mechanism}"
    if pair == (left_out, "full") or not evidence.arms.keys() >= {left_out, "full"}:
        return found
    cost = _compared(evidence, evidence.arms, left_out, "full")
    words = f"leaving it out of full costs {number_text(cost.value, cost.ci)}"
    return replace(found, beside=(*found.beside, words))


def best_level(evidence: Evidence) -> Answer:
    """Reproduced when HDC at the bottom beats HDC at each other level in tumour Dice.

    The level that comes closest (the smallest difference over its standard error) judges, at an
    interval that holds for all levels at once.
    """
    levels = [name for name in ARM_GROUPS["levels"] if name != "hdc" and name in evidence.arms]
    answers = [tumor_gain(evidence, name, "hdc", "tumour Dice with HDC") for name in levels]
    measured = [one for one in answers if one.found is not None]
    if not measured:
        lacking = "tumour Dice of HDC at the bottom and at another level"
        return Answer(measure="difference in tumour Dice with HDC", lacking=lacking)
    hardest = min(measured, key=_in_standard_errors)
    return replace(hardest, tests=len(measured))


def gridding(evidence: Evidence) -> Answer:
    """Reproduced when the trained network with plain dilation sees its input more unevenly.

    Unevenness of the output's gradient over even and odd offsets, plain dilation minus HDC, over
    seeds.
    """
    measure = "difference in unevenness of the gradient, plain_dilation minus hdc"
    seeds = [evidence.gridding.get(name, ()) for name in ("hdc", "plain_dilation")]
    if not all(map(len, seeds)):
        lacking = "how evenly the trained networks of hdc and plain_dilation see their input"
        return Answer(measure=measure, lacking=lacking)
    found = over_seeds(*seeds, paired=len(seeds[0]) == len(seeds[1]))
    return Answer(measure=measure, found=found, bar=Above(band=None))


def loss(evidence: Evidence) -> Answer:
    """Reproduced when focal + weighted Dice beats Dice, both per sample, in tumour Dice."""
    return tumor_gain(evidence, "hdc_per_sample", "focal_dice_per_sample")


def cyst_false_positives(evidence: Evidence) -> Answer:
    """Reproduced when oversampling lowers the false-positive volume in cysts, all components."""
    arms, what = evidence.tumor.get("cyst_fp_all_ml", {}), "false-positive tumour volume in cysts"
    found = _gain(evidence, arms, "full", "focal_dice", what)
    return replace(found, unit="ml", bar=Above(band=None))


def largest_component(evidence: Evidence, arm: str) -> Answer:
    """Reproduced when keeping the largest component raises the arm's tumour Dice.

    Practically equal when the interval lies within ±0.05. What it removes in cysts stands beside.
    """
    kept = {column: arms.get(arm) for column, arms in evidence.tumor.items()}
    steps = {"all components": kept.get(PRIMARY), "largest component": kept.get("dice")}
    trained = {name: scores for name, scores in steps.items() if scores is not None}
    what = f"tumour Dice of {arm}"
    found = _gain(evidence, trained, "all components", "largest component", what)
    if found.found is None or kept.get("cyst_fp_ml") is None:
        return found
    removed = paired_difference(kept["cyst_fp_ml"], kept["cyst_fp_all_ml"])
    if removed.n == 0:
        return found
    numbers = number_text(removed.value, removed.ci, "ml")
    return replace(found, beside=(f"removed of false positives in cysts: {numbers}",))


def tumor_gain(
    evidence: Evidence, lower: str, higher: str, what: str = "tumour Dice",
    bar: Above = ZERO, cases: Collection[str] | None = None,
) -> Answer:  # fmt: skip
    """Ask whether tumour Dice of `higher` lies above that of `lower`, before the component step.

    The difference after it, as scored, stands beside it. cases: the ids to look at, else all.
    """
    found = _gain(evidence, evidence.arms, lower, higher, what, cases)
    scored = _gain(evidence, evidence.tumor.get("dice", {}), lower, higher, what, cases)
    if scored.found is None:
        return replace(found, bar=bar)
    numbers = number_text(scored.found.value, scored.ci)
    return replace(found, bar=bar, beside=(f"with the largest component alone: {numbers}",))


def _gain(
    evidence: Evidence, arms: Arms, lower: str, higher: str, what: str,
    cases: Collection[str] | None = None,
) -> Answer:  # fmt: skip
    """The difference of two arms, or what is lacking for it."""
    if absent := [name for name in (lower, higher) if name not in arms]:
        lacking = f"{what} of {' and '.join(absent)}"
        return Answer(measure=f"difference in {what}", lacking=lacking)
    found = _compared(evidence, arms, lower, higher, cases)
    if found.n == 0:
        lacking = f"{what}, on any case that both arms have"
        return Answer(measure=f"difference in {what}", lacking=lacking)
    where = " on synthetic CT" if evidence.synthetic else ""
    return Answer(measure=f"difference in {what}{where}, {higher} minus {lower}", found=found)


def _compared(
    evidence: Evidence, arms: Arms, lower: str, higher: str, cases: Collection[str] | None = None
) -> Estimate:
    compare = median_difference if evidence.by_median else paired_difference
    pair = [arms[lower], arms[higher]]
    if cases is not None:
        pair = [scores.loc[:, scores.columns.isin(cases)] for scores in pair]
    return compare(*pair)


def _mean_share(shares: Sequence[float], what: str, bound: float) -> Answer:
    """The mean share of cases, which no training is part of, against the bound."""
    measure = f"mean {what}"
    if not len(shares):
        return Answer(measure=measure, lacking=what)
    bar = Above(bound, band=None)
    return Answer(measure=measure, found=estimate(shares), bar=bar, trainings=False)


def _in_standard_errors(answer: Answer) -> float:
    """A difference over its standard error, an undefined one first."""
    found = answer.found
    return found.value / found.se if found.se > 0 else found.value
