"""What one forward pass over a file tells, slab by slab, so that checking needs no room for a volume."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kitslib.data.cases.files import BACKGROUND, CYST, split_labels
from kitslib.data.cases.geometry import Geometry
from kitslib.data.cases.nifti import VolumeStream, open_volume

_POINTS_PER_SLAB = (
    100_000  # enough for a median, and a bound on memory when a file is all foreground
)


@dataclass(kw_only=True)
class VolumeFacts:
    """What is known of a file after it was read once; `key` is equal for equal voxels."""

    name: str
    geometry: Geometry
    stored_type: str
    zooms: tuple[float, ...]
    form: str  # sform, qform or none
    low: float = np.inf
    high: float = -np.inf
    nonfinite: int = 0
    whole: bool = True  # all finite values are integers
    key: str = ""

    @property
    def looks_like_labels(self) -> bool:
        """Whether the values could be a label map: whole numbers from 0 to at most 3."""
        return self.whole and self.nonfinite == 0 and self.low >= BACKGROUND and self.high <= CYST

    @property
    def looks_like_ct(self) -> bool:
        """Whether the values could be HU: negative ones, and a range far beyond any label map."""
        return self.low < 0 and self.high - self.low > 200


@dataclass(kw_only=True)
class LabelFacts(VolumeFacts):
    """A label map: voxels per value, the kidney's slices, and where its foreground lies in the file.

    `counts[v]` voxels have value v in 0..3. `kidney_slices` are the first and last slice (D) with any label.
    `points` are flat file positions (first axis fastest, rising) of labelled voxels, thinned evenly where a
    slab has more than 100 000 of them; `point_labels` are their values.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(4, dtype=np.int64))
    foreign: set[float] = field(default_factory=set)
    kidney_slices: tuple[int, int] | None = None
    points: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    point_labels: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volumes of kidney (label 1), tumour and cyst in ml."""
        voxel_ml = float(np.prod(self.geometry.spacing)) / 1000
        return {
            name: float(self.counts[value] * voxel_ml)
            for value, name in ((1, "kidney"), (2, "tumor"), (3, "cyst"))
        }


@dataclass(kw_only=True)
class ImagingFacts(VolumeFacts):
    """A CT: its median HU under kidney and tumour of a label map on the same file grid (else None)."""

    kidney_hu: float | None = None
    tumor_hu: float | None = None


def measure_labels(path: Path) -> LabelFacts:
    """Read a label map once; raises CaseError when the file itself is damaged, never for its values."""
    points: list[np.ndarray] = []
    values_at: list[np.ndarray] = []
    with open_volume(path) as stream:
        facts = LabelFacts(**_header_facts(stream))
        axis = facts.geometry.slice_axis
        profile = np.zeros(facts.geometry.shape[axis], dtype=bool)
        plane = facts.geometry.shape[0] * facts.geometry.shape[1]
        for start, stop, values in stream.slabs():
            _take_range(facts, values)
            labels, others = split_labels(values)
            facts.foreign |= others
            facts.counts[BACKGROUND] += labels.size
            if not labels.any():
                continue
            _mark_slices(profile, axis, start, stop, labels)
            flat = labels.reshape(-1, order="F")
            at = np.flatnonzero(flat)
            facts.counts += np.bincount(flat[at], minlength=4)
            facts.counts[BACKGROUND] -= at.size
            at = at[:: at.size // _POINTS_PER_SLAB + 1]
            points.append(at + start * plane)
            values_at.append(flat[at])
    slices = np.flatnonzero(profile[::-1] if facts.geometry.slice_axis_flipped else profile)
    facts.kidney_slices = (int(slices[0]), int(slices[-1])) if slices.size else None
    if points:
        facts.points, facts.point_labels = np.concatenate(points), np.concatenate(values_at)
    facts.key = _key(facts, stream)
    return facts


def measure_imaging(path: Path, labels: LabelFacts | None = None) -> ImagingFacts:
    """Read a CT once, with the HU under `labels` where both share one grid; raises as `measure_labels`."""
    under: list[np.ndarray] = []
    with open_volume(path) as stream:
        facts = ImagingFacts(**_header_facts(stream))
        points = labels.points if labels is not None and _same_file_grid(facts, labels) else None
        plane = facts.geometry.shape[0] * facts.geometry.shape[1]
        for start, stop, values in stream.slabs():
            _take_range(facts, values)
            if points is not None:
                first, last = np.searchsorted(points, (start * plane, stop * plane))
                flat = values.reshape(-1, order="F")
                under.append(flat[points[first:last] - start * plane].astype(np.float32))
    if under and labels is not None:
        hu = np.concatenate(under)
        facts.kidney_hu = _median(hu[labels.point_labels == 1])
        facts.tumor_hu = _median(hu[labels.point_labels == 2])
    facts.key = _key(facts, stream)
    return facts


def _header_facts(stream: VolumeStream) -> dict:
    form = "sform" if int(stream.header["sform_code"]) > 0 else "qform"
    return {
        "name": stream.name,
        "geometry": stream.geometry,
        "stored_type": str(stream.dtype.newbyteorder("=")),
        "zooms": tuple(float(zoom) for zoom in stream.header.get_zooms()[:3]),
        "form": "none" if stream.geometry.orientation_assumed else form,
    }


def _take_range(facts: VolumeFacts, values: np.ndarray) -> None:
    """Widen the range by a slab; NaN and infinities are counted and left out."""
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            facts.nonfinite += int(finite.size - np.count_nonzero(finite))
            values = values[finite]
        if facts.whole:
            facts.whole = bool((np.rint(values) == values).all())
    if values.size:
        facts.low, facts.high = (
            min(facts.low, float(values.min())),
            max(facts.high, float(values.max())),
        )


def _mark_slices(profile: np.ndarray, axis: int, start: int, stop: int, labels: np.ndarray) -> None:
    """Mark the slices, along the file axis that is z, which hold any label in this slab."""
    present = labels.any(axis=tuple(other for other in range(3) if other != axis))
    if axis == 2:
        profile[start:stop] |= present
    else:
        profile |= present


def _same_file_grid(imaging: VolumeFacts, labels: VolumeFacts) -> bool:
    same_axes = imaging.geometry.axis_codes == labels.geometry.axis_codes
    return same_axes and imaging.geometry.shape[:3] == labels.geometry.shape[:3]


def _median(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None


def _key(facts: VolumeFacts, stream: VolumeStream) -> str:
    shape = "x".join(str(n) for n in facts.geometry.shape[:3])
    return f"{stream.crc:08x}-{shape}-{facts.low:g}-{facts.high:g}"
