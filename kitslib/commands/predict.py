"""`predict`: scans to label maps with the networks of a study."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kitslib import __version__
from kitslib.commands.line import command, passing, positive

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator

    from kitslib.commands.scans import Outputs, Scan
    from kitslib.data import Geometry
    from kitslib.evaluation import KidneyStage, Segmentation, TumorStage

TEST_CASES = range(210, 300)  # of KiTS19, whose labels the challenge keeps
SUBMITTED = re.compile(r"prediction_(\d{5})\.nii\.gz")


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command's words."""
    made = command(
        commands,
        "predict",
        run,
        "Exit status 1 when a scan could not be segmented; the others are done all the same.",
    )
    made.add_argument(
        "imaging", type=Path, nargs="+", metavar="IMAGING",
        help="CT scans: .nii or .nii.gz files, folders of them, KiTS folders, folders of a DICOM series each",
    )  # fmt: skip
    made.add_argument(
        "-o", dest="out", type=Path, required=True, metavar="OUT", help="folder, or a .nii.gz file"
    )
    made.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help="folder with kidney/ and tumor/ (default: the package's own)",
    )
    made.add_argument(
        "--probabilities", action="store_true", help="also write both networks' probability maps"
    )
    made.add_argument(
        "--submission",
        type=Path,
        metavar="FILE.zip",
        help="pack OUT's test cases as KiTS19 wants them",
    )
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    made.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: all cores)"
    )
    made.add_argument("--force", action="store_true", help="overwrite files that exist")


def run(args: argparse.Namespace) -> int:
    """Segment scans into label maps, each with a preview, a row of volumes and diameters, and a record."""
    from kitslib.commands.findings import add_rows
    from kitslib.commands.scans import Outputs, find_scans
    from kitslib.training import start

    scans, empty = find_scans(args.imaging)
    outputs = [Outputs.of(scan, args.out, several=len(scans) > 1) for scan in scans]
    if not args.force:
        _refuse_existing(outputs, args)
    failed = [_complain(path, error) for path, error in empty]
    if not scans:
        return 1
    accelerator = start(device=args.device, threads=args.threads or os.cpu_count() or 1)
    models = Models.load(args.models, accelerator)
    began, rows = time.perf_counter(), []
    for done, (scan, files) in enumerate(zip(scans, outputs, strict=True), start=1):
        head = f"[{done}/{len(scans)}] {scan.name}"
        try:
            rows.append(
                segment_scan(scan, files, models, probabilities=args.probabilities, head=head)
            )
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            passing("")
            failed.append(_complain(scan.path, error))
            continue
        add_rows(_table(args.out), rows[-1:])
        left = (time.perf_counter() - began) / done * (len(scans) - done)
        print(_sentence(head, files, rows[-1], left), flush=True)
    if args.submission:
        print(write_submission(args.submission, args.out))
    return 1 if failed else 0


@dataclass(frozen=True, kw_only=True)
class Models:
    """The two trained stages and what they are called in what they make."""

    kidney: KidneyStage
    tumor: TumorStage
    accelerator: Accelerator
    about: dict[str, dict[str, Any]]

    @classmethod
    def load(cls, folder: Path | None, accelerator: Accelerator) -> Models:
        """Load the stages from a folder with kidney/ and tumor/; None: the package's own. Raises RunError."""
        from safetensors import SafetensorError

        from kitslib.evaluation import KidneyStage, TumorStage
        from kitslib.networks import build, ready
        from kitslib.training import Run, RunError, models_folder

        folder = models_folder(folder)
        stages, about = {}, {}
        for name, kind in (("kidney", KidneyStage), ("tumor", TumorStage)):
            try:
                trained = Run.load(folder / name)
                network = trained.load_weights(build(**trained.settings["network"]))
                stages[name] = kind.of(ready(network, accelerator.device), trained.settings)
            except (SafetensorError, KeyError, TypeError) as error:
                raise RunError(
                    f"{folder / name}: not a network of this version ({type(error).__name__}: {error}); run the study "
                    "again, or name another folder with --models"
                ) from None
            about[name] = _about(trained)
        return cls(**stages, accelerator=accelerator, about=about)

    @property
    def description(self) -> str:
        """The models in at most 79 characters, as an output's header carries them."""
        kidney, tumor = self.about["kidney"], self.about["tumor"]
        words = f"kitslib {__version__} kidney {kidney['weights'][:8]} tumor {tumor['weights'][:8]}"
        return f"{words} {tumor.get('arm', '')}".strip()[:79]


def segment_scan(
    scan: Scan, files: Outputs, models: Models, *, probabilities: bool, head: str
) -> dict[str, Any]:
    """Segment one scan, write its files and return its row of findings; the label map comes last."""
    from kitslib.commands.findings import measure, write_preview
    from kitslib.config import write_json
    from kitslib.data import write_labels
    from kitslib.evaluation import segment

    began, autocast = time.perf_counter(), models.accelerator.autocast
    passing(f"{head}: reading")
    imaging, geometry, note = scan.read()
    passing(f"{head}: kidneys")
    kidney = models.kidney.mask(imaging, geometry.spacing, autocast)
    passing(f"{head}: tumour")
    found = segment(
        imaging, geometry.spacing, models.kidney, models.tumor, autocast=autocast, kidney=kidney
    )
    passing(f"{head}: writing")
    row = {"case": scan.name, **measure(found.labels, geometry.spacing)}
    write_preview(files.preview, scan.name, imaging, found.labels, geometry.spacing, row)
    if probabilities:
        _write_probabilities(files, imaging, found, geometry, models)
    row["seconds"] = round(time.perf_counter() - began, 1)
    write_json(files.sidecar, _record(scan, geometry, models, row, note))
    write_labels(files.labels, found.labels, geometry, description=models.description)
    passing("")
    if note:
        print(f"{head}: {note}", file=sys.stderr)
    return row


