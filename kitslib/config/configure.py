"""The one typed configuration of a notebook, built from its parameters."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from operator import attrgetter
from typing import Any

from kitslib.config.checked import ConfigError, closest, typed
from kitslib.config.code import HERE
from kitslib.config.profiles import PROFILES
from kitslib.config.sections import RunConfig

PARAMETERS = ("profile", "data", "out", "seed", "changes")


def _set(config: Any, dotted: str, value: Any) -> Any:
    head, _, rest = dotted.partition(".")
    names = [f.name for f in fields(config)]
    if head not in names:
        raise ConfigError(
            f"option {head!r} is not a field of {type(config).__name__}{closest(head, names)}"
        )
    inner = getattr(config, head)
    if rest:
        if not is_dataclass(inner):
            raise ConfigError(f"option {dotted!r}: {head} has no fields of its own")
        return replace(config, **{head: _set(inner, rest, value)})
    if is_dataclass(inner):
        example = f"{head}.{fields(inner)[0].name}"
        raise ConfigError(f"option {head!r} is a section: name one of its fields, as {example}")
    return replace(config, **{head: value})


def configure(
    *, profile: str, data: str = "", out: str = "", seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> RunConfig:  # fmt: skip
    """Build the one typed configuration of a notebook from its parameters.

    `data` and `out` are folders, relative ones from the project's root (`HERE`); empty ones are the
    synthetic cohort and `reports`. `options` sets any other field by its dotted name:
    `{"kidney.epochs": 3}`. Raises ConfigError naming the field, the value and what is allowed.
    """
    if profile not in PROFILES:
        raise ConfigError(f"profile: {profile!r} is not a choice{closest(profile, PROFILES)}")
    if not isinstance(options or {}, Mapping):
        raise ConfigError(
            f"options: expected a mapping such as {{'kidney.epochs': 3}}, got {options!r}"
        )
    for name, value in (("data", data), ("out", out)):
        typed(name, value, str)
    if data and not (HERE / data).is_dir():
        raise ConfigError(
            f"data: {HERE / data} is not a folder; name the folder that holds case_00000, …"
        )
    config = replace(
        PROFILES[profile],
        seed=seed,
        data=str(HERE / data) if data else None,
        out=str(HERE / (out or "reports")),
    )
    changes = []
    for name, value in sorted((options or {}).items()):
        if name in PARAMETERS:
            raise ConfigError(f"option {name!r} is a parameter of its own: give it as {name}")
        before, config = config, _set(config, name, value)
        if config != before:
            changes.append(f"{name}={json.dumps(attrgetter(name)(config), separators=(',', ':'))}")
    return replace(config, changes=tuple(changes))


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Read settings given as NAME=VALUE, such as `kidney.epochs=3` or `seeds=[0, 1]`.

    A value is JSON, a list of bare words as in `arms=[baseline,full]`, or text. Raises ConfigError.
    """
    found = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not (name and sign):
            raise ConfigError(f"setting {word!r}: expected NAME=VALUE, such as kidney.epochs=3")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text[1:-1].replace(" ", "").split(",") if text[:1] == "[" else text
    return found


def deviations(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return where a run's settings, as `as_dict` gives them, differ from the profile `paper`.

    Rows of `setting` (a dotted name), `paper` and `here`; what a machine needs is left out.
    """
    rows = []
    for name, paper in as_dict(PROFILES["paper"]).items():
        pairs = {name: (paper, settings.get(name, paper))}
        if isinstance(paper, dict):
            here = paper | settings.get(name, {})
            pairs = {f"{name}.{field}": (value, here[field]) for field, value in paper.items()}
        for setting, (there, here) in pairs.items():
            if there != here and setting not in (*PARAMETERS, "threads", "device"):
                rows.append({"setting": setting, "paper": there, "here": here})
    return rows


def check_parameters(cells: Sequence[str]) -> None:
    """Refuse parameters that the notebook does not have: papermill only warns of these.

    `cells` is IPython's `In`: the annotated parameters first, papermill's `# Parameters` after.
    """
    known: list[str] = []
    given: list[str] = []
    for cell in cells:
        if not cell.startswith("# Parameters") and known:
            continue
        for node in ast.parse(cell).body:
            if isinstance(node, ast.AnnAssign):
                known.append(node.target.id)
            elif isinstance(node, ast.Assign):
                given += [target.id for target in node.targets]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"parameter {name!r} is not one of this notebook's{closest(name, known)}"
            )


def as_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON types."""
    return json.loads(json.dumps(asdict(config)))
