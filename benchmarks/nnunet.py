"""nnU-Net on the study's cases, with the study's hours: what would it have scored?

nnU-Net v2 by its own fingerprint, planner, preprocessing, trainer and predictor, on the cases that
our networks trained on, each configuration for each budget of training. Epochs and iterations come
from a measured iteration. Its label maps of the test cases are scored as ours are. A call that is
interrupted goes on where it was. Where there is a GPU it is used; `--data`, `--profile` and
`--hours` make the same table of KiTS19.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _beside, _nnunet
from benchmarks._measure import INSTALL, Cell, Table, device, installed, parser
from kitslib.config import read_json, write_json
from kitslib.data import read_imaging, write_imaging

PLANS = ("default", "1GB")  # 3d_fullres as it comes; the planner's memory target, that fits a CPU
CONFIGURATION = "3d_fullres"
COUNTED = {"cpu": 4, "cuda": 60}  # iterations that the schedule is reckoned from, the median


@dataclass(frozen=True)
class Plans:
    """A planner of nnU-Net and its target of GPU memory in GB; None: its own, 8 GB."""

    name: str
    planner: str = "ExperimentPlanner"
    memory: float | None = None

    @classmethod
    def of(cls, name: str) -> Plans:
        """`default`, a memory target such as `1GB`, or a preset such as `ResEncM`."""
        if found := re.fullmatch(r"(\d+(?:\.\d+)?)GB", name):
            return cls(name, memory=float(found[1]))
        if re.fullmatch(r"ResEnc(M|L|XL)", name):
            return cls(name, f"nnUNetPlanner{name}")
        if name != "default":
            words = "expected default, ResEncM, ResEncL, ResEncXL or a memory target such as 1GB"
            raise argparse.ArgumentTypeError(f"{words}, got {name!r}")
        return cls(name)

    @property
    def identifier(self) -> str:
        """The name of its plans in nnU-Net's folders."""
        return f"nnUNetPlans_{self.name}"


def model_folder(work: Path, plans: Plans, hours: float) -> Path:
    """Where nnU-Net keeps a trained network."""
    name = f"nnUNetTrainer__{plans.identifier}__{CONFIGURATION}"
    return work / "results" / f"{hours:g}h" / _nnunet.DATASET / name


def write_raw(task: _beside.Task) -> None:
    """The training cases in nnU-Net's layout: imaging by links, labels of kidney and tumour."""
    folder = task.work / "raw" / _nnunet.DATASET
    if (folder / "dataset.json").is_file():
        return
    for item, files in zip(task.train, task.labelled(), strict=True):
        source_to_nifti(item.imaging, folder / "imagesTr" / f"{item.case_id}_0000.nii.gz")
        _beside.link(Path(files["label"]), folder / "labelsTr" / f"{item.case_id}.nii.gz")
    labels = {"background": 0, "kidney": 1, "tumor": 2}
    about = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", about | {"numTraining": len(task.train)})


def source_to_nifti(source: Path, target: Path) -> None:
    """A scan where nnU-Net looks for it: linked, or written where it is not compressed."""
    if source.name.endswith(".nii.gz"):
        _beside.link(source, target)
    elif not target.is_file():
        write_imaging(target, *read_imaging(source))


def stage(task: _beside.Task, name: str, plans: Plans, results: str, **more: Any) -> dict:
    """Run a stage of nnU-Net for plans; what it took."""
    job = {"plans": plans.identifier, "configuration": CONFIGURATION, "threads": task.threads}
    environment = _nnunet.folders(task.work, results)
    environment |= {"nnUNet_n_proc_DA": str(task.threads), "nnUNet_def_n_proc": str(task.threads)}
    words = _beside.child("benchmarks._nnunet", name.split("-")[0], job | more)
    return task.measured(f"{name}-{plans.name}", words, environment)


def prepare(task: _beside.Task, plans: Plans) -> list[dict[str, Cell]]:
    """Plan, preprocess and time an iteration; rows of what each took."""
    write_raw(task)
    memory = {"planner": plans.planner, "memory": plans.memory}
    pace = task.work / "stages" / f"pace-{plans.name}.json"
    taken = {"planning": stage(task, "plan", plans, "none", **memory)}
    taken["preprocessing"] = stage(task, "preprocess", plans, "none")
    taken["timing an iteration"] = stage(
        task, "calibrate", plans, "pace", to=str(pace), counted=COUNTED[device()]
    )
    return [_beside.cost(f"nnU-Net {plans.name}", name, used) for name, used in taken.items()]


