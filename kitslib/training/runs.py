"""A run's folder: configuration, provenance, history, checkpoint, weights, scores; and stage records."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kitslib.config import ROOT, RunConfig, as_dict, key, read_json, replacing, write_json

WEIGHTS = ROOT / "kitslib" / "weights"  # of the networks that come with the package
PACKAGES = (
    "torch",
    "accelerate",
    "numpy",
    "opencv-python-headless",
    "scipy",
    "nibabel",
    "papermill",
)
DEAD_S = 3600  # a half-written file of this age has no writer any more


class RunError(ValueError):
    """A run folder or a stage record that is missing, damaged or belongs to another configuration."""


def commit() -> str | None:
    """Return the git commit of the project, with `+` where files differ from it; None outside git."""

    def git(*words: str) -> str:
        call = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return call.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def start(*, device: str = "auto", precision: str = "auto", threads: int = 1) -> Accelerator:
    """Return the accelerator: device, mixed precision (bf16 where the hardware has it) and CPU threads."""
    _keep_freed_memory()
    cpu = device == "cpu" or not torch.cuda.is_available()
    if device == "cuda" and cpu:
        raise RunError(
            "device: 'cuda' was asked for, but this machine shows no CUDA device; use 'auto'"
        )
    if precision == "auto":
        precision = "bf16" if (_cpu_has_bf16() if cpu else torch.cuda.is_bf16_supported()) else "no"
    if precision == "fp16" and cpu:
        raise RunError(
            "precision: 'fp16' needs a GPU, and this training is on the CPU; use 'bf16', 'no' or 'auto'"
        )
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        AcceleratorState._reset_state(
            reset_partial_state=True
        )  # a second start may ask for other settings
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu)
    torch.set_num_threads(
        threads
    )  # last: where several processes share the CPU, accelerate sets a number of its own
    return accelerator


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 itself: where it is emulated, as AVX-512 alone allows, float32 is quicker."""
    if (
        not torch.backends.mkldnn.is_available()
    ):  # such builds do not even have the question asked below
        return False
    able = torch.cpu.get_capabilities()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() and any(
        able.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
    )


def _keep_freed_memory() -> None:
    """Let glibc reuse freed blocks of any size: mapping large ones anew at every step costs a training a third."""
    mmap_max, trim_threshold = -4, -1  # malloc.h: M_MMAP_MAX, M_TRIM_THRESHOLD
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def device_name(device: torch.device | str = "cpu") -> str:
    """Return the device in words, as a report states it."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(
            line.split(":")[1].strip() for line in info.splitlines() if "model name" in line
        )
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores{'' if _cpu_has_bf16() else ', without bf16'}"


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {name: metadata.version(name) for name in PACKAGES}


def provenance(config: RunConfig, **more: Any) -> dict[str, Any]:
    """Return what a reader needs to know where a result comes from: commit, versions, device, data, date."""
    return {
        "profile": config.profile,
        "synthetic": config.synthetic,
        "data": config.data or "synthetic cohort",
        "labels": config.cohort.labels,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
        "device": device_name(
            "cuda" if torch.cuda.is_available() and config.device != "cpu" else "cpu"
        ),
        "python": platform.python_version(),
        "versions": versions(),
        **more,
    }


@dataclass(frozen=True)
class Run:
    """One training on disk. `folder` is named after what was asked, so another question gets another folder."""

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def open(cls, root: Path, name: str, settings: Mapping[str, Any]) -> Run:
        """Open `root/name-<key of the settings>`, made when missing; `settings` is all that decides the weights."""
        settings = json.loads(json.dumps(settings))
        run = cls(root / f"{name}-{key(settings)[:8]}", settings)
        run.folder.mkdir(parents=True, exist_ok=True)
        if not (run.folder / "settings.json").is_file():
            write_json(run.folder / "settings.json", settings)
        run._sweep()
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
        """Return one record per epoch."""
        path = self.folder / "history.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]

    def write_history(self, records: list[dict[str, Any]]) -> None:
        """Write the history anew, whole or not at all."""
        with replacing(self.folder / "history.jsonl") as part:
            part.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write `state`, with the settings (data key included) and versions it belongs to, to resume from."""
        with replacing(self.folder / "last.pt") as part:
            torch.save({"settings": self.settings, "versions": versions(), **state}, part)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint, or None; one of other settings is refused by naming what differs."""
        path = self.folder / "last.pt"
        if not path.is_file():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise RunError(
                f"{path}: damaged checkpoint ({error}); remove it to start this run anew"
            ) from None
        self._refuse_others(path, state["settings"])
        return state

    def finish(self, network: torch.nn.Module) -> None:
        """Write the final weights, which mark the run as finished, and drop the checkpoint."""
        self._save_weights("weights", network)
        (self.folder / "last.pt").unlink(missing_ok=True)

    def load_weights(self, network: torch.nn.Module) -> torch.nn.Module:
        """Fill `network` with the final weights."""
        if not self.finished:
            raise RunError(
                f"{self.folder}: the training has not come to its end; run its notebook again"
            )
        network.load_state_dict(load_file(str(self.folder / "weights.safetensors")))
        return network

    def save_best(self, network: torch.nn.Module, entry: Mapping[str, Any]) -> None:
        """Write the weights of the best epoch so far; `entry` is its record in the history."""
        self._save_weights("best", network, entry=dict(entry))

    def load_best(self, network: torch.nn.Module) -> dict[str, Any]:
        """Fill `network` with the weights of the epoch that scored best, and return that epoch's record."""
        path = self.folder / "best.safetensors"
        if not path.is_file():
            raise RunError(
                f"{path}: no epoch was scored yet; a training writes it where it is given `validate`"
            )
        with safe_open(str(path), framework="pt") as file:
            about = json.loads(file.metadata()["about"])
        self._refuse_others(path, about["settings"])
        network.load_state_dict(load_file(str(path)))
        return about["entry"]

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

    def _save_weights(self, name: str, network: torch.nn.Module, **more: Any) -> None:
        """Write weights beside one text that says where they come from: of several, the order in the file varies."""
        tensors = {key: t.detach().contiguous().cpu() for key, t in network.state_dict().items()}
        about = json.dumps({"settings": self.settings, "versions": versions(), **more})
        with replacing(self.folder / f"{name}.safetensors") as part:
            save_file(tensors, str(part), metadata={"about": about})

    def _refuse_others(self, path: Path, settings: Mapping[str, Any]) -> None:
        if names := differing(settings, self.settings):
            raise RunError(
                f"{path}: this checkpoint was made with other settings: {', '.join(names)}"
            )

    def _sweep(self) -> None:
        """Remove what writers that were killed half-way left behind."""
        for name in ("last.pt", "best.safetensors", "weights.safetensors", "history.jsonl"):
            for part in self.folder.glob(f".{name}.*"):
                with suppress(FileNotFoundError):
                    if time.time() - part.stat().st_mtime > DEAD_S:
                        part.unlink()


