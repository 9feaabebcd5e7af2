"""The scan: its grid and coverage, texture of the kidneys, blur, correlated noise, quantisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from scipy import fft, ndimage

from kitslib.phantom.patient import Values
from kitslib.phantom.renal import Part
from kitslib.phantom.shapes import Grid, blend, draw_field

SliceMm = Sequence[float] | None  # slice distances to draw from; None: as in KiTS19
SPACING_Z = (5.0, 3.0, 0.5, 2.5, 1.0, 1.25, 2.0, 4.0, 1.5)  # mm, KiTS19
SPACING_Z_WEIGHT = (86, 39, 31, 23, 18, 5, 4, 2, 2)
PIXEL_RANKS = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
PIXEL_MM = PIXEL_RANKS, (0.56, 0.6566, 0.7183, 0.7812, 0.8681, 0.9766, 1.041)
ABOVE_MM = ((0, 0.05, 0.25, 0.5, 0.75, 0.9, 1), (9, 21, 69, 91, 115, 170, 240))  # above the kidneys
BELOW_MM = ((0, 0.02, 0.06, 0.25, 0.48, 0.75, 0.95, 1), (-18, -2, 12, 56, 185, 235, 260, 280))
KITS_MATRIX = 512
THIN_LIMIT_MM = 300.0  # coverage of scans thinner than 1 mm, to bound memory


class Protocol:
    """Spacing, field of view and position of a scan, drawn as in KiTS.

    ranks: see `population.draw_ranks`. spacing_z restricts the slice distances (mm).
    """

    def __init__(
        self, rng: Generator, ranks: dict[str, float], matrix: int, spacing_z: SliceMm
    ) -> None:
        pixel = round(float(np.interp(ranks["pixel"], *PIXEL_MM)), 4) * KITS_MATRIX / matrix
        if spacing_z is None:
            weights = np.array(SPACING_Z_WEIGHT) / sum(SPACING_Z_WEIGHT)
            z = SPACING_Z[int(np.searchsorted(np.cumsum(weights), ranks["slices"]))]
        else:
            z = spacing_z[min(int(ranks["slices"] * len(spacing_z)), len(spacing_z) - 1)]
        self.spacing, self.matrix = (float(z), pixel, pixel), matrix
        self.field_of_view = pixel * matrix  # mm
        # body size quantile that the field of view suits
        self.size = float(np.clip(ranks["pixel"] + rng.normal(0, 0.2), 0, 1))
        # spine's centre from the image's, (y, x) mm
        self.offset = np.clip(rng.normal([33, 4], [15, 9]), [-5, -20], [68, 26])
        self.angle = float(np.radians(rng.normal(0, 3.5)))
        self.above = float(np.interp(ranks["above"], *ABOVE_MM))
        self.below = float(np.interp(ranks["below"], *BELOW_MM))

    def grid(self, low: float, high: float) -> Grid:
        """The grid that covers z = low..high mm of labelled tissue and the margins around."""
        (dz, dy, dx), above, below = self.spacing, self.above, self.below
        if dz < 1:
            shrink = min(1.0, max(THIN_LIMIT_MM - (high - low), 30.0) / (above + below))
            above, below = above * shrink, below * shrink
        first, middle = low - above, (self.matrix - 1) / 2
        depth = max(8, int(np.ceil((high + below - first) / dz)))
        y, x = self.offset.tolist()
        origin = (-first / dz, middle + y / dy, middle + x / dx)
        return Grid((depth, self.matrix, self.matrix), self.spacing, origin, self.angle)


class Parenchyma:
    """Appearance of the kidneys in one scan: cortex thickness and texture, drawn at random."""

    def __init__(self, rng: Generator) -> None:
        self.cortex_mm = rng.uniform(4.5, 8)
        self.pyramids = draw_field(rng, rng.uniform(5.5, 8))
        self.grain = draw_field(rng, 4.0, 16)
        self.amplitude = rng.uniform(0, 6)  # HU

    def hu(self, part: Part, values: Values) -> np.ndarray:
        """HU of one kidney: cortex, medullary pyramids, collecting system."""
        deep = np.clip((part.depth - self.cortex_mm) / 2 + 0.5, 0, 1)
        pyramid = np.clip(0.75 + 1.3 * self.pyramids(part.region), 0, 1)
        grain = self.amplitude * self.grain(part.region)
        hu = values.cortex - values.medulla * deep * pyramid + grain
        if part.pelvis is not None:
            blend(hu, part.pelvis, values.pelvis if part.urine is None else part.urine)
        return hu


class Detector:
    """Blurs, adds noise and quantises slices in order from cranial to caudal."""

    def __init__(self, rng: Generator, grid: Grid) -> None:
        self.rng, (_, rows, cols), (dz, dy, dx) = rng, grid.shape, grid.spacing
        self.blur = rng.uniform(0.3, 0.75) / dy  # sigma in pixels
        sigma = float(np.clip(rng.lognormal(np.log(15), 0.38) * (3 / dz) ** 0.2, 8, 30))
        self.memory = float(np.exp(-dz / rng.uniform(0.6, 1.6)))
        cutoff, ramp = rng.uniform(0.32, 0.8), rng.uniform(0.4, 1.0)
        self.transfer = _transfer(grid, cutoff, ramp) * np.float32(sigma)
        self.white: np.ndarray | None = None
        # a third of the scans fill the corners outside the scan circle with one value
        filled, self.padding = rng.uniform() < 0.35, int(rng.choice([-1024, -2000, -3024]))
        y = (np.arange(rows) - (rows - 1) / 2)[:, None] * dy
        x = (np.arange(cols) - (cols - 1) / 2) * dx
        self.corners = filled & (np.hypot(y, x) > 0.5 * max(rows * dy, cols * dx))

    def noise(self) -> np.ndarray:
        """Noise of the next slice (H, W) in HU."""
        parts = self.rng.standard_normal((*self.transfer.shape, 2), dtype=np.float32)
        fresh = parts.view(np.complex64)[..., 0]
        if self.white is not None:
            fresh = self.memory * self.white + np.float32(np.sqrt(1 - self.memory**2)) * fresh
        self.white = fresh
        return fft.irfft2(fresh * self.transfer, s=self.corners.shape, workers=1)

    def expose(self, hu: np.ndarray) -> np.ndarray:
        """int16 HU of the next slices from their noiseless float32 HU (n, H, W)."""
        if self.blur > 0.15:
            for axis in (1, 2):
                hu = ndimage.gaussian_filter1d(hu, self.blur, axis=axis, truncate=3.0)
        image = np.empty(hu.shape, np.int16)
        for k in range(len(hu)):
            image[k] = np.clip(np.rint(hu[k] + self.noise()), -1024, 3071)
            image[k][self.corners] = self.padding
        return image


def _transfer(grid: Grid, cutoff: float, ramp: float) -> np.ndarray:
    """Noise amplitude per spatial frequency (H, W//2+1), one HU rms at KiTS's pixels.

    A ramp cut by a kernel. Larger pixels see only the low frequencies and so less noise.
    """
    (_, rows, cols), (_, dy, dx) = grid.shape, grid.spacing
    frequency = np.hypot(fft.fftfreq(rows, dy)[:, None], fft.rfftfreq(cols, dx))
    f = np.linspace(0, 0.64, 400)
    power = 2 * np.pi * np.trapezoid(np.square(_spectrum(f, cutoff, ramp)) * f, f)  # KiTS's band
    # irfft2 of complex unit-variance parts has variance sum(2 |spectrum|^2) / (rows cols)^2
    scale = np.sqrt(rows * cols / (2 * (dy * dx) * power))
    return (_spectrum(frequency, cutoff, ramp) * scale).astype(np.float32)


def _spectrum(frequency: np.ndarray, cutoff: float, ramp: float) -> np.ndarray:
    """Relative noise amplitude at frequencies in 1/mm."""
    return (frequency + 0.03) ** (ramp / 2) * np.exp(-np.square(frequency / cutoff))
