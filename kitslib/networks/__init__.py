"""Everything that has weights; `build` makes a network from its name and options."""

from __future__ import annotations

import inspect

from torch import nn

from kitslib.networks.blocks import hdc_coverage, hole_free_reach
from kitslib.networks.deeplab import DeepLabV3Plus
from kitslib.networks.measure import count_parameters, gate_maps, multiply_adds, shape_probe
from kitslib.networks.resunet import ResUNet3D
from kitslib.networks.together import Together
from kitslib.networks.unet import UNet
from kitslib.networks.vnet import VNet

__all__ = [
    "NETWORKS",
    "DeepLabV3Plus",
    "ResUNet3D",
    "Together",
    "UNet",
    "VNet",
    "build",
    "count_parameters",
    "gate_maps",
    "hdc_coverage",
    "hole_free_reach",
    "multiply_adds",
    "shape_probe",
]

NETWORKS: dict[str, type[nn.Module]] = {
    "resunet3d": ResUNet3D,
    "vnet": VNet,
    "unet": UNet,
    "deeplab": DeepLabV3Plus,
}


def build(name: str, **options: object) -> nn.Module:
    """The network called `name` with its constructor's keyword options.

    Raises `ValueError` for an unknown name or option, naming the known ones.
    """
    if name not in NETWORKS:
        raise ValueError(f"network: expected one of {', '.join(NETWORKS)}, got {name!r}")
    known = inspect.signature(NETWORKS[name]).parameters
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return NETWORKS[name](**options)
