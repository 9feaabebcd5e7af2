"""One synthetic case: from (seed, index, parameters) to imaging and labels, or to the CT of a given map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kitslib.phantom.given import Given, given_frame
from kitslib.phantom.lesions import Cysts
from kitslib.phantom.organs import Solid, draw_viscera
from kitslib.phantom.patient import Patient, Trunk, draw_patient
from kitslib.phantom.population import draw_ranks, draw_renal
from kitslib.phantom.renal import Renal, label_slab
from kitslib.phantom.scanner import (
    Detector,
    Protocol,
    draw_parenchyma,
    draw_protocol,
    paint_kidney,
    paint_lesion,
)
from kitslib.phantom.shapes import Grid, Slab, blend, cover, draw_field, spline
from kitslib.phantom.skeleton import draw_muscles, draw_pelvis, draw_ribs, draw_spine, draw_vessels

THINNEST_MM = 2.5
STREAMS = ("protocol", "patient", "renal", "scene", "detector", "record")


def streams(seed: int, index: int) -> dict[str, np.random.Generator]:
    """Independent generators of one case, from (seed, index) alone."""
    children = np.random.SeedSequence((seed, index)).spawn(len(STREAMS))
    return {
        name: np.random.default_rng(child) for name, child in zip(STREAMS, children, strict=True)
    }


def draw_case(
    index: int,
    *,
    seed: int,
    matrix: int = 512,
    spacing_z: tuple[float, ...] | None = None,
    cysts: Cysts = "typical",
) -> tuple[Protocol, Patient, Renal, Grid, dict[str, np.random.Generator]]:
    """Everything about a case but its voxels."""
    rng, ranks = streams(seed, index), draw_ranks(seed, index)
    protocol = draw_protocol(rng["protocol"], ranks, matrix, spacing_z)
    patient = draw_patient(rng["patient"], protocol.field_of_view, protocol.size)
    renal = draw_renal(
        rng["renal"],
        ranks,
        size=protocol.size,
        cavity=patient.room,
        cysts=cysts,
        hu=patient.values.kidney,
    )
    low, high = renal.bounds
    return protocol, patient.around(low, high), renal, protocol.grid(low[0], high[0]), rng


def render_label_map(
    index: int,
    *,
    seed: int,
    matrix: int = 512,
    spacing_z: tuple[float, ...] | None = None,
    cysts: Cysts = "typical",
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Labels uint8 (D, H, W) and spacing (z, y, x) in mm of a case, as `render_case` gives them, but fast."""
    _, _, renal, grid, _ = draw_case(
        index, seed=seed, matrix=matrix, spacing_z=spacing_z, cysts=cysts
    )
    labels = [
        label_slab(renal.sample(slab), slab.single().shape) for slab in grid.slabs(THINNEST_MM)
    ]
    return np.concatenate(labels), grid.spacing


