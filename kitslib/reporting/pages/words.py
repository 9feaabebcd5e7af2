"""Numbers, times and settings as a reader wants to see them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """A value as JSON can hold it: NumPy, paths and tuples unpacked, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [
            plain(item)
            for item in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)
        ]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def number(value: Any, digits: int | None = None) -> str | None:
    """A number with as many digits as matter (0.873, 42.1, 1,464); None where there is none."""
    value = plain(value)
    if value is None or isinstance(value, str | bool):
        return None if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if digits is None:
        digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}".replace("-", "−")


def interval(bounds: Any, digits: int | None = None) -> str | None:
    """An interval as "0.812 to 0.931", a small bound with its first digit; None where a bound is missing."""
    bounds = plain(bounds)
    if not isinstance(bounds, Sequence) or len(bounds) != 2 or None in bounds:
        return None
    return " to ".join(_bound(bound, digits) for bound in bounds)


def _bound(value: float, digits: int | None) -> str:
    shown = number(value, digits)
    if abs(value) > 1e-6 and not set(shown) & set("123456789"):
        return f"{value:.1g}".replace("-", "−")
    return shown


def duration(seconds: Any) -> str | None:
    """A time span as "3.2 s", "4 min 10 s" or "1 h 02 min"; None where it is unknown."""
    seconds = plain(seconds)
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def moment(value: Any) -> str | None:
    """A point in time as "2026-11-23 19:02 UTC"; other text is left as it is."""
    if not value:
        return None
    try:
        when = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    if when.tzinfo is None:
        return when.strftime("%Y-%m-%d %H:%M")
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def setting(value: Any) -> str:
    """A parameter or provenance entry in one line."""
    value = plain(value)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(setting(item) for item in value) if value else "none"
    if isinstance(value, Mapping):
        nested = any(isinstance(item, Mapping) for item in value.values())
        return (
            json.dumps(value)
            if nested
            else ", ".join(f"{key} {setting(item)}" for key, item in value.items())
        )
    return str(value)


def titled(key: str) -> str:
    """A key as a label: "wall_s" becomes "Wall s"."""
    text = key.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def picture_type(path: Path) -> str:
    """The MIME type of a picture file, from its name.

    Raises ValueError for anything but JPEG, PNG and WebP.
    """
    kinds = {
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".png": "image/png",
        ".webp": "image/webp",
    }
    try:
        return kinds[path.suffix.lower()]
    except KeyError:
        raise ValueError(
            f"{path}: expected a .jpg, .png or .webp picture, got {path.suffix or 'no suffix'!r}"
        ) from None
