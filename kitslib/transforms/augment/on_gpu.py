"""What is done to one sample on a GPU, by torch, without waiting for it: the twin of `on_cpu`.

Stacks are tensors (K, H, W) on the device, images float32.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def reversed_slices(stack: Tensor) -> Tensor:
    """`stack` with its slices in reverse order."""
    return stack.flip(0)


def mirror(stack: Tensor, axes: tuple[int, ...], *, into: Tensor) -> None:
    """`stack` reversed along `axes`."""
    into.copy_(stack.flip(axes))


def move(stack: Tensor, matrix: np.ndarray, *, nearest: bool, into: Tensor) -> None:
    """Each pixel (x, y, 1) from where `matrix` (2, 3) says; outside is the lowest value, or 0."""
    low, mode = stack.amin(), "bilinear"
    if nearest:
        low, mode = torch.zeros((), device=stack.device), "nearest"
    grid = _grid(matrix, *stack.shape[1:], device=stack.device)
    moved = F.grid_sample((stack - low)[None], grid[None], mode=mode, align_corners=False)
    into.copy_(moved[0] + low)


def _grid(matrix: np.ndarray, height: int, width: int, device: torch.device) -> Tensor:
    """(H, W, 2): the same map, -1 to 1 across the picture as `F.grid_sample` has it.

    An affine map is a sum of what column and row give, and only those go to the device.
    """
    size = np.array([width, height])
    columns = 2 * np.arange(width)[:, None] * matrix[:, 0] / size
    rows = (2 * (np.arange(height)[:, None] * matrix[:, 1] + matrix[:, 2]) + 1) / size - 1
    from_column = torch.from_numpy(columns.astype(np.float32)).to(device)
    from_row = torch.from_numpy(rows.astype(np.float32)).to(device)
    return from_column + from_row[:, None]


def equalise(stack: Tensor, strength: float, bins: int) -> None:
    """Mix in, by `strength`, the stack with a flat histogram above its lowest value; in place."""
    low, high = stack.aminmax()
    span = (high - low).clamp(min=1e-6)
    position = ((stack - low) * (bins / span)).flatten()
    level = position.int()  # `bins` itself for the highest value
    counted = torch.bincount(level, minlength=bins + 1)
    counted[0] -= position.numel() - position.count_nonzero()
    counted[bins - 1] += counted[bins]
    counted[bins] = 0
    slope = counted * (span / counted.sum().clamp(min=1))
    start = slope.cumsum(0) - slope + low - slope * torch.arange(bins + 1, device=stack.device)
    stack.lerp_((start[level] + slope[level] * position).view_as(stack), strength)


def blur(stack: Tensor, sigma: float) -> None:
    """Gaussian along rows and columns, up to three sigma, over repeated edges; in place."""
    radius = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = torch.from_numpy((weights / weights.sum()).astype(np.float32)).to(stack.device)
    framed = F.pad(stack[None], [radius] * 4, mode="replicate")[0][:, None]
    along_columns = F.conv2d(framed, kernel.view(1, 1, -1, 1))
    stack.copy_(F.conv2d(along_columns, kernel.view(1, 1, 1, -1))[:, 0])
