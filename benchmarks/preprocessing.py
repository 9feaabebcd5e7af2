"""Resampling of one CT to both stages' grids: ours beside scipy, SimpleITK and MONAI.

Each contender runs in a process of its own, on the same volume and the same number of threads.
What it needs as input (an ITK image, a float tensor) is made before the clock starts, its result
becomes an array after it stops. Times are the best of several runs; memory is the process's peak
above what it held before them. A peer that puts its voxels elsewhere (`shift`, in mm along x) is
compared with ours on the grid it chose.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._measure import INSTALL, peak_gb
from kitslib.config import KidneyGrid, TumorGrid
from kitslib.data import canonical_affine, find_cases, prepare, write_imaging, write_labels
from kitslib.transforms import Grid, resample

SPACING = (2.5, 0.78125, 0.78125)  # mm
SHAPE = (120, 512, 512)
TALL_SPACING, TALL_SHAPE = (
    (0.5, 0.78125, 0.78125),
    (1059, 512, 512),
)  # as KiTS19's tallest, case 151
GRIDS = {
    "stage 1": (2.0, 1.5625, 1.5625),
    "stage 2": (1.0, 0.78125, 0.78125),
}  # 2 mm at 256²; 1 mm at 512²
PEERS = {"scipy.ndimage.zoom": "scipy", "SimpleITK": "SimpleITK", "MONAI Spacing": "monai"}
ENOUGH_RUNS, ENOUGH_SECONDS = 7, 8.0
EDGE = 2  # voxels at each face left out of the comparison: there conventions differ


class Contender(NamedTuple):
    """What is timed, and what makes an int16 array of its result.

    first_centre: the array's first voxel centre, (z, y, x) mm from the source's; None: the
    target's.
    """

    job: Callable[[], Any]
    to_array: Callable[[Any], np.ndarray] = np.asarray
    first_centre: Callable[[Any], tuple[float, float, float]] | None = None


def _first_centre(source: Grid, target: Grid) -> list[float]:
    return [(new - old) / 2 for new, old in zip(target.spacing, source.spacing, strict=True)]


def _ours(volume: np.ndarray, source: Grid, target: Grid, threads: int) -> Contender:
    return Contender(lambda: resample(volume, source, target))


def _scipy(volume: np.ndarray, source: Grid, target: Grid, threads: int) -> Contender:
    from scipy import ndimage

    zoom = [new / old for new, old in zip(target.shape, source.shape, strict=True)]
    return Contender(lambda: ndimage.zoom(volume, zoom, order=1, mode="nearest", grid_mode=True))


def _simpleitk(volume: np.ndarray, source: Grid, target: Grid, threads: int) -> Contender:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(source.spacing[::-1])
    first = _first_centre(source, target)[::-1]
    grid = (target.shape[::-1], sitk.Transform(), sitk.sitkLinear, first, target.spacing[::-1])
    turned = image.GetDirection()
    return Contender(
        lambda: sitk.Resample(image, *grid, turned, 0.0, sitk.sitkInt16), sitk.GetArrayFromImage
    )


def _monai(volume: np.ndarray, source: Grid, target: Grid, threads: int) -> Contender:
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    torch.set_num_threads(threads)
    tensor = torch.from_numpy(volume.astype(np.float32))[None]
    image = MetaTensor(
        tensor, affine=torch.diag(torch.tensor([*source.spacing, 1.0], dtype=torch.float64))
    )
    spacing = Spacing(
        pixdim=target.spacing, mode="bilinear", padding_mode="border", scale_extent=True
    )
    return Contender(
        lambda: spacing(image, dtype=torch.float32),
        lambda result: np.rint(result[0].numpy()).astype(np.int16),
        lambda result: tuple(result.affine[:3, 3].tolist()),
    )


CONTENDERS = {
    "ours": _ours,
    "scipy.ndimage.zoom": _scipy,
    "SimpleITK": _simpleitk,
    "MONAI Spacing": _monai,
}


def _volume() -> np.ndarray:
    """Smooth tissue with noise on it, int16 HU, the same for every run."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 300, (SHAPE[0] // 4, SHAPE[1] // 16, SHAPE[2] // 16)).astype(np.float32)
    volume = np.kron(coarse, np.ones((4, 16, 16), np.float32))
    volume += rng.normal(0, 20, SHAPE).astype(np.float32)
    return np.clip(np.rint(volume), -1024, 3071).astype(np.int16)


def _peak_mb() -> float:
    """This process's largest resident size so far in MB."""
    return peak_gb() * 1e3


