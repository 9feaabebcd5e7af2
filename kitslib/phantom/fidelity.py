"""How near a cohort is to KiTS: what is measured on it, and the published figures it is held against."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np
from scipy import ndimage, stats

from kitslib.phantom.lesions import Cysts
from kitslib.phantom.renal import label_slab
from kitslib.phantom.scene import THINNEST_MM, draw_case, render_label_map

GEOMETRY = {
    "kidney_ml": "kidneys, ml",
    "tumor_ml": "tumour, ml",
    "extent_mm": "kidneys along z, mm",
}
TISSUES = ("kidney", "liver", "muscle", "fat", "noise")
CYST_ML = 0.5  # from here on a cyst counts, as in the paper's share
MEDIAN_WITHIN, KS_WITHIN, CYST_SHARE, OVERLAP_FROM, HU_WITHIN = 0.20, 0.25, (0.36, 0.48), 0.4, 25.0
SAMPLE = {"matrix": 96, "spacing_z": (5.0,)}  # coarse, and still true to volumes of 1 ml
CELL_MM, ABOVE_MM, FEWEST = (
    4.0,
    40.0,
    20,
)  # cells that tissue is sought on, mm above the kidneys, cells that suffice


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Published figures: per-case geometry of KiTS19, median HU per real scan, Dice between label versions.

    geometry maps kidney_ml, tumor_ml, extent_mm, cyst_ml and kidney_slices (the share of slices from the first to the
    last with kidney) to one value per case; hu maps a scan to its tissues.
    """

    geometry: Mapping[str, np.ndarray]
    hu: Mapping[str, Mapping[str, float]]
    label_versions: Mapping[str, float]
    sources: Mapping[str, str]

    def tissue(self, name: str) -> float:
        """Return the mean over the real scans of one tissue's median HU."""
        return float(np.mean([scan[name] for scan in self.hu.values()]))


@cache
def kits_reference() -> Reference:
    """Read the figures that come with the package."""
    content = json.loads(
        files("kitslib.phantom").joinpath("reference.json").read_text(encoding="utf-8")
    )
    geometry = {name: np.array(values, float) for name, values in content.pop("geometry").items()}
    return Reference(geometry=geometry, **content)


