"""Fixtures that several test modules use."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import Browser

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


def smoke_study(out: Path) -> None:
    """Make the smoke study in `out`."""
    command = ["bash", "run_all.sh", "--profile", "smoke", "--out", str(out)]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    call = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert call.returncode == 0, call.stderr[-3000:]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The --out folder of a finished smoke study, a copy that the module may change.

    It is the first that this test run made, or the one that $KITS_SMOKE names.
    """
    there = tmp_path_factory.mktemp("finished") / "out"
    with once(tmp_path_factory, "smoke") as kept:
        if given := os.environ.get("KITS_SMOKE"):
            kept = Path(given)
        elif not kept.is_dir():
            smoke_study(there)
            shutil.copytree(there, kept, symlinks=True)
            return there
        return Path(shutil.copytree(kept, there, symlinks=True))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium; the test is skipped where it is missing."""
    if shutil.which("chromium") is None:
        pytest.skip("the browser tests need Chromium (apt-get install chromium)")
    running = Browser(tmp_path_factory.mktemp("chromium"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which finds what some readers cannot use; skipped without it."""
    folder = Path(os.environ.get("KITS_AXE", ROOT / ".ci" / "node_modules" / "axe-core"))
    if not (folder / "axe.min.js").is_file():
        pytest.skip("axe-core not found (npm install --prefix .ci axe-core, or set KITS_AXE)")
    return (folder / "axe.min.js").read_text(encoding="utf-8")
