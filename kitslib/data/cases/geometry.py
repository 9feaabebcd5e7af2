"""Where a volume lies: the file's own axes and affine, and the exact way to (z, y, x) and back."""

import itertools
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import nibabel as nib
import numpy as np
from nibabel import orientations

from kitslib.data.cases.errors import CaseError

_SILENT = logging.getLogger(f"{__name__}.headers")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
CANONICAL_CODES = "IPL"  # nibabel's convention: the direction in which each index grows
_CANONICAL = orientations.axcodes2ornt(CANONICAL_CODES)
_MM = {"meter": 1000.0, "micron": 1e-3}  # other units are taken for mm
_FREE_TEXT = {"aux_file", "intent_name", "db_name"}  # may carry names or dates of patients


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """A file's grid in its own axes: affine (4x4 float64, mm, RAS+ world) and shape.

    header: as read, so that an export repeats sform, qform, codes and unit to the bit.
    orientation_assumed: the header carries no orientation, and one was taken for the likeliest.
    """

    affine: np.ndarray
    shape: tuple[int, ...]
    header: bytes
    orientation_assumed: bool = False

    @classmethod
    def from_affine(cls, affine: np.ndarray, shape: tuple[int, int, int]) -> Self:
        """The geometry of a new file with this affine (sform code 2, as in KiTS), in file axes."""
        header = nib.Nifti1Header(endianness="<")
        header.set_data_shape(shape)
        header.set_sform(affine, code=2)
        header.set_zooms(np.linalg.norm(np.asarray(affine, np.float64)[:3, :3], axis=0))
        header.set_xyzt_units("mm")
        return cls.from_header(header)

    @classmethod
    def from_header(cls, header: nib.Nifti1Header, *, name: str = "header") -> Self:
        """The geometry of a header: its sform, else its qform, else voxel sizes in a likely order.

        Raises CaseError (code `geometry`) when axes are degenerate or a voxel size is not positive,
        and `corrupt` when no label map can be written with this header.
        """
        affine = next(iter(usable_affines(header).values()), None)
        assumed = affine is None
        if assumed:
            zooms = np.asarray(header.get_zooms()[:3], np.float64)
            if not (np.isfinite(zooms).all() and (zooms > 0).all()):
                text = "expected an affine or positive voxel sizes in the header, got sform code "
                text += f"{header['sform_code']}, qform code {header['qform_code']}, voxel sizes "
                text += f"{zooms.tolist()}; write the spacing into the header, or convert from "
                raise CaseError(f"{name}: {text}DICOM again", code="geometry")
            affine = _likely_affine(zooms, header.get_data_shape())
        affine[:3] *= unit_mm(header)
        affine.setflags(write=False)
        shape, block = tuple(map(int, header.get_data_shape())), header.binaryblock
        made = cls(affine=affine, shape=shape, header=block, orientation_assumed=assumed)
        try:
            made.export_header(np.dtype(np.uint8))
        except (nib.spatialimages.HeaderDataError, ValueError, KeyError, OverflowError) as error:
            text = f"{name}: the NIfTI header is damaged ({error}); download the file again"
            raise CaseError(text, code="corrupt") from error
        return made

    @cached_property
    def _turn(self) -> np.ndarray:
        """From the file's axes to (z, y, x), as nibabel writes orientations."""
        return orientations.ornt_transform(orientations.io_orientation(self.affine), _CANONICAL)

    @property
    def _file_axes(self) -> list[int]:
        """The file axes that become z, y and x."""
        return np.argsort(self._turn[:, 0]).tolist()

    @property
    def axis_codes(self) -> tuple[str, str, str]:
        """The file's own axis codes, `("I", "P", "L")` in KiTS; the nearest where it is oblique."""
        return nib.aff2axcodes(self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (z, y, x) in mm: the affine's column norms as the float32 of a header."""
        norms = np.linalg.norm(self.affine[:3, :3], axis=0).astype(np.float32)
        return tuple(float(str(norms[axis])) for axis in self._file_axes)

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """Shape (D, H, W) after reorientation."""
        return tuple(self.shape[axis] for axis in self._file_axes)

    @property
    def canonical_affine(self) -> np.ndarray:
        """The 4x4 affine of the (z, y, x) array: the same world positions."""
        return self.affine @ orientations.inv_ornt_aff(self._turn, self.shape[:3])

    @property
    def oblique_degrees(self) -> float:
        """The largest angle between a voxel axis and its nearest world axis."""
        columns = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(np.degrees(np.arccos(np.clip(np.abs(columns).max(axis=0), 0, 1)).max()))

    @property
    def sheared(self) -> float:
        """By what share a voxel is smaller than its edges' product: 0 for axes at right angles."""
        columns = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return 1 - abs(float(np.linalg.det(columns)))

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """A view of a (z, y, x) array in the file's axes (flips and transposes, no copy)."""
        own = orientations.io_orientation(self.affine)
        return orientations.apply_orientation(array, orientations.ornt_transform(_CANONICAL, own))

    def volumes_ml(self, counts: Sequence[int] | np.ndarray) -> dict[str, float]:
        """Volumes in ml of `kidney` (label 1 alone), `tumor` and `cyst`, from voxels of 0..3."""
        ml = np.asarray(counts)[1:] * (float(np.prod(self.spacing)) / 1000)
        return dict(zip(("kidney", "tumor", "cyst"), ml.tolist(), strict=True))

    def export_header(self, dtype: np.dtype, description: str = "") -> nib.Nifti1Header:
        """The source's header for a new voxel type: same grid, no scaling and no free text."""
        kind = nib.Nifti1Header if len(self.header) == 348 else nib.Nifti2Header
        header = kind(self.header, check=False)
        header.check_fix(_SILENT, error_level=40)  # a wrong bitpix or qfac is put right
        header = header.as_byteswapped("<")
        header.set_data_dtype(dtype)
        header.set_slope_inter(1, 0)
        header.set_data_offset(0)
        header["cal_min"] = header["cal_max"] = 0
        for field in _FREE_TEXT & set(header):  # NIfTI-2 has fewer
            header[field] = b""
        header["descrip"] = description.encode("ascii", "replace")[:79]
        return header


def canonical_affine(spacing: tuple[float, float, float]) -> np.ndarray:
    """The affine of a KiTS file with this (z, y, x) spacing in mm: axes I, P, L and origin 0."""
    z, y, x = spacing
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -z, -y, -x, 1
    return affine


def grid_difference(first: Geometry, second: Geometry) -> tuple[float, float]:
    """How far apart two equally shaped grids put the same voxel, at the worst of the corners.

    In voxels of the first along its worst axis, and in mm. 0 where a header carries no orientation,
    since then nothing contradicts.
    """
    if first.orientation_assumed or second.orientation_assumed:
        return 0.0, 0.0
    return affine_difference(first.canonical_affine, second.canonical_affine, first.canonical_shape)


def affine_difference(
    first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]
) -> tuple[float, float]:
    """How far apart two affines put a corner: in voxels of the first, at its worst axis, and mm."""
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in shape[:3]], [1])), float).T
    apart = ((second - first) @ corners)[:3]
    voxels = np.linalg.solve(first[:3, :3], apart)
    return float(np.abs(voxels).max()), float(np.linalg.norm(apart, axis=0).max())


