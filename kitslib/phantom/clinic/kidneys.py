"""Kidneys that KiTS19 hardly shows: without tumour, single, joined, low, dilated, shrunken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from kitslib.phantom.lesions import Cysts, draw_cyst
from kitslib.phantom.patient import Patient, Values
from kitslib.phantom.population import draw_cysts, draw_kidney, draw_pair, draw_tumors
from kitslib.phantom.renal import Kidney, Part, Renal
from kitslib.phantom.scanner import Parenchyma
from kitslib.phantom.shapes import Ellipsoid, blend, cover, draw_field, mm

FORMS = ("usual", "single", "horseshoe", "pelvic", "dilated", "shrunken", "low")
FORM_SHARES = (0.62, 0.08, 0.05, 0.05, 0.10, 0.05, 0.05)
# of cysts, and of those: 550 of 8402 CT examinations of the kidneys had a complex cyst (Graumann
# 2013, Insights into Imaging 4:471), fewer than of KiTS19's candidates for surgery
COMPLEX, ALIKE = 0.1, 0.1
FAR = Ellipsoid((0, 0, -1e3), (1, 1, 1))


def draw_any_renal(
    rng: Generator, ranks: dict[str, float], patient: Patient, size: float, cysts: Cysts,
    tumor_free: float,
) -> Renal:  # fmt: skip
    """Draw kidneys of any form, and their lesions; a share of the patients has no tumour."""
    kidneys, total = draw_pair(rng, ranks, size)
    form = str(rng.choice(FORMS, p=FORM_SHARES))
    kidneys = _of_form(rng, form, kidneys, total * rng.uniform(0.75, 1.0))
    free = bool(rng.uniform() < tumor_free)
    tumors = [] if free else draw_tumors(rng, ranks, kidneys, patient)
    renal = Renal(kidneys, tumors, [])
    found = draw_cysts(rng, ranks, renal, patient, cysts, COMPLEX, ALIKE)
    if rng.uniform() < 0.1:  # beside the pelvis, in the sinus
        kidney = kidneys[rng.integers(len(kidneys))]
        center = kidney.center + 0.35 * (kidney.hilum - kidney.center)
        ml = rng.uniform(0.5, 6)
        found.append(draw_cyst(rng, center, ml, "simple cyst", patient.values.kidney))
    return replace(renal, cysts=found)


def _of_form(rng: Generator, form: str, kidneys: list[Kidney], ml: float) -> list[Kidney]:
    """The kidneys changed to a form."""
    chosen = int(rng.integers(2))
    one, other = kidneys[chosen], kidneys[1 - chosen]
    if form == "single":
        return [one.scaled(rng.uniform(1.05, 1.3))]
    if form == "horseshoe":
        return _joined(rng, ml)
    if form == "pelvic":
        place = np.array(
            [rng.uniform(110, 175), rng.uniform(-25, 0), one.side * rng.uniform(18, 50)]
        )
        axis = rng.standard_normal(3) + mm(1, 0, 0)
        return [other, draw_kidney(rng, one.side, ml * rng.uniform(0.3, 0.5), place, axis)]
    if form == "low":
        return [replace(one, center=one.center + mm(rng.uniform(35, 90), -8, 0)), other]
    if form == "shrunken":
        return [one.scaled(rng.uniform(0.5, 0.75)), other]
    if form == "dilated":
        wide = rng.uniform([1.2, 1.2, 1.0], [2.6, 2.4, 1.5])
        pelvis = replace(one.pelvis, radii=np.array(one.pelvis.radii) * wide)
        pelvis = replace(pelvis, lumps=draw_field(rng, 9.0), lump_mm=rng.uniform(1, 4))
        return [replace(one, pelvis=pelvis, urine=rng.uniform(0, 22)), other]
    return kidneys


def _joined(rng: Generator, ml: float) -> list[Kidney]:
    """Two kidneys whose lower poles meet in front of the great vessels."""
    kidneys, down = [], rng.uniform(10, 40)
    for side in (-1, 1):
        center = np.array([down, rng.uniform(-32, -20), side * rng.uniform(46, 56)])
        axis = np.array([1.0, -0.3, -side * rng.uniform(0.3, 0.5)])
        kidneys.append(draw_kidney(rng, side, ml * rng.uniform(0.4, 0.5), center, axis))
    low = np.mean([kidney.center[0] + 0.72 * kidney.reach[0] for kidney in kidneys])
    body = Ellipsoid(
        (0, 0, 0), rng.uniform([36, 9, 10], [46, 13, 18]), None, draw_field(rng, 14.0), 1
    )
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    center = np.array([low - 8, -52.0, rng.normal(0, 4)])
    return [*kidneys, Kidney(1, center, turn, body, FAR, FAR, rng.uniform(-6, 0))]


class ClinicParenchyma(Parenchyma):
    """Kidneys with wedges of less uptake: infarction, infection, scars."""

    def __init__(self, rng: Generator, more: Generator, kidneys: Sequence[Kidney]) -> None:
        super().__init__(rng)
        self.wedges: list[tuple[Ellipsoid, float]] = []
        for kidney in kidneys:
            for _ in range(more.poisson(0.12)):
                point, normal = kidney.surface(more.standard_normal(3))
                shape = Ellipsoid(point - 6 * normal, more.uniform(6, 20, 3))
                self.wedges.append((shape, more.uniform(0.15, 0.7)))

    def hu(self, part: Part, values: Values) -> np.ndarray:
        """HU of one kidney: cortex, medullary pyramids, collecting system, wedges."""
        hu = super().hu(part, values)
        for shape, share in self.wedges:
            inside = cover(shape.distance(part.region), 4.0) * np.clip(part.depth, 0, 1)
            blend(hu, inside, 35 + share * (values.kidney - 35))
        return hu
