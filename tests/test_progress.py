"""A bar in a terminal, one live output in JupyterLab, a line an epoch elsewhere."""

from __future__ import annotations

import os
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from jupyter_client.manager import start_new_kernel

from kitslib.training import Bar, Lines, Live, clock, epoch_line, watch

HISTORY = [
    {"epoch": 1, "loss": 0.9, "lr": 1e-3, "seconds": 10.0},
    {"epoch": 2, "loss": 0.5, "dice": 0.75, "lr": 1e-3, "seconds": 20.0},
]
RUN = """
from kitslib.training import watch
view = watch(3, 2)
view.start([])
history = []
for epoch in range(3):
    for step in range(2):
        view.step(epoch, step, 0.25)
    history.append({"epoch": epoch + 1, "loss": 0.5 / (epoch + 1), "dice": 0.8, "lr": 0.1, "seconds": 1.5})
    view.epoch(history)
view.close()
"""


def test_a_line_says_what_was_measured_and_how_long_the_rest_takes() -> None:
    assert (
        epoch_line(HISTORY, 10) == "epoch   2/10  loss 0.5000  dice 0.7500  20.0 s, 2:00 min left"
    )
    assert [clock(s) for s in (41.7, 185, 90600)] == ["42 s", "3:05 min", "25:10 h"]


def test_where_nobody_looks_there_is_one_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    exec(RUN, {})
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3 and err == ""


def test_a_terminal_shows_loss_dice_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    assert isinstance(watch(10, 4), Bar)
    assert type(watch(10, 4, print)) is Lines, "lines asked for are lines"
    exec(RUN, {})
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert re.search(r"epoch 3/3, loss 0\.2500, dice 0\.8000 +\d+ %\|.*\| 0\d:\d\d left", err)


def test_a_resumed_bar_starts_where_the_run_was() -> None:
    bar = Bar(10, 4)
    bar.start(HISTORY)
    assert bar.bar.n == 8 and bar.scores == ", dice 0.7500"
    bar.close()


def outputs(environment: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Run RUN in a fresh kernel and return its outputs: (message type, data by MIME type or stream)."""
    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ, **environment})
    found: list[tuple[str, dict[str, str]]] = []

    def keep(message: dict) -> None:
        content = message["content"]
        found.append(
            (message["msg_type"], content.get("data") or {"text": content.get("text", "")})
        )

    try:
        reply = client.execute_interactive(RUN, output_hook=keep, timeout=60)
        assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return [item for item in found if item[0] in ("display_data", "update_display_data", "stream")]


def test_jupyterlab_gets_one_output_that_is_replaced_and_ends_with_the_curves() -> None:
    found = outputs({"JPY_SESSION_NAME": "notebooks/02_kidney.ipynb"})
    assert found[0][0] == "display_data"
    assert {kind for kind, _ in found[1:]} == {"update_display_data"}
    last = found[-1][1]["text/html"]
    assert "epoch   3/3  loss 0.1667  dice 0.8000" in last and 'value="6" max="6"' in last
    curves = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", last)]
    assert [svg.get("aria-label") for svg in curves] == [
        "loss by epoch, last 0.1667",
        "dice by epoch, last 0.8000",
    ]
    points = [
        tuple(map(float, p.split(","))) for p in curves[0].find("polyline").get("points").split()
    ]
    assert len(points) == 3 and points[0][1] < points[-1][1], "a loss that falls is drawn falling"


def test_a_kernel_that_no_server_started_prints_lines() -> None:
    found = outputs({"JPY_SESSION_NAME": ""})
    assert {kind for kind, _ in found} == {"stream"}
    assert "".join(data["text"] for _, data in found).count("epoch ") == 3


def test_the_live_view_is_for_kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "some.ipynb")
    assert not isinstance(watch(2, 2), Live)
