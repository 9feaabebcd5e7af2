"""One patient of any clinic: field of view, phase of contrast, HU of tissues, the body."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from kitslib.phantom.patient import Patient, Values
from kitslib.phantom.scanner import Protocol, SliceMm

PHASES = ("none", "arterial", "portal", "late")
PHASE_SHARES = (0.22, 0.28, 0.35, 0.15)
TISSUES = (
    "kidney", "medulla", "liver", "artery", "vein", "pelvis", "spleen", "pancreas", "bowel"
)  # fmt: skip
RANGES = {  # HU of TISSUES, from and to; the medulla's are below the cortex
    "none": ((25, 0, 38, 35, 35, 0, 40, 28, 25), (42, 3, 68, 50, 50, 15, 56, 45, 45)),
    "arterial": (
        (95, 40, 50, 210, 60, 0, 80, 60, 40), (190, 130, 85, 450, 170, 20, 150, 125, 110)
    ),
    "portal": (
        (120, -10, 80, 115, 115, 0, 95, 70, 50), (225, 30, 135, 190, 200, 40, 140, 115, 110)
    ),
    "late": (
        (80, -20, 65, 75, 75, 200, 70, 55, 45), (165, 5, 110, 130, 130, 1500, 105, 95, 90)
    ),
}  # fmt: skip
WILD = 0.25  # of `ClinicValues`, for the variety "wild"
FIELDS = ((0.8, 0.94), (0.94, 1.15), (1.15, 1.9))  # of the field of view that suits the body
FIELD_SHARES = (0.15, 0.6, 0.25)
# mm above and below the kidneys, from and to: abdomen, with pelvis, with chest, with both; cut
COVERAGE = (
    ((50, 170), (10, 150)), ((50, 170), (200, 360)), ((180, 330), (0, 150)),
    ((180, 330), (230, 430)), ((-70, 15), (60, 330)), ((60, 300), (-70, 10)),
)  # fmt: skip
COVERAGE_SHARES = (0.18, 0.32, 0.12, 0.24, 0.07, 0.07)
ORAL_CONTRAST = (0.12, 0.1, 0.63, 0.1, 0.05)  # shares of `patient.CONTENTS`


class ClinicProtocol(Protocol):
    """Field of view from tight to wide, from any part of the chest to any part of the thigh.

    pixel: mm, in place of the matrix; such a scan has no air beside the body but what must be.
    """

    def __init__(
        self, rng: Generator, ranks: dict[str, float], matrix: int, spacing_z: SliceMm,
        more: Generator, pixel: float | None,
    ) -> None:  # fmt: skip
        super().__init__(rng, ranks, matrix, spacing_z)
        self.body_mm = self.field_of_view  # the field of view that suits the patient
        field = more.uniform(*FIELDS[more.choice(3, p=FIELD_SHARES)])
        if pixel is None:
            self.spacing = (self.spacing[0], *(round(s * field, 4) for s in self.spacing[1:]))
        else:
            self.spacing = (self.spacing[0], pixel, pixel)
            self.matrix = int(np.ceil(self.body_mm * min(field, 1.15) / pixel))
        self.field_of_view = self.spacing[1] * self.matrix
        above, below = COVERAGE[more.choice(len(COVERAGE), p=COVERAGE_SHARES)]
        self.above, self.below = more.uniform(*above), more.uniform(*below)
        self.offset = self.offset + more.normal(0, 8, 2) * max(1.0, 3 * (field - 1))
        self.angle += float(np.radians(more.normal(0, 2)))


class ClinicValues(Values):
    """HU of tissues in any phase: none, arterial, portal venous, late with bright urine.

    wild: share of patients whose tissues have any HU, as no scanner and phase would give them.
    """

    def __init__(self, rng: Generator, wild: float) -> None:
        super().__init__(rng)
        self.phase = str(rng.choice(PHASES, p=PHASE_SHARES))
        low, high = RANGES[self.phase]
        for name, value in zip(TISSUES, rng.uniform(low, high).tolist(), strict=True):
            setattr(self, name, value)
        if rng.uniform() < 0.12:  # a fatty liver
            self.liver -= rng.uniform(15, 60)
        if rng.uniform() < wild:
            for name in (*TISSUES[:5], *TISSUES[6:], "muscle", "marrow"):
                setattr(self, name, getattr(self, name) + rng.normal(0, 40))
            self.fat += rng.normal(0, 15)
        self.cortex = self.kidney + 0.35 * self.medulla


class ClinicPatient(Patient):
    """A patient of any clinic, with the height of the pelvis, arms, and what else is drawn once."""

    def __init__(
        self, rng: Generator, protocol: ClinicProtocol, more: Generator, wild: bool
    ) -> None:
        super().__init__(rng, protocol.body_mm, protocol.size)
        self.wild = wild
        self.values = ClinicValues(more, WILD if wild else 0.0)
        self.crest = more.uniform(75, 125)  # z in mm of the iliac crests
        self.hips = self.crest + 158  # of the femoral heads
        self.floor = self.hips + more.uniform(0, 35)  # of the abdominal cavity's lower end
        self.crotch = self.hips + more.uniform(60, 95)
        self.female = bool(more.uniform() < 0.5)
        self.metal: list[tuple[np.ndarray, float, float]] = []  # place, half height, size in mm
        self.arms_down = bool(more.uniform() < 0.18)
        if more.uniform() < 0.25:
            self.contents = ORAL_CONTRAST
        fat = max(self.skin.side - self.muscle.side, 4.0)
        thick = min(more.uniform(66, 84) + 0.9 * fat, 0.53 * self.skin.side)
        self.leg = thick, min(0.5 * fat + more.uniform(6, 20), 0.4 * thick)  # mm: radius, its fat
