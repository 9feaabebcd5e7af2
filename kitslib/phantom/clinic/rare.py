"""What few patients have: arms in the field, ascites, metal and streaks, masses, stones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.random import Generator

from kitslib.phantom.clinic.frame import draw_arms, draw_chest
from kitslib.phantom.clinic.patient import ClinicPatient
from kitslib.phantom.renal import Renal
from kitslib.phantom.shapes import (
    Ellipsoid,
    Field,
    Slab,
    Solid,
    blend,
    chain,
    draw_field,
    mm,
    rotation,
)

_chain = partial(chain, confined=False)
_solid = partial(Solid, confined=False)
METAL = 3000.0  # HU
MASS, LARGE_MASS = 0.03, 0.003  # shares of adrenal glands; in "wild" more, to be told from kidneys
WILD_MASS, WILD_LARGE_MASS = 0.11, 0.06


@dataclass(frozen=True)
class Ascites:
    """Fluid in the abdomen, most of it at the sides and behind, under all organs."""

    hu: float
    mm: float  # how far it reaches inwards from the wall
    waves: Field

    def paint(self, canvas: np.ndarray, slab: Slab, depth: np.ndarray) -> None:
        """Blend it into a sub-slice canvas."""
        region = slab.single().crop(*np.s_[:, :, :])
        reach = (
            self.mm * (1 + 0.6 * self.waves(region)) * np.clip(0.3 + np.abs(region.x) / 90, 0, 1.3)
        )
        share = np.clip((reach - depth) / 3, 0, 1) * np.clip(depth / 2, 0, 1)
        blend(canvas, np.repeat(share, slab.subs, axis=0), self.hu)


@dataclass(frozen=True)
class Streaks:
    """Bright and dark rays in the slices of a piece of metal."""

    center: np.ndarray  # patient (z, y, x) in mm
    half: float  # mm up and down
    size: float  # mm of the metal
    rays: np.ndarray  # (n, 3): order, HU, phase

    def paint(self, hu: np.ndarray, slab: Slab, _: np.ndarray) -> None:
        """Add them to slices."""
        near = np.flatnonzero(np.abs(slab.depths - self.center[0]) < self.half)
        if not len(near):
            return
        region = slab.crop(slice(near[0], near[-1] + 1), *np.s_[:, :])
        dy, dx = region.y - np.float32(self.center[1]), region.x - np.float32(self.center[2])
        angle, away = np.arctan2(dy, dx), np.hypot(dy, dx)
        total = sum(hu_of * np.cos(order * angle + phase) for order, hu_of, phase in self.rays)
        fading = 25 / (25 + np.maximum(away - self.size, 0)) * (away > self.size)
        hu[region.box] += (total * fading * (hu[region.box] > -900)).astype(np.float32)


def draw_below(rng: Generator, patient: ClinicPatient) -> list:
    """What the organs are painted over: arms, chest wall, ascites, masses above the kidneys."""
    painters: list = draw_chest(rng, patient)
    if patient.arms_down:
        painters += draw_arms(rng, patient)
    if rng.uniform() < 0.1:
        painters.append(Ascites(rng.uniform(0, 22), rng.uniform(8, 50), draw_field(rng, 40.0)))
    return painters


def draw_around(rng: Generator, patient: ClinicPatient, renal: Renal) -> list[Solid]:
    """Adrenal glands and masses, small spleens, nodes, wide ureters, prostheses, screws."""
    solids, values = [], patient.values
    some, large = (WILD_MASS, WILD_LARGE_MASS) if patient.wild else (MASS, LARGE_MASS)
    for side in (-1, 1):
        mine = [kidney for kidney in renal.kidneys if kidney.side == side][:1]
        place = mm(-55, -8, side * 42)
        if mine:
            place = mine[0].center + mm(-48, -14, -side * 14)
        hu = values.muscle - 10 + rng.uniform(0, 0.4) * max(values.kidney - 40, 0)
        for way in (-1, 1):
            limb = np.array([[-8, -4, 0], [8, 4 + 3 * way, 7 * way], [20, 6 + 5 * way, 11 * way]])
            solids += chain(place + limb, (2.4, 2.2, 1.5), hu)
        sizes = [rng.uniform(6, 22), rng.uniform(30, 62), 0.0]
        size = rng.choice(sizes, p=[some, large, 1 - some - large])
        if size:
            radii, turn = size * rng.uniform(0.8, 1.2, 3), rotation(*rng.uniform(-3, 3, 3))
            shape = Ellipsoid(
                place - mm(0.7 * size, 0.2 * size, 0), radii, turn, draw_field(rng, size), 2
            )
            texture, much = draw_field(rng, max(5.0, size / 3)), rng.uniform(2, 25)
            solids.append(Solid(shape, rng.uniform(-10, 130), texture, much))
        for kidney in mine:
            if kidney.urine is not None and rng.uniform() < 0.7:  # a wide ureter
                path = np.array(
                    [kidney.hilum, kidney.hilum + mm(45, 4, -side * 4), [190, -8, side * 42]]
                )
                wide = rng.uniform(3, 8)
                solids += chain(path, (wide, wide * 0.9, wide * 0.7), kidney.urine)
    if rng.uniform() < 0.2:
        spot = patient.place((patient.dome[1] + rng.uniform(70, 130), rng.uniform(0, 0.5), 0.6))
        solids.append(Solid(Ellipsoid(spot, rng.uniform(4, 11, 3)), values.spleen))
    for _ in range(rng.poisson(0.8)):
        spot = rng.uniform([-90, -45, -32], [130, -5, 32])
        solids.append(Solid(Ellipsoid(spot, rng.uniform(3, 13, 3)), rng.uniform(20, 110)))
    return solids + _metal(rng, patient)


def _metal(rng: Generator, patient: ClinicPatient) -> list[Solid]:
    """A hip's prosthesis, or screws and rods along the spine, in few patients."""
    kind, solids = rng.choice(["none", "hip", "screws"], p=[0.9, 0.06, 0.04]), []
    if kind == "hip":
        side = rng.choice([-1, 1])
        head = np.array([patient.hips, -15.0, side * 0.72 * min(patient.cavity.side * 0.97, 150)])
        solids.append(_solid(Ellipsoid(head, np.full(3, 24.0)), METAL))
        solids += _chain(
            head + np.array([[0.0, 0, 0], [38, 8, side * 30], [170, 3, side * 28]]),
            (9, 9, 6),
            METAL,
        )
        patient.metal.append((head, 45.0, 24.0))
    if kind == "screws":
        for z in rng.uniform(-40, 10) + np.arange(rng.integers(2, 4)) * 34.0:
            for side in (-1, 1):
                path = np.array([[z, 42.0, side * 22], [z, -4, side * 12]])
                solids += _chain(path, (3, 2.5), METAL)
            patient.metal.append((np.array([z, 25.0, 0]), 5.0, 25.0))
    return solids


def draw_over(rng: Generator, patient: ClinicPatient, renal: Renal) -> list:
    """What is painted over the kidneys: stones, clips, streaks of metal and of arms."""
    painters: list = []
    if rng.uniform() < 0.12:
        kidney = renal.kidneys[rng.integers(len(renal.kidneys))]
        for _ in range(rng.integers(1, 5)):
            place = kidney.center + rng.uniform(0.2, 0.7) * (kidney.hilum - kidney.center)
            place = place + rng.normal(0, [14, 5, 4])
            painters.append(
                _solid(Ellipsoid(place, rng.uniform(1.5, 7, 3)), rng.uniform(250, 1400))
            )
    sources = list(patient.metal)
    if rng.uniform() < 0.04:
        clip = renal.kidneys[0].hilum + rng.normal(0, 15, 3)
        painters.append(_solid(Ellipsoid(clip, rng.uniform(1.5, 4, 3)), METAL))
        sources.append((clip, 5.0, 4.0))
    for center, half, size in sources:
        orders = rng.integers(2, 14, 8)
        rays = np.stack([orders, rng.normal(0, 90, 8), rng.uniform(0, 6.3, 8)], axis=1)
        painters.append(Streaks(center, half, size, rays))
    return painters
