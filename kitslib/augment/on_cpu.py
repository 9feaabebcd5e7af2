"""What is done to one sample on a CPU, by OpenCV: several times as quick there as torch's own kernels.

Stacks are contiguous arrays (K, H, W), images float32 and labels of one of `DTYPES`.
"""

from __future__ import annotations

import functools
import math
from types import ModuleType

import numpy as np
import torch

DTYPES = (torch.uint8, torch.float32)  # others are rounded to another neighbour by OpenCV
TOGETHER = 4  # slices that OpenCV moves for little more than the price of one


@functools.cache
def opencv() -> ModuleType:
    """The package, imported when first needed, without its threads: each of ours has a sample of its own."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def mirror(stack: np.ndarray, axes: tuple[int, ...], *, into: np.ndarray) -> None:
    """`stack` reversed along `axes`, which are (), the columns (2,) or all three."""
    if not axes:
        np.copyto(into, stack)
        return
    for plane, place in zip(stack[::-1] if 0 in axes else stack, into, strict=True):
        opencv().flip(plane, -1 if 1 in axes else 1, place)


def move(stack: np.ndarray, matrix: np.ndarray, *, nearest: bool, into: np.ndarray) -> None:
    """Each pixel (x, y, 1) from where `matrix` (2, 3) says; from outside comes the lowest value, or 0 for nearest."""
    cv2 = opencv()
    size, flags = stack.shape[:0:-1], cv2.WARP_INVERSE_MAP | (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR)
    outside = [0.0 if nearest else float(stack.min())] * TOGETHER
    for first in range(0, len(stack), TOGETHER):
        planes, places = list(stack[first : first + TOGETHER]), list(into[first : first + TOGETHER])
        if len(planes) > 2:
            moved = cv2.warpAffine(cv2.merge(planes), matrix, size, None, flags, cv2.BORDER_CONSTANT, outside)
            cv2.split(moved, places)
        else:  # places of two channels would be rounded to 1/32 of a pixel
            for plane, place in zip(planes, places, strict=True):
                cv2.warpAffine(plane, matrix, size, place, flags, cv2.BORDER_CONSTANT, outside)


def equalise(stack: np.ndarray, strength: float, bins: int) -> None:
    """Mix in, by `strength`, the stack whose histogram above its lowest value is flat over its range; in place."""
    cv2 = opencv()
    values = stack.reshape(len(stack), -1)
    low, high, *_ = cv2.minMaxLoc(values)
    span = max(high - low, 1e-6)
    position = values - np.float32(low)
    position *= np.float32(bins / span)
    level = cv2.convertScaleAbs(position, alpha=1, beta=-0.5)  # rounded, which is the bin; `bins` for the highest
    counted = cv2.calcHist([level], [0], None, [bins + 1], [0, bins + 1]).ravel().astype(np.float64)
    counted[0] -= values.size - cv2.countNonZero(position)
    counted[bins - 1] += counted[bins]
    counted[bins] = 0
    slope = counted * (span / max(counted.sum(), 1))
    start = np.cumsum(slope) - slope + low - slope * np.arange(bins + 1)
    begins, rises = (cv2.LUT(level, np.resize(table, 256).astype(np.float32)) for table in (start, slope))
    flat = cv2.add(cv2.multiply(rises, position), begins)
    cv2.addWeighted(values, 1 - strength, flat, strength, 0, values)


def blur(stack: np.ndarray, sigma: float) -> None:
    """Gaussian along rows and columns, up to three sigma, over repeated edges; in place."""
    width = 2 * math.ceil(3 * sigma) + 1
    for plane in stack:
        opencv().GaussianBlur(plane, (width, width), sigma, plane, borderType=opencv().BORDER_REPLICATE)
