"""One rule per claim: from the evidence to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kitslib.evaluation.claims.evidence import Evidence
from kitslib.evaluation.claims.intervals import Verdict, against, all_of, gain, missing, reaching
from kitslib.evaluation.statistics import bootstrap_interval, estimate, wilson_interval

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


def cyst_share(evidence: Evidence) -> Verdict:
    """Reproduced when 40 % lies in the share's Wilson interval and that is at most 0.20 wide.

    Not reproduced when 40 % lies outside; undecided when the interval is wider.
    """
    measure = "share of cases with a cyst"
    if not evidence.cysts:
        return missing(measure, "which cases have a cyst")
    hits, n = sum(value > 0 for value in evidence.cysts), len(evidence.cysts)
    lo, hi = wilson_interval(hits, n)
    if not lo <= CYST_SHARE <= hi:
        verdict, why = "not reproduced", f"{CYST_SHARE:.0%} lies outside the interval"
    elif hi - lo > CYST_SHARE_WIDTH:
        verdict, why = "undecided", f"the interval is wider than {CYST_SHARE_WIDTH:.2f}"
    else:
        verdict, why = "reproduced", f"{CYST_SHARE:.0%} lies in the interval"
    return Verdict(verdict=verdict, why=why, measure=measure, value=hits / n, ci=(lo, hi), n=n)


def hu_overlap(evidence: Evidence) -> Verdict:
    """Reproduced when cysts share over half of their HU histogram with kidney and with tumour.

    Each mean overlap is held against 0.5 by its interval, and both must hold. A synthetic cohort
    cannot test it.
    """
    what, made = "HU histogram overlap of", evidence.synthetic
    tumor = _mean_share(evidence.cyst_tumor_overlap, f"{what} cyst and tumour", SAME_HU, made)
    kidney = _mean_share(evidence.kidney_cyst_overlap, f"{what} kidney and cyst", SAME_HU, made)
    return all_of([tumor, kidney])


def empty_slices(evidence: Evidence) -> Verdict:
    """Reproduced when the interval of the mean share of slices without kidney lies above 0.5."""
    return _mean_share(evidence.empty_slices, "share of slices without kidney", 0.5)


def kidney_training(evidence: Evidence) -> Verdict:
    """Reproduced when residual sums and deep supervision raise kidney Dice, and nothing is lost.

    One case that loses over 0.1 % of its kidney to the window as printed refutes it.
    """
    rivals = "no_residual", "no_deep_supervision"
    parts = [gain(evidence, "kidney_dice", name, "standard", "kidney Dice") for name in rivals]
    return all_of([*parts, _nothing_lost(evidence.literal_window_loss)])


def mirroring(evidence: Evidence) -> Verdict:
    """Reproduced when the interval of what mirroring adds to kidney Dice lies above zero."""
    return gain(evidence, "kidney_dice", "mirror_none", "standard", "kidney Dice")


def vnet_on_small_targets(evidence: Evidence) -> Verdict:
    """Reproduced when VNet's tumour Dice beats both UNet's and DeepLab's on tumours below 30 ml."""
    what = f"tumour Dice below {SMALL_TUMOR_ML:g} ml"
    if not evidence.tumor_ml:
        return missing(f"difference in {what}", "tumour volumes, which tell the small targets")
    small = sorted(case for case, ml in evidence.tumor_ml.items() if ml < SMALL_TUMOR_ML)
    dice = {name: scores.filter(small) for name, scores in evidence.tumor_dice.items()}
    on_small = replace(evidence, tumor_dice=dice)
    rivals = "unet", "deeplab"
    return all_of([gain(on_small, "tumor_dice", name, "baseline", what) for name in rivals])


def slices_against_volume(evidence: Evidence) -> Verdict:
    """Reproduced when the interval of 2.5D VNet minus 3D VNet in tumour Dice lies above zero."""
    return gain(evidence, "tumor_dice", "vnet_3d", "baseline", "tumour Dice")


def step(evidence: Evidence, mechanism: str) -> Verdict:
    """Reproduced when the interval of what `mechanism` adds to tumour Dice lies above zero."""
    return gain(evidence, "tumor_dice", *_pair(evidence, mechanism), "tumour Dice")


