"""The next batches, made ready while a step is at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")
AHEAD = 2  # batches that wait, at most


def made_ahead(make: Callable[[int], Made], count: int) -> Iterator[Made]:
    """Yield `make(0)` to `make(count - 1)` in order; a thread makes the next ones meanwhile.

    An error of `make` is raised where its result would have come. What `make` gives may depend on
    its argument alone: the same as without a thread.
    """
    pool = ThreadPoolExecutor(1, "loader")
    try:
        waiting = deque(pool.submit(make, index) for index in range(min(AHEAD, count)))
        for index in range(count):
            yield waiting.popleft().result()
            if index + AHEAD < count:
                waiting.append(pool.submit(make, index + AHEAD))
    finally:
        pool.shutdown(cancel_futures=True)


def on_device(batch: Any, device: torch.device) -> Any:
    """Return a batch (a dataclass with `images` and `labels`) with these on the device.

    They travel as they lie in the cache, int16 and uint8, a quarter of float32's bytes.
    """
    if device.type == "cpu":
        return batch
    images, labels = (moved(tensor, device) for tensor in (batch.images, batch.labels))
    return replace(batch, images=images, labels=labels)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; only from pinned memory does a GPU copy while it computes."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
