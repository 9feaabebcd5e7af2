"""Fixtures that several test modules use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real label files and real CT; the test is skipped where it is missing."""
    folder = Path(os.environ.get("KITS_SHARED", ROOT.parent / "shared"))
    if not (folder / "kits_geometry.csv").is_file():
        pytest.skip(f"real data not found: {folder} has no kits_geometry.csv (set KITS_SHARED)")
    return folder


@contextmanager
def once(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A path that all workers of a test run share: the first makes it while the others wait."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder / name
