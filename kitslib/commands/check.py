"""`check`: what is wrong with a cohort."""

from __future__ import annotations

import argparse
from pathlib import Path

from kitslib.commands.line import add_jobs, new_file, progress_line
from kitslib.config import write_text
from kitslib.data import check_cohort, format_reports, reports_to_json


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit status 1 when a case cannot be used."
    argument = parser.add_argument
    argument("data", type=Path, metavar="DATA", help="folder of a KiTS19, KiTS21 or KiTS23 cohort")
    argument("--json", type=new_file, metavar="FILE", help="also write the findings as JSON")
    words = "fetch the files of KiTS19 and KiTS23 cases that cannot be used, and check these again"
    argument("--repair", action="store_true", help=words)
    add_jobs(parser)


def run(args: argparse.Namespace) -> int:
    """Print what every file of a cohort shows; return 1 where a case cannot be used."""
    reports = check_cohort(args.data, jobs=args.jobs, progress=progress_line("checked"))
    if args.repair and any(report.unusable for report in reports):
        from kitslib.commands.repair import repair  # what fetches takes a while to load

        reports = repair(args.data, reports)
    print(format_reports(reports))
    if args.json:
        write_text(args.json, reports_to_json(reports))
    return int(any(report.unusable for report in reports))
