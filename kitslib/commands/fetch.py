"""`fetch`: KiTS19 or KiTS23, labels and imaging, into a folder that the study reads."""

from __future__ import annotations

import argparse
import fcntl
import gzip
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from kitslib.commands import downloads
from kitslib.commands.downloads import Client, Download, FetchError, Progress, WrongFile
from kitslib.commands.line import positive
from kitslib.commands.manifest import IMAGING, Manifest, list_images, require_hash, set_aside
from kitslib.config import replacing, size_text
from kitslib.data import CaseError, find_cases, open_volume

MIRROR = "KITSLIB_MIRROR"
LABELS = "case_{:05}/segmentation.nii.gz"
OUTCOMES = ("fetched", "kept", "stored anew as int16", "missing")
GZIP_LEVEL = 1  # 6 saves 2 % of a CT and takes 2.5 times as long


@dataclass(frozen=True, kw_only=True)
class Release:
    """Where a release's labels are in its git repository, and which cases have them."""

    title: str
    labels: str
    table: str
    labelled: tuple[int, ...]
    unlabelled: tuple[int, ...] = ()


RELEASES = {
    "kits19": Release(
        title="KiTS19", labels="neheller/kits19/HEAD/data", table="kits.json",
        labelled=(*range(210),), unlabelled=(*range(210, 300),),
    ),
    "kits23": Release(
        title="KiTS23", labels="neheller/kits23/HEAD/dataset", table="kits23.json",
        labelled=(*range(300), *range(400, 589)),
    ),
}  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Goes on where an earlier call ended. Exit status 1 when a file is missing."
    argument = parser.add_argument
    argument("release", choices=tuple(RELEASES), metavar="kits19|kits23")
    argument("data", type=Path, metavar="DIR", help="gets case_00000/imaging.nii.gz and so on")
    words = "such as 0-9,15 (default: all with labels)"
    argument("--cases", type=case_numbers, metavar="LIST", help=words)
    argument("--int16", action="store_true", help="store imaging as int16, without loss")
    argument("--verify", action="store_true", help="check the hashes of files that are there")
    argument("--jobs", type=positive, default=4, metavar="N", help="cases at a time (default: 4)")
    words = f"a host that has the paths of the two public ones (default: ${MIRROR})"
    argument("--mirror", default=os.environ.get(MIRROR, ""), metavar="URL", help=words)
    words = "seconds without data that end a connection (default: 60)"
    argument("--timeout", type=positive, default=60, metavar="S", help=words)
    words = "tries of a file in a row without gain, with growing waits (default: 8)"
    argument("--tries", type=positive, default=8, metavar="N", help=words)


def run(args: argparse.Namespace) -> int:
    """Fetch what is missing; return 1 where something still is."""
    release, folder, numbers = RELEASES[args.release], args.data, args.cases
    numbers = release.labelled if numbers is None else numbers
    require_cases(release, numbers)
    require_own_folder(folder, args.release)
    client = Client(args.timeout, args.tries, args.mirror.rstrip("/"))
    if client.mirror and not re.match(r"https?://[^/]", client.mirror):
        raise ValueError(f"--mirror {args.mirror}: expected an address such as https://host/path")
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        manifest = Manifest(folder, args.release)
        manifest.save()  # from now on the folder is of this release
        fetch_table(client, release, folder)
        if not manifest.images:
            manifest.images = list_images(client)
            manifest.save()
        progress = plan(manifest, numbers, least=1 / (1 + args.int16))
        job = Job(
            release=release, client=client, manifest=manifest, progress=progress,
            int16=args.int16, verify=args.verify,
        )  # fmt: skip
        counts = fetch_cases(job, numbers, args.jobs)
    print(f"{release.title} in {folder}: {', '.join(f'{counts[w]} {w}' for w in OUTCOMES)}")
    return int(counts["missing"] > 0)


def case_numbers(text: str) -> list[int]:
    """Read numbers and spans of numbers: 0-9,15."""
    numbers: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(text)
        numbers.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return sorted(numbers)


def require_cases(release: Release, numbers: Sequence[int]) -> None:
    """Refuse numbers that the release does not have; say that some have no labels."""
    for number in numbers:
        if number not in release.labelled and number not in release.unlabelled:
            text = f"--cases: {release.title} has no case {number}; its cases are 0-299"
            raise ValueError(text + " and 400-588" * (400 in release.labelled))
    if bare := sorted(set(numbers) & set(release.unlabelled)):
        span = f"case_{bare[0]:05} to case_{bare[-1]:05}"
        print(f"{release.title} has no labels of {span}: imaging only of {len(bare)} cases there")


