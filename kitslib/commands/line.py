"""What the commands share: the parser, common arguments, a line of progress."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from kitslib.config import PROFILES, RunConfig, configure, parse_settings


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> None:
        """Print the complaint and exit with status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_jobs(parser: argparse.ArgumentParser, what: str = "cases") -> None:
    """Let a command take --jobs."""
    cores, words = os.cpu_count() or 1, f"{what} at a time"
    parser.add_argument("--jobs", type=positive, default=cores, metavar="N", help=words)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Let a command take --profile, and --set NAME=VALUE any number of times."""
    parser.add_argument("--profile", choices=tuple(PROFILES), default="demo", help="default: demo")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE",
        help="change a setting of the profile, such as kidney.epochs=3; may be repeated",
    )  # fmt: skip


def study_config(args: argparse.Namespace, data: str, out: str) -> RunConfig:
    """Return the configuration of a study of these folders. Raises ConfigError."""
    options = parse_settings(args.settings)
    return configure(profile=args.profile, data=data, out=out, options=options)


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def progress_line(what: str) -> Callable[[int, int], None]:
    """Return a progress(done, total) that updates a terminal's line, or prints one each tenth."""
    began, shown = time.perf_counter(), -1

    def progress(done: int, total: int) -> None:
        nonlocal shown
        text, tenth = f"{what}: {done} of {total}", done * 10 // max(total, 1)
        if done:
            text += f", {(time.perf_counter() - began) / done * (total - done):.0f} s left"
        if sys.stderr.isatty():
            passing(text)
            if done == total:
                print(file=sys.stderr)
        elif tenth > shown:
            shown = tenth
            print(text, file=sys.stderr, flush=True)

    return progress


def passing(text: str) -> None:
    """Show in a terminal what is being done, in place of the last such line; "" clears it."""
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def text_table(rows: Sequence[Sequence[str]], *, left: Sequence[int] = ()) -> str:
    """Return rows of cells as aligned lines; columns are aligned right, those of `left` left."""
    columns = []
    for index, cells in enumerate(zip(*rows, strict=True)):
        align = np.char.ljust if index in left else np.char.rjust
        columns.append(align(cells, max(map(len, cells))))
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))
