"""Folders of synthetic cases in KiTS19's layout, drawn or for given label maps; resumable and parallel."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from kitslib.data import (
    CaseFiles,
    canonical_affine,
    fingerprint,
    read_labels,
    write_imaging,
    write_labels,
)
from kitslib.phantom.lesions import Cysts
from kitslib.phantom.scene import render_case, render_labels, streams

GENERATOR = 2  # raise it when the same seed gives other bits
MARKER = "synthetic.json"
NOTE = "synthetic CT, not a patient"
Progress = Callable[[int, int], None]


def write_cohort(
    out: Path,
    *,
    cases: int,
    seed: int,
    matrix: int = 512,
    spacing_z: tuple[float, ...] | None = None,
    cysts: Cysts = "typical",
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[str]:
    """Write case_00000.. with imaging, two label maps (KiTS19, KiTS23) and kits.json; return the case ids.

    matrix: rows and columns; the field of view stays. spacing_z: slice distances in mm to draw from, KiTS's
    when None. cysts: `hard` gives every case complex cysts. Complete cases of the same parameters are kept,
    others removed; a folder that is not synthetic is refused. A case's bits depend on seed, its number, matrix,
    spacing_z and cysts alone. Raises ValueError.
    """
    _check(cases=cases, seed=seed, matrix=matrix, spacing_z=spacing_z, cysts=cysts, jobs=jobs)
    spacing_z = None if spacing_z is None else tuple(float(z) for z in spacing_z)
    options = {"matrix": matrix, "spacing_z": spacing_z, "cysts": cysts}
    tasks = [
        (
            Path(out),
            f"case_{index:05d}",
            {"generator": GENERATOR, "seed": seed, "index": index, **options},
        )
        for index in range(cases)
    ]
    return _write_all(Path(out), tasks, _write_drawn, jobs, progress)


def write_rendered(
    out: Path,
    files: Sequence[CaseFiles],
    *,
    seed: int,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[str]:
    """Write synthetic CT for the label maps of given cases, and those labels, in their own geometry.

    A KiTS23 map is preferred, for its cysts; `segmentation` then has them folded into kidney. The rules of
    `write_cohort` hold. Raises ValueError when there are no cases, or one has no label map.
    """
    tasks = []
    for number, case in enumerate(files):
        source = case.segmentation_kits23 or case.segmentation
        if source is None:
            raise ValueError(
                f"{case.case_id}: expected a label map to render, found none; leave this case out"
            )
        digits = "".join(c for c in case.case_id if c.isdigit())
        task = {
            "generator": GENERATOR,
            "seed": seed,
            "index": int(digits or number),
            "labels": fingerprint(source),
            "kits23": case.segmentation_kits23 is not None,
        }
        tasks.append((Path(out), case.case_id, {**task, "source": source}))
    if not tasks:
        raise ValueError(
            "files: expected cases with label maps, got none; pass what find_cases returns"
        )
    return _write_all(Path(out), tasks, _write_given, jobs, progress)


def _check(
    *,
    spacing_z: tuple[float, ...] | None,
    cysts: str,
    cases: int,
    seed: int,
    matrix: int,
    jobs: int,
) -> None:
    """Refuse parameters out of range by name."""
    for name, value, low in (
        ("cases", cases, 1),
        ("seed", seed, 0),
        ("matrix", matrix, 32),
        ("jobs", jobs, 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(f"{name}: expected a whole number of at least {low}, got {value!r}")
    if cysts not in ("typical", "hard"):
        raise ValueError(f"cysts: expected 'typical' or 'hard', got {cysts!r}")
    if spacing_z is not None and not (len(spacing_z) and all(0.25 <= z <= 10 for z in spacing_z)):
        raise ValueError(
            f"spacing_z: expected slice distances within 0.25..10 mm, or None, got {spacing_z!r}"
        )


def _write_all(
    out: Path,
    tasks: list[tuple],
    write: Callable[[tuple], dict],
    jobs: int,
    progress: Progress | None,
) -> list[str]:
    """Run the missing tasks, then write the tables of the folder."""
    _claim(out, {task[1] for task in tasks})
    _drop_strangers(out, tasks[0][2])
    records = {task[1]: record for task in tasks if (record := _finished(task)) is not None}
    missing = [task for task in tasks if task[1] not in records]
    done = len(records)
    if progress is not None:
        progress(done, len(tasks))
    for record in _run(missing, write, jobs):
        records[record["case_id"]] = record
        done += 1
        if progress is not None:
            progress(done, len(tasks))
    everything = {
        marker["record"]["case_id"]: marker["record"] for _, marker in _markers(out)
    } | records
    _write_json(out / "kits.json", [everything[name] for name in sorted(everything)])
    return sorted(records)


def _run(tasks: list[tuple], write: Callable[[tuple], dict], jobs: int) -> Iterator[dict]:
    """Results of the tasks as they end, in this process or in spawned ones."""
    if jobs == 1 or len(tasks) < 2:
        yield from map(write, tasks)
        return
    with ProcessPoolExecutor(
        min(jobs, len(tasks)), mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        futures = [pool.submit(write, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _claim(out: Path, wanted: set[str]) -> None:
    """Make the folder, or check that what lies there is ours."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / MARKER).is_file():
        foreign = [name for name in sorted(wanted) if (out / name).exists()] + [
            name for name in ("kits.json", "kits23.json") if (out / name).exists()
        ]
        if foreign:
            raise ValueError(
                f"{out.name}: expected an empty folder or a synthetic cohort, "
                f"found {foreign[0]} and no {MARKER}; "
                "choose another output folder, real data is never overwritten"
            )
    _write_json(out / MARKER, {"synthetic": True, "generator": GENERATOR, "about": NOTE})


