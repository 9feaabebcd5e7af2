"""A run's folder: settings, history, checkpoint and weights of one training."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from kitslib.config import OneLine, key, read_json, replacing, write_json, write_text
from kitslib.training.machine import versions

DEAD_S = 3600  # a half-written file of this age has no writer any more


class RunError(OneLine, ValueError):
    """A run folder or a record that is missing, damaged or made with other settings."""


@dataclass(frozen=True)
class Run:
    """One training on disk, in a folder named after its settings: others get another folder."""

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def open(cls, root: Path, name: str, settings: Mapping[str, Any]) -> Run:
        """Open `root/name-<key of the settings>`, all that decides the weights; made if missing."""
        settings = json.loads(json.dumps(settings))
        run = cls(root / f"{name}-{key(settings)[:8]}", settings)
        run.folder.mkdir(parents=True, exist_ok=True)
        if not (run.folder / "settings.json").is_file():
            write_json(run.folder / "settings.json", settings)
        for part in run.folder.glob(".*.*"):  # what writers that were killed left behind
            with suppress(FileNotFoundError):
                if time.time() - part.stat().st_mtime > DEAD_S:
                    part.unlink()
        return run

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Open an existing run folder."""
        if not (folder / "settings.json").is_file():
            raise RunError(f"{folder}: no run is there (settings.json is missing)")
        return cls(folder, read_json(folder / "settings.json"))

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return (self.folder / "weights.safetensors").is_file()

    def history(self) -> list[dict[str, Any]]:
        """Return one row per epoch."""
        path = self.folder / "history.jsonl"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write the history anew, whole or not at all."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(self.folder / "history.jsonl", text)

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write `state`, with the settings and versions it belongs to, to resume from."""
        with replacing(self.folder / "last.pt") as part:
            torch.save({"settings": self.settings, "versions": versions(), **state}, part)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint, or None; one of other settings is refused by naming them."""
        path = self.folder / "last.pt"
        if not path.is_file():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            words = f"damaged checkpoint ({error}); remove it to start this run anew"
            raise RunError(f"{path}: {words}") from None
        if names := differing(state["settings"], self.settings):
            raise RunError(f"{path}: a checkpoint made with other settings: {', '.join(names)}")
        return state

    def finish(self, network: torch.nn.Module) -> None:
        """Write the final weights, which mark the run as finished, and drop the checkpoint."""
        tensors = {n: t.detach().contiguous().cpu() for n, t in network.state_dict().items()}
        about = json.dumps({"settings": self.settings, "versions": versions()})
        with replacing(self.folder / "weights.safetensors") as part:
            save_file(tensors, str(part), metadata={"about": about})  # one: several vary in order
        (self.folder / "last.pt").unlink(missing_ok=True)

    def load_weights(self, network: torch.nn.Module) -> torch.nn.Module:
        """Fill `network` with the final weights."""
        if not self.finished:
            raise RunError(f"{self.folder}: the training has not come to its end; run its notebook")
        network.load_state_dict(load_file(str(self.folder / "weights.safetensors")))
        return network

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write arrays beside the weights, for figures; whole or not at all."""
        with replacing(self.folder / f"{name}.npz") as part, part.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def load_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return the arrays of that name; none where they were not written."""
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            return {}
        with np.load(path) as found:
            return dict(found)


def differing(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Return the dotted names at which two nested mappings differ, each with both values."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return [] if old == new else [f"{prefix.rstrip('.')} ({old!r} there, {new!r} here)"]
    names = []
    for name in sorted({*old, *new}):
        names += differing(old.get(name), new.get(name), f"{prefix}{name}.")
    return names
