"""`predict`: scans to label maps with the networks of a study."""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import platform
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from safetensors import SafetensorError

from kitslib import __version__, data
from kitslib.commands.line import new_file, passing, positive
from kitslib.commands.measurements import add_row, measure, write_preview
from kitslib.commands.outcome import DICOM, Report, complain, now
from kitslib.commands.outputs import digests, files_of, finished, scan_key, settle, try_outputs
from kitslib.commands.scans import find_scans, is_nifti, output_files
from kitslib.commands.summary import tumor_position, write_summary
from kitslib.config import building, duration_text, key, replacing, usable_cores, write_json
from kitslib.evaluation import WITHOUT, KidneyStage, TumorStage, contrast, segment
from kitslib.networks import build, ready
from kitslib.training import Run, RunError, commit, device_name, models_folder, start, versions
from kitslib.transforms import restore_probability

STAGES: dict[str, Any] = {"kidney": KidneyStage, "tumor": TumorStage}
NO_CONTRAST = (
    "the kidneys show no contrast agent: tumours are far harder to find in such a scan; "
    "`kitslib info` says how often these networks find them"
)
TEST_CASES = range(210, 300)  # of KiTS19, whose labels the challenge keeps


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit status 1 when a scan could not be segmented; the others are segmented."
    words = "CT scans: .nii(.gz) files, folders of them, DICOM series (folder, .zip or .dcm), KiTS"
    argument, cores = parser.add_argument, usable_cores()
    argument("imaging", type=Path, nargs="+", metavar="IMAGING", help=words)
    argument("-o", dest="out", type=Path, required=True, metavar="OUT", help="folder, or a .nii.gz")
    argument("--models", type=Path, metavar="DIR", help="with kidney/ and tumor/ (default: ours)")
    argument("--probabilities", action="store_true", help="also write the probability maps")
    argument("--summary", action="store_true", help="also write a page of HTML for each scan")
    argument("--dicom-seg", action="store_true", help="also write a DICOM SEG of a DICOM scan")
    argument("--rtstruct", action="store_true", help="also write an RTSTRUCT of a DICOM scan")
    argument("--submission", type=new_file, metavar="ZIP", help="pack OUT's test cases for KiTS19")
    argument("--report", type=new_file, metavar="FILE", help="also write what the call did as JSON")
    argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    words = "CPU threads (default: %(default)s, the usable cores)"
    argument("--threads", type=threads, default=cores, metavar="N", help=words)
    words = "go on with a call that was ended: scans that are done alike are kept"
    argument("--resume", action="store_true", help=words)
    argument("--force", action="store_true", help="overwrite files that exist")


def run(args: argparse.Namespace) -> int:
    """Segment scans; return 1 where one of them could not be."""
    scans, failures = find_scans(args.imaging)
    if len(scans) > 1 and is_nifti(args.out):
        raise data.CaseError(f"-o {args.out}: with several scans this must be a folder, not a file")
    kinds = ["labels", "sidecar", "preview"]
    kinds += ["kidney", "tumor"] * args.probabilities + ["summary"] * args.summary
    kinds += ["dicom_seg"] * args.dicom_seg + ["rtstruct"] * args.rtstruct
    outputs = {name: output_files(name, args.out) for name in scans}
    more = [file for file in (args.submission, args.report) if file]
    inputs, overwrite = files_of(models_folder(args.models)), args.force or args.resume
    if args.submission and args.submission.exists() and not overwrite:
        raise data.CaseError(f"{args.submission} exists; --force overwrites it")
    failures |= try_outputs(scans, outputs, kinds, more, inputs, overwrite=overwrite)
    scans = {name: path for name, path in scans.items() if path not in failures}
    if not scans and not args.report:
        for path, error in failures.items():
            complain(path, error)
        return 1
    models = Models.load(args.models, start(device=args.device, threads=args.threads))
    report = Report(args.report, models.provenance | {"threads": args.threads})
    for path, error in failures.items():
        report.add(path, error=error)
    began = time.perf_counter()
    for done, (name, path) in enumerate(scans.items(), start=1):
        head, files = f"[{done}/{len(scans)}] {name}", outputs[name]
        try:
            scan, kept = scan_key(path, models.key), None
            if args.resume:
                kept = finished(files, scan, kinds, force=args.force)
            record = kept or segment_scan(name, path, files, models, kinds, head, scan)
            add_row(files["table"], record["measurements"])
        except BrokenPipeError:
            raise
        except Exception as error:  # whatever a scan provokes, the others are segmented
            report.add(path, error=error)
            continue
        made = {kind: files[kind] for kind in kinds}
        report.add(path, record=record, files=made, kept=bool(kept))
        left = (time.perf_counter() - began) / done * (len(scans) - done)
        ending = f", about {duration_text(left)} left" if done < len(scans) else ""
        print(f"{head}: {in_words(record, files['labels'], bool(kept))}{ending}", flush=True)
    if args.submission:
        print(write_submission(args.submission, args.out))
    return report.end()


