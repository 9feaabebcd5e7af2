"""Reading cases as (z, y, x) arrays, and writing arrays back into a file's own grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from kitslib.data.cases.discovery import CaseFiles
from kitslib.data.cases.errors import CaseError, short_name
from kitslib.data.cases.geometry import Geometry, grid_difference
from kitslib.data.cases.nifti import open_volume, write_volume

LabelVersion = Literal["kits19", "kits23", "kits23_folded"]
LABEL_VERSIONS: tuple[LabelVersion, ...] = ("kits19", "kits23", "kits23_folded")
BACKGROUND, KIDNEY, TUMOUR, CYST = 0, 1, 2, 3
INT16_MIN, INT16_MAX = -32768, 32767
_EDGE_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One patient in memory: imaging int16 HU, labels uint8 0..3, both (D, H, W), spacing (z, y, x) in mm."""

    case_id: str
    imaging: np.ndarray | None
    labels: np.ndarray | None
    spacing: tuple[float, float, float]
    geometry: Geometry


def read_imaging(path: Path) -> tuple[np.ndarray, Geometry]:
    """Read CT as int16 HU (D, H, W), C-contiguous; the extra memory is one slab whatever the stored type.

    Values are scaled as the header asks, rounded to the nearest integer and clipped to the int16 range.
    Raises CaseError; code `nonfinite` counts NaN and infinite voxels.
    """
    bad = 0
    with open_volume(Path(path)) as stream:
        volume = np.empty(stream.geometry.canonical_shape, dtype=np.int16)
        target = stream.geometry.to_file(volume)
        for start, stop, values in stream.slabs():
            rounded, missing = _to_int16(values)
            target[..., start:stop] = rounded
            bad += missing
    if bad:
        raise nonfinite_error(stream.name, bad, volume.size)
    return volume, stream.geometry


def read_labels(path: Path) -> tuple[np.ndarray, Geometry]:
    """Read a label map as uint8 (D, H, W) with values 0 background, 1 kidney, 2 tumour, 3 cyst.

    Floating-point files are accepted when their values are these integers. Raises CaseError (`label_values`
    names the others).
    """
    foreign: set[float] = set()
    with open_volume(Path(path)) as stream:
        volume = np.empty(stream.geometry.canonical_shape, dtype=np.uint8)
        target = stream.geometry.to_file(volume)
        for start, stop, values in stream.slabs():
            labels, others = split_labels(values)
            target[..., start:stop] = labels
            foreign |= others
    if foreign:
        raise label_values_error(stream.name, foreign)
    return volume, stream.geometry


def load_case(files: CaseFiles, labels: LabelVersion = "kits19") -> Case:
    """Load a case's CT and labels, whichever of the two exist, on one grid.

    `kits19`: the KiTS19 map; cysts are part of its kidney, marked 3 where a KiTS23 map beside it says so.
    `kits23`: the KiTS23 map. `kits23_folded`: the KiTS23 map with cysts counted as kidney.
    Raises CaseError: no file, no labels of this version, or CT and labels on different grids.
    """
    if files.imaging is None and files.segmentation is None and files.segmentation_kits23 is None:
        raise CaseError(
            f"{files.case_id}: expected imaging.nii.gz or segmentation.nii.gz, found neither; fetch the case",
            code="missing",
        )
    imaging, geometry = (None, None) if files.imaging is None else read_imaging(files.imaging)
    truth, truth_geometry = _load_labels(files, labels)
    if geometry is not None and truth_geometry is not None:
        require_same_grid(files.case_id, geometry, truth_geometry)
    geometry = geometry or truth_geometry
    if geometry is None:
        raise CaseError(
            f"{files.case_id}: no label map; it cannot be loaded without its imaging",
            code="missing",
        )
    return Case(
        case_id=files.case_id,
        imaging=imaging,
        labels=truth,
        spacing=geometry.spacing,
        geometry=geometry,
    )


def available_labels(files: CaseFiles) -> tuple[LabelVersion, ...]:
    """The label versions that `load_case` can give for this case; empty for a test case."""
    versions: tuple[LabelVersion, ...] = ()
    if files.segmentation is not None and files.segmentation != files.segmentation_kits23:
        versions += ("kits19",)
    if files.segmentation_kits23 is not None:
        versions += ("kits23", "kits23_folded")
    return versions


def require_same_grid(
    case_id: str,
    first: Geometry,
    second: Geometry,
    *,
    names: tuple[str, str] = ("imaging", "segmentation"),
) -> None:
    """Refuse two volumes of one case that do not lie on each other: another shape, or over a voxel apart.

    `names` are what the message calls them. Raises CaseError (code `grid_mismatch` or `affine_mismatch`).
    """
    one, other = names
    if first.canonical_shape != second.canonical_shape:
        raise CaseError(
            f"{case_id}: expected {one} and {other} of one shape (D, H, W), got {one} "
            f"{first.canonical_shape} and {other} {second.canonical_shape}; take both from one release, or "
            "resample one onto the other's grid",
            code="grid_mismatch",
        )
    apart = grid_difference(first, second)
    if apart > max(first.spacing):
        raise CaseError(
            f"{case_id}: expected {one} and {other} in one place, got grids up to {apart:.1f} mm apart "
            f"({one} {_place(first)}, {other} {_place(second)}); take both from the same release, or copy "
            f"the affine of {one} if the voxels do match",
            code="affine_mismatch",
        )


