"""The body from chest to thigh: legs, pelvis with its bones, muscles and organs, arms, breasts."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.random import Generator

from kitslib.phantom.clinic.patient import ClinicPatient
from kitslib.phantom.organs import tube
from kitslib.phantom.patient import Patient, Trunk
from kitslib.phantom.shapes import (
    Capsule,
    Ellipsoid,
    Slab,
    Solid,
    blend,
    chain,
    cover,
    draw_field,
    mm,
    rotation,
)
from kitslib.phantom.skeleton import hip_bones

_chain = partial(chain, confined=False)
_solid = partial(Solid, confined=False)
FASCIA_MM = 1.6  # of fat around a muscle


class Body(Trunk):
    """The trunk, whose cavity narrows to a pelvic floor and which goes on into two legs."""

    patient: Any

    def scale(self, name: str, z: np.ndarray) -> np.ndarray:
        """Size of an outline at depths z against that at the kidneys, (n,)."""
        crest = self.patient.crest
        if name == "cavity":
            at = (-400, -200, -100, 0, 80, crest + 25, crest + 85, crest + 150, crest + 230)
            return np.interp(z, at, (0.9, 0.98, 1.0, 1.0, 0.98, 0.95, 0.82, 0.55, 0.35))
        to = (1.0, 1.06) if name == "skin" else (1.0, 0.9)
        return super().scale(name, z) * np.interp(z, (crest, self.patient.hips), to)

    def outside(self, name: str, z: np.ndarray) -> np.ndarray:
        """Signed distance in mm to an outline on slices at depths z, (n, H, W)."""
        distance, patient = super().outside(name, z), self.patient
        depth = np.asarray(z, np.float32)[:, None, None]
        if name == "cavity":
            return np.maximum(distance, depth - np.float32(patient.floor))
        if z[-1] < patient.hips - 40:
            return distance
        y, x = self.grid.plane
        radius = patient.leg[0] - (patient.leg[1] if name == "muscle" else 0)
        below = depth - np.float32(patient.hips)
        away = np.hypot(y + 8, np.abs(x) - np.float32(patient.leg[0] + 4))
        legs = away - np.float32(radius) * (1 - np.clip(below, 0, 300) / 1500)
        legs = np.maximum(legs, -below - 40)
        end = np.float32(patient.crotch - (45 if name == "muscle" else 0))
        return np.minimum(np.maximum(distance, 0.8 * (depth - end)), legs)

    def paint(self, slab: Slab) -> tuple[np.ndarray, np.ndarray]:
        """HU of the body on a slab, and depth in mm in the abdomen; fat between the muscles."""
        hu, depth = super().paint(slab)
        slab = slab.single()
        below = slab.depths > self.patient.crest
        if below.any():
            z, grain = slab.depths[below], self.patient.grain(slab.crop(*np.s_[:, :, :]))[below]
            deep = np.maximum(self.outside("muscle", z) + 11, 1 - self.outside("cavity", z))
            part = hu[below]
            blend(part, cover(deep, slab.edge), self.patient.values.fat + 8 * grain)
            hu[below] = part
        return hu, depth


def _bundle(rng: Generator, shape: Ellipsoid | Capsule, hu: float) -> list[Solid]:
    """A muscle in its fascia's fat."""
    texture, amplitude = draw_field(rng, 7.0, 16), rng.uniform(2, 12)
    if isinstance(shape, Ellipsoid):
        outer = Ellipsoid(shape.center, np.array(shape.radii) + FASCIA_MM, shape.turn)
    else:
        a, b = (radius + FASCIA_MM for radius in shape.radius)
        outer = Capsule(shape.a, shape.b, (a, b))
    return [_solid(outer, -95.0), _solid(shape, hu, texture, amplitude)]


