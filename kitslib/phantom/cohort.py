"""Folders of synthetic cases in KiTS19's layout: drawn, or for given label maps."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from kitslib import data
from kitslib.phantom.lesions import Cysts
from kitslib.phantom.scanner import SliceMm
from kitslib.phantom.scene import VARIETIES, Variety, render_case, render_labels, streams
from kitslib.phantom.shapes import Triple

GENERATOR = 2  # raise it when the same seed gives other bits
CLINIC = 2  # the same, of the varieties "clinic" and "wild"
OPTIONS = ("matrix", "spacing_z", "cysts", "variety", "tumor_free")  # of `render_case`
NOTE = "synthetic CT, not a patient"
SUBTYPES = ("clear_cell_rcc", "papillary", "chromophobe", "oncocytoma", "angiomyolipoma")
SUBTYPE_SHARES = (0.68, 0.12, 0.09, 0.07, 0.04)
DEAD_S = 3600  # a half-written case of this age has no writer any more
Progress = Callable[[int, int], None]
Task = tuple[str, dict, Path | None]  # case id, parameters, label map when one is given


def write_cohort(
    out: Path, *, cases: int, seed: int, matrix: int = 512, spacing_z: SliceMm = None,
    cysts: Cysts = "typical", variety: Variety = "kits", tumor_free: float = 0.0, jobs: int = 1,
    progress: Progress | None = None,
) -> list[str]:  # fmt: skip
    """Write case_00000.. with imaging, two label maps (KiTS19, KiTS23), kits.json; return case ids.

    matrix: rows and columns; the field of view stays. spacing_z: slice distances in mm to draw
    from, KiTS19's when None. cysts: `hard` gives every case complex cysts. variety: `clinic` has
    every field of view, phase and rarity, `wild` tissues of any HU besides; a share `tumor_free` of
    their patients has no tumour. A
    case's bits depend on these, seed and its number alone. Complete cases of the same parameters
    are kept, others removed; a folder that is not synthetic is refused. Raises ValueError.
    """
    whole = (("cases", cases, 1), ("seed", seed, 0), ("matrix", matrix, 32), ("jobs", jobs, 1))
    for name, value, low in whole:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(f"{name}: expected a whole number of at least {low}, got {value!r}")
    if cysts not in ("typical", "hard"):
        raise ValueError(f"cysts: expected 'typical' or 'hard', got {cysts!r}")
    if spacing_z is not None:
        if not len(spacing_z) or not all(0.25 <= z <= 10 for z in spacing_z):
            raise ValueError(f"spacing_z: expected 0.25..10 mm each, or None, got {spacing_z}")
        spacing_z = list(map(float, spacing_z))
    own: dict[str, Any] = {"matrix": matrix, "spacing_z": spacing_z, "cysts": cysts}
    own |= {"generator": GENERATOR, "seed": seed}
    if variety not in VARIETIES or not 0 <= tumor_free <= 1:
        words = f"one of {', '.join(VARIETIES)} and a share in [0, 1], got {variety!r} and "
        raise ValueError(f"variety and tumor_free: expected {words}{tumor_free!r}")
    if variety != "kits":
        own |= {"generator": f"clinic {CLINIC}", "variety": variety, "tumor_free": tumor_free}
    elif tumor_free:
        raise ValueError("tumor_free: every case of variety 'kits' has a tumour; choose 'clinic'")
    tasks: list[Task] = [(f"case_{i:05d}", {**own, "index": i}, None) for i in range(cases)]
    return _write_all(Path(out), tasks, jobs, progress)


def write_rendered(
    out: Path, files: Sequence[data.CaseFiles], *, seed: int, jobs: int = 1,
    progress: Progress | None = None,
) -> list[str]:  # fmt: skip
    """Write synthetic CT for the label maps of cases, and those labels, in their own geometry.

    A KiTS23 map is preferred, for its cysts; `segmentation` then has them folded into kidney. The
    rules of `write_cohort` hold. Raises ValueError when there are no cases, or one has no map.
    """
    tasks = []
    for number, case in enumerate(files):
        source = case.segmentation_kits23 or case.segmentation
        if source is None:
            raise ValueError(f"{case.case_id}: expected a label map, found none; leave it out")
        index = int(re.sub(r"\D", "", case.case_id) or number)
        own = {"labels": data.fingerprint(source), "kits23": case.segmentation_kits23 is not None}
        parameters = {"generator": GENERATOR, "seed": seed, "index": index, **own}
        tasks.append((case.case_id, parameters, source))
    if not tasks:
        raise ValueError("files: expected cases with labels, got none; pass find_cases' result")
    return _write_all(Path(out), tasks, jobs, progress)


def _write_all(out: Path, tasks: list[Task], jobs: int, progress: Progress | None) -> list[str]:
    """Write the missing cases, then kits.json."""
    names = sorted(name for name, _, _ in tasks)
    _claim(out, names)
    for part in out.glob(".partial/*"):  # what writers that were killed left behind
        if time.time() - part.stat().st_mtime > DEAD_S:
            shutil.rmtree(part, ignore_errors=True)
    blank = dict.fromkeys(("index", "labels", "kits23"))  # what a case has of its own
    for folder, marker in _markers(out).items():  # a folder holds one cohort
        if marker["parameters"] | blank != tasks[0][1] | blank:
            shutil.rmtree(folder)
    missing = [task for task in tasks if _marker(out / task[0]).get("parameters") != task[1]]
    kept = len(tasks) - len(missing)
    if progress is not None:
        progress(kept, len(tasks))
    for done, _ in enumerate(spread(partial(_write, out), missing, jobs), start=kept + 1):
        if progress is not None:
            progress(done, len(tasks))
    data.write_json(out / "kits.json", [marker["record"] for marker in _markers(out).values()])
    return names


def spread(work: Callable, items: Sequence, jobs: int) -> Iterator:
    """Results of `work` on every item, in order, from this process or from `jobs` spawned ones."""
    if jobs == 1 or len(items) < 2:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(items)), mp_context=context) as pool:
        yield from pool.map(work, items)


def _claim(out: Path, names: list[str]) -> None:
    """Make the folder, or check that what lies there is synthetic."""
    out.mkdir(parents=True, exist_ok=True)
    marker = out / data.SYNTHETIC_MARKER
    for name in (*names, "kits.json", "kits23.json"):
        if (out / name).exists() and not marker.is_file():
            raise ValueError(
                f"{out.name}: expected an empty folder or a synthetic cohort, found {name} and no "
                f"{marker.name}; choose another output folder, real data is never overwritten"
            )
    data.write_json(marker, {"synthetic": True, "generator": GENERATOR, "about": NOTE})


def _marker(folder: Path) -> dict:
    """What the marker of a synthetic case says; empty where none can be read."""
    try:
        return json.loads((folder / data.SYNTHETIC_MARKER).read_text())
    except (OSError, ValueError):
        return {}


def _markers(out: Path) -> dict[Path, dict]:
    """Folders of synthetic cases, sorted, with what their markers say."""
    folders = [path.parent for path in sorted(out.glob(f"*/{data.SYNTHETIC_MARKER}"))]
    return {folder: marker for folder in folders if (marker := _marker(folder))}


def _write(out: Path, task: Task) -> None:
    """Render a case, write it beside its place, then move it there as a whole."""
    name, parameters, source = task
    seed, index = parameters["seed"], parameters["index"]
    if source is None:
        options = {key: parameters[key] for key in OPTIONS if key in parameters}
        imaging, labels, spacing = render_case(index, seed=seed, **options)
        geometry = data.canonical_affine(spacing)
    else:
        labels, geometry = data.read_labels(source)
        spacing = geometry.spacing
        imaging = render_labels(labels, spacing, seed=seed, index=index)
    part = out / ".partial" / f"{name}.{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    data.write_imaging(part / "imaging.nii.gz", imaging, geometry, NOTE)
    if parameters.get("kits23", True):
        data.write_labels(part / "segmentation_kits23.nii.gz", labels, geometry, NOTE)
    folded = np.where(labels == 3, np.uint8(1), labels)
    data.write_labels(part / "segmentation.nii.gz", folded, geometry, NOTE)
    row = _row(name, labels, spacing, streams(seed, index)["row"])
    marker = {"synthetic": True, "parameters": parameters, "record": row}
    data.write_json(part / data.SYNTHETIC_MARKER, marker)
    if _marker(out / name).get("parameters") == parameters:  # another call was faster
        shutil.rmtree(part)
    else:
        shutil.rmtree(out / name, ignore_errors=True)
        os.replace(part, out / name)
    if not any(part.parent.iterdir()):
        part.parent.rmdir()


def _row(name: str, labels: np.ndarray, spacing: Triple, rng: Generator) -> dict:
    """A row of kits.json: a plausible part of KiTS's columns, and the mark that it is synthetic."""
    ml = np.bincount(labels.ravel(), minlength=4)[1:4] * float(np.prod(spacing)) / 1000
    kidney, tumor, cyst = ml.tolist()
    diameter = float(np.cbrt(6 / np.pi * tumor)) * 1.1  # cm, the longest rather than the mean one
    subtype = str(rng.choice(SUBTYPES, p=SUBTYPE_SHARES))
    z, y, x = spacing
    return {
        "case_id": name,
        "synthetic": True,
        "age_at_nephrectomy": int(np.clip(rng.normal(59, 13), 18, 90)),
        "gender": "male" if rng.uniform() < 0.6 else "female",
        "body_mass_index": round(float(np.clip(rng.normal(31, 6.5), 17, 55)), 2),
        "radiographic_size": round(diameter, 1),
        "malignant": subtype not in ("oncocytoma", "angiomyolipoma"),
        "tumor_histologic_subtype": subtype,
        "pathology_t_stage": ("1a", "1b", "2a", "2b")[np.searchsorted((4, 7, 10), diameter)],
        "voxel_spacing": {"x_spacing": x, "y_spacing": y, "z_spacing": z},
        "volume_ml": {"kidney": round(kidney, 2), "tumor": round(tumor, 2), "cyst": round(cyst, 2)},
    }
