"""Voxel grids and the way between two of them.

Every grid of a case is described against the same corner: the outer corner of the scan's first
voxel. The centre of voxel i of a grid is at ``origin + (i + 0.5) * spacing`` mm from there, so
grids of different spacing share their outer faces, not their first voxel centres.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Triple = tuple[float, float, float]
Box = tuple[slice, ...]

SNAP = 1e-6  # voxels; positions nearer than this to a voxel centre are that centre


class TransformError(ValueError):
    """A volume, mask or setting that a transform cannot work with."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A regular voxel grid.

    shape: (D, H, W). spacing: (z, y, x) mm. origin: (z, y, x) mm from the scan's outer corner.
    Raises TransformError for impossible ones, naming the field.
    """

    shape: tuple[int, int, int]
    spacing: Triple
    origin: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        for name, kind, least, words in (
            ("shape", int, 1, "three whole numbers of at least 1"),
            ("spacing", float, np.nextafter(0, 1), "three positive lengths in mm (z, y, x)"),
            ("origin", float, -np.inf, "three lengths in mm (z, y, x)"),
        ):
            given = tuple(getattr(self, name))
            values = np.array(given, float)
            right = np.isfinite(values) & (values >= least) & (values == values.astype(kind))
            if len(given) != 3 or not right.all():
                raise TransformError(f"Grid.{name} must be {words}, got {given}")
            object.__setattr__(self, name, tuple(values.astype(kind).tolist()))

    def crop(self, box: Box) -> Grid:
        """The part of this grid inside `box`, three slices with bounds inside the shape."""
        start, stop = np.array([(part.start, part.stop) for part in box]).T
        origin = np.array(self.origin) + start * self.spacing
        return Grid(shape=tuple(stop - start), spacing=self.spacing, origin=tuple(origin))

    def respaced(self, spacing: Triple) -> Grid:
        """The grid of another spacing with the same corner, just large enough for this one."""
        extent = np.array(self.shape) * self.spacing
        shape = np.ceil(extent / spacing - SNAP).clip(min=1)
        return Grid(shape=tuple(shape), spacing=spacing, origin=self.origin)

    def inside(self, other: Grid) -> Box:
        """Which of this grid's voxels have their centre in the faces of `other` (possibly none)."""
        near = np.array(other.origin)
        faces = np.stack([near, near + np.array(other.shape) * other.spacing])
        bounds = np.ceil((faces - self.origin) / self.spacing - 0.5 - SNAP)
        bounds = bounds.clip(0, self.shape).astype(int).tolist()
        return tuple(map(slice, *bounds))

    def to_json(self) -> dict[str, list[float]]:
        """Plain lists, as `from_json` reads them."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Grid:
        """The grid that `to_json` described."""
        return cls(shape=entry["shape"], spacing=entry["spacing"], origin=entry["origin"])


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A scan's own grid and the grid that a stage works on: all that the inverse needs."""

    native: Grid
    stage: Grid
    within: Box | None = None  # of the native grid: the only part that the stage's grid was read of

    @property
    def box(self) -> Box:
        """What the stage sees of the native grid."""
        box = self.native.inside(self.stage)
        if self.within is None:
            return box
        pairs = zip(box, self.within, strict=True)
        return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs)

    def boxed(self) -> Mapping:
        """Return the mapping whose native grid is the box alone."""
        return Mapping(native=self.native.crop(self.box), stage=self.stage)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, as `from_json` reads them."""
        plain: dict[str, Any] = {"native": self.native.to_json(), "stage": self.stage.to_json()}
        if self.within is not None:
            plain["within"] = [[part.start, part.stop] for part in self.within]
        return plain

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Mapping:
        """The mapping that `to_json` described."""
        grids = {name: Grid.from_json(entry[name]) for name in ("native", "stage")}
        within = entry.get("within")
        return cls(**grids, within=within and tuple(slice(*part) for part in within))
