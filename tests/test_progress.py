"""One line an epoch, and a bar in a terminal and in JupyterLab."""

from __future__ import annotations

import os
import re
import sys

import pytest
from jupyter_client.manager import start_new_kernel

from kitslib.training import epoch_line, progress_bar

HISTORY = [
    {"epoch": 1, "loss": 0.9, "lr": 1e-3, "seconds": 10.0},
    {"epoch": 2, "loss": 0.5, "dice": 0.75, "lr": 1e-3, "seconds": 20.0, "maps": [0.5, 0.25]},
]
RUN = """
from kitslib.training import progress_bar
bar = progress_bar(3, 2, done=1, hidden=False)
for step in range(4):
    bar.set_postfix(loss=0.25, refresh=False)
    bar.update()
bar.write("epoch 3")
bar.close()
"""


def test_a_line_says_what_was_measured_and_how_long_the_rest_takes() -> None:
    expected = "epoch   2/10  loss 0.5000  dice 0.7500  20.0 s, 2 min 00 s left"
    assert epoch_line(HISTORY, 10) == expected


def test_where_nobody_watches_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    exec(RUN, {})
    assert capsys.readouterr() == ("epoch 3\n", "")


def test_a_terminal_shows_a_bar_with_loss_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    exec(RUN, {})
    out, err = capsys.readouterr()
    assert "epoch 3" in out
    assert re.search(r"100%\|.*\| 6/6 \[\d\d:\d\d<00:00, .*loss=0\.25\]", err)
    assert "2/6" in err, "a resumed run begins where it was"
    assert progress_bar(3, 2, done=0, hidden=True).disable, "lines asked for are lines"


def outputs(environment: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Run RUN in a fresh kernel; return message type and data by MIME type, or text, of each."""
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


def test_jupyterlab_gets_one_widget_and_the_lines() -> None:
    found = outputs({"JPY_SESSION_NAME": "notebooks/02_kidney.ipynb"})
    shown = [data for kind, data in found if kind == "display_data"]
    assert len(shown) == 1 and "application/vnd.jupyter.widget-view+json" in shown[0]
    assert [data["text"] for kind, data in found if kind == "stream"] == ["epoch 3\n"]


def test_a_kernel_that_no_server_started_prints_lines() -> None:
    assert outputs({"JPY_SESSION_NAME": ""}) == [("stream", {"text": "epoch 3\n"})]


def test_the_bar_of_a_server_is_for_kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "some.ipynb")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert progress_bar(2, 2, done=0, hidden=False).disable
