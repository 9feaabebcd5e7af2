"""Numbers, times and settings as a reader wants to see them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def plain(value: Any) -> Any:
    """A value as JSON can hold it: NumPy, paths and tuples unpacked, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)


def number(value: Any, digits: int | None = None) -> str | None:
    """A number with as many digits as matter (0.873, 42.1, 1,464); None where there is none."""
    value = plain(value)
    if value is None:
        return None
    if isinstance(value, str | bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if digits is None:
        digits = 3 if abs(value) < 10 else int(abs(value) < 1000)
    return f"{value:,.{digits}f}".replace("-", "−")


def quantity(value: Any, unit: str | None = None) -> str | None:
    """A number with its unit, where it has one ("1.53 ml"); None where there is no number."""
    shown = number(value)
    return f"{shown} {unit}" if shown and unit else shown


def interval(bounds: Any, digits: int | None = None) -> str | None:
    """An interval as "0.812 to 0.931"; None where a bound is missing.

    A bound whose digits would all be zero shows its first digit, so that its sign can be seen.
    """
    bounds = plain(bounds)
    if not isinstance(bounds, Sequence) or len(bounds) != 2 or None in bounds:
        return None
    return " to ".join(_bound(bound, digits) for bound in bounds)


def _bound(value: float, digits: int | None) -> str:
    shown = number(value, digits) or ""
    if abs(value) > 1e-6 and not set(shown) & set("123456789"):
        return f"{value:.1g}".replace("-", "−")
    return shown


def duration(seconds: Any) -> str | None:
    """A time span as "3.2 s", "4 min 10 s" or "1 h 02 min"; None where it is unknown."""
    seconds = plain(seconds)
    if not isinstance(seconds, int | float):
        return None
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(value: str | None) -> str | None:
    """An ISO 8601 time as "2026-11-23 19:02 UTC"; other text is left as it is."""
    try:
        when = datetime.fromisoformat(value or "")
    except ValueError:
        return value
    if when.tzinfo is None:
        return when.strftime("%Y-%m-%d %H:%M")
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def setting(value: Any) -> str:
    """A parameter or provenance entry in one line."""
    value = plain(value)
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(setting, value))
    if not isinstance(value, Mapping):
        return str(value)
    if any(isinstance(item, Mapping) for item in value.values()):
        return json.dumps(value)
    return ", ".join(f"{key} {setting(item)}" for key, item in value.items())


def titled(key: str) -> str:
    """A key as a label: "wall_s" becomes "Wall s"."""
    text = key.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Return a Markdown table whose first `words` columns read from the left."""
    lines = [head, [*["---"] * words, *["--:"] * (len(head) - words)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
