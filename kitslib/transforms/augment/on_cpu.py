"""What is done to one sample on a CPU, by OpenCV: there several times as quick as torch.

Stacks are contiguous arrays (K, H, W), images float32 and labels of one of `DTYPES`.
"""

from __future__ import annotations

import functools
import math
import threading
from types import ModuleType

import numpy as np
import torch

DTYPES = (torch.uint8, torch.float32)  # others are rounded to another neighbour by OpenCV
FINE = 128  # levels of a histogram's bin in 16 bits
APART = 16  # values that are counted in turns
STEPS = np.arange(1, FINE + 1, dtype=np.float32)
TOGETHER = 4  # slices that OpenCV moves for little more than the price of one

_of_thread = threading.local()


@functools.cache
def opencv() -> ModuleType:
    """The package, imported when first needed, without its threads: each of ours has a sample."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def mirror(stack: np.ndarray, axes: tuple[int, ...], *, into: np.ndarray) -> None:
    """`stack` reversed along `axes`, which are (), the columns (2,) or all three."""
    if not axes:
        np.copyto(into, stack)
        return
    planes, code = (stack[::-1], -1) if 0 in axes else (stack, 1)
    for plane, place in zip(planes, into, strict=True):
        opencv().flip(plane, code, place)


def move(stack: np.ndarray, matrix: np.ndarray, *, nearest: bool, into: np.ndarray) -> None:
    """Each pixel (x, y, 1) from where `matrix` (2, 3) says; outside is the lowest value, or 0."""
    cv2 = opencv()
    slices, height, width = stack.shape
    reading, low = cv2.INTER_NEAREST, 0.0
    if not nearest:
        reading, low = cv2.INTER_LINEAR, float(stack.min())
    how = (cv2.WARP_INVERSE_MAP | reading, cv2.BORDER_CONSTANT, [low] * TOGETHER)

    def warp(picture: np.ndarray, place: np.ndarray) -> None:
        cv2.warpAffine(picture, matrix, (width, height), place, *how)

    for first in range(0, slices, TOGETHER):
        planes, places = stack[first : first + TOGETHER], into[first : first + TOGETHER]
        channels = len(planes)
        if channels > 2:  # `cv2.merge` would write past the cache what is read next
            picture = _scratch("picture", (height, width, channels), stack.dtype)
            moved = _scratch("moved", (height, width, channels), stack.dtype)
            flat = np.ascontiguousarray(planes).reshape(channels, -1)
            cv2.transpose(flat, picture.reshape(-1, channels))
            warp(picture, moved)
            cv2.transpose(moved.reshape(-1, channels), places.reshape(channels, -1))
        else:  # places of two channels would be rounded to 1/32 of a pixel
            for plane, place in zip(planes, places, strict=True):
                warp(plane, place)


def _scratch(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that its thread uses again and again, so that its memory stays in the cache."""
    array = getattr(_of_thread, name, None)
    if array is None or (array.shape, array.dtype) != (shape, dtype):
        array = np.empty(shape, dtype)
        setattr(_of_thread, name, array)
    return array


def equalise(stack: np.ndarray, strength: float, bins: int) -> None:
    """Mix in, by `strength`, the stack with a flat histogram above its lowest value; in place.

    The result is looked up for `FINE` levels a bin, so values are rounded to these first.
    """
    cv2 = opencv()
    values = stack.reshape(len(stack), -1)
    low, high, *_ = cv2.minMaxLoc(values)
    level = cv2.normalize(values, None, 0, bins * FINE, cv2.NORM_MINMAX, cv2.CV_16U)
    # rounding gives the bin, from 1; the lowest value alone is in 0
    bin_of = cv2.convertScaleAbs(level, alpha=1 / FINE, beta=0.5 - 0.5 / FINE)
    # neighbours are often in one bin, and a count waits for the one before in the same bin
    apart = cv2.transpose(bin_of.reshape(math.gcd(bin_of.size, APART), -1))
    counted = cv2.calcHist([apart], [0], None, [bins], [1, bins + 1]).ravel().astype(np.float64)
    # of the range, over a bin
    share = counted * (strength / max(counted.sum(), 1)) + (1 - strength) / bins
    begin, rise = low + (high - low) * (np.cumsum(share) - share), (high - low) / FINE * share
    table = np.empty(2**16, np.float32)
    table[0], filled = low, table[1 : bins * FINE + 1].reshape(bins, FINE)
    np.multiply.outer(rise.astype(np.float32), STEPS, out=filled)
    filled += begin.astype(np.float32)[:, None]
    cv2.LUT(level, table, values)


def blur(stack: np.ndarray, sigma: float) -> None:
    """Gaussian along rows and columns, up to three sigma, over repeated edges; in place."""
    cv2, width = opencv(), 2 * math.ceil(3 * sigma) + 1
    for plane in stack:
        cv2.GaussianBlur(plane, (width, width), sigma, plane, borderType=cv2.BORDER_REPLICATE)
