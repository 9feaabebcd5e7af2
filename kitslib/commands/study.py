"""`study`: write down what a study is made with, and say where its pages go."""

from __future__ import annotations

import argparse

from kitslib.commands.line import add_settings
from kitslib.config import PROFILES, configure, parse_settings, write_json


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    argument = parser.add_argument
    argument("--profile", choices=tuple(PROFILES), default="demo")
    argument("--data", default="", metavar="DIR", help="folder of a KiTS cohort")
    argument("--out", default="", metavar="DIR", help="folder for the reports")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Check a study's settings, write them for the engine, and print the folder of its pages."""
    options = parse_settings(args.settings)
    config = configure(profile=args.profile, data=args.data, out=args.out, options=options)
    given = {"profile": config.profile, "data": config.data or "", "out": config.out}
    write_json(config.work / "study.json", given | {"options": options})
    print(config.reports)
    return 0
