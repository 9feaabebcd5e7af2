"""Reading cases as (z, y, x) arrays, and writing arrays back into a file's own grid."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from kitslib.data.cases.discovery import CaseFiles
from kitslib.data.cases.errors import CaseError, short_name
from kitslib.data.cases.geometry import Geometry, grid_difference
from kitslib.data.cases.nifti import open_volume, write_volume

LabelVersion = Literal["kits19", "kits23", "kits23_folded"]
LABEL_VERSIONS: tuple[LabelVersion, ...] = get_args(LabelVersion)
STEMS = ("imaging", "segmentation")
BACKGROUND, KIDNEY, TUMOR, CYST = 0, 1, 2, 3
INT16_MIN, INT16_MAX = -32768, 32767
_EDGE_BYTES = 1 << 16
ROUNDING = 1e-3  # labels that a float file or a slope has moved by less are whole numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One patient: imaging int16 HU, labels uint8 0..3, both (D, H, W), spacing (z, y, x) in mm."""

    case_id: str
    imaging: np.ndarray | None
    labels: np.ndarray | None
    spacing: tuple[float, float, float]
    geometry: Geometry


def read_imaging(path: Path) -> tuple[np.ndarray, Geometry]:
    """Read CT as int16 HU (D, H, W), C-contiguous; the extra memory is one slab.

    Values are scaled as the header asks, rounded to the nearest integer and clipped to int16.
    Raises CaseError; code `nonfinite` counts NaN and infinite voxels.
    """
    volume, geometry, counts = _read(path, np.int16, to_int16)
    if nonfinite := sum(counts):
        raise nonfinite_error(short_name(Path(path)), nonfinite, volume.size)
    return volume, geometry


def read_labels(path: Path) -> tuple[np.ndarray, Geometry]:
    """Read a label map as uint8 (D, H, W): 0 background, 1 kidney, 2 tumour, 3 cyst.

    Floating-point files are accepted when their values are these integers within 0.001.
    Raises CaseError (code `label_values` names the others).
    """
    volume, geometry, foreign = _read(path, np.uint8, split_labels)
    if any(foreign):
        raise label_values_error(short_name(Path(path)), set().union(*foreign))
    return volume, geometry


def load_case(files: CaseFiles, labels: LabelVersion = "kits19") -> Case:
    """Load a case's CT and labels, whichever of the two exist, on one grid.

    `kits19`: the KiTS19 map; cysts are part of its kidney, marked 3 where a KiTS23 map beside it
    says so. `kits23`: the KiTS23 map. `kits23_folded`: the KiTS23 map with cysts as kidney.
    Raises CaseError: no file, no labels of this version, or CT and labels on different grids.
    """
    case_id = files.case_id
    imaging, own = read_imaging(files.imaging) if files.imaging else (None, None)
    truth, truth_geometry = _load_labels(files, labels)
    geometry = own or truth_geometry
    if geometry is None:
        text = "expected imaging.nii.gz or segmentation.nii.gz, found neither; fetch the case"
        raise CaseError(f"{case_id}: {text}", code="missing")
    if own and truth_geometry:
        require_same_grid(case_id, own, truth_geometry)
    spacing = geometry.spacing
    return Case(case_id=case_id, imaging=imaging, labels=truth, spacing=spacing, geometry=geometry)


def available_labels(files: CaseFiles) -> tuple[LabelVersion, ...]:
    """The label versions that `load_case` can give for this case; empty for a test case."""
    old, new = files.segmentation, files.segmentation_kits23
    versions: tuple[LabelVersion, ...] = ("kits19",) if old is not None and old != new else ()
    return versions if new is None else (*versions, "kits23", "kits23_folded")


def require_same_grid(
    case_id: str, first: Geometry, second: Geometry, names: Sequence[str] = STEMS
) -> None:
    """Refuse two volumes of one case on different grids: another shape, or a voxel apart.

    Raises CaseError (code `grid_mismatch` or `affine_mismatch`), which calls them by `names`.
    """
    one, other = names
    if first.canonical_shape != second.canonical_shape:
        text = f"expected {one} and {other} of one shape (D, H, W), got {one} "
        text += f"{first.canonical_shape} and {other} {second.canonical_shape}; take both from one "
        text += "release, or resample one onto the other's grid"
        raise CaseError(f"{case_id}: {text}", code="grid_mismatch")
    voxels, apart = grid_difference(first, second)
    if voxels > 1:
        text = f"expected {one} and {other} in one place, got grids up to {apart:.1f} mm apart, "
        text += f"{voxels:.1f} voxels along an axis ({one} {_place(first)}, "
        text += f"{other} {_place(second)}); take both from one release, "
        text += f"or copy the affine of {one} if the voxels do match"
        raise CaseError(f"{case_id}: {text}", code="affine_mismatch")


