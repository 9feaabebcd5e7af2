"""Tumours and cysts: their shape and their appearance on CT."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from kitslib.phantom.shapes import Ellipsoid, Region, cover, draw_field, lattice, rotation

Cysts = Literal["typical", "hard"]
Kind = Literal["tumor", "simple cyst", "complex cyst"]
ALIKE = 0.7  # share of complex cysts with the HU of tumours, as the paper says of KiTS
SPINE_KEEPOUT = (36.0, 34.0)  # mm, half axes (y, x) of the column that no lesion enters


def ball_radius(mm3: float) -> float:
    """Radius in mm of a ball of a volume in mm³."""
    return float(np.cbrt(mm3 * 3 / (4 * np.pi)))


class Appearance:
    """CT appearance of a lesion of `radius` mm beside tissue of `kidney_hu`, drawn at random.

    alike: share of complex cysts that have a tumour's HU.
    """

    def __init__(
        self, rng: Generator, kind: Kind, kidney_hu: float, radius: float, alike: float = ALIKE
    ) -> None:
        uptake = kidney_hu - 35
        solid = rng.uniform(26, 44) + uptake * float(np.clip(rng.beta(2.2, 2.4), 0.08, 0.9))
        self.kind = kind
        self.coarse = self.fine = 0.0  # HU, amplitudes of the textures
        self.necrosis = 9.0  # threshold on the coarse field above which tissue is dead; 9 = none
        self.rim, self.rim_mm = 0.0, 2.0  # HU added within so many mm of the surface
        self.septa = 0.0  # HU added on thin sheets inside
        if kind == "tumor":
            self.mean = float(solid)
            self.coarse = rng.uniform(4, 12) + 0.14 * uptake * rng.uniform()
            self.fine = rng.uniform(0, 10)
            if rng.uniform() < np.clip(radius / 60, 0.08, 0.65):
                self.necrosis = rng.uniform(-0.3, 1.0)
            if rng.uniform() < 0.3:
                self.rim, self.rim_mm = rng.uniform(-25, 35), rng.uniform(1.5, 4)
        elif kind == "simple cyst":
            self.mean, self.rim_mm = rng.uniform(0, 20), 1.0
            if rng.uniform() < 0.4:
                self.rim = rng.uniform(5, 25)
        else:
            self.mean = float(rng.choice([solid, rng.uniform(35, 90)], p=[alike, 1 - alike]))
            self.coarse = rng.uniform(2, 9) + 0.07 * uptake * rng.uniform()
            self.fine = rng.uniform(0, 8)
            self.rim, self.rim_mm = rng.uniform(0, 30), rng.uniform(1, 3)
            if rng.uniform() < 0.35:
                self.septa = rng.uniform(15, 50)
            if rng.uniform() < 0.25:
                self.necrosis = rng.uniform(0.2, 1.0)
        self.coarse_field = draw_field(rng, max(4.0, 0.55 * radius))
        self.fine_field = draw_field(rng, 3.0, 16)
        self.dead = rng.uniform(8, 32)  # HU of necrosis

    def hu(self, region: Region, depth: np.ndarray) -> np.ndarray:
        """HU on a region, from the depth in mm below the lesion's surface."""
        coarse = self.coarse_field(region)
        hu = self.mean + self.coarse * coarse
        if self.fine > 0:
            hu += self.fine * self.fine_field(region)
        if self.rim != 0:
            hu += self.rim * np.clip(1.5 - depth / np.float32(self.rim_mm), 0, 1)
        if self.septa > 0:
            hu += self.septa * np.clip(1 - np.abs(coarse - 0.3) * 12, 0, 1)
        if self.necrosis < 5:
            dead = np.clip((coarse - self.necrosis) * 2.5, 0, 1) * np.clip(depth / 3 - 0.7, 0, 1)
            hu += dead * (self.dead - hu)
        return hu