def unit_mm(header: nib.Nifti1Header) -> float:
    """Millimetres in a header's unit of length; 1 where it names none or none that there is."""
    with suppress(KeyError):
        return _MM.get(header.get_xyzt_units()[0], 1.0)
    return 1.0


def usable_affines(header: nib.Nifti1Header) -> dict[str, np.ndarray]:
    """The regular ones of `sform` and `qform`, in the header's unit; a code is not enough."""
    found = {}
    for name, read in (("sform", header.get_sform), ("qform", header.get_qform)):
        if int(header[f"{name}_code"]) <= 0:
            continue
        with suppress(nib.spatialimages.HeaderDataError, ValueError), np.errstate(all="ignore"):
            affine = np.asarray(read(), np.float64)
            norms = np.linalg.norm(affine[:3, :3], axis=0)
            sound = np.isfinite(affine).all() and np.isfinite(norms).all() and (norms > 0).all()
            if sound and abs(np.linalg.det(affine[:3, :3] / norms)) > 1e-3:  # axes span space
                found[name] = affine
    return found


def _likely_affine(zooms: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine of voxel sizes alone: KiTS' axes I, P, L, or L, P, S of arrays (x, y, z).

    The two axes of a slice are those of one voxel size or, failing that, of one length.
    """
    for sizes in (zooms, np.array(shape[:3], np.float64)):
        first, last = abs(np.log(sizes[1] / sizes[2])), abs(np.log(sizes[0] / sizes[1]))
        if abs(first - last) > 1e-3:  # slices are counted by the first axis, or by the last
            break
    if last < first:
        return np.diag([-zooms[0], -zooms[1], zooms[2], 1.0])
    return canonical_affine(tuple(zooms))