def _finished(task: tuple) -> dict | None:
    """The record of a case that exists with the same parameters."""
    out, name, parameters = task
    try:
        found = json.loads((out / name / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return found["record"] if found.get("parameters") == _plain(parameters) else None


def _markers(out: Path) -> list[tuple[Path, dict]]:
    """Folders of synthetic cases with what their markers say."""
    found = []
    for path in sorted(out.glob(f"*/{MARKER}")):
        try:
            found.append((path.parent, json.loads(path.read_text())))
        except (OSError, ValueError):
            continue
    return found


def _drop_strangers(out: Path, parameters: dict) -> None:
    """Remove synthetic cases of another seed, generator or parameters: a folder holds one cohort."""
    own = ("index", "labels", "kits23")
    wanted = {k: v for k, v in _plain(parameters).items() if k not in own}
    for folder, marker in _markers(out):
        if {k: v for k, v in marker["parameters"].items() if k not in own} != wanted:
            shutil.rmtree(folder)


def _plain(parameters: dict) -> dict:
    """Parameters as JSON gives them back, without the source's path."""
    return json.loads(json.dumps({k: v for k, v in parameters.items() if k != "source"}))


def _write_json(path: Path, content: object) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, path)


def _write_drawn(task: tuple) -> dict:
    """Render and write one drawn case."""
    _, name, parameters = task
    index, seed = parameters["index"], parameters["seed"]
    options = {key: parameters[key] for key in ("matrix", "spacing_z", "cysts")}
    imaging, labels, spacing = render_case(index, seed=seed, **options)
    record = _record(name, labels, spacing, streams(seed, index)["record"])
    return _store(task, imaging, labels, canonical_affine(spacing), record, kits23=True)


def _write_given(task: tuple) -> dict:
    """Render and write the CT for one given label map."""
    _, name, parameters = task
    labels, geometry = read_labels(parameters["source"])
    seed, index = parameters["seed"], parameters["index"]
    imaging = render_labels(labels, geometry.spacing, seed=seed, index=index)
    record = _record(name, labels, geometry.spacing, streams(seed, index)["record"])
    return _store(task, imaging, labels, geometry, record, kits23=parameters["kits23"])


def _store(
    task: tuple,
    imaging: np.ndarray,
    labels: np.ndarray,
    geometry: object,
    record: dict,
    kits23: bool,
) -> dict:
    """Write a case beside its place, then move it there as a whole."""
    out, name, parameters = task
    part = out / ".partial" / f"{name}.{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_imaging(part / "imaging.nii.gz", imaging, geometry, NOTE)
    if kits23:
        write_labels(part / "segmentation_kits23.nii.gz", labels, geometry, NOTE)
    write_labels(
        part / "segmentation.nii.gz", np.where(labels == 3, np.uint8(1), labels), geometry, NOTE
    )
    _write_json(
        part / MARKER, {"synthetic": True, "parameters": _plain(parameters), "record": record}
    )
    place = out / name
    if _finished(task) is None:
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)
    else:  # another call was faster
        shutil.rmtree(part)
    if not any(part.parent.iterdir()):
        part.parent.rmdir()
    return record


def _record(
    name: str, labels: np.ndarray, spacing: tuple[float, float, float], rng: np.random.Generator
) -> dict:
    """A row of kits.json: a plausible part of KiTS's columns, and the mark that it is synthetic."""
    millimetres = float(np.prod(spacing))
    counts = np.bincount(labels.ravel(), minlength=4)[:4] * millimetres / 1000
    diameter = (
        float(np.cbrt(6 / np.pi * counts[2])) * 1.1
    )  # cm, the longest rather than the mean one
    subtype = rng.choice(
        ["clear_cell_rcc", "papillary", "chromophobe", "oncocytoma", "angiomyolipoma"],
        p=[0.68, 0.12, 0.09, 0.07, 0.04],
    )
    z, y, x = spacing
    stage = "1a" if diameter <= 4 else "1b" if diameter <= 7 else "2a" if diameter <= 10 else "2b"
    return {
        "case_id": name,
        "synthetic": True,
        "age_at_nephrectomy": int(np.clip(rng.normal(59, 13), 18, 90)),
        "gender": "male" if rng.uniform() < 0.6 else "female",
        "body_mass_index": round(float(np.clip(rng.normal(31, 6.5), 17, 55)), 2),
        "radiographic_size": round(diameter, 1),
        "malignant": str(subtype) not in ("oncocytoma", "angiomyolipoma"),
        "tumor_histologic_subtype": str(subtype),
        "pathology_t_stage": stage,
        "voxel_spacing": {"x_spacing": x, "y_spacing": y, "z_spacing": z},
        "volume_ml": {
            k: round(float(v), 2)
            for k, v in zip(("kidney", "tumor", "cyst"), counts[1:], strict=True)
        },
    }