def threads(text: str) -> int:
    """Read a number of threads, at most as many as the machine has cores."""
    number = positive(text)
    if number > (cores := os.cpu_count() or 1):
        raise argparse.ArgumentTypeError(f"{number} is more than the {cores} cores of this machine")
    return number


def in_words(record: dict[str, Any], labels: Path, kept: bool) -> str:
    """Return what was found in a scan, for a terminal."""
    row = record["measurements"]
    tumor = f"{row['tumor_ml']:.1f} ml, {row['tumor_diameter_mm']:.0f} mm"
    tumor = tumor if row["tumor_ml"] else "none"
    text = f"kidneys and masses {row['kidney_and_masses_ml']:.0f} ml, tumour {tumor}; {labels}"
    return f"{text}, done before" if kept else f"{text} in {duration_text(row['seconds'])}"


@dataclass(frozen=True, kw_only=True)
class Models:
    """The two trained stages, what tells their networks from others, and that in a line."""

    kidney: KidneyStage
    tumor: TumorStage
    accelerator: Accelerator
    about: dict[str, dict[str, Any]]
    description: str  # as an output's header carries it

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        """What made the results, as records say it."""
        software = {"kitslib": __version__, "commit": commit(), "python": platform.python_version()}
        return {
            "models": self.about, "software": software | versions(),
            "device": device_name(self.accelerator.device),
            "precision": self.accelerator.mixed_precision,
        }  # fmt: skip

    @property
    def key(self) -> str:
        """Changes with networks, their settings, the arithmetic and the code."""
        weights = [(about["weights"], about["settings"]) for about in self.about.values()]
        return key(weights, self.accelerator.mixed_precision, self.provenance["software"])

    @classmethod
    def load(cls, folder: Path | None, accelerator: Accelerator) -> Models:
        """Load a folder's stages, or the package's. Raises RunError where one is missing or old."""
        folder = models_folder(folder)
        return cls.of({"kidney": folder / "kidney", "tumor": folder / "tumor"}, accelerator)

    @classmethod
    def of(cls, folders: Mapping[str, Path], accelerator: Accelerator) -> Models:
        """Load the two stages from a run's folder each. Raises RunError as `load` does."""
        stages, about, words = {}, {}, f"kitslib {__version__}"
        for name, kind in STAGES.items():
            folder = folders[name]
            try:
                trained = Run.load(folder)
                settings, weights = trained.settings, folder / "weights.safetensors"
                network = trained.load_weights(build(**settings["network"]))
                stages[name] = kind.of(ready(network, accelerator.device), settings)
                digest = hashlib.sha256(weights.read_bytes()).hexdigest()
                about[name] = {"folder": str(folder), "weights": digest}
                about[name]["settings"] = key(settings)
                words += f" {name} {digest[:8]}"
                about[name] |= {"arm": settings["arm"]["name"]} if "arm" in settings else {}
                about[name] |= {
                    key: settings.get(key) for key in ("network", "seed", "data", "decision")
                }
            except (SafetensorError, KeyError, TypeError) as error:
                text = f"not a network of this version ({type(error).__name__}: {error}); run the "
                text += "study again, or name another folder with --models"
                raise RunError(f"{folder}: {text}") from None
        words = f"{words} {about['tumor'].get('arm', '')}".strip()[:79]
        return cls(**stages, accelerator=accelerator, about=about, description=words)


