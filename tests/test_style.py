"""How large and how plain the code may be; the notebooks' own bounds stand in test_notebooks."""

from __future__ import annotations

import ast
from pathlib import Path

import kitslib

PACKAGE = Path(kitslib.__file__).resolve().parent
LINES = 22_040
PER_THOUSAND = {"conditional expressions": 20, "comprehensions": 29}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def counts(folder: Path) -> dict[str, int]:
    found = {"lines": 0, "conditional expressions": 0, "comprehensions": 0}
    for path in folder.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found["lines"] += text.count("\n")
        for node in ast.walk(ast.parse(text)):
            found["conditional expressions"] += isinstance(node, ast.IfExp)
            found["comprehensions"] += isinstance(node, COMPREHENSIONS)
    return found


def test_the_package_is_small() -> None:
    assert counts(PACKAGE)["lines"] <= LINES


def test_the_code_is_plain() -> None:
    found = counts(PACKAGE)
    for what, bound in PER_THOUSAND.items():
        assert found[what] / found["lines"] * 1000 <= bound, what


def test_no_comprehension_holds_another() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, COMPREHENSIONS):
                inner = [n for n in ast.walk(node) if isinstance(n, COMPREHENSIONS)]
                assert len(inner) == 1, f"{path.name}:{node.lineno}"
