"""Whole volumes through a network without gradient: sliding windows, slice stacks, components."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise, product
from typing import Literal, NamedTuple

import cc3d
import numpy as np
import torch
from torch import Tensor, nn

from kitslib.transforms import HuWindow

Reading = Literal["padded", "literal", "overlap_average"]
Autocast = Callable[[], AbstractContextManager]
PAPER_SIZE = 64  # slices of a window


class Window(NamedTuple):
    """Slices [start, stop) go in, the edge slice repeated outside; [keep_start, keep_stop) stay."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(depth: int, size: int, reading: Reading = "padded") -> list[Window]:
    """Return the windows of at most `size` slices over a volume of `depth` slices.

    padded: a halo of a quarter window, at most 16 slices, is cut off both ends; the volume's edges
    are repeated as far and the last window is end-aligned, so that every slice is predicted once.
    Windows above the paper's 64 slices need more memory and keep more; they are as small as their
    number allows. A network that sees no further than the halo gives the same at any size.
    literal: the paper's pseudo-code, which never outputs the first quarter window nor the tail,
    and whose windows after the first are one slice short. overlap_average: half-overlapping,
    end-aligned, nothing cut off; where two overlap their mean is taken.
    """
    half, quarter = size // 2, size // 4
    found = []
    if reading == "literal":
        for first in range(0, depth, half):
            keep, stop = first + quarter, first + size - (first > 0)
            found.append(Window(first, stop, keep, keep + half))
        return [window for window in found if window.stop <= depth]
    if reading == "overlap_average":
        starts = [*range(0, depth - size, half), max(depth - size, 0)]
        return [Window(start, start + size, start, min(start + size, depth)) for start in starts]
    halo = min(quarter, PAPER_SIZE // 4)
    if size > PAPER_SIZE:
        share = depth / np.ceil(depth / (size - 2 * halo))
        needed = 8 * int(np.ceil(share / 8)) + 2 * halo  # networks pad to multiples of 8
        size = min(size, max(needed, PAPER_SIZE))
    kept = size - 2 * halo
    for keep in range(0, depth, kept):
        start = max(min(keep, depth - kept), 0) - halo
        found.append(Window(start, start + size, keep, min(keep + kept, depth)))
    return found


def predict_slabs(
    network: nn.Module, volume: np.ndarray, hu: HuWindow, *, size: int,
    reading: Reading = "padded", autocast: Autocast = nullcontext, dtype: type = np.float16,
) -> np.ndarray:  # fmt: skip
    """Return the foreground probability (D, H, W) of an int16 HU volume, found in its windows."""
    network.eval()
    total = np.zeros(volume.shape, np.float32)
    count = np.zeros((len(volume), 1, 1), np.float32)
    for window in windows(len(volume), size, reading):
        slices = np.clip(np.arange(window.start, window.stop), 0, len(volume) - 1)
        images = hu(torch.from_numpy(volume[slices]))[None, None]
        output = _probability(network, images, autocast)[0, 0].numpy()
        kept = slice(window.keep_start, window.keep_stop)
        total[kept] += output[window.keep_start - window.start : window.keep_stop - window.start]
        count[kept] += 1
    total /= np.maximum(count, 1)
    return total.astype(dtype)


def predict_maps(
    network: nn.Module, volume: np.ndarray, hu: HuWindow, *, autocast: Autocast = nullcontext
) -> np.ndarray:
    """Return the probability of each supervised map (4, D, H, W) float16, coarsest first.

    `network` has `maps`, as ResUNet3D has; `volume` is int16 HU (D, H, W) and goes in whole.
    """
    network.eval()
    device = next(network.parameters()).device
    images = hu(torch.from_numpy(np.array(volume)))[None, None].to(device)
    with torch.inference_mode(), autocast():
        maps = network.maps(images.contiguous(memory_format=torch.channels_last_3d))
    return torch.cat(maps)[:, 0].float().sigmoid().cpu().numpy().astype(np.float16)


def predict_stacks(
    network: nn.Module, volume: np.ndarray, hu: HuWindow, *, depth: int, batch: int = 32,
    every: int = 1, autocast: Autocast = nullcontext,
) -> np.ndarray:  # fmt: skip
    """Return the foreground probability (D, H, W) float16, each slice from `depth` around it.

    With `every` above 1 the network sees each n-th slice and the last, and those between are
    interpolated, which is quicker.
    """
    network.eval()
    out = np.zeros(volume.shape, np.float16)
    offsets, last = np.arange(depth) - depth // 2, len(volume) - 1
    predicted = np.unique(np.append(np.arange(0, len(volume), every), last))
    for first in range(0, len(predicted), batch):
        centres = predicted[first : first + batch]
        stacks = volume[np.clip(centres[:, None] + offsets, 0, last)]
        out[centres] = _probability(network, hu(torch.from_numpy(stacks)), autocast)[:, 0].numpy()
    for before, after in pairwise(predicted):
        for z in range(before + 1, after):
            share = (z - before) / (after - before)
            out[z] = (1 - share) * out[before] + share * out[after]
    return out


def _probability(network: nn.Module, images: Tensor, autocast: Autocast) -> Tensor:
    device = next(network.parameters()).device
    layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
    with torch.inference_mode():
        with autocast():
            logits = network(images.to(device, memory_format=layout))
        return logits.float().sigmoid_().cpu()


def tile_starts(length: int, size: int) -> list[int]:
    """Return where tiles of `size` begin on a line, the first at 0, neighbours overlapping 40 %."""
    count = max(int(np.ceil((length - size) / (0.6 * size))) + 1, 1)
    return [round(start) for start in np.linspace(0, max(length - size, 0), count)]


def predict_tiles(
    predict: Callable[[np.ndarray], np.ndarray], volume: np.ndarray, mask: np.ndarray, *,
    patch: tuple[int, int], context: int, fill: int,
) -> np.ndarray:  # fmt: skip
    """Return the foreground probability (D, H, W) float16 inside `mask`, found tile by tile.

    A tile has the `patch` of training and the depth of the mask there, with `context` slices more
    on either side; a smaller slice is framed with `fill`. `predict` gives a tile's probability.
    Where tiles overlap, the nearer one's centre is, the more it counts.
    """
    height, width = mask.shape[1:]
    rows, cols = max(patch[0] - height, 0), max(patch[1] - width, 0)
    top, left = rows // 2, cols // 2
    frame = [(0, 0), (top, rows - top), (left, cols - left)]
    volume, inside = np.pad(volume, frame, constant_values=fill), np.pad(mask > 0, frame)
    weight = np.outer(_tent(patch[0]), _tent(patch[1]))
    total, count = np.zeros(volume.shape, np.float32), np.zeros(volume.shape[1:], np.float32)
    for row, col in tiles_over(inside.any(axis=0), patch):
        here = slice(row, row + patch[0]), slice(col, col + patch[1])
        count[here] += weight
        filled = np.flatnonzero(inside[:, *here].any(axis=(1, 2)))
        deep = slice(max(filled[0] - context, 0), filled[-1] + context + 1)
        total[deep, *here] += predict(volume[deep, *here]) * weight
    total[~inside] = 0
    total /= np.maximum(count, 1)
    return total[:, top : top + height, left : left + width].astype(np.float16)


def tiles_over(mask: np.ndarray, patch: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the first row and column of the tiles that cover a mask (H, W) of at least a patch.

    Each connected part has tiles of its own: one about its middle where the patch holds it, else
    several from its first row and column to the last.
    """
    found = []
    labels, number = cc3d.connected_components(mask[None].astype(np.uint8), return_N=True)
    for part in range(1, number + 1):
        starts = []
        for axis, size in enumerate(patch):
            filled = np.flatnonzero((labels[0] == part).any(axis=1 - axis))
            first, length = int(filled[0]), int(filled[-1] - filled[0]) + 1
            room, spare = mask.shape[axis] - size, max(size - length, 0)
            begin = first - spare // 2
            steps = tile_starts(length, size)
            starts.append([min(max(begin + step, 0), room) for step in steps])
        found += product(*starts)
    return found


def _tent(length: int) -> np.ndarray:
    """1, 2, 3 … to the middle and back, float32 (length,)."""
    rising = np.arange(1, length + 1, dtype=np.float32)
    return np.minimum(rising, rising[::-1])


def largest_components(
    mask: np.ndarray, count: int, weight: np.ndarray | None = None
) -> np.ndarray:
    """Return the `count` largest 26-connected components of a boolean volume (D, H, W).

    With `weight`, of the volume's shape, those are the components with the largest sums of it.
    """
    labels, number = cc3d.connected_components(mask, return_N=True)
    if number <= count:
        return mask.astype(bool)
    weights = None if weight is None else weight.ravel()
    sizes = np.bincount(labels.ravel(), weights)
    keep = np.zeros(number + 1, bool)
    keep[np.argsort(sizes[1:])[::-1][:count] + 1] = True
    return keep[labels]
