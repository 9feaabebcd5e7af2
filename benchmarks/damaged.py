"""Damaged scans, drawn by seed: is each refused in one sentence, or read to the right values?

A small CT is written as NIfTI, plain and packed, or as a DICOM series, and damaged in one of many
ways. What comes back must be a refusal, the very scan, or a scan with a warning. Then all go
through `predict` in one call, its networks replaced by a threshold: no traceback, and no file that
is half written. Bytes of plain voxels carry no checksum: there only as many voxels may differ.
"""

from __future__ import annotations

import argparse
import gzip
import io
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest import mock

import nibabel as nib
import numpy as np
import pydicom
from numpy.random import Generator
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from benchmarks._measure import Report, Table, command, conditions
from kitslib.commands import main as kitslib
from kitslib.commands import predict
from kitslib.data import canonical_affine, read_labels, read_scan

SPACING, SHAPE, OFFSET = (3.0, 0.8, 0.8), (9, 24, 20), 352
VERDICTS = ("refused", "right", "said", "wrong", "traceback")
GOOD = VERDICTS[:3]


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A damaged input: its kind, where it lies, and how many voxels may differ unseen."""

    kind: str
    path: Path
    unseen: int = 0


def sound() -> np.ndarray:
    """A body of fat and muscle in noisy air, int16 HU (D, H, W)."""
    volume = np.full(SHAPE, -1000, np.int16)
    volume[:, 3:21, 3:17], volume[:, 5:19, 5:15], volume[3:7, 8:14, 6:9] = -100, 50, 180
    return volume + np.random.default_rng(0).integers(-9, 10, SHAPE, dtype=np.int16)


def nifti_bytes(dtype: type = np.int16) -> bytearray:
    """The scan as a plain NIfTI file with sform, qform and voxel size, which agree."""
    image = nib.Nifti1Image(sound().astype(dtype), canonical_affine(SPACING))
    image.set_qform(image.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    return bytearray(image.to_bytes())


def flipped(raw: bytearray, rng: Generator, start: int, stop: int, count: int = 1) -> bytearray:
    for at in rng.integers(start, stop, count):
        raw[at] ^= int(rng.integers(1, 256))
    return raw


def header_bytes(raw: bytearray, rng: Generator) -> bytearray:
    return flipped(raw, rng, 0, OFFSET)


def cut_short(raw: bytearray, rng: Generator) -> bytearray:
    return raw[: rng.integers(0, len(raw))]


def other_size(raw: bytearray, rng: Generator) -> bytearray:
    at = 40 + 2 * rng.integers(0, 8)
    value = rng.choice([-1, 0, 1, 2, 7, 19, 25, 32767])
    raw[at : at + 2] = np.array([value], "<i2").tobytes()
    return raw


def odd_number(raw: bytearray, rng: Generator) -> bytearray:
    """One of voxel size, slope, offset, quaternion or affine becomes NaN, infinite or absurd."""
    at = rng.choice([*range(76, 108, 4), 108, 112, 116, *range(256, 328, 4)])
    value = rng.choice([np.nan, np.inf, -np.inf, 0, -1, 1e30, -1e30, 1e-30])
    raw[at : at + 4] = np.array([value], "<f4").tobytes()
    return raw


def no_orientation(raw: bytearray, rng: Generator) -> bytearray:
    raw[252:256] = bytes(4)
    return odd_number(raw, rng)


def other_code(raw: bytearray, rng: Generator) -> bytearray:
    at, values = [(70, (0, 2, 8, 16, 64, 512, 1536)), (72, (0, 8, 32)), (252, (0, 9)),
                  (254, (0, 9)), (123, (0, 1, 3, 255))][rng.integers(5)]  # fmt: skip
    raw[at] = rng.choice(values) % 256
    return raw


def no_number(raw: bytearray, rng: Generator) -> bytearray:
    raw = nifti_bytes(np.float32)
    at = OFFSET + 4 * int(rng.integers(sound().size))
    raw[at : at + 4] = np.array([rng.choice([np.nan, np.inf, -np.inf])], "<f4").tobytes()
    return raw


def more_bytes(raw: bytearray, rng: Generator) -> bytearray:
    return raw + rng.bytes(int(rng.integers(1, 2000)))


def not_a_scan(raw: bytearray, rng: Generator) -> bytearray:
    texts = (b"", b"\0" * 900, rng.bytes(900), b"<!DOCTYPE html><title>Quota exceeded</title>",
             b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")  # fmt: skip
    return bytearray(texts[rng.integers(len(texts))])


PLAIN: dict[str, Callable[[bytearray, Generator], bytearray]] = {
    "a byte of the header": header_bytes, "cut short": cut_short, "another size": other_size,
    "an odd number in the header": odd_number, "no orientation, odd number": no_orientation,
    "another code": other_code, "NaN in the voxels": no_number, "more bytes": more_bytes,
    "no scan": not_a_scan,
}  # fmt: skip


def packed_bytes(path: Path, rng: Generator) -> None:
    raw = bytearray(gzip.compress(bytes(nifti_bytes()), mtime=0))
    path.write_bytes(flipped(raw, rng, 10, len(raw), int(rng.integers(1, 5))))


def packed_end(path: Path, rng: Generator) -> None:
    raw = bytearray(gzip.compress(bytes(nifti_bytes()), mtime=0))
    path.write_bytes(flipped(raw, rng, len(raw) - 8, len(raw)))


def packed_short(path: Path, rng: Generator) -> None:
    path.write_bytes(cut_short(bytearray(gzip.compress(bytes(nifti_bytes()), mtime=0)), rng))


def packed_hole(path: Path, rng: Generator) -> None:
    raw = bytearray(gzip.compress(bytes(nifti_bytes()), mtime=0))
    at = int(rng.integers(0, len(raw) - 64))
    raw[at : at + 64] = bytes(64)
    path.write_bytes(raw)


PACKED = {
    "bytes of the gzip stream": packed_bytes, "the gzip checksum": packed_end,
    "gzip cut short": packed_short, "a hole in the gzip stream": packed_hole,
}  # fmt: skip


def write_series(folder: Path, syntax: str = ExplicitVRLittleEndian) -> list[Path]:
    """The scan as DICOM slices, from the feet up."""
    folder.mkdir(parents=True)
    paths = []
    for number, plane in enumerate(sound()[::-1]):
        item, meta = Dataset(), FileMetaDataset()
        item.SOPClassUID, item.SOPInstanceUID = CTImageStorage, f"1.2.826.0.1.3.{number + 1}"
        item.StudyInstanceUID, item.SeriesInstanceUID = "1.2.826.0.1.1", "1.2.826.0.1.2"
        item.Modality, item.SeriesNumber, item.InstanceNumber = "CT", 4, number + 1
        item.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        item.ImagePositionPatient = ["0", "0", f"{(number + 1 - SHAPE[0]) * SPACING[0]:.4f}"]
        item.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        item.PixelSpacing, item.SliceThickness = [f"{size:.6f}" for size in SPACING[1:]], "3"
        item.Rows, item.Columns, item.SamplesPerPixel = *plane.shape, 1
        item.PhotometricInterpretation, item.PixelRepresentation = "MONOCHROME2", 1
        item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
        item.RescaleSlope, item.RescaleIntercept = "1", "-1024"
        item.PixelData = (plane + np.int16(1024)).tobytes()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, CTImageStorage
        meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
        paths.append(folder / f"IM{number:04}")
        FileDataset(paths[-1], item, preamble=b"\0" * 128, file_meta=meta).save_as(paths[-1])
    return paths


def slice_header(paths: list[Path], rng: Generator) -> None:
    one = paths[rng.integers(len(paths))]
    raw = bytearray(one.read_bytes())
    one.write_bytes(flipped(raw, rng, 128, len(raw) - 2 * SHAPE[1] * SHAPE[2]))


def slice_short(paths: list[Path], rng: Generator) -> None:
    one = paths[rng.integers(len(paths))]
    one.write_bytes(cut_short(bytearray(one.read_bytes()), rng))


def slice_of_noise(paths: list[Path], rng: Generator) -> None:
    paths[rng.integers(len(paths))].write_bytes(not_a_scan(bytearray(), rng))


def slice_missing(paths: list[Path], rng: Generator) -> None:
    paths[rng.integers(1, len(paths) - 1)].unlink()


def tag_gone(paths: list[Path], rng: Generator) -> None:
    """A tag is missing, or empty, in one slice or in all."""
    keys = sorted(pydicom.dcmread(paths[0]).keys())
    key, empty = keys[rng.integers(len(keys))], rng.random() < 0.5
    for path in paths if rng.random() < 0.5 else paths[4:5]:
        item = pydicom.dcmread(path)
        if empty:
            item[key].value = None
        else:
            del item[key]
        item.save_as(path)


def tag_odd(paths: list[Path], rng: Generator) -> None:
    """A tag has a value that no standard allows, in one slice or in all."""
    texts = ("", "x", "-1", "0", "1e99", "1\\2\\3\\4", "nan", "\u00fc", "9" * 40)
    names = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
             "SeriesNumber", "RescaleIntercept")  # fmt: skip
    name, text = names[rng.integers(len(names))], texts[rng.integers(len(texts))]
    for path in paths if rng.random() < 0.5 else paths[4:5]:
        item = pydicom.dcmread(path)
        with pydicom.config.disable_value_validation():
            item[name] = pydicom.DataElement(name, "LO", text)
            item.save_as(path)


def other_syntax(paths: list[Path], rng: Generator) -> None:
    """The transfer syntax is another than the bytes'."""
    names = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.3",
             "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80",
             "1.2.840.10008.1.2.4.90")  # fmt: skip
    name = names[rng.integers(len(names))].encode()
    for path in paths if rng.random() < 0.5 else paths[4:5]:
        raw = path.read_bytes()
        at = raw.index(b"\x02\0\x10\0UI")
        size = int.from_bytes(raw[at + 6 : at + 8], "little")
        name += b"\0" * (len(name) % 2)
        value = b"\x02\0\x10\0UI" + len(name).to_bytes(2, "little") + name
        path.write_bytes(raw[:at] + value + raw[at + 8 + size :])


