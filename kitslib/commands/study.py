"""`study`: write down what a study is made with, and say where its pages go."""

from __future__ import annotations

import argparse

from kitslib.commands.line import command
from kitslib.config import PROFILES, configure, parse_settings, write_json


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    made = command(commands, "study", run)
    made.add_argument("--profile", choices=tuple(PROFILES), default="demo")
    made.add_argument("--data", default="", metavar="DIR", help="folder of a KiTS cohort")
    made.add_argument("--out", default="", metavar="DIR", help="folder for the reports")
    made.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="NAME=VALUE",
        help="a setting that differs from the profile's, such as kidney.epochs=3",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Check a study's settings, write them for the engine, and print the folder of its pages."""
    options = parse_settings(args.settings)
    config = configure(profile=args.profile, data=args.data, out=args.out, options=options)
    given = {"profile": config.profile, "data": config.data or "", "out": config.out}
    write_json(config.work / "study.json", given | {"options": options})
    print(config.reports)
    return 0
