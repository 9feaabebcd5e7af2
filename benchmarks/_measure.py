"""What the jobs share: interleaved timing, conditions, tables as Markdown and JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import resource
import shlex
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from kitslib.config import ROOT

INSTALL = "pip install -r benchmarks/requirements.txt"
CLOCK_HELP = "of all times; processor time suits one thread beside other programs (%(default)s)"
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Cell = str | int | float | None


@dataclass(frozen=True)
class Timing:
    """Seconds of one job: the median of its repeats and the quartiles around it."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Summarise repeated measurements, at least one."""
        if len(seconds) == 1:
            return cls(seconds[0], seconds[0], seconds[0], 1)
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, low, high, len(seconds))


def now(clock: str) -> float:
    """Seconds on one of the clocks, after all that a GPU was given is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return CLOCKS[clock]()


def timed(job: Callable[[], Any], clock: str = "wall") -> Callable[[], float]:
    """A job that does what `job` does and returns how many seconds it took."""

    def measure() -> float:
        start = now(clock)
        job()
        return now(clock) - start

    return measure


def device() -> str:
    """The GPU where there is one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def wrap(owner: Any, name: str, part: str, seconds: dict[str, float]) -> None:
    """Make a function of a module or class add what each call of it takes to `seconds[part]`."""
    inner = getattr(owner, name)

    def outer(*given: Any, **named: Any) -> Any:
        start = now("wall")
        try:
            return inner(*given, **named)
        finally:
            seconds[part] = seconds.get(part, 0.0) + now("wall") - start

    setattr(owner, name, outer)


