"""`study`: write down what a study is made with, and say where its pages go."""

from __future__ import annotations

import argparse

from kitslib.commands.line import add_settings, study_config
from kitslib.config import parse_settings, read_json, write_json


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="", metavar="DIR", help="folder of a KiTS cohort")
    parser.add_argument("--out", default="", metavar="DIR", help="folder for the reports")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Check a study's settings, write them for the engine, and print the folder of its pages."""
    config, options = study_config(args, args.data, args.out), parse_settings(args.settings)
    given = {"profile": config.profile, "data": config.data or "", "out": config.out}
    given["options"], path = options, config.work / "study.json"
    if not path.is_file() or read_json(path) != given:  # a second call changes no file
        write_json(path, given)
    print(config.reports)
    return 0