def differing(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Return the dotted names at which two nested mappings differ, each with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = sorted({*old, *new})
        return [
            n for name in names for n in differing(old.get(name), new.get(name), f"{prefix}{name}.")
        ]
    return [] if old == new else [f"{prefix.rstrip('.')} ({old!r} there, {new!r} here)"]


def models_folder(folder: Path | None = None) -> Path:
    """Return the folder with the trained stages, kidney/ and tumor/: the one named, or the package's own."""
    folder = WEIGHTS if folder is None else folder
    for stage in ("kidney", "tumor"):
        if not (folder / stage / "weights.safetensors").is_file():
            raise RunError(
                f"{folder / stage}: no trained network is there; name a folder that holds kidney/ and tumor/ with"
                " --models, such as the reports/demo/models of ./run_all.sh"
            )
    return folder


def export_models(config: RunConfig, *, kidney: Run, tumor: Run) -> Path:
    """Copy weights and settings of two finished runs to where `--models` finds them, with what made them."""
    folder = config.reports / "models"
    for name, run in (("kidney", kidney), ("tumor", tumor)):
        for file in ("settings.json", "weights.safetensors"):
            with replacing(folder / name / file) as part:
                shutil.copyfile(run.folder / file, part)
    data = "" if config.synthetic else " --data DIR"
    made = {"command": f"./run_all.sh --profile {config.profile}{data}", **provenance(config)}
    settings = {
        name: value for name, value in as_dict(config).items() if name not in ("data", "out")
    }
    write_json(
        folder / "made.json", made | {"data": data or "synthetic cohort", "settings": settings}
    )
    return folder


def real_ct_folder(named: str = "") -> Path | None:
    """Return the folder of real CT to look at: the one named, else that of $KITS_SHARED or ../shared, else None."""
    if named:
        folder = ROOT / named
        if not folder.is_dir():
            raise RunError(f"real: {folder} is not a folder")
        return folder
    folder = Path(os.environ.get("KITS_SHARED", ROOT.parent / "shared")) / "realct" / "data"
    return folder if folder.is_dir() else None


def summary(reports: Path) -> dict[str, Any]:
    """Return what summary.json says: what the evaluation recorded, and the time in which any stage was at work."""
    records = [read_json(path) for path in sorted((reports / "work" / "records").glob("*.json"))]
    found = [r["summary"] for r in records if "summary" in r]
    if not found:
        raise RunError(f"{reports}: no evaluation is recorded there; run ./run_all.sh first")
    wall, end = 0.0, 0.0
    for began, ended in sorted((r["began"], r["ended"]) for r in records):
        wall += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return {**found[-1], "wall_s": round(wall, 1)}


def record_path(config: RunConfig, stage: str) -> Path:
    """Return where the record of a stage lies: `work/records/03_tumor-full-s0.json`."""
    return config.work / "records" / f"{stage}.json"


def record(config: RunConfig, stage: str, *, began: float, **values: Any) -> Path:
    """Write what a notebook found: its last act, by which the engine knows that it came to its end.

    `began` and the time of this call (seconds since 1970) say how long the stage took.
    """
    head = {"stage": stage, "began": began, "ended": time.time(), "config": as_dict(config)}
    return write_json(record_path(config, stage), head | values)


def recorded(config: RunConfig, stage: str) -> dict[str, Any]:
    """Return the record of a stage; a missing one names the command that makes it."""
    path = record_path(config, stage)
    if not path.is_file():
        notebook, _, rest = stage.partition("-")
        arm, _, seed = rest.rpartition("-s")
        more = f" -p arm {arm} -p seed {seed}" if rest else ""
        raise RunError(
            f"{path} is missing; make it with: papermill notebooks/{notebook}.ipynb {stage}.ipynb"
            f" -k python3 -p profile {config.profile}{more}  (or all stages: ./run_all.sh --profile {config.profile})"
        )
    return read_json(path)
