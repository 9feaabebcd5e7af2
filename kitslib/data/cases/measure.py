"""What one forward pass over a file tells, slab by slab, so that a check needs little memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from kitslib.data.cases.files import (
    BACKGROUND,
    CYST,
    KIDNEY,
    ROUNDING,
    TUMOR,
    split_labels,
    to_int16,
)
from kitslib.data.cases.geometry import Geometry, affine_difference, unit_mm, usable_affines
from kitslib.data.cases.nifti import VolumeStream, open_volume

_POINTS_PER_SLAB = 100_000  # enough for a median; bounds the memory of a file full of labels


@dataclass
class VolumeFacts:
    """What is known of a file after it was read once; `key` is equal for equal voxels."""

    name: str
    geometry: Geometry
    stored_type: str
    zooms: tuple[float, ...]  # mm
    qform_only: bool
    conflict: str = ""  # between sform and qform
    low: float = np.inf
    high: float = -np.inf
    nonfinite: int = 0
    rounding: float = 0.0  # how far the finite values lie from whole numbers
    key: str = ""

    @classmethod
    def of(cls, stream: VolumeStream) -> Self:
        """The facts of a header."""
        header, geometry = stream.header, stream.geometry
        stored_type, affines = str(stream.dtype.newbyteorder("=")), usable_affines(header)
        zooms = np.array(header.get_zooms()[:3], np.float64) * unit_mm(header)
        facts = cls(stream.name, geometry, stored_type, tuple(zooms), list(affines) == ["qform"])
        if len(affines) == 2:
            voxels, _ = affine_difference(*affines.values(), geometry.shape)
            if voxels > 1:
                facts.conflict = f"sform and qform put a voxel up to {voxels:.3g} voxels apart"
        elif affines and int(header["sform_code"]) > 0 and facts.qform_only:
            facts.conflict = "the sform's axes do not span space, so that the qform is used"
        return facts

    def slabs(self, stream: VolumeStream) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield the stream's slabs and take their range (without NaN and infinities) and key."""
        for start, stop, values in stream.slabs():
            finite = values
            if values.dtype.kind == "f":
                finite = values[np.isfinite(values)]
                self.nonfinite += values.size - finite.size
            if finite.size:
                if values.dtype.kind == "f":
                    off = float(np.abs(np.rint(finite) - finite).max())
                    self.rounding = max(self.rounding, off)
                self.low = min(self.low, float(finite.min()))
                self.high = max(self.high, float(finite.max()))
            yield start, stop, values
        shape = "x".join(map(str, self.geometry.shape[:3]))
        self.key = f"{stream.crc:08x}-{shape}-{self.low:g}-{self.high:g}"

    @property
    def can_be_labels(self) -> bool:
        """Whether the values could be a label map: whole numbers from 0 to at most 3."""
        low, high = self.low >= BACKGROUND - ROUNDING, self.high <= CYST + ROUNDING
        return self.rounding <= ROUNDING and self.nonfinite == 0 and low and high


@dataclass
class LabelFacts(VolumeFacts):
    """A label map: voxels per value, its slices, and where its foreground lies in the file.

    counts[v]: voxels of value v in 0..3. kidney_slices: first and last slice (D) with any label.
    points: flat file positions (first axis fastest, rising) of labelled voxels, thinned evenly
    where a slab has more than 100 000 of them. point_labels: their values.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(4, np.int64))
    foreign: set[float] = field(default_factory=set)
    kidney_slices: tuple[int, int] | None = None
    points: np.ndarray | None = None
    point_labels: np.ndarray | None = None

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volumes in ml of `kidney` (label 1 alone), `tumor` and `cyst`."""
        return self.geometry.volumes_ml(self.counts)


