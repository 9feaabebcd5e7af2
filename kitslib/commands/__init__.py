"""The commands of `python -m kitslib`, a module each with `add` (its arguments) and `run`."""

from __future__ import annotations

import sys
from importlib import import_module

from kitslib.commands.line import Parser

COMMANDS = {
    "check": "Read every file of a cohort once and report what is wrong with it.",
    "fetch": "Download KiTS19 or KiTS23, or go on with it.",
    "phantom": "Write a synthetic cohort, or the CT for given label maps.",
    "preflight": "Estimate the time, disk and memory that a study needs on this machine.",
    "predict": "Segment scans into label maps, each with a preview, volumes and diameters.",
    "score": "Compare label maps with the truth as KiTS does.",
    "report": "Write a notebook's page, an index page, or README's results; compare two studies.",
    "release": "Train the networks that come with the package, on cases made while it runs.",
    "train": "Train one network of a study, also by several processes together.",
    "study": "Check a study's settings, write them down, and print the folder of its pages.",
}


def main(words: list[str] | None = None) -> int:
    """Run a command and return its exit status; an error is one line and status 1."""
    words = sys.argv[1:] if words is None else words
    parser = Parser(prog="python -m kitslib", description="Segment kidneys and tumours in CT.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        if name in words[:1]:  # others are not imported: --help and check start at once
            module = import_module(f"kitslib.commands.{name}")
            module.add(command)
            command.set_defaults(run=module.run)
    args = parser.parse_args(words)
    try:
        return args.run(args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"kitslib {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"kitslib {args.command}: interrupted", file=sys.stderr)
        return 130
