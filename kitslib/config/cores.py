"""How many cores a process may use, and whether it is one of several that train together."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SIZES = ("LOCAL_WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def launched() -> bool:
    """Whether a launcher started this process as one of several that train together."""
    given = {name: os.environ.get(name, "") for name in LAUNCHER}
    return all(given.values()) and given["WORLD_SIZE"] not in ("0", "1")


def forget_launcher() -> None:
    """Have this process compute alone: what others left in its environment would make it wait."""
    for name in (*LAUNCHER, *SIZES):
        os.environ.pop(name, None)


def usable_cores() -> int:
    """Return the cores that affinity and control groups leave to this process, at least 1."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on a Mac
        cores = min(cores, len(os.sched_getaffinity(0)))
    return max(1, min([cores, *quotas(CGROUPS, Path("/proc/self/cgroup"))]))


def quotas(root: Path, groups: Path) -> Iterator[int]:
    """Yield the whole cores that each control group around this process may use at most.

    groups: the process's /proc/self/cgroup. Reads `cpu.max` of version 2 and `cpu.cfs_quota_us`
    of version 1, of a group and of all above it; in a container the root is its own group.
    """
    text = ""
    with suppress(OSError):
        text = groups.read_text(encoding="utf-8")
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        if names and "cpu" not in names.split(","):
            continue
        for place in (root, root / names, root / "cpu"):
            inner = place / path.strip("/")
            for folder in (inner, *inner.parents):
                if folder.is_relative_to(place):
                    yield from _quota(folder)


def _quota(folder: Path) -> Iterator[int]:
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # no such file; "max 100000"
            words = " ".join((folder / name).read_text(encoding="utf-8") for name in files)
            quota, period = map(int, words.split())
            if quota > 0 and period > 0:
                yield math.ceil(quota / period)