def require_own_folder(folder: Path, release: str) -> None:
    """Refuse a folder whose cases are of another source, or lie a folder deeper."""
    try:
        cases = find_cases(folder)
    except CaseError as error:
        if error.code == "no_cases" or (folder / RELEASES[release].table).is_file():
            return  # empty, or with a damaged table, which is fetched anew
        raise
    for case in cases:
        if not (folder / case.case_id).is_dir():
            raise ValueError(f"{folder} has its cases in a folder of their own; pass that one")
        if case.source not in (release, "plain"):
            text = f"{folder} holds {case.source} cases ({case.case_id}); choose another folder"
            raise ValueError(f"{text} for {release}")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder, which ends with the process. Raises FetchError."""
    with (folder / ".fetch.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"another call is fetching into {folder}; wait for its end"
            raise FetchError(text) from None
        yield


def fetch_table(client: Client, release: Release, folder: Path) -> None:
    """Fetch the table of patients, unless it is there and readable. Raises FetchError."""
    path = folder / release.table
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        read_table(path.read_bytes())
        return
    content, _ = client.document(client.raw_url(f"{release.labels}/{path.name}"), read_table)
    if path.exists():
        set_aside(path)
    with replacing(path) as part:
        part.write_bytes(content)


def read_table(content: bytes) -> bytes:
    """The table as it is. Raises ValueError, TypeError or KeyError where it is none."""
    if not [row["case_id"] for row in json.loads(content)]:
        raise ValueError("no row")
    return content


def plan(manifest: Manifest, numbers: Sequence[int], least: float) -> Progress:
    """Sum up the imaging to fetch. Raises OSError where the disk has no room for `least` of it."""
    total = done = 0
    for number in numbers:
        name = IMAGING.format(number)
        if name in manifest.images and not manifest.holds(name):
            total += manifest.images[name]["size"]
            done += downloads.length(manifest.folder / f"{name}.part")
    need, free = least * (total - done), shutil.disk_usage(manifest.folder).free
    if need > free:
        text = f"{manifest.folder} needs {size_text(need)} more, its disk has {size_text(free)}"
        raise OSError(f"{text}; fetch fewer --cases, or with --int16")
    return Progress(total, done)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the cases of one call share."""

    release: Release
    client: Client
    manifest: Manifest
    progress: Progress
    int16: bool
    verify: bool

    def complain(self, name: str, error: Exception) -> None:
        """Say which file is missing and why, unless the call was interrupted."""
        if isinstance(error, WrongFile):
            self.manifest.doubt()
        if not self.client.stop.is_set():
            text = f"{self.manifest.folder / name} is missing: {error}"
            self.progress.say(f"kitslib fetch: {text}")


def fetch_cases(job: Job, numbers: Sequence[int], jobs: int) -> Counter[str]:
    """Fetch several cases at a time; return how many files came to what."""
    pool, counts = ThreadPoolExecutor(jobs), Counter()
    try:
        for case in as_completed([pool.submit(fetch_case, job, number) for number in numbers]):
            counts += case.result()
    except BaseException:
        job.client.stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        job.progress.bar.close()
    return counts


def fetch_case(job: Job, number: int) -> Counter[str]:
    """Fetch the label, then the imaging, which must have its shape."""
    counts, steps = Counter(), {LABELS: fetch_label, IMAGING: fetch_imaging}
    if number in job.release.unlabelled:
        del steps[LABELS]
    for pattern, step in steps.items():
        try:
            counts[step(job, number)] += 1
        except (RuntimeError, ValueError, OSError) as error:
            counts["missing"] += 1
            job.complain(pattern.format(number), error)
    return counts


def fetch_label(job: Job, number: int) -> str:
    """Fetch a case's label map, checked by its CRC, since nobody publishes its hash."""
    name, manifest = LABELS.format(number), job.manifest
    path = manifest.folder / name
    if manifest.holds(name, by_hash=job.verify):
        return "kept"
    if path.is_file() and name not in manifest.files:  # of a clone
        with suppress(WrongFile):
            shape_of(path)
            manifest.record(name, path)
            return "kept"
    url, part = job.client.raw_url(f"{job.release.labels}/{name}"), part_of(path)
    part.unlink(missing_ok=True)  # of unknown origin
    Download(url=url, part=part, size=None, progress=job.progress).run(job.client, shape_of)
    manifest.settle(part, name, job.progress.say)
    return "fetched"


