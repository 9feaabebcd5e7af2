"""One synthetic case: (seed, index, parameters) to imaging and labels, or a given map to its CT."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.random import Generator

from kitslib.phantom.clinic.frame import Body, draw_bladder_of_any_fill, draw_hips
from kitslib.phantom.clinic.kidneys import ClinicParenchyma, draw_any_renal
from kitslib.phantom.clinic.patient import ClinicPatient, ClinicProtocol
from kitslib.phantom.clinic.rare import draw_around, draw_below, draw_over
from kitslib.phantom.given import Given, given_frame
from kitslib.phantom.lesions import Cysts
from kitslib.phantom.organs import draw_bladder, draw_viscera
from kitslib.phantom.patient import Patient, Trunk
from kitslib.phantom.population import draw_ranks, draw_renal
from kitslib.phantom.renal import Halo, Renal, label_slab
from kitslib.phantom.scanner import Detector, Parenchyma, Protocol, SliceMm
from kitslib.phantom.shapes import Grid, Slab, Triple, blend, cover, draw_field
from kitslib.phantom.skeleton import Spine, draw_muscles, draw_pelvis, draw_ribs, draw_vessels

THINNEST_MM = 2.5
STREAMS = ("protocol", "patient", "renal", "scene", "detector", "row", "clinic")
FIELD_MARGIN_MM = 25.0  # around the kidneys, of a case that shows nothing else
Variety = Literal["kits", "clinic", "wild"]
VARIETIES = get_args(Variety)
Streams = dict[str, Generator]


def streams(seed: int, index: int) -> Streams:
    """Independent generators of one case, from (seed, index) alone."""
    generators = np.random.default_rng((seed, index)).spawn(len(STREAMS))
    return dict(zip(STREAMS, generators, strict=True))


def draw_case(
    index: int, seed: int, matrix: int = 512, spacing_z: SliceMm = None, cysts: Cysts = "typical",
    variety: Variety = "kits", tumor_free: float = 0.0, pixel: float | None = None,
) -> tuple[Protocol, Patient, Renal, Grid, Streams]:  # fmt: skip
    """Everything about a case but its voxels.

    variety: `kits` varies as KiTS19 does; `clinic` has what comes to any scanner: every field of
    view, phase and body, single, pelvic and horseshoe kidneys, stones, metal, and a share
    `tumor_free` of patients without tumour; `wild` is the same, but that some patients' tissues
    have any HU and more have a mass above a kidney. pixel: mm, in place of the matrix (not `kits`).
    """
    rng, ranks = streams(seed, index), draw_ranks(seed, index)
    if variety != "kits":
        more = rng["clinic"]
        protocol = ClinicProtocol(rng["protocol"], ranks, matrix, spacing_z, more, pixel)
        patient = ClinicPatient(rng["patient"], protocol, more, wild=variety == "wild")
        renal = draw_any_renal(rng["renal"], ranks, patient, protocol.size, cysts, tumor_free)
    else:
        protocol = Protocol(rng["protocol"], ranks, matrix, spacing_z)
        patient = Patient(rng["patient"], protocol.field_of_view, protocol.size)
        renal = draw_renal(rng["renal"], ranks, patient, protocol.size, cysts)
    low, high = renal.bounds
    patient.make_room(low, high)
    return protocol, patient, renal, protocol.grid(low[0], high[0]), rng


def render_label_map(index: int, *, seed: int, **options: Any) -> tuple[np.ndarray, Triple]:
    """Labels and spacing of a case, as `render_case` gives them, but fast."""
    _, _, renal, grid, _ = draw_case(index, seed, **options)
    return renal.label_map(grid, THINNEST_MM), grid.spacing


def render_case(
    index: int, *, seed: int, around_kidneys: bool = False, **options: Any
) -> tuple[np.ndarray, np.ndarray, Triple]:
    """Imaging int16 HU and labels uint8 0..3 (D, H, W) and spacing (z, y, x) in mm of one case.

    around_kidneys: nothing but the box of what is labelled and a margin, which is quicker.
    options: of `draw_case`.
    """
    _, patient, renal, grid, rng = draw_case(index, seed, **options)
    if around_kidneys:
        low, high = renal.bounds
        grid = grid.around(low - FIELD_MARGIN_MM, high + FIELD_MARGIN_MM)
    kind = ClinicScene if isinstance(patient, ClinicPatient) else Scene
    scene = kind(patient, renal, grid, rng)
    if around_kidneys:
        scene.detector.corners[:] = False  # they are the whole field's
    return *scene.render(), grid.spacing


def render_labels(labels: np.ndarray, spacing: Triple, *, seed: int, index: int) -> np.ndarray:
    """Imaging int16 HU (D, H, W) for a label map uint8 0..3 of that shape and spacing (z, y, x) mm.

    The anatomy is placed around the given kidneys. Raises ValueError when the map is not 3-D, has
    other values, or holds no kidney.
    """
    rng = streams(seed, index)
    grid, size = given_frame(labels, spacing, rng["protocol"])
    patient = Patient(rng["patient"], min(grid.shape[1], grid.shape[2]) * spacing[1], size)
    given = Given(labels, grid, rng["renal"], patient.values.kidney)
    patient.make_room(*given.bounds)
    return Scene(patient, given, grid, rng).render()[0]


class PerirenalFat:
    """Fat around kidneys and lesions, inside the abdomen."""

    def __init__(self, rng: Generator, halo: Halo, hu: float) -> None:
        self.halo, self.hu = halo, hu
        self.mm = float(rng.choice([rng.uniform(1, 5), rng.uniform(3, 12)]))
        self.waves = draw_field(rng, 22.0)

    def paint(self, canvas: np.ndarray, slab: Slab, depth: np.ndarray) -> None:
        """Blend it into a sub-slice canvas."""
        region = slab.single().between(self.halo.origin, self.halo.end)
        if region is None:
            return
        away = self.halo(region) - self.mm * (0.7 + 0.8 * np.tanh(self.waves(region)))
        share = cover(np.maximum(away, -depth[region.box] - 3), 2.0)
        slices, rows, cols = region.box
        fine = slice(slices.start * slab.subs, slices.stop * slab.subs)
        blend(canvas[fine, rows, cols], np.repeat(share, slab.subs, axis=0), self.hu)


class Scene:
    """All painters of one case."""

    trunk_of, bladder_of, pelvis_of = Trunk, staticmethod(draw_bladder), staticmethod(draw_pelvis)

    def __init__(self, patient: Patient, renal: Renal | Given, grid: Grid, rng: Streams) -> None:
        draw = rng["scene"]
        self.values, self.renal, self.grid = patient.values, renal, grid
        self.trunk = self.trunk_of(patient, grid, draw)
        viscera = draw_viscera(draw, patient) + self.bladder_of(draw, patient)
        spine = Spine(draw, patient)
        frame = draw_muscles(draw, patient) + draw_vessels(draw, patient, renal.hila)
        bones = draw_ribs(draw, patient) + self.pelvis_of(draw, patient)
        self.parenchyma = Parenchyma(draw)
        fat = PerirenalFat(draw, renal.halo(grid), patient.values.fat)
        self.painters = [*viscera, fat, *frame, spine, *bones]
        self.overlays: list[Any] = []  # painted over the kidneys, on whole slices
        self.detector = Detector(rng["detector"], grid)

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Imaging int16 HU and labels uint8 of the whole grid, each (D, H, W)."""
        imaging, labels = np.empty(self.grid.shape, np.int16), np.empty(self.grid.shape, np.uint8)
        for slab in self.grid.slabs(THINNEST_MM):
            hu, depth = self.trunk.paint(slab)
            canvas = np.repeat(hu, slab.subs, axis=0)
            for painter in self.painters:
                painter.paint(canvas, slab, depth)
            hu = canvas.reshape(-1, slab.subs, *hu.shape[1:]).mean(1, dtype=np.float32)
            parts = self.renal.sample(slab)
            for part in parts:
                if part.appearance is None:
                    tissue = self.parenchyma.hu(part, self.values)
                else:
                    tissue = part.appearance.hu(part.region, part.depth)
                blend(hu[part.region.box], part.share, tissue)
            for overlay in self.overlays:
                overlay.paint(hu, slab.single(), depth)
            imaging[slab.start : slab.stop] = self.detector.expose(hu)
            labels[slab.start : slab.stop] = label_slab(parts, slab.shape)
        return imaging, labels


class ClinicScene(Scene):
    """The painters of a patient of any clinic: pelvis, arms, metal and what else is rare."""

    trunk_of, pelvis_of = Body, staticmethod(draw_hips)
    bladder_of = staticmethod(draw_bladder_of_any_fill)

    def __init__(self, patient: ClinicPatient, renal: Renal, grid: Grid, rng: Streams) -> None:
        super().__init__(patient, renal, grid, rng)
        more = rng["clinic"]
        for painter in self.painters:
            if isinstance(painter, Spine):
                painter.end = patient.crest + 45
        below, around = draw_below(more, patient), draw_around(more, patient, renal)
        self.painters = [*below, *self.painters, *around]
        self.parenchyma = ClinicParenchyma(rng["scene"], more, renal.kidneys)
        self.overlays = draw_over(more, patient, renal)