def segment_scan(
    name: str, path: Path, files: dict[str, Path], models: Models, kinds: list[str], head: str,
    scan: str,
) -> dict[str, Any]:  # fmt: skip
    """Segment a scan into those of its files that `kinds` names; return its record.

    scan: its `scan_key`. The files get their names together, once all are written.
    """
    autocast, times = models.accelerator.autocast, [time.perf_counter()]

    def step(what: str) -> None:
        times.append(time.perf_counter())
        passing(f"{head}: {what}" if what else "")

    passing(f"{head}: reading")
    imaging, geometry, warnings = data.read_scan(path)
    spacing = geometry.spacing
    step("kidneys")
    kidney = models.kidney.mask(imaging, spacing, autocast)
    kind = contrast(imaging, kidney) if kidney.any() else None
    if kind == WITHOUT and models.tumor.decisions:
        warnings = [*warnings, NO_CONTRAST]
    step("tumour")
    found = segment(imaging, spacing, models.kidney, models.tumor, autocast=autocast, kidney=kidney)
    step("writing")
    with building(files["labels"].parent) as place:
        made = {kind: place / files[kind].name for kind in kinds}
        row = {"case": name, **measure(found.labels, spacing)}
        write_preview(made["preview"], name, imaging, found.labels, spacing, row)
        if "kidney" in kinds:
            write_probabilities(made, imaging, kidney, geometry, models)
        more = {}
        if wanted := {kind: made[kind] for kind in DICOM if kind in kinds}:
            from kitslib.commands.dicom_out import write_dicom  # loads for a second

            weights = {stage: about["weights"] for stage, about in models.about.items()}
            more |= write_dicom(wanted, found.labels, geometry, path, weights)
        if "summary" in kinds:
            more["tumor_position"] = tumor_position(found.labels, imaging, spacing)
        record = {
            "case": name, "imaging": str(path), "warnings": warnings, "key": scan,
            "shape": geometry.canonical_shape, "spacing_mm": spacing,
            "axes": "".join(geometry.axis_codes), "labels": {"1": "kidney", "2": "tumour"},
            "scan": kind,
            "measurements": row, **models.provenance, "date": now(), **more,
        }  # fmt: skip
        if "summary" in kinds:
            write_summary(made["summary"], record, made["preview"])
        data.write_labels(made["labels"], found.labels, geometry, description=models.description)
        step("")
        spans = np.diff(times).round(2).tolist()
        record["seconds"] = dict(
            zip(("reading", "kidneys", "tumor", "writing"), spans, strict=True)
        )
        row["seconds"] = round(times[-1] - times[0], 1)
        record["outputs"] = digests(made)
        write_json(made["sidecar"], record)
        settle(made, files)
    for text in warnings:
        print(f"{head}: {text}", file=sys.stderr)
    return record


def write_probabilities(
    files: dict[str, Path], imaging: np.ndarray, kidney: np.ndarray, geometry: data.Geometry,
    models: Models,
) -> None:  # fmt: skip
    """Run both networks again and write their probabilities, float32 in steps of 0.01.

    imaging: HU (D, H, W); kidney: the first stage's mask. The maps have the scan's geometry.
    """
    autocast, tumor = models.accelerator.autocast, np.zeros(imaging.shape, np.float16)
    volume, mapping = data.kidney_input(imaging, geometry.spacing, models.kidney.grid)
    probability = restore_probability(models.kidney.probability(volume, autocast), mapping)
    if kidney.any():
        volume, mask, mapping = data.tumor_input(
            imaging, kidney, geometry.spacing, models.tumor.grid
        )
        tumor = restore_probability(models.tumor.probability(volume, mask, autocast), mapping)
    for stage, values in (("kidney", probability), ("tumor", tumor)):
        about, values = f"{models.description} P({stage})", values.astype(np.float32).round(2)
        data.write_volume(files[stage], values, geometry, description=about, level=1)


def write_submission(path: Path, folder: Path) -> str:
    """Zip a folder's predictions of test cases; return what is in it. Raises CaseError for none."""
    wanted = {number: folder / f"prediction_{number:05}.nii.gz" for number in TEST_CASES}
    missing = [f"{number:05}" for number, file in wanted.items() if not file.is_file()]
    if len(missing) == len(wanted):
        text = f"expected {wanted[210].name} to {wanted[299].name} in {folder}, found none"
        raise data.CaseError(f"--submission: {text}; predict KiTS19's test cases into it")
    with replacing(path) as part, zipfile.ZipFile(part, "w") as packed:  # .gz: compressed already
        for file in filter(Path.is_file, wanted.values()):
            packed.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    text = f"{path}: {len(wanted) - len(missing)} of {len(wanted)} test cases"
    text += f"; the challenge wants all, missing: {', '.join(missing[:5])}" if missing else ""
    return text + (", …" if len(missing) > 5 else "")
