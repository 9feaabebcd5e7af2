"""Dataclasses that check the type and the range of every field when they are made."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Iterable
from dataclasses import field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class OneLine:
    """Of an error whose sentence says all: a notebook shows it without where it was raised."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class ConfigError(OneLine, ValueError):
    """A setting that does not exist, has the wrong type or lies outside its range."""


def closest(name: str, allowed: Iterable[str]) -> str:
    """Return what a message adds: the nearest allowed name, if any, and all of them."""
    allowed = list(allowed)
    near = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint}. Allowed: {', '.join(allowed)}"


def typed(name: str, value: Any, kind: Any) -> Any:
    """Return `value` as `kind`, or raise a ConfigError that names field, type and value."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return typed(name, value, next(a for a in args if a is not type(None)))
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{name}: {value!r} is not a choice{closest(value, map(str, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}: expected a list, got {value!r}")
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise ConfigError(f"{name}: expected {len(args)} values, got {value!r}")
        return tuple(typed(f"{name}[{i}]", v, args[0]) for i, v in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise ConfigError(f"{name}: expected {kind.__name__}, got {type(value).__name__} {value!r}")
    return value


class Checked:
    """Checks type and range (`low`, `high` in the metadata) of every field when it is made."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            name = f"{type(self).__name__}.{item.name}"
            value = typed(name, getattr(self, item.name), hints[item.name])
            low, high = item.metadata.get("low"), item.metadata.get("high")
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise ConfigError(f"{name}: expected a finite number, got {number}")
                if low is not None and number is not None and number < low:
                    raise ConfigError(f"{name}: {value!r} is below the smallest allowed, {low}")
                if high is not None and number is not None and number > high:
                    raise ConfigError(f"{name}: {value!r} is above the largest allowed, {high}")
            object.__setattr__(self, item.name, value)


def number(default: Any, low: float | None = None, high: float | None = None) -> Any:
    """Return a dataclass field with bounds, both allowed."""
    return field(default=default, metadata={"low": low, "high": high})
