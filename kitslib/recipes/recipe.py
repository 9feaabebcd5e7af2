"""What the recipes of both stages share: the key of a run, its folder and its training."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from kitslib.config import KidneyConfig, TumorConfig, as_dict, code_key
from kitslib.data import Batch, CaseFiles, CaseStream, Cohort, LabelVersion
from kitslib.evaluation import Scored
from kitslib.networks import build, count_parameters, multiply_adds
from kitslib.training import Run, Sampler, fit, seed_everything
from kitslib.transforms import HU_WINDOWS, HuWindow

# whose code decides what a training does; a test follows one and finds no other file at work
SOURCES = (
    "data/sampling.py", "evaluation/cascade.py", "evaluation/inference.py",
    "evaluation/metrics/scores.py", "networks", "recipes", "training/loader.py", "training/loop.py",
    "training/losses.py", "training/optimizers.py", "transforms",
)  # fmt: skip
WATCHED = 16


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """One training as a value: all that decides its weights, and the key that names it.

    To try another loss, sampler or validation, override the method in a subclass or replace a
    field (`dataclasses.replace`): the key follows settings, sources and overriding code, so that
    another recipe is another run.
    """

    name: str  # of the run's folder
    training: KidneyConfig | TumorConfig
    train: Cohort | CaseStream
    held_out: Cohort
    accelerator: Accelerator
    runs: Path  # folder of all runs
    labels: LabelVersion = "kits19"  # that the held-out cases are scored by
    seed: int = 0
    threads: int = 1
    cases: int = 0  # of an epoch, where `train` makes ever new ones

    @property
    @abstractmethod
    def sampler(self) -> Sampler:
        """What is drawn in each step."""

    @property
    def hu_window(self) -> HuWindow:
        """How HU become the network's input."""
        return HU_WINDOWS[self.training.hu]

    @abstractmethod
    def prepare(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the network's input and target of a batch as it lies in the cache."""

    @abstractmethod
    def loss(self, output: Any, target: Tensor, epoch: int) -> Tensor:
        """Return what the training minimises, a scalar; `epoch` counts from 0."""

    @property
    def watched(self) -> Cohort:
        """The held-out cases that are watched in training: the first WATCHED."""
        return self.held_out.subset(self.held_out.case_ids[:WATCHED])

    @abstractmethod
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return scores of the watched cases, which choose nothing."""

    def after_epoch(self, network: nn.Module, epoch: int) -> dict[str, Any]:
        """Do what follows an epoch (counted from 0); return what the history notes of it."""
        return {}

    @abstractmethod
    def network_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `kitslib.networks.build`."""

    @abstractmethod
    def own_settings(self) -> dict[str, Any]:
        """Return the settings that only this stage has."""

    def network(self) -> nn.Module:
        """Return the network with the initial weights of this seed."""
        options = self.network_options()
        seed_everything(self.seed)
        return build(**options)

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the weights; their hash names the run.

        How many processes share the batches is not among it: each sample is the same for any
        number, so that the weights are equal within rounding (but for dropout, which each process
        draws for itself); a run may change it half-way, and its history notes it.
        """
        return {
            **self.own_settings(),
            "network": self.network_options(),
            "training": as_dict(self.training),
            "seed": self.seed,
            "data": self.train.key,
            "watched": self.held_out.key,
            "precision": self.accelerator.mixed_precision,
            "threads": self.threads,
            "code": code_key(*SOURCES),
            "changed": list(foreign_code(type(self))),
        }

    @functools.cached_property
    def run(self) -> Run:
        """The folder of this training."""
        return Run.open(self.runs, self.name, self.settings)

    @abstractmethod
    def scored(self, network: nn.Module, files: Iterable[CaseFiles]) -> Iterator[Scored]:
        """Yield labels, prediction and scores of held-out cases, in their own geometry."""

    def costs(self, network: nn.Module) -> dict[str, int]:
        """Return the `parameters` of the network and its `multiply_adds` for a slice."""
        images, _ = self.prepare(self.sampler.batch(0, 0))
        slices = images.shape[2] if images.ndim == 5 else 1
        operations = multiply_adds(network, (1, *images.shape[1:]))
        return {"parameters": count_parameters(network), "multiply_adds": operations // slices}

    def results(self, network: nn.Module, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return what a record says of the training: run, seed, costs, seconds."""
        seconds = sum(entry["seconds"] for entry in history)
        about = {"run": self.run.folder.name, "seed": self.seed, "train_s": seconds}
        return about | self.costs(network)

    def fit(self, network: nn.Module, log: Callable[[str], None] | None = None) -> list[dict]:
        """Train `network`, or load what was trained before; return one row an epoch."""
        t = self.training
        return fit(
            network, self.sampler, self.run, accelerator=self.accelerator, epochs=t.epochs,
            seed=self.seed, prepare=self.prepare, loss=self.loss, optimizer=t.optimizer,
            schedule=t.schedule, lr=t.lr, clip=t.clip, compile=t.compile,
            accumulate=min(t.accumulate, self.sampler.size),  # the 3D arm has a batch of its own
            validate=self.validate, validate_every=t.validate_every, after_epoch=self.after_epoch,
            log=log,
        )  # fmt: skip


def foreign_code(kind: type) -> Iterator[str]:
    """Yield what a recipe is made of outside kitslib: its own members, and what these name."""
    for part in kind.__mro__:
        if part.__module__.split(".")[0] in ("kitslib", "builtins"):
            continue
        for name, value in sorted(vars(part).items()):
            value = getattr(value, "func", getattr(value, "fget", value))  # of a property
            if isinstance(value, FunctionType):
                yield from _source(value, set())
            elif not name.startswith("_"):
                yield f"{name} = {value!r}"


def _source(function: FunctionType, seen: set[FunctionType]) -> Iterator[str]:
    """Yield the source of a function, and of functions and constants of its module it names."""
    seen.add(function)
    with suppress(OSError):  # what a dataclass writes has no source
        yield inspect.getsource(function)
    codes, names = [function.__code__], set()
    while codes:  # of the function, and of functions and comprehensions in it
        code = codes.pop()
        names.update(code.co_names)
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    for name in sorted(names):
        used = function.__globals__.get(name)
        if isinstance(used, int | float | str | tuple):
            yield f"{name} = {used!r}"
        ours = isinstance(used, FunctionType) and used.__module__ == function.__module__
        if ours and used not in seen:
            yield from _source(used, seen)
