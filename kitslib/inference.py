"""Whole volumes through a network without gradient: sliding windows, slice stacks, connected components."""

from __future__ import annotations

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

    padded: the edges repeated by a quarter window, the central half of each kept, the last one end-aligned:
    every slice is predicted once. literal: the paper's pseudo-code, which never outputs the first quarter window
    nor the tail, and whose windows after the first are one slice short. overlap_average: half-overlapping,
    end-aligned, nothing cut off; where two overlap their mean is taken.
    """
    half, quarter = size // 2, size // 4
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
    found = []
    for keep in range(0, depth, half):
        start = max(min(keep, depth - half), 0) - quarter
        found.append(Window(start, start + size, keep, min(keep + half, depth)))
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
    return total.astype(np.float16)


def predict_stacks(
    network: nn.Module,
    volume: np.ndarray,
    hu: HuWindow,
    *,
    depth: int,
    batch: int = 16,
    autocast: Autocast = _no_autocast,
) -> np.ndarray:
    """Return the foreground probability (D, H, W) float16, each slice from a stack of `depth` around it."""
    network.eval()
    out = np.zeros(volume.shape, np.float16)
    offsets = np.arange(depth) - depth // 2
    for first in range(0, len(volume), batch):
        centres = np.arange(first, min(first + batch, len(volume)))
        stacks = volume[np.clip(centres[:, None] + offsets, 0, len(volume) - 1)]
        out[centres] = _probability(network, hu(torch.from_numpy(stacks)), autocast)[:, 0].numpy()
    return out


def largest_components(mask: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` largest 26-connected components of a boolean volume."""
    labels, number = cc3d.connected_components(mask, return_N=True)
    if number <= count:
        return mask.astype(bool)
    sizes = np.bincount(labels.ravel(), minlength=number + 1)
    sizes[0] = 0
    keep = np.zeros(number + 1, bool)
    keep[np.argsort(sizes)[::-1][:count]] = True
    return keep[labels]
