"""The study from outside: called, measured, killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from kitslib.config import ROOT, code_key, key, notebook_key

RUN_ALL = ["bash", str(ROOT / "run_all.sh")]
MARK = "KITS_STUDY_CALL"  # in the environment of every process of a call


class StudyError(RuntimeError):
    """A study that failed; its log says why."""


@dataclass(frozen=True)
class Usage:
    """What a command took: wall and processor seconds, and MB of its largest process."""

    wall_s: float
    processor_s: float
    peak_mb: float


class Watch(threading.Thread):
    """Notes the most memory (GB) and processor time (s) of all processes below.

    Pages that several processes share count once, where the system tells (PSS).
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.busy, self.over = 0.0, 0.0, threading.Event()

    def run(self) -> None:
        took = 0.0  # a look at many processes is dear: it takes a 20th of a core at most
        while not self.over.wait(max(0.3, 19 * took)):
            total, busy, began = 0, 0.0, time.thread_time()
            for child in psutil.Process().children(recursive=True):
                try:
                    used = child.memory_full_info()
                    total += getattr(used, "pss", used.rss)
                    busy += sum(child.cpu_times()[:2])
                except psutil.Error:  # has ended
                    continue
            self.peak, self.busy = max(self.peak, total / 1e9), max(self.busy, busy)
            took = time.thread_time() - began


class Call:
    """A command at work with all processes that it starts; what they print is added to `log`.

    `environment` is added to this process's.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.mark, self.log, self.began = uuid.uuid4().hex, log, time.perf_counter()
        environment = {**os.environ, **(environment or {}), MARK: self.mark}
        if sys.prefix != sys.base_prefix:
            environment["VIRTUAL_ENV"] = sys.prefix
        with log.open("a", encoding="utf-8") as out:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """Return every living process of the call, also those whose parent is gone."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
            except (psutil.Error, OSError):  # has ended, or is another user's
                continue
        return found

    def ends_within(self, seconds: float) -> bool:
        """Whether the call ends before so many seconds after its start are over."""
        try:
            self.process.wait(max(0.0, self.began + seconds - time.perf_counter()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> list[str]:
        """Kill every process of the call with SIGKILL; return what they were doing."""
        found = self.processes()
        doing = at_work(_command_lines(found))
        while found:
            for process in found:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            self.process.poll()
            found = self.processes()
        self.process.wait()
        return doing

    def age(self) -> float:
        """Return the seconds since its start."""
        return time.perf_counter() - self.began

    def usage(self) -> Usage:
        """Wait for the end and return what the call took; raises StudyError where it failed."""
        _, status, used = os.wait4(self.process.pid, 0)
        wall = self.age()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode:
            words = " ".join(map(str, self.process.args))
            raise StudyError(f"{words}: exit status {self.process.returncode}; see {self.log}")
        unit = 1e6 if sys.platform == "darwin" else 1e3  # counted in bytes there, in kB elsewhere
        return Usage(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / unit)


def study(out: Path, *words: str, log: Path) -> Call:
    """Start the smoke study with its results in `out`."""
    return Call([*RUN_ALL, "--profile", "smoke", "--out", str(out), *words], log)


def study_key() -> str:
    """Return 16 hex digits that change with all that makes a study."""
    notebooks = [notebook_key(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    engine = [(ROOT / name).read_text(encoding="utf-8") for name in ("run_all.sh", "Snakefile")]
    return key(notebooks, engine, code_key("commands"))


def at_work(command_lines: Sequence[Sequence[str]]) -> list[str]:
    """Return what a study's processes are doing: stages, pages, or what comes before them."""
    doing = set()
    for words in command_lines:
        names = [Path(word).name for word in words[:4]]
        if "papermill" in names:
            doing.add(Path(words[names.index("papermill") + 2]).stem)
        elif "kitslib" in names and "--index" in words:
            doing.add("index")
        elif "kitslib" in names and "report" in names:
            doing.add(f"page {Path(words[-1]).stem}")
        elif "kitslib" in names:
            doing.add(words[names.index("kitslib") + 1])
        elif "snakemake" in names and not doing:
            doing.add("Snakemake")
    return sorted(doing - {"Snakemake"}) or sorted(doing) or ["set-up"]


def _command_lines(processes: Sequence[psutil.Process]) -> list[list[str]]:
    found = []
    for process in processes:
        try:
            found.append(process.cmdline())
        except psutil.Error:
            continue
    return found
