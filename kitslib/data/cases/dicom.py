"""Reading a DICOM CT series as one volume, or saying by name why it is none."""

import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kitslib.data.cases.dicom_files import (
    Slice,
    files_below,
    hounsfield,
    is_dicom,
    kind_of,
    read_header,
    read_image,
    slices_of,
    text_of,
)
from kitslib.data.cases.errors import CaseError, short_name
from kitslib.data.cases.geometry import Geometry

UNEVEN = 0.1  # of a slice distance: scanners round positions to 0.1 mm or less
STRAIGHT = 1e-2  # sine of the angle of a stack with its normal; a tilted gantry is over 1 degree
SAME_MM = 0.01  # nearer slices lie in one place
ODD_SHARE = 0.25  # of a series: more pictures of other kinds make it no series of one volume
TO_RAS = np.diag([-1.0, -1.0, 1.0])  # DICOM's patient axes are left, posterior, head


@dataclass(frozen=True, kw_only=True)
class Series:
    """A CT series: its slices in no order, and why others of its pictures are none."""

    uid: str
    study: str
    number: int
    folder: Path  # of its first file
    slices: list[Slice] = field(default_factory=list)
    odd: list[CaseError] = field(default_factory=list)

    @property
    def axial(self) -> bool:
        """Whether most of its slices lie nearer to axial than to coronal or sagittal."""
        planes = [int(np.abs(item.normal).argmax()) for item in self.slices]
        return 2 * planes.count(2) > len(planes)

    def holds(self, path: Path) -> bool:
        """Whether a file is of the series."""
        return any(item.path == path for item in self.slices)

    @property
    def name(self) -> str:
        """The series in words, for messages: its folder, number and size."""
        return f"{self.folder.name}, series {self.number} ({len(self.slices)} slices)"


def holds_dicom(folder: Path) -> bool:
    """Whether any file of a folder, or of one inside it, begins as DICOM files do."""
    return any(map(is_dicom, files_below(folder)))


def find_series(folder: Path) -> tuple[list[Series], str]:
    """The CT series of a folder and those inside it, from headers alone, the most slices first.

    Also what other DICOM files there are, in words. Raises CaseError: `no_ct`, or `corrupt` for a
    header that is damaged or, in all pictures, without a place.
    """
    found: dict[tuple, Series] = {}
    others: Counter[str] = Counter()
    for path in files_below(folder):
        if (header := read_header(path)) is None:
            continue
        if (kind := kind_of(header)) != "CT":
            others[kind] += 1
            continue
        uid, number = text_of(header, "SeriesInstanceUID"), text_of(header, "SeriesNumber")
        key = (uid,) if uid else (path.parent, number)  # an anonymiser may have taken the UID
        if key not in found:
            study, digits = text_of(header, "StudyInstanceUID"), number if number.isdigit() else 0
            found[key] = Series(uid=uid, study=study, number=int(digits), folder=path.parent)
        for item in slices_of(path, header):
            (found[key].slices if isinstance(item, Slice) else found[key].odd).append(item)
    placed = [series for series in found.values() if series.slices]
    for series in found.values():
        if not series.slices and not placed:
            raise series.odd[0]
    what = ", ".join(f"{count} of kind {kind}" for kind, count in others.items())
    if not placed:
        text = f"expected the slices of a CT series, got {what or 'no DICOM file'}; "
        raise CaseError(f"{folder}: {text}pass the CT's folder", code="no_ct")
    return sorted(placed, key=lambda one: (-len(one.slices), one.number, one.uid)), what


def choose_series(place: Path) -> tuple[Series, list[str]]:
    """The largest axial CT series of a folder, and sentences on what was left aside.

    Of a file it is the series that the file belongs to.
    Raises CaseError for several studies (code `studies`) or no axial series (`no_axial`).
    """
    (found, others), wanted = find_series(place if place.is_dir() else place.parent), None
    if not place.is_dir():
        wanted = [one for one in found if one.holds(place)]
        if not wanted:
            raise CaseError(f"{place}: expected a slice of a CT series, got none", code="no_ct")
    studies = {series.study for series in wanted or found} - {""}
    if len(studies) > 1:
        places = ", ".join(sorted({str(series.folder) for series in found})[:8])
        text = f"expected one examination, got several; pass their folders one by one: {places}"
        raise CaseError(f"{place}: {text}", code="studies")
    chosen = next((series for series in wanted or found if series.axial), None)
    if chosen is None:
        names = ", ".join(series.name for series in wanted or found)
        text = f"expected an axial CT series, got {names} in other planes; export the axial one"
        raise CaseError(f"{place}: {text}", code="no_axial")
    if wanted:
        return chosen, []
    notes = [f"left aside: {others}"] if others else []
    if len(found) == 1:
        return chosen, notes
    note = f"series {chosen.number} with {len(chosen.slices)} axial slices was taken; left aside: "
    for series in found:
        if series is not chosen:
            plane = "" if series.axial else ", not axial"
            note += f"{series.number} ({len(series.slices)}{plane}), "
    return chosen, [*notes, note.removesuffix(", ")]


