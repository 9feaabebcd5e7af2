"""What notebook 06 shows: scans, their truth, and what networks find in them, kept once seen."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from kitslib import data
from kitslib.commands.measurements import measure
from kitslib.commands.outcome import reason
from kitslib.commands.predict import Models
from kitslib.commands.scans import find_scans, stem
from kitslib.config import ARMS, HERE, OneLine, RunConfig, closest, usable_cores
from kitslib.evaluation import dice, segment
from kitslib.phantom import write_cohort
from kitslib.recipes import start_study
from kitslib.reporting import Output, Shown, answer_output
from kitslib.training import WEIGHTS, RunError, provenance, recorded, start

SHIPPED = "shipped"  # the networks that come with the package
MOST = 6  # scans that are kept, each with all that was found in it


class ExploreError(OneLine, ValueError):
    """A scan or an arm that is not there or cannot be used."""


class Explorer:
    """Scans and arms by name; what was read or found once is kept.

    The scans are those of `file`, anything that `predict` reads, else the study's cases, unseen
    ones first, with `words` for each. The arms are those that the study has trained with its seed,
    the cascade's first, and the networks of the package. Raises ExploreError, which names what is
    wrong.
    """

    def __init__(self, config: RunConfig, file: str = "") -> None:
        self.config, self.file = config, file
        self.arms, self.words = [*self._trained(), SHIPPED], {}
        scans = self._given() if file else self._cases()
        self.words |= {name: name for name in scans if name not in self.words}
        self.scans = {name: scans[name] for name in self.words}
        self._networks: dict[str, Models] = {}
        self._kept: dict[str, dict[str, Any]] = {}
        begin = start_study if self.arms[1:] else lambda config: start(device=config.device)
        self.accelerator = begin(config)
        torch.set_num_threads(usable_cores())

    @property
    def provenance(self) -> dict[str, Any]:
        """Where what is shown comes from, as a page's header says it."""
        about = {"data": self.file, "synthetic": False} if self.file else {}
        return provenance(self.config, precision=self.accelerator.mixed_precision) | about

    def chosen(self, case: str | int, arms: Sequence[str]) -> tuple[str, list[str]]:
        """Return the scan and the arms that parameters name: "" is the first scan, and no arm.

        Without any arm, the first. A number stands for the case of that number.
        """
        name = str(case) or next(iter(self.scans))
        name = next((n for n in (name, f"case_{name:0>5}") if n in self.scans), name)
        if name not in self.scans:
            near = difflib.get_close_matches(name, self.scans, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            text = f"case: {name!r} is not among the scans{hint}. "
            text += f"Allowed: {data.case_list(self.scans)}"
            raise ExploreError(text)
        wanted = list(dict.fromkeys(filter(None, arms))) or self.arms[:1]
        for arm in wanted:
            if arm not in (*self.arms, *ARMS):
                raise ExploreError(f"arm: {arm!r} is not a choice{closest(arm, self.arms)}")
        return name, wanted

    def show(self, name: str, arms: Sequence[str]) -> Shown:
        """Return a scan, its truth where there is one, and what each arm finds in it."""
        (scan, words), panels, rows = self._scan(name), {}, []
        if scan.labels is not None:
            panels["truth"] = scan.labels
            row = self._once(name, "scores", partial(measure, scan.labels, scan.spacing))
            rows.append({"panel": "truth", **row})
        for arm in arms:
            find = partial(self._found, name, arm)
            panels[arm], row = self._once(name, f"arm {arm}", find)
            rows.append({"panel": arm, **row})
        return Shown(
            title=self.words[name], imaging=scan.imaging, spacing=scan.spacing, panels=panels,
            scores=pd.DataFrame(rows), words=words,
        )  # fmt: skip

    def _once(self, name: str, what: str, make: Callable[[], Any]) -> Any:
        """What `make` gave of a scan; of scans seen longest ago it is forgotten."""
        kept = self._kept.pop(name, {})
        self._kept[name] = kept
        if what not in kept:
            kept[what] = make()
        for oldest in list(self._kept)[:-MOST]:
            del self._kept[oldest]
        return kept[what]

    def _scan(self, name: str) -> tuple[data.Case, str]:
        """A scan as `predict` reads it with its labels on the same grid, and what is odd of it."""
        try:
            return self._once(name, "scan", partial(self._read, self.scans[name]))
        except Exception as error:  # whatever a file provokes: one sentence that names it
            raise ExploreError(reason(self.scans[name].imaging, error)) from None

    def _read(self, files: data.CaseFiles) -> tuple[data.Case, str]:
        imaging, geometry, warnings = data.read_scan(files.imaging)
        labels, versions, wanted = None, data.available_labels(files), self.config.cohort.labels
        if versions:
            wanted = wanted if wanted in versions else versions[0]
            truth = data.load_case(replace(files, imaging=None), wanted)
            data.require_same_grid(files.case_id, geometry, truth.geometry)
            labels = truth.labels
        where = {"spacing": geometry.spacing, "geometry": geometry}
        case = data.Case(case_id=files.case_id, imaging=imaging, labels=labels, **where)
        return case, " ".join(warnings)

    def _found(self, name: str, arm: str) -> tuple[np.ndarray, dict[str, float]]:
        """The label map of an arm's cascade, and its scores."""
        (scan, _), models = self._scan(name), self._network(arm)
        where, autocast = (scan.imaging, scan.spacing), self.accelerator.autocast
        stages, weights = (models.kidney, models.tumor), models.about["kidney"]["weights"]
        kidney = self._once(name, weights, partial(models.kidney.mask, *where, autocast))
        labels = segment(*where, *stages, autocast=autocast, kidney=kidney).labels
        row = measure(labels, scan.spacing)
        if scan.labels is not None:
            row["dice"] = dice(labels > 0, scan.labels > 0)
            row["tumor_dice"] = dice(labels == 2, scan.labels == 2)
        return labels, row

    def _network(self, arm: str) -> Models:
        """Both networks of an arm; RunError, with the command that trains it, where it has none."""
        if arm not in self._networks:
            self._networks[arm] = Models.of(self._folders(arm), self.accelerator)
        return self._networks[arm]

    def _folders(self, arm: str) -> dict[str, Path]:
        if arm == SHIPPED:
            return {"kidney": WEIGHTS / "kidney", "tumor": WEIGHTS / "tumor"}
        kidney = recorded(self.config, "02_kidney")["run"]
        tumor = recorded(self.config, f"03_tumor-{arm}-s{self.config.seed}")["run"]
        runs = self.config.store / "runs"
        return {"kidney": runs / kidney, "tumor": runs / tumor}

    def _trained(self) -> list[str]:
        """The arms that the study has trained, that of the cascade first."""
        found = []
        for arm in self.config.arms:
            with suppress(RunError):  # not yet, or with other settings or code
                self._folders(arm)
                found.append(arm)
        return sorted(found, key=lambda arm: arm != "full")

    def _given(self) -> dict[str, data.CaseFiles]:
        """The scans of `file`, a path from here or from the project, with labels beside them."""
        path = Path(self.file).expanduser()
        path = next((place for place in (path, HERE / path) if place.exists()), path)
        found, failures = find_scans([path])
        if not found:
            raise ExploreError(reason(*next(iter(failures.items()))))
        scans = {}
        for name, imaging in found.items():
            labels = imaging.parent / "segmentation.nii.gz"
            labels = labels if stem(imaging) == "imaging" and labels.is_file() else None
            scans[name] = data.CaseFiles(case_id=name, imaging=imaging, segmentation=labels)
        return scans

    def _cases(self) -> dict[str, data.CaseFiles]:
        """The study's cases with imaging; `words` gets which of them its networks have seen."""
        folder = data.data_folder(self.config, write_cohort, jobs=usable_cores())
        try:
            scans = {case.case_id: case for case in data.find_cases(folder) if case.imaging}
        except (data.CaseError, OSError) as error:
            raise ExploreError(reason(folder, error)) from None
        if not scans:
            raise ExploreError(f"{folder}: no case here has imaging; fetch it, or name a file")
        with suppress(data.CaseError):  # too few to split
            split = data.study_split(
                self.config, data.study_files(self.config, folder, check=False)
            )
            trained = {*split.kidney_train, *split.tumor_train}
            words = {name: f"{name}, unseen" for name in split.cascade_test}
            words |= {name: f"{name}, trained on" for name in scans if name in trained}
            self.words |= words if self.arms[1:] else {}
        return scans


def answer(shown: Shown) -> Output:
    """Return what was found, in words and numbers, for the top of the page."""
    told, numbers = [], []
    for row in shown.scores.to_dict("records"):
        panel, tumor = row["panel"], f"{row['tumor_ml']:.1f} ml of tumour"
        words = f"`{panel}`: {row['kidney_and_masses_ml']:.0f} ml of kidneys and masses"
        told.append(f"{words}, {tumor if row['tumor_ml'] else 'no tumour'}")
        for name, label in (("dice", "kidneys and masses"), ("tumor_dice", "tumour")):
            if panel != "truth":
                number = {"label": f"Dice of {panel}, {label}", "value": row.get(name)}
                numbers.append(number | {"reason": "no labels of it"})
    return answer_output(f"What is found in {shown.title}?", "; ".join(told) + ".", numbers)
