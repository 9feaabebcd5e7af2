"""A network from its name and options, and several networks as one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kitslib.networks.deeplab import DeepLabV3Plus
from kitslib.networks.resunet import ResUNet3D
from kitslib.networks.unet import UNet
from kitslib.networks.vnet import VNet

CLAMP = 1e-4  # of a mean probability: its logit stays finite
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


class Together(nn.Module):
    """The mean probability of an ensemble of networks of one kind, as the logit of that mean.

    Input and output are those of each network, (B, C, ...) to (B, 1, ...).
    Raises ValueError without networks.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise ValueError("Together: expected at least one network, got none")
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        answers = [torch.sigmoid(network(x).float()) for network in self.networks]
        return torch.logit(torch.stack(answers).mean(dim=0), eps=CLAMP)
