"""How near a cohort is to KiTS: measurements, and the published figures they are compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from typing import Any

import numpy as np
from scipy import ndimage, stats

from kitslib.phantom.cohort import spread
from kitslib.phantom.scene import THINNEST_MM, draw_case, render_label_map

GEOMETRY = {
    "kidney_ml": "kidneys, ml", "tumor_ml": "tumour, ml", "extent_mm": "kidneys along z, mm"
}  # fmt: skip
TISSUES = ("kidney", "liver", "muscle", "fat", "noise")
CYST_ML = 0.5  # from here on a cyst counts, as in the paper's share
MEDIAN_WITHIN, KS_WITHIN, CYST_SHARE, OVERLAP_FROM, HU_WITHIN = 0.20, 0.25, (0.36, 0.48), 0.4, 25.0
CELL_MM = 4.0  # cells that tissue is sought on
ABOVE_MM = 40.0  # how far above the kidneys it is sought
FEWEST = 20  # cells that suffice
NEAR = (1, 3, 3)  # a cell and its neighbours in the slice
ROW = ("quantity", "here", "n", "reference", "reference_n", "difference", "ks", "bound", "holds")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Published figures: geometry of KiTS19's cases, HU of real scans, Dice of label versions.

    geometry maps kidney_ml, tumor_ml, extent_mm, cyst_ml and kidney_slices (share of slices between
    the first and last with kidney) to one value per case; hu maps a scan to its tissues.
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
    content = json.loads((files("kitslib.phantom") / "reference.json").read_text(encoding="utf-8"))
    geometry = {name: np.array(values, float) for name, values in content.pop("geometry").items()}
    return Reference(geometry=geometry, **content)


def label_geometry(labels: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """Volumes in ml (`kidney_ml` with its cysts, as in KiTS19) and the kidneys' extent in z in mm.

    labels: (D, H, W) with values 0..3. spacing: (z, y, x) in mm.
    """
    ml = np.bincount(labels.ravel(), minlength=4) * float(np.prod(spacing)) / 1000
    slices = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    extent = float((slices[-1] - slices[0] + 1) * spacing[0]) if len(slices) else 0.0
    kidney, tumor, cyst = float(ml[1] + ml[3]), float(ml[2]), float(ml[3])
    return {"kidney_ml": kidney, "tumor_ml": tumor, "cyst_ml": cyst, "extent_mm": extent}


def sample_geometry(*, seed: int, cases: int = 200, jobs: int = 1) -> list[dict[str, float]]:
    """Measure the first cases of a seed's cohort on coarse label maps, without rendering CT."""
    return list(spread(partial(_sampled, seed=seed), range(cases), jobs))


def _sampled(index: int, *, seed: int) -> dict[str, float]:
    """Geometry of a case, on a grid that is coarse and still true to volumes of 1 ml."""
    return label_geometry(*render_label_map(index, seed=seed, matrix=96, spacing_z=(5.0,)))