def no_preamble(paths: list[Path], rng: Generator) -> None:
    for path in paths:
        raw = path.read_bytes()
        path.write_bytes(raw[132:])


def no_names(paths: list[Path], rng: Generator) -> None:
    """An anonymiser made all UIDs one, or took them."""
    value = rng.choice(["1.2.3", ""])
    for path in paths:
        item = pydicom.dcmread(path)
        item.SOPInstanceUID = item.SeriesInstanceUID = item.StudyInstanceUID = value
        item.save_as(path)


def twice(paths: list[Path], rng: Generator) -> None:
    for path in paths[:: rng.integers(1, 4)]:
        path.with_name(f"{path.name}_copy").write_bytes(path.read_bytes())


SERIES = {
    "a byte of a slice's header": slice_header, "a slice cut short": slice_short,
    "a slice of other bytes": slice_of_noise, "a slice missing": slice_missing,
    "a tag missing or empty": tag_gone, "an odd tag": tag_odd,
    "another transfer syntax": other_syntax, "no preamble": no_preamble,
    "UIDs taken": no_names, "slices twice": twice,
}  # fmt: skip


def damaged(seed: int, folder: Path) -> Damaged:
    """Write the damaged input of a seed into a folder of its own."""
    rng, name = np.random.default_rng(seed), f"{seed:05}"
    kinds = [*PLAIN, *PACKED, *SERIES, "a byte of plain voxels", "a byte of a slice's pixels",
             "bytes of a zip"]  # fmt: skip
    kind = kinds[seed % len(kinds)]  # each as often
    folder.mkdir(parents=True, exist_ok=True)
    if kind in PLAIN:
        path = folder / f"{name}.nii"
        path.write_bytes(PLAIN[kind](nifti_bytes(), rng))
    elif kind in PACKED:
        path = folder / f"{name}.nii.gz"
        PACKED[kind](path, rng)
    elif kind in SERIES:
        path = folder / name
        syntax = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)[rng.integers(2)]
        SERIES[kind](write_series(path, syntax), rng)
    elif kind == "a byte of plain voxels":
        path, raw = folder / f"{name}.nii", nifti_bytes()
        path.write_bytes(flipped(raw, rng, OFFSET, len(raw)))
        return Damaged(kind=kind, path=path, unseen=1)
    elif kind == "bytes of a zip":
        path, raw = folder / f"{name}.zip", io.BytesIO()
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as packed:
            for item in write_series(folder / f".{name}"):
                packed.writestr(zipfile.ZipInfo(item.name), item.read_bytes())
        path.write_bytes(flipped(bytearray(raw.getvalue()), rng, 0, len(raw.getvalue()), 3))
    else:
        path = folder / name
        one = write_series(path)[rng.integers(SHAPE[0])]
        raw = bytearray(one.read_bytes())
        one.write_bytes(flipped(raw, rng, len(raw) - 2 * SHAPE[1] * SHAPE[2], len(raw)))
        return Damaged(kind=kind, path=path, unseen=1)
    return Damaged(kind=kind, path=path)


