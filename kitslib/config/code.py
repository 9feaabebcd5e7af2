"""Keys that change when values or code change, and not when prose does."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = (".py", ".j2", ".css", ".js")  # what the code of a room is made of


def key(*parts: Any) -> str:
    """Return 16 hex digits that change when any of the JSON-like parts changes."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bare(source: str) -> str:
    """Python source without comments and docstrings, so that prose does not start a training anew."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            body[0].value.value = ""
    return ast.dump(tree)


def code_key(*rooms: str) -> str:
    """Return 16 hex digits that change when the code (not the prose) of these rooms of kitslib changes."""
    folder = ROOT / "kitslib"
    texts = []
    for room in rooms:
        files = [p for p in sorted((folder / room).rglob("*")) if p.is_file() and p.suffix in SOURCES]
        for file in files or [folder / f"{room}.py"]:
            text = file.read_text(encoding="utf-8")
            texts.append((str(file.relative_to(folder)), _bare(text) if file.suffix == ".py" else text))
    return key(texts)


def rooms_used(*sources: str) -> list[str]:
    """Return the rooms of kitslib that these Python sources import, directly or through other rooms.

    `config` itself is left out: what it says reaches a run as values.
    """
    folder = ROOT / "kitslib"
    known = {p.stem for p in folder.glob("*.py")} | {p.name for p in folder.iterdir() if p.is_dir()}
    found: set[str] = set()
    todo = list(sources)
    while todo:
        for node in ast.walk(ast.parse(todo.pop())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module == "kitslib":
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kitslib."):
                names = [node.module.split(".")[1]]
            elif isinstance(node, ast.Import):
                names = [a.name.split(".")[1] for a in node.names if a.name.startswith("kitslib.")]
            for room in set(names) & known - found - {"config"}:
                found.add(room)
                files = sorted((folder / room).rglob("*.py")) or [folder / f"{room}.py"]
                todo += [f.read_text(encoding="utf-8") for f in files]
    return sorted(found)


def notebook_key(notebook: Path) -> str:
    """Return 16 hex digits that change with a notebook's cells or the code of the rooms it uses."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    code = [s for s, cell in zip(sources, cells, strict=True) if cell["cell_type"] == "code"]
    plain = ["\n".join(line for line in s.splitlines() if not line.startswith(("%", "!"))) for s in code]
    return key(sources, code_key(*rooms_used(*plain)))
