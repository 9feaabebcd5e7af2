"""Organs around the kidneys as lists of painted solids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.random import Generator

from kitslib.phantom.patient import CONTENTS, Patient
from kitslib.phantom.shapes import Capsule, Ellipsoid, Solid, chain, draw_field, rotation


def draw_viscera(rng: Generator, patient: Patient) -> list[Solid]:
    """Heart, oesophagus and other organs, in painting order."""
    values, middle, top = patient.values, patient.room[0], patient.dome[0]
    heart = Ellipsoid((top - 45, middle - 15, 25), (50, 45, 62))
    gullet = Capsule((top - 250, -25, 0), (top + 60, -25, 0), (26, 18))
    solids = [Solid(heart, values.vein, confined=False)]
    solids.append(Solid(gullet, values.muscle - 15, confined=False))
    for draw in (_odd, _bowel, _stomach, _pancreas, _liver, _spleen):
        solids += draw(rng, patient)
    return solids


def draw_bladder(rng: Generator, _: Patient) -> list[Solid]:
    """The bladder."""
    bladder = Ellipsoid((rng.uniform(215, 250), -50, rng.normal(0, 8)), rng.uniform(22, 50, 3))
    return [Solid(bladder, rng.uniform(0, 20))]


def _odd(rng: Generator, patient: Patient) -> list[Solid]:
    """Ellipsoids of any HU, so that brightness or roundness alone never means kidney."""
    solids = []
    for _ in range(rng.integers(3, 18)):
        center = patient.place(rng.uniform([-150, -0.8, -0.85], [200, 0.7, 0.85]))
        radii, turn = rng.uniform(5, 28, 3), rotation(*rng.uniform(-np.pi, np.pi, 3))
        hu = rng.choice([rng.uniform(-60, 260), rng.uniform(0, 120)])
        texture, amplitude = draw_field(rng, rng.uniform(4, 12)), rng.uniform(0, 20)
        solids.append(Solid(Ellipsoid(center, radii, turn), hu, texture, amplitude))
    return solids


def _bowel(rng: Generator, patient: Patient) -> list[Solid]:
    """Mesenteric vessels, small-bowel loops in front, the colon's frame around."""
    values, (_, ry, rx), solids = patient.values, patient.room, []
    for _ in range(60):
        start = patient.place(rng.uniform([-60, -0.7, -0.6], [180, 0.3, 0.6]))
        end = start + rng.normal(0, 12, 3)
        hu = rng.choice([values.artery, values.vein])
        solids.append(Solid(Capsule(start, end, (rng.uniform(1, 3.2), rng.uniform(0.6, 2))), hu))
    crowd = np.clip(1.35 - 0.006 * (ry + rx - 130), 0.5, 1.3)  # less fat, more bowel in view
    for _ in range(int(rng.uniform(28, 60) * crowd)):
        path = [patient.place(rng.uniform([-50, -0.85, -0.75], [210, 0.05, 0.75]))]
        way = rng.standard_normal(3)
        for _ in range(rng.integers(3, 8)):
            way = 0.6 * way + 0.8 * rng.standard_normal(3)
            path.append(path[-1] + way / np.linalg.norm(way) * rng.uniform(14, 24))
        radii = rng.uniform(8, 17) * rng.uniform(0.85, 1.15, len(path))
        solids += tube(rng, patient, path, radii, rng.normal(0, 8), rng.uniform(1.5, 4))
    low, high, middle = rng.uniform(110, 170), rng.uniform(-50, 20), rng.uniform(0, 70)
    frames = (
        [(low, 0.1, -0.72), (60, 0.4, -0.78), (high, 0, -0.68)],  # ascending
        [(high, -0.3, -0.6), (middle, -0.75, 0), (high - 30, -0.4, 0.65)],  # transverse
        [(high - 30, 0, 0.75), (40, 0.4, 0.82), (low, 0.2, 0.72)],  # descending
    )
    for frame in frames:
        corners, t = patient.place(frame), np.linspace(0, 2, 10)
        path = np.stack([np.interp(t, range(3), column) for column in corners.T], axis=1)
        path += rng.normal(0, 4, path.shape)
        radii = rng.uniform(12, 23) * rng.uniform(0.75, 1.15, len(path))
        for k in range(0, 9, 3):  # content changes along the colon
            wall = rng.uniform(1.5, 3.5)
            solids += tube(rng, patient, path[k : k + 4], radii[k : k + 4], 0, wall)
    return solids


def _stomach(rng: Generator, patient: Patient) -> list[Solid]:
    bends = [(35, 0.25, 0.5), (65, -0.2, 0.5), (95, -0.5, 0.25), (105, -0.45, -0.1)]
    start = np.array([patient.dome[1], 0, 0])
    path = start + patient.place(bends) + rng.normal(0, 7, (4, 3))
    radii = rng.uniform(18, 40) * np.array([1, 0.95, 0.75, 0.45])
    return tube(rng, patient, path, radii, 10, rng.uniform(3, 6))


