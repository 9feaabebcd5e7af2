"""`predict`: scans to label maps with the networks of a study."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from safetensors import SafetensorError

from kitslib import __version__
from kitslib.commands.line import passing, positive
from kitslib.commands.measurements import add_row, measure, write_preview
from kitslib.commands.scans import NIFTI, find_scans, output_files, read_scan
from kitslib.config import duration_text, replacing, write_json
from kitslib.data import CaseError, Geometry, kidney_input, tumor_input, write_labels, write_volume
from kitslib.evaluation import KidneyStage, TumorStage, segment
from kitslib.networks import build, ready
from kitslib.training import Run, RunError, commit, device_name, models_folder, start, versions
from kitslib.transforms import restore_probability

TEST_CASES = range(210, 300)  # of KiTS19, whose labels the challenge keeps


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit status 1 when a scan could not be segmented; the others are segmented."
    words = "CT scans: .nii(.gz) files, folders of them or of a DICOM series each, KiTS folders"
    argument = parser.add_argument
    argument("imaging", type=Path, nargs="+", metavar="IMAGING", help=words)
    argument("-o", dest="out", type=Path, required=True, metavar="OUT", help="folder, or a .nii.gz")
    argument("--models", type=Path, metavar="DIR", help="with kidney/ and tumor/ (default: ours)")
    argument("--probabilities", action="store_true", help="also write the probability maps")
    argument("--dicom-seg", action="store_true", help="also write a DICOM SEG of a DICOM scan")
    argument("--rtstruct", action="store_true", help="also write an RTSTRUCT of a DICOM scan")
    argument("--submission", type=Path, metavar="ZIP", help="pack OUT's test cases for KiTS19")
    argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    argument("--threads", type=positive, metavar="N", help="CPU threads (default: all cores)")
    argument("--force", action="store_true", help="overwrite files that exist")


def run(args: argparse.Namespace) -> int:
    """Segment scans; return 1 where one of them could not be."""
    scans, empty = find_scans(args.imaging)
    if len(scans) > 1 and args.out.name.endswith(NIFTI):
        raise CaseError(f"-o {args.out}: with several scans this must be a folder, not a file")
    outputs = {name: output_files(name, args.out) for name in scans}
    kinds = ["labels", "sidecar", "preview"]
    kinds += ["kidney", "tumor"] * args.probabilities
    kinds += ["dicom_seg"] * args.dicom_seg + ["rtstruct"] * args.rtstruct
    wanted = [files[kind] for files in outputs.values() for kind in kinds]
    for file in [*wanted, args.submission]:
        if file and file.exists() and not args.force:
            raise CaseError(f"{file} exists; --force overwrites it")
    for path, error in empty.items():
        complain(path, error)
    if not scans:
        return 1
    accelerator = start(device=args.device, threads=args.threads or os.cpu_count() or 1)
    models = Models.load(args.models, accelerator)
    began, failed = time.perf_counter(), len(empty)
    for done, (name, path) in enumerate(scans.items(), start=1):
        head, files = f"[{done}/{len(scans)}] {name}", outputs[name]
        try:
            row, missing = segment_scan(name, path, files, models, kinds, head)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            complain(path, error)
            failed += 1
            continue
        add_row(files["table"], row)
        for text in missing:
            complain(path, text)
        failed += len(missing)
        tumor = f"{row['tumor_ml']:.1f} ml, {row['tumor_diameter_mm']:.0f} mm"
        tumor = tumor if row["tumor_ml"] else "none"
        text = f"{head}: kidneys and masses {row['kidney_and_masses_ml']:.0f} ml, tumour {tumor}; "
        text += f"{files['labels']} in {duration_text(row['seconds'])}"
        left = (time.perf_counter() - began) / done * (len(scans) - done)
        text += f", about {duration_text(left)} left" if done < len(scans) else ""
        print(text, flush=True)
    if args.submission:
        print(write_submission(args.submission, args.out))
    return int(failed > 0)


def complain(path: Path, error: BaseException | str) -> None:
    """Say on standard error why a scan could not be segmented, or an output not be written."""
    passing("")
    print(f"kitslib predict: {path}: {error or type(error).__name__}", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class Models:
    """The two trained stages, what tells their networks from others, and that in a line."""

    kidney: KidneyStage
    tumor: TumorStage
    accelerator: Accelerator
    about: dict[str, dict[str, Any]]
    description: str  # as an output's header carries it

    @classmethod
    def load(cls, folder: Path | None, accelerator: Accelerator) -> Models:
        """Load a folder's stages, or the package's. Raises RunError where one is missing or old."""
        folder, stages, about, words = models_folder(folder), {}, {}, f"kitslib {__version__}"
        for name, kind in (("kidney", KidneyStage), ("tumor", TumorStage)):
            try:
                trained = Run.load(folder / name)
                settings, weights = trained.settings, folder / name / "weights.safetensors"
                network = trained.load_weights(build(**settings["network"]))
                stages[name] = kind.of(ready(network, accelerator.device), settings)
                digest = hashlib.sha256(weights.read_bytes()).hexdigest()
                about[name] = {"folder": str(folder / name), "weights": digest}
                words += f" {name} {digest[:8]}"
                about[name] |= {"arm": settings["arm"]["name"]} if "arm" in settings else {}
                about[name] |= {
                    key: settings.get(key) for key in ("network", "seed", "data", "decision")
                }
            except (SafetensorError, KeyError, TypeError) as error:
                text = f"not a network of this version ({type(error).__name__}: {error}); run the "
                text += "study again, or name another folder with --models"
                raise RunError(f"{folder / name}: {text}") from None
        words = f"{words} {about['tumor'].get('arm', '')}".strip()[:79]
        return cls(**stages, accelerator=accelerator, about=about, description=words)


def segment_scan(
    name: str, path: Path, files: dict[str, Path], models: Models, kinds: list[str], head: str
) -> tuple[dict[str, Any], list[str]]:
    """Segment a scan into those of its files that `kinds` names (of `output_files`), labels last.

    Return its row of the table, and why DICOM outputs could not be written.
    """
    began, autocast = time.perf_counter(), models.accelerator.autocast
    passing(f"{head}: reading")
    imaging, geometry, note = read_scan(path)
    spacing = geometry.spacing
    passing(f"{head}: kidneys")
    kidney = models.kidney.mask(imaging, spacing, autocast)
    passing(f"{head}: tumour")
    found = segment(imaging, spacing, models.kidney, models.tumor, autocast=autocast, kidney=kidney)
    passing(f"{head}: writing")
    row = {"case": name, **measure(found.labels, spacing)}
    write_preview(files["preview"], name, imaging, found.labels, spacing, row)
    if "kidney" in kinds:
        write_probabilities(files, imaging, kidney, geometry, models)
    dicom = {}
    if wanted := {kind: files[kind] for kind in ("dicom_seg", "rtstruct") if kind in kinds}:
        from kitslib.commands.dicom_out import write_dicom  # loads for a second

        weights = {stage: about["weights"] for stage, about in models.about.items()}
        dicom = write_dicom(wanted, found.labels, geometry, path, weights)
    row["seconds"] = round(time.perf_counter() - began, 1)
    software = {"kitslib": __version__, "commit": commit(), "python": platform.python_version()}
    sidecar = {
        "imaging": str(path), "note": note,
        "shape": geometry.canonical_shape, "spacing_mm": spacing,
        "axes": "".join(geometry.axis_codes), "labels": {"1": "kidney", "2": "tumour"},
        "measurements": row, "models": models.about, "software": software | versions(),
        "device": device_name(models.accelerator.device),
        "precision": models.accelerator.mixed_precision,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    } | dicom  # fmt: skip
    write_json(files["sidecar"], sidecar)
    write_labels(files["labels"], found.labels, geometry, description=models.description)
    passing("")
    if note:
        print(f"{head}: {note}", file=sys.stderr)
    errors = [about["error"] for about in dicom.values() if "error" in about]
    return row, list(dict.fromkeys(errors))  # one sentence where both have the same


def write_probabilities(
    files: dict[str, Path], imaging: np.ndarray, kidney: np.ndarray, geometry: Geometry,
    models: Models,
) -> None:  # fmt: skip
    """Run both networks again and write their probabilities, float32 in steps of 0.01.

    imaging: HU (D, H, W); kidney: the first stage's mask. The maps have the scan's geometry.
    """
    autocast, tumor = models.accelerator.autocast, np.zeros(imaging.shape, np.float16)
    volume, mapping = kidney_input(imaging, geometry.spacing, models.kidney.grid)
    probability = restore_probability(models.kidney.probability(volume, autocast), mapping)
    if kidney.any():
        volume, mask, mapping = tumor_input(imaging, kidney, geometry.spacing, models.tumor.grid)
        tumor = restore_probability(models.tumor.probability(volume, mask, autocast), mapping)
    for stage, values in (("kidney", probability), ("tumor", tumor)):
        about, values = f"{models.description} P({stage})", values.astype(np.float32).round(2)
        write_volume(files[stage], values, geometry, description=about, level=1)


def write_submission(path: Path, folder: Path) -> str:
    """Zip a folder's predictions of test cases; return what is in it. Raises CaseError for none."""
    wanted = {number: folder / f"prediction_{number:05}.nii.gz" for number in TEST_CASES}
    missing = [f"{number:05}" for number, file in wanted.items() if not file.is_file()]
    if len(missing) == len(wanted):
        text = f"expected {wanted[210].name} to {wanted[299].name} in {folder}, found none"
        raise CaseError(f"--submission: {text}; predict KiTS19's test cases into it")
    with replacing(path) as part, zipfile.ZipFile(part, "w") as packed:  # .gz: compressed already
        for file in filter(Path.is_file, wanted.values()):
            packed.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    text = f"{path}: {len(wanted) - len(missing)} of {len(wanted)} test cases"
    text += f"; the challenge wants all, missing: {', '.join(missing[:5])}" if missing else ""
    return text + (", …" if len(missing) > 5 else "")