def interleave(jobs: dict[str, Callable[[], float]], repeats: int) -> dict[str, Timing]:
    """Run the jobs in turns, each starting with another job; the first turn is not counted.

    A job returns its own seconds. What else the machine does meets all jobs alike, so that ratios
    of their medians hold where single times do not.
    """
    names = list(jobs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            taken = jobs[name]()
            if turn:
                seconds[name].append(taken)
    return {name: Timing.of(values) for name, values in seconds.items()}


def process() -> Executor:
    """A process for what is submitted to it, free of what other contenders set in theirs."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


Sizes = dict[str, tuple[int, int]]  # parameters and multiply-adds a sample, by contender
STEPS: dict[str, Callable[[], float]] = {}  # of this process's contenders: take one, return seconds


def both_sides(prepare: Callable[[bool], Sizes], repeats: int) -> tuple[dict[str, Timing], Sizes]:
    """Time the steps of ours and of the peers in turns, each side in a process of its own.

    prepare(mine), called there, puts the side's steps into STEPS and returns their sizes.
    """
    jobs, sizes = {}, {}
    with ExitStack() as stack:
        for mine in (True, False):
            worker = stack.enter_context(process())
            found = worker.submit(prepare, mine).result()
            for name in found:
                jobs[name] = partial(_step_of, worker, name)
            sizes |= found
        return interleave(jobs, repeats), sizes


def _step_of(worker: Executor, name: str) -> float:
    return worker.submit(_step, name).result()


def _step(name: str) -> float:
    return STEPS[name]()


def installed(module: str) -> bool:
    """Whether a peer's package can be imported."""
    return importlib.util.find_spec(module) is not None


def peak_gb() -> float:
    """This process's largest resident size so far in GB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it started this process
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS counts bytes


def available_gb() -> float:
    """Memory that a new process can have, in GB; infinite where the system does not say."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return float("inf")
    line = next(text for text in info.read_text().splitlines() if text.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024 / 1e9


def conditions(threads: int, repeats: int, *packages: str, clock: str = "wall") -> dict[str, str]:
    """Where and how was measured: processor, load, clock, versions, repeats."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")]
    versions = [f"{name} {_version(name)}" for name in ("torch", *packages)]
    processor = [*names, platform.processor() or platform.machine()][0]
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": str(threads),
        "load when started": f"{os.getloadavg()[0]:.1f} processes running (1 minute average)",
        "clock": f"{clock} time",
        "versions": f"Python {platform.python_version()}, {', '.join(versions)}",
        "repeats": f"{repeats} of each, in turns, after one not counted; median [quartiles]",
    }


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under one heading; a column's unit stands in its name."""

    title: str
    note: str
    rows: list[dict[str, Cell]]

    def text(self) -> str:
        """The table in Markdown, columns aligned."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [names, *([_written(row.get(name)) for name in names] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
        lines.insert(1, ["-" * width for width in widths])
        body = [
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            + " |"
            for line in lines
        ]
        return "\n".join([f"## {self.title}", "", self.note, "", *body, ""])


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a job found: conditions, tables, and each bound with the number measured."""

    name: str
    question: str
    command: str
    conditions: dict[str, str]
    tables: list[Table]
    bounds: list[str]
    picture: str = ""  # file beside the page

    def text(self) -> str:
        """The page in Markdown."""
        head = [f"# {self.name}", "", self.question, "", f"Written by `{self.command}`.", ""]
        facts = [f"- {name}: {value}" for name, value in self.conditions.items()]
        bounds = [f"- {bound}" for bound in self.bounds]
        return "\n".join(
            [
                *head,
                *bounds,
                "",
                *([f"![{self.question}]({self.picture})", ""] if self.picture else []),
                *(table.text() for table in self.tables),
                "## Conditions",
                "",
                *facts,
                "",
            ]
        )

    def publish(self, folder: Path | None) -> None:
        """Print the page; with a folder, write it there as `<name>.md` and `<name>.json`."""
        print(self.text(), flush=True)
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.md").write_text(self.text(), encoding="utf-8")
        tables = [{"title": t.title, "note": t.note, "rows": t.rows} for t in self.tables]
        content = {
            "name": self.name,
            "conditions": self.conditions,
            "bounds": self.bounds,
            "tables": tables,
        }
        (folder / f"{self.name}.json").write_text(
            json.dumps(content, indent=1) + "\n", encoding="utf-8"
        )


def spread(timing: Timing, scale: float = 1e3) -> str:
    """Median and quartiles of a timing, in ms unless `scale` says otherwise."""
    return f"{timing.median * scale:.4g} [{timing.low * scale:.4g}, {timing.high * scale:.4g}]"


def missing(name: str, column: str) -> dict[str, Cell]:
    """The row of a peer that is not installed."""
    return {column: name, "remark": f"not installed: {INSTALL}"}


def judged(
    what: str, number: float | None, bound: float, unit: str = "times",
    *, at: Literal["least", "most"] = "least",
) -> str:  # fmt: skip
    """A bound and the number that meets or misses it."""
    if number is None:
        return f"{what}: at {at} {bound:g} {unit} asked; not measured, a peer is missing"
    met = number >= bound if at == "least" else number <= bound
    verdict = "met" if met else "missed"
    return f"{what}: {number:.2f} {unit}, at {at} {bound:g} asked: {verdict}"


def shared_option(reader: argparse.ArgumentParser, holds: str) -> None:
    """Add --shared, the folder that `holds` says."""
    shared = Path(os.environ.get("KITS_SHARED", ROOT.parent / "shared"))
    reader.add_argument("--shared", type=Path, default=shared, help=f"folder with {holds}")


def parser(name: str, doc: str | None, *, threads: int, repeats: int) -> argparse.ArgumentParser:
    """The options that every job has."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=doc)
    made.add_argument(
        "--threads", type=int, default=threads, help="CPU threads of every contender (%(default)s)"
    )
    made.add_argument(
        "--repeats", type=int, default=repeats, help="measurements of each (%(default)s)"
    )
    made.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help=CLOCK_HELP)
    made.add_argument(
        "--out",
        type=Path,
        help="folder for NAME.md and NAME.json; without it they are only printed",
    )
    return made


def command(name: str, arguments: Sequence[str]) -> str:
    """What wrote a report, as it was typed; of paths of this machine what others have too."""
    return shlex.join(["python", "-m", "benchmarks", name, *map(_anywhere, arguments)])


def _anywhere(word: str) -> str:
    """An absolute path from the project's folder, or its name where it lies elsewhere."""
    path = Path(word)
    if not path.is_absolute():
        return word
    inside = path.is_relative_to(ROOT.parent)
    return os.path.relpath(path, ROOT) if inside else path.name


def _version(module: str) -> str:
    """The version of the package that a module comes from."""
    if not installed(module):
        return "not installed"
    names = importlib.metadata.packages_distributions()[module]
    return importlib.metadata.version(names[0])


def _written(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
