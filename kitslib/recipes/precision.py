"""Whether a study computes in bf16 or float32: what is quicker here, timed once and kept."""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from kitslib.config import RunConfig, arm, key, read_json, write_json
from kitslib.networks import build, ready
from kitslib.training import device_name, start

TURNS = 5  # of each precision; the quickest counts
VOXELS = 300_000  # of a batch on a CPU; of a larger one a corner is timed
CORNER = 64
ERROR = 0.05  # of a bf16 convolution beside float32's, relative, beyond which bf16 is not used


def start_study(config: RunConfig) -> Accelerator:
    """Return the accelerator of a study; "auto" is the precision that is quicker here.

    The choice and its times lie in OUT/work/precision.json, so that all stages compute alike.
    """
    options: dict[str, Any] = {"device": config.device, "threads": config.threads}
    if config.precision != "auto":
        return start(precision=config.precision, **options)
    device = start(precision="no", **options).device
    return start(precision=chosen_precision(config, device)["chosen"], **options)


def chosen_precision(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """Return `chosen`, "bf16" or "no", and what was measured, once for a network and machine."""
    names = [name for name in config.arms if arm(name).dims != "3d"]
    t, form = config.tumor, arm("full" if "full" in names else (names or config.arms)[-1])
    options = form.network_options(slices=t.slices, widths=t.widths, norm=t.norm, patch=t.patch)
    channels = t.slices if form.dims == "2.5d" else 1
    shape = (t.batch, channels, *t.patch)
    if form.dims == "3d":
        shape = (t.slab_batch, 1, t.slab, *t.patch)
    if device.type == "cpu" and math.prod(shape) > VOXELS:
        shape = (1, *shape[1:-2], *(min(size, CORNER) for size in shape[-2:]))
    about = {"device": device_name(device), "torch": torch.__version__, "network": options}
    about |= {"shape": shape, "threads": config.threads}
    path, name = config.store / "precision.json", key(about)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several stages may begin at once: one of them measures
        known = read_json(path) if path.is_file() else {}
        if name not in known:
            network = ready(build(**options), device).train()
            known[name] = about | compared(network, torch.randn(shape, device=device))
            write_json(path, known)
    return known[name]


def compared(network: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """Return the seconds of a step in float32 and in bf16, bf16's error, and which is chosen."""
    device = images.device.type
    seconds = {"no": math.inf, "bf16": math.inf}
    for turn in range(TURNS + 1):
        for precision in seconds:
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                taken = timed_step(network, images)
            if turn:  # the first makes things ready
                seconds[precision] = min(seconds[precision], taken)
    error = convolution_error(images.device)
    chosen = "bf16" if seconds["bf16"] < seconds["no"] and error < ERROR else "no"
    return {
        "chosen": chosen, "float32_s": round(seconds["no"], 5), "bf16_s": round(seconds["bf16"], 5),
        "bf16_error": round(error, 5),
    }  # fmt: skip


def timed_step(network: nn.Module, images: torch.Tensor) -> float:
    """Return the seconds that a forward and a backward pass take."""
    wait: Callable[[], None] = torch.cuda.synchronize if images.is_cuda else lambda: None
    wait()
    began = time.perf_counter()
    network(images).square().mean().backward()
    network.zero_grad()
    wait()
    return time.perf_counter() - began


def convolution_error(device: torch.device) -> float:
    """Return the largest error of a 3D convolution in bf16, relative to float32's largest value.

    About 0.004 where all is well; GPU libraries have been silently wrong.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((1, 16, 8, 24, 24), generator=generator).to(device)
    weights = torch.randn((16, 16, 3, 3, 3), generator=generator).to(device)
    exact = nn.functional.conv3d(images, weights, padding=1)
    rounded = nn.functional.conv3d(images.bfloat16(), weights.bfloat16(), padding=1).float()
    return float((rounded - exact).abs().max() / exact.abs().max())
