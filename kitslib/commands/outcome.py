"""What a call of `predict` did: told at once, and as one JSON file on demand."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kitslib.commands.line import passing, said
from kitslib.config import write_json

DICOM = ("dicom_seg", "rtstruct")


def complain(path: Path, error: BaseException | str) -> None:
    """Say on standard error why a scan could not be segmented, or an output not be written."""
    passing("")
    print(f"kitslib predict: {reason(path, error)}", file=sys.stderr)


def reason(path: Path, error: BaseException | str) -> str:
    """Return an error's sentence, which begins with the file's whole path; of odd ones the kind."""
    usual = isinstance(error, str | ValueError | OSError | RuntimeError)
    text = error if isinstance(error, str) else said(error)
    text = text.removeprefix(f"{path.parent.name}/{path.name}: ").removeprefix(f"{path}: ")
    return f"{path}: {text if usual else f'{type(error).__name__}: {text}'}"


class Report:
    """What a call did: told at once, and as one JSON file on demand, whole after each scan."""

    def __init__(self, path: Path | None, provenance: dict[str, Any]) -> None:
        """Begin with what made the results; no `path`: no file."""
        self.path, self.began, self.failures = path, time.perf_counter(), 0
        self.content = {"finished": False, "exit_status": None, "seconds": 0.0, "date": now()}
        self.content |= provenance | {"scans": []}
        self.save()

    def add(
        self, path: Path, *, record: dict[str, Any] | None = None, kept: bool = False,
        files: Mapping[str, Path] | None = None, error: BaseException | str = "",
    ) -> None:  # fmt: skip
        """Note a scan: its record and files, or the error that ended it."""
        record, entry = record or {}, {"imaging": str(path), "status": "failed"}
        errors = [record[kind]["error"] for kind in DICOM if "error" in record.get(kind, ())]
        errors = list(dict.fromkeys(errors))  # one sentence where both have the same
        if record:
            entry["status"] = "kept" if kept else "segmented"
            entry["files"] = {kind: str(file) for kind, file in files.items() if file.is_file()}
            entry["warnings"] = list(record["warnings"])
            for name in ("case", "measurements", "tumor_position", "seconds", "shape"):
                entry |= {name: record[name]} if name in record else {}
        else:
            errors = [error]
        for each in errors:
            complain(path, each)
        entry["errors"] = [each if isinstance(each, str) else said(each) for each in errors]
        self.failures += bool(errors)
        self.content["scans"].append(entry)
        self.save()

    def end(self) -> int:
        """Close the report; return the exit status."""
        self.content |= {"finished": True, "exit_status": int(self.failures > 0)}
        self.save()
        return self.content["exit_status"]

    def save(self) -> None:
        """Write the file anew, if one is wanted."""
        self.content["seconds"] = round(time.perf_counter() - self.began, 1)
        if self.path:
            write_json(self.path, self.content)


def now() -> str:
    """Return the time as records say it."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