def label_geometry(labels: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """Volumes in ml (`kidney_ml` with its cysts, as KiTS19 counts) and the kidneys' extent along z in mm.

    labels: (D, H, W) with values 0..3. spacing: (z, y, x) in mm.
    """
    ml = np.bincount(labels.ravel(), minlength=4) * float(np.prod(spacing)) / 1000
    slices = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    extent = (slices[-1] - slices[0] + 1) * spacing[0] if len(slices) else 0.0
    return {
        "kidney_ml": float(ml[1] + ml[3]),
        "tumor_ml": float(ml[2]),
        "cyst_ml": float(ml[3]),
        "extent_mm": float(extent),
    }


def sample_geometry(*, seed: int, cases: int = 200, jobs: int = 1) -> list[dict[str, float]]:
    """Measure the first `cases` patients of a seed's cohort on coarse label maps, without rendering their CT."""
    measure = partial(_sampled, seed=seed)
    if jobs == 1:
        return [measure(index) for index in range(cases)]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(measure, range(cases), chunksize=max(1, cases // (4 * jobs))))


def _sampled(index: int, *, seed: int) -> dict[str, float]:
    return label_geometry(*render_label_map(index, seed=seed, **SAMPLE))


def complex_cysts(
    labels: np.ndarray,
    index: int,
    *,
    seed: int,
    matrix: int = 512,
    spacing_z: tuple[float, ...] | None = None,
    cysts: Cysts = "typical",
) -> np.ndarray:
    """Return which voxels (D, H, W) of a synthetic case's label map belong to complex cysts.

    The case is drawn again from the parameters that its cohort was written with. Raises ValueError when the map's
    shape shows that they are not these.
    """
    _, _, renal, grid, _ = draw_case(
        index, seed=seed, matrix=matrix, spacing_z=spacing_z, cysts=cysts
    )
    if labels.shape != grid.shape:
        raise ValueError(
            f"case {index}: expected labels of shape {grid.shape}, got {labels.shape}; give its parameters"
        )
    chosen = [cyst for cyst in renal.cysts if cyst.look.kind == "complex cyst"]
    alone = replace(renal, kidneys=(), tumours=(), cysts=tuple(chosen))
    inside = [
        label_slab(alone.sample(slab), slab.single().shape) for slab in grid.slabs(THINNEST_MM)
    ]
    return (np.concatenate(inside) > 0) & (labels == 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tissues:
    """HU of voxels in kidney, liver, muscle and fat of one scan, and the noise in its liver (SD in HU, or NaN)."""

    hu: Mapping[str, np.ndarray]
    noise: float

    @property
    def medians(self) -> dict[str, float]:
        """Median HU per tissue and the noise; NaN where too little of a tissue was found."""
        found = {
            name: float(np.median(v)) if len(v) >= FEWEST else float("nan")
            for name, v in self.hu.items()
        }
        return {**found, "noise": self.noise}


def find_tissues(imaging: np.ndarray, labels: np.ndarray, spacing: Sequence[float]) -> Tissues:
    """Find tissue by where it lies from labelled kidneys and by even HU; works on synthetic and on real CT alike.

    imaging: int16 HU (D, H, W). labels: the same shape, values above 0 are kidney, 1 healthy kidney; must hold some.
    Liver: the largest even soft tissue on the patient's right, from the right kidney's middle upwards. Muscle: dorsal
    of the kidneys beside the spine. Noise: SD within 12 mm in a slice of liver.
    """
    cells = _Cells(imaging, labels, spacing)
    where = np.argwhere(cells.labels > 0)
    middle = (where[:, 2].min() + where[:, 2].max()) / 2
    z, y, x = np.ogrid[tuple(slice(n) for n in cells.mean.shape)]
    right = where[where[:, 2] < middle]
    height = (right if len(right) else where)[:, 0].mean()
    away = (middle - x) * cells.size[2]  # mm to the patient's right of the midline
    liver = cells.clear & cells.between(0, 220) & (away > 20) & (z <= height)
    pieces, count = ndimage.label(liver)
    if count:
        liver = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    dorsal = (y - where[:, 1].mean()) * cells.size[1]
    muscle = (
        cells.clear
        & cells.between(0, 110)
        & (dorsal > 10)
        & (np.abs(away) < 60)
        & (z >= where[:, 0].mean())
    )
    regions = {"liver": liver, "muscle": muscle, "fat": cells.clear & cells.between(-150, -40)}
    hu = {
        "kidney": imaging[labels == 1],
        **{name: cells.voxels[region] for name, region in regions.items()},
    }
    return Tissues(hu=hu, noise=cells.noise(liver))


class _Cells:
    """A scan around its kidneys in cells of about 4 mm: single slices, blocks of pixels."""

    def __init__(self, imaging: np.ndarray, labels: np.ndarray, spacing: Sequence[float]) -> None:
        self.step = step = [max(1, round(CELL_MM / s)) for s in spacing]
        self.size = [s * k for s, k in zip(spacing, step, strict=True)]
        slices = np.flatnonzero((labels > 0).any(axis=(1, 2)))
        if not len(slices):
            raise ValueError(
                "tissues: expected labels with kidney, got only background; leave this case out"
            )
        picked = np.arange(
            max(0, slices[0] - round(ABOVE_MM / spacing[0])), slices[-1] + 1, step[0]
        )
        rows, cols = (n // k for n, k in zip(imaging.shape[1:], step[1:], strict=True))

        def blocks(volume: np.ndarray) -> np.ndarray:
            whole = volume[:, : rows * step[1], : cols * step[2]]
            return whole.reshape(len(picked), rows, step[1], cols, step[2])

        hu = blocks(np.maximum(imaging[picked], -1024).astype(np.float32))
        self.voxels = hu[:, :, step[1] // 2, :, step[2] // 2]
        self.mean, self.square = hu.mean(axis=(2, 4)), np.square(hu).mean(axis=(2, 4))
        self.labels = blocks(labels[picked]).max(axis=(2, 4))
        near = (1, 3, 3)
        even = (
            ndimage.maximum_filter(self.mean, near) - ndimage.minimum_filter(self.mean, near) < 70
        )
        self.clear = even & ~ndimage.binary_dilation(self.labels > 0, np.ones(near), iterations=2)

    def between(self, low: float, high: float) -> np.ndarray:
        """Cells with a mean HU in this range."""
        return (self.mean > low) & (self.mean < high)

    def noise(self, region: np.ndarray) -> float:
        """Median over 3 x 3 cells inside a region of the SD of their voxels."""
        near = (1, 3, 3)
        whole = ndimage.minimum_filter(region.astype(np.uint8), near) > 0
        if whole.sum() < FEWEST:
            return float("nan")
        variance = ndimage.uniform_filter(self.square, near) - np.square(
            ndimage.uniform_filter(self.mean, near)
        )
        count = 9 * self.step[1] * self.step[2]
        return float(np.sqrt(max(float(np.median(variance[whole])), 0.0) * count / (count - 1)))


def geometry_rows(cases: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Compare cases (as `label_geometry` measures them) with KiTS19: medians and Kolmogorov-Smirnov distances.

    Keys: quantity, here, n, reference, reference_n, difference (in words), ks, bound (in words), holds. The last row is
    the share of cases with at least 0.5 ml of cyst; cases whose cyst_ml is NaN do not count there.
    """
    reference, rows = kits_reference().geometry, []
    for name, words in GEOMETRY.items():
        ours, theirs = np.array([case[name] for case in cases], float), reference[name]
        here, there = float(np.median(ours)), float(np.median(theirs))
        ks = float(stats.ks_2samp(ours, theirs).statistic)
        difference = here / there - 1
        holds = abs(difference) <= MEDIAN_WITHIN and ks <= KS_WITHIN
        bound = f"median within {MEDIAN_WITHIN:.0%}, KS up to {KS_WITHIN}"
        rows.append(
            _row(
                words,
                (here, len(ours)),
                (there, len(theirs)),
                f"{difference:+.0%}",
                ks,
                bound,
                holds,
            )
        )
    known = np.array([case["cyst_ml"] for case in cases], float)
    known = known[~np.isnan(known)]
    if len(known):
        share = float((known >= CYST_ML).mean())
        theirs = reference["cyst_ml"]
        there = float((theirs >= CYST_ML).mean())
        low, high = CYST_SHARE
        words, bound = f"share of cases with {CYST_ML} ml of cyst", f"{low:.0%} to {high:.0%}"
        difference, holds = share / there - 1, low <= share <= high
        rows.append(
            _row(
                words,
                (share, len(known)),
                (there, len(theirs)),
                f"{difference:+.0%}",
                None,
                bound,
                holds,
            )
        )
    return rows


def hu_rows(medians: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Compare median HU per tissue over cases (as `Tissues.medians`) with real CT; keys as in `geometry_rows`."""
    reference, rows = kits_reference(), []
    for name in TISSUES:
        values = np.array([one[name] for one in medians], float)
        values = values[~np.isnan(values)]
        if len(values):
            here, there = float(np.median(values)), reference.tissue(name)
            bound, holds = f"within {HU_WITHIN:.0f} HU", abs(here - there) <= HU_WITHIN
            pairs = (here, len(values)), (there, len(reference.hu))
            rows.append(_row(f"{name}, HU", *pairs, f"{here - there:+.0f} HU", None, bound, holds))
    return rows


def overlap_row(overlap: float, cases: int) -> dict[str, Any]:
    """Give the row of the histogram overlap of complex cysts' and tumours' HU; keys as in `geometry_rows`.

    An overlap of NaN, where there were too few voxels, leaves `here` and `holds` None.
    """
    known = not np.isnan(overlap)
    words, bound, holds = (
        "HU overlap of complex cyst and tumour",
        f"at least {OVERLAP_FROM}",
        overlap >= OVERLAP_FROM,
    )
    return _row(
        words,
        (overlap if known else None, cases),
        (None, 0),
        "",
        None,
        bound,
        holds if known else None,
    )


def _row(
    quantity: str,
    here: tuple[float | None, int],
    reference: tuple[float | None, int],
    difference: str,
    ks: float | None,
    bound: str,
    holds: bool | None,
) -> dict[str, Any]:
    """A row of the comparison; `here` and `reference` are a value and the number of cases behind it."""
    return {
        "quantity": quantity,
        "here": here[0],
        "n": here[1],
        "reference": reference[0],
        "reference_n": reference[1],
        "difference": difference,
        "ks": ks,
        "bound": bound,
        "holds": None if holds is None else bool(holds),
    }