def _pancreas(rng: Generator, patient: Patient) -> list[Solid]:
    bends = np.array([(18, -45, -0.25), (0, -62, 0), (-12, -50, 0.25), (-28, -20, 0.5)])
    path = bends * [1, 1, patient.room[2]] + [rng.uniform(-45, -10), 0, 0]
    path += rng.normal(0, 5, (4, 3))
    width = rng.uniform(9, 15) * np.array([1.25, 0.85, 0.85, 0.8])
    texture = draw_field(rng, 4.0, 16)
    hu, solids = patient.values.pancreas, []
    for k in range(3):
        solids += chain(path[k : k + 2], width[k : k + 2], hu, texture, rng.uniform(4, 18))
    return solids


def _liver(rng: Generator, patient: Patient) -> list[Solid]:
    """Two lobes, vessels, spots and the gall bladder."""
    values, (_, ry, rx), top = patient.values, patient.room, patient.dome[0]
    tip = rng.uniform(-40, 45)  # z of the lower edge
    texture, wave = draw_field(rng, rng.uniform(6, 25)), draw_field(rng, 35.0)
    grain, center = rng.uniform(1, 6), patient.place(((top + tip) / 2, 0.1, -0.52))
    radii = ((tip - top) / 2 + 12, 0.95 * ry, 0.62 * rx)
    turn = rotation(y=rng.normal(0.15, 0.1), x=rng.normal(0.1, 0.1))
    right = Ellipsoid(center, radii, turn, wave, rng.uniform(1, 4))
    radii = (rng.uniform(40, 60), 0.5 * ry, rng.uniform(0.4, 0.65) * rx)
    turn = rotation(y=rng.normal(-0.2, 0.15))
    left = Ellipsoid(patient.place((top + 45, -0.45, -0.05)), radii, turn, wave, rng.uniform(1, 4))
    solids = [Solid(lobe, values.liver, texture, grain) for lobe in (left, right)]
    bright = values.liver + (values.vein - values.liver) * rng.uniform(0.1, 0.7)
    hub = patient.place((center[0], 0, -0.25))
    for _ in range(14):
        start = hub + rng.normal(0, 12, 3)
        end = center + rng.uniform(-0.75, 0.75, 3) * right.radii
        kink = (start + end) / 2 + rng.normal(0, 8, 3)
        size = rng.uniform(1.5, 4)
        solids += chain(np.array([start, kink, end]), (size, size * 0.8, 0.8), bright)
    for _ in range(rng.poisson(0.8)):
        spot = Ellipsoid(center + rng.uniform(-0.7, 0.7, 3) * right.radii, rng.uniform(3, 18, 3))
        solids.append(Solid(spot, rng.uniform(0, 90)))
    place = patient.place((tip - rng.uniform(25, 50), -0.5, -rng.uniform(0.3, 0.5)))
    return [*solids, Solid(Ellipsoid(place, rng.uniform(10, 24, 3)), rng.uniform(0, 25))]


def _spleen(rng: Generator, patient: Patient) -> list[Solid]:
    z = patient.dome[1] + rng.uniform(60, 85)
    center = patient.place((z, rng.uniform(0.3, 0.6), rng.uniform(0.68, 0.8)))
    radii = rng.uniform([38, 30, 20], [62, 48, 32])
    turn = rotation(z=rng.normal(0.5, 0.25), x=rng.normal(0.2, 0.2))
    shape = Ellipsoid(center, radii, turn, draw_field(rng, 22.0), rng.uniform(0.5, 2.5))
    return [Solid(shape, patient.values.spleen, draw_field(rng, 8.0), rng.uniform(0, 5))]


def tube(
    rng: Generator, patient: Patient, path: Sequence[np.ndarray], radii: np.ndarray,
    brighter: float, wall: float,
) -> list[Solid]:  # fmt: skip
    """A hollow organ along a path: a wall of `wall` mm first, then its content.

    The wall is `brighter` HU above the patient's bowel.
    """
    hu = patient.values.bowel + brighter
    content = str(rng.choice(CONTENTS, p=patient.contents))
    texture = draw_field(rng, rng.uniform(3, 7), 16)
    solids = chain(path, radii, hu, texture, 6)
    inside = {"gas": 15.0, "contrast": rng.uniform(100, 350)}.get(content, rng.uniform(0, 55))
    if content == "collapsed":
        inside = hu + rng.uniform(-15, 10)
    bubbles = rng.uniform(200, 900) if content == "stool" else 0.0
    gas, fluid, contrast = rng.uniform([-0.2, -1.5, -1.5], [1.2, -0.3, 0])
    surface = {"gas": gas, "fluid": fluid, "contrast": contrast}.get(content)  # radii behind axis
    for (a, b), (ra, rb) in zip(pairwise(path), pairwise(radii), strict=True):
        level = None if surface is None else float((a[1] + b[1]) / 2 + surface * (ra + rb) / 2)
        amplitude = 25 if content == "stool" else rng.uniform(3, 12)
        core = Capsule(a, b, (max(ra - wall, 1.0), max(rb - wall, 1.0)))
        solids.append(Solid(core, inside, texture, amplitude, bubbles, level))
    return solids
