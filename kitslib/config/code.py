"""Keys: a number names the code and the settings that made it."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "kitslib"
# what relative paths begin from: the project; where the package is installed without it, here
HERE = ROOT if (ROOT / "run_all.sh").is_file() else Path.cwd()
SOURCES = (".py", ".j2", ".css", ".js", ".json", ".yaml")
RESULTS = (  # whose numbers a record holds
    "data", "evaluation/cascade.py", "evaluation/ceilings.py", "evaluation/held_out.py",
    "evaluation/inference.py", "evaluation/metrics", "networks", "phantom", "recipes",
    "training/loader.py", "training/loop.py", "training/losses.py", "training/optimizers.py",
    "transforms",
)  # fmt: skip
RULES = (  # by which results become verdicts
    "data/cases/splits.py", "evaluation/claims", "evaluation/metrics", "evaluation/statistics.py",
)  # fmt: skip
PROSE = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)  # may have a docstring


def key(*parts: Any) -> str:
    """Return 16 hex digits that change with any of the (JSON) parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def _without_prose(source: str) -> str:
    """Source without comments and docstrings: prose does not start a training anew."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, PROSE) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return _words(tree)


def _words(node: Any) -> str:
    """A syntax tree as text, alike for any Python; `ast.dump` has the fields of its version."""
    if isinstance(node, list):
        return ",".join(map(_words, node))
    if not isinstance(node, ast.AST):
        return repr(node)
    words = [f"{n}={_words(v)}" for n, v in ast.iter_fields(node) if v not in (None, [])]
    return f"{type(node).__name__}({';'.join(words)})"


def code_key(*places: str) -> str:
    """Return 16 hex digits that change with the code, not the prose, of files of kitslib."""
    texts = []
    for place in places:
        path = PACKAGE / place
        if not path.exists():
            raise FileNotFoundError(f"code_key: {path} does not exist; mend the list of sources")
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix not in SOURCES or not file.is_file():
                continue
            text = file.read_text(encoding="utf-8")
            text = _without_prose(text) if file.suffix == ".py" else text
            texts.append((file.relative_to(PACKAGE).as_posix(), text))
    return key(texts)


def notebook_key(notebook: Path) -> str:
    """Return 16 hex digits that change with a notebook's cells or the code that notebooks use."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    doors = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
    doors.remove("commands")
    return key(["".join(cell["source"]) for cell in cells], code_key(*doors))