def render_case(
    index: int,
    *,
    seed: int,
    matrix: int = 512,
    spacing_z: tuple[float, ...] | None = None,
    cysts: Cysts = "typical",
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Imaging int16 HU and labels uint8 0..3, both (D, H, W), and spacing (z, y, x) in mm of one case."""
    _, patient, renal, grid, rng = draw_case(
        index, seed=seed, matrix=matrix, spacing_z=spacing_z, cysts=cysts
    )
    imaging = np.empty(grid.shape, np.int16)
    labels = np.empty(grid.shape, np.uint8)
    scene = Scene(patient, renal, grid, rng)
    for slab in grid.slabs(THINNEST_MM):
        imaging[slab.start : slab.stop], labels[slab.start : slab.stop] = scene.render(slab)
    return imaging, labels, grid.spacing


def render_labels(
    labels: np.ndarray, spacing: tuple[float, float, float], *, seed: int, index: int
) -> np.ndarray:
    """Imaging int16 HU (D, H, W) for a label map uint8 0..3 of that shape and spacing (z, y, x) in mm.

    The anatomy is placed around the given kidneys. Raises ValueError when the map is not 3-D, has other
    values, or holds no kidney.
    """
    rng = streams(seed, index)
    grid, size = given_frame(labels, spacing, rng["protocol"])
    patient = draw_patient(rng["patient"], min(grid.shape[1], grid.shape[2]) * spacing[1], size)
    given = Given(labels, grid, rng["renal"], patient.values.kidney)
    scene = Scene(patient.around(*given.bounds), given, grid, rng)
    imaging = np.empty(grid.shape, np.int16)
    for slab in grid.slabs(THINNEST_MM):
        imaging[slab.start : slab.stop], _ = scene.render(slab)
    return imaging


class Scene:
    """All painters of one case."""

    def __init__(
        self,
        patient: Patient,
        renal: Renal | Given,
        grid: Grid,
        rng: dict[str, np.random.Generator],
    ) -> None:
        draw = rng["scene"]
        self.patient, self.renal, self.grid = patient, renal, grid
        self.trunk = Trunk(patient, grid, draw)
        self.viscera = self._seen(draw_viscera(draw, patient))
        self.spine = draw_spine(draw, patient)
        self.frame = self._seen(
            draw_muscles(draw, patient) + draw_vessels(draw, patient, renal.hila)
        )
        self.bones = self._seen(draw_ribs(draw, patient) + draw_pelvis(draw, patient))
        self.parenchyma = draw_parenchyma(draw)
        self.capsule_mm = float(draw.choice([draw.uniform(1, 5), draw.uniform(3, 12)]))
        self.capsule = draw_field(draw, 22.0)
        self.near = renal.coarse(grid)
        self.away = ndimage.distance_transform_edt(~self.near.inside, self.near.cell).astype(
            np.float32
        )
        self.detector = Detector(rng["detector"], grid)

    def render(self, slab: Slab) -> tuple[np.ndarray, np.ndarray]:
        """Imaging and labels of the next slab; slabs must come in order."""
        base, depth = self.trunk.paint(slab)
        canvas = np.repeat(base, slab.subs, axis=0)
        self._paint(self.viscera, canvas, slab, depth)
        self._fat(canvas, slab, depth)
        self._paint(self.frame, canvas, slab, depth)
        self.spine.paint(canvas, slab)
        self._paint(self.bones, canvas, slab, depth)
        parts = self.renal.sample(slab)
        hu = canvas.reshape(-1, slab.subs, *canvas.shape[1:]).mean(1, dtype=np.float32)
        for part in parts[0]:
            if part is not None:
                paint_kidney(hu, part, self.patient.values, self.parenchyma)
        for group, looks in zip(
            parts[:0:-1], self.renal.looks[::-1], strict=True
        ):  # cysts, then tumours
            for part, look in zip(group, looks, strict=True):
                if part is not None:
                    paint_lesion(hu, part, look)
        return self.detector.expose(hu), label_slab(parts, hu.shape)

    def _seen(self, solids: list[Solid]) -> list[tuple[float, float, Solid]]:
        """Solids within the scan, with their lowest and highest z in mm."""
        top, bottom = (
            (edge - self.grid.origin[0]) * self.grid.spacing[0] for edge in (-1, self.grid.shape[0])
        )
        spans = [
            (
                float(s.shape.centre[0] - s.shape.reach[0]),
                float(s.shape.centre[0] + s.shape.reach[0]),
                s,
            )
            for s in solids
        ]
        return [span for span in spans if span[1] > top and span[0] < bottom]

    def _paint(
        self,
        solids: list[tuple[float, float, Solid]],
        canvas: np.ndarray,
        slab: Slab,
        depth: np.ndarray,
    ) -> None:
        """Paint the solids that reach a slab, in order."""
        top, bottom = slab.depths[0], slab.depths[-1]
        for low, high, solid in solids:
            if high >= top and low <= bottom:
                solid.paint(canvas, slab, depth)

    def _fat(self, canvas: np.ndarray, slab: Slab, depth: np.ndarray) -> None:
        """Perirenal fat around kidneys and lesions, inside the abdomen."""
        near = self.near
        span = [
            near.origin[a] + near.cell[a] * np.array([0, near.inside.shape[a] - 1])
            for a in range(3)
        ]
        grid = slab.grid
        first, last = np.searchsorted(slab.single().depths, span[0])
        rows, cols = (
            slice(
                max(0, int(span[a][0] / grid.spacing[a] + grid.origin[a]) + 1),
                min(grid.shape[a], max(0, int(span[a][1] / grid.spacing[a] + grid.origin[a]))),
            )
            for a in (1, 2)
        )
        if first >= last or rows.start >= rows.stop or cols.start >= cols.stop:
            return
        window = slab.single().crop(int(first), int(last), rows, cols)
        away = spline(self.away, near.origin, near.cell, window.axes, periodic=False)
        away -= self.capsule_mm * (0.7 + 0.8 * np.tanh(self.capsule(window)))
        share = cover(np.maximum(away, -depth[window.index] - 3), 2.0)
        fine = slice(int(first) * slab.subs, int(last) * slab.subs)
        blend(
            canvas[fine, rows, cols], np.repeat(share, slab.subs, axis=0), self.patient.values.fat
        )
