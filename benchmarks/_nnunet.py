"""nnU-Net's stages, each in a process of its own: `python -m benchmarks._nnunet STAGE JSON`.

Fingerprint, plans, preprocessing, training and prediction are nnU-Net's own. What is set from here:
epochs, iterations an epoch and validation iterations, how often a checkpoint is kept, and threads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._measure import device, wrap
from kitslib.config import read_json, write_json

DATASET = "Dataset001_KiTS"
FOLD = "all"  # all cases train, as in our study; nnU-Net has no held-out fold then
MOST_EPOCHS, MOST_ITERATIONS = 1000, 250  # nnU-Net's own
FEWEST_ITERATIONS, EPOCHS = 5, 50  # of an epoch; how many epochs a short training should have
TRAIN_TO_VALIDATE = 5  # nnU-Net's ratio of iterations
KEEP_S = 300  # between checkpoints


def folders(work: Path, results: str) -> dict[str, str]:
    """nnU-Net's three folders, as it reads them from the environment."""
    places = {"raw": "raw", "preprocessed": "preprocessed", "results": f"results/{results}"}
    return {f"nnUNet_{name}": str(work / place) for name, place in places.items()}


def schedule(seconds: float, step_s: float, validation_s: float) -> dict[str, int]:
    """Epochs, iterations and validation iterations that fill so many seconds.

    step_s, validation_s: of one iteration of each kind. At least one epoch.
    """
    whole = seconds / (step_s + validation_s / TRAIN_TO_VALIDATE)
    iterations = int(min(max(whole // EPOCHS, FEWEST_ITERATIONS), MOST_ITERATIONS))
    iterations = max(1, min(iterations, int(whole)))
    validation = max(1, iterations // TRAIN_TO_VALIDATE)
    epochs = round(seconds / (iterations * step_s + validation * validation_s))
    epochs = min(max(epochs, 1), MOST_EPOCHS)
    return {"epochs": epochs, "iterations": iterations, "validation": validation}


def plan(job: Mapping[str, Any]) -> None:
    """Fingerprint of the raw cases, then plans; `memory` is the planner's GPU memory in GB."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprints([1], num_processes=job["threads"], clean=False)
    api.plan_experiments(
        [1], job["planner"], gpu_memory_target_in_gb=job["memory"],
        overwrite_plans_name=job["plans"],
    )  # fmt: skip


def preprocess(job: Mapping[str, Any]) -> None:
    """The training cases on the grid of the plans."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.preprocess([1], job["plans"], [job["configuration"]], [job["threads"]])


def calibrate(job: Mapping[str, Any]) -> None:
    """Write seconds of an iteration and of a validation iteration, without the first of each."""
    trainer, seconds = _trainer(job), {"step": [], "validation": []}
    trainer.num_epochs, trainer.disable_checkpointing = 1, True
    trainer.num_iterations_per_epoch = job["counted"]
    trainer.num_val_iterations_per_epoch = job["counted"] // 2 + 1
    ended = {}

    def noted(inner: Callable, kind: str) -> Callable:
        def step(batch: dict) -> dict:
            found, now = inner(batch), time.perf_counter()
            seconds[kind].append(now - ended.get(kind, now))  # with the wait for its batch
            ended[kind] = now
            return found

        return step

    trainer.train_step = noted(trainer.train_step, "step")
    trainer.validation_step = noted(trainer.validation_step, "validation")
    trainer.run_training()
    write_json(Path(job["to"]), {kind: median(times[1:]) for kind, times in seconds.items()})


def train(job: Mapping[str, Any]) -> None:
    """Train to the end, from the last checkpoint where there is one."""
    from nnunetv2.run.run_training import maybe_load_checkpoint

    trainer = _trainer(job, continued=True)
    trainer.num_epochs, trainer.num_iterations_per_epoch = job["epochs"], job["iterations"]
    trainer.num_val_iterations_per_epoch = job["validation"]
    trainer.save_every = max(1, round(KEEP_S / job["epoch_s"]))
    maybe_load_checkpoint(trainer, True, False)
    trainer.run_training()


def predict(job: Mapping[str, Any]) -> None:
    """Label maps of scans by nnU-Net's predictor; whole ones that are there already are kept."""
    from kitslib.data import CaseError, read_labels

    predictor = _predictor(job)
    sources, targets = zip(*job["scans"], strict=True)
    for file in filter(Path.is_file, (Path(f"{target}.nii.gz") for target in targets)):
        try:
            read_labels(file)
        except CaseError:  # cut off when an earlier call was interrupted
            file.unlink()
    predictor.predict_from_files(
        [[source] for source in sources], list(targets), overwrite=False,
        num_processes_preprocessing=1, num_processes_segmentation_export=1,
    )  # fmt: skip


def predict_timed(job: Mapping[str, Any]) -> None:
    """One label map, in one process, and the seconds of its parts to `to`."""
    from nnunetv2.inference import predict_from_raw_data as module
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    parts: dict[str, float] = {}
    wrap(module.nnUNetPredictor, "initialize_from_trained_model_folder", "network read", parts)
    wrap(DefaultPreprocessor, "run_case", "scan read and resampled", parts)
    wrap(module.nnUNetPredictor, "predict_logits_from_preprocessed_data", "network", parts)
    wrap(module, "export_prediction_from_logits", "resampled back and written", parts)
    predictor = _predictor(job)
    (source, target), *_ = job["scans"]
    predictor.predict_from_files_sequential([[source]], [target])
    write_json(Path(job["to"]), parts)


def _predictor(job: Mapping[str, Any]) -> Any:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(job["threads"])
    predictor = nnUNetPredictor(
        use_mirroring=job["mirroring"], device=torch.device(device()), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(job["model"], (FOLD,))
    return predictor


def _trainer(job: Mapping[str, Any], *, continued: bool = False) -> Any:
    """nnU-Net's trainer of the plans, not yet initialised."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.set_num_threads(job["threads"])
    torch.backends.cudnn.benchmark = True
    return get_trainer_from_args(
        DATASET, job["configuration"], FOLD, "nnUNetTrainer", job["plans"], continued,
        torch.device(device()),
    )  # fmt: skip


def trained_seconds(log: Path) -> float:
    """Seconds of all epochs that nnU-Net's checkpoint has noted."""
    import torch

    notes = torch.load(log, map_location="cpu", weights_only=False)["logging"]
    pairs = zip(notes["epoch_start_timestamps"], notes["epoch_end_timestamps"], strict=True)
    return sum(end - start for start, end in pairs)


def plans_of(work: Path, plans: str, configuration: str) -> dict[str, Any]:
    """A configuration of the plans that nnU-Net made."""
    file = work / "preprocessed" / DATASET / f"{plans}.json"
    return read_json(file)["configurations"][configuration]


STAGES = {
    "plan": plan, "preprocess": preprocess, "calibrate": calibrate, "train": train,
    "predict": predict, "predict_timed": predict_timed,
}  # fmt: skip

if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "agg")
    STAGES[sys.argv[1]](json.loads(sys.argv[2]))
