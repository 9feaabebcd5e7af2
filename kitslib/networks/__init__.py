"""Everything that has weights; `build` makes a network from its name and options."""

from __future__ import annotations

from torch import nn

from kitslib.networks.resunet import ResUNet3D
from kitslib.networks.vnet import VNet

NETWORKS: dict[str, type[nn.Module]] = {"resunet3d": ResUNet3D, "vnet": VNet}


def build(name: str, **options: object) -> nn.Module:
    """The network called `name`, with its constructor's keyword options."""
    if name not in NETWORKS:
        raise ValueError(f"network: expected one of {', '.join(NETWORKS)}, got {name!r}")
    return NETWORKS[name](**options)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
