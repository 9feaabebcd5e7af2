"""How a network's weights and inputs lie in memory."""

from __future__ import annotations

import torch
from torch import nn


def memory_format(network: nn.Module) -> torch.memory_format:
    """Return the channels-last format of a 3D or a 2D network."""
    is_3d = any(isinstance(module, nn.Conv3d) for module in network.modules())
    return torch.channels_last_3d if is_3d else torch.channels_last


def ready(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Return a trained network ready to predict: on `device`, in the layout of its training."""
    return network.to(device, memory_format=memory_format(network)).eval()
