"""DICOM files as CT slices: what a file's header says, whoever wrote it, and its HU."""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from kitslib.data.cases.errors import CaseError, short_name
from kitslib.data.cases.files import INT16_MAX, INT16_MIN

CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1")  # also multi-frame
PLACE = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
RESCALE = ("RescaleSlope", "RescaleIntercept")
NAMES = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber")
GROUPS = {  # of a multi-frame file, with what each holds of a frame
    "PlanePositionSequence": PLACE[4:], "PlaneOrientationSequence": PLACE[3:4],
    "PixelMeasuresSequence": PLACE[2:3], "PixelValueTransformationSequence": RESCALE,
}  # fmt: skip
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
WANTED = [*NAMES, *PLACE, *RESCALE, "Modality", "ImageType", "NumberOfFrames", SHARED, PER_FRAME]
SLOPES = (1e-3, 100.0)  # HU per stored value; scanners write 1
AIR = -1024  # HU of what the scanner marked as outside its circle
NATIVE = {  # without a transfer syntax: by implicit VR and little endian
    (True, True): ImplicitVRLittleEndian, (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """One CT slice by its header; lengths in mm, directions and places in LPS.

    uid: SOP instance, "" where an anonymiser took it. frame: of a multi-frame file, else None.
    position: of the first pixel. row, column: unit vectors along a row and down a column.
    pixel: between rows and between columns. shape: rows and columns.
    rescale: slope and intercept to HU, None where the header has none.
    """

    path: Path
    uid: str
    frame: int | None
    position: np.ndarray
    row: np.ndarray
    column: np.ndarray
    pixel: tuple[float, float]
    shape: tuple[int, int]
    rescale: tuple[float, float] | None

    @property
    def normal(self) -> np.ndarray:
        """Unit vector from slice to slice; it points to the head in a supine axial scan."""
        return np.cross(self.row, self.column)

    @property
    def name(self) -> str:
        """The file's name for messages, with the frame where it has several."""
        return self.path.name if self.frame is None else f"{self.path.name} frame {self.frame + 1}"

    def differs_in(self, other: "Slice") -> str:
        """In which of size, orientation and pixel spacing another is no slice of one volume."""
        turn = np.abs(np.stack([self.row - other.row, self.column - other.column])).max()
        if self.shape != other.shape:
            return "size"
        if turn > 2e-3:
            return "orientation"
        return "" if np.allclose(self.pixel, other.pixel, rtol=1e-3, atol=0) else "pixel spacing"


def files_below(folder: Path) -> list[Path]:
    """Return the files of a folder and of those inside it, sorted; hidden ones are left out.

    Links to folders are followed, each folder once.
    """
    seen, found = set(), []
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [name for name in folders if not name.startswith(".") and real not in seen]
        if real not in seen:
            found += [Path(root, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(filter(Path.is_file, found))


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, with the preamble or, in old archives, without it."""
    with suppress(OSError), path.open("rb") as raw:
        head = raw.read(132)
        tagged = head[4:6].isalpha() and head[4:6].isupper()  # a value representation, or a length
        tagged = tagged or head[4:8].endswith(b"\0\0\0")
        bare = head[:2] in (b"\2\0", b"\x08\0", b"\0\x08") and len(head) == 132
        return head[128:] == b"DICM" or (bare and tagged)
    return False


def read_header(path: Path, tags: Sequence[str] | None = WANTED) -> Dataset | None:
    """Return the wanted tags of a DICOM file; None for any other file and for a DICOMDIR.

    Raises CaseError (code `corrupt`) for a header that cannot be parsed.
    """
    if not is_dicom(path):
        return None
    header = _read(path, stop_before_pixels=True, specific_tags=tags)
    return None if text_of(header, "SOPClassUID") == "1.2.840.10008.1.3.10" else header


def series_key(path: Path) -> tuple:
    """What tells a DICOM file's series from others in its folder; other paths are themselves."""
    header = None
    if path.is_file():
        header = read_header(path, NAMES)
    if header is None:
        return (path.absolute(),)
    uid = text_of(header, "SeriesInstanceUID")
    return path.absolute().parent, uid or text_of(header, "SeriesNumber")


def kind_of(header: Dataset) -> str:
    """Return "CT" for what may be slices of one, else what it is, in words.

    By class and modality; where an anonymiser emptied or replaced these, by what it holds.
    """
    sop_class, modality = text_of(header, "SOPClassUID"), text_of(header, "Modality").upper()
    known = UID(sop_class, pydicom.config.IGNORE).name != sop_class  # in the standard's register
    image_type = " ".join(map(str, _values(header, "ImageType"))).upper()
    if re.search("LOCALIZER|SCOUT|TOPOGRAM|SURVIEW", image_type):
        return "localiser"
    if not _values(header, "Rows"):
        return modality if modality not in ("", "CT") else "no image"
    if sop_class in CT_CLASSES or modality == "CT" or not (modality or known):
        return "CT"
    return modality or UID(sop_class, pydicom.config.IGNORE).name


def slices_of(path: Path, header: Dataset) -> Iterator[Slice | CaseError]:
    """Yield a file's slices, one a frame, or a refusal where the header has no place for one."""
    if PER_FRAME not in header and (_numbers(header, "NumberOfFrames", 1) or [1])[0] <= 1:
        yield _slice(path, header, None)
        return
    frames = _values(header, PER_FRAME)
    for number in range(len(frames) or 1):
        yield _slice(path, _one_frame(header, frames[number : number + 1]), number)


def hounsfield(item: Slice, image: Dataset) -> np.ndarray:
    """Return a slice of a whole file (of `read_image`) as int16 HU (rows, columns).

    HU are slope x value + intercept, rounded and clipped to int16; padding becomes air.
    Raises CaseError with code compressed, not_hu or corrupt.
    """
    name = short_name(item.path)
    if item.rescale is None or not SLOPES[0] <= abs(item.rescale[0]) <= SLOPES[1]:
        text = "expected RescaleSlope and RescaleIntercept, by which values are HU, got "
        text += f"{item.rescale or 'none'}; export it with these fields"
        raise CaseError(f"{name}: {text}", code="not_hu")
    try:
        with warnings.catch_warnings(action="ignore"):
            stored = _stored(name, item, image)
            hu = np.rint(stored * item.rescale[0] + item.rescale[1])
            hu = hu.clip(INT16_MIN, INT16_MAX).astype(np.int16)
            padding = np.array(_values(image, "PixelPaddingValue"), np.int64)
            hu[np.isin(stored, padding.astype(stored.dtype))] = AIR  # some write -2000 as 63536
            return hu
    except CaseError:
        raise
    except Exception as error:  # whatever a damaged file provokes
        text = f"{name}: the pixels could not be read ({_brief(error)}); export it again"
        raise CaseError(text, code="corrupt") from error


def read_image(path: Path) -> Dataset:
    """Return a whole file, with a transfer syntax. Raises CaseError (`corrupt`, `compressed`)."""
    image = _read(path)
    meta = image.file_meta = getattr(image, "file_meta", None) or pydicom.dataset.FileMetaDataset()
    if text_of(meta, "TransferSyntaxUID"):
        return image
    syntax = NATIVE.get(image.original_encoding)
    if syntax is None or ("PixelData" in image and image["PixelData"].is_undefined_length):
        text = "compressed pixels and no TransferSyntaxUID to say how; export it again"
        raise CaseError(f"{short_name(path)}: {text}", code="compressed")
    meta.TransferSyntaxUID = syntax
    return image


def _read(path: Path, **options: Any) -> Dataset:
    try:
        with warnings.catch_warnings(action="ignore"), pydicom.config.disable_value_validation():
            return pydicom.dcmread(path, force=True, **options)
    except Exception as error:  # a damaged header provokes anything
        if getattr(error, "errno", None):  # the disk, not the file
            raise
        text = f"{short_name(path)}: the DICOM header is damaged ({_brief(error)}); export it again"
        raise CaseError(text, code="corrupt") from None


def _stored(name: str, item: Slice, image: Dataset) -> np.ndarray:
    """A slice's values as they are stored, once they are known to be one grey picture."""
    syntax = image.file_meta.TransferSyntaxUID
    colors = text_of(image, "PhotometricInterpretation")
    if _numbers(image, "SamplesPerPixel", 1) not in (None, [1]) or "MONOCHROME" not in colors:
        text = f"expected grey values (MONOCHROME2), got {colors or 'none'}; export the CT itself"
        raise CaseError(f"{name}: {text}", code="not_hu")
    try:
        stored = pixel_array(image, index=item.frame or 0)
    except (NotImplementedError, RuntimeError) as error:  # no decoder, or none for so many bits
        if not syntax.is_encapsulated:
            raise
        text = f"the pixels are compressed as {syntax.name}, which cannot be read here or is "
        text += "damaged; `pip install pylibjpeg pylibjpeg-libjpeg` reads most, dcm2niix others"
        raise CaseError(f"{name}: {text}", code="compressed") from error
    if stored.shape != item.shape:
        raise ValueError(f"{stored.shape} pixels, the header says {item.shape}")
    frames = (_numbers(image, "NumberOfFrames", 1) or [1])[0]
    surplus = len(image.PixelData) - frames * stored.size * image.BitsAllocated / 8
    if not syntax.is_encapsulated and surplus > 1:
        raise ValueError(f"{surplus:.0f} bytes more than the header's size")
    return stored


def _slice(path: Path, header: Dataset, frame: int | None) -> Slice | CaseError:
    counts = dict(zip(PLACE, (1, 1, 2, 6, 3), strict=True))
    found = {name: _numbers(header, name, count) for name, count in counts.items()}
    name = short_name(path)
    if missing := ", ".join(name for name, value in found.items() if value is None):
        text = f"a CT slice needs {missing} in its header to be put in its place; export it again"
        return CaseError(f"{name}: {text}", code="corrupt")
    rows, columns, pixel, axes, position = found.values()
    row, column = np.array(axes).reshape(2, 3)
    straight = np.abs(np.array([row @ row - 1, column @ column - 1, row @ column])).max() < 0.01
    if not straight or min(*pixel, *rows, *columns) <= 0:
        text = f"expected two unit vectors at right angles and positive sizes, got {axes} and "
        text += f"pixels of {pixel} mm, {rows + columns} of them; export it again"
        return CaseError(f"{name}: {text}", code="corrupt")
    rescale = [_numbers(header, tag, 1) for tag in RESCALE]
    return Slice(
        path=path, uid=text_of(header, "SOPInstanceUID"), frame=frame, position=np.array(position),
        row=row, column=column, pixel=tuple(pixel), shape=(int(rows[0]), int(columns[0])),
        rescale=None if None in rescale else (rescale[0][0], rescale[1][0]),
    )  # fmt: skip


def _one_frame(header: Dataset, frames: Sequence[Dataset]) -> Dataset:
    """A frame's place and scale, its own or shared, as if it were a file of its own."""
    flat = Dataset(dict(header.items()))  # shares the elements, of which those here are replaced
    for group in (*_values(header, SHARED)[:1], *frames):
        for sequence, names in GROUPS.items():
            for item in _values(group, sequence)[:1]:
                for name in filter(item.__contains__, names):
                    flat[name] = item[name]
    return flat


def _values(header: Dataset, name: str) -> list[Any]:
    """A tag's values; none where it is missing, empty or cannot be read."""
    value = None
    with suppress(Exception), warnings.catch_warnings(action="ignore"):
        value = header.get(name)  # pydicom converts on access, and fails in many ways
    if isinstance(value, (MultiValue, pydicom.Sequence, list)):
        return [one for one in value if one not in ("", None)]
    return [] if value in ("", None) else [value]


def text_of(header: Dataset, name: str) -> str:
    """A tag as text, its first value where it has several, "" where it has none."""
    return str(next(iter(_values(header, name)), "")).strip()


def _numbers(header: Dataset, name: str, count: int) -> list[float] | None:
    """A tag's numbers, None where these are not so many finite ones."""
    try:
        numbers = [float(value) for value in _values(header, name)]
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _brief(error: Exception) -> str:
    """An error's kind and first words, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
