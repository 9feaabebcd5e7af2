"""Two kidneys with sinus and pelvis, and the tumours and cysts that grow on them, as distance functions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, ndtri

from kitslib.phantom.lesions import (
    ANY_CYST,
    CYST_ML,
    TUMOUR_ML,
    Cysts,
    Lesion,
    Look,
    draw_cyst,
    draw_tumour,
)
from kitslib.phantom.shapes import Ellipsoid, Field, Grid, Slab, Window, cover, draw_field, lattice, rotation

# quantiles of the kidney label's volume per case in ml (KiTS19, both kidneys, cysts included)
KIDNEY_ML = ((0, 0.05, 0.25, 0.5, 0.75, 0.95, 1), (100, 259, 352, 408, 490, 612, 755))
MEASURE_MM = 2.5
COARSE_MM = 4.0  # grid on which the surroundings are measured
HALO_MM = 40.0
SHARE = 0.5


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


def draw_ranks(seed: int, index: int) -> Ranks:
    """Ranks from a Kronecker sequence, so that any run of cases covers every distribution evenly.

    They depend on (seed, index) alone: a random start, then steps of 1/g, 1/g^2 .. with g the root of g^9 = g + 1
    (the generalised golden ratio).
    """
    names = Ranks.__dataclass_fields__
    start = np.random.default_rng(np.random.SeedSequence((seed,))).uniform(size=len(names))
    g = 1.0
    for _ in range(60):
        g = (1 + g) ** (1 / (len(names) + 1))
    step = g ** -np.arange(1.0, len(names) + 1)
    return Ranks(**{n: float(v) for n, v in zip(names, (start + index * step) % 1, strict=True)})


@dataclass(frozen=True, kw_only=True)
class Kidney:
    """A bent, lumpy ellipsoid with a sinus opening to the spine; local axes are caudal, dorsal, lateral."""

    side: int  # -1 the patient's right, +1 left
    centre: np.ndarray
    radii: np.ndarray  # mm along the long axis, dorso-ventral, medio-lateral
    turn: np.ndarray
    bend: float  # mm by which the poles lie nearer the spine than the middle
    sinus: Ellipsoid  # in local coordinates, x lateral
    pelvis: Ellipsoid
    lumps: Field
    lump_mm: float

    @property
    def reach(self) -> np.ndarray:
        """Half extents (z, y, x) in mm of the bounding box."""
        return np.sqrt(((self.turn * self.radii) ** 2).sum(1)) + self.bend + 8

    def local(self, window: Window) -> Window:
        """The window in the kidney's own axes, lateral positive, poles bent straight."""
        d = (window.z - self.centre[0], window.y - self.centre[1], window.x - self.centre[2])
        m = self.turn
        u, w, v = ((m[0, i] * d[0] + (m[1, i] * d[1] + m[2, i] * d[2])).astype(np.float32) for i in range(3))
        v = v * self.side
        v += np.float32(self.bend) * np.square(u / np.float32(self.radii[0]))
        return Window(index=window.index, z=u, y=w, x=v, axes=window.axes)

    def outline(self, local: Window) -> np.ndarray:
        """Distance in mm to the outer surface as if the sinus were filled."""
        body = Ellipsoid(centre=np.zeros(3), radii=self.radii, lumps=self.lumps, lump_mm=self.lump_mm)
        return body.distance(local)

    def distance(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Signed distances in mm of what is labelled kidney and of the collecting system in it."""
        local = self.local(window)
        body = self.outline(local)
        pelvis = self.pelvis.shell(local)
        return np.maximum(body, np.minimum(-self.sinus.distance(local), pelvis)), np.maximum(body, pelvis)

    def surface(self, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Point on the surface and outward normal (patient z, y, x) towards a local direction."""
        local = way / np.sqrt(np.square(way / self.radii).sum())
        normal = local / self.radii**2
        local = local - np.array([0, 0, self.bend * (local[0] / self.radii[0]) ** 2])
        flip = np.array([1, 1, self.side])
        normal = self.turn @ (normal * flip)
        return self.centre + self.turn @ (local * flip), normal / np.linalg.norm(normal)

    def hilum(self) -> np.ndarray:
        """Where the vessels enter, patient (z, y, x) mm."""
        flip = np.array([1, 1, self.side])
        return self.centre + self.turn @ (np.array([0, 0, -0.75 * self.radii[2]]) * flip)

    def grown(self, scale: float) -> Kidney:
        """The same kidney, larger or smaller about its centre."""
        return replace(
            self,
            radii=self.radii * scale,
            bend=self.bend * scale,
            sinus=replace(self.sinus, centre=self.sinus.centre * scale, radii=self.sinus.radii * scale),
            pelvis=replace(self.pelvis, centre=self.pelvis.centre * scale, radii=self.pelvis.radii * scale),
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kidney or lesion on a slab: where, its share of every voxel, and depth in mm below the surface."""

    index: tuple[slice, slice, slice]
    window: Window
    share: np.ndarray
    depth: np.ndarray
    pelvis: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """A coarse mask in image axes: position of its first voxel and voxel size (z, y, x) in mm."""

    inside: np.ndarray
    origin: tuple[float, ...]
    cell: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Renal:
    """Kidneys and their lesions in patient coordinates."""

    kidneys: tuple[Kidney, ...]
    tumours: tuple[Lesion, ...]
    cysts: tuple[Lesion, ...]

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest (z, y, x) in mm of everything labelled."""
        parts = [*self.kidneys, *self.tumours, *self.cysts]
        reach = [p.reach - 5 for p in parts]
        low = np.min([p.centre - r for p, r in zip(parts, reach, strict=True)], axis=0)
        return low, np.max([p.centre + r for p, r in zip(parts, reach, strict=True)], axis=0)

    @property
    def hila(self) -> list[np.ndarray]:
        """Where the renal vessels enter, patient (z, y, x) mm."""
        return [kidney.hilum() for kidney in self.kidneys]

    @property
    def looks(self) -> tuple[list[Look], list[Look]]:
        """Appearance of every tumour and of every cyst."""
        return [t.look for t in self.tumours], [c.look for c in self.cysts]

    def coarse(self, grid: Grid) -> Coarse:
        """Everything labelled, on a coarse grid with `HALO_MM` around it."""
        low, high = self.bounds
        corners = [grid.to_image(y, x) for y in (low[1], high[1]) for x in (low[2], high[2])]
        first = np.array([low[0], *np.min(corners, axis=0)]) - HALO_MM
        last = np.array([high[0], *np.max(corners, axis=0)]) + HALO_MM
        shape = tuple(int(n) for n in np.ceil((last - first) / COARSE_MM) + 1)
        small = Grid(
            shape=shape, spacing=(COARSE_MM,) * 3, origin=tuple(-first / COARSE_MM), angle=grid.angle
        )
        inside = np.concatenate(
            [label_slab(self.sample(slab), slab.shape) for slab in small.slabs(COARSE_MM)]
        )
        return Coarse(inside=inside > 0, origin=tuple(first), cell=(COARSE_MM,) * 3)

    def sample(self, slab: Slab) -> tuple[list[Part | None], list[Part | None], list[Part | None]]:
        """Kidneys, tumours and cysts on the slices of a slab (None where one does not reach it)."""
        return (
            [_part(slab, kidney) for kidney in self.kidneys],
            [_part(slab, lesion) for lesion in self.tumours],
            [_part(slab, lesion) for lesion in self.cysts],
        )


def _part(slab: Slab, shape: Kidney | Lesion) -> Part | None:
    """Average the share of a shape over the sub-slices of every slice that it meets."""
    fine = slab.window(shape.centre, shape.reach)
    if fine is None:
        return None
    subs, first, last = slab.subs, fine.index[0].start // slab.subs, -(-fine.index[0].stop // slab.subs)
    fine = slab.crop(first * subs, last * subs, *fine.index[1:])
    pelvis = None
    if isinstance(shape, Kidney):
        distance, inner = shape.distance(fine)
        pelvis = _mean(cover(inner, slab.edge), subs)
    else:
        distance = shape.distance(fine)
    window = slab.single().crop(first, last, *fine.index[1:])
    return Part(
        index=window.index,
        window=window,
        share=_mean(cover(distance, slab.edge), subs),
        depth=-_mean(distance, subs),
        pelvis=pelvis,
    )


def _mean(values: np.ndarray, subs: int) -> np.ndarray:
    """Average groups of `subs` along the first axis."""
    if subs == 1:
        return values
    total = values[::subs].copy()
    for k in range(1, subs):
        total += values[k::subs]
    return total * np.float32(1 / subs)


def label_slab(parts: tuple[list[Part | None], ...], shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 labels 0..3 of a slab: a voxel belongs to what fills half of it; tumour wins over cyst over kidney."""
    labels = np.zeros(shape, np.uint8)
    for value, group in ((1, parts[0]), (3, parts[2]), (2, parts[1])):
        for part in group:
            if part is not None:
                labels[part.index][part.share > SHARE] = value
    return labels


def draw_kidney(rng: np.random.Generator, side: int, ml: float, centre: np.ndarray) -> Kidney:
    """Draw a kidney of about `ml` on one side (-1 right, +1 left)."""
    ratio = np.array([1.0, rng.uniform(0.43, 0.54), rng.uniform(0.52, 0.66)])
    long = np.cbrt(ml * 1000 / (4 / 3 * np.pi * ratio[1] * ratio[2] * 0.82))
    radii = long * ratio
    # caudal pole tips forwards and outwards
    turn = rotation(x=0.0, y=0.0, z=0.0)
    axis = np.array([1.0, rng.normal(-0.4, 0.17), side * rng.normal(0.27, 0.14)])
    axis /= np.linalg.norm(axis)
    lateral = np.array([0.0, rng.normal(0.35, 0.25), float(side)]) * np.array([1, 1, 1])
    lateral -= axis * (axis @ lateral)
    lateral /= np.linalg.norm(lateral)
    dorsal = np.cross(axis, lateral) * 1.0
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

    size: body size quantile in 0..1, correlated with kidney volume as in KiTS (r about 0.5); cavity: centre y and half
    axes (y, x) in mm of the space that lesions stay in; hu: enhancement of the kidney.
    """
    rank = ndtr(
        0.5 * ndtri(np.clip(size, 0.01, 0.99)) + np.sqrt(0.75) * ndtri(np.clip(ranks.kidney, 0.002, 0.998))
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
                [-side * low / 2, rng.normal(2, 5) + side * forward / 2, side * half + rng.normal(0, 4)]
            ),
        )
        for side, share in ((-1, 1 - left), (1, left))
    ]
    tumours = _draw_tumours(rng, ranks, kidneys, cavity, hu)
    growths = _draw_cysts(rng, ranks, kidneys, tumours, cavity, cysts, hu)
    renal = Renal(kidneys=tuple(kidneys), tumours=tuple(tumours), cysts=tuple(growths))
    for _ in range(2):
        scale = float(np.clip(np.cbrt(total / max(measure(renal), 1.0)), 0.8, 1.2))
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
    """Choose a centre at the kidney's surface, `sunk` radii out of it, clear of other lesions and of the wall."""
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
        clear = min((np.linalg.norm(point - o.centre) - o.radius - radius for o in others), default=20.0)
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
