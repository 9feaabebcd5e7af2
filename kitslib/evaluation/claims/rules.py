"""One rule per claim: from the evidence to a finding."""

from __future__ import annotations

from collections.abc import Callable

from kitslib.evaluation.claims.evidence import ArmScores, CaseValues, Evidence
from kitslib.evaluation.claims.findings import (
    Finding,
    all_of,
    by_at_least,
    gain,
    mean_level,
    missing,
    nothing_lost,
    reaching,
    unreal,
)
from kitslib.evaluation.metrics.statistics import wilson_interval

CYST_SHARE = 0.40  # the paper's "about 40 %"
CYST_SHARE_WIDTH = 0.20  # a wider interval would agree with almost any share
SAME_HU = 0.5  # histograms share more than half of their area: "almost the same"
SMALL_TUMOR_ML = 30.0  # a small target: below the median of KiTS19's 210 cases
GREATLY = 0.05  # the least gain in Dice that "greatly" can mean
OVERSAMPLE_LIFT = 0.25  # from about 0.45 to about 0.70
LOST = 1e-3  # share of a kidney that an inference may miss and still cover the volume

# (without, with) in order of preference: the paper's own order of adding, then the mechanism alone
STEPS: dict[str, tuple[tuple[str, str], ...]] = {
    "multi_scale": (("baseline", "multi_scale"), ("baseline", "only_multi_scale")),
    "se": (("multi_scale", "se"), ("baseline", "only_se")),
    "attention": (("se", "attention"), ("baseline", "only_attention")),
    "hdc": (("attention", "hdc"), ("baseline", "only_hdc")),
    "focal_dice": (("hdc", "focal_dice"), ("baseline", "only_focal_dice")),
    "oversample": (("focal_dice", "full"), ("baseline", "only_oversample")),
}


def cyst_share(evidence: Evidence) -> Finding:
    """1: reproduced when 40 % lies in the share's Wilson interval and that is at most 0.20 wide.

    Not reproduced when 40 % lies outside; undecided when the interval is wider. A synthetic cohort cannot
    test it.
    """
    if absent := unreal(evidence.cysts, "which cases have a cyst"):
        return absent
    has = [value > 0 for value in evidence.cysts.values.values()]
    lo, hi = wilson_interval(sum(has), len(has))
    if not lo <= CYST_SHARE <= hi:
        verdict, why = "not reproduced", f"{CYST_SHARE:.0%} lies outside the interval"
    elif hi - lo > CYST_SHARE_WIDTH:
        verdict, why = "undecided", f"the interval is wider than {CYST_SHARE_WIDTH:.2f}"
    else:
        verdict, why = "reproduced", f"{CYST_SHARE:.0%} lies in the interval"
    share = sum(has) / len(has)
    return Finding(
        verdict=verdict,
        why=why,
        measure="share of cases with a cyst",
        value=share,
        ci=(lo, hi),
        n=len(has),
    )


def hu_overlap(evidence: Evidence) -> Finding:
    """2: reproduced when cyst HU share more than half of their histogram with kidney's and with tumour's.

    Each mean overlap is held against 0.5 by its interval, and both must hold. A synthetic cohort cannot
    test it.
    """
    return all_of(
        [
            _overlap(evidence.cyst_tumor_overlap, "HU histogram overlap of cyst and tumour"),
            _overlap(evidence.kidney_cyst_overlap, "HU histogram overlap of kidney and cyst"),
        ]
    )


def empty_slices(evidence: Evidence) -> Finding:
    """3: reproduced when the interval of the mean share of slices without kidney lies above one half.

    A synthetic cohort cannot test it.
    """
    what = "share of slices without kidney"
    if absent := unreal(evidence.kidney_slices, what):
        return absent
    return mean_level(
        [1 - share for share in evidence.kidney_slices.values.values()], f"mean {what}", 0.5
    )


def kidney_training(evidence: Evidence) -> Finding:
    """4: reproduced when residual sums and deep supervision each raise kidney Dice; the window covers all.

    One case that loses more than 0.1 % of its kidney to the window as printed refutes it, whatever the rest.
    """
    arms, synthetic = evidence.kidney_dice, evidence.synthetic
    return all_of(
        [
            gain(arms, "no_residual", "standard", "kidney Dice", synthetic),
            gain(arms, "no_deep_supervision", "standard", "kidney Dice", synthetic),
            nothing_lost(
                evidence.literal_window_loss,
                "share of kidney the printed window never outputs",
                LOST,
            ),
        ]
    )


def mirroring(evidence: Evidence) -> Finding:
    """5: reproduced when the interval of what mirroring adds to kidney Dice lies above zero."""
    return gain(evidence.kidney_dice, "mirror_none", "standard", "kidney Dice", evidence.synthetic)


