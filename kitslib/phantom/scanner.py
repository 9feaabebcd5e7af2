"""The scan: its grid and coverage, tissue of kidneys and lesions, blur, correlated noise, quantisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from kitslib.phantom.lesions import Look, lesion_hu
from kitslib.phantom.patient import Values
from kitslib.phantom.population import Ranks
from kitslib.phantom.renal import Part
from kitslib.phantom.shapes import Field, Grid, blend, draw_field

SPACING_Z = (5.0, 3.0, 0.5, 2.5, 1.0, 1.25, 2.0, 4.0, 1.5)  # mm, KiTS19
SPACING_Z_WEIGHT = (86, 39, 31, 23, 18, 5, 4, 2, 2)
PIXEL_MM = (
    (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1),
    (0.56, 0.6566, 0.7183, 0.7812, 0.8681, 0.9766, 1.041),
)
ABOVE_MM = ((0, 0.05, 0.25, 0.5, 0.75, 0.9, 1), (9, 21, 69, 91, 115, 170, 240))  # above the kidneys
BELOW_MM = ((0, 0.02, 0.06, 0.25, 0.48, 0.75, 0.95, 1), (-18, -2, 12, 56, 185, 235, 260, 280))
KITS_MATRIX = 512
THIN_LIMIT_MM = 300.0  # coverage of scans thinner than 1 mm, to bound memory


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Scan parameters that do not depend on the anatomy's extent."""

    spacing: tuple[float, float, float]
    matrix: int
    size: float  # body size quantile that the field of view suits
    offset: tuple[float, float]  # spine's centre from the image's, (y, x) mm
    angle: float
    above: float
    below: float

    @property
    def field_of_view(self) -> float:
        """Width in mm."""
        return self.spacing[1] * self.matrix

    def grid(self, low: float, high: float) -> Grid:
        """The grid that covers z = low..high mm of labelled tissue and the margins around."""
        above, below = self.above, self.below
        if self.spacing[0] < 1:
            shrink = min(1.0, max(THIN_LIMIT_MM - (high - low), 30.0) / (above + below))
            above, below = above * shrink, below * shrink
        first = low - above
        depth = max(8, int(np.ceil((high + below - first) / self.spacing[0])))
        middle = (self.matrix - 1) / 2
        return Grid(
            shape=(depth, self.matrix, self.matrix),
            spacing=self.spacing,
            origin=(
                -first / self.spacing[0],
                middle + self.offset[0] / self.spacing[1],
                middle + self.offset[1] / self.spacing[2],
            ),
            angle=self.angle,
        )


def draw_protocol(
    rng: np.random.Generator, ranks: Ranks, matrix: int, spacing_z: tuple[float, ...] | None
) -> Protocol:
    """Draw spacing, field of view and position as in KiTS; spacing_z restricts the slice distances."""
    rank = ranks.pixel
    pixel = round(float(np.interp(rank, *PIXEL_MM)), 4) * KITS_MATRIX / matrix
    weights = np.array(SPACING_Z_WEIGHT) / sum(SPACING_Z_WEIGHT)
    drawn = ranks.slices
    if spacing_z is None:
        z = SPACING_Z[int(np.searchsorted(np.cumsum(weights), drawn))]
    else:
        z = spacing_z[min(int(drawn * len(spacing_z)), len(spacing_z) - 1)]
    return Protocol(
        spacing=(float(z), pixel, pixel),
        matrix=matrix,
        size=float(np.clip(rank + rng.normal(0, 0.2), 0, 1)),
        offset=(
            float(np.clip(rng.normal(33, 15), -5, 68)),
            float(np.clip(rng.normal(4, 9), -20, 26)),
        ),
        angle=float(np.radians(rng.normal(0, 3.5))),
        above=float(np.interp(ranks.above, *ABOVE_MM)),
        below=float(np.interp(ranks.below, *BELOW_MM)),
    )


@dataclass(frozen=True, kw_only=True)
class Parenchyma:
    """Appearance of the kidneys in one scan."""

    cortex_mm: float
    pyramids: Field
    grain: Field
    amplitude: float


def draw_parenchyma(rng: np.random.Generator) -> Parenchyma:
    """Draw cortex thickness and texture."""
    return Parenchyma(
        cortex_mm=rng.uniform(4.5, 8),
        pyramids=draw_field(rng, rng.uniform(5.5, 8)),
        grain=draw_field(rng, 4.0, 16),
        amplitude=rng.uniform(0, 6),
    )


