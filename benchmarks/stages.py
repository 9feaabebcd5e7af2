"""Where the time of a finished study goes: processor and clock seconds of its stages; its scores.

Reads the records of a study, each of which says what its notebook took. Training is by the clock
of the stage's own history, what is not training the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._measure import Report, Table, command, parser
from kitslib.config import ROOT, read_json
from kitslib.training import summary

KINDS = ("01_data", "02_kidney", "02_kidney-", "03_tumor-", "04_ablations", "05_evaluation")
NAMES = {"02_kidney-": "02_kidney, other arms", "03_tumor-": "03_tumor, all arms"}


def kind_of(name: str) -> str:
    """The longest of KINDS that the name of a stage begins with."""
    return max((kind for kind in KINDS if name.startswith(kind)), key=len)


def rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per kind of stage, and one of all."""
    found = []
    for kind in (*KINDS, "all"):
        some = [r for r in records if kind in ("all", kind_of(r["record"]))]
        if not some:
            continue
        processor = sum(r["processor_s"] for r in some)
        training = sum(r.get("train_s", 0.0) for r in some)
        found.append(
            {
                "stage": NAMES.get(kind, kind),
                "stages": len(some),
                "processor, s": round(processor),
                "clock, s": round(sum(r["ended"] - r["began"] for r in some)),
                "of which training, s": round(training),
                "processor, s a stage": round(processor / len(some), 1),
            }
        )
    return found


def main(arguments: Sequence[str]) -> int:
    """Read the records, and publish the table."""
    options = parser("stages", __doc__, threads=1, repeats=1)
    options.add_argument(
        "--study", type=Path, default=ROOT / "reports" / "demo", help="folder of a finished study"
    )
    args = options.parse_args(arguments)
    records = [read_json(path) for path in sorted((args.study / "work" / "records").glob("*.json"))]
    whole = summary(args.study)
    scores = {"kidney, Dice": whole["kidney"]["dice"]}
    scores |= {"cascade, composite": whole["cascade"]["composite"]}
    scores |= {f"tumour, `{arm}`, Dice": row["dice"] for arm, row in whole["tumor"].items()}
    table = Table(
        title=f"Stages of `{whole['profile']}`",
        note="Several stages run at a time; processor seconds count all threads of a notebook,"
        " not the start of the stage and the making of its page.",
        rows=rows(records),
    )
    Report(
        name="stages",
        question="Where does the time of a study go?",
        command=command("stages", arguments),
        conditions={"commit": whole["commit"], "device": whole["device"]},
        tables=[table],
        bounds=[
            f"by the clock, from the first stage to the last: {whole['wall_s'] / 60:.1f} min",
            f"processor: {whole['processor_s'] / 60:.1f} min",
            *(f"{name}: {score:.3f}" for name, score in scores.items() if score is not None),
        ],
    ).publish(args.out)
    return 0
