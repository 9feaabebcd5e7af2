"""Each door imports only what the map in the package's docstring allows, and by the face."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kitslib

PACKAGE = Path(kitslib.__file__).resolve().parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def house() -> dict[str, set[str]]:
    """The map of the docstring: a door, and the doors that it may import."""
    lines = (kitslib.__doc__ or "").splitlines()
    header = next(line for line in lines if line.startswith("door "))
    second, third = header.index("may import"), header.index("what it holds")
    rows = [line for line in lines[lines.index(header) + 1 :] if line]
    doors = {line[:second].strip(): set(line[second:third].split()) for line in rows}
    for allowed in doors.values():
        allowed.discard("nothing")
        if "everything" in allowed:
            allowed.update(doors)
            allowed.discard("everything")
    return doors


HOUSE = house()


def imports_of(source: str) -> list[tuple[str, str]]:
    """(door, module) of each import from kitslib."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules: list[str] = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            modules = [node.module or ""]
            if node.module == "kitslib":
                modules = [f"kitslib.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "kitslib" and parts[1:2] != ["__version__"]:
                found.append((parts[1], module))
    return found


def wrong_imports(door: str, source: str) -> list[str]:
    """The imports of a file behind `door` that the map does not allow."""
    wrong = []
    for other, module in imports_of(source):
        if other == door:
            continue
        if other not in HOUSE[door] or module != f"kitslib.{other}":
            wrong.append(module)
    return wrong


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_door_imports_only_what_the_map_allows(file: Path) -> None:
    door = file.relative_to(PACKAGE).parts[0]
    assert door in HOUSE, f"{door} is no door of the house: add it to the map with its duty"
    wrong = wrong_imports(door, file.read_text(encoding="utf-8"))
    assert not wrong, f"{file.name}: {door} must not import {', '.join(sorted(wrong))}"


def test_the_map_has_ten_doors_and_each_is_there() -> None:
    assert set(HOUSE) == {file.relative_to(PACKAGE).parts[0] for file in FILES}
    assert len(HOUSE) == 10


def test_there_is_no_circle() -> None:
    left = {door: set(allowed) - {door} for door, allowed in HOUSE.items()}
    while left:
        free = {door for door, allowed in left.items() if not allowed & set(left)}
        assert free, f"these doors import each other: {sorted(left)}"
        for door in free:
            del left[door]


def test_every_name_of_a_face_is_there() -> None:
    for door in HOUSE:
        module = __import__(f"kitslib.{door}", fromlist=["*"])
        for name in getattr(module, "__all__", ()):
            assert getattr(module, name) is not None


def test_only_training_speaks_of_an_optimizer() -> None:
    speakers = {
        file.relative_to(PACKAGE).parts[0]
        for file in FILES
        if "torch.optim" in file.read_text(encoding="utf-8")
    }
    assert speakers == {"training"}


def test_forbidden_imports_are_seen() -> None:
    source = (
        "from kitslib.config import ARMS\nimport kitslib.reporting\nfrom kitslib import training\n"
        "from kitslib.data.cases.nifti import open_volume\n"
    )
    assert wrong_imports("evaluation", source) == [
        "kitslib.reporting", "kitslib.training", "kitslib.data.cases.nifti",
    ]  # fmt: skip
