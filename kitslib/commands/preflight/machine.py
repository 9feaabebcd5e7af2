"""What this machine has."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from kitslib.training import device_name


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Cores, bytes of free disk at a folder, of available and of base memory, and of the GPU (0: none is used).

    `base` is what a Python process with the study's packages holds. `held` is what the study has on disk already.
    """

    name: str
    cores: int
    disk: int
    held: int
    memory: int
    base: int
    gpu: int


def look(folder: Path, device: torch.device, cores: int) -> Machine:
    """Look at the machine: `folder` is where the study writes, `cores` how many it may use."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    gpu = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    return Machine(
        name=device_name(device),
        cores=min(cores, os.cpu_count() or 1),
        disk=shutil.disk_usage(there).free,
        held=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if folder.is_dir()
        else 0,
        memory=psutil.virtual_memory().available,
        base=psutil.Process().memory_info().rss,
        gpu=gpu,
    )
