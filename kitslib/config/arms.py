"""The rows of the ablation: each a network and the mechanisms that are on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from kitslib.config.checked import Checked, ConfigError, closest, number

MECHANISMS = ("multi_scale", "se", "attention", "hdc", "focal_dice", "oversample")
IN_THE_NETWORK = MECHANISMS[:4]
# a mechanism and the fields that say in which form it is on
FORMS = {
    "attention": ("attention_gate",),
    "hdc": ("hdc_level", "hdc_dilations"),
    "oversample": ("oversample_by",),
}


@dataclass(frozen=True, kw_only=True)
class Arm(Checked):
    """One row of the ablation: a network and the mechanisms of the paper that are switched on.

    Raises ConfigError for a mechanism that the network lacks, and for a form of one that is off.
    """

    name: str
    description: str  # what the arm changes, in words
    reference: str = ""  # the arm it changes, with which it is compared
    network: Literal["vnet", "unet", "deeplab"] = "vnet"
    dims: Literal["2d", "2.5d", "3d"] = "2.5d"
    width: float = number(1.0, 0.1, 8)  # of every level, times the profile's channel counts
    as_large: bool = False  # such a width that it has as many weights as the baseline
    multi_scale: bool = False
    se: bool = False
    attention: bool = False
    attention_gate: Literal["concat", "additive"] = "concat"
    hdc: bool = False
    hdc_level: int | None = number(None, 0)  # encoder level, 0 at full resolution; None: the bottom
    hdc_dilations: tuple[int, ...] = number((2, 3, 5), 1)
    focal_dice: bool = False
    oversample: bool = False
    oversample_by: Literal["difficulty", "case", "cysts"] = "difficulty"  # of slices, of cases
    dice_over: Literal["sample", "batch"] | None = None  # None: as the profile has it

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network != "vnet" and (wrong := [m for m in IN_THE_NETWORK if getattr(self, m)]):
            raise ConfigError(
                f"arm {self.name}: {self.network} has no {', '.join(wrong)}; only vnet has"
            )
        defaults = {f.name: f.default for f in fields(self)}
        for mechanism, forms in FORMS.items():
            for form in forms:
                if not getattr(self, mechanism) and getattr(self, form) != defaults[form]:
                    raise ConfigError(
                        f"arm {self.name}: {form} is set while {mechanism} is off; switch it on"
                    )

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """Names of the mechanisms that are on, in the paper's order."""
        return tuple(name for name in MECHANISMS if getattr(self, name))

    def variant(self, name: str, description: str, **changes: Any) -> Arm:
        """The arm `name` that differs from this one by `changes` and is compared with it."""
        return replace(self, name=name, description=description, reference=self.name, **changes)

    def network_options(
        self, *, slices: int, widths: Sequence[int], norm: bool,
        patch: Sequence[int] = (512, 512), width: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the keyword arguments of `networks.build`.

        `widths` are the profile's channels, times the arm's width or the `width` given.
        """
        width = self.width if width is None else width
        widths = tuple(max(round(width * channels), 1) for channels in widths)
        options: dict[str, Any] = {"name": self.network, "dims": self.dims, "slices": slices}
        options |= {"norm": norm, "widths": widths}
        options |= {name: True for name in IN_THE_NETWORK if getattr(self, name)}
        if self.network == "deeplab":
            options["rates"] = deeplab_rates(patch, len(widths))
        if self.attention:
            options["attention_gate"] = self.attention_gate
        if self.hdc:
            options["hdc_level"] = "bottom" if self.hdc_level is None else self.hdc_level
            options["hdc_dilations"] = self.hdc_dilations
        return options


def deeplab_rates(patch: Sequence[int], levels: int) -> tuple[int, ...]:
    """Return DeepLab's dilations: of the deepest map the shares that 6, 12, 18 are of 64 pixels.

    64 is the map of a slice of 512 pixels. On a small map the rates themselves reach beyond it.
    """
    share = min(patch) / 2 ** min(3, levels - 1) / 64
    return tuple(max(round(rate * share), rate // 6) for rate in (6, 12, 18))


@dataclass(frozen=True)
class KidneyArm:
    """One row of the kidney comparison: `replace(config.kidney, **settings)` is its section."""

    description: str
    settings: Mapping[str, Any]


def by_name(rows: Sequence[Any]) -> dict[str, Any]:
    """The arms by their name; two different ones of one name are refused."""
    table: dict[str, Any] = {}
    for row in rows:
        if table.setdefault(row.name, row) != row:
            raise ConfigError(
                f"arm {row.name!r} stands twice in the table with different settings; rename one"
            )
    return table


BASELINE = Arm(name="baseline", description="2.5D VNet with soft Dice loss and uniform sampling")
MULTI_SCALE = BASELINE.variant(
    "multi_scale", "baseline with the image joined at every scale of the encoder", multi_scale=True
)
SE = MULTI_SCALE.variant("se", "multi_scale with squeeze-and-excitation when pooling", se=True)
ATTENTION = SE.variant("attention", "se with a gate on every skip", attention=True)
HDC = ATTENTION.variant("hdc", "attention with hybrid dilated convolutions at the bottom", hdc=True)
FOCAL_DICE = HDC.variant("focal_dice", "hdc with focal loss + weighted Dice", focal_dice=True)
FULL = FOCAL_DICE.variant(
    "full", "focal_dice with hard slices drawn more often: all six mechanisms", oversample=True
)
PER_SAMPLE = HDC.variant(
    "hdc_per_sample", "hdc with Dice over each sample in place of the batch", dice_over="sample"
)
_base, _full = BASELINE.variant, FULL.variant
_GROUPS: dict[str, tuple[Arm, ...]] = {
    "cumulative": (BASELINE, MULTI_SCALE, SE, ATTENTION, HDC, FOCAL_DICE, FULL),
    "rivals": (
        _base("unet", "2.5D U-Net, as large as the VNet", network="unet", as_large=True),
        _base(
            "deeplab", "2.5D DeepLab V3+, as large as the VNet", network="deeplab", as_large=True
        ),
        _base("vnet_2d", "VNet that sees one slice", dims="2d"),
        _base("vnet_3d", "VNet in 3D, as large as the 2.5D one", dims="3d", as_large=True),
    ),
    "alone": (
        MULTI_SCALE,
        _base("only_se", "baseline with squeeze-and-excitation alone", se=True),
        _base("only_attention", "baseline with attention gates alone", attention=True),
        _base("only_hdc", "baseline with hybrid dilated convolutions alone", hdc=True),
        _base("only_focal_dice", "baseline with focal loss + weighted Dice", focal_dice=True),
        _base("only_oversample", "baseline with hard slices drawn more often", oversample=True),
    ),
    "left_out": (
        _full("no_multi_scale", "full without the image at every scale", multi_scale=False),
        _full("no_se", "full without squeeze-and-excitation", se=False),
        _full("no_attention", "full without gates on the skips", attention=False),
        _full("no_hdc", "full without hybrid dilated convolutions", hdc=False),
        _full("no_focal_dice", "full with soft Dice loss", focal_dice=False),
    ),
    "levels": (
        HDC.variant("hdc_level_0", "hdc with the dilated layers at full resolution", hdc_level=0),
        HDC.variant("hdc_level_1", "hdc with the dilated layers after one halving", hdc_level=1),
        HDC.variant("hdc_level_2", "hdc with the dilated layers after two halvings", hdc_level=2),
        HDC.variant("hdc_level_3", "hdc with the dilated layers after three halvings", hdc_level=3),
        HDC,
    ),
    "variants": (
        ATTENTION.variant(
            "additive_gate", "attention with additive gates", attention_gate="additive"
        ),
        HDC.variant("plain_dilation", "hdc with dilations 2, 2, 2", hdc_dilations=(2, 2, 2)),
        PER_SAMPLE,
        PER_SAMPLE.variant(
            "focal_dice_per_sample",
            "hdc_per_sample with focal loss + weighted Dice",
            focal_dice=True,
        ),
        _full(
            "oversample_cases",
            "full with all slices of hard cases drawn more often",
            oversample_by="case",
        ),
        _full("oversample_cysts", "full with cysts drawn more often", oversample_by="cysts"),
    ),
}
ARMS: dict[str, Arm] = by_name([row for rows in _GROUPS.values() for row in rows])
ARM_GROUPS: dict[str, tuple[str, ...]] = {}
for _title, _rows in _GROUPS.items():
    ARM_GROUPS[_title] = tuple(row.name for row in _rows)


def compared_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The comparisons among the arms `names` as (reference, arm).

    Each is compared with the nearest arm it builds on that is there; the last of the cumulative
    arms, the paper's whole, with the first as well.
    """
    first, *_, last = ARM_GROUPS["cumulative"]
    pairs = []
    for name in names:
        reference = ARMS[name].reference
        while reference and reference not in names:
            reference = ARMS[reference].reference
        if reference:
            pairs.append((reference, name))
    if {first, last} <= set(names) and (first, last) not in pairs:
        pairs.append((first, last))
    return pairs


KIDNEY_ARMS: dict[str, KidneyArm] = {
    "standard": KidneyArm("residual sums, four supervised maps, left-right mirroring", {}),
    "no_residual": KidneyArm("without residual sums", {"residual": False}),
    "no_deep_supervision": KidneyArm(
        "the finest map alone supervised", {"deep_supervision": False}
    ),
    "mirror_none": KidneyArm("without mirroring", {"mirror": "none"}),
    "mirror_central": KidneyArm("mirrored through the centre, as printed", {"mirror": "central"}),
}


def arm(name: str) -> Arm:
    """Return the arm of that name; an unknown one lists the right ones."""
    if name not in ARMS:
        raise ConfigError(f"arm: {name!r} is not a choice{closest(name, ARMS)}")
    return ARMS[name]


def kidney_arm(name: str) -> KidneyArm:
    """Return the kidney arm of that name; an unknown one lists the right ones."""
    if name not in KIDNEY_ARMS:
        raise ConfigError(f"kidney arm: {name!r} is not a choice{closest(name, KIDNEY_ARMS)}")
    return KIDNEY_ARMS[name]