def complex_cysts(labels: np.ndarray, index: int, *, seed: int, **drawn: Any) -> np.ndarray:
    """Return which voxels (D, H, W) of a synthetic case's label map belong to complex cysts.

    The case is drawn again from the parameters `drawn` of its cohort. Raises ValueError when the
    map's shape shows that they are not these.
    """
    _, _, renal, grid, _ = draw_case(index, seed, **drawn)
    if labels.shape != grid.shape:
        words = f"labels of shape {grid.shape}, got {labels.shape}; give its parameters"
        raise ValueError(f"case {index}: expected {words}")
    chosen = [cyst for cyst in renal.cysts if cyst.appearance.kind == "complex cyst"]
    alone = replace(renal, kidneys=[], tumors=[], cysts=chosen)
    return (alone.label_map(grid, THINNEST_MM) > 0) & (labels == 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tissues:
    """HU of voxels in kidney, liver, muscle and fat of one scan; SD in HU in its liver, or NaN."""

    hu: Mapping[str, np.ndarray]
    noise: float

    @property
    def medians(self) -> dict[str, float]:
        """Median HU per tissue and the noise; NaN where too little of a tissue was found."""
        enough = {name: hu if len(hu) >= FEWEST else [np.nan] for name, hu in self.hu.items()}
        return {name: float(np.median(hu)) for name, hu in enough.items()} | {"noise": self.noise}


def find_tissues(imaging: np.ndarray, labels: np.ndarray, spacing: Sequence[float]) -> Tissues:
    """Find tissue, on synthetic and real CT alike, by its place beside the kidneys and by even HU.

    imaging: int16 HU (D, H, W). labels: the same shape, 1 is healthy kidney, values above 0 are
    kidney; spacing: (z, y, x) in mm. Liver: the largest even soft tissue on the patient's right,
    from the right kidney's middle upwards. Muscle: dorsal of the kidneys beside the spine. Noise:
    SD within 12 mm in a slice of liver. Raises ValueError for labels without kidney.
    """
    slices = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    if not len(slices):
        raise ValueError("tissues: expected labels with kidney, got none; leave this case out")
    step = [max(1, round(CELL_MM / s)) for s in spacing]
    first = max(0, slices[0] - round(ABOVE_MM / spacing[0]))
    picked = np.arange(first, slices[-1] + 1, step[0])
    hu = _cells(np.maximum(imaging[picked], -1024).astype(np.float32), step)
    mean, kidney = hu.mean(axis=(2, 4)), _cells(labels[picked], step).max(axis=(2, 4)) > 0
    even = ndimage.maximum_filter(mean, NEAR) - ndimage.minimum_filter(mean, NEAR) < 70
    clear = even & ~ndimage.binary_dilation(kidney, np.ones(NEAR), iterations=2)
    where = np.argwhere(kidney)
    middle = (where[:, 2].min() + where[:, 2].max()) / 2
    z, y, x = np.indices(mean.shape, sparse=True)
    away = (middle - x) * (spacing[2] * step[2])  # mm to the patient's right of the midline
    dorsal = (y - where[:, 1].mean()) * (spacing[1] * step[1])
    right = where[where[:, 2] < middle]
    height = (right if len(right) else where)[:, 0].mean()
    liver = clear & (mean > 0) & (mean < 220) & (away > 20) & (z <= height)
    pieces, count = ndimage.label(liver)
    if count:
        liver = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    muscle = clear & (mean > 0) & (mean < 110) & (dorsal > 10) & (np.abs(away) < 60)
    muscle &= z >= where[:, 0].mean()
    fat = clear & (mean > -150) & (mean < -40)
    centers = hu[:, :, step[1] // 2, :, step[2] // 2]
    found = {"liver": centers[liver], "muscle": centers[muscle], "fat": centers[fat]}
    return Tissues(hu={"kidney": imaging[labels == 1], **found}, noise=_noise(hu, liver))


def _cells(volume: np.ndarray, step: Sequence[int]) -> np.ndarray:
    """Slices cut into cells of some pixels: (D, rows, pixels, columns, pixels)."""
    rows, cols = volume.shape[1] // step[1], volume.shape[2] // step[2]
    whole = volume[:, : rows * step[1], : cols * step[2]]
    return whole.reshape(-1, rows, step[1], cols, step[2])


def _noise(hu: np.ndarray, region: np.ndarray) -> float:
    """Median over 3 x 3 cells inside a region of the SD of their voxels, NaN for few of them."""
    whole = ndimage.minimum_filter(region.astype(np.uint8), NEAR) > 0
    if whole.sum() < FEWEST:
        return float("nan")
    mean, square = hu.mean(axis=(2, 4)), np.square(hu).mean(axis=(2, 4))
    variance = ndimage.uniform_filter(square, NEAR) - np.square(ndimage.uniform_filter(mean, NEAR))
    count = 9 * hu.shape[2] * hu.shape[4]
    return float(np.sqrt(max(float(np.median(variance[whole])), 0.0) * count / (count - 1)))


def _row(*values: Any) -> dict[str, Any]:
    """A row of the comparison."""
    return dict(zip(ROW, values, strict=True))


def geometry_rows(cases: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Compare cases, measured by `label_geometry`, with KiTS19: medians, Kolmogorov-Smirnov (KS).

    Keys: quantity, here, n, reference, reference_n, difference (in words), ks, bound (in words),
    holds. The last row is the share of cases with at least 0.5 ml of cyst; cases whose cyst_ml is
    NaN do not count there.
    """
    reference, rows = kits_reference().geometry, []
    bound = f"median within {MEDIAN_WITHIN:.0%}, KS up to {KS_WITHIN}"
    for name, words in GEOMETRY.items():
        ours, theirs = np.array([case[name] for case in cases], float), reference[name]
        here, there = float(np.median(ours)), float(np.median(theirs))
        ks, change = float(stats.ks_2samp(ours, theirs).statistic), f"{here / there - 1:+.0%}"
        holds = abs(here / there - 1) <= MEDIAN_WITHIN and ks <= KS_WITHIN
        rows.append(_row(words, here, len(ours), there, len(theirs), change, ks, bound, holds))
    known = np.array([case["cyst_ml"] for case in cases], float)
    known = known[~np.isnan(known)]
    if len(known):
        theirs = reference["cyst_ml"]
        here, there = float((known >= CYST_ML).mean()), float((theirs >= CYST_ML).mean())
        low, high = CYST_SHARE
        words, bound = f"share of cases with {CYST_ML} ml of cyst", f"{low:.0%} to {high:.0%}"
        change, holds = f"{here / there - 1:+.0%}", low <= here <= high
        rows.append(_row(words, here, len(known), there, len(theirs), change, None, bound, holds))
    return rows


def hu_rows(medians: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Compare median HU over cases (`Tissues.medians`) with real CT; keys as in `geometry_rows`."""
    reference, rows = kits_reference(), []
    for name in TISSUES:
        values = np.array([one[name] for one in medians], float)
        values = values[~np.isnan(values)]
        if len(values):
            here, there = float(np.median(values)), reference.tissue(name)
            words, bound, n = f"{name}, HU", f"within {HU_WITHIN:.0f} HU", len(reference.hu)
            change, holds = f"{here - there:+.0f} HU", abs(here - there) <= HU_WITHIN
            rows.append(_row(words, here, len(values), there, n, change, None, bound, holds))
    return rows


def overlap_row(overlap: float, cases: int) -> dict[str, Any]:
    """Give the row of the histogram overlap of complex cysts' and tumours' HU.

    Keys as in `geometry_rows`; for an overlap of NaN (too few voxels) `here` and `holds` are None.
    """
    here = None if np.isnan(overlap) else overlap
    holds = None if here is None else bool(here >= OVERLAP_FROM)
    words, bound = "HU overlap of complex cyst and tumour", f"at least {OVERLAP_FROM}"
    return _row(words, here, cases, None, 0, "", None, bound, holds)
