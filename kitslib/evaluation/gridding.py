"""Whether a trained network hears every other pixel of its deepest map louder: gridding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEAR, FAR = 2, 4  # cells from the centre, along the longer axis, that are looked at
LEAST = 1e-12


def heard(network: nn.Module, images: Tensor) -> np.ndarray:
    """Return how much the output at the centre changes with each pixel, (H, W), mean of samples.

    The absolute gradient of the centre's logit by the input, summed over channels; images
    (B, C, H, W) as the network reads them.
    """
    network.eval()
    images = images.detach().clone().requires_grad_()
    rows, cols = (size // 2 for size in images.shape[2:])
    network(images)[:, 0, rows, cols].float().sum().backward()
    return images.grad.abs().sum(dim=1).mean(dim=0).cpu().numpy()


def gridding(network: nn.Module, images: Tensor, halvings: int) -> float:
    """Return how many times (log2) cells at even offsets are heard louder than those beside them.

    A cell is what one pixel of the deepest map, after so many `halvings`, sees of the input. 0:
    no grid. Stacked layers of dilation 2 see even offsets alone, on their level; what the rest of
    the network fills in counts here. H and W are multiples of twice the cell's size.
    """
    size = 2**halvings
    grid = F.avg_pool2d(torch.from_numpy(heard(network, images))[None, None], size)[0, 0]
    level = torch.log2(grid.clamp(min=LEAST))
    middle = [length // 2 for length in grid.shape]
    ratios = []
    for dy in range(-FAR, FAR + 1, 2):
        for dx in range(-FAR, FAR + 1, 2):
            row, col = middle[0] + dy, middle[1] + dx
            if max(abs(dy), abs(dx)) < NEAR or not _inside(row, col, grid.shape):
                continue
            beside = level[[row - 1, row + 1, row, row], [col, col, col - 1, col + 1]]
            ratios.append(float(level[row, col] - beside.mean()))
    return float(np.mean(ratios))


def _inside(row: int, col: int, shape: torch.Size) -> bool:
    """Whether a cell has neighbours on all sides."""
    return 0 < row < shape[0] - 1 and 0 < col < shape[1] - 1
