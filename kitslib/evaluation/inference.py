"""Whole volumes through a network without gradient: sliding windows, slice stacks, connected components."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
import torch
from torch import Tensor, nn

from kitslib.transforms import HuWindow

Reading = Literal["padded", "literal", "overlap_average"]
Autocast = Callable[[], AbstractContextManager]
PAPER_SIZE = 64  # slices of a window


@dataclass(frozen=True)
class Window:
    """Slices [start, stop) go in, and [keep_start, keep_stop) of the volume are taken from what comes out.

    `start` may be negative and `stop` beyond the depth: the edge slice is repeated there.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(depth: int, size: int, reading: Reading = "padded") -> list[Window]:
    """Return the windows over a volume of `depth` slices.

    padded: a halo of a quarter window, at most 16 slices, is cut off both ends of each, the volume's edges are
    repeated as far, the last window is end-aligned: every slice is predicted once. Of the paper's 64 slices half
    are kept; larger windows need more memory and keep more, up to one pass over the whole volume, and are as small
    as their number allows. A network that sees no further than the halo gives the same whatever the size.
    literal: the paper's pseudo-code, which never outputs the first quarter window nor the tail, and whose windows
    after the first are one slice short. overlap_average: half-overlapping, end-aligned, nothing cut off; where two
    overlap their mean is taken.
    """
    half, quarter = size // 2, size // 4
    halo = min(quarter, PAPER_SIZE // 4)
    if reading == "literal":
        found = [Window(0, size, quarter, quarter + half)] if size <= depth else []
        start = half
        while found and start + size - 1 <= depth:
            found.append(Window(start, start + size - 1, start + quarter, start + quarter + half))
            start += half
        return found
    if reading == "overlap_average":
        starts = [*range(0, max(depth - size, 0), half), max(depth - size, 0)]
        return [Window(s, s + size, s, min(s + size, depth)) for s in starts]
    if size > PAPER_SIZE:
        share = depth / np.ceil(depth / (size - 2 * halo))
        size = min(
            size, max(8 * int(np.ceil(share / 8)) + 2 * halo, PAPER_SIZE)
        )  # networks pad to multiples of 8
    kept = size - 2 * halo
    found = []
    for keep in range(0, depth, kept):
        start = max(min(keep, depth - kept), 0) - halo
        found.append(Window(start, start + size, keep, min(keep + kept, depth)))
    return found


def _no_autocast() -> AbstractContextManager:
    return torch.autocast("cpu", enabled=False)


def _take(volume: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Slices [start, stop), the edge repeated beyond the volume."""
    return volume[np.clip(np.arange(start, stop), 0, len(volume) - 1)]


def _probability(network: nn.Module, images: Tensor, autocast: Autocast) -> Tensor:
    device = next(network.parameters()).device
    layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
    with torch.inference_mode():
        with autocast():
            logits = network(images.to(device, memory_format=layout))
        return logits.float().sigmoid_().cpu()


def predict_slabs(
    network: nn.Module,
    volume: np.ndarray,
    hu: HuWindow,
    *,
    size: int,
    reading: Reading = "padded",
    autocast: Autocast = _no_autocast,
) -> np.ndarray:
    """Return the foreground probability (D, H, W) float16 of an int16 volume in HU, window by window."""
    found = slab_probability(network, volume, hu, size=size, reading=reading, autocast=autocast)
    return found.astype(np.float16)


def slab_probability(
    network: nn.Module,
    volume: np.ndarray,
    hu: HuWindow,
    *,
    size: int,
    reading: Reading = "padded",
    autocast: Autocast = _no_autocast,
) -> np.ndarray:
    """Return what `predict_slabs` does, as float32 before it is rounded."""
    network.eval()
    total = np.zeros(volume.shape, np.float32)
    count = np.zeros((len(volume), 1, 1), np.float32)
    for window in windows(len(volume), size, reading):
        images = torch.from_numpy(_take(volume, window.start, window.stop))
        output = _probability(network, hu(images)[None, None], autocast)[0, 0].numpy()
        kept = slice(window.keep_start, window.keep_stop)
        total[kept] += output[window.keep_start - window.start : window.keep_stop - window.start]
        count[kept] += 1
    total /= np.maximum(count, 1)
    return total


def predict_maps(
    network: nn.Module, volume: np.ndarray, hu: HuWindow, *, autocast: Autocast = _no_autocast
) -> np.ndarray:
    """Return the foreground probability of each supervised map (4, D, H, W) float16, coarsest first, in one pass.

    `network` has `maps`, as ResUNet3D has; `volume` is int16 HU (D, H, W).
    """
    network.eval()
    device = next(network.parameters()).device
    images = hu(torch.from_numpy(np.array(volume)))[None, None].to(device)
    with torch.inference_mode(), autocast():
        maps = network.maps(images.contiguous(memory_format=torch.channels_last_3d))
    return np.stack([logits[0, 0].float().sigmoid().cpu().numpy() for logits in maps]).astype(
        np.float16
    )


def predict_stacks(
    network: nn.Module,
    volume: np.ndarray,
    hu: HuWindow,
    *,
    depth: int,
    batch: int = 32,
    every: int = 1,
    autocast: Autocast = _no_autocast,
) -> np.ndarray:
    """Return the foreground probability (D, H, W) float16, each slice from a stack of `depth` around it.

    With `every` above 1 only each n-th slice and the last go through the network, and those between are
    interpolated: a cheap look at a volume.
    """
    network.eval()
    out = np.zeros(volume.shape, np.float16)
    offsets = np.arange(depth) - depth // 2
    last = len(volume) - 1
    asked = np.unique(np.append(np.arange(0, len(volume), every), last))
    for first in range(0, len(asked), batch):
        centres = asked[first : first + batch]
        stacks = volume[np.clip(centres[:, None] + offsets, 0, last)]
        out[centres] = _probability(network, hu(torch.from_numpy(stacks)), autocast)[:, 0].numpy()
    for before, after in itertools.pairwise(asked):
        for z in range(before + 1, after):
            share = (z - before) / (after - before)
            out[z] = (1 - share) * out[before] + share * out[after]
    return out


def tile_starts(length: int, size: int) -> list[int]:
    """Return where tiles of `size` begin on a line: at 0, and as many more as let neighbours overlap by 40 %."""
    count = max(int(np.ceil((length - size) / (0.6 * size))) + 1, 1)
    return [round(start) for start in np.linspace(0, max(length - size, 0), count)]


def predict_tiles(
    predict: Callable[[np.ndarray], np.ndarray],
    volume: np.ndarray,
    mask: np.ndarray,
    *,
    patch: tuple[int, int],
    context: int,
    fill: int,
) -> np.ndarray:
    """Return the foreground probability (D, H, W) float16 inside `mask`, found tile by tile.

    A tile is `patch` pixels wide, as in training, and as many slices deep as the mask is there with `context` more
    on either side; a smaller slice is framed with `fill`. `predict` gives the probability of a tile. Where tiles
    overlap, each counts the more the nearer its centre is; tiles without mask are left out.
    """
    short = [max(n - have, 0) for n, have in zip(patch, volume.shape[1:], strict=True)]
    frame = [(0, 0), *((n // 2, n - n // 2) for n in short)]
    volume, inside = np.pad(volume, frame, constant_values=fill), np.pad(mask > 0, frame)
    tent = [np.minimum(np.arange(n) + 1, np.arange(n, 0, -1)).astype(np.float32) for n in patch]
    weight = tent[0][:, None] * tent[1]
    total, count = np.zeros(volume.shape, np.float32), np.zeros(volume.shape[1:], np.float32)
    for row in tile_starts(volume.shape[1], patch[0]):
        for col in tile_starts(volume.shape[2], patch[1]):
            here = slice(row, row + patch[0]), slice(col, col + patch[1])
            count[here] += weight
            filled = np.flatnonzero(inside[:, *here].any(axis=(1, 2)))
            if len(filled):
                deep = slice(max(filled[0] - context, 0), filled[-1] + context + 1)
                total[deep, *here] += predict(volume[deep, *here]) * weight
    total[~inside] = 0
    total /= count
    top, left = frame[1][0], frame[2][0]
    return total[:, top : top + mask.shape[1], left : left + mask.shape[2]].astype(np.float16)


def largest_components(
    mask: np.ndarray, count: int, weight: np.ndarray | None = None
) -> np.ndarray:
    """Return the `count` largest 26-connected components of a boolean volume.

    With `weight`, of the volume's shape, those are the components with the largest sums of it.
    """
    labels, number = cc3d.connected_components(mask, return_N=True)
    if number <= count:
        return mask.astype(bool)
    weights = None if weight is None else weight.ravel()
    sizes = np.bincount(labels.ravel(), weights, minlength=number + 1)
    order = np.argsort(sizes[1:])[::-1] + 1
    keep = np.zeros(number + 1, bool)
    keep[order[:count]] = True
    return keep[labels]
