"""Where a volume lies: the file's own axes and affine, and the exact way to (z, y, x) and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import nibabel as nib
import numpy as np
from nibabel import orientations

from kitslib.data.cases.errors import CaseError

CANONICAL_CODES = ("I", "P", "L")  # nibabel's convention: the direction in which each index grows
_CANONICAL = orientations.axcodes2ornt(CANONICAL_CODES)
_FREE_TEXT = (
    "descrip",
    "aux_file",
    "intent_name",
    "db_name",
)  # may carry names or dates of patients


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """A file's grid: shape and affine in the file's own axes, plus its header for exact export.

    `affine` is 4x4 float64, mm, RAS+ world. `shape` is the file's, before any reorientation.
    `orientation_assumed`: the header carries no orientation at all and KiTS axis order was taken.
    `header` is the NIfTI header block as read, so that an export repeats sform, qform and codes to the bit.
    """

    affine: np.ndarray
    shape: tuple[int, ...]
    header: bytes
    orientation_assumed: bool = False

    @classmethod
    def from_affine(cls, affine: np.ndarray, shape: tuple[int, int, int]) -> Geometry:
        """The geometry of a new file with this affine (sform code 2, as in KiTS) and shape, in file axes."""
        header = nib.Nifti1Header(endianness="<")
        header.set_data_shape(shape)
        header.set_sform(affine, code=2)
        header.set_zooms(np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0))
        header.set_xyzt_units("mm")
        return cls.from_header(header)

    @classmethod
    def from_header(cls, header: nib.Nifti1Header, *, name: str = "header") -> Geometry:
        """The geometry of a NIfTI header: its sform, else its qform, else its voxel sizes in KiTS axis order.

        Raises CaseError (code `geometry`) when the axes are degenerate or a voxel size is not positive.
        """
        shape = tuple(int(n) for n in header.get_data_shape())
        affine = _usable_affine(header)
        assumed = affine is None
        if affine is None:
            zooms = np.asarray(header.get_zooms()[:3], dtype=np.float64)
            if not (np.isfinite(zooms).all() and (zooms > 0).all()):
                raise CaseError(
                    f"{name}: expected an affine or positive voxel sizes in the header, got sform code "
                    f"{int(header['sform_code'])}, qform code {int(header['qform_code'])}, voxel sizes "
                    f"{zooms.tolist()}; write the spacing into the header, or convert from DICOM again",
                    code="geometry",
                )
            affine = canonical_affine(tuple(zooms))
        affine.setflags(write=False)
        return cls(
            affine=affine, shape=shape, header=header.binaryblock, orientation_assumed=assumed
        )

    @cached_property
    def _orientation(self) -> np.ndarray:
        return orientations.io_orientation(self.affine)

    @property
    def axis_codes(self) -> tuple[str, str, str]:
        """The file's own axis codes, `("I", "P", "L")` in KiTS; nearest codes where the affine is oblique."""
        return orientations.ornt2axcodes(self._orientation)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (z, y, x) in mm: the affine's column norms as the float32 that the header can hold."""
        norms = np.linalg.norm(self.affine[:3, :3], axis=0)
        z, y, x = (float(str(np.float32(norms[axis]))) for axis in self._file_axis_of_canonical())
        return z, y, x

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """Shape (D, H, W) after reorientation."""
        depth, height, width = (self.shape[axis] for axis in self._file_axis_of_canonical())
        return depth, height, width

    @property
    def canonical_affine(self) -> np.ndarray:
        """The 4x4 affine of the (z, y, x) array; the same world positions as `affine` in file axes."""
        turn = orientations.ornt_transform(self._orientation, _CANONICAL)
        return self.affine @ orientations.inv_ornt_aff(turn, self.shape[:3])

    @property
    def slice_axis(self) -> int:
        """The file axis that becomes z."""
        return self._file_axis_of_canonical()[0]

    @property
    def slice_axis_flipped(self) -> bool:
        """Whether the file's slices run caudal to cranial, against the canonical order."""
        return self.axis_codes[self.slice_axis] != CANONICAL_CODES[0]

    @property
    def oblique_degrees(self) -> float:
        """The largest angle between a voxel axis and its nearest world axis."""
        columns = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(np.degrees(np.arccos(np.clip(np.abs(columns).max(axis=0), 0, 1)).max()))

    def to_canonical(self, array: np.ndarray) -> np.ndarray:
        """A (z, y, x) view of an array in the file's axes (flips and transposes, no copy)."""
        turn = orientations.ornt_transform(self._orientation, _CANONICAL)
        return orientations.apply_orientation(array.reshape(array.shape[:3]), turn)

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """A view of a (z, y, x) array in the file's axes; the exact inverse of `to_canonical`."""
        turn = orientations.ornt_transform(_CANONICAL, self._orientation)
        return orientations.apply_orientation(array, turn)

    def export_header(self, dtype: np.dtype, description: str = "") -> nib.Nifti1Header:
        """The source's header for a new voxel type: same grid and codes, no scaling, no free text."""
        kind = (
            nib.Nifti2Header
            if len(self.header) == nib.Nifti2Header.sizeof_hdr
            else nib.Nifti1Header
        )
        header = kind(self.header).as_byteswapped("<")
        header.set_data_dtype(dtype)
        header.set_slope_inter(1, 0)
        header.set_data_offset(0)
        header["cal_min"] = header["cal_max"] = 0
        for field in set(_FREE_TEXT) & set(header):  # NIfTI-2 has fewer
            header[field] = b""
        header["descrip"] = description.encode("ascii", "replace")[:79]
        return header

    def _file_axis_of_canonical(self) -> list[int]:
        turn = orientations.ornt_transform(self._orientation, _CANONICAL)
        return [int(np.flatnonzero(turn[:, 0] == axis)[0]) for axis in range(3)]


def canonical_affine(spacing: tuple[float, float, float]) -> np.ndarray:
    """The affine of a KiTS file with this (z, y, x) spacing in mm: axis codes I, P, L and origin 0."""
    z, y, x = spacing
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -z, -y, -x, 1
    return affine


def grid_difference(first: Geometry, second: Geometry) -> float:
    """How far apart (mm) two equally shaped grids put the same voxel, at the worst of the eight corners.

    0 where a header carries no orientation, since then nothing contradicts.
    """
    if first.orientation_assumed or second.orientation_assumed:
        return 0.0
    corners = np.stack(
        np.meshgrid(*[(0, n - 1) for n in first.canonical_shape], indexing="ij"), axis=-1
    )
    index = np.concatenate([corners.reshape(8, 3), np.ones((8, 1))], axis=1)
    apart = (first.canonical_affine - second.canonical_affine) @ index.T
    return float(np.linalg.norm(apart[:3], axis=0).max())


def _usable_affine(header: nib.Nifti1Header) -> np.ndarray | None:
    """The first regular affine among sform and qform, or None; a code above 0 alone does not count."""
    for code, read in (("sform_code", header.get_sform), ("qform_code", header.get_qform)):
        if int(header[code]) <= 0:
            continue
        try:
            affine = np.asarray(read(), dtype=np.float64)
        except (nib.spatialimages.HeaderDataError, ValueError):
            continue
        norms = np.linalg.norm(affine[:3, :3], axis=0)
        if np.isfinite(affine).all() and (norms > 0).all():
            determinant = np.linalg.det(affine[:3, :3] / norms)
            if abs(determinant) > 1e-3:  # the axes span space
                return affine
    return None
