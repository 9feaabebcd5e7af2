"""Kidney, tumour and cysts in 3D, rendered in NumPy, behind a slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from scipy import ndimage

from kitslib.reporting.figures.style import NAMES, PALETTE, WORDS
from kitslib.reporting.viewer.slider import Viewer, ViewerError, encoded

WIDTH = 340  # pixels
GROUND = (17.0, 20.0, 26.0)  # RGB
Surface = tuple[np.ndarray, np.ndarray]  # points (n, 3) in mm about the centre, outward normals


def turntable(
    labels: np.ndarray, *, spacing: Sequence[float], views: int = 24, title: str = "Kidneys in 3D"
) -> Viewer:
    """Kidney, tumour and cysts of a label map (D, H, W) as shaded surfaces that turn upright.

    Kidney is translucent where it lies in front of a tumour or cyst. `spacing` is (z, y, x) in mm.
    Raises ViewerError when there is nothing to show.
    """
    if not (labels > 0).any():
        raise ViewerError("turntable: expected kidney, tumour or cyst, got only background")
    surfaces, (tall, wide) = _surfaces(labels, spacing)
    scale = WIDTH / wide
    size = (WIDTH, max(1, round(tall * scale)))
    angles = np.arange(views) * 360 / views
    pictures = [_render(surfaces, angle, scale, size) for angle in angles]
    return Viewer(
        title=title,
        alt=f"{title}: shaded surfaces of {', '.join(map(WORDS.get, surfaces))}, turning",
        caption=f"{title}. Seen from the front at 0°; drag the slider to turn.",
        frames={"surface": [encoded(one, "JPEG", quality=80, optimize=True) for one in pictures]},
        layers={}, words=[f"{angle:.0f}°" for angle in angles], start=0, size=size, marks=(),
        legend=[(WORDS[value], PALETTE[NAMES[value]]) for value in surfaces],
    )  # fmt: skip


def _surfaces(
    labels: np.ndarray, spacing: Sequence[float]
) -> tuple[dict[int, Surface], tuple[float, float]]:
    """The surface of each label that is there, and (height, width) in mm to show."""
    box = ndimage.find_objects((labels > 0).astype(np.uint8))[0]
    cut = np.pad(labels[box], 2)
    step = max(1.2, float(max(cut.shape * np.asarray(spacing, float))) / 190)
    factors = np.asarray(spacing, float) / step
    surfaces, reach, tall = {}, 0.0, 0.0
    for value in NAMES:
        if not (cut == value).any():
            continue
        soft = (cut > 0 if value == 1 else cut == value).astype(np.float32)
        soft = ndimage.zoom(soft, factors, order=1, grid_mode=True, mode="nearest")
        soft = ndimage.gaussian_filter(soft, 1.2)
        solid = soft > min(0.5, 0.6 * float(soft.max()))
        points = np.argwhere(solid & ~ndimage.binary_erosion(solid))
        slope = np.stack(np.gradient(soft), axis=-1)[tuple(points.T)]
        normals = -slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)
        points = (points - (np.array(soft.shape) - 1) / 2) * step
        surfaces[value] = points, normals
        reach = max(reach, float(np.hypot(points[:, 1], points[:, 2]).max()))
        tall = max(tall, float(np.abs(points[:, 0]).max()))
    return surfaces, (2 * tall + 10 * step, 2 * reach + 10 * step)


def _render(
    surfaces: Mapping[int, Surface], angle: float, scale: float, size: tuple[int, int]
) -> Image.Image:
    """One view; lesions are half seen through the kidney in front of them."""
    shape = size[::-1]
    picture = np.full((*shape, 3), GROUND)
    kidney, lesion = np.full(shape, -np.inf), np.full(shape, -np.inf)
    for value, surface in surfaces.items():  # the kidney first
        color, depth = _draw(*surface, angle, scale, shape, PALETTE[NAMES[value]])
        if value == 1:
            seen = np.isfinite(depth)
            picture[seen], kidney = color[seen], depth
            continue
        seen = np.isfinite(depth) & (depth > lesion)
        share = np.where(depth[seen] >= kidney[seen] - 4.0, 1.0, 0.5)[:, None]
        picture[seen] = share * color[seen] + (1 - share) * picture[seen]
        lesion = np.where(seen, depth, lesion)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _draw(
    points: np.ndarray, normals: np.ndarray, angle: float, scale: float, shape: tuple[int, int],
    color: str,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Shaded colours (H, W, 3) and depths (H, W) of a surface: larger nearer, -inf where empty."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    across = points[:, 2] * cos - points[:, 1] * sin
    toward = -(points[:, 2] * sin + points[:, 1] * cos)
    facing = -(normals[:, 2] * sin + normals[:, 1] * cos)
    side = normals[:, 2] * cos - normals[:, 1] * sin
    light = np.clip(0.8 * facing - 0.35 * side - 0.45 * normals[:, 0], 0, 1)
    spread = max(float(np.ptp(toward)), 1.0)
    shade = (0.42 + 0.85 * light) * (0.72 + 0.28 * (toward - toward.min()) / spread)
    order = np.argsort(toward, kind="stable")
    toward, shade = toward[order], shade[order]
    rows = np.floor(points[order, 0] * scale + shape[0] / 2).astype(int)
    columns = np.floor(across[order] * scale + shape[1] / 2).astype(int)
    bright, depth = np.zeros(shape), np.full(shape, -np.inf)
    reach = int(np.ceil(scale * 1.3)) // 2 + 1
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            r, c = rows + down, columns + right
            inside = (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
            inside[inside] = toward[inside] > depth[r[inside], c[inside]]
            r, c = r[inside], c[inside]
            depth[r, c], bright[r, c] = toward[inside], shade[inside]
    rgb = 255 * np.array(to_rgb(color))
    return ndimage.gaussian_filter(bright, 0.6)[..., None] * rgb, depth
