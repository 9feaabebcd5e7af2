"""`check`: what is wrong with a cohort."""

from __future__ import annotations

import argparse
from pathlib import Path

from kitslib.commands.line import add_jobs, command, progress_line, write_text


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command's words."""
    made = command(commands, "check", run, "Exit status 1 when a case cannot be used.")
    made.add_argument(
        "data", type=Path, metavar="DATA", help="folder of a KiTS19, KiTS21 or KiTS23 cohort"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the findings as JSON")
    add_jobs(made)


def run(args: argparse.Namespace) -> int:
    """Read every file of a cohort once and report what is wrong with it."""
    from kitslib.data import check_cohort, format_reports, reports_to_json

    reports = check_cohort(args.data, jobs=args.jobs, progress=progress_line("checked"))
    print(format_reports(reports))
    if args.json:
        write_text(args.json, reports_to_json(reports))
    return 1 if any(report.unusable for report in reports) else 0
