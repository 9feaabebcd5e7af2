"""Organs, bones and vessels around the kidneys as lists of painted solids."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kitslib.phantom.patient import Patient
from kitslib.phantom.shapes import (
    Capsule,
    Ellipsoid,
    Field,
    Slab,
    blend,
    cover,
    draw_field,
    rotation,
)


@dataclass(frozen=True, kw_only=True)
class Solid:
    """A shape filled with one tissue; `confined` keeps it inside the abdomen."""

    shape: Ellipsoid | Capsule
    hu: float
    texture: Field | None = None
    amplitude: float = 0.0  # HU, of the texture
    bubbles: float = 0.0  # HU lost where the texture is high
    level: float | None = None  # patient y in mm above (in front of) which there is gas
    confined: bool = True

    def paint(self, canvas: np.ndarray, slab: Slab, depth: np.ndarray) -> None:
        """Blend the solid into a sub-slice canvas; depth is the slices' depth in the abdomen in mm."""
        window = slab.window(self.shape.centre, self.shape.reach)
        if window is None:
            return
        distance = self.shape.distance(window)
        if self.confined:
            rows = np.arange(window.index[0].start, window.index[0].stop) // slab.subs
            distance = np.maximum(distance, -depth[rows, window.index[1], window.index[2]])
        share = cover(distance, slab.edge)
        value: np.ndarray | float = self.hu
        if self.texture is not None:
            grain = self.texture(window)
            value = self.hu + self.amplitude * grain
            if self.bubbles > 0:
                value -= self.bubbles * np.clip(grain * 1.5 - 0.6, 0, 1)
        if self.level is not None:
            value = value + np.clip((self.level - window.y) / slab.edge, 0, 1) * (-930 - value)
        blend(canvas[window.index], share, value)


def _v(z: float, y: float, x: float) -> np.ndarray:
    return np.array([z, y, x], float)


def draw_viscera(rng: np.random.Generator, patient: Patient) -> list[Solid]:
    """Heart, liver, spleen, stomach, pancreas, bowel, bladder and odd ellipsoids, in painting order."""
    v = patient.values
    middle, top = patient.room[0], patient.dome[0]
    solids = [
        Solid(
            shape=Ellipsoid(centre=_v(top - 45, middle - 15, 25), radii=_v(50, 45, 62)),
            hu=v.vein,
            confined=False,
        ),
        Solid(
            shape=Capsule(a=_v(top - 250, -25, 0), b=_v(top + 60, -25, 0), radius=(26, 18)),
            hu=v.muscle - 15,
            confined=False,
        ),
    ]
    solids += _odd(rng, patient) + _bowel(rng, patient)
    solids += _stomach(rng, patient) + _pancreas(rng, patient)
    solids += _liver(rng, patient) + _spleen(rng, patient)
    solids.append(
        Solid(
            shape=Ellipsoid(
                centre=_v(rng.uniform(215, 250), -50, rng.normal(0, 8)),
                radii=rng.uniform(22, 50, 3),
            ),
            hu=rng.uniform(0, 20),
        )
    )
    return solids


def _liver(rng: np.random.Generator, patient: Patient) -> list[Solid]:
    v, (middle, ry, rx), top = patient.values, patient.room, patient.dome[0]
    tip = rng.uniform(-40, 45)  # z of the lower edge
    field, wave = draw_field(rng, rng.uniform(6, 25)), draw_field(rng, 35.0)
    grain = rng.uniform(1, 6)
    centre = _v((top + tip) / 2, middle + 0.1 * ry, -0.52 * rx)
    right = Ellipsoid(
        centre=centre,
        radii=_v((tip - top) / 2 + 12, 0.95 * ry, 0.62 * rx),
        turn=rotation(y=rng.normal(0.15, 0.1), x=rng.normal(0.1, 0.1)),
        lumps=wave,
        lump_mm=rng.uniform(1, 4),
    )
    left = Ellipsoid(
        centre=_v(top + 45, middle - 0.45 * ry, -0.05 * rx),
        radii=_v(rng.uniform(40, 60), 0.5 * ry, rng.uniform(0.4, 0.65) * rx),
        turn=rotation(y=rng.normal(-0.2, 0.15)),
        lumps=wave,
        lump_mm=rng.uniform(1, 4),
    )
    solids = [Solid(shape=s, hu=v.liver, texture=field, amplitude=grain) for s in (left, right)]
    bright = v.liver + (v.vein - v.liver) * rng.uniform(0.1, 0.7)
    hub = _v(centre[0], middle, -0.25 * rx)
    for _ in range(14):
        start = hub + rng.normal(0, 12, 3)
        end = centre + rng.uniform(-0.75, 0.75, 3) * right.radii
        kink = (start + end) / 2 + rng.normal(0, 8, 3)
        size = rng.uniform(1.5, 4)
        for a, b, r in ((start, kink, (size, size * 0.8)), (kink, end, (size * 0.8, 0.8))):
            solids.append(Solid(shape=Capsule(a=a, b=b, radius=r), hu=bright))
    for _ in range(rng.poisson(0.8)):
        at = centre + rng.uniform(-0.7, 0.7, 3) * right.radii
        solids.append(
            Solid(shape=Ellipsoid(centre=at, radii=rng.uniform(3, 18, 3)), hu=rng.uniform(0, 90))
        )
    bladder = _v(tip - rng.uniform(25, 50), middle - 0.5 * ry, -rng.uniform(0.3, 0.5) * rx)
    solids.append(
        Solid(shape=Ellipsoid(centre=bladder, radii=rng.uniform(10, 24, 3)), hu=rng.uniform(0, 25))
    )
    return solids