def write_labels(
    path: Path, labels: np.ndarray, geometry: Geometry | np.ndarray, description: str = ""
) -> None:
    """Write labels (D, H, W) as uint8 in the geometry's own axes, affine, codes and shape.

    geometry: the case's, or the 4x4 affine of a new file such as `canonical_affine`.
    description: for the header, at most 79 ASCII characters. Equal input gives equal bytes.
    Raises CaseError when shape or values do not fit.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "biu" or (array.size and (array.min() < 0 or array.max() > 255)):
        text = f"expected integer labels in 0..255, got {array.dtype} values {array.min()}.."
        text += f"{array.max()}; take the arg max of the network's output first"
        raise CaseError(f"{short_name(Path(path))}: {text}", code="label_values")
    write_volume(path, array.astype(np.uint8, copy=False), geometry, description, level=4)


def write_imaging(
    path: Path, imaging: np.ndarray, geometry: Geometry | np.ndarray, description: str = ""
) -> None:
    """Write CT (D, H, W) as int16 HU in the geometry's own axes; see `write_labels`."""
    array = np.asarray(imaging)
    if array.dtype != np.int16:
        text = f"expected int16 HU, got {array.dtype}; round and clip first"
        raise CaseError(f"{short_name(Path(path))}: {text}", code="dtype")
    write_volume(path, array, geometry, description, level=1)


def fingerprint(path: Path) -> str:
    """32 hex digits of a file's size and content.

    A gzip file's first and last 64 KiB are read, since its checksum is at its end; others whole.
    """
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
    """A slab as uint8 labels, and some of its values that are no label (empty if all are)."""
    low, high = values.min(), values.max()
    if values.dtype.kind in "iu" and low >= BACKGROUND and high <= CYST:
        return values.astype(np.uint8, copy=False), set()
    whole = values
    if values.dtype.kind == "f":
        whole = np.rint(values)
        whole[np.abs(values - whole) > ROUNDING] = np.nan
    known = np.isin(whole, (BACKGROUND, KIDNEY, TUMOR, CYST))
    others = values[~known]
    labels = np.where(known, whole, 0).astype(np.uint8)
    examples = np.unique(others[:: others.size // 4096 + 1])
    return labels, set(examples[:16].astype(float).tolist())


def label_values_error(name: str, foreign: set[float]) -> CaseError:
    """The refusal of a label map with values other than 0..3."""
    shown = ", ".join(f"{value:g}" for value in sorted(foreign)[:8])
    shown += " and more" if len(foreign) > 8 else ""
    text = f"{name}: expected label values 0, 1, 2, 3, got also {shown}; map them to KiTS labels "
    text += "(1 kidney, 2 tumour, 3 cyst), nearest-neighbour if it was resampled"
    return CaseError(text, code="label_values")


def nonfinite_error(name: str, count: int, size: int) -> CaseError:
    """The refusal of imaging with NaN or infinite voxels."""
    text = f"expected finite HU, got NaN or infinity in {count} of {size} voxels; convert from "
    text += "DICOM again, or set the padding to -1024 yourself"
    return CaseError(f"{name}: {text}", code="nonfinite")


def _read(path: Path, dtype: type, convert: Callable) -> tuple[np.ndarray, Geometry, list[Any]]:
    """The volume (D, H, W), its geometry, and what `convert` says of each slab besides."""
    said = []
    with open_volume(Path(path)) as stream:
        volume = np.empty(stream.geometry.canonical_shape, dtype)
        target = stream.geometry.to_file(volume)
        for start, stop, values in stream.slabs():
            target[..., start:stop], besides = convert(values)
            said.append(besides)
    return volume, stream.geometry, said


def to_int16(values: np.ndarray) -> tuple[np.ndarray, int]:
    """A slab rounded and clipped to int16, and its number of NaN or infinite voxels (set to 0)."""
    bad = 0
    if values.dtype.kind == "f":
        bad = values.size - int(np.isfinite(values).sum())
        values = np.rint(np.nan_to_num(values, nan=0, posinf=0, neginf=0))
    if values.min() < INT16_MIN or values.max() > INT16_MAX:
        values = values.clip(INT16_MIN, INT16_MAX)
    return values.astype(np.int16, copy=False), bad


def _load_labels(files: CaseFiles, version: str) -> tuple[np.ndarray | None, Geometry | None]:
    if version not in LABEL_VERSIONS:
        text = f"labels: expected one of {', '.join(LABEL_VERSIONS)}, got {version!r}"
        raise CaseError(text, code="labels")
    available = available_labels(files)
    if not available:
        return None, None
    if version not in available:
        text = f"expected {version!r} labels, its folder has {', '.join(available)}; choose one of "
        text += "these, or put the other release's label map beside the imaging"
        raise CaseError(f"{files.case_id}: {text}", code="label_version")
    path = files.segmentation if version == "kits19" else files.segmentation_kits23
    labels, geometry = read_labels(path)
    if version == "kits23_folded":
        labels[labels == CYST] = KIDNEY
    if version == "kits19" and files.segmentation_kits23 is not None:
        other, other_geometry = read_labels(files.segmentation_kits23)
        names = ("segmentation", "segmentation_kits23")
        require_same_grid(files.case_id, geometry, other_geometry, names)
        for plane, other_plane in zip(labels, other, strict=True):  # by slice: memory stays flat
            plane[(plane == KIDNEY) & (other_plane == CYST)] = CYST
    return labels, geometry


def _place(geometry: Geometry) -> str:
    origin = ", ".join(f"{value:.1f}" for value in geometry.affine[:3, 3])
    return f"{''.join(geometry.axis_codes)} origin ({origin}) spacing {geometry.spacing}"
