"""What is done to a batch on a GPU, by torch, without waiting for it: the twin of `on_cpu`.

Each operation acts on all samples that have it at once, for a GPU takes as long over one. Stacks
are tensors (B, K, H, W) on the device, images float32; numbers are those of each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def augment(
    stacks: Sequence[Tensor], done: Sequence[Tensor], steps: Sequence[Any], bins: int
) -> None:
    """Images and labels into two others; `steps` (`_Steps`) says what is done to each sample."""
    for batch, into, nearest in zip(stacks, done, (False, True), strict=True):
        place(batch, steps, nearest=nearest, into=into)
    strength, sigma = np.array([(step.equalise, step.sigma) for step in steps]).T
    if len(some := np.flatnonzero(strength > 0)):
        done[0][some] = equalise(done[0][some], strength[some], bins)
    if len(some := np.flatnonzero(sigma > 0)):
        done[0][some] = blur(done[0][some], sigma[some])


def place(stacks: Tensor, steps: Sequence[Any], *, nearest: bool, into: Tensor) -> None:
    """Each sample mirrored, or moved as its matrix says, which mirrors rows and columns too."""
    into.copy_(stacks)
    moved = np.array([step.matrix is not None for step in steps])
    for axes in {step.axes for step in steps} - {()}:
        mirrored = np.array([step.axes == axes for step in steps])
        for some, turned in ((mirrored & ~moved, axes), (mirrored & moved, {0} & {*axes})):
            into[some] = stacks[some].flip([axis + 1 for axis in turned])
    if moved.any():
        matrices = np.stack([step.matrix for step in steps if step.matrix is not None])
        into[moved] = move(into[moved], matrices, nearest=nearest).to(into.dtype)


def move(stacks: Tensor, matrices: np.ndarray, *, nearest: bool) -> Tensor:
    """Each pixel (x, y, 1) from where `matrices` (B, 2, 3) say; outside is the lowest value, or 0.

    An affine map is a sum of what column and row give, and only those go to the device.
    """
    height, width = stacks.shape[2:]
    size, low = np.array([width, height]), stacks.amin(dim=(1, 2, 3), keepdim=True)
    columns = 2 * np.arange(width)[:, None] * matrices[:, None, :, 0] / size
    rows = 2 * (np.arange(height)[:, None] * matrices[:, None, :, 1] + matrices[:, None, :, 2])
    from_column = torch.from_numpy(columns.astype(np.float32)).to(stacks.device)
    from_row = torch.from_numpy(((rows + 1) / size - 1).astype(np.float32)).to(stacks.device)
    grid = from_column[:, None] + from_row[:, :, None]  # -1 to 1 across the picture
    mode, low = ("nearest", 0.0 * low) if nearest else ("bilinear", low)
    return F.grid_sample(stacks - low, grid, mode=mode, align_corners=False) + low


def equalise(stacks: Tensor, strength: np.ndarray, bins: int) -> Tensor:
    """Mix in, by `strength`, each stack with a flat histogram above its lowest value."""
    flat, device = stacks.flatten(1), stacks.device
    low = flat.amin(dim=1, keepdim=True)
    span = (flat.amax(dim=1, keepdim=True) - low).clamp(min=1e-6)
    position = (flat - low) * (bins / span)
    level = position.long().clamp(max=bins - 1)
    counted = torch.zeros((len(flat), bins), dtype=torch.long, device=device)
    counted.scatter_add_(1, level, torch.ones_like(level))
    counted[:, 0] -= (position == 0).sum(dim=1)
    slope = counted * (span / counted.sum(dim=1, keepdim=True).clamp(min=1))
    start = slope.cumsum(dim=1) - slope + low - slope * torch.arange(bins, device=device)
    even = start.gather(1, level) + slope.gather(1, level) * position
    share = torch.from_numpy(strength.astype(np.float32)).to(device)
    return flat.lerp(even, share[:, None]).view_as(stacks)


def blur(stacks: Tensor, sigma: np.ndarray) -> Tensor:
    """Gaussian along rows and columns, up to three sigma, over repeated edges."""
    reach = np.ceil(3 * sigma)[:, None]
    away = np.arange(-reach.max(), reach.max() + 1)
    weights = np.where(abs(away) <= reach, np.exp(-0.5 * (away / sigma[:, None]) ** 2), 0)
    weights = (weights / weights.sum(axis=1, keepdims=True)).repeat(stacks.shape[1], axis=0)
    kernel = torch.from_numpy(weights.astype(np.float32)).to(stacks.device)
    framed = F.pad(stacks, [int(reach.max())] * 4, mode="replicate").flatten(0, 1)[None]
    along_columns = F.conv2d(framed, kernel[:, None, :, None], groups=len(kernel))
    return F.conv2d(along_columns, kernel[:, None, None], groups=len(kernel)).view_as(stacks)
