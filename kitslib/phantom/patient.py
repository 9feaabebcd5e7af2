"""One patient, drawn at random: body size, contrast phase, HU of tissues, layers of the trunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from kitslib.phantom.shapes import Grid, Slab, blend, cover, draw_field

MIDDLE = -30.0  # y of the trunk's centre
CAVITY_BACK = 42.0  # mm behind the spine's centre that the gutters beside it reach
SKIN_MM = 1.8
CONTENTS = ("gas", "fluid", "contrast", "stool", "collapsed")  # of stomach and bowel
TAPER_Z = np.array([-400.0, -200, -100, 0, 80, 160, 300])  # mm, where the trunk's scale is given
CAVITY_TAPER = np.array([0.9, 0.98, 1.0, 1.0, 0.97, 0.78, 0.6])


class Values:
    """HU of tissues in one scan: nephrographic or corticomedullary phase.

    KiTS19 has arterial-phase CT only (kits19.grand-challenge.org/data); 3 % come too early.
    """

    def __init__(self, rng: Generator) -> None:
        if rng.uniform() < 0.03:
            kidney, medulla, gain = rng.uniform(30, 60), rng.uniform(0, 4), 0.08
        else:
            kidney = 90 + 160 * rng.beta(3.8, 1.2)
            medulla = rng.choice([rng.uniform(0, 25), rng.uniform(25, 100)], p=[0.6, 0.4])
            medulla = float(medulla * min(1, kidney / 160))
            gain = float(np.clip((kidney - 35) / 170, 0.25, 1.2))
        self.kidney = kidney  # the mean of cortex and medulla
        self.medulla = medulla  # how far the medulla lies below the cortex
        self.liver = rng.uniform(42, 68) + gain * rng.uniform(28, 82)
        self.pelvis = float(rng.choice([rng.uniform(0, 40), rng.uniform(150, 500)], p=[0.87, 0.13]))
        self.fat = rng.uniform(-118, -88)
        self.muscle = rng.uniform(42, 66)
        self.spleen = self.liver + rng.uniform(-8, 12) + gain * rng.uniform(0, 40)
        self.pancreas = rng.uniform(30, 45) + gain * rng.uniform(20, 80)
        self.bowel = rng.uniform(30, 50) + gain * rng.uniform(10, 70)
        self.artery = rng.uniform(35, 50) + gain * rng.uniform(70, 280)
        self.vein = rng.uniform(35, 50) + gain * rng.uniform(40, 180)
        self.marrow = rng.uniform(90, 230)
        self.bone = rng.uniform(400, 900)
        self.lung = rng.uniform(-900, -780)
        self.cortex = self.kidney + 0.35 * self.medulla


@dataclass
class Outline:
    """Closed curve around the trunk: y of front and back and x of the sides in mm, squareness."""

    front: float
    back: float
    side: float
    power: float
    ripples: tuple[tuple[int, float, float], ...] = ()  # order, share of the radius, phase

    def radial(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance of points from the centre, and of the curve in their directions."""
        dy = y - np.float32(MIDDLE)
        away = np.hypot(dy, x) + np.float32(1e-3)
        front, back = np.float32(MIDDLE - self.front), np.float32(self.back - MIDDLE)
        depth = np.abs(dy / np.where(dy < 0, front, back)) ** self.power
        width = np.abs(x / np.float32(self.side)) ** self.power
        radius = away / np.maximum((depth + width) ** (1 / self.power), np.float32(1e-4))
        angle = np.arctan2(x, dy)
        for order, share, phase in self.ripples:
            radius = radius * (1 + np.float32(share) * np.cos(order * angle + np.float32(phase)))
        return away, radius.astype(np.float32)

    def points(self, angle: np.ndarray, out: float) -> tuple[np.ndarray, np.ndarray]:
        """y and x, `out` mm outside the curve, at angles from the back (0) to the left (+)."""
        y, x = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        _, radius = self.radial(MIDDLE + y, x)
        return (MIDDLE + y * (radius + out)).astype(float), (x * (radius + out)).astype(float)


