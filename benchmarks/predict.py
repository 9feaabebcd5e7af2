"""A whole scan to its label map, file to file: ours beside nnU-Net's predictor.

Each contender is a command of its own with the same threads, from its start to its last file; what
its parts take is noted on the way. nnU-Net predicts with networks that `benchmarks nnunet` trained,
with and without mirroring, in one process. The scans are real CT and one rendered, 600 slices. Ours
inflates them with isal; what zlib would take for it stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _beside, _nnunet
from benchmarks._measure import (
    INSTALL,
    Cell,
    Report,
    Table,
    Timing,
    command,
    conditions,
    installed,
    interleave,
    judged,
    parser,
    spread,
    timed,
)
from benchmarks._ours import inflate
from benchmarks._study import Call, Watch
from kitslib.config import ROOT, KidneyGrid, read_json
from kitslib.data import (
    CaseFiles,
    canonical_affine,
    check_case,
    kidney_input,
    open_volume,
    read_imaging,
    read_labels,
    write_imaging,
)
from kitslib.evaluation import dice
from kitslib.phantom import render_case
from kitslib.training import real_ct_folder

LIMITS = {130: (10.0, 1.5), 600: (30.0, 2.5)}  # slices of 512²: seconds and GB of ours at most
QUICKER = 5.0  # than nnU-Net's predictor
OURS, WITH_ZLIB = "ours", "ours, zlib"
OTHERS = [  # measured by others, not here
    {
        "system": "TotalSegmentator, 3 mm, 1 network",
        "scan": "512 x 512 x 366",
        "s": 30.07,
        "memory, GB": 30.6,
        "machine": "NVIDIA RTX 6000, Intel Xeon w5-3425",
        "source": "totalsegmentator-konfai's page on PyPI, first release",
    }
]


@dataclass(frozen=True)
class Scan:
    """A scan: its file, and a label map of its kidneys where there is one."""

    name: str
    imaging: Path
    labels: Path | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows and columns."""
        with open_volume(self.imaging) as stream:
            return stream.geometry.canonical_shape


def real_scans() -> list[Scan]:
    """The real CT beside the project, the largest first; none where there is no such folder."""
    folder, found = real_ct_folder(), []
    for imaging in folder.glob("*/imaging.nii.gz") if folder else []:
        labels = imaging.parent / "segmentation.nii.gz"
        found.append(Scan(imaging.parent.name, imaging, labels if labels.is_file() else None))
    return sorted(found, key=lambda scan: -scan.imaging.stat().st_size)


def rendered(work: Path, slices: int, matrix: int) -> Scan:
    """A synthetic scan of about so many slices; rendered once."""
    imaging = work / f"rendered-{slices}x{matrix}.nii.gz"
    if not imaging.is_file():
        thin = 5.0
        for _ in range(3):  # scans of thin slices are shorter
            small, *_ = render_case(0, seed=19, matrix=32, spacing_z=(thin,))
            thin = max(len(small) * thin / slices, 0.25)
        volume, _, spacing = render_case(0, seed=19, matrix=matrix, spacing_z=(thin,))
        write_imaging(imaging, volume, canonical_affine(spacing))
    return Scan(f"rendered, {slices} slices", imaging)


def networks(work: Path) -> dict[str, Path]:
    """nnU-Net's trained networks by the name of their plans, each of its largest budget."""
    found: dict[str, tuple[float, Path]] = {}
    for weights in work.glob(f"*/results/*h/{_nnunet.DATASET}/*/fold_all/checkpoint_final.pth"):
        folder = weights.parent.parent
        plans, hours = folder.name.split("__")[1], float(folder.parent.parent.name[:-1])
        name = plans.removeprefix("nnUNetPlans_")
        found[name] = max(found.get(name, (0.0, folder)), (hours, folder))
    return {name: folder for name, (_, folder) in sorted(found.items())}