def fetch_imaging(job: Job, number: int) -> str:
    """Fetch a case's imaging, checked by its hash, or store as int16 what is here."""
    name, manifest = IMAGING.format(number), job.manifest
    published, path = manifest.images.get(name), manifest.folder / name
    if published is None:
        raise WrongFile("the listing of imaging has no such case")
    part, narrow = part_of(path), job.int16 and not manifest.tried_int16(name)
    part_of(path, ".int16").unlink(missing_ok=True)  # of a call that was killed
    if manifest.holds(name, by_hash=job.verify or narrow):
        part.unlink(missing_ok=True)
        return store(job, number, path) if narrow else "kept"
    if manifest.holds(name):  # by its size, so that it was no part of the plan
        job.progress.add(0, more=published["size"])
    url, size = job.client.imaging_url(number), published["size"]
    download = Download(url=url, part=part, size=size, progress=job.progress)
    download.run(job.client, partial(require_hash, expected=published["sha256"]))
    return store(job, number, part)


def store(job: Job, number: int, source: Path) -> str:
    """Check imaging against its label map and give it its name, on demand as int16."""
    name, manifest, noted = IMAGING.format(number), job.manifest, {}
    path, shape = manifest.folder / name, shape_of(source)
    if number not in job.release.unlabelled:
        require_shape(shape, manifest.folder / LABELS.format(number))
    if job.int16:
        small = part_of(path, ".int16")
        why = store_int16(source, small)
        if not why:
            manifest.settle(small, name, job.progress.say, int16="stored")
            if source == path:
                return "stored anew as int16"
            source.unlink()
            return "fetched"
        small.unlink()
        noted = {"int16": why}
        job.progress.say(f"{name}: kept as published, {why}")
    if source == path:
        manifest.record(name, path, **noted)
        return "kept"
    manifest.settle(source, name, job.progress.say, **noted)
    return "fetched"


def part_of(path: Path, kind: str = "") -> Path:
    """Where a file lies until it is complete and checked; its folder is made."""
    path.parent.mkdir(exist_ok=True)
    return path.with_name(f"{path.name}{kind}.part")


def shape_of(path: Path) -> tuple[int, ...]:
    """The shape (D, H, W) of a NIfTI file, read to its end, where its CRC is. Raises WrongFile."""
    try:
        with open_volume(path) as stream:
            for _ in stream.slabs():
                pass
    except CaseError as error:
        raise WrongFile(str(error).partition(": ")[2]) from error
    return stream.geometry.canonical_shape


def require_shape(shape: tuple[int, ...], labels: Path) -> None:
    """Raises FetchError where the label map is not there, or of another shape (D, H, W)."""
    if not labels.is_file():
        raise FetchError(f"it waits for {labels.name}, whose shape it must have")
    with open_volume(labels) as stream:
        other = stream.geometry.canonical_shape
    if other != shape:
        text = f"expected the shape {other} of its {labels.name}, got {shape}"
        raise FetchError(f"{text}; remove that, if it is another case's, and call again")


def store_int16(path: Path, small: Path) -> str:
    """Write a gzipped volume as int16 to `small`; return why that would lose something, else "".

    Affine, header and extensions are kept; of the header only type, scaling and offset change.
    The volume is read in slabs. Raises CaseError.
    """
    with (
        open_volume(path) as stream, small.open("wb") as raw,
        gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as sink,
    ):  # fmt: skip
        if stream.dtype in (np.dtype("<i2"), np.dtype(">i2")) and stream.scaling == (1, 0):
            return "it is int16"
        with gzip.open(path) as source:
            header = type(stream.header).from_fileobj(source, check=False)
        header.set_data_dtype(np.int16)
        header.set_slope_inter(1, 0)
        header.set_data_offset(0)  # the least that the extensions allow
        header.write_to(sink)
        for _, _, values in stream.slabs():
            with np.errstate(invalid="ignore"):
                narrow = values.astype(header.get_data_dtype())
            if (narrow != values).any():
                return "its values are no whole numbers in the range of int16"
            sink.write(narrow.tobytes(order="F"))
    return ""
