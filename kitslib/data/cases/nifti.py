"""Reading a NIfTI file once, in slabs, and writing one: equal input, equal bytes."""

import gzip
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib

from kitslib.config import replacing
from kitslib.data.cases.errors import CaseError, short_name
from kitslib.data.cases.geometry import Geometry

_SLAB_VOXELS = 1 << 21  # 16 MiB of float64: small beside a volume, large beside a read call
_EXTENSION_BYTES = 1 << 26  # header extensions hold text; more than this is a damaged offset
_DEFLATE_LIMIT = 1100  # deflate never expands a byte to more than 1032
_REDOWNLOAD = "download the file again and compare its size with the source"


@dataclass
class VolumeStream:
    """An open NIfTI file whose voxels are read once, front to back; crc: of their bytes so far."""

    name: str
    geometry: Geometry
    header: nib.Nifti1Header
    dtype: np.dtype
    scaling: tuple[float, float]  # slope and intercept
    source: BinaryIO
    crc: int = 0

    def slabs(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (start, stop, scaled values) along the last file axis; the end checks the CRC."""
        first, second, last = self.geometry.shape[:3]
        step = max(1, _SLAB_VOXELS // (first * second))
        for start in range(0, last, step):
            stop = min(last, start + step)
            size = first * second * (stop - start) * self.dtype.itemsize
            raw = self.source.read(size)
            if len(raw) < size:
                raise EOFError(f"{len(raw)} of {size} bytes of a slab")
            self.crc = isal_zlib.crc32(raw, self.crc)
            values = np.frombuffer(raw, self.dtype).reshape((first, second, -1), order="F")
            if self.scaling != (1.0, 0.0):
                values = values * self.scaling[0] + self.scaling[1]
            yield start, stop, values
        surplus, plane = 0, first * second * self.dtype.itemsize
        while rest := self.source.read(1 << 20):
            surplus += len(rest)
            if rest.strip(b"\0") or surplus >= plane:  # some writers fill up a block
                text = f"voxels go on after those of the header's shape {self.geometry.shape}"
                raise CaseError(f"{self.name}: {text}; {_REDOWNLOAD}", code="corrupt")


@contextmanager
def open_volume(path: Path) -> Iterator[VolumeStream]:
    """Open a NIfTI-1 or -2 file, compressed or not (told by its first bytes, not by its name).

    Raises CaseError with code missing, empty_file, not_nifti, truncated, corrupt, ndim, zero_size,
    dtype or geometry; damage met later, while slabs are read, is translated in the same way.
    """
    name = short_name(path)
    if not path.is_file():
        found = "a link to nothing" if path.is_symlink() else "none"
        text = f"{name}: expected a NIfTI file, found {found} at {path}; check the path"
        raise CaseError(text, code="missing")
    with path.open("rb") as raw:
        packed = (magic := raw.read(2)) == b"\x1f\x8b"
        raw.seek(0)
        if not magic:
            text = f"{name}: expected a NIfTI file, got 0 bytes; {_REDOWNLOAD}"
            raise CaseError(text, code="empty_file")
        try:
            with igzip.IGzipFile(fileobj=raw) if packed else nullcontext(raw) as source:
                yield _parse(path, name, source, packed=packed)
        except EOFError as error:
            text = f"{name}: the file ends before the voxels do ({error}); {_REDOWNLOAD}"
            raise CaseError(text, code="truncated") from error
        except (isal_zlib.error, gzip.BadGzipFile) as error:
            text = f"{name}: the gzip stream is damaged ({error}); {_REDOWNLOAD}"
            raise CaseError(text, code="corrupt") from error


def write_volume(
    path: Path, array: np.ndarray, geometry: Geometry | np.ndarray, description: str, *, level: int
) -> None:
    """Write a (z, y, x) array of any type in the geometry's own axes, affine, codes and shape.

    geometry: may be the 4x4 affine of a new file. `.nii.gz` is gzip of this level without time or
    name, `.nii` plain; a missing folder is made. The file appears when it is complete.
    Raises CaseError (code `ndim`, `shape` or `name`).
    """
    path = Path(path)
    if not isinstance(geometry, Geometry):
        if array.ndim != 3:
            text = f"expected an array (D, H, W), got shape {array.shape}; write one volume per "
            raise CaseError(f"{text}file", code="ndim")
        geometry = Geometry.from_affine(np.asarray(geometry, np.float64), array.shape)
    if array.shape != geometry.canonical_shape:
        text = f"expected an array of shape {geometry.canonical_shape} for this geometry, got "
        text += f"{array.shape}; resample it back to the case's grid first"
        raise CaseError(f"{short_name(path)}: {text}", code="shape")
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        text = f"{path}: expected a name that ends in .nii.gz or .nii; rename the output"
        raise CaseError(text, code="name")
    with replacing(path) as part, part.open("wb") as raw, ExitStack() as stack:
        if path.name.lower().endswith(".gz"):
            raw = stack.enter_context(gzip.GzipFile("", "wb", level, raw, mtime=0))
        _write_slabs(raw, array, geometry, description)


def _write_slabs(sink: BinaryIO, volume: np.ndarray, geometry: Geometry, description: str) -> None:
    dtype, array = volume.dtype.newbyteorder("<"), geometry.to_file(volume)
    header = geometry.export_header(dtype, description)
    header.write_to(sink)  # includes the four bytes that say "no extension"
    step = max(1, _SLAB_VOXELS // (array.shape[0] * array.shape[1]))
    for start in range(0, array.shape[2], step):
        sink.write(array[..., start : start + step].astype(dtype).tobytes(order="F"))


def _parse(path: Path, name: str, source: BinaryIO, *, packed: bool) -> VolumeStream:
    header = _read_header(name, source)
    try:
        dtype = header.get_data_dtype()
        shape = tuple(int(n) for n in header.get_data_shape())
        slope, inter = header.get_slope_inter()
        offset = max(int(header.get_data_offset()), header.single_vox_offset)
        skip = offset - header.template_dtype.itemsize
        if skip > _EXTENSION_BYTES:
            raise ValueError(f"voxels begin {skip} bytes after the header")
    except (nib.spatialimages.HeaderDataError, KeyError, ValueError, OverflowError) as error:
        text = f"{name}: the NIfTI header is damaged ({error}); {_REDOWNLOAD}"
        raise CaseError(text, code="corrupt") from error
    if dtype.kind not in "iuf":
        text = f"expected one number per voxel, got voxels of type {dtype}; convert to int16"
        raise CaseError(f"{name}: {text}", code="dtype")
    if len(shape) < 3 or set(shape[3:]) - {1}:
        text = f"expected a 3D volume, got shape {shape}; store one volume (z, y, x) in the file"
        raise CaseError(f"{name}: {text}", code="ndim")
    if min(shape) <= 0:
        text = f"{name}: expected voxels, got shape {shape}; convert from DICOM again"
        raise CaseError(text, code="zero_size")
    geometry = Geometry.from_header(header, name=name)
    promised = int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
    size, limit = path.stat().st_size, _DEFLATE_LIMIT if packed else 1
    if promised > size * limit:  # refused before memory is allocated
        text = f"the header promises {promised} bytes of voxels {shape}, the file has {size} bytes"
        packing = " compressed" if packed else ""
        raise CaseError(f"{name}: {text}{packing}; {_REDOWNLOAD}", code="truncated")
    if len(source.read(skip)) < skip:
        raise EOFError("before the first voxel")
    scaling = (float(slope or 1), float(inter or 0))
    return VolumeStream(name, geometry, header, dtype, scaling, source)


def _read_header(name: str, source: BinaryIO) -> nib.Nifti1Header:
    kind, block = nib.Nifti1Header, source.read(348)
    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    magic = block[344:348]
    if 540 in sizes:
        kind, block = nib.Nifti2Header, block + source.read(540 - 348)
        magic = block[4:8]
    if not sizes & {348, 540}:
        raise CaseError(f"{name}: expected a NIfTI file, got {_content(block)}", code="not_nifti")
    if len(block) < kind.template_dtype.itemsize:
        raise EOFError("inside the header")
    if magic[:3] not in (b"n+1", b"n+2"):
        text = f"expected NIfTI header and voxels in one file, got magic {magic!r} (Analyze, or a "
        raise CaseError(f"{name}: {text}.hdr/.img pair); save it as .nii.gz", code="not_nifti")
    return kind(block, check=False)


def _content(block: bytes) -> str:
    """What a file that is not NIfTI holds, by its first bytes, and what to do."""
    start = block.lstrip()[:40]
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer; run `git lfs pull` in the data folder"
    if start[:1] == b"<":
        return "a web page (a refused download); log in and download again, or use another mirror"
    if block[128:132] == b"DICM":
        return "a DICOM file; convert the series with dcm2niix"
    return f"bytes that begin {block[:8]!r}; {_REDOWNLOAD}"
