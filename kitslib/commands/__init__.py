"""The commands of `python -m kitslib`, a module each with `add` (its arguments) and `run`."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from kitslib.commands.line import Parser, said
from kitslib.config import forget_launcher

CLOSED_PIPE = 141  # 128 and the number of SIGPIPE
COMMANDS = {
    "check": "Read every file of a cohort once and report what is wrong with it.",
    "fetch": "Download KiTS19 or KiTS23, or go on with it.",
    "phantom": "Write a synthetic cohort, or the CT for given label maps.",
    "preflight": "Estimate the time, disk and memory that a study needs on this machine.",
    "predict": "Segment scans into label maps, each with a preview, volumes and diameters.",
    "score": "Compare label maps with the truth as KiTS does.",
    "report": "Write a notebook's page, an index page, or README's results; compare two studies.",
    "info": "Show devices, networks, profiles, versions, and where things are stored.",
    "release": "Train the networks that come with the package, on cases made while it runs.",
    "train": "Train one network of a study, also by several processes together.",
    "study": "Check a study's settings, write them down, and print the folder of its pages.",
}


def main(words: list[str] | None = None) -> int:
    """Run a command and return its exit status; an error is one line and status 1.

    A pipe that was closed ends it quietly, as it ends other programs (status 141).
    """
    words = sys.argv[1:] if words is None else words
    speak_anywhere()
    try:
        return _run(words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed at exit
        return CLOSED_PIPE


def parser(words: list[str] | None = None) -> Parser:
    """Return the parser of all commands; with `words`, with the arguments of theirs alone."""
    whole = Parser(prog="python -m kitslib", description="Segment kidneys and tumours in CT.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        if (
            words is None or name in words[:1]
        ):  # others are not imported: --help and check start at once
            module = import_module(f"kitslib.commands.{name}")
            module.add(command)
            command.set_defaults(run=module.run)
    return whole


def speak_anywhere() -> None:
    """Let what is printed reach any terminal: `?` for letters it lacks; nowhere if it is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _run(words: list[str]) -> int:
    """Run a command; its errors are one line."""
    args = parser(words).parse_args(words)
    if args.command != "train":
        forget_launcher()
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        raise
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"kitslib {args.command}: {said(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"kitslib {args.command}: interrupted", file=sys.stderr)
        return 130