def reading(scan: Scan, repeats: int, clock: str) -> list[dict[str, Cell]]:
    """A row each of reading, checking and resampling a scan, inflated by zlib and by isal."""

    def resampled() -> None:
        volume, geometry = read_imaging(scan.imaging)
        kidney_input(volume, geometry.spacing, KidneyGrid())

    case = CaseFiles(case_id=scan.name, imaging=scan.imaging, segmentation=scan.labels)
    work: dict[str, Callable] = {"read": partial(read_imaging, scan.imaging)}
    work |= {"check": partial(check_case, case), "read, onto the kidney grid": resampled}
    found = []
    for what, job in work.items():

        def inflated(by: str, job: Callable = job) -> float:
            inflate(by)
            return timed(job, clock)()

        jobs = {by: partial(inflated, by) for by in ("zlib", "isal")}
        timings = interleave(jobs, repeats)
        row: dict[str, Cell] = {"scan": scan.name, "what": what}
        row |= {f"{by}, s": spread(timing, 1) for by, timing in timings.items()}
        row["quicker, times"] = timings["zlib"].median / timings["isal"].median
        found.append(row)
    return found


def contenders(
    scan: Scan, out: Path, threads: int, models: str, peers: Mapping[str, Path]
) -> dict[str, tuple[list[str], Path]]:
    """By name the command that segments a scan, and the label map that it writes."""
    found = {}
    for name, by in ((OURS, "isal"), (WITH_ZLIB, "zlib")):
        labels = out / f"{by}.nii.gz"
        job = {"scan": str(scan.imaging), "models": models, "threads": threads, "by": by}
        job |= {"out": str(labels), "to": str(out / f"{name}.json")}
        found[name] = (_beside.child("benchmarks._ours", "predict", job), labels)
    for plans, folder in peers.items():
        for mirroring in (False, True):
            name = f"nnU-Net {plans}, {'with' if mirroring else 'without'} mirroring"
            stem = re.sub(r"\W+", "-", name)
            job = {"scans": [(str(scan.imaging), str(out / stem))], "threads": threads}
            job |= {"model": str(folder), "mirroring": mirroring, "to": str(out / f"{name}.json")}
            words = _beside.child("benchmarks._nnunet", "predict_timed", job)
            found[name] = (words, out / f"{stem}.nii.gz")
    return found


def measure(
    scan: Scan, name: str, words: list[str], labels: Path, repeats: int
) -> tuple[dict[str, Any], list[dict[str, Cell]]]:
    """Run a contender some times: seconds, memory and Dice, and rows of its parts, of the last."""
    seconds, peak, busy, log = [], 0.0, [], labels.parent / f"{name}.log"
    for _ in range(repeats):
        labels.unlink(missing_ok=True)
        watch, call = Watch(), Call(words, log)
        watch.start()
        try:
            used = call.usage()
        finally:
            watch.over.set()
            call.kill()
        seconds.append(used.wall_s)
        busy.append(used.processor_s)
        peak = max(peak, watch.peak, used.peak_mb / 1e3)
    row: dict[str, Any] = {"scan": scan.name, "contender": name, "timing": Timing.of(seconds)}
    row |= {"processor s": float(np.median(busy)), "GB": peak, "shape": scan.shape}
    if scan.labels:
        row["dice"] = dice(read_labels(labels)[0] > 0, read_labels(scan.labels)[0] > 0)
    parts = read_json(labels.parent / f"{name}.json")
    parts["start, imports and the rest"] = seconds[-1] - sum(parts.values())
    about = {"scan": scan.name, "contender": name}
    return row, [about | {"part": part, "s": value} for part, value in parts.items()]


def table_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Cell]]:
    """One row a scan and contender."""
    ours = {row["scan"]: row["timing"].median for row in rows if row["contender"] == OURS}
    found = []
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        cells = {"scan": f"{row['scan']}, {shape}", "contender": row["contender"]}
        cells |= {"s": spread(row["timing"], 1), "processor s": row["processor s"]}
        cells |= {"memory, GB": row["GB"], "kidney and masses Dice": row.get("dice")}
        cells["ours is quicker, times"] = row["timing"].median / ours[row["scan"]]
        found.append(cells)
    return found