def verdict(item: Damaged) -> tuple[str, str]:
    """Return one of VERDICTS on an input, and what was said of it."""
    try:
        scan = read_scan(item.path)
    except (ValueError, OSError, RuntimeError) as error:
        return "refused", str(error)
    except Exception:
        return "traceback", traceback.format_exc()
    if scan.warnings:
        return "said", "; ".join(scan.warnings)
    if scan.imaging.shape != SHAPE:
        return "wrong", f"shape {scan.imaging.shape}"
    differ = np.count_nonzero(scan.imaging != sound())
    corner = np.array([*SHAPE, 1.0]) - [1, 1, 1, 0]
    apart = (scan.geometry.canonical_affine - canonical_affine(SPACING)) @ corner
    voxel = np.abs(apart[:3] / SPACING[::-1]).max()
    if differ > item.unseen or voxel > 1 or not np.allclose(scan.geometry.spacing, SPACING, 0.02):
        return "wrong", f"{differ} voxels differ, {voxel:.2f} voxels apart, {scan.geometry.spacing}"
    return "right", ""


def predicted(items: Sequence[Damaged], out: Path) -> tuple[str, list[str]]:
    """Give all to `predict` in one call; return what it said, and which files are not whole."""
    about = {stage: {"weights": "0" * 64, "settings": ""} for stage in ("kidney", "tumor")}
    kidney = SimpleNamespace(mask=lambda imaging, spacing, autocast: imaging > 100)

    def load(folder: Path | None, accelerator: object) -> predict.Models:
        return predict.Models(
            kidney=kidney, tumor=None, accelerator=accelerator, about=about, description="test"
        )

    def segment(imaging: np.ndarray, *words: object, **options: object) -> SimpleNamespace:
        return SimpleNamespace(labels=(imaging > 100).astype(np.uint8))

    said = io.StringIO()
    words = ["predict", *(str(item.path) for item in items), "-o", str(out), "--device", "cpu"]
    with (
        mock.patch.object(predict.Models, "load", load),
        mock.patch.object(predict, "segment", segment),
        redirect_stderr(said), redirect_stdout(io.StringIO()),
    ):  # fmt: skip
        kitslib(words)
    broken = []
    for path in out.iterdir():
        name = path.name.removeprefix("prediction_").partition(".")[0]
        whole = all((out / f"prediction_{name}{end}").is_file() for end in (".nii.gz", ".json"))
        if path.name.startswith(".") or (path.name != "predictions.csv" and not whole):
            broken.append(path.name)
        if path.name.endswith(".nii.gz"):
            read_labels(path)
    return said.getvalue(), broken


