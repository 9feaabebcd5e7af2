"""Where `predict` writes: tested before the work, given their names together, known again."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

from kitslib.commands.line import said
from kitslib.commands.measurements import read_rows
from kitslib.commands.scans import stem
from kitslib.config import key, read_json, size_text
from kitslib.data import CaseError, fingerprint, is_dicom

LEAST_BYTES = 100_000  # of a scan's label map, preview and record, at least
Outputs = Mapping[str, Path]  # a scan's files by kind, as `output_files` returns them


def files_of(scan: Path) -> list[Path]:
    """Return what a scan is read from: the file, or those of the folder, sorted.

    One slice of a DICOM series stands for its folder.
    """
    scan = scan.parent if is_dicom(scan) else scan
    if not scan.is_dir():
        return [scan]
    found = (Path(folder, name) for folder, _, names in os.walk(scan) for name in names)
    return sorted(filter(Path.is_file, found))


def refuse_inputs(outputs: Sequence[Path], inputs: Iterable[Path]) -> None:
    """Refuse outputs that are an input, under whatever name, or each other. Raises CaseError."""
    taken: dict[Any, Path] = {}
    for path in inputs:
        with suppress(OSError):
            taken[_identity(path)] = path
    for number, file in enumerate(outputs):
        with suppress(OSError):
            if path := taken.get(_identity(file)):
                text = f"{file} would be written over {path}, which is read; name another place"
                raise CaseError(f"{text} with -o (--force does not help)")
        if file in outputs[:number]:
            raise CaseError(f"{file} would be written twice; give the outputs names of their own")


def refuse_twin(labels: Path, scan: Path) -> None:
    """Refuse a label map that would be taken for the scan: its name, with or without .gz."""
    with suppress(OSError):
        same = labels.parent.samefile(scan.parent) and not scan.is_dir()
        if same and stem(labels).lower() == stem(scan).lower():
            text = f"{labels} has the name of the scan {scan}, and would be taken for it; name "
            raise CaseError(f"{text}another with -o")


def _identity(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino


def unwritable(file: Path) -> str:
    """Return why an output cannot get its name, or "": too long, a folder, no folder for it."""
    try:
        file.lstat()
    except FileNotFoundError:
        return ""
    except NotADirectoryError:
        way = next(filter(os.path.lexists, file.parents))
        return f"{way} is a file, not a folder; move it away, or name another place with -o"
    except OSError as error:  # the name is too long
        return said(error)
    return f"{file} is a folder; remove it, or name another place with -o" * file.is_dir()


def require_room(files: Iterable[Path], scans: int) -> None:
    """Make the folders of outputs and try each by a file. Raises CaseError: read-only, full."""
    for folder in dict.fromkeys(map(attrgetter("parent"), files)):
        trial = folder / f".{uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            text = f"nothing can be written into {folder} ({error.strerror})"
            raise CaseError(f"{text}; name another place with -o") from None
        free, need = shutil.disk_usage(folder).free, scans * LEAST_BYTES
        if free < need:
            text = f"{folder} has {size_text(free)} left, {scans} scans need {size_text(need)} at "
            raise CaseError(f"{text}least; free some, or name another disk with -o")


def scan_key(scan: Path, *settings: Any) -> str:
    """Return what changes with a scan's content and with all that decides its labels."""
    return key(sorted(map(fingerprint, files_of(scan))), *settings)


def digests(files: Outputs) -> dict[str, dict[str, str]]:
    """Return name and SHA-256 of each file that is there, by kind."""
    found = {}
    for kind, file in files.items():
        if file.is_file():
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            found[kind] = {"file": file.name, "sha256": digest}
    return found


def settle(made: Outputs, files: Outputs) -> None:
    """Give files their names, the record first: it says what the others must be."""
    for kind in ("sidecar", *made):
        if made[kind].is_file():
            os.replace(made[kind], files[kind])


def finished(
    files: Outputs, scan: str, kinds: Sequence[str], *, force: bool = False
) -> dict[str, Any] | None:
    """Return the record of a scan that an earlier call finished; None where it is to be made.

    scan: its `scan_key` now. Raises CaseError for files that would have to be overwritten, unless
    by `force`: of another scan, other networks or settings, or changed since they were written.
    """
    wanted, record = {kind: files[kind] for kind in kinds}, {}
    there = list(filter(Path.exists, wanted.values()))
    with suppress(OSError, ValueError):
        record = read_json(files["sidecar"])
    ours = isinstance(record, dict) and record.get("key") == scan
    found, reason = digests(wanted), ""
    if there and not ours:
        reason = f"{there[0]} was not made from this scan by these networks, settings and versions"
    elif ours:
        for kind in set(found) - {"sidecar"}:
            if found[kind] != record["outputs"].get(kind):
                reason = f"{wanted[kind]} was changed since it was made"
    if reason and not force:
        raise CaseError(f"{reason}; --force overwrites it")
    if reason or not ours:
        return None
    refused = {kind for kind in kinds if "error" in record.get(kind, ())}
    return record if set(found) | refused == set(kinds) else None


def try_outputs(
    scans: Mapping[str, Path], outputs: Mapping[str, Outputs], kinds: Sequence[str],
    more: Sequence[Path], inputs: Iterable[Path], *, overwrite: bool,
) -> dict[Path, CaseError]:  # fmt: skip
    """Test where results will lie before anything is computed; return scans that cannot have any.

    scans and their outputs by name; more: files of the whole call; inputs: what else is read.
    Raises CaseError for outputs on inputs, files that exist, folders that cannot be written.
    """
    failures, wanted = {}, []
    tables = list(dict.fromkeys(map(itemgetter("table"), outputs.values())))
    if reasons := list(filter(None, map(unwritable, [*tables, *more]))):
        raise CaseError(reasons[0])
    for name, path in scans.items():
        files = list(map(outputs[name].__getitem__, kinds))
        if reasons := list(filter(None, map(unwritable, files))):
            failures[path] = CaseError(f"{reasons[0]}; its results cannot be written")
        else:
            wanted += files
    read = list(chain.from_iterable(map(files_of, scans.values())))
    refuse_inputs([*wanted, *tables, *more], [*read, *inputs])
    for name, path in scans.items():
        refuse_twin(outputs[name]["labels"], path)
    if not overwrite and (old := next(filter(Path.exists, wanted), None)):
        raise CaseError(f"{old} exists; --resume keeps what is done, --force overwrites it")
    for file in tables:
        read_rows(file)
    require_room([*wanted, *tables, *more], len(scans) - len(failures))
    return failures
