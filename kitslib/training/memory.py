"""Which setting to lower, and to what, when memory ran out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch

SIGNS = (
    "can't allocate memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
)  # CPU allocator; CUDA; cuDNN and cuBLAS
ASKED = re.compile(
    r"[Tt]ried to allocate ([\d.]+) ?(bytes|[KMGTP]iB)|Unable to allocate ([\d.]+) (bytes|[KMGTP]iB)"
)
UNITS = {"bytes": 1, **{f"{letter}iB": 1024 ** (i + 1) for i, letter in enumerate("KMGTP")}}
STEP = 0.75  # a size is lowered to at most this share of itself: less seldom helps


@dataclass(frozen=True)
class Shortage:
    """Bytes that were held, that were asked for on top (0: not known), and that there are in all."""

    held: int
    asked: int
    there: int

    @property
    def fits(self) -> float:
        """The share of the need that there is room for, at most 1; the need is known only up to the failed request."""
        return min(1.0, self.there / max(self.held + self.asked, 1))

    def __str__(self) -> str:
        asked = f", {_size(self.asked)} more asked for" if self.asked else ""
        return f"{_size(self.held)} held{asked}, {_size(self.there)} there"


def ran_out(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, be it of the CPU's allocator, NumPy's, or a GPU's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def shortage(error: BaseException, device: torch.device) -> Shortage:
    """Return the figures at the moment of `error`: those of the device, and what its message says was asked for."""
    found = ASKED.search(str(error))
    number, unit = [part for part in found.groups() if part] if found else ("0", "bytes")
    asked = int(float(number) * UNITS[unit])
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return Shortage(
            torch.cuda.memory_allocated(device), asked, free + torch.cuda.memory_reserved(device)
        )
    held = psutil.Process().memory_info().rss
    return Shortage(held, asked, held + psutil.virtual_memory().available)


def what_to_lower(
    settings: Mapping[str, Any], shape: tuple[int, ...], *, fits: float, accumulate: int = 1
) -> str:
    """Return the settings of a training to lower, from what to what, so that at most `fits` of the memory is needed.

    `shape` is that of the input that did not fit, (B, C, H, W) or (B, C, D, H, W); () where it is not known yet.
    Names are those of `settings["training"]` after the stage's, as an option takes them: `kidney.batch`.
    """
    training = settings.get("training", {})
    prefix = f"{settings['stage']}." if "stage" in settings else ""
    deep = len(shape) != 4
    held = shape[0] if shape else training.get("batch", 1)  # samples at once
    if held == 1:
        return _smaller_sample(training, prefix, fits=fits, deep=deep)
    kept = max(1, min(held // 2, int(held * fits)))
    batch = training.get("batch", held * accumulate)
    shares = [
        n
        for n in range(accumulate + 1, batch + 1)
        if batch % n == 0 and n * kept >= held * accumulate
    ]
    fewer = (
        f"{prefix}batch from {batch} to {max(1, batch * kept // held)} (or raise accumulate from {accumulate} to"
        f" {shares[0] if shares else batch}: the same batch in parts, the same weights within rounding)"
    )
    one_fits = held * fits >= 1
    smaller = _smaller_sample(training, prefix, fits=fits if one_fits else held * fits, deep=deep)
    return f"{fewer}, {'or' if one_fits else 'and'} {smaller}"


def window_to_lower(settings: Mapping[str, Any], *, fits: float) -> str:
    """Return what to lower where memory ran out in a validation: the slices that the network sees at once."""
    training = settings.get("training", {})
    if "window_slices" not in training:
        return "what the validation gives the network at once"
    old = training["window_slices"]
    prefix = f"{settings['stage']}." if "stage" in settings else ""
    return f"{prefix}window_slices from {old} to {max(4, int(old * min(STEP, fits)) // 4 * 4)}"


def _smaller_sample(training: Mapping[str, Any], prefix: str, *, fits: float, deep: bool) -> str:
    """The patch, slab or network to lower so that one sample needs at most `fits` of what it does."""
    share = min(STEP, fits)
    old = tuple(training.get("patch", ()))
    new = tuple(
        max(16, int(side * share**0.5) // 16 * 16) for side in old
    )  # two sides share the cut
    if new < old:
        return f"{prefix}patch from {old} to {new}"
    if deep and training.get("slab", 0) > 8:
        return f"{prefix}slab from {training['slab']} to {max(8, int(training['slab'] * share) // 8 * 8)}"
    if "widths" in training:
        old = tuple(training["widths"])
        return f"{prefix}widths from {old} to {tuple(max(1, width // 2) for width in old)}"
    return "the network's widths to half"


def _size(count: int) -> str:
    unit = next((u for u in ("TiB", "GiB", "MiB") if count >= UNITS[u]), "KiB")
    return f"{count / UNITS[unit]:.1f} {unit}"
