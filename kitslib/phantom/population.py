"""How kidneys, tumours and cysts are distributed over cases: volumes, numbers and places as in KiTS."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, ndtri

from kitslib.phantom.lesions import Cysts, Lesion, draw_cyst, draw_tumour
from kitslib.phantom.renal import Kidney, Renal
from kitslib.phantom.shapes import Ellipsoid, draw_field, lattice

# quantiles per case: ml of kidney label in KiTS19 (cysts included), log(ml) of tumour in KiTS19 and of cyst in
# KiTS23 where there is any
KIDNEY_ML = ((0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), (100, 259, 352, 408, 490, 612, 755))
TUMOUR_ML = ((0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), (-0.2, 0.96, 2.07, 3.41, 4.54, 6.42, 7.25))
CYST_ML = ((0, 0.14, 0.25, 0.5, 0.75, 0.95, 1), (-3.0, -0.69, 0.2, 1.47, 3.06, 4.4, 5.5))
ANY_CYST = 0.48  # share of cases
MEASURE_MM = 2.5


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Quantiles in 0..1 that decide how a case lies within the cohort."""

    pixel: float
    slices: float
    kidney: float
    tumour: float
    any_cyst: float
    cyst: float
    above: float
    below: float


# steps with small discrepancy; independent over the rationals, so that no two ranks move together
STEPS = {
    "tumour": (5**0.5 - 1) / 2,
    "any_cyst": 2**0.5,
    "kidney": 3**0.5,
    "cyst": 6**0.5,
    "slices": 7**0.5,
    "pixel": 13**0.5,
    "above": 11**0.5,
    "below": 10**0.5,
}


def draw_ranks(seed: int, index: int) -> Ranks:
    """Ranks from a Kronecker sequence, so that any run of cases covers every distribution evenly.

    They depend on (seed, index) alone: a random start of the cohort, then equal irrational steps modulo 1.
    """
    start = np.random.default_rng(np.random.SeedSequence((seed,))).uniform(size=len(STEPS))
    return Ranks(
        **{
            name: float((u + index * step) % 1)
            for (name, step), u in zip(STEPS.items(), start, strict=True)
        }
    )


def draw_kidney(rng: np.random.Generator, side: int, ml: float, centre: np.ndarray) -> Kidney:
    """Draw a kidney of about `ml` on one side (-1 right, +1 left)."""
    ratio = np.array([1.0, rng.uniform(0.43, 0.54), rng.uniform(0.52, 0.66)])
    long = np.cbrt(ml * 1000 / (4 / 3 * np.pi * ratio[1] * ratio[2] * 0.82))
    radii = long * ratio
    # the caudal pole tips forwards and outwards
    axis = np.array([1.0, rng.normal(-0.4, 0.17), side * rng.normal(0.27, 0.14)])
    axis /= np.linalg.norm(axis)
    lateral = np.array([0.0, rng.normal(0.35, 0.25), float(side)])
    lateral -= axis * (axis @ lateral)
    lateral /= np.linalg.norm(lateral)
    dorsal = np.cross(axis, lateral)
    if dorsal[1] < 0:
        dorsal = -dorsal
    turn = np.stack([axis, dorsal, lateral * side], axis=1)
    sinus_size = rng.uniform(0.85, 1.15)
    sinus = Ellipsoid(
        centre=np.array([0, -0.1 * radii[1], -0.62 * radii[2]]),
        radii=sinus_size * radii * np.array([0.38, 0.33, 0.62]),
        lumps=draw_field(rng, rng.uniform(6, 9)),
        lump_mm=rng.uniform(1.5, 4.0),
    )
    pelvis = Ellipsoid(
        centre=np.array([rng.uniform(-0.1, 0.1) * radii[0], 0, -0.5 * radii[2]]),
        radii=radii * np.array([0.2, 0.2, 0.5]) * rng.uniform(0.5, 1.3),
    )
    return Kidney(
        side=side,
        centre=centre,
        radii=radii,
        turn=turn,
        bend=rng.uniform(0.05, 0.14) * radii[0],
        sinus=sinus,
        pelvis=pelvis,
        lumps=draw_field(rng, 16.0),
        lump_mm=rng.uniform(0.3, 1.3),
    )


def draw_renal(
    rng: np.random.Generator,
    ranks: Ranks,
    *,
    size: float,
    cavity: tuple[float, float, float],
    cysts: Cysts,
    hu: float,
) -> Renal:
    """Draw kidneys, tumours and cysts.

    size: body size quantile in 0..1, correlated with kidney volume as in KiTS (r about 0.5). cavity: centre y and
    half axes (y, x) in mm of the space that lesions stay in. hu: enhancement of the kidney.
    """
    rank = ndtr(
        0.5 * ndtri(np.clip(size, 0.01, 0.99))
        + np.sqrt(0.75) * ndtri(np.clip(ranks.kidney, 0.002, 0.998))
    )
    total = float(np.interp(rank, *KIDNEY_ML))
    left = float(np.clip(rng.normal(0.5, 0.05), 0.36, 0.64))
    low = rng.normal(9, 20)  # mm by which the right kidney lies lower
    half = rng.normal(71, 8) + 10 * (size - 0.5) + 0.03 * (total - 400)
    forward = rng.normal(0, 15)
    kidneys = [
        draw_kidney(
            rng,
            side,
            total * share,
            np.array(
                [
                    -side * low / 2,
                    rng.normal(2, 5) + side * forward / 2,
                    side * half + rng.normal(0, 4),
                ]
            ),
        )
        for side, share in ((-1, 1 - left), (1, left))
    ]
    tumours = _draw_tumours(rng, ranks, kidneys, cavity, hu)
    growths = _draw_cysts(rng, ranks, kidneys, tumours, cavity, cysts, hu)
    renal = Renal(kidneys=tuple(kidneys), tumours=tuple(tumours), cysts=tuple(growths))
    for _ in range(2):
        scale = float(np.clip(np.cbrt(total / max(measure(renal), 1.0)), 0.93, 1.2))
        renal = replace(renal, kidneys=tuple(k.grown(scale) for k in renal.kidneys))
    return renal