class Patient:
    """Trunk of one patient in patient coordinates (mm) and the scan's tissue values.

    The patient fits a field of view of that many mm; size is the body size quantile in 0..1.
    """

    contents = (0.2, 0.27, 0.13, 0.22, 0.18)  # shares of CONTENTS

    def __init__(self, rng: Generator, field_of_view: float, size: float) -> None:
        side = float(np.clip(field_of_view * rng.uniform(0.38, 0.46), 128, 225))
        obese = float(np.clip(0.6 * size + 0.4 * rng.uniform(), 0, 1))
        fat, wall = 5 + 40 * obese**1.6 * rng.uniform(0.5, 1.0), rng.uniform(6, 12)
        side = max(side, 112 + fat + wall)
        front = -(rng.uniform(88, 118) + 75 * obese * rng.uniform(0.3, 1.0))
        back = rng.uniform(66, 76)
        fat_front, fat_back = fat * rng.uniform(0.6, 1.1), fat * rng.uniform(0.6, 1.1)
        power, waist = rng.uniform(2.05, 2.5), rng.uniform(0.9, 1.0)
        trunk = np.array([0.93, 1.0, 1.02, 1.0, 0.5 + waist / 2, 1.02, 1.05])
        self.taper = trunk + rng.normal(0, 0.015, 7)  # scale of the trunk at TAPER_Z
        top = rng.uniform(-150, -105)
        self.values = Values(rng)
        wall_front = front - wall * 0.8
        ripples = _ripples(rng, 1.5)
        self.skin = Outline(wall_front - fat_front, back + 5 + fat_back, side, power, ripples)
        self.muscle = Outline(wall_front, back, side - fat, power)
        back, ripples = CAVITY_BACK + rng.uniform(-3, 4), _ripples(rng, 0.7)
        self.cavity = Outline(front, back, side - fat - wall, power, ripples)
        self.dome = (top, top + rng.uniform(0, 25))  # top of the diaphragm, z right and left
        self.grain = draw_field(rng, rng.uniform(6, 14), 16)
        self.stranding = rng.uniform(2, 9)  # HU, texture of fat
        self.marbling = rng.uniform(0.1, 0.9)  # 0..1, fat between muscles

    @property
    def room(self) -> tuple[float, float, float]:
        """Centre y and half axes (y, x) in mm of the abdominal cavity at the kidneys."""
        front, back = self.cavity.front, self.cavity.back
        return (front + back) / 2, (back - front) / 2, self.cavity.side

    def place(self, points: ArrayLike) -> np.ndarray:
        """(z, y, x) in mm of points with z in mm and (y, x) in half axes of the cavity."""
        middle, ry, rx = self.room
        return np.array(points) * [1, ry, rx] + [0, middle, 0]

    def make_room(self, low: np.ndarray, high: np.ndarray) -> None:
        """Grow the trunk where needed so that the cavity holds a box (z, y, x in mm)."""
        cavity = self.cavity
        wider = max(cavity.side, 1.06 * max(-low[2], high[2]) + 6) - cavity.side
        behind = max(cavity.back, high[1] + 3) - cavity.back
        before = min(cavity.front, low[1] - 15) - cavity.front
        for outline in (self.skin, self.muscle, self.cavity):
            outline.side += wider
            outline.back += behind
            outline.front += before


def _ripples(rng: Generator, scale: float) -> tuple[tuple[int, float, float], ...]:
    """Waves of four orders on an outline."""
    return tuple((k, scale * rng.normal(0, 0.02) / k, rng.uniform(0, 6.3)) for k in range(2, 6))


