"""`phantom`: synthetic cases."""

from __future__ import annotations

import argparse
from pathlib import Path

from kitslib.commands.line import add_jobs, command, positive, progress_line


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command's words."""
    made = command(
        commands,
        "phantom",
        run,
        "The same case and seed give the same bits, whatever --cases and --jobs are.",
    )
    made.add_argument("out", type=Path, metavar="OUT", help="folder to write the cohort into")
    made.add_argument("--cases", type=positive, metavar="N", help="number of cases (default: 20)")
    made.add_argument("--seed", type=int, default=2019, metavar="S", help="default: 2019")
    made.add_argument(
        "--matrix",
        type=positive,
        default=512,
        metavar="PIXELS",
        help="rows and columns (default: 512)",
    )
    made.add_argument(
        "--cysts",
        choices=("typical", "hard"),
        default="typical",
        help="hard: complex cysts everywhere",
    )
    made.add_argument(
        "--labels", type=Path, metavar="DIR", help="render the CT of these label maps instead"
    )
    add_jobs(made)


def run(args: argparse.Namespace) -> int:
    """Write a synthetic cohort, or the CT for given label maps."""
    from kitslib.data import CaseError, find_cases
    from kitslib.phantom import write_cohort, write_rendered

    common = {"seed": args.seed, "jobs": args.jobs, "progress": progress_line("rendered")}
    if args.labels:
        if args.cases is not None:
            raise CaseError(
                "--cases and --labels exclude each other: --labels renders every label map it finds"
            )
        names = write_rendered(args.out, find_cases(args.labels), **common)
    else:
        names = write_cohort(
            args.out, cases=args.cases or 20, matrix=args.matrix, cysts=args.cysts, **common
        )
    print(f"{len(names)} cases in {args.out}")
    return 0
