"""Preprocessed cases in a content-keyed memory-mapped cache.

A case of a stage is one folder `CACHE/<stage>/<case id>-<key>/` with the arrays of `Entry` as .npy
files and meta.json. The key covers the source files' fingerprints, the parameters and the code: an
entry is right or absent. HU are stored as they are, so all HU windows share one cache.
"""

import json
import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as MappingABC
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from kitslib.config import KidneyGrid, TumorGrid, code_key, key, read_json
from kitslib.data.cases.discovery import CaseFiles
from kitslib.data.cases.files import LABEL_VERSIONS, Case, LabelVersion, fingerprint, load_case
from kitslib.data.stages import kidney_input, stage_labels, tumor_input
from kitslib.transforms import Mapping, kidney_slices

ENTRY_CODE = (  # the files whose code makes an entry
    "data/cases/errors.py", "data/cases/files.py", "data/cases/geometry.py", "data/cases/nifti.py",
    "data/cohort.py", "data/stages.py",
    "transforms/grids.py", "transforms/masks.py", "transforms/resampling.py",
)  # fmt: skip
StageGrid = KidneyGrid | TumorGrid
_PART = f".part-{socket.gethostname()}"
_DIED = "a worker died: for want of memory (use fewer jobs), or because a script calls this "
_DIED += "outside if __name__ == '__main__'"


class CohortError(ValueError):
    """Cases that cannot be prepared, or a case that a cohort does not have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One preprocessed case; its arrays (D, H, W) are read-only views of the cache's files.

    imaging: int16 HU. labels: uint8 0..3. Of the tumour stage, else None: mask, uint8 0/1, the
    grown kidney mask; truth, the scan's own labels in the mapping's box. meta: `affine`, `labels`
    (version), `cysts_known`, `volumes_ml` (kidney is label 1 alone), and half-open slice ranges:
    `kidney_range` holds kidney, training draws from `train_range`.
    """

    case_id: str
    imaging: np.ndarray
    labels: np.ndarray
    mask: np.ndarray | None = None
    truth: np.ndarray | None = None
    meta: dict[str, Any]

    @property
    def mapping(self) -> Mapping:
        """The native grid and the stage grid: what the inverse needs."""
        return Mapping.from_json(self.meta["mapping"])

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Spacing (z, y, x) of the arrays in mm."""
        return self.mapping.stage.spacing


class Cohort(MappingABC[str, Entry]):
    """Preprocessed cases by id, opened on first use; it pickles as paths, for data loaders."""

    def __init__(self, folders: MappingABC[str, Path]) -> None:
        self._folders = dict(folders)
        self._opened: dict[str, Entry] = {}

    @property
    def case_ids(self) -> tuple[str, ...]:
        """The cases in order."""
        return tuple(self._folders)

    @property
    def key(self) -> str:
        """16 hex digits that change with any entry's content and with the order of the cases."""
        return key([folder.name for folder in self._folders.values()])

    def __getitem__(self, case_id: str) -> Entry:
        if case_id not in self._opened:
            folder, arrays = self._folder(case_id), {}
            try:
                meta = read_json(folder / "meta.json")
                for name in meta["bytes"]:
                    array = np.load(folder / name, mmap_mode="r")
                    arrays[name.removesuffix(".npy")] = np.asarray(array)
            except FileNotFoundError as error:
                text = f"{case_id}: {folder} is gone; prepare the cohort again"
                raise CohortError(text) from error
            self._opened[case_id] = Entry(case_id=case_id, meta=meta, **arrays)
        return self._opened[case_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)

    def __getstate__(self) -> dict[str, Any]:
        return {"_folders": self._folders, "_opened": {}}

    def subset(self, case_ids: Iterable[str]) -> "Cohort":
        """The cohort of these cases, in this order; raises CohortError for one not here."""
        return Cohort({case_id: self._folder(case_id) for case_id in case_ids})

    def _folder(self, case_id: str) -> Path:
        if case_id not in self._folders:
            known = ", ".join(self.case_ids[:5]) + (", …" if len(self) > 5 else "")
            raise CohortError(f"{case_id} is not among the {len(self)} prepared cases ({known})")
        return self._folders[case_id]


def prepare(
    files: list[CaseFiles], stage: StageGrid, cache: Path, *, labels: LabelVersion = "kits19",
    jobs: int = 1, progress: Callable[[int, int], None] | None = None,
) -> Cohort:  # fmt: skip
    """Preprocess the cases that the cache does not have for a stage, and return all of them.

    jobs: processes; each needs about twice a scan's int16 size. progress(done, total) is called at
    the start and after every case. Raises CohortError naming the cases that failed, once the others
    are in the cache.
    """
    if not isinstance(stage, StageGrid):
        raise CohortError(f"stage must be a KidneyGrid or a TumorGrid, got {stage!r}")
    if labels not in LABEL_VERSIONS:
        raise CohortError(f"labels must be one of {', '.join(LABEL_VERSIONS)}, got {labels!r}")
    if jobs < 1:
        raise CohortError(f"jobs must be at least 1, got {jobs}")
    _check_usable(files)
    root = Path(cache) / _stage_name(stage)
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    code = code_key(*ENTRY_CODE)
    folders, work, failures = {}, [], []
    for item in files:
        folder = root / f"{item.case_id}-{_entry_key(item, stage, labels, code)}"
        folders[item.case_id] = folder
        if not _is_whole(folder):
            work.append((item, stage, labels, folder))
    ready, report = len(files) - len(work), progress or (lambda done, total: None)
    report(ready, len(files))
    for done, (case_id, failure) in enumerate(_run(work, jobs), start=ready + 1):
        if failure:
            failures.append((case_id, failure))
        report(done, len(files))
    if failures:
        lines = "".join(f"\n  {case_id}: {text}" for case_id, text in sorted(failures))
        raise CohortError(f"{len(failures)} of {len(files)} cases cannot be prepared:{lines}")
    return Cohort(folders)


