"""The commands: check, phantom, predict, score, report."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kitslib.cases import CaseError

ASKS = {  # what each notebook asks, as the index page says it
    "01_data": "Is the data sound, and what does it cost to move it onto the networks' grids?",
    "02_kidney": "Does the 3D ResUNet find the kidneys, and in a real CT too?",
    "03_tumor": "What does this arm find inside the kidneys?",
    "04_ablations": "What is each mechanism worth?",
    "05_evaluation": "What does the cascade score, and which claims hold?",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line."""

    def error(self, message: str) -> None:
        """Print the complaint and exit with status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def progress_line(what: str) -> Callable[[int, int], None]:
    """Return a progress(done, total) that keeps one line in a terminal up to date, or prints a line at each tenth."""
    began = time.perf_counter()
    shown = -1

    def progress(done: int, total: int) -> None:
        nonlocal shown
        left = (time.perf_counter() - began) / max(done, 1) * (total - done)
        text = f"{what}: {done} of {total}" + (f", {left:.0f} s left" if done else "")
        if sys.stderr.isatty():
            print(f"\r{text}\033[K", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done * 10 // max(total, 1) > shown:
            shown = done * 10 // max(total, 1)
            print(text, file=sys.stderr, flush=True)

    return progress


def check(args: argparse.Namespace) -> int:
    """Read every file of a cohort once and report what is wrong with it."""
    from kitslib.cases import check_cohort, format_reports, reports_to_json

    reports = check_cohort(args.data, jobs=args.jobs, progress=progress_line("checked"))
    print(format_reports(reports))
    if args.json:
        _write(args.json, reports_to_json(reports))
    return 1 if any(report.unusable for report in reports) else 0


def phantom(args: argparse.Namespace) -> int:
    """Write a synthetic cohort, or the CT for given label maps."""
    from kitslib.cases import find_cases
    from kitslib.phantom import write_cohort, write_rendered

    common = {"seed": args.seed, "jobs": args.jobs, "progress": progress_line("rendered")}
    if args.labels:
        if args.cases is not None:
            raise CaseError("--cases and --labels exclude each other: --labels renders every label map it finds")
        names = write_rendered(args.out, find_cases(args.labels), **common)
    else:
        names = write_cohort(args.out, cases=args.cases or 20, matrix=args.matrix, cysts=args.cysts, **common)
    print(f"{len(names)} cases in {args.out}")
    return 0


def output_path(imaging: Path, out: Path, several: bool) -> Path:
    """Return where the prediction of a scan goes: a KiTS19 name in the folder `out`, or `out` itself if a file."""
    if out.name.endswith((".nii", ".nii.gz")):
        if several:
            raise CaseError(f"-o {out}: with several scans this must be a folder, not a file")
        return out
    stem = imaging.name.removesuffix(".gz").removesuffix(".nii")
    name = imaging.resolve().parent.name if stem == "imaging" else stem
    return out / f"prediction_{name.removeprefix('case_')}.nii.gz"


def predict(args: argparse.Namespace) -> int:
    """Segment scans; a broken one is reported and the others go on."""
    import torch

    from kitslib.cascade import KidneyStage, TumorStage, segment
    from kitslib.cases import read_imaging, write_labels
    from kitslib.metrics import volumes_ml
    from kitslib.networks import build
    from kitslib.runs import Run, models_folder, start

    targets = [output_path(path, args.out, len(args.imaging) > 1) for path in args.imaging]
    for target in targets:
        if target.exists() and not args.force:
            raise CaseError(f"{target} exists; --force overwrites it")
    if len(set(targets)) < len(targets):
        raise CaseError("two of the scans would get the same name; predict them into different folders")
    accelerator = start(device=args.device, threads=args.threads or os.cpu_count() or 1)
    models = models_folder(args.models)
    stages = []
    for name, kind in (("kidney", KidneyStage), ("tumor", TumorStage)):
        run = Run.load(models / name)
        network = run.load_weights(build(**run.settings["network"])).to(accelerator.device).eval()
        stages.append(kind.of(network, run.settings))
    failed = 0
    for done, (path, target) in enumerate(zip(args.imaging, targets, strict=True), start=1):
        began = time.perf_counter()
        try:
            imaging, geometry = read_imaging(path)
            with torch.inference_mode():
                found = segment(imaging, geometry.spacing, *stages, autocast=accelerator.autocast)
            write_labels(target, found.labels, geometry, description="kitslib kidney and tumour")
        except (ValueError, OSError) as error:
            failed += 1
            print(f"kitslib predict: {path}: {error}", file=sys.stderr)
            continue
        volumes = volumes_ml(found.labels, geometry.spacing)
        seconds = time.perf_counter() - began
        left = seconds * (len(targets) - done)
        print(
            f"[{done}/{len(targets)}] {target}: kidneys {volumes['kidney']:.0f} ml, tumour {volumes['tumor']:.1f} ml"
            f" in {seconds:.0f} s" + (f", about {left:.0f} s left" if left else "")
        )
    return 1 if failed else 0


def score(args: argparse.Namespace) -> int:
    """Compare label maps with the truth as KiTS does."""
    from kitslib.cases import read_labels, require_same_grid
    from kitslib.metrics import format_rows, match_cases, rows_to_csv, rows_to_json, score_case, summarise

    predictions, truths = label_files(args.pred), label_files(args.truth)
    if args.pred.is_file() and args.truth.is_file():
        name = next(iter(truths))
        predictions = {name: args.pred}
    names = match_cases(sorted(predictions), sorted(truths), subset="allow" if args.subset else "refuse")
    rows, progress = [], progress_line("scored")
    for done, name in enumerate(names, start=1):
        found, found_geometry = read_labels(predictions[name])
        truth, geometry = read_labels(truths[name])
        require_same_grid(name, geometry, found_geometry, names=("truth", "prediction"))
        rows.append(score_case(found, truth, geometry.spacing, case_id=name))
        progress(done, len(names))
    print(format_rows(rows))
    if args.json:
        _write(args.json, rows_to_json(rows, summarise(rows)))
    if args.csv:
        _write(args.csv, rows_to_csv(rows))
    return 0


def label_files(path: Path) -> dict[str, Path]:
    """Return label maps by case id: one file, a folder of prediction_00000.nii.gz, or a KiTS cohort."""
    from kitslib.cases import find_cases

    def case_id(file: Path) -> str:
        stem = file.name.removesuffix(".gz").removesuffix(".nii")
        if stem == "segmentation":
            return file.resolve().parent.name
        return f"case_{stem.removeprefix('prediction_')}" if stem.startswith("prediction_") else stem

    if path.is_file():
        return {case_id(path): path}
    if not path.is_dir():
        raise CaseError(f"{path}: there is no such file or folder")
    files = sorted([*path.glob("*.nii.gz"), *path.glob("*.nii")])
    if files:
        return {case_id(file): file for file in files}
    return {case.case_id: case.segmentation for case in find_cases(path) if case.segmentation}


def report(args: argparse.Namespace) -> int:
    """Turn an executed notebook into an offline page, or a profile's records into its index page."""
    from kitslib.reports import Page, to_html, write_index
    from kitslib.runs import summary, write_json

    if args.index:
        found = summary(args.index)
        names = sorted(path.stem for path in (args.index / "work" / "stages").glob("*.json"))
        pages = [
            Page(title=name.replace("_", " ", 1), href=f"{name}.html", about=ASKS[name.partition("-")[0]])
            for name in names
        ]
        data = "Synthetic CT, rendered for this study" if found["synthetic"] else "The cases of the folder given"
        write_json(args.index / "summary.json", found)
        picture = args.index / "picture.jpg"
        print(
            write_index(
                args.index,
                found,
                pages,
                data=f"{data}: {found['cases']} cases, {found['cascade']['n']} of them seen by neither network.",
                picture=picture if picture.is_file() else None,
                picture_alt="CT slices of the worst, median and best test case with labels and predictions.",
                picture_caption="Worst, median and best test case: label tinted, prediction outlined.",
            )
        )
        return 0
    if not (args.notebook and args.html):
        raise CaseError("report needs NOTEBOOK and HTML, or --index FOLDER")
    print(to_html(args.notebook, args.html))
    return 0