def _measure(contender: str, stage: str, threads: int, folder: Path) -> dict[str, Any]:
    """In its own process: best time, more memory, the result's difference from ours on its grid."""
    volume = np.load(folder / "volume.npy")
    source = Grid(shape=volume.shape, spacing=SPACING)
    target = source.respaced(GRIDS[stage])
    job, to_array, first_centre = CONTENDERS[contender](volume, source, target, threads)
    before, times, result = _peak_mb(), [], None
    while len(times) < ENOUGH_RUNS and sum(times) < ENOUGH_SECONDS:
        result = None
        start = time.perf_counter()
        result = job()
        times.append(time.perf_counter() - start)
    extra = _peak_mb() - before
    expected = np.array(_first_centre(source, target))
    shift = np.array(first_centre(result) if first_centre else expected) - expected
    array = to_array(result)
    grid = Grid(shape=array.shape, spacing=target.spacing, origin=tuple(shift))
    inner = (slice(EDGE, -EDGE),) * 3
    difference = np.abs(array[inner].astype(np.int32) - resample(volume, source, grid)[inner]).max()
    return {
        "seconds": min(times),
        "extra_mb": extra,
        "result_mb": array.nbytes / 1e6,
        "difference": int(difference),
        "shift": float(shift[2]),
    }


def _prepare_tall(folder: Path) -> dict[str, float]:
    """In its own process: both stages of the tall case through the cache; peak memory and time."""
    start = time.perf_counter()
    for stage in (KidneyGrid(), TumorGrid(region="slice")):
        prepare(find_cases(folder / "cohort"), stage, folder / "cache")
    return {"seconds": time.perf_counter() - start, "peak_mb": _peak_mb()}


def _child(arguments: list[str], threads: int) -> dict[str, float]:
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(threads)
    command = [
        sys.executable,
        "-m",
        "benchmarks.preprocessing",
        "--threads",
        str(threads),
        *arguments,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _compare(threads: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        np.save(Path(name) / "volume.npy", _volume())
        print(f"{' x '.join(map(str, SHAPE))} int16 at {SPACING} mm, {threads} thread(s)\n")
        columns = "      ms  x ours  result MB  extra MB  max |HU - ours|  shift"
        print(f"{'grid':9s}{'contender':20s}{columns}")
        for stage in GRIDS:
            base = None
            for contender in CONTENDERS:
                if contender in PEERS and not importlib.util.find_spec(PEERS[contender]):
                    print(f"{stage:9s}{contender:20s}not installed: {INSTALL}")
                    continue
                row = _child(
                    ["--contender", contender, "--stage", stage, "--folder", name], threads
                )
                base = base or row["seconds"]
                seconds = row["seconds"]
                print(
                    f"{stage:9s}{contender:20s}{seconds * 1e3:8.1f}{seconds / base:8.1f}"
                    f"{row['result_mb']:11.0f}{row['extra_mb']:10.0f}{row['difference']:17d}"
                    f"{row['shift']:7.2f}",
                    flush=True,
                )


def _tall(threads: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        case = Path(name) / "cohort" / "case_00151"
        case.mkdir(parents=True)
        slab = np.tile(_volume()[:60], (18, 1, 1))[: TALL_SHAPE[0]]
        labels = np.zeros(TALL_SHAPE, np.uint8)
        labels[500:760, 220:330, 120:210] = labels[480:740, 220:330, 300:390] = 1
        labels[600:640, 250:290, 140:180] = 2
        affine = canonical_affine(TALL_SPACING)
        write_imaging(case / "imaging.nii.gz", slab, affine)
        write_labels(case / "segmentation.nii.gz", labels, affine)
        labels[620:640, 300:320, 310:330] = 3
        write_labels(case / "segmentation_kits23.nii.gz", labels, affine)
        size = slab.nbytes / 1e6
        del slab, labels
        row = _child(["--folder", name], threads)
        limit = 2.5 * size + 400
        print(
            f"\n{' x '.join(map(str, TALL_SHAPE))} ({size:.0f} MB as int16), file to cache, both"
            f" stages: {row['seconds']:.1f} s, peak {row['peak_mb']:.0f} MB"
            f" (bound 2.5 x size + 400 = {limit:.0f} MB)"
        )


def main(arguments: list[str]) -> int:
    """Compare, print one table, then measure the memory of a case as tall as KiTS19's tallest."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks preprocessing", description=__doc__)
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of every contender (ours uses one)"
    )
    options = parser.parse_args(arguments)
    _compare(options.threads)
    _tall(options.threads)
    return 0


def _child_main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--contender", choices=tuple(CONTENDERS))
    parser.add_argument("--stage", choices=tuple(GRIDS))
    options = parser.parse_args()
    if options.contender:
        row = _measure(options.contender, options.stage, options.threads, options.folder)
    else:
        row = _prepare_tall(options.folder)
    print(json.dumps(row))


if __name__ == "__main__":
    _child_main()
