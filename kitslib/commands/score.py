"""`score`: label maps against the truth, as KiTS19 and KiTS23 count."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kitslib.commands.line import command, progress_line, write_text

TABLES = {  # title, and the columns: a score's name in a row and in the table
    "KiTS19: Dice of kidney with tumour (TK) and of tumour, and their mean": {
        "tk_dice": "TK", "tumor_dice": "tumour", "composite": "composite", "hd95_kidney_and_masses_mm": "HD95 TK mm",
        "hd95_tumor_mm": "HD95 tumour mm", "tumor_fp_ml": "false positive ml", "cyst_fp_ml": "of it in cyst ml",
    },
    "KiTS23: Dice and surface Dice (S) of kidney with masses, masses, and tumour, and their means": {
        "kits23_kidney_and_masses_dice": "kidney", "kits23_masses_dice": "masses", "kits23_tumor_dice": "tumour",
        "kits23_dice": "mean", "kits23_kidney_and_masses_surface_dice": "S kidney",
        "kits23_masses_surface_dice": "S masses", "kits23_tumor_surface_dice": "S tumour",
        "kits23_surface_dice": "S mean",
    },
}  # fmt: skip
Row = Mapping[str, Any]


def add(commands: argparse._SubParsersAction) -> None:
    """Declare the command's words."""
    made = command(
        commands, "score", run, "The mean comes with a bootstrap 95 % interval over the cases."
    )
    made.add_argument(
        "pred", type=Path, metavar="PRED", help="label map, or folder of prediction_00000.nii.gz"
    )
    made.add_argument(
        "truth", type=Path, metavar="TRUTH", help="label map, or folder of a KiTS cohort"
    )
    made.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="also write every score, mean and interval as JSON",
    )
    made.add_argument(
        "--csv", type=Path, metavar="FILE", help="also write them as CSV, a row per case"
    )
    made.add_argument(
        "--subset", action="store_true", help="score only the cases that were predicted"
    )


def run(args: argparse.Namespace) -> int:
    """Compare label maps with the truth as KiTS does."""
    from kitslib.data import read_labels, require_same_grid
    from kitslib.evaluation import match_cases, rows_to_csv, rows_to_json, score_case, summarise

    predictions, truths = label_files(args.pred), label_files(args.truth)
    if args.pred.is_file() and args.truth.is_file():
        name = next(iter(truths))
        predictions = {name: args.pred}
    names = match_cases(sorted(predictions), sorted(truths), subset=args.subset)
    rows, progress = [], progress_line("scored")
    for done, name in enumerate(names, start=1):
        found, found_geometry = read_labels(predictions[name])
        truth, geometry = read_labels(truths[name])
        require_same_grid(name, geometry, found_geometry, names=("truth", "prediction"))
        rows.append(score_case(found, truth, geometry.spacing, case_id=name))
        progress(done, len(names))
    summary = summarise(rows)
    means = mean_rows(summary["metrics"])
    for title, columns in TABLES.items():
        counts = {"case": "cases", **{name: str(summary["metrics"][name]["n"]) for name in columns}}
        print(f"{title}\n{table([*rows, *means, counts], columns)}\n")
    print(summary["warning"])
    if args.json:
        write_text(args.json, rows_to_json(rows, summary))
    if args.csv:
        write_text(args.csv, rows_to_csv([*rows, *means]))
    return 0


def label_files(path: Path) -> dict[str, Path]:
    """Return label maps by case id: one file, a folder of prediction_00000.nii.gz, or a KiTS cohort."""
    from kitslib.data import CaseError, find_cases

    if path.is_file():
        return {case_id(path): path}
    if not path.is_dir():
        raise CaseError(f"{path}: there is no such file or folder")
    files = sorted([*path.glob("*.nii.gz"), *path.glob("*.nii")])
    files = [file for file in files if not file.name.startswith((".", "probability_"))]
    if files:
        return {case_id(file): file for file in files}
    return {case.case_id: case.segmentation for case in find_cases(path) if case.segmentation}


def case_id(file: Path) -> str:
    """Return the case that a label map belongs to, by its name or its folder's."""
    stem = file.name.removesuffix(".gz").removesuffix(".nii")
    if stem == "segmentation":
        return file.absolute().parent.name
    return f"case_{stem.removeprefix('prediction_')}" if stem.startswith("prediction_") else stem


def mean_rows(metrics: Mapping[str, Row]) -> list[dict[str, Any]]:
    """Return mean and both ends of the 95 % interval as rows like a case's."""
    rows = [{"case": "mean", **{name: found["mean"] for name, found in metrics.items()}}]
    for end, title in enumerate(("95 % from", "95 % to")):
        rows.append({"case": title, **{name: found["ci"][end] for name, found in metrics.items()}})
    return rows


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """Return rows as text, a line each under the columns' titles; a dash where a score is undefined."""
    lines = [["case", *columns.values()]]
    lines += [[str(row["case"]), *(_cell(row[name]) for name in columns)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines
    )


def _cell(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return "–" if math.isnan(value) else f"{value:.3f}"
