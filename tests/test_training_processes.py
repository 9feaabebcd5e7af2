"""Two processes with half the batch each train the network that one trains with the whole batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training import EPOCHS, train

from kitslib.training import Run, start

PARTS = (1, 2)  # values of accumulate that are tried
CODE = """
from pathlib import Path
from test_training_processes import train_and_tell
train_and_tell(Path({!r}))
"""


def train_and_tell(folder: Path) -> None:
    """Train as one of several processes that score differently; each notes its history."""
    rank = int(os.environ["RANK"])
    assert start(device="cpu", precision="bf16").mixed_precision == "bf16"  # then "no"
    for parts in PARTS:
        _, history = train(
            folder / str(parts),
            dropout=0.0,
            accumulate=parts,
            validate=lambda net: {"dice": 0.5 + rank},
        )
        (folder / f"history-{parts}-{rank}.json").write_text(json.dumps(history))


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder in which two processes trained to their end, and what each printed."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
    }
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CODE.format(str(folder))],
            cwd=Path(__file__).parent.parent, env={**common, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    try:
        texts = [child.communicate(timeout=120) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], texts
    return folder, [out for out, _ in texts]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same training in one process."""
    return train(tmp_path_factory.mktemp("alone"), dropout=0.0)[0]


pytestmark = pytest.mark.skipif(
    not torch.distributed.is_gloo_available(), reason="needs torch with gloo"
)


@pytest.mark.parametrize("parts", PARTS)
def test_two_processes_train_what_one_does(
    printed: tuple[Path, list[str]], alone: Run, parts: int
) -> None:
    run = Run.open(printed[0] / str(parts), "noise", {"epochs": EPOCHS})
    ours, theirs = (load_file(str(r.folder / "weights.safetensors")) for r in (alone, run))
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)
    assert [e["loss"] for e in run.history()] == pytest.approx(
        [e["loss"] for e in alone.history()], rel=1e-5
    )


@pytest.mark.parametrize("parts", PARTS)
def test_all_processes_know_what_the_first_one_found(
    printed: tuple[Path, list[str]], parts: int
) -> None:
    histories = [
        json.loads((printed[0] / f"history-{parts}-{rank}.json").read_text()) for rank in (0, 1)
    ]
    assert histories[0] == histories[1]
    assert {entry["dice"] for entry in histories[1]} == {0.5}


def test_only_the_first_process_speaks(printed: tuple[Path, list[str]]) -> None:
    first, second = printed[1]
    assert first.count("epoch ") == EPOCHS * len(PARTS) and second.count("epoch ") == 0
