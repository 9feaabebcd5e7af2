"""Reading a folder of DICOM CT slices as one volume, or saying by name why it is none."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder

from kitslib.data.cases.errors import CaseError, short_name
from kitslib.data.cases.files import INT16_MAX, INT16_MIN
from kitslib.data.cases.geometry import Geometry

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"  # SOP classes
PLACE = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
NAMES = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber")
UNEVEN = 0.1  # of a slice distance: scanners round positions to 0.1 mm or less
STRAIGHT = 1e-2  # sine of the angle of a stack with its normal; a tilted gantry is over 1 degree
AIR = -1024  # HU of what the scanner marked as outside its circle
TO_RAS = np.diag([-1.0, -1.0, 1.0])  # DICOM's patient axes are left, posterior, head


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One CT slice by its header; lengths in mm, directions and places in LPS.

    position: of the first pixel. row, column: unit vectors along a row and down a column.
    pixel: between rows and between columns. shape: rows and columns.
    """

    path: Path
    position: np.ndarray
    row: np.ndarray
    column: np.ndarray
    pixel: tuple[float, float]
    shape: tuple[int, int]

    @property
    def normal(self) -> np.ndarray:
        """Unit vector from slice to slice; it points to the head in a supine axial scan."""
        return np.cross(self.row, self.column)

    @property
    def grid(self) -> tuple:
        """What all slices of a volume share, rounded to what headers vary by."""
        directions = np.round([*self.row, *self.column], 3).tolist()
        return (*directions, *np.round(self.pixel, 4).tolist(), *self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """A CT series: its slices by instance, in no order."""

    uid: str
    study: str
    number: int
    folder: Path  # of its first file
    slices: dict[str, Slice] = field(default_factory=dict)

    @property
    def axial(self) -> bool:
        """Whether most of its slices lie nearer to axial than to coronal or sagittal."""
        planes = [int(np.abs(item.normal).argmax()) for item in self.slices.values()]
        return 2 * planes.count(2) > len(planes)

    @property
    def name(self) -> str:
        """The series in words, for messages: its folder, number and size."""
        return f"{self.folder.name}, series {self.number} ({len(self.slices)} slices)"


def holds_dicom(folder: Path) -> bool:
    """Whether any file of a folder, or of one inside it, begins as DICOM files do."""
    for path in folder.rglob("*"):
        if path.is_file():
            with suppress(OSError), path.open("rb") as raw:
                if raw.read(132)[128:] == b"DICM":
                    return True
    return False


def find_series(folder: Path) -> list[Series]:
    """The CT series of a folder and those inside it, from headers alone, the most slices first.

    Localisers are left out. Raises CaseError (code `no_ct`, or `enhanced` for multi-frame CT).
    """
    found: dict[str, Series] = {}
    others: Counter[str] = Counter()
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        if (header := _header(path)) is None:
            continue
        if header.get("SOPClassUID") == ENHANCED_CT:
            others["enhanced CT"] += 1
        elif header.get("SOPClassUID") != CT:
            others[str(header.get("Modality") or "other")] += 1
        elif "LOCALIZER" in header.get("ImageType", ()):
            others["localiser"] += 1
        else:
            uid = header.SeriesInstanceUID
            if uid not in found:
                study, number = header.get("StudyInstanceUID", ""), header.get("SeriesNumber") or 0
                found[uid] = Series(uid=uid, study=study, number=int(number), folder=path.parent)
            found[uid].slices.setdefault(header.SOPInstanceUID, _slice(path, header))
    if not found and others["enhanced CT"]:
        text = "expected CT slices in files of their own, got multi-frame (enhanced) CT, which is "
        text += "not read here; convert it with dcm2niix"
        raise CaseError(f"{folder}: {text}", code="enhanced")
    if not found:
        what = ", ".join(f"{count} of {kind}" for kind, count in others.items())
        text = f"expected the slices of a CT series, got {what or 'no DICOM file'}; "
        raise CaseError(f"{folder}: {text}pass the CT's folder", code="no_ct")
    return sorted(found.values(), key=lambda one: (-len(one.slices), one.number, one.uid))


def choose_series(folder: Path) -> tuple[Series, str]:
    """The largest axial CT series of a folder, and a sentence on what was left aside, or "".

    Raises CaseError for several studies (code `studies`) or no axial series (`no_axial`).
    """
    found = find_series(folder)
    if len({series.study for series in found}) > 1:
        places = ", ".join(sorted({str(series.folder) for series in found})[:8])
        text = f"expected one examination, got several; pass their folders one by one: {places}"
        raise CaseError(f"{folder}: {text}", code="studies")
    chosen = next((series for series in found if series.axial), None)
    if chosen is None:
        names = ", ".join(series.name for series in found)
        text = f"expected an axial CT series, got {names} in other planes; export the axial one"
        raise CaseError(f"{folder}: {text}", code="no_axial")
    found.remove(chosen)
    note = f"series {chosen.number} with {len(chosen.slices)} axial slices was taken; left aside: "
    for series in found:
        note += f"{series.number} ({len(series.slices)}{'' if series.axial else ', not axial'}), "
    return chosen, note.removesuffix(", ") if found else ""


def read_folder(folder: Path) -> tuple[np.ndarray, Geometry, str]:
    """Read a folder's largest axial series: int16 HU (D, H, W), geometry, and the note on others.

    The geometry's file axes are column, row and slice, slices along their normal, as ITK stacks
    them. HU are slope x value + intercept of each slice, rounded and clipped to int16; padding
    becomes air. Raises CaseError with the codes of `choose_series`, few_slices, mixed_grid,
    duplicate_slices, gantry_tilt, missing_slices, uneven_spacing, compressed, not_hu or corrupt.
    """
    series, note = choose_series(folder)
    ordered = _stacked(series)
    first, depth = ordered[0], len(ordered)
    step = (ordered[-1].position - first.position) @ first.normal / (depth - 1)
    affine = np.eye(4)
    axes = (first.row * first.pixel[1], first.column * first.pixel[0], first.normal * step)
    affine[:3, :3] = TO_RAS @ np.stack(axes, axis=1)
    affine[:3, 3] = TO_RAS @ first.position
    geometry = Geometry.from_affine(affine, (first.shape[1], first.shape[0], depth))
    volume = np.empty(geometry.canonical_shape, np.int16)
    target = geometry.to_file(volume)
    for index, item in enumerate(ordered):
        target[..., index] = _hounsfield(item.path).T
    return volume, geometry, note


def _header(path: Path) -> pydicom.Dataset | None:
    """The wanted fields of a DICOM header; None for any other file and for a DICOMDIR."""
    wanted = [*NAMES, *PLACE, "Modality", "ImageType"]
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
    except InvalidDicomError:
        return None
    except Exception as error:  # a damaged header provokes anything
        text = f"{short_name(path)}: the DICOM header is damaged ({error}); export it again"
        raise CaseError(text, code="corrupt") from None
    return header if "SeriesInstanceUID" in header else None


def _slice(path: Path, header: pydicom.Dataset) -> Slice:
    missing = ", ".join(name for name in PLACE if not header.get(name))
    if missing:
        text = f"a CT slice needs {missing} in its header to be put in its place; export it again"
        raise CaseError(f"{short_name(path)}: {text}", code="corrupt")
    position = np.array(header.ImagePositionPatient, np.float64)
    row, column = np.array(header.ImageOrientationPatient, np.float64).reshape(2, 3)
    pixel = (float(header.PixelSpacing[0]), float(header.PixelSpacing[1]))
    shape = (int(header.Rows), int(header.Columns))
    return Slice(path=path, position=position, row=row, column=column, pixel=pixel, shape=shape)


def _stacked(series: Series) -> list[Slice]:
    """The slices along their normal, once they are known to be one even, straight stack."""
    slices = list(series.slices.values())
    if len(slices) < 2:
        text = f"{series.name}: expected at least 2 slices; export the whole series"
        raise CaseError(text, code="few_slices")
    _require_one_grid(series.name, slices)
    normal = slices[0].normal
    ordered = sorted(slices, key=lambda item: float(item.position @ normal))
    along = ordered[-1].position - ordered[0].position
    across = np.linalg.norm(np.cross(along, ordered[0].normal))
    sine = across / (np.linalg.norm(along) or 1.0)
    if sine > STRAIGHT:  # shifted in their plane, as a tilted gantry leaves them
        text = f"{series.name}: expected slices stacked along their normal, got a stack that leans "
        text += f"by {np.degrees(np.arcsin(min(sine, 1.0))):.1f} degrees (gantry tilt); resample "
        raise CaseError(text + "it to a straight one (dcm2niix does)", code="gantry_tilt")
    _require_even(series.name, ordered, np.array([item.position @ normal for item in ordered]))
    return ordered


def _require_one_grid(name: str, slices: list[Slice]) -> None:
    (grid, members), *others = Counter(item.grid for item in slices).most_common()
    if not others:
        return
    usual = next(item for item in slices if item.grid == grid)
    odd = next(item for item in slices if item.grid == others[0][0])
    what, expected, got = "size", usual.shape, odd.shape
    if odd.grid[:6] != usual.grid[:6]:
        what, expected, got = "orientation", usual.grid[:6], odd.grid[:6]
    elif odd.pixel != usual.pixel:
        what, expected, got = "pixel spacing", usual.pixel, odd.pixel
    text = f"{name}: expected one {what} {expected}, got {len(slices) - members} slices with "
    text += f"another, such as {odd.path.name} with {got}; separate them, or export the axial "
    raise CaseError(text + "series alone", code="mixed_grid")


def _require_even(name: str, ordered: list[Slice], places: np.ndarray) -> None:
    steps = np.diff(places)
    step = float(np.median(steps))
    names = [item.path.name for item in ordered]
    if not step or (steps < UNEVEN * step).any():
        at = int(np.argmin(steps))
        text = f"{names[at]} and {names[at + 1]} lie in one place ({places[at]:.2f} mm); the "
        text += "series holds two phases or reconstructions: separate them"
        raise CaseError(f"{name}: {text}", code="duplicate_slices")
    wrong = np.flatnonzero(np.abs(steps - step) > UNEVEN * step)
    if not len(wrong):
        return
    gaps, at = steps[wrong] / step, int(wrong[0])
    whole = np.rint(gaps)
    where = f"between {names[at]} ({places[at]:.2f} mm) and {names[at + 1]} "
    where += f"({places[at + 1]:.2f} mm)"
    if (np.abs(gaps - whole) <= UNEVEN * whole).all() and (gaps > 1).all():
        count = int(whole.sum()) - len(gaps)
        text = f"{count} slice{'s are' if count > 1 else ' is'} missing at a distance of {step:g} "
        text += f"mm, the first {where}; export the series again"
        raise CaseError(f"{name}: {text}", code="missing_slices")
    text = f"expected an even slice distance of {step:g} mm, got {steps[at]:g} mm {where}; "
    text += "reconstruct the scan at one slice distance, or resample it"
    raise CaseError(f"{name}: {text}", code="uneven_spacing")


def _hounsfield(path: Path) -> np.ndarray:
    """One slice as int16 HU (rows, columns)."""
    name = short_name(path)
    try:
        return _decoded(name, pydicom.dcmread(path))
    except CaseError:
        raise
    except Exception as error:  # whatever a damaged file provokes
        text = f"{name}: the pixels could not be read ({type(error).__name__}: {error}); export or "
        raise CaseError(f"{text}download it again", code="corrupt") from error


def _decoded(name: str, image: pydicom.Dataset) -> np.ndarray:
    syntax = image.file_meta.TransferSyntaxUID
    available = not syntax.is_encapsulated
    with suppress(NotImplementedError):
        available = available or get_decoder(syntax).is_available
    if not available:
        text = f"{name}: the pixels are compressed as {syntax.name}, which cannot be read here; "
        text += "decompress the series first (gdcmconv --raw IN OUT, or dcm2niix), or install "
        raise CaseError(f"{text}pylibjpeg with its decoders", code="compressed")
    colours = image.get("PhotometricInterpretation")
    if image.get("SamplesPerPixel", 1) != 1 or colours != "MONOCHROME2":
        text = f"expected grey values (MONOCHROME2), got {colours}; export the CT itself"
        raise CaseError(f"{name}: {text}", code="not_hu")
    if image.get("RescaleSlope") is None or image.get("RescaleIntercept") is None:
        text = f"{name}: RescaleSlope or RescaleIntercept is missing, so that its values cannot be "
        raise CaseError(f"{text}told to be HU; export it with these fields", code="not_hu")
    stored = image.pixel_array
    hu = np.rint(stored * float(image.RescaleSlope) + float(image.RescaleIntercept))
    hu = hu.clip(INT16_MIN, INT16_MAX).astype(np.int16)
    if image.get("PixelPaddingValue") is not None:
        hu[stored == int(image.PixelPaddingValue)] = AIR
    return hu
