"""What a training shows while it runs: a bar in a terminal, a live curve in JupyterLab, a line an epoch elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

History = list[dict[str, Any]]
REFRESH_S = 0.5  # between two looks of the live view
WIDTH, HEIGHT, LEFT, BOTTOM = (
    360,
    150,
    52,
    20,
)  # pixels of a live curve, and of the room for its two axes


def measures(entry: dict[str, Any]) -> dict[str, float]:
    """Return what an epoch measured: its loss and scores, without learning rate and time."""
    return {k: v for k, v in entry.items() if isinstance(v, float) and k not in ("lr", "seconds")}


def clock(seconds: float) -> str:
    """Return a duration as 42 s, 3:05 min or 25:10 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60}:{whole % 60:02} min"
        if whole < 3600
        else f"{whole // 3600}:{whole % 3600 // 60:02} h"
    )


def epoch_line(history: History, epochs: int) -> str:
    """Return the last epoch in one line, with the time that the others will take at the mean pace so far."""
    entry = history[-1]
    left = (epochs - len(history)) * sum(e["seconds"] for e in history) / len(history)
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in measures(entry).items())
    return f"epoch {entry['epoch']:>3}/{epochs}  {numbers}  {entry['seconds']:.1f} s, {clock(left)} left"


class Lines:
    """One line an epoch, given to `write`: what a log file or a notebook without an onlooker keeps."""

    def __init__(self, epochs: int, steps: int, write: Callable[[str], None] = print) -> None:
        self.epochs, self.steps, self.say = epochs, steps, write

    def start(self, history: History) -> None:
        """Take note of the epochs that lie behind."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Show an optimiser step; `epoch` and `step` count from 0, `loss` is the last one known."""

    def epoch(self, history: History) -> None:
        """Show the epoch that has just ended."""
        self.say(epoch_line(history, self.epochs))

    def close(self) -> None:
        """Nothing more will come."""


class Bar(Lines):
    """A bar over all steps with loss, Dice and the time left; ended epochs scroll by above it."""

    def start(self, history: History) -> None:
        self.bar = tqdm(
            total=self.epochs * self.steps, initial=len(history) * self.steps, unit="step", smoothing=0, leave=False,
            dynamic_ncols=True, bar_format="{desc} {percentage:3.0f} %|{bar}| {remaining} left",
        )  # fmt: skip
        self.say, self.scores = self.bar.write, _scores(history)

    def step(self, epoch: int, step: int, loss: float) -> None:
        self.bar.desc = f"epoch {epoch + 1}/{self.epochs}, loss {loss:.4f}{self.scores}"
        self.bar.update()

    def epoch(self, history: History) -> None:
        self.scores = _scores(history)
        super().epoch(history)

    def close(self) -> None:
        self.bar.close()


class Live(Lines):
    """A notebook output that is replaced as the training goes: a bar, and the curves at the end of each epoch."""

    def start(self, history: History) -> None:
        from IPython.display import HTML, display

        self.html, self.done_before, self.curves = (
            HTML,
            len(history) * self.steps,
            _curves(history, self.epochs),
        )
        self.began, self.shown, self.scores = time.perf_counter(), 0.0, _scores(history)
        self.handle = display(HTML(""), display_id=True)

    def step(self, epoch: int, step: int, loss: float) -> None:
        now = time.perf_counter()
        if now - self.shown < REFRESH_S:
            return
        done, every = epoch * self.steps + step + 1, self.epochs * self.steps
        left = (now - self.began) / max(done - self.done_before, 1) * (every - done)
        self._show(
            done,
            f"epoch {epoch + 1}/{self.epochs}, loss {loss:.4f}{self.scores}, {clock(left)} left",
        )

    def epoch(self, history: History) -> None:
        self.scores, self.curves = _scores(history), _curves(history, self.epochs)
        self._show(len(history) * self.steps, epoch_line(history, self.epochs))

    def _show(self, done: int, text: str) -> None:
        bar = f'<progress value="{done}" max="{self.epochs * self.steps}" style="width:{WIDTH}px"></progress>'
        self.handle.update(self.html(f"<div>{bar} {text}</div>{self.curves}"))
        self.shown = time.perf_counter()


def watch(epochs: int, steps: int, write: Callable[[str], None] | None = None) -> Lines:
    """Return the view that suits the place: JupyterLab, a terminal, or neither; `write` asks for lines given to it."""
    if write is not None:
        return Lines(epochs, steps, write)
    if _in_jupyter():
        return Live(epochs, steps)
    return Bar(epochs, steps) if sys.stderr.isatty() else Lines(epochs, steps)


def _in_jupyter() -> bool:
    """Whether a Jupyter server started this kernel for someone to look at: papermill and nbconvert do not name it."""
    if not os.environ.get("JPY_SESSION_NAME"):
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def _scores(history: History) -> str:
    """The last known scores but the loss, as ", dice 0.9312"."""
    known: dict[str, float] = {}
    for entry in history:
        known |= measures(entry)
    return "".join(f", {name} {value:.4f}" for name, value in known.items() if name != "loss")


def _curves(history: History, epochs: int) -> str:
    names = dict.fromkeys(name for entry in history for name in measures(entry))
    return "".join(
        _curve(name, [(e["epoch"], e[name]) for e in history if name in measures(e)], epochs)
        for name in names
    )


def _curve(name: str, points: list[tuple[int, float]], epochs: int) -> str:
    """A curve of (epoch, value) as SVG in the page's own text colour, its axes from 0 to `epochs` and low to high."""
    low, high = min(v for _, v in points), max(v for _, v in points)
    wide, tall = WIDTH - LEFT - 8, HEIGHT - BOTTOM - 8

    def place(epoch: float, value: float) -> str:
        up = (value - low) / (high - low) if high > low else 0.5
        return f"{LEFT + wide * epoch / epochs:.1f},{8 + tall * (1 - up):.1f}"

    line = " ".join(place(*point) for point in points)
    x, y = place(*points[-1]).split(",")
    words = [
        (LEFT - 6, 14, "end", f"{high:.3f}"), (LEFT - 6, 8 + tall, "end", f"{low:.3f}" if high > low else ""),
        (LEFT, HEIGHT - 4, "start", "0"), (LEFT + wide, HEIGHT - 4, "end", f"epoch {epochs}"),
        (LEFT + wide / 2, 14, "middle", name),
    ]  # fmt: skip
    texts = "".join(f'<text x="{a}" y="{b}" text-anchor="{c}">{d}</text>' for a, b, c, d in words)
    return (
        f'<svg role="img" aria-label="{name} by epoch, last {points[-1][1]:.4f}" width="{WIDTH}" height="{HEIGHT}"'
        ' fill="currentColor" font-size="11" font-family="sans-serif">'
        f'<path d="M{LEFT} 8V{8 + tall}H{LEFT + wide}" fill="none" stroke="currentColor" opacity="0.4"/>{texts}'
        f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        f'<circle cx="{x}" cy="{y}" r="2.5"/></svg>'
    )
