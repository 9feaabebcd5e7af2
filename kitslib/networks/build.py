"""A network from its name and options."""

from __future__ import annotations

import inspect

from torch import nn

from kitslib.networks.deeplab import DeepLabV3Plus
from kitslib.networks.resunet import ResUNet3D
from kitslib.networks.unet import UNet
from kitslib.networks.vnet import VNet

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
