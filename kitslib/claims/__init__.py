"""The claim ledger: sentence, test, number, interval, verdict; and the published numbers beside ours."""

from kitslib.claims.evidence import ArmScores, CaseValues, Evidence
from kitslib.claims.findings import MIN_CASES
from kitslib.claims.ledger import CLAIMS, Claim, Verdict, judge, ledger
from kitslib.claims.published import PUBLISHED, PublishedScore
from kitslib.claims.rules import STEPS

__all__ = [
    "CLAIMS",
    "MIN_CASES",
    "PUBLISHED",
    "STEPS",
    "ArmScores",
    "CaseValues",
    "Claim",
    "Evidence",
    "PublishedScore",
    "Verdict",
    "judge",
    "ledger",
]
