"""`phantom`: synthetic cases."""

from __future__ import annotations

import argparse
from pathlib import Path

from kitslib.commands.line import add_jobs, positive, progress_line
from kitslib.data import CaseError, find_cases
from kitslib.phantom import VARIETIES, write_cohort, write_rendered


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The same case and seed give the same bits, whatever --cases and --jobs are."
    argument = parser.add_argument
    argument("out", type=Path, metavar="OUT", help="folder to write the cohort into")
    argument("--cases", type=positive, metavar="N", help="number of cases (default: 20)")
    argument("--seed", type=int, default=2019, metavar="S", help="default: 2019")
    argument("--matrix", type=positive, default=512, metavar="N", help="pixels (default: 512)")
    argument("--cysts", choices=("typical", "hard"), default="typical", help="hard: complex cysts")
    words = "clinic: any field of view, phase and body, metal, stones; wild: any HU besides"
    argument("--variety", choices=VARIETIES, default="kits", help=words)
    words = "share of the patients of --variety clinic or wild (default: 0)"
    argument("--tumor-free", type=float, default=0.0, metavar="SHARE", help=words)
    argument("--labels", type=Path, metavar="DIR", help="render the CT of these label maps instead")
    add_jobs(parser)


def run(args: argparse.Namespace) -> int:
    """Write a synthetic cohort, or the CT for given label maps."""
    common = {"seed": args.seed, "jobs": args.jobs, "progress": progress_line("rendered")}
    if args.labels and args.cases is not None:
        raise CaseError("--cases and --labels exclude each other: --labels renders all it finds")
    if args.labels:
        names = write_rendered(args.out, find_cases(args.labels), **common)
    else:
        common |= {"cases": args.cases or 20, "matrix": args.matrix, "cysts": args.cysts}
        common |= {"variety": args.variety, "tumor_free": args.tumor_free}
        names = write_cohort(args.out, **common)
    print(f"{len(names)} cases in {args.out}")
    return 0
