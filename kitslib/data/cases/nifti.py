"""One forward pass through a NIfTI file in slabs, and its mirror image: deterministic, atomic writing."""

from __future__ import annotations

import gzip
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from kitslib.data.cases.errors import CaseError, short_name
from kitslib.data.cases.geometry import Geometry

_SLAB_VOXELS = 1 << 21  # 16 MiB of float64: small beside a volume, large beside a read call
_PIECE_BYTES = 1 << 22
_PACKED_BYTES = (
    1 << 20
)  # large, so that threads that inflate at the same time seldom meet at the interpreter
_EXTENSION_BYTES = 1 << 26  # header extensions hold text; more than this is a damaged offset
_DEFLATE_LIMIT = 1100  # deflate never expands a byte to more than 1032
_REDOWNLOAD = "download the file again and compare its size with the source"


@dataclass(kw_only=True)
class VolumeStream:
    """An open NIfTI file whose voxels are read once, front to back."""

    name: str
    geometry: Geometry
    header: nib.Nifti1Header
    dtype: np.dtype
    slope: float
    inter: float
    source: BinaryIO | _Inflating
    crc: int = field(
        default=0
    )  # of the voxel bytes: equal in copies that were compressed differently

    @property
    def scaled(self) -> bool:
        """Whether the header asks for stored value x slope + intercept."""
        return (self.slope, self.inter) != (1.0, 0.0)

    def slabs(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (start, stop, values) along the last file axis; values are scaled, in the file's axes.

        NIfTI stores the first axis fastest, so this order never seeks. The compressed stream is read to its
        very end, so that its checksum has been verified when the loop is over.
        """
        first, second, last = self.geometry.shape[:3]
        step = max(1, _SLAB_VOXELS // (first * second))
        for start in range(0, last, step):
            stop = min(last, start + step)
            raw = self._read(first * second * (stop - start) * self.dtype.itemsize)
            self.crc = zlib.crc32(raw, self.crc)
            values = raw.view(self.dtype).reshape((first, second, stop - start), order="F")
            yield start, stop, values * self.slope + self.inter if self.scaled else values
        while self.source.read(_PIECE_BYTES):
            continue

    def _read(self, size: int) -> np.ndarray:
        buffer = np.empty(size, dtype=np.uint8)
        view, filled = memoryview(buffer), 0
        while filled < size:
            piece = self.source.read(min(_PIECE_BYTES, size - filled))
            if not piece:
                raise EOFError(f"{filled} of {size} bytes of a slab")
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return buffer


class _Inflating:
    """A gzip file's content, read forward in large pieces; a piece may be shorter than asked, b"" is the end.

    Checksums are verified at the end of each member. Raises EOFError or zlib.error.
    """

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._member = zlib.decompressobj(wbits=31)
        self._pending = b""

    def read(self, size: int) -> bytes:
        while True:
            if self._member.eof:
                rest = (self._member.unused_data or self._packed.read(_PACKED_BYTES)).lstrip(b"\0")
                if not rest:
                    return b""
                self._member, self._pending = zlib.decompressobj(wbits=31), rest
            data = self._pending or self._packed.read(_PACKED_BYTES)
            if not data:
                raise EOFError("the gzip stream has no end")
            piece = self._member.decompress(data, size)
            self._pending = self._member.unconsumed_tail
            if piece:
                return piece


@contextmanager
def open_volume(path: Path) -> Iterator[VolumeStream]:
    """Open a NIfTI-1 or -2 file, compressed or not (told by its first bytes, not by its name).

    Raises CaseError with code missing, empty_file, not_nifti, truncated, corrupt, ndim, zero_size, dtype or
    geometry; damage met later, while slabs are read, is translated in the same way.
    """
    name = short_name(path)
    try:
        with _open_bytes(path, name) as source:
            yield _parse(path, name, source)
    except EOFError as error:
        raise CaseError(
            f"{name}: the file ends before the voxels do ({error}); {_REDOWNLOAD}", code="truncated"
        ) from error
    except zlib.error as error:
        raise CaseError(
            f"{name}: the gzip stream is damaged ({error}); {_REDOWNLOAD}", code="corrupt"
        ) from error


def write_volume(
    path: Path, array: np.ndarray, geometry: Geometry, *, description: str, level: int
) -> None:
    """Write a (z, y, x) array in the geometry's own axes, affine, codes and shape; equal input, equal bytes.

    The voxel type is the array's. `.nii.gz` is gzip without time or name; `.nii` is plain. The file appears
    under its name only when complete; a missing folder is made. Raises CaseError (code `shape` or `name`).
    """
    if tuple(array.shape) != geometry.canonical_shape:
        raise CaseError(
            f"{short_name(path)}: expected an array of shape {geometry.canonical_shape} for this geometry, "
            f"got {tuple(array.shape)}; resample it back to the case's grid first",
            code="shape",
        )
    if not path.name.endswith((".nii", ".nii.gz")):
        raise CaseError(
            f"{path}: expected a name that ends in .nii.gz or .nii; rename the output", code="name"
        )
    little = array.dtype.newbyteorder("<")
    header = geometry.export_header(little, description)
    in_file_axes = geometry.to_file(array)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("wb") as raw:
            if path.name.endswith(".gz"):
                with gzip.GzipFile("", "wb", compresslevel=level, fileobj=raw, mtime=0) as packed:
                    _write_slabs(packed, header, in_file_axes, little)
            else:
                _write_slabs(raw, header, in_file_axes, little)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write_slabs(
    sink: BinaryIO, header: nib.Nifti1Header, array: np.ndarray, dtype: np.dtype
) -> None:
    header.write_to(sink)  # includes the four bytes that say "no extension"
    step = max(1, _SLAB_VOXELS // (array.shape[0] * array.shape[1]))
    for start in range(0, array.shape[2], step):
        sink.write(array[..., start : start + step].astype(dtype).tobytes(order="F"))


@contextmanager
def _open_bytes(path: Path, name: str) -> Iterator[BinaryIO | _Inflating]:
    if not path.is_file():
        raise CaseError(
            f"{name}: expected a NIfTI file, found none at {path}; check the path", code="missing"
        )
    with path.open("rb") as raw:
        magic = raw.read(2)
        raw.seek(0)
        if not magic:
            raise CaseError(
                f"{name}: expected a NIfTI file, got 0 bytes; {_REDOWNLOAD}", code="empty_file"
            )
        if magic == b"\x1f\x8b":
            yield _Inflating(raw)
        else:
            yield raw


def _parse(path: Path, name: str, source: BinaryIO | _Inflating) -> VolumeStream:
    header = _read_header(name, source)
    try:
        dtype = header.get_data_dtype()
        shape = tuple(int(n) for n in header.get_data_shape())
        slope, inter = header.get_slope_inter()
        skip = (
            max(int(header.get_data_offset()), header.single_vox_offset)
            - header.template_dtype.itemsize
        )
        if skip > _EXTENSION_BYTES:
            raise ValueError(f"voxels begin {skip} bytes after the header")
    except (nib.spatialimages.HeaderDataError, KeyError, ValueError, OverflowError) as error:
        raise CaseError(
            f"{name}: the NIfTI header is damaged ({error}); {_REDOWNLOAD}", code="corrupt"
        ) from error
    if dtype.kind not in "iuf":
        raise CaseError(
            f"{name}: expected one number per voxel, got voxels of type {dtype}; convert to int16",
            code="dtype",
        )
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise CaseError(
            f"{name}: expected a 3D volume, got shape {shape}; store one volume (z, y, x) in the file",
            code="ndim",
        )
    if min(shape) <= 0:
        raise CaseError(
            f"{name}: expected voxels, got shape {shape}; convert from DICOM again",
            code="zero_size",
        )
    geometry = Geometry.from_header(header, name=name)
    _check_room(path, name, shape, dtype, packed=isinstance(source, _Inflating))
    if len(_up_to(source, skip)) < skip:
        raise EOFError("before the first voxel")
    return VolumeStream(
        name=name,
        geometry=geometry,
        header=header,
        dtype=dtype,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
        source=source,
    )


def _read_header(name: str, source: BinaryIO | _Inflating) -> nib.Nifti1Header:
    block = _up_to(source, 348)
    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    if 540 in sizes:
        kind, block = nib.Nifti2Header, block + _up_to(source, 540 - 348)
        magic = block[4:8]
    else:
        kind, magic = nib.Nifti1Header, block[344:348]
    if not sizes & {348, 540}:
        raise CaseError(
            f"{name}: expected a NIfTI file, got {_what_it_is(block)}", code="not_nifti"
        )
    if len(block) < kind.template_dtype.itemsize:
        raise EOFError("inside the header")
    if magic[:3] not in (b"n+1", b"n+2"):
        raise CaseError(
            f"{name}: expected NIfTI header and voxels in one file, got magic {magic!r} (Analyze, or a "
            ".hdr/.img pair); save it as .nii.gz",
            code="not_nifti",
        )
    return kind(block, check=False)


def _up_to(source: BinaryIO | _Inflating, size: int) -> bytes:
    """This many bytes, or all there are."""
    block = b""
    while len(block) < size and (piece := source.read(size - len(block))):
        block += piece
    return block


def _what_it_is(block: bytes) -> str:
    start = block.lstrip()[:40]
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; run `git lfs pull` in the data folder"
    if start[:1] == b"<":
        return "a web page (a refused download); download the file again while logged in, or from another mirror"
    if block[128:132] == b"DICM":
        return "a DICOM file; convert the series with dcm2niix"
    return f"bytes that begin {block[:8]!r}; {_REDOWNLOAD}"


def _check_room(
    path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, *, packed: bool
) -> None:
    """Refuse before allocating when the file is too small to hold what its header promises."""
    promised = int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
    size = path.stat().st_size
    if promised > size * (_DEFLATE_LIMIT if packed else 1):
        raise CaseError(
            f"{name}: the header promises {promised} bytes of voxels {shape}, the file has {size} bytes"
            f"{' compressed' if packed else ''}; {_REDOWNLOAD}",
            code="truncated",
        )
