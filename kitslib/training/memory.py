"""What a training says when memory runs out: what was asked for, and which setting to lower."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import psutil
import torch

from kitslib.config import size_text

SIGNS = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")  # CPU; CUDA; cuDNN
ASKED = re.compile(r"allocate (\d[\d.]*) ?([KMGTP]?)")  # 281474976710656 bytes, 2.00 GiB
LEAST = {"patch": 16, "slab": 8, "widths": 2, "window_slices": 4}  # what is not lowered further


def out_of_memory(error: Exception) -> bool:
    """Return whether `error` says that memory ran out: the CPU's allocator, NumPy's or a GPU's."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in SIGNS)


def explain_out_of_memory(error: Exception, device: torch.device, where: str, lower: str) -> str:
    """Return in words what `error` asked for `where`, what is free, and what to lower."""
    on_gpu = device.type == "cuda"
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else psutil.virtual_memory().available
    figures = f"{size_text(free)} free"
    if asked := ASKED.search(str(error)):
        size = float(asked[1]) * 1024 ** " KMGTP".index(asked[2] or " ")
        figures = f"{size_text(size)} asked for, {figures}"
    return f"out of memory in {where}: {figures}. Lower {lower}."


def what_to_lower(settings: Mapping[str, Any], shape: tuple[int, ...]) -> str:
    """Return a setting, named as an option names it, and half its value.

    `shape` is that of a training step's input, (B, C, H, W) or (B, C, D, H, W); (): a validation.
    """
    stage, training = settings.get("stage", "training"), settings.get("training", {})
    if shape and shape[0] > 1:
        parts = next(n for n in range(2, shape[0] + 1) if shape[0] % n == 0)
        name = "slab_batch" if len(shape) == 5 and "slab_batch" in training else "batch"
        batch, accumulate = training.get(name, shape[0]), training.get("accumulate", 1)
        more = f"raise {stage}.accumulate from {accumulate} to {accumulate * parts}"
        lower = f"{stage}.{name} from {batch} to {batch // parts}"
        return f"{lower}, or {more} (the same weights within rounding)"
    sizes = {0: ["window_slices"], 4: ["patch", "widths"]}
    for name in sizes.get(len(shape), ["patch", "slab", "widths"]):
        old = np.array(training.get(name) or 0)
        if (old // 2).min() >= LEAST[name]:
            return f"{stage}.{name} from {old.tolist()} to {(old // 2).tolist()}"
    return "the size of what the network is given at once"