def _spleen(rng: np.random.Generator, patient: Patient) -> list[Solid]:
    v, (middle, ry, rx), top = patient.values, patient.room, patient.dome[1]
    shape = Ellipsoid(
        centre=_v(
            top + rng.uniform(60, 85),
            middle + rng.uniform(0.3, 0.6) * ry,
            rng.uniform(0.68, 0.8) * rx,
        ),
        radii=_v(rng.uniform(38, 62), rng.uniform(30, 48), rng.uniform(20, 32)),
        turn=rotation(z=rng.normal(0.5, 0.25), x=rng.normal(0.2, 0.2)),
        lumps=draw_field(rng, 22.0),
        lump_mm=rng.uniform(0.5, 2.5),
    )
    return [
        Solid(shape=shape, hu=v.spleen, texture=draw_field(rng, 8.0), amplitude=rng.uniform(0, 5))
    ]


def _stomach(rng: np.random.Generator, patient: Patient) -> list[Solid]:
    v, (middle, ry, rx), top = patient.values, patient.room, patient.dome[1]
    path = [
        _v(top + 35, middle + 0.25 * ry, 0.5 * rx),
        _v(top + 65, middle - 0.2 * ry, 0.5 * rx),
        _v(top + 95, middle - 0.5 * ry, 0.25 * rx),
        _v(top + 105, middle - 0.45 * ry, -0.1 * rx),
    ]
    path = [p + rng.normal(0, 7, 3) for p in path]
    return _tube(
        rng,
        path,
        rng.uniform(18, 40) * np.array([1, 0.95, 0.75, 0.45]),
        v.bowel + 10,
        rng.uniform(3, 6),
    )


def _pancreas(rng: np.random.Generator, patient: Patient) -> list[Solid]:
    v, rx = patient.values, patient.room[2]
    z = rng.uniform(-45, -10)
    path = [
        _v(z + 18, -45, -0.25 * rx),
        _v(z, -62, 0.0),
        _v(z - 12, -50, 0.25 * rx),
        _v(z - 28, -20, 0.5 * rx),
    ]
    path = [p + rng.normal(0, 5, 3) for p in path]
    width = rng.uniform(9, 15) * np.array([1.25, 0.85, 0.85, 0.8])
    field = draw_field(rng, 4.0, 16)
    return [
        Solid(
            shape=Capsule(a=a, b=b, radius=(width[i], width[i + 1])),
            hu=v.pancreas,
            texture=field,
            amplitude=rng.uniform(4, 18),
        )
        for i, (a, b) in enumerate(pairwise(path))
    ]


def _tube(
    rng: np.random.Generator, path: list[np.ndarray], radii: np.ndarray, wall_hu: float, wall: float
) -> list[Solid]:
    """A hollow organ along a path: wall first, then its content."""
    kind = rng.choice(
        ["gas", "fluid", "contrast", "stool", "collapsed"], p=[0.2, 0.27, 0.13, 0.22, 0.18]
    )
    field = draw_field(rng, rng.uniform(3, 7), 16)
    hu = {"gas": 15.0, "contrast": rng.uniform(100, 350)}.get(str(kind), rng.uniform(0, 55))
    hu = wall_hu + rng.uniform(-15, 10) if kind == "collapsed" else hu
    bubbles = rng.uniform(200, 900) if kind == "stool" else 0.0
    filling = {
        "gas": rng.uniform(-0.2, 1.2),
        "fluid": rng.uniform(-1.5, -0.3),
        "contrast": rng.uniform(-1.5, 0),
    }
    outer, inner = [], []
    for i, (a, b) in enumerate(pairwise(path)):
        ra, rb = float(radii[i]), float(radii[i + 1])
        outer.append(
            Solid(shape=Capsule(a=a, b=b, radius=(ra, rb)), hu=wall_hu, texture=field, amplitude=6)
        )
        level = None
        if kind in filling:
            level = float((a[1] + b[1]) / 2 + filling[str(kind)] * (ra + rb) / 2)
        inner.append(
            Solid(
                shape=Capsule(a=a, b=b, radius=(max(ra - wall, 1.0), max(rb - wall, 1.0))),
                hu=hu,
                texture=field,
                amplitude=rng.uniform(3, 12) if kind != "stool" else 25,
                bubbles=bubbles,
                level=level,
            )
        )
    return outer + inner


