"""Several trained networks that give one answer together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CLAMP = 1e-4  # of a mean probability: its logit stays finite


class Together(nn.Module):
    """The mean probability of networks of one kind (an ensemble of seeds), as the logit of that mean.

    Input and output are those of each network, (B, C, …) to (B, 1, …). Raises ValueError without networks.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise ValueError("Together: expected at least one network, got none")
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        answers = [torch.sigmoid(network(x).float()) for network in self.networks]
        return torch.logit(torch.stack(answers).mean(dim=0), eps=CLAMP)