def measure(renal: Renal) -> float:
    """Volume in ml of what will be labelled kidney (cysts included, tumour not)."""
    total = 0.0
    for kidney in renal.kidneys:
        window = lattice(kidney.centre, kidney.reach, MEASURE_MM)
        inside = kidney.distance(window)[0] < 0
        for lesion in renal.tumours:
            inside &= lesion.distance(window) >= 0
        total += float(inside.sum()) * MEASURE_MM**3 / 1000
    for cyst in renal.cysts:
        near = [k for k in renal.kidneys if k.side * cyst.centre[2] > 0]
        window = lattice(cyst.centre, cyst.reach, MEASURE_MM)
        inside = cyst.distance(window) < 0
        for kidney in near:
            inside &= kidney.distance(window)[0] >= 0
        total += float(inside.sum()) * MEASURE_MM**3 / 1000
    return total


def _place(
    rng: np.random.Generator,
    kidney: Kidney,
    ml: float,
    cavity: tuple[float, float, float],
    others: list[Lesion],
    sunk: tuple[float, float],
) -> np.ndarray:
    """Choose a centre at the kidney's surface, `sunk` radii out of it, clear of lesions and wall."""
    radius = float(np.cbrt(ml * 1000 * 3 / (4 * np.pi)))
    best, most = kidney.centre, -np.inf
    for _ in range(8):
        way = rng.standard_normal(3) * np.array([1.3, 0.9, 1.0])
        way[2] = abs(way[2]) if rng.uniform() < 0.75 else way[2]
        if radius > 30:
            way[1] -= 0.5 * radius / 30  # large ones grow forwards
        point, normal = kidney.surface(way)
        point = point + normal * radius * rng.uniform(*sunk)
        middle, ry, rx = cavity
        ry, rx = max(ry - 0.9 * radius, 10.0), max(rx - 0.9 * radius, 10.0)
        k = np.hypot((point[1] - middle) / ry, point[2] / rx)
        if k > 1:
            point[1:] = (middle + (point[1] - middle) / k, point[2] / k)
        clear = min(
            (np.linalg.norm(point - o.centre) - o.radius - radius for o in others), default=20.0
        )
        inward = max(0.0, radius * 0.7 + 25 - abs(point[2]))  # crossing the spine
        if min(clear, 5.0) - inward > most:
            best, most = point, min(clear, 5.0) - inward
    return best


def _draw_tumours(
    rng: np.random.Generator,
    ranks: Ranks,
    kidneys: list[Kidney],
    cavity: tuple[float, float, float],
    hu: float,
) -> list[Lesion]:
    """One tumour, several in about one case in eight."""
    total = float(np.exp(np.interp(ranks.tumour, *TUMOUR_ML)))
    home = kidneys[rng.integers(2)]
    shares = [1.0]
    if rng.uniform() < 0.12 and total > 3:
        shares = list(np.sort(rng.dirichlet([1.0] * rng.integers(2, 5)))[::-1])
    tumours: list[Lesion] = []
    for i, share in enumerate(shares):
        kidney = home if i == 0 or rng.uniform() < 0.7 else kidneys[rng.integers(2)]
        ml = max(total * share, 0.4)
        centre = _place(rng, kidney, ml, cavity, tumours, (-0.8, 0.75))
        tumours.append(draw_tumour(rng, centre, ml, hu))
    return tumours


def _draw_cysts(
    rng: np.random.Generator,
    ranks: Ranks,
    kidneys: list[Kidney],
    tumours: list[Lesion],
    cavity: tuple[float, float, float],
    cysts: Cysts,
    hu: float,
) -> list[Lesion]:
    """No cyst in half the cases, one to six in the others; `hard` makes every case have complex ones."""
    hard = cysts == "hard"
    if not hard and ranks.any_cyst >= ANY_CYST:
        return []
    total = float(np.exp(np.interp(ranks.cyst, *CYST_ML)))
    count = 1 + min(int(rng.geometric(0.5)) - 1, 5)
    if hard:
        total = max(total, 2.0) * rng.uniform(1, 3)
        count = max(count, int(rng.integers(1, 4)))
    found: list[Lesion] = []
    for i, share in enumerate(np.sort(rng.dirichlet([1.5] * count))[::-1]):
        kind = "complex cyst" if (hard and i < 2) or rng.uniform() < 0.45 else "simple cyst"
        ml = max(total * float(share), 0.04)
        kidney = kidneys[rng.integers(2)]
        centre = _place(rng, kidney, ml, cavity, tumours + found, (-0.7, 0.6))
        found.append(draw_cyst(rng, centre, ml, kind, hu))
    return found
