"""Where a volume lies: the file's own axes and affine, and the exact way to (z, y, x) and back."""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import nibabel as nib
import numpy as np
from nibabel import orientations

from kitslib.data.cases.errors import CaseError

CANONICAL_CODES = "IPL"  # nibabel's convention: the direction in which each index grows
_CANONICAL = orientations.axcodes2ornt(CANONICAL_CODES)
_FREE_TEXT = {"aux_file", "intent_name", "db_name"}  # may carry names or dates of patients


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """A file's grid in its own axes: affine (4x4 float64, mm, RAS+ world) and shape.

    header: as read, so that an export repeats sform, qform and codes to the bit.
    orientation_assumed: the header carries no orientation and the axis order of KiTS was taken.
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
        """The geometry of a header: its sform, else its qform, else voxel sizes in KiTS axis order.

        Raises CaseError (code `geometry`) when axes are degenerate or a voxel size is not positive.
        """
        affine = _usable_affine(header)
        assumed = affine is None
        if assumed:
            zooms = np.asarray(header.get_zooms()[:3], np.float64)
            if not (np.isfinite(zooms).all() and (zooms > 0).all()):
                text = "expected an affine or positive voxel sizes in the header, got sform code "
                text += f"{header['sform_code']}, qform code {header['qform_code']}, voxel sizes "
                text += f"{zooms.tolist()}; write the spacing into the header, or convert from "
                raise CaseError(f"{name}: {text}DICOM again", code="geometry")
            affine = canonical_affine(tuple(zooms))
        affine.setflags(write=False)
        shape, block = tuple(map(int, header.get_data_shape())), header.binaryblock
        return cls(affine=affine, shape=shape, header=block, orientation_assumed=assumed)

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
        header = kind(self.header).as_byteswapped("<")
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


def grid_difference(first: Geometry, second: Geometry) -> float:
    """How far apart (mm) two equally shaped grids put the same voxel, at the worst of the corners.

    0 where a header carries no orientation, since then nothing contradicts.
    """
    if first.orientation_assumed or second.orientation_assumed:
        return 0.0
    corners = itertools.product(*[(0, n - 1) for n in first.canonical_shape], [1])
    apart = (first.canonical_affine - second.canonical_affine) @ np.array(list(corners)).T
    return float(np.linalg.norm(apart[:3], axis=0).max())


def _usable_affine(header: nib.Nifti1Header) -> np.ndarray | None:
    """The first regular affine of sform and qform, or None; a code above 0 is not enough."""
    for code, read in (("sform_code", header.get_sform), ("qform_code", header.get_qform)):
        if int(header[code]) <= 0:
            continue
        with suppress(nib.spatialimages.HeaderDataError, ValueError):
            affine = np.asarray(read(), np.float64)
            norms = np.linalg.norm(affine[:3, :3], axis=0)
            sound = np.isfinite(affine).all() and (norms > 0).all()
            if sound and abs(np.linalg.det(affine[:3, :3] / norms)) > 1e-3:  # axes span space
                return affine
    return None
