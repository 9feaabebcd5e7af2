"""What the commands share: the parser, common arguments, a line of progress."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kitslib.config import PROFILES, RunConfig, configure, parse_settings, usable_cores


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> None:
        """Print the complaint and exit with status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_jobs(parser: argparse.ArgumentParser, what: str = "cases") -> None:
    """Let a command take --jobs."""
    cores, words = usable_cores(), f"{what} at a time (default: %(default)s, the usable cores)"
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


def said(error: BaseException) -> str:
    """Return an error's sentence; that of the system begins with the file, where it has one."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def new_file(text: str) -> Path:
    """Read the path of a file to be written, before the work that it is for."""
    path = Path(text)
    there = next(folder for folder in path.absolute().parents if folder.exists())
    problem = ""
    if path.is_dir():
        problem = "is a folder; name a file in it"
    elif not there.is_dir():
        problem = f"cannot be written, since {there} is a file"
    elif not os.access(there, os.W_OK | os.X_OK):
        problem = f"cannot be written: {there} is read-only"
    if problem:
        raise argparse.ArgumentTypeError(f"{path} {problem}")
    return path


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
