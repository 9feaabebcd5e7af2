"""One patient: body size, tissue values and contrast phase, drawn at random, and the layers of the trunk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kitslib.phantom.shapes import Field, Grid, Slab, blend, cover, draw_field

CAVITY_BACK = 42.0  # mm behind the spine's centre that the gutters beside it reach
SKIN_MM = 1.8


@dataclass(frozen=True, kw_only=True)
class Values:
    """HU of tissues in one scan."""

    kidney: float
    medulla: float  # how far the medulla lies below the cortex
    pelvis: float
    fat: float
    muscle: float
    liver: float
    spleen: float
    pancreas: float
    bowel: float
    artery: float
    vein: float
    marrow: float
    bone: float
    lung: float

    @property
    def cortex(self) -> float:
        """HU of the cortex when `kidney` is the mean."""
        return self.kidney + 0.35 * self.medulla


def draw_values(rng: np.random.Generator) -> Values:
    """Draw a contrast phase and HU: nephrographic or corticomedullary.

    KiTS19 took in arterial-phase CT only (kits19.grand-challenge.org/data); hardly any contrast in 3 % stands for
    the scans that come too early.
    """
    plain = rng.uniform() < 0.03
    if plain:
        kidney, medulla = rng.uniform(30, 60), rng.uniform(0, 4)
    else:
        kidney = 90 + 160 * rng.beta(3.8, 1.2)
        medulla = rng.choice([rng.uniform(0, 25), rng.uniform(25, 100)], p=[0.6, 0.4]) * min(
            1, kidney / 160
        )
    gain = 0.08 if plain else float(np.clip((kidney - 35) / 170, 0.25, 1.2))
    liver = rng.uniform(42, 68) + gain * rng.uniform(28, 82)
    return Values(
        kidney=float(kidney),
        medulla=float(medulla),
        pelvis=float(rng.choice([rng.uniform(0, 40), rng.uniform(150, 500)], p=[0.87, 0.13])),
        fat=rng.uniform(-118, -88),
        muscle=rng.uniform(42, 66),
        liver=liver,
        spleen=liver + rng.uniform(-8, 12) + gain * rng.uniform(0, 40),
        pancreas=rng.uniform(30, 45) + gain * rng.uniform(20, 80),
        bowel=rng.uniform(30, 50) + gain * rng.uniform(10, 70),
        artery=rng.uniform(35, 50) + gain * rng.uniform(70, 280),
        vein=rng.uniform(35, 50) + gain * rng.uniform(40, 180),
        marrow=rng.uniform(90, 230),
        bone=rng.uniform(400, 900),
        lung=rng.uniform(-900, -780),
    )


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Closed curve around the trunk: centre y, mm to front, back and sides, squareness, ripples."""

    middle: float
    front: float
    back: float
    side: float
    power: float
    ripples: tuple[tuple[int, float, float], ...] = ()  # order, share of the radius, phase

    def radial(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance of every point from the centre, and of the curve from the centre in that direction."""
        dy = y - np.float32(self.middle)
        away = np.hypot(dy, x) + np.float32(1e-3)
        depth = np.where(
            dy < 0, np.float32(self.middle - self.front), np.float32(self.back - self.middle)
        )
        k = (
            np.abs(dy / depth) ** self.power + np.abs(x / np.float32(self.side)) ** self.power
        ) ** (1 / self.power)
        radius = away / np.maximum(k, np.float32(1e-4))
        if self.ripples:
            angle = np.arctan2(x, dy)
            for order, share, phase in self.ripples:
                radius = radius * (
                    1 + np.float32(share) * np.cos(order * angle + np.float32(phase))
                )
        return away, radius.astype(np.float32)

    def point(self, angle: float, out: float = 0.0) -> tuple[float, float]:
        """(y, x) on the curve at an angle from the back (0) towards the left (+), `out` mm outside it."""
        y, x = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        _, radius = self.radial(np.array([self.middle + y]), np.array([x]))
        return float(self.middle + y * (radius[0] + out)), float(x * (radius[0] + out))


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Trunk of one patient in patient coordinates (mm) and the scan's tissue values."""

    values: Values
    skin: Outline
    muscle: Outline
    cavity: Outline
    dome: tuple[float, float]  # z of the top of the diaphragm, right and left
    taper: tuple[
        tuple[float, ...], tuple[float, ...], tuple[float, ...]
    ]  # z, trunk scale, cavity scale
    grain: Field
    stranding: float  # HU, texture of fat
    marbling: float  # 0..1, fat between muscles

    @property
    def room(self) -> tuple[float, float, float]:
        """Centre y and half axes (y, x) in mm of the abdominal cavity at the kidneys."""
        c = self.cavity
        return (c.front + c.back) / 2, (c.back - c.front) / 2, c.side

    def around(self, low: np.ndarray, high: np.ndarray) -> Patient:
        """The same patient, grown where needed so that the cavity holds a box (z, y, x in mm)."""
        side = max(self.cavity.side, 1.06 * max(-low[2], high[2]) + 6)
        back = max(self.cavity.back, high[1] + 3)
        front = min(self.cavity.front, low[1] - 15)
        wider, behind, before = (
            side - self.cavity.side,
            back - self.cavity.back,
            front - self.cavity.front,
        )

        def grow(o: Outline) -> Outline:
            return replace(o, side=o.side + wider, back=o.back + behind, front=o.front + before)

        return replace(
            self, cavity=grow(self.cavity), muscle=grow(self.muscle), skin=grow(self.skin)
        )


def draw_patient(rng: np.random.Generator, field_of_view: float, size: float) -> Patient:
    """Draw a patient who fits a field of view of that many mm; size is the body size quantile in 0..1."""
    side = float(np.clip(field_of_view * rng.uniform(0.38, 0.46), 128, 225))
    obese = float(np.clip(0.6 * size + 0.4 * rng.uniform(), 0, 1))
    fat = 5 + 40 * obese**1.6 * rng.uniform(0.5, 1.0)
    wall = rng.uniform(6, 12)
    side = max(side, 112 + fat + wall)
    front = -(rng.uniform(88, 118) + 75 * obese * rng.uniform(0.3, 1.0))
    back = rng.uniform(66, 76)
    fat_front, fat_back = fat * rng.uniform(0.6, 1.1), fat * rng.uniform(0.6, 1.1)
    power = rng.uniform(2.05, 2.5)
    middle = -30.0

    def ripples(scale: float) -> tuple[tuple[int, float, float], ...]:
        return tuple(
            (k, scale * rng.normal(0, 0.02) / k, rng.uniform(0, 6.3)) for k in (2, 3, 4, 5)
        )

    z = (-400.0, -200.0, -100.0, 0.0, 80.0, 160.0, 300.0)
    waist = rng.uniform(0.9, 1.0)
    trunk = np.array([0.93, 1.0, 1.02, 1.0, 0.5 + waist / 2, 1.02, 1.05]) + rng.normal(0, 0.015, 7)
    room = np.array([0.9, 0.98, 1.0, 1.0, 0.97, 0.78, 0.6])
    top = rng.uniform(-150, -105)
    return Patient(
        values=draw_values(rng),
        skin=Outline(
            middle=middle,
            front=front - wall * 0.8 - fat_front,
            back=back + 5 + fat_back,
            side=side,
            power=power,
            ripples=ripples(1.5),
        ),
        muscle=Outline(
            middle=middle, front=front - wall * 0.8, back=back, side=side - fat, power=power
        ),
        cavity=Outline(
            middle=middle,
            front=front,
            back=CAVITY_BACK + rng.uniform(-3, 4),
            side=side - fat - wall,
            power=power,
            ripples=ripples(0.7),
        ),
        dome=(top, top + rng.uniform(0, 25)),
        taper=(z, tuple(trunk), tuple(room)),
        grain=draw_field(rng, rng.uniform(6, 14), 16),
        stranding=rng.uniform(2, 9),
        marbling=rng.uniform(0.1, 0.9),
    )


class Trunk:
    """Paints air, table, skin, fat, muscle, cavity and lungs; tells how deep in the abdomen a voxel lies."""

    def __init__(self, patient: Patient, grid: Grid, rng: np.random.Generator) -> None:
        self.patient, self.grid = patient, grid
        self.curves = {
            n: getattr(patient, n).radial(*grid.plane) for n in ("skin", "muscle", "cavity")
        }
        self.vessels = draw_field(rng, 5.5, 28)
        self.table = _table(patient, grid, rng)

    @cached_property
    def dome(self) -> np.ndarray:
        """z in mm of the diaphragm above every pixel, (H, W)."""
        y, x = self.grid.plane
        middle, ry, rx = self.patient.room
        surfaces = []
        for side, top in zip((-1, 1), self.patient.dome, strict=True):
            dx = (x - np.float32(side * 0.45 * rx)) / np.float32(0.62 * rx)
            rr = np.hypot(
                np.where(dx * side < 0, dx * 0.75, dx),
                (y - np.float32(middle)) / np.float32(1.02 * ry),
            )
            surfaces.append(np.float32(top) + 95 * np.minimum(rr, 1.4) ** 2.6)
        return np.minimum(*surfaces)

    def outside(self, name: str, z: np.ndarray) -> np.ndarray:
        """Signed distance in mm to an outline on slices at depths z, (n, H, W)."""
        levels, trunk, room = self.patient.taper
        scale = np.interp(z, levels, room if name == "cavity" else trunk).astype(np.float32)
        away, radius = self.curves[name]
        return away[None] - scale[:, None, None] * radius[None]

    def paint(self, slab: Slab) -> tuple[np.ndarray, np.ndarray]:
        """HU of the trunk on the slices of a slab, and depth in mm inside the abdomen (negative outside)."""
        slab, values = slab.single(), self.patient.values
        z, edge = slab.depths, slab.edge
        hu = np.repeat(self.table[None], len(z), axis=0)
        skin, muscle, cavity = (self.outside(n, z) for n in ("skin", "muscle", "cavity"))
        grain = self.patient.grain(slab.everything())
        fat = values.fat + self.patient.stranding * grain
        blend(hu, cover(skin, edge), values.muscle - 25)
        blend(hu, cover(skin + SKIN_MM, edge), fat)
        streaks = values.muscle + np.clip(grain - 1.9 + 1.2 * self.patient.marbling, 0, 1) * (
            values.fat - 20
        )
        blend(hu, cover(np.maximum(muscle, skin + 3), edge), streaks)
        cavity = np.maximum(cavity, muscle + 3)
        inside = cover(cavity, edge)
        blend(hu, inside, fat)
        above = z[:, None, None] - self.dome[None]
        air = inside * np.clip(0.5 - above / 3, 0, 1)
        if air.any():
            lung = values.lung + 850 * np.clip(self.vessels(slab.everything()) - 1.7, 0, 1)
            blend(hu, air, lung)
        return hu, np.minimum(-cavity - 1.5, above - 1)


def _table(patient: Patient, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Air and the table under the patient, (H, W) HU; the table keeps to the image's axes."""
    hu = np.full(grid.shape[1:], -1000, np.float32)
    y = ((np.arange(grid.shape[1]) - grid.origin[1]) * grid.spacing[1]).astype(np.float32)[:, None]
    x = ((np.arange(grid.shape[2]) - grid.origin[2]) * grid.spacing[2]).astype(np.float32)[None, :]
    sag, half = rng.uniform(0.0002, 0.0012), rng.uniform(190, 240)
    top = patient.skin.back + rng.uniform(1, 8)
    shift = rng.uniform(-15, 15)
    surface = y - top + np.float32(sag) * np.square(x - shift)
    edge = grid.spacing[1]
    wide = np.clip((half - np.abs(x - shift)) / edge, 0, 1)
    thick, depth = rng.uniform(1.5, 4), rng.uniform(15, 70)
    for level, value in ((0.0, rng.uniform(-650, 150)), (depth, rng.uniform(-650, 100))):
        blend(hu, wide * cover(np.abs(surface - np.float32(level)) - thick / 2, edge), value)
    blend(
        hu,
        wide * cover(np.maximum(-surface + thick, surface - depth + thick), edge),
        rng.uniform(-990, -900),
    )
    return hu