@contextmanager
def open_series(place: Path) -> Iterator[tuple[list[Slice], list[str]]]:
    """Give the slices of a series along their normal, and sentences on what was left aside.

    place: a folder, a zip of one, which is unpacked for as long, or one file of a series.
    Raises CaseError with the codes of `choose_series`, few_slices, mixed_grid, duplicate_slices,
    gantry_tilt, missing_slices, uneven_spacing, corrupt or, for a zip, packed.
    """
    if not zipfile.is_zipfile(place):
        series, notes = choose_series(place)
        yield _stacked(series, notes), notes
        return
    with TemporaryDirectory(prefix="kitslib-") as folder:
        try:
            _unpack(place, Path(folder))
            series, notes = choose_series(Path(folder))
            ordered = _stacked(series, notes)
        except CaseError as error:
            raise CaseError(str(error).replace(folder, str(place)), code=error.code) from None
        yield ordered, notes


def read_dicom(place: Path) -> tuple[np.ndarray, Geometry, list[str]]:
    """Read a series as int16 HU (D, H, W) with its geometry, and the sentences of `open_series`.

    The geometry's file axes are column, row and slice, slices along their normal, as ITK stacks
    them. Raises CaseError as `open_series` and `hounsfield`.
    """
    with open_series(Path(place)) as (ordered, notes):
        first, depth = ordered[0], len(ordered)
        step = (ordered[-1].position - first.position) @ first.normal / (depth - 1)
        affine = np.eye(4)
        axes = (first.row * first.pixel[1], first.column * first.pixel[0], first.normal * step)
        affine[:3, :3] = TO_RAS @ np.stack(axes, axis=1)
        affine[:3, 3] = TO_RAS @ first.position
        geometry = Geometry.from_affine(affine, (first.shape[1], first.shape[0], depth))
        planes = _planes(ordered)
        plane = next(planes)  # it is there before memory is asked for
        volume = np.empty(geometry.canonical_shape, np.int16)
        target = geometry.to_file(volume)
        for index in range(depth):
            target[..., index] = plane.T
            plane = next(planes, plane)
    scales = {item.rescale for item in ordered}
    if len(scales) > 1:
        text = f"RescaleSlope and RescaleIntercept differ between its slices: {sorted(scales)[:4]}"
        notes.append(f"{text}; inspect them, a CT has one pair")
    return volume, geometry, notes


def _planes(ordered: list[Slice]) -> Iterator[np.ndarray]:
    """The slices' HU; a multi-frame file is read once where its frames follow each other."""
    path, image = None, None
    for item in ordered:
        if item.path != path:
            path, image = item.path, read_image(item.path)
        yield hounsfield(item, image)


def _unpack(place: Path, folder: Path) -> None:
    """Unpack a zip of slices, if there is room for it."""
    try:
        with zipfile.ZipFile(place) as packed:
            size, free = sum(one.file_size for one in packed.infolist()), shutil.disk_usage(folder)
            if size > free.free // 2:
                text = f"{place}: {size / 1e9:.1f} GB when unpacked do not fit into {folder.parent}"
                raise CaseError(f"{text}; set TMPDIR to a larger disk", code="packed")
            packed.extractall(folder)
    except CaseError:
        raise
    except Exception as error:  # a damaged one provokes anything
        if getattr(error, "errno", None):  # the disk, not the zip
            raise
        text = f"{place}: the zip cannot be unpacked ({error}); unpack it, or download it again"
        raise CaseError(text, code="packed") from error