def _run(work: list[tuple], jobs: int) -> Iterator[tuple[str, str]]:
    """(case id, what went wrong or "") of each piece of work as it is finished."""
    if min(jobs, len(work)) <= 1:
        yield from (_attempt(*piece) for piece in work)
        return
    pool = ProcessPoolExecutor(min(jobs, len(work)), mp_context=get_context("spawn"))
    try:
        running = {pool.submit(_attempt, *piece): piece[0].case_id for piece in work}
        for future in as_completed(running):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield running[future], _DIED
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run does not work off its queue


def _attempt(files: CaseFiles, stage: StageGrid, labels: str, folder: Path) -> tuple[str, str]:
    """The case id, and what went wrong or ""."""
    try:
        arrays, meta = _preprocess(load_case(files, labels), stage)
        meta |= {"labels": labels, "cysts_known": files.segmentation_kits23 is not None}
        meta["sources"] = {path.name: fingerprint(path) for path in files.paths if path}
        _write_entry(folder, arrays, meta)
    except (ValueError, OSError, MemoryError) as error:
        return files.case_id, str(error) or type(error).__name__
    return files.case_id, ""


def _preprocess(case: Case, stage: StageGrid) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of an entry by name, and its meta."""
    margin = 0
    if isinstance(stage, KidneyGrid):
        image, mapping = kidney_input(case.imaging, case.spacing, stage)
        arrays, margin = {"imaging": image}, round(stage.margin_mm / stage.spacing_z)
    else:
        image, mask, mapping = tumor_input(case.imaging, case.labels, case.spacing, stage)
        arrays = {"imaging": image, "mask": mask, "truth": case.labels[mapping.box]}
    arrays["labels"] = stage_labels(case.labels, mapping)
    counts = sum(np.bincount(plane.ravel(), minlength=4) for plane in case.labels)
    meta = {
        "case_id": case.case_id,
        "stage": {"name": _stage_name(stage), **asdict(stage)},
        "mapping": mapping.to_json(),
        "affine": np.asarray(case.geometry.affine).tolist(),
        "kidney_range": list(kidney_slices(arrays["labels"])),
        "train_range": list(kidney_slices(arrays["labels"], margin)),
        "volumes_ml": case.geometry.volumes_ml(counts),
    }
    return arrays, meta


def _stage_name(stage: StageGrid) -> str:
    return "kidney" if isinstance(stage, KidneyGrid) else "tumor"


def _check_usable(files: list[CaseFiles]) -> None:
    if not files:
        raise CohortError("no cases to prepare")
    (case_id, count), *_ = Counter(item.case_id for item in files).most_common(1)
    if count > 1:
        raise CohortError(f"{case_id} is listed twice")
    for item in files:
        if item.imaging is None or not any(item.paths[1:]):
            missing = "imaging" if item.imaging is None else "segmentation"
            text = "only cases with both can be prepared; leave it out"
            raise CohortError(f"{item.case_id} has no {missing}: {text}")


def _entry_key(files: CaseFiles, stage: StageGrid, labels: LabelVersion, code: str) -> str:
    try:
        prints = [path and fingerprint(path) for path in files.paths]
    except OSError as error:
        raise CohortError(f"{files.case_id}: a source file cannot be read: {error}") from error
    return key(prints, _stage_name(stage), asdict(stage), labels, code)


def _is_whole(folder: Path) -> bool:
    """Whether an entry is there with all its files at their full size."""
    try:
        sizes = read_json(folder / "meta.json")["bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _write_entry(folder: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Write into a folder beside it and rename: an interrupted write leaves no entry."""
    prefix = f"{_PART}-{os.getpid()}-"
    with TemporaryDirectory(dir=folder.parent, prefix=prefix, ignore_cleanup_errors=True) as place:
        part = Path(place) / folder.name
        part.mkdir()
        for name, array in arrays.items():
            np.save(part / f"{name}.npy", array)
        sizes = {path.name: path.stat().st_size for path in part.iterdir()}
        text = json.dumps(meta | {"bytes": sizes}, indent=1)
        (part / "meta.json").write_text(text, encoding="utf-8")
        if folder.exists() and not _is_whole(folder):
            shutil.rmtree(folder)
        try:
            os.replace(part, folder)
        except OSError:
            if not _is_whole(folder):  # otherwise another process has just written the same entry
                raise


def _sweep(root: Path) -> None:
    """Remove what killed processes left unfinished."""
    for part in root.glob(".part-*"):
        host, pid, _ = part.name.rsplit("-", 2)
        with suppress(FileNotFoundError):  # its owner has just finished
            old = time.time() - part.stat().st_mtime > 86400  # a day
            if old or (host == _PART and not psutil.pid_exists(int(pid))):
                shutil.rmtree(part, ignore_errors=True)