def vnet_on_small_targets(evidence: Evidence) -> Finding:
    """6: reproduced when VNet's tumour Dice beats both UNet's and DeepLab's on tumours below 30 ml."""
    if not evidence.tumor_ml:
        return missing("tumour volumes, which tell the small targets")
    small = {case for case, ml in evidence.tumor_ml.items() if ml < SMALL_TUMOR_ML}
    arms = {name: scores.only(small) for name, scores in evidence.tumor_dice.items()}
    what = f"tumour Dice below {SMALL_TUMOR_ML:g} ml"
    return all_of(
        [gain(arms, rival, "baseline", what, evidence.synthetic) for rival in ("unet", "deeplab")]
    )


def slices_against_volume(evidence: Evidence) -> Finding:
    """7: reproduced when the interval of 2.5D VNet minus 3D VNet in tumour Dice lies above zero."""
    return gain(evidence.tumor_dice, "vnet_3d", "baseline", "tumour Dice", evidence.synthetic)


def multi_scale(evidence: Evidence) -> Finding:
    """8: reproduced when the interval of what multi-scale input adds to tumour Dice lies above zero."""
    return _step(evidence, "multi_scale")


def squeeze_excite(evidence: Evidence) -> Finding:
    """9: reproduced when the interval of what SE adds to tumour Dice lies above zero; "some" has no size."""
    return _step(evidence, "se")


def attention(evidence: Evidence) -> Finding:
    """10: reproduced when attention's gain in tumour Dice lies above zero and is at least 0.05 ("greatly").

    Not reproduced when the interval ends below zero, or lies between zero and 0.05; undecided when it
    includes zero, or 0.05 with a mean below that.
    """
    return by_at_least(_step(evidence, "attention"), GREATLY)


def hybrid_dilation(evidence: Evidence) -> Finding:
    """11: reproduced when HDC raises tumour Dice, most at the bottom, and it alone covers its field.

    The coverage is a fact about the two networks, not an estimate: it holds or it does not.
    """
    levels = evidence.hdc_level_dice
    others = [name for name in levels if name != "bottom"] or ["any other level"]
    what = "tumour Dice with HDC"
    return all_of(
        [
            _step(evidence, "hdc"),
            *[gain(levels, other, "bottom", what, evidence.synthetic) for other in others],
            _gridding(evidence),
        ]
    )


def focal_and_dice(evidence: Evidence) -> Finding:
    """12: reproduced when the interval of what focal + weighted Dice add over Dice loss lies above zero."""
    return _step(evidence, "focal_dice")


def oversampling(evidence: Evidence) -> Finding:
    """13: reproduced when oversampling's gain in tumour Dice reaches 0.25 and false positives in cysts fall.

    The Dice part holds when its interval lies above zero and reaches 0.25, and fails when it ends below 0.25;
    the other part holds when the interval of the false-positive volume removed lies above zero.
    """
    without, with_it = _pair(evidence, "oversample")
    removed = gain(
        evidence.cyst_fp_ml, with_it, without, "ml of cyst taken for tumour", evidence.synthetic
    )
    return all_of([reaching(_step(evidence, "oversample"), OVERSAMPLE_LIFT), removed])


def largest_component(evidence: Evidence) -> Finding:
    """14: reproduced when the interval of what the component step adds to final Dice lies above zero."""
    parts = {
        "all components": evidence.component_before,
        "largest component": evidence.component_after,
    }
    arms = {
        name: ArmScores.from_seeds([part.values])
        for name, part in parts.items()
        if part is not None
    }
    return gain(
        arms, "all components", "largest component", "final tumour Dice", evidence.synthetic
    )


JUDGES: dict[int, Callable[[Evidence], Finding]] = {
    1: cyst_share,
    2: hu_overlap,
    3: empty_slices,
    4: kidney_training,
    5: mirroring,
    6: vnet_on_small_targets,
    7: slices_against_volume,
    8: multi_scale,
    9: squeeze_excite,
    10: attention,
    11: hybrid_dilation,
    12: focal_and_dice,
    13: oversampling,
    14: largest_component,
}


def _overlap(values: CaseValues | None, what: str) -> Finding:
    return unreal(values, what) or mean_level(list(values.values.values()), f"mean {what}", SAME_HU)


def _step(evidence: Evidence, mechanism: str) -> Finding:
    """What a mechanism adds to tumour Dice."""
    return gain(evidence.tumor_dice, *_pair(evidence, mechanism), "tumour Dice", evidence.synthetic)


def _pair(evidence: Evidence, mechanism: str) -> tuple[str, str]:
    """The first pair of STEPS whose two arms were run, else the first."""
    pairs = STEPS[mechanism]
    return next((pair for pair in pairs if evidence.tumor_dice.keys() >= set(pair)), pairs[0])


def _gridding(evidence: Evidence) -> Finding:
    covers = evidence.hdc_coverage
    if absent := [name for name in ("hdc", "plain_dilation") if name not in covers]:
        return missing(f"coverage of the receptive field of {' and '.join(absent)}")
    words = {
        name: "sees every voxel about its centre" if covers[name] else "leaves holes there"
        for name in covers
    }
    return Finding(
        verdict="reproduced"
        if covers["hdc"] and not covers["plain_dilation"]
        else "not reproduced",
        why=f"HDC {words['hdc']}, plain dilation {words['plain_dilation']}",
    )
