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
FINE = 128  # levels of a histogram's bin in 16 bits
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
    slices, height, width = stack.shape
    flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR)
    outside = [0.0 if nearest else float(stack.min())] * TOGETHER

    def warp(picture: np.ndarray, place: np.ndarray | None = None) -> np.ndarray:
        return cv2.warpAffine(picture, matrix, (width, height), place, flags, cv2.BORDER_CONSTANT, outside)

    for first in range(0, slices, TOGETHER):
        planes, places = stack[first : first + TOGETHER], into[first : first + TOGETHER]
        if (channels := len(planes)) > 2:  # `cv2.merge` would write past the cache what is read next
            picture = cv2.transpose(np.ascontiguousarray(planes).reshape(channels, -1))
            moved = warp(picture.reshape(height, width, channels))
            cv2.transpose(moved.reshape(-1, channels), places.reshape(channels, -1))
        else:  # places of two channels would be rounded to 1/32 of a pixel
            for plane, place in zip(planes, places, strict=True):
                warp(plane, place)


def equalise(stack: np.ndarray, strength: float, bins: int) -> None:
    """Mix in, by `strength`, the stack whose histogram above its lowest value is flat over its range; in place.

    What becomes of a value is looked up for `FINE` levels a bin, so it is rounded to that part of the range first.
    """
    cv2 = opencv()
    values = stack.reshape(len(stack), -1)
    low, high, *_ = cv2.minMaxLoc(values)
    level = cv2.normalize(values, None, 0, bins * FINE, cv2.NORM_MINMAX, cv2.CV_16U)
    # rounding gives the bin, from 1; the lowest value alone is in 0
    bin_of = cv2.convertScaleAbs(level, alpha=1 / FINE, beta=0.5 - 0.5 / FINE)
    counted = cv2.calcHist([bin_of], [0], None, [bins], [1, bins + 1]).ravel().astype(np.float64)
    rise = (1 - strength) / (bins * FINE) + strength * counted / (max(counted.sum(), 1) * FINE)
    cv2.LUT(level, _table((high - low) * np.repeat(rise, FINE), low), values)


def _table(rise: np.ndarray, low: float) -> np.ndarray:
    """The values from `low` that rise by so much from level to level, in a table for 16 bits."""
    table = np.empty(2**16, np.float32)
    table[0], table[1 : len(rise) + 1] = low, low + np.cumsum(rise)
    return table


def blur(stack: np.ndarray, sigma: float) -> None:
    """Gaussian along rows and columns, up to three sigma, over repeated edges; in place."""
    width = 2 * math.ceil(3 * sigma) + 1
    for plane in stack:
        opencv().GaussianBlur(plane, (width, width), sigma, plane, borderType=opencv().BORDER_REPLICATE)
