"""What one forward pass over a file tells, slab by slab, so that a check needs little memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from kitslib.data.cases.files import BACKGROUND, CYST, KIDNEY, TUMOR, split_labels
from kitslib.data.cases.geometry import Geometry
from kitslib.data.cases.nifti import VolumeStream, open_volume

_POINTS_PER_SLAB = 100_000  # enough for a median; bounds the memory of a file full of labels


@dataclass
class VolumeFacts:
    """What is known of a file after it was read once; `key` is equal for equal voxels."""

    name: str
    geometry: Geometry
    stored_type: str
    zooms: tuple[float, ...]
    qform_only: bool
    low: float = np.inf
    high: float = -np.inf
    nonfinite: int = 0
    whole: bool = True  # all finite values are integers
    key: str = ""

    @classmethod
    def of(cls, stream: VolumeStream) -> Self:
        """The facts of a header."""
        header, geometry = stream.header, stream.geometry
        stored_type, zooms = str(stream.dtype.newbyteorder("=")), header.get_zooms()[:3]
        qform_only = int(header["sform_code"]) <= 0 and not geometry.orientation_assumed
        return cls(stream.name, geometry, stored_type, tuple(map(float, zooms)), qform_only)

    def slabs(self, stream: VolumeStream) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield the stream's slabs and take their range (without NaN and infinities) and key."""
        for start, stop, values in stream.slabs():
            finite = values
            if values.dtype.kind == "f":
                finite = values[np.isfinite(values)]
                self.nonfinite += values.size - finite.size
                self.whole = self.whole and bool((np.rint(finite) == finite).all())
            if finite.size:
                self.low = min(self.low, float(finite.min()))
                self.high = max(self.high, float(finite.max()))
            yield start, stop, values
        shape = "x".join(map(str, self.geometry.shape[:3]))
        self.key = f"{stream.crc:08x}-{shape}-{self.low:g}-{self.high:g}"

    @property
    def can_be_labels(self) -> bool:
        """Whether the values could be a label map: whole numbers from 0 to at most 3."""
        return self.whole and self.nonfinite == 0 and self.low >= BACKGROUND and self.high <= CYST


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
    """A CT: its median HU under kidney and tumour of a label map on the same grid (else None)."""

    kidney_hu: float | None = None
    tumor_hu: float | None = None


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
            if one_grid:
                first, last = np.searchsorted(labels.points, (start * plane, stop * plane))
                flat = values.reshape(-1, order="F")
                under.append(flat[labels.points[first:last] - start * plane].astype(np.float32))
    if one_grid:
        hu = np.concatenate(under)
        facts.kidney_hu = _median(hu[labels.point_labels == KIDNEY])
        facts.tumor_hu = _median(hu[labels.point_labels == TUMOR])
    return facts


def _grid(facts: VolumeFacts) -> tuple:
    return facts.geometry.axis_codes, facts.geometry.shape[:3]


def _median(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None