@dataclass
class ImagingFacts(VolumeFacts):
    """A CT: its median HU under kidney and tumour of a label map on the same grid (else None).

    histogram: voxels of each int16 value from -32768, of every fourth row and column.
    """

    kidney_hu: float | None = None
    tumor_hu: float | None = None
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(1 << 16, np.int64))

    def count(self, values: np.ndarray) -> None:
        """Count a slab (in file axes) of int16."""
        step = 4 if min(values.shape[:2]) >= 64 else 1
        thin = values[::step, ::step].astype(np.int32).ravel() + (1 << 15)
        self.histogram += np.bincount(thin, minlength=1 << 16)

    def share(self, low: float, high: float) -> float:
        """Which share of the counted voxels lies from low to high HU."""
        chosen = self.histogram[int(low) + (1 << 15) : int(high) + (1 << 15) + 1]
        return float(chosen.sum()) / max(int(self.histogram.sum()), 1)


def measure_labels(path: Path) -> LabelFacts:
    """Read a label map once; raises CaseError when the file is damaged, never for its values."""
    with open_volume(path) as stream:
        facts = LabelFacts.of(stream)
        points, found, slices = [], [], set()
        shape = facts.geometry.canonical_shape
        depth = np.broadcast_to(np.arange(shape[0])[:, None, None], shape)
        slice_of = facts.geometry.to_file(depth)  # of each voxel, in the file's axes
        plane = facts.geometry.shape[0] * facts.geometry.shape[1]
        for start, stop, values in facts.slabs(stream):
            labels, others = split_labels(values)
            facts.foreign |= others
            flat = labels.reshape(-1, order="F")
            facts.counts += np.bincount(flat, minlength=4)
            slices.update(np.unique(slice_of[..., start:stop][labels > 0]).tolist())
            at = np.flatnonzero(flat)
            at = at[:: at.size // _POINTS_PER_SLAB + 1]
            points.append(at + start * plane)
            found.append(flat[at])
    if slices:
        facts.kidney_slices = (min(slices), max(slices))
    facts.points, facts.point_labels = np.concatenate(points), np.concatenate(found)
    return facts


def measure_imaging(path: Path, labels: LabelFacts | None = None) -> ImagingFacts:
    """Read a CT once, with the HU under labels on the same grid; raises as `measure_labels`."""
    under = []
    with open_volume(path) as stream:
        facts = ImagingFacts.of(stream)
        one_grid = labels is not None and _grid(facts) == _grid(labels)
        plane = facts.geometry.shape[0] * facts.geometry.shape[1]
        for start, stop, values in facts.slabs(stream):
            facts.count(to_int16(values)[0])
            if one_grid:
                first, last = np.searchsorted(labels.points, (start * plane, stop * plane))
                flat = values.reshape(-1, order="F")
                under.append(flat[labels.points[first:last] - start * plane].astype(np.float32))
    if one_grid:
        hu = np.concatenate(under)
        facts.kidney_hu = _median(hu[labels.point_labels == KIDNEY])
        facts.tumor_hu = _median(hu[labels.point_labels == TUMOR])
    return facts


def read_measured(path: Path) -> tuple[np.ndarray, ImagingFacts]:
    """Read a CT as int16 HU (D, H, W), NaN and infinity as 0, with its facts, in one pass."""
    with open_volume(path) as stream:
        facts = ImagingFacts.of(stream)
        volume = np.empty(facts.geometry.canonical_shape, np.int16)
        target = facts.geometry.to_file(volume)
        for start, stop, values in facts.slabs(stream):
            target[..., start:stop], _ = to_int16(values)
            facts.count(target[..., start:stop])
    return volume, facts


def facts_of(name: str, volume: np.ndarray, geometry: Geometry) -> ImagingFacts:
    """The facts of int16 HU (D, H, W) that are in memory already."""
    zooms = tuple(geometry.spacing)
    facts = ImagingFacts(name, geometry, "int16", zooms, qform_only=False)
    facts.low, facts.high = float(volume.min()), float(volume.max())
    for plane in volume:
        facts.count(plane[..., None])
    return facts


def _grid(facts: VolumeFacts) -> tuple:
    return facts.geometry.axis_codes, facts.geometry.shape[:3]


def _median(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None
