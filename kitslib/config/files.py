"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

LONGEST = 255  # bytes of a file's name
DAY = 86_400  # seconds
PART = f".part-{socket.gethostname()}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends well, else remove it.

    Its name begins with a dot, and ends as `path` does for writers that go by the ending. An
    error of writing, such as a full disk's, is given the name of `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    tail = f".{uuid.uuid4().hex[:8]}{ending}".encode()
    name = path.name.encode(errors="ignore")[: LONGEST - 1 - len(tail)] + tail
    part = path.parent / f".{name.decode(errors='ignore')}"
    try:
        part.touch(exist_ok=False)  # with the permissions of the user's umask
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno and str(error.filename or part) == str(part):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Give a hidden folder inside `folder` to make files in that then get their names together.

    It goes when the block ends; what processes that were killed left behind goes before.
    """
    for part in folder.glob(".part-*"):
        host, *ids = part.name.rsplit("-", 2)
        with suppress(OSError, ValueError):  # its owner has just finished; not of our making
            dead = host == PART and not psutil.pid_exists(int(ids[0]))
            if dead or time.time() - part.stat().st_mtime > DAY:
                shutil.rmtree(part, ignore_errors=True)
    prefix = f"{PART}-{os.getpid()}-"
    with TemporaryDirectory(dir=folder, prefix=prefix, ignore_cleanup_errors=True) as place:
        try:
            yield Path(place)
        except OSError as error:  # names the file as it would have been called
            if error.filename and Path(error.filename).parent == Path(place):
                error.filename = str(folder / Path(error.filename).name)
            raise


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8; return the path."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as JSON; return the path."""
    return write_text(path, json.dumps(value, indent=1, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a damaged one raises ValueError with its name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not readable as JSON ({error}); remove it and run its stage again"
        ) from None
