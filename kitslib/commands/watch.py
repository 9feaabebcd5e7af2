"""What a study shows while it runs: lines where it was called, and its unfinished index page."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from threading import Event, Thread

from kitslib.commands.report import page_of
from kitslib.config import RunConfig, duration_text, read_json, write_text
from kitslib.reporting import index_html

# what the Snakefile writes into a stage's log first and last, and a training between
BEGAN, ENDED = re.compile(r"began (\d+)\n"), re.compile(r"\n(done in|FAILED after) (\d+) s\n\Z")
EPOCH = re.compile(r"^epoch +(\d+)/(\d+) .*  ([\d.]+) s, .* left$", re.MULTILINE)
RELOAD = 10  # seconds after which the index page is written anew


@dataclass
class Stage:
    """A stage, or the whole: seconds expected, at work and left."""

    name: str
    expected: float
    state: str = "waiting"  # running, done, failed
    seconds: float = 0.0
    left: float = 0.0
    reached: str = ""  # "epoch 3/20, "
    to_come: float | None = None  # seconds of the epochs that are left
    dice: float | None = None  # mean of the cases it scored
    title: str = ""  # on the index page
    href: str = ""  # its page, once there is one

    def read(self, text: str, age: float) -> None:
        """Take all but the seconds left from a log, whose last line is `age` seconds old."""
        began, ended, epochs = BEGAN.match(text), ENDED.search(text), EPOCH.findall(text)
        self.state, self.reached, self.to_come = "running", "", None
        self.seconds = max(time.time() - int(began[1]), 0.0) if began else 0.0
        if ended:
            self.state = {"done in": "done", "FAILED after": "failed"}[ended[1]]
            self.seconds = float(ended[2])
        elif epochs:
            last, count, seconds = epochs[-1]
            self.reached = f"epoch {last}/{count}, "
            self.to_come = (int(count) - int(last)) * float(seconds) - age

    @property
    def share(self) -> float:
        """The share that is done, 0 to 1."""
        return self.seconds / max(self.seconds + self.left, 1.0)

    @property
    def words(self) -> str:
        """What it took, or the time left, no more exact than it is."""
        if self.state != "running":
            return duration_text(self.seconds) if self.seconds else ""
        time_left = f"{self.left / 3600:.1f} h"
        if self.left < 90:
            time_left = f"{max(round(self.left, -1), 10):.0f} s"
        elif self.left < 5400:
            time_left = f"{self.left / 60:.0f} min"
        return f"{self.reached}about {time_left} left"


class Watch(Thread):
    """Reads the logs of a study's stages every second and shows how far they are.

    names: the stages in order, of which the first and the last two run alone. todo: those to be
    made now, here or on machines that share the study's folder. `file` is preflight's estimate.
    """

    def __init__(
        self, config: RunConfig, names: Sequence[str], todo: Collection[str], file: Path
    ) -> None:
        super().__init__(daemon=True)
        estimate = read_json(file)["estimate"]
        costs = [cost["seconds"] for cost in estimate["costs"]]
        costs += [estimate["seconds"] / len(costs)] * len(names)  # where code has added stages
        self.stages = [Stage(*stage) for stage in zip(names, costs, strict=False)]
        first, *between, tables, verdict = costs[: len(names)]
        self.at_a_time = max(sum(between) / (estimate["seconds"] - first - tables - verdict), 1.0)
        self.whole, self.config = Stage("the whole", 0.0, "running"), config
        self.over, self.began, self.written, self.drawn = Event(), time.time(), 0.0, 0
        for stage in self.stages:
            if stage.name not in todo:
                self.read(stage)
                stage.state = "done"
        self.todo = [stage for stage in self.stages if stage.name in todo]
        (config.reports / "summary.json").unlink(missing_ok=True)  # the engine makes it at the end
        self.estimate()
        self.write_page()
        self.since = (config.reports / "index.html").stat().st_mtime  # older logs are of old calls

    def run(self) -> None:
        """Look until `stop`; what cannot be read or written now is at the next look."""
        while not self.over.wait(1.0):
            with suppress(OSError, ValueError):
                self.look()

    def stop(self) -> None:
        """Look for the last time: nothing runs any more."""
        self.over.set()
        self.join()
        with suppress(OSError, ValueError):
            self.look()

    def look(self) -> None:
        """Read the logs; show what is new."""
        news = [s for s in self.todo if s.state != "done" and self.read(s, self.since)]
        self.estimate()
        self.show(news)
        if news or self.over.is_set() or time.time() - self.written > RELOAD:
            self.write_page()

    def read(self, stage: Stage, since: float = 0.0) -> bool:
        """Read a stage's log, if one was written after `since`; return whether its state is new."""
        log, before = self.config.work / "logs" / f"{stage.name}.log", stage.state
        if log.is_file() and (written := log.stat().st_mtime) >= since:
            stage.read(log.read_text(errors="replace"), max(time.time() - written, 0.0))
        return stage.state != before

    def estimate(self) -> None:
        """Set the seconds left, by epochs and at the pace of the stages that are done."""
        overhead = self.stages[-2].expected * self.pace(self.stages[-2])  # of any notebook
        for stage in self.stages:
            stage.left = 0.0
            if stage.state in ("waiting", "running"):
                stage.left = stage.expected * self.pace(stage) - stage.seconds
                if stage.to_come is not None:
                    stage.left = stage.to_come + overhead
                stage.left = max(stage.left, stage.seconds / 20)
        first, *between, tables, verdict = [stage.left for stage in self.stages]
        self.whole.left = first + max(sum(between) / self.at_a_time, *between) + tables + verdict
        self.whole.seconds = time.time() - self.began
        done = sum(stage.state == "done" for stage in self.stages)
        self.whole.reached = f"{done} of {len(self.stages)} stages, "

    def pace(self, stage: Stage) -> float:
        """How many times the expected seconds stages took: those of its notebook, else all."""
        ended = [other for other in self.stages if other.state == "done" and other.seconds]
        ended = [other for other in ended if other.name[:2] == stage.name[:2]] or ended
        took = sum(other.seconds for other in ended)
        return took / sum(other.expected for other in ended) if ended else 1.0

    def show(self, news: Sequence[Stage]) -> None:
        """Print a line for each stage that ended, and in a terminal a bar for each at work."""
        in_terminal, work = sys.stdout.isatty(), self.config.work
        if self.drawn:
            print(f"\033[{self.drawn}F\033[J", end="", flush=True)
        for stage in news:
            if stage.state == "done":
                words = "" if in_terminal else f"; {self.whole.words}"
                print(f"{stage.name}: done in {stage.words}{words}", flush=True)
            elif stage.state == "failed":
                files = f"{work}/notebooks/{stage.name}.ipynb {work}/logs/{stage.name}.log"
                line = f"{stage.name}: FAILED after {stage.words}; see {files}"
                print(line, file=sys.stderr, flush=True)
        lines = []
        if in_terminal and not self.over.is_set():
            columns, rows = shutil.get_terminal_size()
            running = [stage for stage in self.todo if stage.state == "running"]
            for s in (*running[: rows - 3], self.whole):
                bar = f"[{'#' * round(12 * s.share):.<12}] {s.share:4.0%}"
                lines.append(f"{s.name:24.24} {bar}  {s.words}"[: columns - 1])
            print(*lines, sep="\n", flush=True)
        self.drawn = len(lines)

    def write_page(self) -> None:
        """Write the index page of an unfinished study; the engine writes a finished one's."""
        config = self.config
        for stage in self.stages:
            record, page = config.work / "records" / f"{stage.name}.json", page_of(stage.name)
            if stage.state == "done" and stage.dice is None and stage.name[:2] in ("02", "03"):
                scores = [case.get("dice") for case in read_json(record).get("rows", [])]
                scores = [dice for dice in scores if dice is not None]
                stage.dice = fmean(scores) if scores else None
            there = stage.state == "done" and (config.reports / page.href).is_file()
            stage.title, stage.href = page.title, page.href if there else ""
        if all(stage.state == "done" for stage in self.stages):
            return
        self.written = time.time()
        kidney = next(stage.dice for stage in self.stages if stage.name == "02_kidney")
        summary = {"profile": config.profile, "synthetic": config.synthetic, "commit": None}
        summary |= {"wall_s": None, "kidney": {"dice": kidney}, "tumor": {}, "cascade": {}}
        summary |= {"claims": [], "untrained": config.untrained}
        write_text(config.reports / "index.html", index_html(summary, [], progress=self))