def attention(evidence: Evidence) -> Verdict:
    """Reproduced when attention's gain in tumour Dice is above zero and at least 0.05 ("greatly").

    Not reproduced when the interval ends below zero, or lies between zero and 0.05; undecided when
    it includes zero, or 0.05 with a mean below that.
    """
    found = reaching(step(evidence, "attention"), GREATLY)
    if found.verdict != "reproduced" or found.value >= GREATLY:
        return found
    why = f"a gain, but its interval leaves open whether {GREATLY:g}"
    return replace(found, verdict="undecided", why=why)


def hybrid_dilation(evidence: Evidence) -> Verdict:
    """Reproduced when HDC raises tumour Dice, most at the bottom, and it alone covers its field.

    The coverage is a fact about the two networks, not an estimate: it holds or it does not.
    """
    what, parts = "tumour Dice with HDC", [step(evidence, "hdc")]
    others = [name for name in evidence.hdc_level_dice if name != "bottom"] or ["any other level"]
    parts += [gain(evidence, "hdc_level_dice", name, "bottom", what) for name in others]
    return all_of([*parts, _gridding(evidence)])


def oversampling(evidence: Evidence) -> Verdict:
    """Reproduced when oversampling's gain reaches 0.25 Dice and false positives in cysts fall.

    The interval of the gain must lie above zero and reach 0.25, and fails when it ends below 0.25;
    that of the volume removed must lie above zero.
    """
    without, with_it = _pair(evidence, "oversample")
    what = "false-positive tumour volume in cysts"
    removed = gain(evidence, "cyst_fp_ml", with_it, without, what, unit="ml")
    return all_of([reaching(step(evidence, "oversample"), OVERSAMPLE_LIFT), removed])


def largest_component(evidence: Evidence) -> Verdict:
    """Reproduced when the interval of what the component step adds to final Dice is above zero."""
    pair = "all components", "largest component"
    return gain(evidence, "component_dice", *pair, "final tumour Dice")


def _mean_share(shares: Sequence[float], what: str, bound: float, made: bool = False) -> Verdict:
    """The mean share against the bound; `made`: by the generator of a synthetic cohort."""
    measure = f"mean {what}"
    if not shares:
        return missing(measure, what)
    if made:
        why = "the cohort is synthetic and has what its generator gave it, so it confirms nothing"
        return Verdict(verdict="not testable here", why=f"{what}: {why}", measure=measure)
    return against(bound, estimate(shares), measure)


def _nothing_lost(lost: Sequence[float]) -> Verdict:
    """Whether no case loses more than LOST: one that does is a counter-example."""
    measure = "share of the kidney lost by the literal window"
    if not lost:
        return missing(measure, measure)
    short = sum(share > LOST for share in lost)
    return Verdict(
        verdict="not reproduced" if short else "reproduced",
        why=f"cases that lose more than {LOST:.1%}: {short} of {len(lost)}",
        measure=measure, value=sum(lost) / len(lost), ci=bootstrap_interval(lost), n=len(lost),
    )  # fmt: skip


def _pair(evidence: Evidence, mechanism: str) -> tuple[str, str]:
    """The first pair of STEPS whose two arms were run, else the first."""
    pairs = STEPS[mechanism]
    return next((pair for pair in pairs if evidence.tumor_dice.keys() >= set(pair)), pairs[0])


def _gridding(evidence: Evidence) -> Verdict:
    measure = "whether the dilated layers see every voxel about the centre"
    covers = evidence.hdc_coverage
    if absent := [name for name in ("hdc", "plain_dilation") if name not in covers]:
        return missing(measure, f"coverage of the receptive field of {' and '.join(absent)}")
    words = {True: "sees every voxel about its centre", False: "leaves holes there"}
    hdc, plain = covers["hdc"], covers["plain_dilation"]
    verdict = "reproduced" if hdc and not plain else "not reproduced"
    why = f"HDC {words[hdc]}, plain dilation {words[plain]}"
    return Verdict(verdict=verdict, why=why, measure=measure)