def write_labels(
    path: Path, labels: np.ndarray, geometry: Geometry | np.ndarray, description: str = ""
) -> None:
    """Write labels (D, H, W) as uint8 in the geometry's own axes, affine, codes and shape.

    `geometry` is the case's, or the 4x4 affine of a new file in (z, y, x) order such as `canonical_affine`.
    `description` goes into the header (at most 79 ASCII characters). Deterministic bytes, atomic.
    Raises CaseError when shape or values do not fit.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "biu" or (array.size and (array.min() < 0 or array.max() > 255)):
        raise CaseError(
            f"{short_name(Path(path))}: expected integer labels in 0..255, got {array.dtype} values "
            f"{array.min()}..{array.max()}; take the arg max of the network's output first",
            code="label_values",
        )
    array = array.astype(np.uint8, copy=False)
    write_volume(Path(path), array, _as_geometry(geometry, array), description=description, level=4)


def write_imaging(
    path: Path, imaging: np.ndarray, geometry: Geometry | np.ndarray, description: str = ""
) -> None:
    """Write CT (D, H, W) as int16 HU in the geometry's own axes; see `write_labels`."""
    array = np.asarray(imaging)
    if array.dtype != np.int16:
        raise CaseError(
            f"{short_name(Path(path))}: expected int16 HU, got {array.dtype}; round and clip first",
            code="dtype",
        )
    write_volume(Path(path), array, _as_geometry(geometry, array), description=description, level=1)


def fingerprint(path: Path) -> str:
    """A content key of 32 hex digits: size, first and last 64 KiB of a gzip file, whose end has its checksum.

    An uncompressed file has no checksum, so all of it is read.
    """
    path = Path(path)
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as raw:
        head = raw.read(_EDGE_BYTES)
        digest.update(head)
        if head.startswith(b"\x1f\x8b"):
            raw.seek(max(len(head), size - _EDGE_BYTES))
        while piece := raw.read(_EDGE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def split_labels(values: np.ndarray) -> tuple[np.ndarray, set[float]]:
    """A slab as uint8 labels, and some of its values that are no label (empty only where there are none)."""
    low, high = values.min(), values.max()
    if values.dtype.kind in "iu" and low >= BACKGROUND and high <= CYST:
        return values.astype(np.uint8, copy=False), set()
    known = np.isin(values, (BACKGROUND, KIDNEY, TUMOUR, CYST))
    others = values[~known]
    labels = np.where(known, values, 0).astype(np.uint8)
    examples = others[:: others.size // 4096 + 1]
    return labels, {float(value) for value in np.unique(examples)[:16]}


def label_values_error(name: str, foreign: set[float]) -> CaseError:
    """The refusal of a label map with values other than 0..3."""
    shown = ", ".join(f"{value:g}" for value in sorted(foreign)[:8])
    more = " and more" if len(foreign) > 8 else ""
    return CaseError(
        f"{name}: expected label values 0, 1, 2, 3, got also {shown}{more}; "
        "map them to KiTS labels (1 kidney, 2 tumour, 3 cyst), nearest-neighbour if it was resampled",
        code="label_values",
    )


def nonfinite_error(name: str, count: int, size: int) -> CaseError:
    """The refusal of imaging with NaN or infinite voxels."""
    return CaseError(
        f"{name}: expected finite HU, got NaN or infinity in {count} of {size} voxels; "
        "convert from DICOM again, or set the padding to -1024 yourself",
        code="nonfinite",
    )


def _to_int16(values: np.ndarray) -> tuple[np.ndarray, int]:
    """A slab rounded and clipped to int16, and its number of NaN or infinite voxels (set to 0)."""
    low, high, bad = values.min(), values.max(), 0
    if values.dtype.kind == "f":
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = np.isfinite(values)
            bad = int(finite.size - np.count_nonzero(finite))
            values = np.where(finite, values, 0)
            low, high = values.min(), values.max()
        values = np.rint(values)
    if low < INT16_MIN or high > INT16_MAX:
        values = np.clip(values, INT16_MIN, INT16_MAX)
    return values.astype(np.int16, copy=False), bad


def _load_labels(
    files: CaseFiles, version: LabelVersion
) -> tuple[np.ndarray | None, Geometry | None]:
    if version not in LABEL_VERSIONS:
        raise CaseError(
            f"labels: expected one of {', '.join(LABEL_VERSIONS)}, got {version!r}", code="labels"
        )
    available = available_labels(files)
    if not available:
        return None, None
    if version not in available:
        raise CaseError(
            f"{files.case_id}: expected {version!r} labels, its folder has {', '.join(available)}; "
            "choose one of these, or put the other release's label map beside the imaging",
            code="label_version",
        )
    if version == "kits19":
        labels, geometry = read_labels(files.segmentation)
        if files.segmentation_kits23 is not None:
            other, other_geometry = read_labels(files.segmentation_kits23)
            require_same_grid(
                files.case_id,
                geometry,
                other_geometry,
                names=("segmentation", "segmentation_kits23"),
            )
            for plane, other_plane in zip(
                labels, other, strict=True
            ):  # slice by slice, to keep memory flat
                plane[(plane == KIDNEY) & (other_plane == CYST)] = CYST
        return labels, geometry
    labels, geometry = read_labels(files.segmentation_kits23)
    if version == "kits23_folded":
        labels[labels == CYST] = KIDNEY
    return labels, geometry


def _as_geometry(geometry: Geometry | np.ndarray, array: np.ndarray) -> Geometry:
    if isinstance(geometry, Geometry):
        return geometry
    if array.ndim != 3:
        raise CaseError(
            f"expected an array (D, H, W), got shape {array.shape}; write one volume per file",
            code="ndim",
        )
    return Geometry.from_affine(np.asarray(geometry, dtype=np.float64), array.shape)


def _place(geometry: Geometry) -> str:
    origin = ", ".join(f"{value:.1f}" for value in geometry.affine[:3, 3])
    return f"{''.join(geometry.axis_codes)} origin ({origin}) spacing {geometry.spacing}"