def _bowel(rng: np.random.Generator, patient: Patient) -> list[Solid]:
    """Mesenteric vessels, small-bowel loops in front, the colon's frame around."""
    v, (middle, ry, rx) = patient.values, patient.room
    solids = []
    for _ in range(60):
        at = _v(
            rng.uniform(-60, 180), middle + rng.uniform(-0.7, 0.3) * ry, rng.uniform(-0.6, 0.6) * rx
        )
        end = at + rng.normal(0, 12, 3)
        hu = rng.choice([v.artery, v.vein])
        solids.append(
            Solid(
                shape=Capsule(a=at, b=end, radius=(rng.uniform(1, 3.2), rng.uniform(0.6, 2))), hu=hu
            )
        )
    crowd = np.clip(1.35 - 0.006 * (ry + rx - 130), 0.5, 1.3)  # less fat, more bowel in view
    for _ in range(int(rng.uniform(28, 60) * crowd)):
        at = _v(
            rng.uniform(-50, 210),
            middle + rng.uniform(-0.85, 0.05) * ry,
            rng.uniform(-0.75, 0.75) * rx,
        )
        path, way = [at], rng.standard_normal(3)
        for _ in range(rng.integers(3, 8)):
            way = 0.6 * way + 0.8 * rng.standard_normal(3)
            path.append(path[-1] + way / np.linalg.norm(way) * rng.uniform(14, 24))
        radii = rng.uniform(8, 17) * rng.uniform(0.85, 1.15, len(path))
        solids += _tube(rng, path, radii, v.bowel + rng.normal(0, 8), rng.uniform(1.5, 4))
    low, high = rng.uniform(110, 170), rng.uniform(-50, 20)
    frames = [
        [
            _v(low, middle + 0.1 * ry, -0.72 * rx),
            _v(60, middle + 0.4 * ry, -0.78 * rx),
            _v(high, middle, -0.68 * rx),
        ],
        [
            _v(high, middle - 0.3 * ry, -0.6 * rx),
            _v(rng.uniform(0, 70), middle - 0.75 * ry, 0),
            _v(high - 30, middle - 0.4 * ry, 0.65 * rx),
        ],
        [
            _v(high - 30, middle, 0.75 * rx),
            _v(40, middle + 0.4 * ry, 0.82 * rx),
            _v(low, middle + 0.2 * ry, 0.72 * rx),
        ],
    ]
    for frame in frames:
        corners = np.array(frame)
        t = np.linspace(0, len(frame) - 1, 10)
        path = np.stack([np.interp(t, range(len(frame)), corners[:, k]) for k in range(3)], axis=1)
        path += rng.normal(0, 4, path.shape)
        radii = rng.uniform(12, 23) * rng.uniform(0.75, 1.15, len(path))
        for start in range(0, 9, 3):  # content changes along the colon
            part = slice(start, start + 4)
            solids += _tube(rng, list(path[part]), radii[part], v.bowel, rng.uniform(1.5, 3.5))
    return solids


def _odd(rng: np.random.Generator, patient: Patient) -> list[Solid]:
    """Ellipsoids of any HU, so that brightness or roundness alone never means kidney."""
    middle, ry, rx = patient.room
    solids = []
    for _ in range(rng.integers(3, 18)):
        at = _v(
            rng.uniform(-150, 200),
            middle + rng.uniform(-0.8, 0.7) * ry,
            rng.uniform(-0.85, 0.85) * rx,
        )
        solids.append(
            Solid(
                shape=Ellipsoid(
                    centre=at,
                    radii=rng.uniform(5, 28, 3),
                    turn=rotation(*rng.uniform(-np.pi, np.pi, 3)),
                ),
                hu=rng.choice([rng.uniform(-60, 260), rng.uniform(0, 120)]),
                texture=draw_field(rng, rng.uniform(4, 12)),
                amplitude=rng.uniform(0, 20),
            )
        )
    return solids
