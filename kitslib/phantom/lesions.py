"""Tumours and cysts: where they grow, their shape, and how they look on CT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kitslib.phantom.shapes import Ellipsoid, Field, Window, cover, draw_field, lattice, rotation

Cysts = Literal["typical", "hard"]
Kind = Literal["tumour", "simple cyst", "complex cyst"]

SPINE_KEEPOUT = (36.0, 34.0)  # mm, half axes (y, x) of the column that no lesion enters


@dataclass(frozen=True, kw_only=True)
class Look:
    """CT appearance of one lesion: HU values, HU amplitudes and the random fields of its texture."""

    kind: Kind
    mean: float
    coarse: float
    fine: float
    coarse_field: Field
    fine_field: Field
    necrosis: float  # threshold on the coarse field above which tissue is dead; large = none
    dead: float
    rim: float  # HU added within rim_mm of the surface
    rim_mm: float
    septa: float  # HU added on thin sheets inside


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A union of lumpy ellipsoids that stays out of the spine."""

    look: Look
    parts: tuple[Ellipsoid, ...]
    smooth: float  # mm over which parts melt into each other

    @property
    def centre(self) -> np.ndarray:
        """Centre (z, y, x) in mm of the main part."""
        return self.parts[0].centre

    @property
    def radius(self) -> float:
        """Mean radius in mm of the main part."""
        return float(np.cbrt(np.prod(self.parts[0].radii)))

    @property
    def reach(self) -> np.ndarray:
        """Half extents (z, y, x) in mm around the centre."""
        return np.max([np.abs(p.centre - self.centre) + p.reach for p in self.parts], axis=0)

    def distance(self, window: Window) -> np.ndarray:
        """Approximate signed distance in mm, negative inside."""
        total = self.parts[0].shell(window)
        for part in self.parts[1:]:
            other = part.shell(window)
            mix = np.clip(0.5 + (other - total) / (2 * self.smooth), 0, 1)
            total = other + mix * (total - other) - self.smooth * mix * (1 - mix)
        first = self.parts[0]
        if first.lumps is not None:
            total += first.lump_mm * first.lumps(window)
        return np.maximum(total, spine_gap(window))


def spine_gap(window: Window) -> np.ndarray:
    """Signed distance in mm into the column around the spine, positive inside it."""
    ry, rx = SPINE_KEEPOUT
    k = np.sqrt(np.square((window.y - 10) / ry) + np.square(window.x / rx))
    return (1 - k) * np.float32(min(ry, rx))


def draw_look(rng: np.random.Generator, kind: Kind, kidney_hu: float, radius: float) -> Look:
    """Draw the appearance of a lesion of `radius` mm beside parenchyma of `kidney_hu`."""
    uptake = kidney_hu - 35
    solid = rng.uniform(26, 44) + uptake * float(np.clip(rng.beta(2.2, 2.4), 0.08, 0.9))
    coarse, fine, necrosis, rim, rim_mm, septa = 0.0, 0.0, 9.0, 0.0, 2.0, 0.0
    if kind == "tumour":
        mean = solid
        coarse, fine = rng.uniform(4, 12) + 0.14 * uptake * rng.uniform(), rng.uniform(0, 10)
        if rng.uniform() < np.clip(radius / 60, 0.08, 0.65):
            necrosis = rng.uniform(-0.3, 1.0)
        if rng.uniform() < 0.3:
            rim, rim_mm = rng.uniform(-25, 35), rng.uniform(1.5, 4)
    elif kind == "simple cyst":
        mean = rng.uniform(0, 20)
        rim, rim_mm = (rng.uniform(5, 25), 1.0) if rng.uniform() < 0.4 else (0.0, 1.0)
    else:
        mean = rng.choice([solid, rng.uniform(35, 90)], p=[0.7, 0.3])
        coarse, fine = rng.uniform(2, 9) + 0.07 * uptake * rng.uniform(), rng.uniform(0, 8)
        rim, rim_mm = rng.uniform(0, 30), rng.uniform(1, 3)
        septa = rng.uniform(15, 50) if rng.uniform() < 0.35 else 0.0
        if rng.uniform() < 0.25:
            necrosis = rng.uniform(0.2, 1.0)
    return Look(
        kind=kind,
        mean=float(mean),
        coarse=coarse,
        fine=fine,
        coarse_field=draw_field(rng, max(4.0, 0.55 * radius)),
        fine_field=draw_field(rng, 3.0, 16),
        necrosis=necrosis,
        dead=rng.uniform(8, 32),
        rim=rim,
        rim_mm=rim_mm,
        septa=septa,
    )