def write_submission(path: Path, folder: Path) -> str:
    """Pack a folder's predictions of KiTS19's test cases into a zip file; return a sentence on what is in it.

    Raises CaseError where there is none.
    """
    from kitslib.config import replacing
    from kitslib.data import CaseError

    files = {}
    for file in folder.glob("prediction_*.nii.gz") if folder.is_dir() else ():
        match = SUBMITTED.fullmatch(file.name)
        if match and int(match.group(1)) in TEST_CASES:
            files[int(match.group(1))] = file
    if not files:
        raise CaseError(
            f"--submission: expected prediction_{TEST_CASES[0]:05}.nii.gz to prediction_{TEST_CASES[-1]:05}.nii.gz in "
            f"{folder}, found none; predict KiTS19's test cases into it"
        )
    with (
        replacing(path) as part,
        zipfile.ZipFile(part, "w") as packed,
    ):  # label maps are compressed already
        for number in sorted(files):
            packed.writestr(zipfile.ZipInfo(files[number].name), files[number].read_bytes())
    missing = [number for number in TEST_CASES if number not in files]
    words = f"{path}: {len(files)} of {len(TEST_CASES)} test cases"
    shown = ", ".join(f"{number:05}" for number in missing[:5]) + (
        ", …" if len(missing) > 5 else ""
    )
    return f"{words}; the challenge wants all, missing: {shown}" if missing else words


def _refuse_existing(outputs: Sequence[Outputs], args: argparse.Namespace) -> None:
    from kitslib.data import CaseError

    for files in outputs:
        files.refuse_existing(probabilities=args.probabilities)
    if args.submission and args.submission.exists():
        raise CaseError(f"{args.submission} exists; --force overwrites it")


def _complain(path: Path, error: BaseException) -> Path:
    print(f"kitslib predict: {path}: {error or type(error).__name__}", file=sys.stderr)
    return path


def _table(out: Path) -> Path:
    """Where the rows of findings go."""
    if out.name.endswith((".nii", ".nii.gz")):
        return out.with_name(f"{out.name.removesuffix('.gz').removesuffix('.nii')}.csv")
    return out / "predictions.csv"


def _sentence(head: str, files: Outputs, row: dict[str, Any], left: float) -> str:
    tumor = (
        f"{row['tumor_ml']:.1f} ml, {row['tumor_diameter_mm']:.0f} mm"
        if row["tumor_ml"]
        else "none"
    )
    words = f"{head}: kidneys {row['kidney_and_masses_ml']:.0f} ml, tumour {tumor}; {files.labels} in {row['seconds']:.0f} s"
    return words + (f", about {left:.0f} s left" if left else "")


def _about(trained: Any) -> dict[str, Any]:
    """What tells a trained network from others: its folder, the key of its weights, and how it was trained."""
    weights = trained.folder / "weights.safetensors"
    settings = trained.settings
    more = {"arm": settings["arm"]["name"]} if "arm" in settings else {}
    return {
        "folder": str(trained.folder),
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        **more,
        "network": settings["network"],
        "seed": settings.get("seed"),
        "data": settings.get("data"),
    }


def _record(
    scan: Scan, geometry: Geometry, models: Models, row: dict[str, Any], note: str
) -> dict[str, Any]:
    """What the sidecar says: the scan, what was found, and by what."""
    from kitslib.training import commit, device_name, versions

    return {
        "imaging": str(scan.path),
        "note": note,
        "shape": geometry.canonical_shape,
        "spacing_mm": geometry.spacing,
        "axes": "".join(geometry.axis_codes),
        "labels": {"1": "kidney", "2": "tumour"},
        "findings": row,
        "models": models.about,
        "software": {
            "kitslib": __version__,
            "commit": commit(),
            "python": platform.python_version(),
            **versions(),
        },
        "device": device_name(models.accelerator.device),
        "precision": models.accelerator.mixed_precision,
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC",
    }


def _write_probabilities(
    files: Outputs, imaging: np.ndarray, found: Segmentation, geometry: Geometry, models: Models
) -> None:
    """Write what each network gave, from 0 to 1 in hundredths, as float32 in the scan's geometry; runs them again."""
    import numpy as np

    from kitslib.data import kidney_input, tumor_input, write_volume
    from kitslib.transforms import restore_probability

    autocast, spacing = models.accelerator.autocast, geometry.spacing
    volume, mapping = kidney_input(imaging, spacing, models.kidney.grid)
    native = {"kidney": restore_probability(models.kidney.probability(volume, autocast), mapping)}
    if found.kidney.any():
        volume, mask, mapping = tumor_input(imaging, found.kidney, spacing, models.tumor.grid)
        native["tumor"] = restore_probability(
            models.tumor.probability(volume, mask, autocast), mapping
        )
    else:
        native["tumor"] = np.zeros(imaging.shape, np.float16)
    for stage, path in files.probabilities.items():
        values = native.pop(stage).astype(np.float32).round(2)
        write_volume(
            path, values, geometry, description=f"{models.description} P({stage})", level=1
        )
