"""Every number we chose: the typed configuration of a run, the profiles and the arms."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (".py", ".j2", ".css", ".js")  # what the code of a room is made of

KidneyHu = Literal["soft_tissue", "ancestor"]
TumorHu = Literal["foreground", "literal", "centre45_width350"]


class ConfigError(ValueError):
    """A setting that does not exist, has the wrong type or lies outside its range."""


def _closest(name: str, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    near = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint}. Allowed: {', '.join(allowed)}"


def _typed(name: str, value: Any, kind: Any) -> Any:
    """Return `value` as `kind`, or raise a ConfigError that names the field, the type and the value."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _typed(name, value, next(a for a in args if a is not type(None)))
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{name}: {value!r} is not a choice{_closest(value, map(str, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}: expected a list, got {value!r}")
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise ConfigError(f"{name}: expected {len(args)} values, got {value!r}")
        return tuple(_typed(f"{name}[{i}]", v, args[0]) for i, v in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise ConfigError(f"{name}: expected {kind.__name__}, got {type(value).__name__} {value!r}")
    return value


class _Checked:
    """Checks the type of every field and its range (`low`/`high` in the field's metadata) on creation."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            name = f"{type(self).__name__}.{item.name}"
            value = _typed(name, getattr(self, item.name), hints[item.name])
            low, high = item.metadata.get("low"), item.metadata.get("high")
            for number in value if isinstance(value, tuple) else (value,):
                if low is not None and number is not None and number < low:
                    raise ConfigError(f"{name}: {value!r} is below the smallest allowed, {low}")
                if high is not None and number is not None and number > high:
                    raise ConfigError(f"{name}: {value!r} is above the largest allowed, {high}")
            object.__setattr__(self, item.name, value)


def _number(default: Any, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class CohortConfig(_Checked):
    """Which cases are used, and the synthetic ones where no data folder is given."""

    cases: int = _number(210, 4)
    seed: int = _number(19, 0)  # of the synthetic cases; 2019 was the cohort that settings were chosen on
    matrix: int = _number(512, 32)  # pixels in plane of a synthetic slice
    spacing_z: tuple[float, ...] | None = None  # mm; None: drawn as in KiTS19
    cysts: Literal["typical", "hard"] = "typical"
    labels: Literal["kits19", "kits23", "kits23_folded"] = "kits19"
    defects: Literal["keep", "exclude"] = "keep"
    split: Literal["nested", "paper"] = "nested"
    held_out: int | None = _number(None, 1)  # tumour cases held out; None: the paper's 15 of 210


@dataclass(frozen=True, kw_only=True)
class KidneyGridConfig(_Checked):
    """The voxel grid of stage 1."""

    spacing_z: float = _number(2.0, 0.3, 10)  # mm
    matrix: int = _number(256, 16, 1024)  # pixels on the shorter in-plane side
    margin_mm: float = _number(100.0, 0)  # kept above and below the kidneys: 50 slices of 2 mm


@dataclass(frozen=True, kw_only=True)
class TumorGridConfig(_Checked):
    """The voxel grid of stage 2 and the kidney mask on it."""

    spacing_z: float = _number(1.0, 0.3, 10)  # mm
    spacing_xy: float | None = _number(None, 0.3, 10)  # mm; None: the native pixel
    region: Literal["box", "slice"] = "slice"
    margin_mm: float = _number(15.0, 0)  # of the box around the kidneys
    mask_dilation_mm: float = _number(5.0, 0)


@dataclass(frozen=True, kw_only=True)
class KidneyConfig(_Checked):
    """Stage 1: network, loss, sampling and schedule of the 3D ResUNet."""

    hu: KidneyHu = "soft_tissue"
    widths: tuple[int, ...] = _number((16, 32, 64, 128, 256), 2)
    norm: bool = False
    dropout: float = _number(0.3, 0, 0.9)
    residual: bool = True
    deep_supervision: bool = True
    supervision: float = _number(0.33, 0, 1)  # p, the weight of the three coarser maps
    supervision_factor: float = _number(0.8, 0, 1)
    supervision_every: int = _number(15, 1)  # epochs
    loss: Literal["dice", "dice_cross_entropy"] = "dice"
    foreground_weight: float = _number(4.0, 0)  # of kidney voxels in the cross-entropy
    slab: int = _number(64, 8)  # consecutive slices in a sample
    batch: int = _number(2, 1)
    mirror: Literal["none", "sagittal", "central"] = "sagittal"
    jitter: bool = False  # random rotation, zoom, gain, offset, blur and noise of a batch
    optimizer: Literal["adam", "adamw"] = "adam"
    schedule: Literal["constant", "one_cycle"] = "constant"
    lr: float = _number(1e-4, 0)
    clip: float = _number(1.0, 0)  # largest gradient norm; 0: not clipped
    epochs: int = _number(500, 1)
    samples_per_case: int = _number(1, 1)  # slabs drawn from each case in an epoch
    validate_every: int = _number(10, 1)  # epochs
    window: Literal["padded", "literal", "overlap_average"] = "padded"
    window_slices: int = _number(64, 4)
    components: int = _number(2, 1)  # largest connected components kept


@dataclass(frozen=True, kw_only=True)
class TumorConfig(_Checked):
    """Stage 2: network widths, losses, sampling and schedule shared by all arms."""

    hu: TumorHu = "foreground"
    patch: tuple[int, int] = _number((512, 512), 16)  # rows, columns of a training sample
    slab: int = _number(16, 4)  # slices of a training sample of the 3D arm
    slices: int = _number(5, 1, 15)  # k: channels of a 2.5D sample
    widths: tuple[int, ...] = _number((16, 32, 64, 128, 256), 2)
    norm: bool = True
    gamma: float = _number(2.0, 0)
    alpha: float = _number(0.75, 0, 1)
    lam: float = _number(1.0, 0)  # weight of the Dice term beside the focal term
    dice_weights: tuple[float, float] = _number((0.1, 0.9), 0, 1)  # background, tumour
    augment: bool = True
    batch: int = _number(8, 1)
    optimizer: Literal["adam", "adamw"] = "adam"
    schedule: Literal["constant", "one_cycle"] = "constant"
    lr: float = _number(1e-4, 0)
    clip: float = _number(1.0, 0)
    epochs: int = _number(200, 1)
    steps: int = _number(500, 1)  # optimiser steps in an epoch
    tumor_share: float = _number(0.5, 0, 1)  # of the samples whose slice holds tumour
    oversample_every: int = _number(10, 1)  # epochs between measurements of the difficulty
    oversample_gain: float = _number(3.0, 0)
    oversample_cap: float = _number(4.0, 1)  # largest weight of a slice against the smallest
    validate_every: int = _number(10, 1)


@dataclass(frozen=True, kw_only=True)
class Arm(_Checked):
    """One row of the ablation: a network and the mechanisms of the paper that are switched on."""

    name: str
    says: str  # what the arm adds, in words
    network: Literal["vnet", "unet", "deeplab"] = "vnet"
    dims: Literal["2d", "2.5d", "3d"] = "2.5d"
    multi_scale: bool = False
    se: bool = False
    attention: bool = False
    hdc: bool = False
    focal_dice: bool = False
    oversample: bool = False

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Names of the mechanisms that are on, in the paper's order."""
        return tuple(name for name in MECHANISMS if getattr(self, name))


MECHANISMS = ("multi_scale", "se", "attention", "hdc", "focal_dice", "oversample")

_BASELINE = Arm(name="baseline", says="2.5D VNet with soft Dice loss and uniform sampling")
ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        _BASELINE,
        replace(
            _BASELINE,
            name="full",
            says="the paper's network: all six mechanisms on",
            **dict.fromkeys(MECHANISMS, True),
        ),
    )
}


def arm(name: str) -> Arm:
    """Return the arm of that name; an unknown one lists the right ones."""
    if name not in ARMS:
        raise ConfigError(f"arm: {name!r} is not a choice{_closest(name, ARMS)}")
    return ARMS[name]


@dataclass(frozen=True, kw_only=True)
class RunConfig(_Checked):
    """All that a notebook needs to know: the profile's numbers, the data, where results go."""

    profile: str
    data: str | None = None  # folder of a KiTS cohort; None: the synthetic one
    out: str = str(ROOT / "reports")
    seed: int = _number(0, 0)
    threads: int = _number(1, 1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    seeds: tuple[int, ...] = (0,)
    arms: tuple[str, ...] = ("baseline", "full")
    cohort: CohortConfig = field(default_factory=CohortConfig)
    kidney_grid: KidneyGridConfig = field(default_factory=KidneyGridConfig)
    tumor_grid: TumorGridConfig = field(default_factory=TumorGridConfig)
    kidney: KidneyConfig = field(default_factory=KidneyConfig)
    tumor: TumorConfig = field(default_factory=TumorConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.arms:
            arm(name)

    @property
    def synthetic(self) -> bool:
        """Whether the cohort is our own phantom."""
        return self.data is None

    @property
    def reports(self) -> Path:
        """Folder of the profile's pages."""
        return Path(self.out) / self.profile

    @property
    def work(self) -> Path:
        """Folder of everything that is not a page: cohort, cache, runs, executed notebooks, records."""
        return self.reports / "work"


PROFILES: dict[str, RunConfig] = {
    config.profile: config
    for config in (
        RunConfig(
            profile="smoke",
            cohort=CohortConfig(cases=6, matrix=96, spacing_z=(5.0,), held_out=2),
            kidney_grid=KidneyGridConfig(spacing_z=6.0, matrix=48),
            tumor_grid=TumorGridConfig(spacing_z=5.0, spacing_xy=4.0, region="box"),
            kidney=KidneyConfig(
                widths=(4, 8, 8, 8, 8), norm=True, dropout=0.0,
                loss="dice_cross_entropy", slab=16, window_slices=32,
                optimizer="adamw", schedule="one_cycle", lr=1e-2, epochs=3, validate_every=3,
            ),
            tumor=TumorConfig(
                patch=(32, 64), slab=8, widths=(4, 8, 8),
                batch=4, optimizer="adamw", schedule="one_cycle", lr=1e-2, epochs=3, steps=4,
                oversample_every=1, validate_every=3,
            ),
        ),
        RunConfig(
            profile="demo",
            seeds=(0, 1),
            cohort=CohortConfig(cases=48, matrix=256, spacing_z=(3.0, 4.0, 5.0), held_out=8),
            kidney_grid=KidneyGridConfig(spacing_z=5.0, matrix=80),
            tumor_grid=TumorGridConfig(spacing_z=3.0, spacing_xy=2.0, region="box"),
            kidney=KidneyConfig(
                widths=(8, 8, 16, 32, 64), norm=True, dropout=0.0,
                loss="dice_cross_entropy", slab=32, window_slices=64,
                optimizer="adamw", schedule="one_cycle", lr=4e-3, epochs=60, jitter=True, validate_every=10,
            ),
            tumor=TumorConfig(
                patch=(96, 144), widths=(8, 16, 32, 64),
                optimizer="adamw", schedule="one_cycle", lr=4e-3, epochs=15, steps=40,
                oversample_every=3, validate_every=5,
            ),
        ),
        RunConfig(profile="paper", seeds=(0, 1, 2), threads=8),
    )
}  # fmt: skip


def _set(config: Any, dotted: str, value: Any) -> Any:
    head, _, rest = dotted.partition(".")
    names = [f.name for f in fields(config)]
    if head not in names:
        raise ConfigError(f"option {head!r} is not a field of {type(config).__name__}{_closest(head, names)}")
    inner = getattr(config, head)
    if rest:
        if not is_dataclass(inner):
            raise ConfigError(f"option {dotted!r}: {head} has no fields of its own")
        return replace(config, **{head: _set(inner, rest, value)})
    if is_dataclass(inner):
        raise ConfigError(
            f"option {head!r} is a section: name one of its fields, such as {head}.{fields(inner)[0].name}"
        )
    return replace(config, **{head: value})


def configure(
    *,
    profile: str,
    data: str = "",
    out: str = "",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Build the one typed configuration of a notebook from its parameters.

    `data` and `out` are folders (relative ones count from the project's root; empty: the synthetic cohort,
    the folder `reports`). `options` sets any other field by its dotted name: `{"kidney.epochs": 3}`.
    Raises ConfigError naming the field, the value and what is allowed.
    """
    if profile not in PROFILES:
        raise ConfigError(f"profile: {profile!r} is not a choice{_closest(profile, PROFILES)}")
    if not isinstance(options or {}, Mapping):
        raise ConfigError(f"options: expected a mapping such as {{'kidney.epochs': 3}}, got {options!r}")
    for name, value in (("data", data), ("out", out)):
        _typed(name, value, str)
    if data and not (ROOT / data).is_dir():
        raise ConfigError(f"data: {ROOT / data} is not a folder; name the folder that holds case_00000, …")
    config = replace(
        PROFILES[profile],
        seed=seed,
        data=str(ROOT / data) if data else None,
        out=str(ROOT / (out or "reports")),
    )
    for name, value in (options or {}).items():
        config = _set(config, name, value)
    return config


def as_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON types."""
    return json.loads(json.dumps(asdict(config)))


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
