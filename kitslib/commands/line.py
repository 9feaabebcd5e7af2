"""What the commands share: the parser, numbers read from words, a line of progress, files written whole."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> None:
        """Print the complaint and exit with status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def command(
    commands: argparse._SubParsersAction, name: str, run: Run, epilog: str = ""
) -> argparse.ArgumentParser:
    """Return the parser of a command, which `run` carries out; its docstring is the help."""
    made = commands.add_parser(name, help=run.__doc__, description=run.__doc__, epilog=epilog)
    made.set_defaults(run=run)
    return made


def add_jobs(made: argparse.ArgumentParser) -> None:
    """Let a command take --jobs."""
    made.add_argument(
        "--jobs", type=positive, default=os.cpu_count() or 1, metavar="N", help="cases at a time"
    )


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def progress_line(what: str) -> Callable[[int, int], None]:
    """Return a progress(done, total) that keeps one line in a terminal up to date, or prints a line at each tenth."""
    began = time.perf_counter()
    shown = -1

    def progress(done: int, total: int) -> None:
        nonlocal shown
        left = (time.perf_counter() - began) / max(done, 1) * (total - done)
        text = f"{what}: {done} of {total}" + (f", {left:.0f} s left" if done else "")
        if sys.stderr.isatty():
            print(f"\r{text}\033[K", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done * 10 // max(total, 1) > shown:
            shown = done * 10 // max(total, 1)
            print(text, file=sys.stderr, flush=True)

    return progress


def passing(text: str) -> None:
    """Show in a terminal what is being done, until the next such line takes its place; "" clears it."""
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    from kitslib.config import replacing

    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
