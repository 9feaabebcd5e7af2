"""How a network's weights lie in memory."""

from __future__ import annotations

import torch
from torch import nn


def ready(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Return a trained network ready to predict: on `device`, in the layout of its training."""
    for layout in (torch.channels_last, torch.channels_last_3d):  # each is for its own weights
        network = network.to(device, memory_format=layout)
    return network.eval()
