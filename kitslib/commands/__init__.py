"""The commands: check, phantom, preflight, predict, score, report."""

from __future__ import annotations

import sys

from kitslib.commands import check, phantom, predict, report, score, study
from kitslib.commands.line import Parser
from kitslib.commands.preflight import command as preflight

__all__ = ["main", "parser"]

COMMANDS = (check, phantom, preflight, predict, score, report, study)


def parser() -> Parser:
    """Return the command line: each module of COMMANDS adds its own words."""
    made = Parser(
        prog="python -m kitslib", description="Kidney and kidney-tumour segmentation in CT."
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return made


def main(words: list[str] | None = None) -> int:
    """Run a command and return its exit status; an error is one line and status 1."""
    args = parser().parse_args(words)
    try:
        return args.run(args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"kitslib {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"kitslib {args.command}: interrupted", file=sys.stderr)
        return 130
