"""Fixtures that several test modules use."""

from __future__ import annotations

import os
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
