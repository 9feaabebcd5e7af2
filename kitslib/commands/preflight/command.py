"""`preflight`: whether a study fits this machine, and how long it will take."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kitslib.commands.line import command, positive, write_text

if TYPE_CHECKING:
    from kitslib.commands.preflight.costs import Estimate
    from kitslib.commands.preflight.machine import Machine
    from kitslib.commands.preflight.sizes import Sizes

PROFILES = ("smoke", "demo", "release", "paper")


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command's words."""
    made = command(
        commands,
        "preflight",
        run,
        "Reads headers and times a few operations. Exit status 1 when it does not fit.",
    )
    made.add_argument(
        "data",
        type=Path,
        nargs="?",
        metavar="DATA",
        help="folder of a KiTS cohort (default: synthetic)",
    )
    made.add_argument("--profile", choices=PROFILES, default="demo", help="default: demo")
    made.add_argument(
        "--out", type=Path, metavar="DIR", help="where the study will write (default: reports)"
    )
    made.add_argument(
        "--jobs", type=positive, default=os.cpu_count() or 1, metavar="N", help="stages at a time"
    )
    made.add_argument(
        "--hours", type=float, metavar="H", help="the time there is: more does not fit"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the estimate as JSON")


def run(args: argparse.Namespace) -> int:
    """Estimate the disk, memory, GPU memory and time of every stage of a study on this machine."""
    from kitslib.commands.preflight.costs import estimate
    from kitslib.commands.preflight.machine import look
    from kitslib.commands.preflight.sizes import cohort_sizes
    from kitslib.commands.preflight.timing import time_here
    from kitslib.config import configure
    from kitslib.training import start

    data, out = (str(path.absolute()) if path else "" for path in (args.data, args.out))
    config = configure(profile=args.profile, data=data, out=out)
    accelerator = start(device=config.device, precision=config.precision)
    starting = time.process_time()
    sizes = cohort_sizes(config)
    machine = look(config.work, accelerator.device, args.jobs)
    speed = time_here(config, sizes, accelerator, start=starting)
    found = estimate(
        config, sizes, speed, machine, jobs=min(args.jobs, machine.cores), hours=args.hours
    )
    print(words(found, sizes, machine, args.profile))
    if args.json:
        parts = {"estimate": found, "machine": machine, "speed": speed}
        write_text(
            args.json,
            json.dumps({name: asdict(part) for name, part in parts.items()}, indent=1) + "\n",
        )
    return 1 if found.problems else 0


def words(found: Estimate, sizes: Sizes, machine: Machine, profile: str) -> str:
    """Return the estimate as a table, what the machine has under it, and the verdict."""
    from kitslib.commands.preflight.costs import size

    lines = [["stage", "time", "disk", "memory", "GPU memory", ""]]
    rows = [(cost, found.costs.count(cost)) for cost in dict.fromkeys(found.costs)]
    for cost, times in rows:
        gpu = size(cost.gpu) if cost.gpu else "–"
        what = f"{times} × {cost.what}" if times > 1 else cost.what
        lines.append(
            [cost.stage, duration(cost.seconds), size(cost.disk), size(cost.memory), gpu, what]
        )
    gpu = size(found.gpu) if found.gpu else "–"
    lines.append(
        ["the whole", duration(found.seconds), size(found.disk), size(found.memory), gpu, ""]
    )
    there = size(machine.gpu) if machine.gpu else "none"
    lines.append(
        [
            "this machine",
            "",
            f"{size(machine.disk)} free",
            size(machine.memory),
            there,
            machine.name,
        ]
    )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for first, *numbers, last in lines:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:5], strict=True)]
        text.append("  ".join([first.ljust(widths[0]), *cells, last]))
    if machine.held:
        text.append(f"{size(machine.held)} of it is on disk already.")
    if sizes.unreadable:
        text.append(f"left out, since their headers cannot be read: {', '.join(sizes.unreadable)}")
    text.append("Times are those of a machine that does nothing else.")
    text += [f"does not fit: {problem}" for problem in found.problems]
    text += [] if found.problems else [f"The profile {profile} fits this machine."]
    return "\n".join(line.rstrip() for line in text)


def duration(seconds: float) -> str:
    """Return a time that may be long in words: 42 s, 12 min, 5.3 h, 21 days."""
    for unit, length, digits in (("days", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