class Trunk:
    """Paints air, table, skin, fat, muscle, cavity and lungs of a patient."""

    def __init__(self, patient: Patient, grid: Grid, rng: Generator) -> None:
        self.patient, self.grid = patient, grid
        outlines = {"skin": patient.skin, "muscle": patient.muscle, "cavity": patient.cavity}
        self.curves = {name: outline.radial(*grid.plane) for name, outline in outlines.items()}
        self.vessels = draw_field(rng, 5.5, 28)
        self.table = _table(patient, grid, rng)

    @cached_property
    def dome(self) -> np.ndarray:
        """z in mm of the diaphragm above every pixel, (H, W)."""
        y, x = self.grid.plane
        middle, ry, rx = self.patient.room
        dy = (y - np.float32(middle)) / np.float32(1.02 * ry)
        surfaces = []
        for side, top in zip((-1, 1), self.patient.dome, strict=True):
            dx = (x - np.float32(side * 0.45 * rx)) / np.float32(0.62 * rx)
            rr = np.hypot(np.where(dx * side < 0, dx * 0.75, dx), dy)
            surfaces.append(np.float32(top) + 95 * np.minimum(rr, 1.4) ** 2.6)
        return np.minimum(*surfaces)

    def outside(self, name: str, z: np.ndarray) -> np.ndarray:
        """Signed distance in mm to an outline on slices at depths z, (n, H, W)."""
        (away, radius), scale = self.curves[name], self.scale(name, z).astype(np.float32)
        return away - scale[:, None, None] * radius

    def scale(self, name: str, z: np.ndarray) -> np.ndarray:
        """Size of an outline at depths z against that at the kidneys, (n,)."""
        return np.interp(z, TAPER_Z, CAVITY_TAPER if name == "cavity" else self.patient.taper)

    def paint(self, slab: Slab) -> tuple[np.ndarray, np.ndarray]:
        """HU of the trunk on the slices of a slab, and depth in mm in the abdomen (< 0 outside)."""
        slab, values, patient = slab.single(), self.patient.values, self.patient
        z, edge, everything = slab.depths, slab.edge, slab.crop(*np.s_[:, :, :])
        hu = np.repeat(self.table[None], len(z), axis=0)
        skin, muscle = self.outside("skin", z), self.outside("muscle", z)
        grain = patient.grain(everything)
        fat = values.fat + patient.stranding * grain
        blend(hu, cover(skin, edge), values.muscle - 25)
        blend(hu, cover(skin + SKIN_MM, edge), fat)
        fatty = np.clip(grain - 1.9 + 1.2 * patient.marbling, 0, 1)
        streaks = values.muscle + fatty * (values.fat - 20)
        blend(hu, cover(np.maximum(muscle, skin + 3), edge), streaks)
        cavity = np.maximum(self.outside("cavity", z), muscle + 3)
        inside = cover(cavity, edge)
        blend(hu, inside, fat)
        above = z[:, None, None] - self.dome[None]
        air = inside * np.clip(0.5 - above / 3, 0, 1)
        if air.any():
            blend(hu, air, values.lung + 850 * np.clip(self.vessels(everything) - 1.7, 0, 1))
        return hu, np.minimum(-cavity - 1.5, above - 1)


def _table(patient: Patient, grid: Grid, rng: Generator) -> np.ndarray:
    """Air and the table under the patient, (H, W) HU; the table keeps to the image's axes."""
    hu = np.full(grid.shape[1:], -1000, np.float32)
    y, x = np.ix_(*grid.axes)
    sag, half = rng.uniform(0.0002, 0.0012), rng.uniform(190, 240)
    top, shift, edge = patient.skin.back + rng.uniform(1, 8), rng.uniform(-15, 15), grid.spacing[1]
    surface = y - top + np.float32(sag) * np.square(x - shift)
    wide = np.clip((half - np.abs(x - shift)) / edge, 0, 1)
    thick, depth = rng.uniform(1.5, 4), rng.uniform(15, 70)
    for level, value in ((0.0, rng.uniform(-650, 150)), (depth, rng.uniform(-650, 100))):
        blend(hu, wide * cover(np.abs(surface - np.float32(level)) - thick / 2, edge), value)
    core = cover(np.maximum(-surface + thick, surface - depth + thick), edge)
    blend(hu, wide * core, rng.uniform(-990, -900))
    return hu
