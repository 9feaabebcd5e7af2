"""The paper's fourteen claims, the rows that test them, and the verdict on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kitslib.evaluation.claims import rules
from kitslib.evaluation.claims.evidence import Evidence
from kitslib.evaluation.claims.intervals import NARROW, WORST, Answer
from kitslib.evaluation.metrics.tables import plain
from kitslib.evaluation.statistics import Estimate, holm, holm_levels


@dataclass(frozen=True)
class Part:
    """A row of the ledger: a claim or one half of it, and the rule that judges it.

    The rule's docstring says when the verdict is which. `arms`: whether it compares tumour arms,
    so that other readings of their scores can judge as well.
    """

    sentence: str
    rule: Callable[[Evidence], Answer]
    arms: bool = False


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper and its rows: "" alone, or "a", "b", ... in order."""

    number: int
    sentence: str
    parts: tuple[Part, ...]


def _single(number: int, sentence: str, rule: Callable[[Evidence], Answer], arms: bool) -> Claim:
    return Claim(number, sentence, (Part(sentence, rule, arms),))


CLAIMS: tuple[Claim, ...] = (
    _single(1, "About 40 % of the samples have renal cysts", rules.cyst_share, False),
    Claim(2, "Kidney, cyst and tumour have almost the same HU values", (
        Part("Kidney and cyst have almost the same HU values",
             partial(rules.hu_overlap, one="kidney", other="cyst")),
        Part("Cyst and tumour have almost the same HU values",
             partial(rules.hu_overlap, one="cyst", other="tumor")),
    )),
    _single(3, "Slices without kidney are the majority", rules.empty_slices, False),
    Claim(4, "Residual sums and deep supervision train the kidney network", (
        Part("Residual sums help the kidney network",
             partial(rules.kidney_part, without="no_residual")),
        Part("Deep supervision helps the kidney network",
             partial(rules.kidney_part, without="no_deep_supervision")),
    )),
    _single(5, "Mirroring helps the kidney network",
            partial(rules.kidney_part, without="mirror_none"), False),
    Claim(6, "VNet beats UNet and DeepLab V3+ on small targets", (
        Part("VNet beats UNet on small targets",
             partial(rules.vnet_on_small_targets, rival="unet"), True),
        Part("VNet beats DeepLab V3+ on small targets",
             partial(rules.vnet_on_small_targets, rival="deeplab"), True),
    )),
    _single(7, "2.5D VNet beats 3D VNet", rules.slices_against_volume, True),
    _single(8, "Multi-scale input helps", partial(rules.step, mechanism="multi_scale"), True),
    _single(9, "SE helps to some extent", partial(rules.step, mechanism="se"), True),
    _single(10, "Attention gates help greatly",
            partial(rules.step, mechanism="attention", least=rules.GREATLY), True),
    Claim(11, "HDC helps, the bottom is its best level, and plain dilation shows gridding", (
        Part("HDC helps", partial(rules.step, mechanism="hdc"), True),
        Part("The bottom is the best level of HDC", rules.best_level, True),
        Part("Plain dilation shows gridding", rules.gridding),
    )),
    Claim(12, "Focal and weighted Dice loss beat Dice loss", (
        Part("Focal and weighted Dice loss beat Dice loss over the batch",
             partial(rules.step, mechanism="focal_dice"), True),
        Part("Focal and weighted Dice loss beat Dice loss per sample", rules.loss, True),
    )),
    Claim(13, "Oversampling lifts tumour Dice from ~0.45 to ~0.70 by removing cyst false positives",
          (
        Part("Oversampling lifts tumour Dice by 0.25",
             partial(rules.step, mechanism="oversample", least=rules.OVERSAMPLE_LIFT), True),
        Part("Oversampling removes false positives in cysts", rules.cyst_false_positives),
    )),
    Claim(14, "Keeping the largest connected component improves the final score", (
        Part("The largest component improves the score, Dice loss over the batch",
             partial(rules.largest_component, arm="full")),
        Part("The largest component improves the score, Dice loss per sample",
             partial(rules.largest_component, arm="hdc_per_sample")),
    )),
)  # fmt: skip


def parts() -> Iterator[tuple[int, str, Part]]:
    """Yield number, letter and part of every row of the ledger, in order."""
    for claim in CLAIMS:
        letters = "abcdefgh" if len(claim.parts) > 1 else [""]
        for letter, part in zip(letters, claim.parts, strict=False):
            yield claim.number, letter, part


def ledger(evidence: Evidence) -> list[dict[str, Any]]:
    """Return the verdict on every row, in order, as rows of summary.json.

    Keys: `number`, `part`, `claim`, `verdict`, `verdict_unadjusted` (by the 95 % interval alone),
    `value`, `ci`, `n`, `seeds` (0: no training is part of it), `measure`, `unit` ("" for Dice and
    shares), `p` (the smallest alpha at which the row is decided), `p_adjusted` (Holm, over the rows
    on trainings that could be decided; what is said of labels and HU is no part of those), `band`
    (None where there is no Dice), `within_002` (whether the interval lies in that narrower band),
    `smallest_effect` (shown with 80 % power), `needed` (what would decide an undecided row),
    `components` (SDs of seed, case, rest), `warning`, `reason`. Undefined numbers are None.
    """
    answers = [part.rule(evidence) for _, _, part in parts()]
    family = np.array([answer.p if answer.trainings else np.nan for answer in answers])
    rows = []
    for (number, letter, part), answer, adjusted, level in zip(
        parts(), answers, holm(family), holm_levels(family), strict=True
    ):
        verdict, p = answer.word(level), answer.p
        rows.append({
            "number": number, "part": letter, "claim": part.sentence, "verdict": verdict,
            "verdict_unadjusted": answer.word(), **_numbers(answer), "p": p,
            "p_adjusted": adjusted if answer.trainings else p, "needed": answer.needed(level),
            "reason": answer.reason(verdict, level),
        })  # fmt: skip
    return plain(rows)


def claims_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return number, claim and verdict of each claim from the ledger's rows: the worst decides.

    From the worst: contradicted, practically equal, undecided, not testable here, reproduced.
    """
    combined = []
    for claim in CLAIMS:
        words = [row["verdict"] for row in rows if row["number"] == claim.number]
        verdict = min(words, key=WORST.index)
        combined.append({"number": claim.number, "claim": claim.sentence, "verdict": verdict})
    return combined


def _numbers(answer: Answer) -> dict[str, Any]:
    """The numbers of a row that do not hang on other rows."""
    found, (low, high) = answer.found, answer.ci
    numbers = {
        "value": None, "ci": (low, high), "n": 0, "seeds": 0, "measure": answer.measure,
        "unit": answer.unit, "band": answer.bar.band, "within_002": None, "smallest_effect": None,
        "components": None, "warning": "",
    }  # fmt: skip
    if found is None:
        return numbers
    numbers |= {"value": float(found.value), "n": found.n, "warning": found.warning}
    if answer.bar.band is not None:
        numbers["within_002"] = bool(low > -NARROW and high < NARROW)
    if isinstance(found, Estimate) and answer.trainings:
        spreads = [float(np.sqrt(variance)) for variance in found.components]
        numbers |= {"seeds": found.seeds, "components": spreads}
        numbers["smallest_effect"] = found.smallest_effect
    return numbers