def main(arguments: Sequence[str]) -> int:
    """Try the inputs and publish a table by kind; 1 where one went wrong."""
    options = argparse.ArgumentParser(prog="python -m benchmarks damaged", description=__doc__)
    add = options.add_argument
    add("--count", type=int, default=400, help="inputs (%(default)s)")
    add("--seed", type=int, default=0, help="of the first (%(default)s)")
    add("--out", type=Path, help="folder for damaged.md and damaged.json; else only printed")
    args = options.parse_args(arguments)
    found: dict[str, Counter[str]] = {}
    with TemporaryDirectory() as folder:
        seeds = range(args.seed, args.seed + args.count)
        items = [damaged(seed, Path(folder) / "in") for seed in seeds]
        for item in items:
            result, text = verdict(item)
            found.setdefault(item.kind, Counter())[result] += 1
            if result not in GOOD:
                print(item.path.name, item.kind, result, text)
        said, broken = predicted(items, Path(folder) / "out")
    rows = []
    for kind, counts in found.items():
        rows.append({"damage": kind} | {name: counts[name] for name in VERDICTS})
    wrong = sum(row[name] for row in rows for name in VERDICTS if name not in GOOD)
    traces = said.count("Traceback")
    facts = conditions(1, 1)
    report = Report(
        name="damaged",
        question="Is each damaged scan refused in one sentence, or read to the right values?",
        command=command("damaged", arguments),
        conditions={name: facts[name] for name in ("processor", "versions")},
        tables=[Table(title="Inputs by damage", note=__doc__.partition("\n\n")[2], rows=rows)],
        bounds=[
            f"{args.count} inputs: {wrong} wrong or with a traceback, 0 asked: "
            + ("met" if not wrong else "missed"),
            f"predict, all in one call: {traces} tracebacks and {len(broken)} files not whole, 0 "
            + ("asked: met" if not traces + len(broken) else "asked: missed"),
        ],
    )
    report.publish(args.out)
    return int(wrong + traces + len(broken) > 0)
