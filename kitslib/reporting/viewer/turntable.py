"""Kidney, tumour and cysts in 3D, rendered in NumPy, behind a slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from scipy import ndimage

from kitslib.reporting.figures.style import NAMES, PALETTE, WORDS
from kitslib.reporting.viewer.slider import Viewer, ViewerError, encoded


def turntable(
    labels: np.ndarray,
    *,
    spacing: Sequence[float],
    views: int = 24,
    title: str = "Kidneys in 3D",
    width: int = 340,
) -> Viewer:
    """Kidney, tumour and cysts of a label map (D, H, W) as shaded surfaces, turning about the body's axis.

    Kidney is translucent where it lies in front of a tumour or cyst. ``spacing`` is (z, y, x) in mm.
    Raises ViewerError when there is nothing to show.
    """
    if not (labels > 0).any():
        raise ViewerError(
            "turntable: expected a label map with kidney, tumour or cyst, got only background"
        )
    surfaces, extent = _surfaces(labels, spacing)
    scale = width / extent[1]
    size = (width, max(1, round(extent[0] * scale)))
    angles = np.arange(views) * 360 / views
    pictures = [
        encoded(_render(surfaces, angle, scale, size), "JPEG", quality=80, optimize=True)
        for angle in angles
    ]
    return Viewer(
        title=title,
        alt=f"{title}: shaded surfaces of {', '.join(WORDS[value] for value in surfaces)}, turning",
        caption=f"{title}. Seen from the front at 0°; drag the slider to turn.",
        frames={"surface": pictures},
        layers={},
        words=[f"{angle:.0f}°" for angle in angles],
        start=0,
        size=size,
        marks=None,
        legend=[(WORDS[value], PALETTE[NAMES[value]]) for value in surfaces],
    )


def _surfaces(
    labels: np.ndarray, spacing: Sequence[float]
) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], tuple[float, float]]:
    """Surface points (mm about the common centre) and outward normals per label; (height, width) to show."""
    box = ndimage.find_objects((labels > 0).astype(np.uint8))[0]
    cut = np.pad(labels[box], 2)
    millimetres = np.array(cut.shape) * np.asarray(spacing, float)
    step = max(1.2, float(millimetres.max()) / 190)
    factors = np.asarray(spacing, float) / step
    surfaces: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for value in NAMES:
        if not (cut == value).any():
            continue
        mask = (cut > 0) if value == 1 else cut == value
        soft = ndimage.zoom(
            mask.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest"
        )
        soft = ndimage.gaussian_filter(soft, 1.2)
        solid = soft > min(0.5, 0.6 * float(soft.max()))
        points = np.argwhere(solid & ~ndimage.binary_erosion(solid))
        slope = np.stack([part[tuple(points.T)] for part in np.gradient(soft)], axis=1)
        normals = -slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)
        surfaces[value] = ((points - (np.array(soft.shape) - 1) / 2) * step, normals)
    reach = 2 * max(
        float(np.hypot(points[:, 1], points[:, 2]).max()) for points, _ in surfaces.values()
    )
    tall = 2 * max(float(np.abs(points[:, 0]).max()) for points, _ in surfaces.values())
    return surfaces, (tall + 10 * step, reach + 10 * step)


def _render(
    surfaces: Mapping[int, tuple[np.ndarray, np.ndarray]],
    angle: float,
    scale: float,
    size: tuple[int, int],
) -> Image.Image:
    """One view: each label drawn with a depth buffer, lesions shining through the kidney in front of them."""
    drawn = {
        value: _draw(*surface, angle, scale, size, PALETTE[NAMES[value]])
        for value, surface in surfaces.items()
    }
    height, width = size[1], size[0]
    picture = np.full((height, width, 3), (17.0, 20.0, 26.0))
    nearest = np.full((height, width), -np.inf)
    if 1 in drawn:
        color, depth = drawn[1]
        seen = np.isfinite(depth)
        picture[seen], nearest = color[seen], depth
    lesion = np.full((height, width), -np.inf)
    for value in (2, 3):
        if value not in drawn:
            continue
        color, depth = drawn[value]
        seen = np.isfinite(depth) & (depth > lesion)
        share = np.where(depth[seen] >= nearest[seen] - 4.0, 1.0, 0.5)[:, None]
        picture[seen] = share * color[seen] + (1 - share) * picture[seen]
        lesion = np.where(seen, depth, lesion)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _draw(
    points: np.ndarray,
    normals: np.ndarray,
    angle: float,
    scale: float,
    size: tuple[int, int],
    color: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Shaded colours (H, W, 3) and depths (H, W), larger nearer, -inf where nothing is, of one surface."""
    turn = np.deg2rad(angle)
    across = points[:, 2] * np.cos(turn) - points[:, 1] * np.sin(turn)
    toward = -(points[:, 2] * np.sin(turn) + points[:, 1] * np.cos(turn))
    facing = -(normals[:, 2] * np.sin(turn) + normals[:, 1] * np.cos(turn))
    side = normals[:, 2] * np.cos(turn) - normals[:, 1] * np.sin(turn)
    light = np.clip(0.8 * facing - 0.35 * side - 0.45 * normals[:, 0], 0, 1)
    spread = max(float(np.ptp(toward)), 1.0)
    shade = (0.42 + 0.85 * light) * (0.72 + 0.28 * (toward - toward.min()) / spread)
    order = np.argsort(toward, kind="stable")
    rows = np.floor(points[order, 0] * scale + size[1] / 2).astype(int)
    columns = np.floor(across[order] * scale + size[0] / 2).astype(int)
    height, width = size[1], size[0]
    bright, depth = np.zeros((height, width)), np.full((height, width), -np.inf)
    reach = int(np.ceil(scale * 1.3)) // 2 + 1
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            r, c = rows + down, columns + right
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            far, near = depth[r[inside], c[inside]], toward[order][inside]
            closer = near > far
            r, c = r[inside][closer], c[inside][closer]
            depth[r, c], bright[r, c] = near[closer], shade[order][inside][closer]
    rgb = 255 * np.array(to_rgb(color))
    return ndimage.gaussian_filter(bright, 0.6)[..., None] * rgb, depth
