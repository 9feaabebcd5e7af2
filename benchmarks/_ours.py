"""`kitslib predict` with its parts timed: `python -m benchmarks._ours predict JSON`.

It imports what that command imports, so that its start takes as long.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks._measure import device, wrap
from kitslib.config import write_json


def inflate(by: str) -> None:
    """Make this process inflate scans by `zlib` or by `isal`."""
    from isal import igzip

    from kitslib.data.cases import nifti

    nifti.igzip = SimpleNamespace(IGzipFile={"zlib": gzip.GzipFile, "isal": igzip.IGzipFile}[by])


def predict_ours(job: Mapping[str, Any]) -> None:
    """`kitslib predict` as it is typed, with the seconds of its parts to `to`."""
    from kitslib.commands import main, predict
    from kitslib.evaluation import KidneyStage

    inflate(job["by"])
    parts: dict[str, float] = {}
    wrap(predict.Models, "load", "networks read", parts)
    wrap(predict.data, "read_scan", "scan read", parts)
    wrap(KidneyStage, "mask", "kidneys", parts)
    wrap(predict, "segment", "tumour", parts)
    wrap(predict, "write_preview", "preview", parts)
    wrap(predict.data, "write_labels", "labels written", parts)
    words = ["predict", job["scan"], "-o", job["out"], "--force", "--device", device()]
    words += ["--threads", str(job["threads"])] + ["--models", job["models"]] * bool(job["models"])
    if main(words):
        raise SystemExit(1)
    write_json(Path(job["to"]), parts)


if __name__ == "__main__":
    predict_ours(json.loads(sys.argv[2]))