def draw_hips(rng: Generator, patient: ClinicPatient) -> list[Solid]:
    """Muscles, fat, bones and vessels of pelvis and thighs, in painting order."""
    solids, crest, hips = [], patient.crest, patient.hips
    reach, hu = min(patient.cavity.side * 0.97, 150.0), patient.values.muscle
    bulk, fat = rng.uniform(0.85, 1.15), patient.values.fat
    shell, marrow = patient.values.bone * 0.75, patient.values.marrow
    for side in (-1, 1):
        hip = np.array([hips, -15.0, side * 0.72 * reach])
        for z, y, x, radii, roll in (
            (crest + 75, 15, 0.9, (72, 30, 19), 0.45),  # gluteus medius and minimus
            (hips - 12, 46, 0.58, (85, 26, 58), 0.3),  # gluteus maximus
            (crest + 60, -5, 0.62, (58, 13, 26), -0.6),  # iliacus
            (hips + 5, 12, 0.42, (34, 16, 14), 0.0),  # obturators
            (hips + 10, -45, 0.78, (62, 18, 26), -0.4),  # in front of the hip
            (hips + 20, 20, 0.8, (45, 20, 22), 0.2),  # behind it
        ):
            radii = np.array(radii) * bulk * rng.uniform(0.9, 1.1, 3)
            center = np.array([z, y, side * x * reach]) + rng.normal(0, 3, 3)
            solids += _bundle(rng, Ellipsoid(center, radii, rotation(z=side * roll)), hu)
        fossa = Ellipsoid((hips + 35, 30, side * 34), rng.uniform([30, 16, 10], [45, 26, 18]))
        solids.append(_solid(fossa, fat))
        groin = Ellipsoid(hip + np.array([25, -42, -side * 22]), rng.uniform(14, 24, 3) * [2, 1, 1])
        solids.append(_solid(groin, fat))
        middle = np.array([hips + 200, -8.0, side * (patient.leg[0] + 4)])
        room = patient.leg[0] - patient.leg[1]
        angles, sizes = np.arange(6) * 1.05 + rng.uniform(0, 1), rng.uniform(0.34, 0.46, 6)
        for angle, size in zip(angles, sizes, strict=True):
            way = np.array([0, np.cos(angle), np.sin(angle)]) * (1 - size) * room * 0.95
            ends = np.array([hip + mm(55, 0, 0), middle + mm(130, 0, 0)]) + way
            ends[0, 2] = side * max(side * ends[0, 2], 22.0)
            solids += _bundle(rng, Capsule(*ends, (size * room, size * room)), hu)
        for value, vessel in ((patient.values.artery, 0), (patient.values.vein, 11)):
            path = hip + np.array([[-30, -20, -20 * side], [20, -42, -12 * side], [200, -30, 0]])
            solids += _chain(path + mm(0, 3, -side * vessel), (5, 4.5, 3.5), value)
        for inset, value in ((0.0, shell), (3.0, marrow)):
            socket = Ellipsoid(hip + mm(-4, 4, -side * 6), np.array([36.0, 30, 30]) - inset)
            solids.append(_solid(socket, value))
            pubis = np.array([hip + mm(0, -12, -side * 18), [hips + 18, -52, side * 9.0]])
            ischium = np.array([hip + mm(5, 15, -side * 12), [hips + 55, 30, side * 55.0]])
            ramus = np.array([[hips + 55, 28, side * 54.0], [hips + 28, -45, side * 10.0]])
            for ends, size in ((pubis, 10), (ischium, 15), (ramus, 8)):
                solids += _chain(ends, (size - inset, size - inset), value)
    solids += hip_bones(patient, crest)
    for side in (-1, 1):
        head = np.array([hips, -15.0, side * 0.72 * reach])
        solids.append(_solid(Ellipsoid(head, np.full(3, 29.0)), 55.0))  # cartilage and joint
        for inset, value in ((0.0, shell), (2.5, marrow + 60)):
            solids.append(_solid(Ellipsoid(head, np.full(3, 25.5 - inset)), value))
            neck = head + np.array([[0.0, 0, 0], [32, 10, side * 34], [70, 5, side * 32]])
            size = np.array([15.0, 19, 17]) - inset
            solids += _chain(neck, size, value)
        shaft = np.array([neck[2], [hips + 330, -8.0, side * (patient.leg[0] + 8)]])
        solids += _chain(shaft, (15, 14), patient.values.bone)
        solids += _chain(shaft, (8, 7), rng.uniform(-60, 40))
    return solids + _pelvic_organs(rng, patient)


def _pelvic_organs(rng: Generator, patient: ClinicPatient) -> list[Solid]:
    """Rectum and sigmoid colon, and the womb or the prostate."""
    hips, values = patient.hips, patient.values
    path = [(-75, 5, 25), (-45, 20, 12), (-15, 34, 0), (25, 36, 0), (55, 32, 0)]
    path = np.array(path) + rng.normal(0, 5, (5, 3)) + mm(hips, -8, 0)
    radii = rng.uniform(11, 22) * rng.uniform(0.8, 1.15, 5)
    solids = tube(rng, patient, path, radii, 0, rng.uniform(2, 5))
    soft, texture = values.muscle + rng.uniform(0, 50), draw_field(rng, 6.0)
    if patient.female:
        center = np.array([hips - rng.uniform(15, 40), -8, rng.normal(0, 8)])
        radii, turn = rng.uniform([25, 18, 22], [42, 28, 36]), rotation(x=rng.normal(-0.6, 0.4))
        solids.append(Solid(Ellipsoid(center, radii, turn), soft, texture, rng.uniform(3, 15)))
        for side in (-1, 1):
            place = center + rng.normal(0, 6, 3) + mm(0, 5, side * rng.uniform(35, 50))
            solids.append(Solid(Ellipsoid(place, rng.uniform(8, 20, 3)), rng.uniform(5, 60)))
    else:
        gland = Ellipsoid((hips + 20, -8, 0), rng.uniform([15, 14, 18], [28, 24, 30]))
        solids.append(_solid(gland, soft, texture, rng.uniform(3, 15)))
    return solids