def _write(path: Path, text: str) -> None:
    from kitslib.runs import replacing

    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    main = Parser(prog="python -m kitslib", description="Kidney and kidney-tumour segmentation in CT.")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function: Callable, epilog: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(
            function.__name__, help=function.__doc__, description=function.__doc__, epilog=epilog
        )
        made.set_defaults(run=function)
        return made

    def jobs(made: argparse.ArgumentParser) -> None:
        made.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, metavar="N", help="cases at a time")

    made = command(check, "Exit status 1 when a case cannot be used.")
    made.add_argument("data", type=Path, metavar="DATA", help="folder of a KiTS19, KiTS21 or KiTS23 cohort")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the findings as JSON")
    jobs(made)

    made = command(phantom, "The same case and seed give the same bits, whatever --cases and --jobs are.")
    made.add_argument("out", type=Path, metavar="OUT", help="folder to write the cohort into")
    made.add_argument("--cases", type=positive, metavar="N", help="number of cases (default: 20)")
    made.add_argument("--seed", type=int, default=2019, metavar="S", help="default: 2019")
    made.add_argument("--matrix", type=positive, default=512, metavar="PIXELS", help="rows and columns (default: 512)")
    made.add_argument("--cysts", choices=("typical", "hard"), default="typical", help="hard: complex cysts everywhere")
    made.add_argument("--labels", type=Path, metavar="DIR", help="render the CT of these label maps instead")
    jobs(made)

    made = command(predict, "Exit status 1 when a scan could not be segmented; the others are done all the same.")
    made.add_argument("imaging", type=Path, nargs="+", metavar="IMAGING", help="CT scans (.nii or .nii.gz)")
    made.add_argument("-o", dest="out", type=Path, required=True, metavar="OUT", help="folder, or a .nii.gz file")
    made.add_argument(
        "--models", type=Path, metavar="DIR", help="folder with kidney/ and tumor/ (default: the study's)"
    )
    made.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    made.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all cores)")
    made.add_argument("--force", action="store_true", help="overwrite label maps that exist")

    made = command(score)
    made.add_argument("pred", type=Path, metavar="PRED", help="label map, or folder of prediction_00000.nii.gz")
    made.add_argument("truth", type=Path, metavar="TRUTH", help="label map, or folder of a KiTS cohort")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the scores as JSON")
    made.add_argument("--csv", type=Path, metavar="FILE", help="also write a row per case as CSV")
    made.add_argument("--subset", action="store_true", help="score only the cases that were predicted")

    made = command(report)
    made.add_argument("notebook", type=Path, nargs="?", metavar="NOTEBOOK", help="an executed notebook")
    made.add_argument("html", type=Path, nargs="?", metavar="HTML", help="the page to write")
    made.add_argument("--index", type=Path, metavar="FOLDER", help="write the index page of reports/<profile>")
    return main


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main(words: list[str] | None = None) -> int:
    """Run a command; an error is one line and exit status 1."""
    args = parser().parse_args(words)
    try:
        return args.run(args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"kitslib {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"kitslib {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
