"""`score`: label maps against the truth, as KiTS19 and KiTS23 count."""

from __future__ import annotations

import argparse
import re
from collections.abc import Container
from pathlib import Path
from typing import Any

from kitslib.commands.line import new_file, progress_line, text_table
from kitslib.commands.scans import nifti_files, stem
from kitslib.config import write_text
from kitslib.data import CaseError, find_cases, read_labels, require_same_grid
from kitslib.evaluation import match_cases, rows_to_csv, rows_to_json, score_case, summarise

TABLES = {  # a title, and the columns: a score's name and its heading
    "KiTS19: Dice of kidney with tumour (TK) and of tumour, and their mean": {
        "tk_dice": "TK", "tumor_dice": "tumour", "composite": "composite",
        "hd95_kidney_and_masses_mm": "HD95 TK mm", "hd95_tumor_mm": "HD95 tumour mm",
        "tumor_fp_ml": "false positive ml", "cyst_fp_ml": "of it in cyst ml",
    },
    "KiTS23: Dice and surface Dice (S) of kidney with masses, masses, tumour, and their means": {
        "kits23_kidney_and_masses_dice": "kidney", "kits23_masses_dice": "masses",
        "kits23_tumor_dice": "tumour", "kits23_dice": "mean",
        "kits23_kidney_and_masses_surface_dice": "S kidney",
        "kits23_masses_surface_dice": "S masses", "kits23_tumor_surface_dice": "S tumour",
        "kits23_surface_dice": "S mean",
    },
}  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The mean comes with a 95 % interval over the cases."
    argument = parser.add_argument
    argument("pred", type=Path, metavar="PRED", help="label map or folder of prediction_*.nii.gz")
    argument("truth", type=Path, metavar="TRUTH", help="label map, or folder of a KiTS cohort")
    argument("--json", type=new_file, metavar="FILE", help="write scores, means, intervals as JSON")
    argument("--csv", type=new_file, metavar="FILE", help="write them as CSV, a row per case")
    argument("--subset", action="store_true", help="score only the cases that were predicted")


def run(args: argparse.Namespace) -> int:
    """Print the scores of every case, and mean and interval of each score."""
    predictions, truths = label_files(args.pred), label_files(args.truth)
    if args.pred.is_file() and args.truth.is_file():
        predictions = dict.fromkeys(truths, args.pred)
    predictions = {alias(name, truths): file for name, file in predictions.items()}
    names = match_cases(sorted(predictions), sorted(truths), subset=args.subset)
    rows, progress = [], progress_line("scored")
    for done, name in enumerate(names, start=1):
        predicted, predicted_geometry = read_labels(predictions[name])
        truth, geometry = read_labels(truths[name])
        require_same_grid(name, geometry, predicted_geometry, names=("truth", "prediction"))
        rows.append(score_case(predicted, truth, geometry.spacing, case_id=name))
        progress(done, len(names))
    summary = summarise(rows)
    means: list[dict[str, Any]] = [{"case": "mean"}, {"case": "95 % from"}, {"case": "95 % to"}]
    for name, of in summary["metrics"].items():
        for row, value in zip(means, (of["mean"], *of["ci"]), strict=True):
            row[name] = value
    for title, columns in TABLES.items():
        lines = [["case", *columns.values()]]
        for row in [*rows, *means]:
            cells = [f"{row[name]:.3f}".replace("nan", "–") for name in columns]
            lines.append([str(row["case"]), *cells])
        lines.append(["cases", *(str(summary["metrics"][name]["n"]) for name in columns)])
        print(f"{title}\n{text_table(lines)}\n")
    print(summary["warning"])
    if args.json:
        write_text(args.json, rows_to_json(rows, summary))
    if args.csv:
        write_text(args.csv, rows_to_csv([*rows, *means]))
    return 0


def label_files(path: Path) -> dict[str, Path]:
    """Return the label maps of a file, folder or cohort by case. Raises CaseError for none."""
    if path.is_file():
        return {case_id(path): path}
    if not path.is_dir():
        raise CaseError(f"{path}: there is no such file or folder")
    if files := nifti_files(path, leave_out=("probability_",)):
        found = {}
        for file in files:
            if twin := found.get(case_id(file)):
                raise CaseError(f"{twin} and {file} are both of {case_id(file)}; remove one")
            found[case_id(file)] = file
        return found
    return {case.case_id: case.segmentation for case in find_cases(path) if case.segmentation}


def case_id(file: Path) -> str:
    """Return the case that a label map belongs to, by its name or its folder's."""
    if stem(file).lower() == "segmentation":
        return file.absolute().parent.name
    return re.sub(r"\Aprediction_(?=\d{5}\Z)", "case_", stem(file)).removeprefix("prediction_")


def alias(name: str, truths: Container[str]) -> str:
    """Return the true case that a predicted one is, as KiTS, nnU-Net or `predict` name it."""
    number, channel = name.removeprefix("case_"), name.removesuffix("_0000")
    names = (name, number, f"case_{name}", channel, f"case_{channel}", f"{name}_0000")
    return next((one for one in names if one in truths), name)
