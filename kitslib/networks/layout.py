"""How a network's weights lie in memory."""

from __future__ import annotations

import torch
from torch import nn


def ready(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Return a trained network ready to predict: on `device`, in the layout of its training."""
    layout = torch.channels_last
    if any(weight.ndim == 5 for weight in network.parameters()):
        layout = torch.channels_last_3d
    return network.to(device, memory_format=layout).eval()
