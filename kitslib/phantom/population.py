"""How kidneys, tumours and cysts vary over cases: volumes, numbers and places as in KiTS."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from kitslib.phantom.lesions import ALIKE, Cysts, Lesion, ball_radius, draw_cyst, draw_tumor
from kitslib.phantom.patient import Patient
from kitslib.phantom.renal import Kidney, Renal
from kitslib.phantom.shapes import Ellipsoid, draw_field, lattice

# quantiles per case: ml of kidney label in KiTS19 (cysts included), log(ml) of tumour in KiTS19 and
# of cyst in KiTS23 where there is any
KIDNEY_ML = ((0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), (100, 259, 352, 408, 490, 612, 755))
TUMOR_ML = ((0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), (-0.2, 0.96, 2.07, 3.41, 4.54, 6.42, 7.25))
CYST_ML = ((0, 0.14, 0.25, 0.5, 0.75, 0.95, 1), (-3.0, -0.69, 0.2, 1.47, 3.06, 4.4, 5.5))
ANY_CYST = 0.48  # share of cases
COMPLEX = 0.45  # share of their cysts
MEASURE_MM = 2.5

# steps with small discrepancy; independent over the rationals, so that no two ranks move together
RANKS = ("tumor", "any_cyst", "kidney", "cyst", "slices", "pixel", "above", "below")
STEPS = ((5**0.5 - 1) / 2, 2**0.5, 3**0.5, 6**0.5, 7**0.5, 13**0.5, 11**0.5, 10**0.5)


def draw_ranks(seed: int, index: int) -> dict[str, float]:
    """Quantiles in 0..1 that decide how a case lies within the cohort, by the names of `RANKS`.

    A Kronecker sequence (a random start of the cohort, then equal irrational steps modulo 1) lets
    any run of cases cover every distribution evenly. Depends on (seed, index) alone.
    """
    start = np.random.default_rng(np.random.SeedSequence((seed,))).uniform(size=len(STEPS))
    ranks = (start + index * np.array(STEPS)) % 1
    return dict(zip(RANKS, ranks.tolist(), strict=True))


def draw_kidney(
    rng: Generator, side: int, ml: float, center: np.ndarray, axis: np.ndarray | None = None
) -> Kidney:
    """Draw a kidney of about `ml` on one side (-1 right, +1 left).

    axis: (z, y, x) of its long axis; None draws the usual one.
    """
    ratio = np.array([1.0, rng.uniform(0.43, 0.54), rng.uniform(0.52, 0.66)])
    long = np.cbrt(ml * 1000 / (4 / 3 * np.pi * ratio[1] * ratio[2] * 0.82))
    radii = long * ratio  # along the long axis, dorso-ventral, medio-lateral
    # the caudal pole tips forwards and outwards
    usual = np.array([1.0, rng.normal(-0.4, 0.17), side * rng.normal(0.27, 0.14)])
    axis = usual if axis is None else axis
    axis = axis / np.linalg.norm(axis)
    lateral = np.array([0.0, rng.normal(0.35, 0.25), float(side)])
    lateral -= axis * (axis @ lateral)
    lateral /= np.linalg.norm(lateral)
    dorsal = np.cross(axis, lateral)
    turn = np.stack([axis, dorsal if dorsal[1] >= 0 else -dorsal, lateral * side], axis=1)
    size = rng.uniform(0.85, 1.15) * radii * np.array([0.38, 0.33, 0.62])
    lumps, lump_mm = draw_field(rng, rng.uniform(6, 9)), rng.uniform(1.5, 4.0)
    sinus = Ellipsoid((0, -0.1 * radii[1], -0.62 * radii[2]), size, None, lumps, lump_mm)
    place = (rng.uniform(-0.1, 0.1) * radii[0], 0, -0.5 * radii[2])
    pelvis = Ellipsoid(place, radii * np.array([0.2, 0.2, 0.5]) * rng.uniform(0.5, 1.3))
    bend = rng.uniform(0.05, 0.14) * radii[0]
    body = Ellipsoid((0, 0, 0), radii, None, draw_field(rng, 16.0), rng.uniform(0.3, 1.3))
    return Kidney(side, center, turn, body, sinus, pelvis, bend)


def draw_renal(
    rng: Generator, ranks: dict[str, float], patient: Patient, size: float, cysts: Cysts
) -> Renal:
    """Draw kidneys, tumours and cysts inside the patient's cavity.

    size: body size quantile in 0..1, correlated with kidney volume as in KiTS (r about 0.5).
    """
    kidneys, total = draw_pair(rng, ranks, size)
    renal = Renal(kidneys, draw_tumors(rng, ranks, kidneys, patient), [])
    renal = replace(renal, cysts=draw_cysts(rng, ranks, renal, patient, cysts))
    for _ in range(2):
        scale = float(np.clip(np.cbrt(total / max(kidney_ml(renal), 1.0)), 0.93, 1.2))
        renal = replace(renal, kidneys=[kidney.scaled(scale) for kidney in renal.kidneys])
    return renal


def draw_pair(rng: Generator, ranks: dict[str, float], size: float) -> tuple[list[Kidney], float]:
    """Draw two kidneys, right and left, and the ml that they should have together."""
    body, own = ndtri(np.clip(size, 0.01, 0.99)), ndtri(np.clip(ranks["kidney"], 0.002, 0.998))
    total = float(np.interp(ndtr(0.5 * body + np.sqrt(0.75) * own), *KIDNEY_ML))
    left = float(np.clip(rng.normal(0.5, 0.05), 0.36, 0.64))
    low = rng.normal(9, 20)  # mm by which the right kidney lies lower
    half = rng.normal(71, 8) + 10 * (size - 0.5) + 0.03 * (total - 400)
    forward = rng.normal(0, 15)
    kidneys = []
    for side, share in ((-1, 1 - left), (1, left)):
        y, x = rng.normal(2, 5) + side * forward / 2, side * half + rng.normal(0, 4)
        kidneys.append(draw_kidney(rng, side, total * share, np.array([-side * low / 2, y, x])))
    return kidneys, total


def kidney_ml(renal: Renal) -> float:
    """Volume in ml of what KiTS19 labels as kidney (cysts included, tumour not)."""
    total = 0.0
    for kidney in renal.kidneys:
        region = lattice(kidney.center, kidney.reach, MEASURE_MM)
        inside = kidney.distance(region)[0] < 0
        for lesion in renal.tumors:
            inside &= lesion.distance(region) >= 0
        total += float(inside.sum()) * MEASURE_MM**3 / 1000
    for cyst in renal.cysts:
        region = lattice(cyst.center, cyst.reach, MEASURE_MM)
        inside = cyst.distance(region) < 0
        for kidney in renal.kidneys:
            if kidney.side * cyst.center[2] > 0:
                inside &= kidney.distance(region)[0] >= 0
        total += float(inside.sum()) * MEASURE_MM**3 / 1000
    return total


def _place(
    rng: Generator, kidney: Kidney, ml: float, patient: Patient, others: list[Lesion], out: tuple
) -> np.ndarray:
    """A centre near the kidney's surface, clear of lesions and wall.

    out: least and most radii by which it lies outside the surface.
    """
    radius, (middle, ry, rx) = ball_radius(ml * 1000), patient.room
    ry, rx = max(ry - 0.9 * radius, 10.0), max(rx - 0.9 * radius, 10.0)
    best, most = kidney.center, -np.inf
    for _ in range(8):
        way = rng.standard_normal(3) * np.array([1.3, 0.9, 1.0])
        if rng.uniform() < 0.75:
            way[2] = abs(way[2])
        if radius > 30:
            way[1] -= 0.5 * radius / 30  # large ones grow forwards
        point, normal = kidney.surface(way)
        point = point + normal * radius * rng.uniform(*out)
        k = np.hypot((point[1] - middle) / ry, point[2] / rx)
        if k > 1:
            point[1:] = (middle + (point[1] - middle) / k, point[2] / k)
        gaps = [np.linalg.norm(point - other.center) - other.radius - radius for other in others]
        room = min([5.0, *gaps])  # mm to the nearest lesion, as far as it matters
        room -= max(0.0, radius * 0.7 + 25 - abs(point[2]))  # crossing the spine
        if room > most:
            best, most = point, room
    return best


def draw_tumors(
    rng: Generator, ranks: dict[str, float], kidneys: list[Kidney], patient: Patient
) -> list[Lesion]:
    """One tumour, several in about one case in eight."""
    total = float(np.exp(np.interp(ranks["tumor"], *TUMOR_ML)))
    home, shares = kidneys[rng.integers(len(kidneys))], [1.0]
    if rng.uniform() < 0.12 and total > 3:
        shares = np.sort(rng.dirichlet([1.0] * rng.integers(2, 5)))[::-1]
    tumors: list[Lesion] = []
    for i, share in enumerate(shares):
        kidney = home if i == 0 or rng.uniform() < 0.7 else kidneys[rng.integers(len(kidneys))]
        ml = max(total * share, 0.4)
        center = _place(rng, kidney, ml, patient, tumors, (-0.8, 0.75))
        tumors.append(draw_tumor(rng, center, ml, patient.values.kidney))
    return tumors


def draw_cysts(
    rng: Generator, ranks: dict[str, float], renal: Renal, patient: Patient, cysts: Cysts,
    complex_share: float = COMPLEX, alike: float = ALIKE,
) -> list[Lesion]:  # fmt: skip
    """No cyst in half the cases, one to six in the others; `hard` gives every case complex ones.

    complex_share: of the cysts. alike: share of those that have a tumour's HU.
    """
    hard = cysts == "hard"
    if not hard and ranks["any_cyst"] >= ANY_CYST:
        return []
    total = float(np.exp(np.interp(ranks["cyst"], *CYST_ML)))
    count = 1 + min(int(rng.geometric(0.5)) - 1, 5)
    if hard:
        total = max(total, 2.0) * rng.uniform(1, 3)
        count = max(count, int(rng.integers(1, 4)))
    found: list[Lesion] = []
    for i, share in enumerate(np.sort(rng.dirichlet([1.5] * count))[::-1]):
        is_complex = (hard and i < 2) or rng.uniform() < complex_share
        kind = "complex cyst" if is_complex else "simple cyst"
        ml = max(total * float(share), 0.04)
        kidney = renal.kidneys[rng.integers(len(renal.kidneys))]
        center = _place(rng, kidney, ml, patient, renal.tumors + found, (-0.7, 0.6))
        found.append(draw_cyst(rng, center, ml, kind, patient.values.kidney, alike))
    return found