@dataclass(kw_only=True)
class Lesion:
    """A union of lumpy ellipsoids, the main part first, that stays out of the spine."""

    appearance: Appearance
    parts: list[Ellipsoid]
    smooth: float  # mm over which parts melt into each other

    def __post_init__(self) -> None:
        self.center = self.parts[0].center
        self.radius = float(np.cbrt(np.prod(self.parts[0].radii)))  # mm, mean of the main part
        # half extents (z, y, x) in mm around the centre
        self.reach = np.max([abs(p.center - self.center) + p.reach for p in self.parts], axis=0)

    def distance(self, region: Region) -> np.ndarray:
        """Approximate signed distance in mm, negative inside."""
        first = self.parts[0]
        total = first.smooth_distance(region)
        for part in self.parts[1:]:
            other = part.smooth_distance(region)
            mix = np.clip(0.5 + (other - total) / (2 * self.smooth), 0, 1)
            total = other + mix * (total - other) - self.smooth * mix * (1 - mix)
        total += first.lump_mm * first.lumps(region)  # pyright: ignore[reportOptionalCall]
        ry, rx = SPINE_KEEPOUT
        k = np.sqrt(np.square((region.y - 10) / ry) + np.square(region.x / rx))
        return np.maximum(total, (1 - k) * np.float32(min(ry, rx)))


def draw_tumor(rng: Generator, center: np.ndarray, ml: float, kidney_hu: float) -> Lesion:
    """Draw a lobulated tumour of about `ml` at a centre (z, y, x) in mm."""
    radius = ball_radius(ml * 1000)
    lumps, lump_mm = draw_field(rng, max(5.0, 0.7 * radius)), radius * rng.uniform(0.03, 0.11)
    turn = rotation(*rng.uniform(-np.pi, np.pi, 3))
    parts = [Ellipsoid(center, radius * rng.uniform(0.75, 1.2, 3), turn, lumps, lump_mm)]
    for _ in range(rng.choice(5, p=[0.35, 0.2, 0.2, 0.15, 0.1])):
        way = rng.standard_normal(3)
        way /= np.linalg.norm(way)
        lobe = center + way * radius * rng.uniform(0.6, 1.0)
        parts.append(Ellipsoid(lobe, radius * rng.uniform(0.3, 0.6) * rng.uniform(0.8, 1.2, 3)))
    appearance = Appearance(rng, "tumor", kidney_hu, radius)
    return _sized(Lesion(appearance=appearance, parts=parts, smooth=max(1.0, 0.25 * radius)), ml)


def draw_cyst(
    rng: Generator, center: np.ndarray, ml: float, kind: Kind, kidney_hu: float,
    alike: float = ALIKE,
) -> Lesion:  # fmt: skip
    """Draw a roundish cyst of about `ml` at a centre (z, y, x) in mm; complex ones are lumpy."""
    radius = ball_radius(ml * 1000)
    lump_mm = radius * rng.uniform(0.01, 0.06 if kind == "complex cyst" else 0.02)
    radii = radius * rng.uniform(0.88, 1.12, 3)
    turn = rotation(*rng.uniform(-np.pi, np.pi, 3))
    body = Ellipsoid(center, radii, turn, draw_field(rng, max(5.0, 0.8 * radius)), lump_mm)
    appearance = Appearance(rng, kind, kidney_hu, radius, alike)
    return _sized(Lesion(appearance=appearance, parts=[body], smooth=1.0), ml)


def _sized(lesion: Lesion, ml: float) -> Lesion:
    """Scale a lesion about its centre until it measures `ml`."""
    for _ in range(2):
        step = max(0.5, lesion.radius / 12)
        inside = cover(lesion.distance(lattice(lesion.center, lesion.reach, step)), step)
        found = max(float(inside.sum()) * step**3, 1.0)
        scale = float(np.clip(np.cbrt(ml * 1000 / found), 0.6, 1.6))
        parts = [part.scaled(scale, lesion.center) for part in lesion.parts]
        parts = [replace(part, lump_mm=part.lump_mm * scale) for part in parts]
        lesion = replace(lesion, parts=parts, smooth=lesion.smooth * scale)
    return lesion