def lesion_hu(look: Look, window: Window, depth: np.ndarray) -> np.ndarray:
    """HU of a lesion on a window, from the depth in mm below its surface."""
    coarse = look.coarse_field(window)
    hu = look.mean + look.coarse * coarse
    if look.fine > 0:
        hu += look.fine * look.fine_field(window)
    if look.rim != 0:
        hu += look.rim * np.clip(1.5 - depth / np.float32(look.rim_mm), 0, 1)
    if look.septa > 0:
        hu += look.septa * np.clip(1 - np.abs(coarse - 0.3) * 12, 0, 1)
    if look.necrosis < 5:
        dead = np.clip((coarse - look.necrosis) * 2.5, 0, 1) * np.clip(depth / 3 - 0.7, 0, 1)
        hu += dead * (look.dead - hu)
    return hu


def draw_tumour(
    rng: np.random.Generator, centre: np.ndarray, ml: float, kidney_hu: float
) -> Lesion:
    """Draw a lobulated tumour of about `ml` at a centre (z, y, x) in mm."""
    radius = float(np.cbrt(ml * 1000 * 3 / (4 * np.pi)))
    lumps, lump_mm = draw_field(rng, max(5.0, 0.7 * radius)), radius * rng.uniform(0.03, 0.11)
    turn = rotation(*rng.uniform(-np.pi, np.pi, 3))
    parts = [
        Ellipsoid(
            centre=centre,
            radii=radius * rng.uniform(0.75, 1.2, 3),
            turn=turn,
            lumps=lumps,
            lump_mm=lump_mm,
        )
    ]
    for _ in range(rng.choice(5, p=[0.35, 0.2, 0.2, 0.15, 0.1])):
        way = rng.standard_normal(3)
        way /= np.linalg.norm(way)
        parts.append(
            Ellipsoid(
                centre=centre + way * radius * rng.uniform(0.6, 1.0),
                radii=radius * rng.uniform(0.3, 0.6) * rng.uniform(0.8, 1.2, 3),
            )
        )
    look = draw_look(rng, "tumour", kidney_hu, radius)
    lesion = Lesion(look=look, parts=tuple(parts), smooth=max(1.0, 0.25 * radius))
    return _sized(lesion, ml)


def draw_cyst(
    rng: np.random.Generator, centre: np.ndarray, ml: float, kind: Kind, kidney_hu: float
) -> Lesion:
    """Draw a roundish cyst of about `ml` at a centre (z, y, x) in mm; complex ones are lumpy like tumours."""
    radius = float(np.cbrt(ml * 1000 * 3 / (4 * np.pi)))
    lump_mm = radius * rng.uniform(0.01, 0.06 if kind == "complex cyst" else 0.02)
    body = Ellipsoid(
        centre=centre,
        radii=radius * rng.uniform(0.88, 1.12, 3),
        turn=rotation(*rng.uniform(-np.pi, np.pi, 3)),
        lumps=draw_field(rng, max(5.0, 0.8 * radius)),
        lump_mm=lump_mm,
    )
    look = draw_look(rng, kind, kidney_hu, radius)
    return _sized(Lesion(look=look, parts=(body,), smooth=1.0), ml)


def _sized(lesion: Lesion, ml: float) -> Lesion:
    """Scale a lesion about its centre until it measures `ml`."""
    for _ in range(2):
        step = max(0.5, lesion.radius / 12)
        inside = cover(lesion.distance(lattice(lesion.centre, lesion.reach, step)), step)
        scale = float(
            np.clip(np.cbrt(ml * 1000 / max(float(inside.sum()) * step**3, 1.0)), 0.6, 1.6)
        )
        parts = tuple(
            Ellipsoid(
                centre=lesion.centre + (p.centre - lesion.centre) * scale,
                radii=p.radii * scale,
                turn=p.turn,
                lumps=p.lumps,
                lump_mm=p.lump_mm * scale,
            )
            for p in lesion.parts
        )
        lesion = Lesion(look=lesion.look, parts=parts, smooth=lesion.smooth * scale)
    return lesion
