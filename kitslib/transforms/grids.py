"""Voxel grids and the way between two of them.

Every grid of a case is described against the same corner: the outer corner of the scan's first voxel. The
centre of voxel i of a grid is at ``origin + (i + 0.5) * spacing`` mm from there, so grids of different
spacing share their outer faces, not their first voxel centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Triple = tuple[float, float, float]
Box = tuple[slice, slice, slice]

SNAP = 1e-6  # voxels; positions nearer than this to a voxel centre are that centre


class TransformError(ValueError):
    """A volume, mask or setting that a transform cannot work with."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A regular voxel grid.

    shape: (D, H, W). spacing: (z, y, x) mm. origin: (z, y, x) mm from the scan's outer corner to this grid's.
    """

    shape: tuple[int, int, int]
    spacing: Triple
    origin: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        shape, spacing, origin = tuple(self.shape), tuple(self.spacing), tuple(self.origin)
        if len(shape) != 3 or not all(n >= 1 and n == int(n) for n in shape):
            raise TransformError(
                f"Grid.shape must be three whole numbers of at least 1, got {shape}"
            )
        if len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
            raise TransformError(
                f"Grid.spacing must be three positive lengths in mm (z, y, x), got {spacing}"
            )
        if len(origin) != 3 or not all(math.isfinite(o) for o in origin):
            raise TransformError(f"Grid.origin must be three lengths in mm (z, y, x), got {origin}")
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))
        object.__setattr__(self, "spacing", tuple(float(s) for s in spacing))
        object.__setattr__(self, "origin", tuple(float(o) for o in origin))

    def crop(self, box: Box) -> Grid:
        """The part of this grid inside `box`, three slices with whole-number bounds inside the shape."""
        return Grid(
            shape=tuple(part.stop - part.start for part in box),
            spacing=self.spacing,
            origin=tuple(
                o + part.start * s
                for o, part, s in zip(self.origin, box, self.spacing, strict=True)
            ),
        )

    def respaced(self, spacing: Triple) -> Grid:
        """The grid of another spacing with the same outer corner, just large enough to cover this one."""
        extents = (n * s for n, s in zip(self.shape, self.spacing, strict=True))
        shape = (max(1, math.ceil(e / s - SNAP)) for e, s in zip(extents, spacing, strict=True))
        return Grid(shape=tuple(shape), spacing=spacing, origin=self.origin)

    def inside(self, other: Grid) -> Box:
        """Which of this grid's voxels have their centre within the faces of `other` (possibly none)."""
        box = []
        for n, s, o, n2, s2, o2 in zip(
            self.shape,
            self.spacing,
            self.origin,
            other.shape,
            other.spacing,
            other.origin,
            strict=True,
        ):
            first = math.ceil((o2 - o) / s - 0.5 - SNAP)
            last = math.ceil((o2 + n2 * s2 - o) / s - 0.5 - SNAP)
            start = min(max(first, 0), n)
            box.append(slice(start, min(max(last, start), n)))
        return tuple(box)

    def to_json(self) -> dict[str, list[float]]:
        """Plain lists, as `from_json` reads them."""
        return {
            "shape": list(self.shape),
            "spacing": list(self.spacing),
            "origin": list(self.origin),
        }

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Grid:
        """The grid that `to_json` described."""
        return cls(**{name: tuple(entry[name]) for name in ("shape", "spacing", "origin")})


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A scan's own grid and the grid that a stage works on: all that the inverse needs."""

    native: Grid
    stage: Grid

    def to_json(self) -> dict[str, dict[str, list[float]]]:
        """Plain dictionaries, as `from_json` reads them."""
        return {"native": self.native.to_json(), "stage": self.stage.to_json()}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Mapping:
        """The mapping that `to_json` described."""
        return cls(native=Grid.from_json(entry["native"]), stage=Grid.from_json(entry["stage"]))
