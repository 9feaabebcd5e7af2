"""The recipes of CONTRIBUTING.md, word for word: changes apply, code prints what the text says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"`(kitslib/[\w/.]+\.py)`|^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECIPES = ["An arm", "A mechanism", "A claim"]


def recipe(title: str) -> str:
    """The text below a heading of the third level."""
    return re.split(r"^#{2,3} ", TEXT.partition(f"\n### {title}\n")[2], flags=re.MULTILINE)[0]


def apply(change: str, path: Path) -> None:
    """Make one change, whose place in the file must be one and only one."""
    lines = change.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if not line.startswith("+"))
    new = "".join(line[1:] for line in lines if not line.startswith("-"))
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has this {text.count(old)} times:\n{old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_gives_what_it_says(title: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kitslib", tmp_path / "kitslib")
    file, printed, said, changed = Path(), "", "", set()
    for named, kind, body in BLOCK.findall(recipe(title)):
        if named:
            file = tmp_path / named
        elif kind == "diff":
            apply(body, file)
            changed.add(file)
        elif kind == "python":
            call = subprocess.run(
                [sys.executable, "-c", body], cwd=tmp_path, capture_output=True, text=True,
                env={**os.environ, "PYTHONPATH": str(tmp_path)},
            )  # fmt: skip
            assert call.returncode == 0, call.stderr[-2000:]
            printed += call.stdout
        else:
            assert kind == "text"
            said += body
    assert changed and printed == said != ""
    command = ["ruff", "check", "--quiet", "--config", str(ROOT / "pyproject.toml"), "--ignore"]
    for path in changed:  # long lines are those of the file, which the whole tree is checked for
        subprocess.run([sys.executable, "-m", *command, "E501", str(path)], check=True)


def test_every_recipe_is_tried() -> None:
    recipes = TEXT.partition("\n## Recipes\n")[2]
    assert re.findall(r"^### (.*)$", recipes, flags=re.MULTILINE) == RECIPES


def test_every_file_that_is_named_is_there() -> None:
    for name in re.findall(r"`((?:kitslib|tests|\.ci)/[\w/.]+\w)[` ]", TEXT):
        assert (ROOT / name).exists(), name