def train(task: _beside.Task, plans: Plans, hours: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train for a budget; what it took, and the schedule with the seconds that epochs took."""
    pace = read_json(task.work / "stages" / f"pace-{plans.name}.json")
    plan = _nnunet.schedule(hours * 3600, pace["step"], pace["validation"])
    epoch_s = plan["iterations"] * pace["step"] + plan["validation"] * pace["validation"]
    used = stage(task, f"train-{hours:g}h", plans, f"{hours:g}h", epoch_s=epoch_s, **plan)
    checkpoint = model_folder(task.work, plans, hours) / f"fold_{_nnunet.FOLD}"
    seconds = _nnunet.trained_seconds(checkpoint / "checkpoint_final.pth")
    return used, plan | {"trained, min": seconds / 60, "s an iteration": pace["step"]}


def predict(task: _beside.Task, plans: Plans, hours: float, mirroring: bool) -> tuple[dict, Path]:
    """Label maps of the test cases; what they took, and their folder."""
    name = f"{hours:g}h{'-mirroring' * mirroring}"
    folder = task.work / "predictions" / plans.name / name
    scans = []
    for item in task.test:
        scan = task.work / "scans" / f"{item.case_id}_0000.nii.gz"
        source_to_nifti(item.imaging, scan)
        scans.append((str(scan), str(folder / item.case_id)))
    model = str(model_folder(task.work, plans, hours))
    more = {"model": model, "mirroring": mirroring, "scans": scans}
    return stage(task, f"predict-{name}", plans, f"{hours:g}h", **more), folder


def plan_row(task: _beside.Task, plans: Plans) -> dict[str, Cell]:
    """What nnU-Net planned."""
    found = _nnunet.plans_of(task.work, plans.identifier, CONFIGURATION)
    network = found["architecture"]["arch_kwargs"]
    return {
        "system": f"nnU-Net {plans.name}",
        "network": found["architecture"]["network_class_name"].rpartition(".")[2],
        "patch": " x ".join(map(str, found["patch_size"])),
        "batch": found["batch_size"],
        "spacing, mm": " x ".join(f"{value:.3g}" for value in found["spacing"]),
        "channels": ", ".join(map(str, network["features_per_stage"])),
    }


def main(arguments: Sequence[str]) -> int:
    """Plan, train, predict and score each configuration and budget; print the tables."""
    reader = parser("nnunet", __doc__, threads=2, repeats=1)
    _beside.options(reader)
    words = "default, ResEncM, ResEncL, ResEncXL, or a memory target such as 1GB (%(default)s)"
    reader.add_argument(
        "--plans", nargs="+", type=Plans.of, default=list(map(Plans.of, PLANS)), help=words
    )
    reader.add_argument(
        "--mirroring", action=argparse.BooleanOptionalAction, default=True,
        help="predict the test cases as nnU-Net does, eight times (%(default)s)",
    )  # fmt: skip
    args = reader.parse_args(arguments)
    if not installed("nnunetv2"):
        print(f"python -m benchmarks nnunet: nnunetv2 is not installed: {INSTALL}", file=sys.stderr)
        return 1
    task = _beside.task(reader, args)
    costs, plans, trained, peers = [], [], [], {}
    for chosen in args.plans:
        costs += prepare(task, chosen)
        plans.append(plan_row(task, chosen))
        for hours in task.hours:
            system = f"nnU-Net {chosen.name}, {hours:g} h"
            used, about = train(task, chosen, hours)
            costs.append(_beside.cost(system, "training", used))
            trained.append({"system": system} | about)
            used, folder = predict(task, chosen, hours, args.mirroring)
            costs.append(_beside.cost(system, f"predicting {len(task.test)} cases", used))
            name = f"scores-{chosen.name}-{folder.name}"
            peers[system] = (hours, task.scored(name, folder))
    mirrored = "with" if args.mirroring else "without"
    tables = _beside.score_tables(task.ours, peers)
    tables += [
        Table(
            title="What it took",
            note="Memory is that of all processes together.",
            rows=[*costs, *task.own_cost()],
        ),
        Table(title="Plans", note=f"By nnU-Net; predicted {mirrored} mirroring.", rows=plans),
        Table(title="Training", note="Seconds are those of epochs, by the clock.", rows=trained),
    ]
    bounds = [_beside.ahead(task.ours, name, rows) for name, (_, rows) in peers.items()]
    question = "What would nnU-Net have scored on the same cases, in the same time?"
    _beside.publish(
        "nnunet", question, task, arguments, args.out, tables, bounds, "nnunetv2", "SimpleITK"
    )
    return 0
