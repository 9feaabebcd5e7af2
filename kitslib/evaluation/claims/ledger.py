"""The fourteen claims of the paper and the verdict on each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kitslib.evaluation.claims.evidence import Evidence
from kitslib.evaluation.claims.findings import Interval, Word
from kitslib.evaluation.claims.rules import JUDGES


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence of the paper, the notebook that tests it, and how."""

    number: int
    sentence: str
    notebook: str
    test: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the numbers say about one claim; value and interval are NaN where there is nothing to measure."""

    claim: Claim
    verdict: Word
    value: float
    ci: Interval
    n: int
    measure: str
    reason: str

    def to_dict(self) -> dict[str, object]:
        """The row of summary.json; undefined numbers are None."""
        return {
            "number": self.claim.number,
            "claim": self.claim.sentence,
            "verdict": self.verdict,
            "value": _json(self.value),
            "ci": [_json(bound) for bound in self.ci],
            "n": self.n,
            "measure": self.measure,
            "reason": self.reason,
        }


DICE_STEP = "tumour Dice with and without it, paired by case"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        number=1,
        sentence="About 40 % of the samples have renal cysts",
        notebook="01_data",
        test="share of cases with a cyst in KiTS23's labels, Wilson interval",
    ),
    Claim(
        number=2,
        sentence="Kidney, cyst and tumour have almost the same HU values",
        notebook="01_data",
        test="HU histogram overlap per case, cyst with tumour and kidney with cyst, above 0.5",
    ),
    Claim(
        number=3,
        sentence="Slices without kidney are the majority",
        notebook="01_data",
        test="share of slices without kidney, mean over cases, above 0.5",
    ),
    Claim(
        number=4,
        sentence="Residual sums and deep supervision train the kidney network; the window covers the volume",
        notebook="02_kidney",
        test="kidney Dice with and without each; kidney that the printed window never outputs",
    ),
    Claim(
        number=5,
        sentence="Mirroring helps the kidney network",
        notebook="02_kidney",
        test="kidney Dice with and without it, paired by case",
    ),
    Claim(
        number=6,
        sentence="VNet beats UNet and DeepLab V3+ on small targets",
        notebook="04_ablations",
        test="tumour Dice of the three networks on tumours below 30 ml, paired by case",
    ),
    Claim(
        number=7,
        sentence="2.5D VNet beats 3D VNet",
        notebook="04_ablations",
        test="tumour Dice of the two, paired by case",
    ),
    Claim(number=8, sentence="Multi-scale input helps", notebook="04_ablations", test=DICE_STEP),
    Claim(number=9, sentence="SE helps to some extent", notebook="04_ablations", test=DICE_STEP),
    Claim(
        number=10,
        sentence="Attention gates help greatly",
        notebook="04_ablations",
        test=f"{DICE_STEP}, at least 0.05",
    ),
    Claim(
        number=11,
        sentence="HDC helps, the bottom is its best level, and plain dilation shows gridding",
        notebook="04_ablations",
        test=f"{DICE_STEP}; bottom against each other level; coverage of the receptive field",
    ),
    Claim(
        number=12,
        sentence="Focal and weighted Dice loss beat Dice loss",
        notebook="04_ablations",
        test=DICE_STEP,
    ),
    Claim(
        number=13,
        sentence="Oversampling lifts tumour Dice from ~0.45 to ~0.70 by removing cyst false positives",
        notebook="04_ablations",
        test=f"{DICE_STEP}, reaching 0.25; false-positive volume inside cysts",
    ),
    Claim(
        number=14,
        sentence="Keeping the largest connected component improves the final score",
        notebook="05_evaluation",
        test="final tumour Dice before and after the component step, paired by case",
    ),
)


def ledger(evidence: Evidence) -> list[Verdict]:
    """Judge every claim, in order."""
    return [judge(claim, evidence) for claim in CLAIMS]


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """The verdict on one claim by its rule, whose docstring in `rules` states it."""
    found = JUDGES[claim.number](evidence)
    return Verdict(
        claim=claim,
        verdict=found.verdict,
        value=found.value,
        ci=found.ci,
        n=found.n,
        measure=found.measure,
        reason=found.reason,
    )


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value