def bounds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether ours keeps to its time and memory, and is so much quicker at no lower Dice."""
    found = []
    ours = {row["scan"]: row for row in rows if row["contender"] == OURS}
    for name, row in ours.items():
        slices, *plane = row["shape"]
        limit = next((limit for most, limit in LIMITS.items() if slices <= most * 1.05), None)
        if limit and max(plane) <= 512:
            seconds, memory = limit
            found.append(judged(name, row["timing"].median, seconds, "s", at="most"))
            found.append(judged(f"{name}, memory", row["GB"], memory, "GB", at="most"))
    for row in rows:
        mine = ours[row["scan"]]
        if row["contender"] not in (OURS, WITH_ZLIB):
            what = f"{row['scan']}, quicker than {row['contender']}"
            if "dice" in row:
                what += f" (Dice {mine['dice']:.3f}, there {row['dice']:.3f})"
            found.append(judged(what, row["timing"].median / mine["timing"].median, QUICKER))
    return found


def main(arguments: Sequence[str]) -> int:
    """Segment each scan by each contender; print times, memory, parts and bounds."""
    reader = parser("predict", __doc__, threads=2, repeats=3)
    add = reader.add_argument
    add("--scans", type=Path, nargs="*", metavar="FILE", help="instead of the real CT")
    add("--slices", type=int, default=600, help="of the rendered scan; 0: none (%(default)s)")
    add("--matrix", type=int, default=512, help="rows and columns of it (%(default)s)")
    add("--models", default="", metavar="DIR", help="our networks (default: the package's)")
    work = ROOT / "reports" / "peers"
    add("--work", type=Path, default=work, help="of benchmarks nnunet (%(default)s)")
    words = "measurements of nnU-Net with mirroring; 0: none (%(default)s)"
    add("--mirrored", type=int, default=1, help=words)
    args = reader.parse_args(arguments)
    _beside.end_with_stages()
    work, peers = args.work.absolute(), {}
    if installed("nnunetv2"):
        peers = networks(work)
    scans = real_scans()
    if args.scans is not None:
        scans = [Scan(file.name.split(".")[0], file.absolute()) for file in args.scans]
    if args.slices:
        scans.append(rendered(work / "predict", args.slices, args.matrix))
    rows, parts, read = [], [], []
    for number, scan in enumerate(scans):
        out = work / "predict" / str(number)
        out.mkdir(parents=True, exist_ok=True)
        models = args.models and str(Path(args.models).absolute())
        for name, (words, labels) in contenders(scan, out, args.threads, models, peers).items():
            repeats = args.mirrored if "with mirroring" in name else args.repeats
            if not repeats:
                continue
            print(f"{scan.name}: {name} …", flush=True)
            row, some = measure(scan, name, words, labels, repeats)
            rows.append(row)
            parts += some
        read += reading(scan, args.repeats, args.clock)
    judgements, note = bounds(rows), "From the start of the command to its last file."
    if not peers:
        lacking = f"not installed: {INSTALL}"
        if installed("nnunetv2"):
            lacking = f"no network of it in {args.work.name}: run python -m benchmarks nnunet"
        judgements.append(f"nnU-Net's predictor: {lacking}")
    facts = conditions(args.threads, args.repeats, "nnunetv2", "isal", "nibabel")
    facts["repeats"] = f"{args.repeats} of each, one after the other; nnU-Net mirrored less"
    Report(
        name="predict",
        question="How long does a scan take from file to file, and where does the time go?",
        command=command("predict", arguments),
        conditions=facts,
        tables=[
            Table(title="Scans", note=note, rows=table_rows(rows)),
            Table(title="Parts", note="Of the last measurement, by the clock.", rows=parts),
            Table(title="Reading", note=f"By {args.clock} time, in turns.", rows=read),
            Table(title="Measured by others", note="On other machines.", rows=OTHERS),
        ],
        bounds=judgements,
    ).publish(args.out)
    return 0
