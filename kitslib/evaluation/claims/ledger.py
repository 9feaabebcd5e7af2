"""The fourteen claims of the paper and the verdict on each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kitslib.evaluation.claims import rules
from kitslib.evaluation.claims.evidence import Evidence
from kitslib.evaluation.claims.intervals import Verdict
from kitslib.evaluation.metrics.tables import plain


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, and the rule that judges it, which its docstring states."""

    number: int
    sentence: str
    rule: Callable[[Evidence], Verdict]


CLAIMS: tuple[Claim, ...] = (
    Claim(1, "About 40 % of the samples have renal cysts", rules.cyst_share),
    Claim(2, "Kidney, cyst and tumour have almost the same HU values", rules.hu_overlap),
    Claim(3, "Slices without kidney are the majority", rules.empty_slices),
    Claim(4, "Residual sums and deep supervision train the kidney network; "
          "the window covers the volume", rules.kidney_training),
    Claim(5, "Mirroring helps the kidney network", rules.mirroring),
    Claim(6, "VNet beats UNet and DeepLab V3+ on small targets", rules.vnet_on_small_targets),
    Claim(7, "2.5D VNet beats 3D VNet", rules.slices_against_volume),
    Claim(8, "Multi-scale input helps", partial(rules.step, mechanism="multi_scale")),
    Claim(9, "SE helps to some extent", partial(rules.step, mechanism="se")),
    Claim(10, "Attention gates help greatly", rules.attention),
    Claim(11, "HDC helps, the bottom is its best level, and plain dilation shows gridding",
          rules.hybrid_dilation),
    Claim(12, "Focal and weighted Dice loss beat Dice loss",
          partial(rules.step, mechanism="focal_dice")),
    Claim(13, "Oversampling lifts tumour Dice from ~0.45 to ~0.70 by removing cyst false positives",
          rules.oversampling),
    Claim(14, "Keeping the largest connected component improves the final score",
          rules.largest_component),
)  # fmt: skip


def ledger(evidence: Evidence) -> list[dict[str, object]]:
    """Return the verdict on every claim, in order, as rows of summary.json.

    Keys: `number`, `claim`, `verdict`, `value`, `ci`, `n`, `measure`, `unit`, `reason`; undefined
    numbers are None, and `unit` is "" for Dice and shares.
    """
    rows = []
    for claim in CLAIMS:
        found = claim.rule(evidence)
        rows.append({
            "number": claim.number, "claim": claim.sentence, "verdict": found.verdict,
            "value": found.value, "ci": found.ci, "n": found.n, "measure": found.measure,
            "unit": found.unit, "reason": found.reason,
        })  # fmt: skip
    return plain(rows)