def paint_kidney(hu: np.ndarray, part: Part, values: Values, look: Parenchyma) -> None:
    """Blend one kidney into HU slices: cortex, medullary pyramids, collecting system."""
    deep = np.clip((part.depth - look.cortex_mm) / 2 + 0.5, 0, 1)
    pyramid = np.clip(0.75 + 1.3 * look.pyramids(part.window), 0, 1)
    tissue = (
        values.cortex - values.medulla * deep * pyramid + look.amplitude * look.grain(part.window)
    )
    if part.pelvis is not None:
        tissue += part.pelvis * (values.pelvis - tissue)
    blend(hu[part.index], part.share, tissue)


def paint_lesion(hu: np.ndarray, part: Part, look: Look) -> None:
    """Blend one tumour or cyst into HU slices."""
    blend(hu[part.index], part.share, lesion_hu(look, part.window, part.depth))


class Detector:
    """Blurs, adds noise and quantises slices in order from cranial to caudal."""

    def __init__(self, rng: np.random.Generator, grid: Grid) -> None:
        self.rng, self.grid = rng, grid
        dz, pixel = grid.spacing[0], grid.spacing[1]
        self.blur = rng.uniform(0.3, 0.75) / pixel  # sigma in pixels
        sigma = float(np.clip(rng.lognormal(np.log(15), 0.38) * (3 / dz) ** 0.2, 8, 30))
        self.memory = float(np.exp(-dz / rng.uniform(0.6, 1.6)))
        self.transfer = _transfer(grid, rng.uniform(0.32, 0.8), rng.uniform(0.4, 1.0)) * np.float32(
            sigma
        )
        self.white: np.ndarray | None = None
        self.outside = self._outside(rng)

    def _outside(self, rng: np.random.Generator) -> tuple[np.ndarray, int] | None:
        """Where and with what the corners outside the scan circle are filled, in a third of the scans."""
        chosen, value = rng.uniform() < 0.35, int(rng.choice([-1024, -2000, -3024]))
        if not chosen:
            return None
        _, rows, cols = self.grid.shape
        y = (np.arange(rows) - (rows - 1) / 2)[:, None] * self.grid.spacing[1]
        x = (np.arange(cols) - (cols - 1) / 2)[None, :] * self.grid.spacing[2]
        return np.hypot(y, x) > 0.5 * max(
            rows * self.grid.spacing[1], cols * self.grid.spacing[2]
        ), value

    def noise(self) -> np.ndarray:
        """Noise of the next slice (H, W) in HU."""
        rows, cols = self.grid.shape[1:]
        fresh = self.rng.standard_normal((rows, cols // 2 + 1, 2), dtype=np.float32).view(
            np.complex64
        )[..., 0]
        if self.white is None:
            self.white = fresh
        else:
            self.white = self.memory * self.white + np.float32(np.sqrt(1 - self.memory**2)) * fresh
        return fft.irfft2(self.white * self.transfer, s=(rows, cols), workers=1)

    def expose(self, hu: np.ndarray) -> np.ndarray:
        """int16 HU of the next slices from their noiseless float32 HU (n, H, W)."""
        if self.blur > 0.15:
            for axis in (1, 2):
                hu = ndimage.gaussian_filter1d(hu, self.blur, axis=axis, truncate=3.0)
        image = np.empty(hu.shape, np.int16)
        for k in range(len(hu)):
            exact = hu[k] + self.noise()
            np.clip(np.rint(exact, out=exact), -1024, 3071, out=exact)
            image[k] = exact
            if self.outside is not None:
                image[k][self.outside[0]] = self.outside[1]
        return image


def _transfer(grid: Grid, cutoff: float, ramp: float) -> np.ndarray:
    """Noise amplitude per spatial frequency (H, W//2+1): a ramp cut by a kernel, one HU rms at KiTS's pixels.

    Larger pixels see only the low frequencies and so less noise.
    """
    _, rows, cols = grid.shape
    fy = fft.fftfreq(rows, grid.spacing[1])[:, None]
    fx = fft.rfftfreq(cols, grid.spacing[2])[None, :]
    shape = _spectrum(np.hypot(fy, fx), cutoff, ramp)
    f = np.linspace(0, 0.64, 400)
    total = (
        2 * np.pi * np.trapezoid(np.square(_spectrum(f, cutoff, ramp)) * f, f)
    )  # power of KiTS's band
    area = grid.spacing[1] * grid.spacing[2]
    # irfft2 of complex unit-variance parts z gives variance sum(2 |t|^2) / (rows cols)^2 over the full plane
    scale = np.sqrt(rows * cols / (2 * area * total))
    return (shape * scale).astype(np.float32)


def _spectrum(frequency: np.ndarray, cutoff: float, ramp: float) -> np.ndarray:
    return (frequency + 0.03) ** (ramp / 2) * np.exp(-np.square(frequency / cutoff))
