"""Spine, ribs, pelvis, the muscles along the spine and the great vessels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.random import Generator

from kitslib.phantom.patient import CAVITY_TAPER, MIDDLE, TAPER_Z, Patient
from kitslib.phantom.shapes import Ellipsoid, Slab, Solid, blend, chain, cover, draw_field, rotation

_chain = partial(chain, confined=False)
_solid = partial(Solid, confined=False)


class Spine:
    """Vertebrae with discs, canal and processes; a bright shell around trabecular bone."""

    def __init__(self, rng: Generator, patient: Patient) -> None:
        self.period = rng.uniform(31, 38)  # mm from one vertebra to the next
        self.phase = rng.uniform()
        self.size = rng.uniform(0.88, 1.12)  # scale of the cross-section
        self.marrow = patient.values.marrow
        self.shell = patient.values.bone * rng.uniform(0.6, 0.9)
        self.disc = rng.uniform(65, 110)
        self.grain = draw_field(rng, 3.0, 16)
        self.sway, self.wave = rng.normal(0, 3), rng.uniform(60, 120)  # mm sideways, per wavelength
        self.sway_phase = rng.uniform(0, 6.3)
        self.end = 1e4  # z in mm below which there is none

    def paint(self, canvas: np.ndarray, slab: Slab, _: np.ndarray) -> None:
        """Blend the spine into a sub-slice canvas."""
        region = slab.around(np.array([self.end - 1e4, 30, 0]), np.array([1e4, 68, 62]))
        if region is None:
            return
        edge, s, period = slab.edge, np.float32(self.size), self.period
        y, z, view = region.y, region.z, canvas[region.box]
        height = (z / np.float32(period) + np.float32(self.phase)) % 1  # 0..1 from disc to disc
        x = region.x - np.float32(self.sway) * np.sin(z / np.float32(self.wave) + self.sway_phase)
        to_disc = np.minimum(height, 1 - height)
        waist = 1 - 0.10 * np.sin(np.pi * height)
        body = (np.sqrt(np.square(x / (23 * s)) + np.square(y / (17 * s))) - waist) * (19 * s)
        body = np.maximum(body, y - 14 * s)  # flat towards the canal
        disc = np.clip((np.float32(0.1) - to_disc) * period / edge + 0.5, 0, 1)
        trabecular = self.marrow + 25 * self.grain(region)
        end = np.clip(1.6 - np.abs(to_disc - 0.13) * period / 1.5, 0, 1)
        solid = cover(body, edge)
        blend(view, solid, self.shell)
        inner = trabecular + end * (0.75 * self.shell - trabecular)
        blend(view, cover(body + 1.6, edge), inner)
        blend(view, solid * disc, self.disc)
        canal_y = 26 * s
        ring = np.sqrt(np.square(x / (13.5 * s)) + np.square((y - canal_y) / (11.5 * s)))
        arch = np.maximum((ring - 1) * (12 * s), 13 * s - y)
        spinous = np.maximum(np.abs(x) - 3.2 * s, np.abs(y - 50 * s) - 17 * s)
        spinous = np.maximum(spinous, (np.abs(height - 0.62) - 0.27) * period)
        wing = np.maximum(np.abs(y - 21 * s - 0.1 * np.abs(x)) - 4.5 * s, np.abs(x) - 36 * s)
        wing = np.maximum(wing, (np.abs(height - 0.42) - 0.14) * period)
        facet = np.hypot(np.abs(x) - 15 * s, y - 34 * s) - 7.5 * s
        bone = np.minimum(np.minimum(arch, facet), np.minimum(spinous, wing))
        blend(view, cover(bone, edge), 0.85 * self.shell)
        blend(view, cover(bone + 2.2, edge), trabecular + 60)
        canal = np.sqrt(np.square(x / (10 * s)) + np.square((y - canal_y) / (8 * s)))
        canal = (canal - 1) * (9 * s)
        blend(view, cover(canal, edge), 25.0)
        blend(view, cover(canal + 3.5, edge), 38.0)


def draw_muscles(rng: Generator, patient: Patient) -> list[Solid]:
    """Psoas, quadratus and back muscles on both sides, and the crura of the diaphragm."""
    hu, bulk, solids = patient.values.muscle, rng.uniform(0.75, 1.25), []
    texture = draw_field(rng, 7.0, 16), rng.uniform(2, 12)
    for side in (-1, 1):
        z = np.array([-25.0, 15, 60, 110, 170, 240])
        x = side * np.array([25.0, 29, 34, 42, 58, 74])
        y = np.array([10.0, 8, 5, -4, -22, -40])
        psoas = np.stack([z, y, x], 1)
        solids += _chain(psoas, bulk * np.array([5, 11, 15, 19, 19, 15]), hu, *texture)
        psoas = psoas + np.array([0, 9, -5 * side])
        solids += _chain(psoas, bulk * np.array([5, 10, 13, 15, 14, 10]), hu, *texture)
        center, turn = (35, patient.cavity.back + 2, side * 58), rotation(z=-side * 0.15)
        solids.append(_solid(Ellipsoid(center, (85, 9 * bulk, 24), turn), hu, *texture))
        for offset, back, size in ((20, 46, 21), (38, 54, 20), (52, 58, 14)):
            x = side * offset
            line = np.array([[-400.0, back, x], [0, back + 2, x], [250, back, x]])
            solids += _chain(line, bulk**0.5 * size * np.array([0.85, 1, 1]), hu, *texture)
        crus = np.array([[-120.0, -28, side * 20], [-50, -20, side * 16], [20, -17, side * 12]])
        solids += _chain(crus, np.array([4.0, 6, 2.5]), hu)
    return solids


def draw_ribs(rng: Generator, patient: Patient) -> list[Solid]:
    """Twelve pairs of ribs in the wall, sloping forwards and down."""
    solids, shell, marrow = [], patient.values.bone * 0.8, patient.values.marrow
    gap, last, slope = rng.uniform(24, 30), rng.uniform(-40, -10), rng.uniform(45, 80)
    for number in range(12):
        end = {11: 1.0, 10: 1.4}.get(number, 2.1)
        angle = np.linspace(0.45, end, 9 if end > 1.5 else 6)
        z = last - gap * (11 - number) + slope * (1 - np.cos(np.minimum(angle, 2.4)))
        scale = np.interp(z, TAPER_Z, CAVITY_TAPER)
        for side in (-1, 1):
            y, x = patient.cavity.points(side * angle, 5.0)
            points = np.stack([z, MIDDLE + (y - MIDDLE) * scale, x * scale], axis=1)
            size = np.full(len(points), rng.uniform(4.2, 5.6))
            solids += _chain(points, size, shell) + _chain(points, size - 1.9, marrow + 40)
    return solids


def draw_pelvis(rng: Generator, patient: Patient) -> list[Solid]:
    """Iliac wings, sacrum and hips below the kidneys."""
    return hip_bones(patient, rng.uniform(80, 120))


def hip_bones(patient: Patient, crest: float) -> list[Solid]:
    """Iliac wings, sacrum and hips below a crest at z mm."""
    solids, reach = [], min(patient.cavity.side * 0.97, 150.0)
    for inset, hu in ((0.0, patient.values.bone * 0.75), (2.0, patient.values.marrow)):
        for side in (-1, 1):
            for k, z in enumerate(np.arange(crest, crest + 130, 7.0)):
                wide = np.sin(min(1.0, (k + 1.2) / 7) * np.pi / 2)  # the crest is an arch
                below = z - crest
                back = [z, 30 + 22 * wide, side * (0.62 - 0.25 * wide) * reach]
                bend = [z, 8 + 6 * wide, side * 0.8 * reach]
                front = [z, 2 - 62 * wide + 0.2 * below, side * (1.0 - 0.0015 * below) * reach]
                size = np.array([8.0, 4.5, 6.5]) - inset
                solids += _chain(np.array([back, bend, front]), size, hu)
            hip = np.array([crest + 160, -15.0, side * 0.72 * reach])
            solids.append(_solid(Ellipsoid(hip, np.full(3, 26.0 - inset)), hu))
            shaft = hip + np.array([[0.0, 0, 0], [25, 5, side * 32], [120, 5, side * 38]])
            solids += _chain(shaft, np.array([17, 16, 14]) - inset * 2, hu)
        sacrum = Ellipsoid((crest + 85, 40, 0), np.array([62.0, 22, 50]) - inset, rotation(x=0.35))
        solids.append(_solid(sacrum, hu))
    return solids


def draw_vessels(rng: Generator, patient: Patient, hila: Sequence[np.ndarray]) -> list[Solid]:
    """Aorta, vena cava, iliac and visceral vessels, renal ones to each hilum (z, y, x in mm)."""
    artery, vein, solids = patient.values.artery, patient.values.vein, []
    size, ax, fork = rng.uniform(8.5, 13), rng.uniform(2, 12), rng.uniform(75, 105)
    end = [fork, -30, ax - 4]
    aorta = np.array([[-400.0, -12, 12], [-150, -20, ax], [-60, -30, ax], [20, -32, ax], end])
    aorta[1:-1, 2] += rng.normal(0, 2, 3)
    cava = np.array([[-140.0, -45, -26], [-70, -40, -24], [0, -32, -20], [fork + 15, -28, -14]])
    cava[:, 2] += rng.normal(0, 2)
    flat = rng.uniform(8, 13)
    solids += _chain(cava, np.array([1.2, 1.15, 1, 0.95]) * flat, vein)
    solids += _chain(aorta, np.array([1.25, 1.15, 1, 0.9, 0.85]) * size, artery)
    if rng.uniform() < 0.4:  # calcified plaques
        for _ in range(rng.integers(2, 8)):
            z, angle = rng.uniform(-100, fork), rng.uniform(0, 6.3)
            at = (z, -31 + size * np.sin(angle), ax + size * np.cos(angle))
            solids.append(_solid(Ellipsoid(at, rng.uniform(1, 3.5, 3)), rng.uniform(400, 1100)))
    for side in (-1, 1):
        iliac = np.array([end, [fork + 60, -12, side * 38], [fork + 130, -35, side * 70]])
        solids += _chain(iliac, np.array([0.6, 0.55, 0.5]) * size, artery)
        iliac = iliac + np.array([8.0, 10, 4 * side])
        solids += _chain(iliac, np.array([0.7, 0.65, 0.6]) * flat, vein)
    root = np.array([-45.0, -40, ax])
    mesenteric = root + np.array([[0.0, 0, 0], [25, -22, -3], [90, -28, -10], [140, -30, -25]])
    solids += _chain(mesenteric, (3.8, 3.6, 3.2, 2), artery)
    solids += _chain(mesenteric[1:] + np.array([0, 0, -12]), (5.5, 5, 3.5), vein)
    portal = np.array([[-20.0, -62, -15], [-40, -58, -35], [-65, -50, -60]])
    solids += _chain(portal, (6, 6.5, 5), vein)
    splenic = np.array([[-22.0, -62, -12], [-35, -55, 40], [-50, -10, 0.6 * patient.room[2]]])
    solids += _chain(splenic, (4.5, 4, 3.5), vein)
    for hilum in hila:
        side = 1 if hilum[2] > 0 else -1
        starts = [hilum[0] * 0.6 - 8, -34.0, 2.0 * side - 18], [hilum[0] * 0.5 - 10, -28.0, ax]
        radii = rng.uniform([3.5, 2.2], [6, 3.5]).tolist()
        for hu, start, radius, lift in zip((vein, artery), starts, radii, (-3.0, 4.0), strict=True):
            bow = (start + hilum) / 2 + np.array([lift, -3.0 * side - 3, 0]) + rng.normal(0, 3, 3)
            if side > 0 and hu == vein:  # passes in front of the aorta
                over = np.array([start[0], -34 - size - radius, ax])
                solids += _chain([start, over], [radius] * 2, hu)
                start = over
            solids += _chain([start, bow, hilum], [radius, radius, radius * 0.9], hu)
            for _ in range(3):
                tip = hilum + rng.normal(0, [14, 6, 5]) + np.array([0, 2.0, side * 8])
                solids += _chain([hilum, tip], [radius * 0.6, radius * 0.35], hu)
    return solids
