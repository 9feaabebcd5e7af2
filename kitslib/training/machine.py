"""Device, precision and threads of a training; the names of machine and software."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import subprocess
import sys
from datetime import timedelta
from importlib import metadata
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from kitslib.config import ROOT, forget_launcher, launched, usable_cores

PACKAGES = (
    "torch", "accelerate", "numpy", "opencv-python-headless", "scipy", "nibabel", "papermill",
)  # fmt: skip
MODEL = re.compile(r"^model name[^:\n]*:([^:\n]*)", re.MULTILINE)  # of /proc/cpuinfo
MALLOC = {-4: 0, -1: 2**31 - 1}  # malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD
BF16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # what a CPU calls its bf16 products


class DeviceError(ValueError):
    """A device or precision that this machine does not have."""


def start(*, device: str = "auto", precision: str = "auto", threads: int = 1) -> Accelerator:
    """Return the accelerator: device, mixed precision and CPU threads.

    "auto" takes a GPU where there is one, and bf16 where the hardware multiplies it itself.
    Raises DeviceError for a GPU that is not there and for fp16 on a CPU.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        # glibc reuses freed blocks of any size: mapping them anew costs a training a third
        for option, value in MALLOC.items():
            libc.mallopt(option, value)
    cpu = device == "cpu" or not torch.cuda.is_available()
    if device == "cuda" and cpu:
        raise DeviceError("device: 'cuda' needs a GPU, got no CUDA device; use 'auto' or 'cpu'")
    if precision == "fp16" and cpu:
        raise DeviceError("precision: 'fp16' needs a GPU, got a CPU; use 'bf16', 'no' or 'auto'")
    if precision == "auto":
        able = cpu_has_bf16() if cpu else torch.cuda.is_bf16_supported()
        precision = "bf16" if able else "no"
    if alone := not launched():  # several stay connected
        forget_launcher()
    AcceleratorState._reset_state(alone)  # a second start may ask for other settings
    patience = InitProcessGroupKwargs(timeout=timedelta(days=2))  # while one prepares the cases
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[patience])
    torch.set_num_threads(threads)  # last: accelerate sets a number where processes share a CPU
    return accelerator


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself; where AVX-512 emulates it, float32 is quicker."""
    if not torch.backends.mkldnn.is_available():  # such builds lack the question asked below
        return False
    able = torch.cpu.get_capabilities()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() and any(map(able.get, BF16))


def device_name(device: torch.device | str = "cpu") -> str:
    """Return the device in words, as a report states it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    model, cpuinfo = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (line := MODEL.search(cpuinfo.read_text(encoding="utf-8"))):
        model = line[1].strip()
    cores, there = usable_cores(), os.cpu_count()
    text = f"{model}, {cores} cores" if cores == there else f"{model}, {cores} of {there} cores"
    return text + ("" if cpu_has_bf16() else ", without bf16")


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {name: metadata.version(name) for name in PACKAGES}


def commit() -> str | None:
    """Return the git commit of the project, `+` added where files differ.

    None outside git, and where the repository around the package is another project's.
    """
    top = _git("rev-parse", "--show-toplevel")
    tracked = _git("ls-files", "--error-unmatch", "kitslib/__init__.py")
    if top is None or tracked is None or Path(top).resolve() != ROOT.resolve():
        return None
    return _git("describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+")


def _git(*words: str) -> str | None:
    """What git says of the project's folder, whatever a hook that called us set; None: nothing."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    options = {"cwd": ROOT, "env": own, "capture_output": True, "text": True, "check": True}
    try:
        return subprocess.run(["git", *words], **options).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
