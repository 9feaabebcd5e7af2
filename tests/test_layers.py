"""Each room imports only what the house allows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "kitslib"

MAY_IMPORT: dict[str, set[str]] = {
    "config": set(),
    "cases": set(),
    "phantom": {"cases"},
    "transforms": set(),
    "cohort": {"cases", "transforms", "config"},
    "study": {"cases", "config"},
    "sampling": {"cohort"},
    "augment": set(),
    "networks": set(),
    "losses": set(),
    "metrics": set(),
    "runs": {"config"},
    "memory": set(),
    "progress": set(),
    "training": {"runs", "memory", "progress"},
    "inference": {"transforms"},
    "cascade": {"inference", "cases", "transforms"},
    "ceilings": {"cases", "inference", "metrics", "transforms"},
    "claims": {"metrics", "runs"},
    "figures": set(),
    "viewer": {"figures"},
    "reports": set(),
    "preflight": {
        "augment",
        "cascade",
        "cases",
        "config",
        "inference",
        "memory",
        "networks",
        "phantom",
        "runs",
        "study",
        "transforms",
    },
    "commands": {
        "cascade",
        "cases",
        "config",
        "figures",
        "inference",
        "metrics",
        "networks",
        "phantom",
        "preflight",
        "reports",
        "runs",
        "transforms",
    },
    "__main__": {"commands"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1, "relative imports stay inside a room"
            if node.module == "kitslib":
                found |= {alias.name for alias in node.names} - {"__version__"}
            elif node.module and node.module.startswith("kitslib."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("kitslib.")}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_room_imports_only_what_the_house_allows(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        assert imports_of(file.read_text(encoding="utf-8")) == set()
        return
    assert room in MAY_IMPORT, f"{room} is no room of the house: add it to the table with its duty"
    wrong = imports_of(file.read_text(encoding="utf-8")) - MAY_IMPORT[room] - {room}
    assert not wrong, f"{room} must not import {', '.join(sorted(wrong))}"


def test_every_room_of_the_table_exists() -> None:
    assert set(MAY_IMPORT) == {room_of(f) for f in FILES} - {"__init__"}


def test_only_training_speaks_of_an_optimiser() -> None:
    speakers = {room_of(f) for f in FILES if "torch.optim" in f.read_text(encoding="utf-8")}
    assert speakers == {"training"}


def test_the_check_sees_a_forbidden_import() -> None:
    source = "from kitslib.config import ARMS\nimport kitslib.figures\nfrom kitslib import runs\n"
    assert imports_of(source) == {"config", "figures", "runs"}
