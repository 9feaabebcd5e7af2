"""`info`: what this installation has: devices, networks, profiles, versions, folders."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import textwrap
from pathlib import Path
from typing import Any

import psutil
import torch

from kitslib import __version__, training
from kitslib.commands.line import text_table
from kitslib.config import HERE, PROFILES, RunConfig, read_json, size_text, usable_cores
from kitslib.evaluation import decision_words
from kitslib.networks import build, count_parameters


def add(parser: argparse.ArgumentParser) -> None:
    argument = parser.add_argument
    argument("--models", type=Path, metavar="DIR", help="with kidney/ and tumor/ (default: ours)")
    argument("--json", action="store_true", help="print it as JSON, with all there is to say")


def run(args: argparse.Namespace) -> int:
    """Print what this installation has."""
    found = gathered(args.models)
    print(json.dumps(found, indent=1) if args.json else in_words(found))
    return 0


def gathered(models: Path | None) -> dict[str, Any]:
    """Return versions, devices, networks, profiles and folders as plain JSON types."""
    software = {
        "kitslib": __version__,
        "commit": training.commit(),
        "python": platform.python_version(),
    }
    real = training.real_ct_folder()
    return {
        "software": software | training.versions(),
        "devices": devices(),
        "memory": psutil.virtual_memory().total,
        "networks": networks(training.models_folder(models)),
        "profiles": {name: profile(config) for name, config in PROFILES.items()},
        "folders": {
            "package": str(Path(__file__).resolve().parent.parent),
            "results": str(HERE / "reports"),
            "networks": str(training.models_folder(models)),
            "real CT": str(real) if real else None,
        },
    }


def devices() -> list[dict[str, Any]]:
    """Return the CPU and each GPU: name, precision that "auto" takes, memory (bytes)."""
    cpu = {"device": "cpu", "name": training.device_name(), "cores": usable_cores()}
    found = [
        cpu
        | {"precision": precision(training.cpu_has_bf16()), "memory": psutil.virtual_memory().total}
    ]
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        row = {"device": f"cuda:{index}", "name": about.name, "memory": about.total_memory}
        found.append(row | {"precision": precision(torch.cuda.is_bf16_supported())})
    return found


def precision(bf16: bool) -> str:
    """Return the arithmetic that `predict` computes in."""
    return "bfloat16" if bf16 else "float32"


def networks(folder: Path) -> dict[str, dict[str, Any]]:
    """Return both stages' weights: file, SHA-256, bytes, parameters; by what they were made."""
    found, made = {}, folder / "made.json"
    command = read_json(made).get("command") if made.is_file() else None
    for stage in ("kidney", "tumor"):
        file = folder / stage / "weights.safetensors"
        settings = read_json(folder / stage / "settings.json")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        with torch.device("meta"):  # weights without values
            parameters = count_parameters(build(**settings["network"]))
        found[stage] = {
            "file": str(file), "sha256": digest, "bytes": file.stat().st_size,
            "network": settings["network"]["name"], "parameters": parameters, "made_by": command,
            "decision": settings.get("decision"),
        }  # fmt: skip
    return found


def profile(config: RunConfig) -> dict[str, Any]:
    """Return in numbers what a profile trains."""
    trainings = sum(len(config.seeds_of(name)) for name in config.arms)
    return {
        "cases": config.cohort.cases, "seeds": len(config.seeds), "arms": len(config.arms),
        "kidney_epochs": config.kidney.epochs, "tumor_epochs": config.tumor.epochs,
        "trainings": 1 + trainings + len(config.kidney_arms) * len(config.seeds),
    }  # fmt: skip


def in_words(found: dict[str, Any]) -> str:
    """Return it in short for a terminal."""
    software = dict(found["software"])
    text = f"kitslib {software.pop('kitslib')}"
    revision = software.pop("commit")
    text += f", commit {revision}" * bool(revision)
    names = ", ".join(f"{name} {version}" for name, version in software.items())
    lines = [text, *textwrap.wrap(names, 100, break_on_hyphens=False), ""]
    rows = [["device", "precision", "memory", ""]]
    for each in found["devices"]:
        row = [each["device"], each["precision"], size_text(each["memory"]), each["name"]]
        rows.append(row)
    lines += [text_table(rows, left=(0, 1, 3)), ""]
    rows = [["network", "parameters", "size", "", "SHA-256 of its weights"]]
    for stage, about in found["networks"].items():
        numbers = [f"{about['parameters']:,}", size_text(about["bytes"]), about["network"]]
        rows.append([stage, *numbers, about["sha256"][:16]])
    lines += [text_table(rows, left=(0, 3, 4)), ""]
    if decision := found["networks"]["tumor"]["decision"]:
        lines += [*textwrap.wrap(decision_words(decision), 100), ""]
    rows = [["profile", "cases", "trainings", "arms", "seeds", "epochs: kidney", "tumour"]]
    for name, about in found["profiles"].items():
        names = "cases", "trainings", "arms", "seeds", "kidney_epochs", "tumor_epochs"
        rows.append([name, *(str(about[each]) for each in names)])
    lines += [text_table(rows, left=(0,)), ""]
    rows = [[name, path or "none"] for name, path in found["folders"].items()]
    return "\n".join([*lines, text_table(rows, left=(0, 1))])