def _stacked(series: Series, notes: list[str]) -> list[Slice]:
    """The slices along their normal, once they are known to be one even, straight stack.

    Pictures of other kinds are left aside where a whole stack remains, and said in `notes`.
    """
    _require_whole(series)
    grids: list[list[Slice]] = []
    for item in series.slices:
        grid = next((grid for grid in grids if not grid[0].differs_in(item)), None)
        if grid is None:
            grids.append(grid := [])
        grid.append(item)
    slices = max(grids, key=len)
    others = [item for item in series.slices if item not in slices]
    odd = series.odd + [_of_another_grid(series.name, slices[0], item) for item in others]
    if len(others) > ODD_SHARE * len(slices):
        raise odd[-1]
    try:
        if len(slices) < 2:
            text = f"{series.name}: expected at least 2 slices; export the whole series"
            raise CaseError(text, code="few_slices")
        ordered = _without_copies(series.name, slices, notes)
        _require_straight(series.name, ordered)
        _require_even(series.name, ordered)
    except CaseError as error:
        if odd and error.code in ("few_slices", "missing_slices", "uneven_spacing"):
            raise odd[0] from error  # which left the gap
        raise
    notes += [f"left aside: {error}" for error in odd[:3]]
    if len(odd) > 3:
        notes.append(f"{len(odd) - 3} more pictures were left aside for such reasons")
    return ordered


def _require_whole(series: Series) -> None:
    """Refuse a series beside files that are named like its slices and are no DICOM."""
    names = {(item.path.parent, _shape_of(item.path)) for item in series.slices}
    known = {item.path for item in series.slices}
    for folder in {parent for parent, _ in names}:
        for path in sorted(set(folder.iterdir()) - known):
            if (folder, _shape_of(path)) in names and path.is_file() and not is_dicom(path):
                text = f"{short_name(path)}: expected a DICOM slice as its name says, got "
                text += f"{path.stat().st_size} bytes of something else; export it again"
                raise CaseError(text, code="corrupt")


def _shape_of(path: Path) -> str:
    """A name without its numbers, by which the slices of a series are alike."""
    return re.sub(r"\d+", "#", path.name)


def _of_another_grid(name: str, usual: Slice, odd: Slice) -> CaseError:
    what = usual.differs_in(odd)
    expected, got = {
        "size": (usual.shape, odd.shape), "pixel spacing": (usual.pixel, odd.pixel),
        "orientation": ([*usual.row, *usual.column], [*odd.row, *odd.column]),
    }[what]  # fmt: skip
    expected, got = np.round(expected, 4).tolist(), np.round(got, 4).tolist()
    text = f"{odd.name}, of another {what} {got} than {expected}; separate it from the series"
    return CaseError(f"{name}: {text}", code="mixed_grid")


def _without_copies(name: str, slices: list[Slice], notes: list[str]) -> list[Slice]:
    """The slices along their normal; those that are there twice, to the pixel, count once."""
    normal = slices[0].normal
    ordered, copies = [], 0
    for item in sorted(slices, key=lambda item: (float(item.position @ normal), item.name)):
        if not ordered or np.linalg.norm(item.position - ordered[-1].position) > SAME_MM:
            ordered.append(item)
            continue
        first, second = _planes([ordered[-1]]), _planes([item])
        if not np.array_equal(next(first), next(second)):
            text = f"{ordered[-1].name} and {item.name} lie in one place "
            text += f"({item.position @ normal:.2f} mm) and differ; the series holds two phases or "
            raise CaseError(f"{name}: {text}reconstructions: separate them", "duplicate_slices")
        copies += 1
    if copies:
        notes.append(f"{copies} slices are there twice, to the pixel, and count once")
    if len(ordered) < 2:
        raise CaseError(f"{name}: expected at least 2 slices, got copies of one", "few_slices")
    return ordered


def _require_straight(name: str, ordered: list[Slice]) -> None:
    along = ordered[-1].position - ordered[0].position
    across = np.linalg.norm(np.cross(along, ordered[0].normal))
    sine = across / np.linalg.norm(along)
    if sine > STRAIGHT:  # shifted in their plane, as a tilted gantry leaves them
        text = f"{name}: expected slices stacked along their normal, got a stack that leans "
        text += f"by {np.degrees(np.arcsin(min(sine, 1.0))):.1f} degrees (gantry tilt); resample "
        raise CaseError(text + "it to a straight one (dcm2niix does)", code="gantry_tilt")
    line = along / np.linalg.norm(along)
    for item in ordered:
        shift = np.linalg.norm(np.cross(item.position - ordered[0].position, line))
        if shift > 2 * max(item.pixel):
            text = f"{name}: {item.name} lies {shift:.1f} mm beside the others; its header is "
            raise CaseError(f"{text}damaged, export it again", code="uneven_spacing")


def _require_even(name: str, ordered: list[Slice]) -> None:
    places = np.array([item.position @ ordered[0].normal for item in ordered])
    steps = np.diff(places)
    step = float(np.median(steps))
    names = [item.name for item in ordered]
    if (steps < UNEVEN * step).any():
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
