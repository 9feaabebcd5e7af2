"""What a training shows: one line an epoch, and a bar where somebody watches."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from kitslib.config import duration_text


def progress_bar(epochs: int, steps: int, *, done: int, hidden: bool) -> tqdm:
    """Return a bar over the steps of all epochs, `done` of which are over, with the time left.

    Shown in a terminal and a Jupyter server's kernel; papermill would keep a bar frozen at 0 %.
    """
    served = "ipykernel" in sys.modules and bool(os.environ.get("JPY_SESSION_NAME"))
    off = hidden or not (served or sys.stderr.isatty())
    return tqdm(total=epochs * steps, initial=done * steps, smoothing=0, leave=False, disable=off)


def epoch_line(history: list[dict[str, Any]], epochs: int) -> str:
    """Return the last epoch in one line: loss, scores, and the time left at the mean pace."""
    entry, numbers = history[-1], ""
    for name, value in entry.items():
        if isinstance(value, float) and name not in ("lr", "seconds"):
            numbers += f"  {name} {value:.4f}"
    left = duration_text((epochs - len(history)) * np.mean([e["seconds"] for e in history]))
    return f"epoch {entry['epoch']:>3}/{epochs}{numbers}  {entry['seconds']:.1f} s, {left} left"