def draw_bladder_of_any_fill(rng: Generator, patient: ClinicPatient) -> list[Solid]:
    """A bladder from empty to full, with contrast in late scans, sometimes in layers."""
    size = rng.uniform(0.35, 1.25)
    radii = size * rng.uniform([34, 30, 38], [52, 46, 56])
    center = np.array([patient.hips - 0.55 * radii[0], -42 - 0.2 * radii[1], rng.normal(0, 6)])
    wall = rng.uniform(1.5, 5)
    solids = [Solid(Ellipsoid(center, radii + wall), patient.values.muscle + 10)]
    urine = rng.uniform(-2, 18)
    if patient.values.phase != "late" or rng.uniform() < 0.15:
        return [*solids, Solid(Ellipsoid(center, radii), urine)]
    solids.append(Solid(Ellipsoid(center, radii), rng.uniform(60, 1200)))
    if rng.uniform() < 0.6:  # fresh urine on top
        upper = Ellipsoid(center - mm(0, 0.45 * radii[1], 0), radii * [0.85, 0.5, 0.85])
        solids.append(Solid(upper, urine + rng.uniform(0, 60)))
    return solids


def draw_arms(rng: Generator, patient: Patient) -> list[Solid]:
    """Both arms beside the body, near it or on it."""
    solids, values = [], patient.values
    for side in (-1, 1):
        x = side * (patient.skin.side * 1.05 + rng.uniform(38, 62))
        y = rng.uniform(-45, 25)
        elbow = rng.uniform(-40, 70)
        path = np.array([[-420.0, 5, x * 0.98], [elbow, y + 12, x], [elbow + 260, y - 15, x]])
        radii = np.array([rng.uniform(40, 52), rng.uniform(34, 44), rng.uniform(22, 30)])
        solids += _chain(path, radii, values.fat)
        solids += _chain(path, radii * 0.8, values.muscle, draw_field(rng, 7.0, 16), 6.0)
        for k, spread in ((0, (0,)), (1, (-9, 9))):
            for shift in spread:
                line = path[k : k + 2] + mm(0, shift, shift * 0.5)
                width = 11.0 if k == 0 else 7.0
                solids += _chain(line, (width, width), values.bone)
                solids += _chain(line, (width - 4, width - 4), rng.uniform(-40, 60))
    return solids


def draw_chest(rng: Generator, patient: ClinicPatient) -> list[Solid]:
    """Breasts, breastbone, chambers of the heart, windpipe and fluid beside the lungs."""
    solids, values, top = [], patient.values, patient.dome[0]
    front = patient.muscle.front * 0.92
    if patient.female or rng.uniform() < 0.1:
        size = rng.uniform(0.5, 1.25)
        for side in (-1, 1):
            center = np.array([top - rng.uniform(10, 55), front - 12, side * rng.uniform(70, 95)])
            radii = size * rng.uniform([45, 28, 48], [60, 45, 65])
            solids.append(_solid(Ellipsoid(center, radii + 2), values.muscle - 25))
            solids.append(_solid(Ellipsoid(center, radii), values.fat))
            gland = Ellipsoid(center - mm(0, 0.3 * radii[1], 0), radii * rng.uniform(0.3, 0.65))
            solids.append(_solid(gland, rng.uniform(-60, 40), draw_field(rng, 8.0), 35.0))
    bone = np.array([[top - 250, front + 6, 0.0], [top - 25, front + 3, 0]])
    for inset, hu in ((0.0, values.bone * 0.6), (2.0, values.marrow)):
        for x in (-9, 0, 9):
            solids += _chain(bone + mm(0, 0, x), (6.5 - inset, 6.5 - inset), hu)
    middle = patient.room[0]
    for z, x, radii, hu in (
        (-55, 38, (32, 30, 30), values.artery), (-58, -12, (34, 28, 28), values.vein),
    ):  # fmt: skip
        solids.append(_solid(Ellipsoid((top + z, middle - 15, x), np.array(radii)), hu))
    for side in (-1, 1):
        pipe = np.array(
            [[top - 260, -22, 0.0], [top - 150, -25, 2.0 * side], [top - 95, -15, 30 * side]]
        )
        solids += _chain(pipe, (8, 7, 5), -950.0)
        if rng.uniform() < 0.12:
            place = (top + rng.uniform(-10, 40), 24, side * 0.55 * patient.room[2])
            radii = rng.uniform([25, 8, 30], [70, 18, 50])
            solids.append(_solid(Ellipsoid(place, radii), rng.uniform(0, 25)))
    return solids
