"""How large the cases are, from their headers or from the numbers that the synthetic ones are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from kitslib.config import KidneyGrid, RunConfig, TumorGrid
from kitslib.data import CaseError, kidney_mapping, open_volume, study_files
from kitslib.phantom import draw_case, render_label_map
from kitslib.transforms import bounding_box

Triple = tuple[float, float, float]
DRAWN = 16  # synthetic cases whose size is looked at; they are spread evenly over the cohort's distributions
MODELS = 4  # synthetic label maps that say how large a box two kidneys fill


@dataclass(frozen=True, kw_only=True)
class CaseSize:
    """Shape (D, H, W) and spacing (z, y, x) in mm of a case, and bytes of a stored voxel."""

    case_id: str
    shape: tuple[int, int, int]
    spacing: Triple
    stored: int = 2

    @property
    def voxels(self) -> int:
        """Number of voxels in the scan's own grid."""
        return int(np.prod(self.shape))


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The cases of a study by size; `unreadable` ones are left out. `kidneys` is the mm of the box around both."""

    cases: tuple[CaseSize, ...]
    kidneys: Triple
    unreadable: tuple[str, ...] = ()
    sample: Path | None = None  # an imaging file to time the reading of; None: synthetic cases

    @cached_property
    def voxels(self) -> int:
        """Voxels of all cases together."""
        return sum(case.voxels for case in self.cases)

    @property
    def largest(self) -> CaseSize:
        """The case with most voxels."""
        return max(self.cases, key=lambda case: case.voxels)

    @property
    def typical(self) -> CaseSize:
        """The case of median size."""
        return sorted(self.cases, key=lambda case: case.voxels)[len(self.cases) // 2]

    def tumor_shape(self, case: CaseSize, grid: TumorGrid) -> tuple[int, int, int]:
        """Shape of a case on the tumour stage's grid, where its kidneys are of usual size."""
        pixel = case.spacing[1:] if grid.spacing_xy is None else (grid.spacing_xy, grid.spacing_xy)
        whole = [n * mm for n, mm in zip(case.shape, case.spacing, strict=True)]
        box = [
            min(mm, side + 2 * grid.margin_mm) for mm, side in zip(whole, self.kidneys, strict=True)
        ]
        if grid.region == "slice":
            box[1:] = whole[1:]
        steps = (grid.spacing_z, *pixel)
        depth, rows, columns = (
            max(1, round(mm / step)) for mm, step in zip(box, steps, strict=True)
        )
        return depth, rows, columns


def kidney_shape(case: CaseSize, grid: KidneyGrid) -> tuple[int, int, int]:
    """Shape of a case on the kidney stage's grid."""
    return kidney_mapping(case.shape, case.spacing, grid).stage.shape


def cohort_sizes(config: RunConfig) -> Sizes:
    """The cases that a configuration trains and scores on. Raises CaseError where none can be read."""
    return _synthetic(config) if config.synthetic else _real(config)


def _real(config: RunConfig) -> Sizes:
    files = study_files(config, Path(config.data))
    cases, unreadable = [], []
    for item in files:
        try:
            with open_volume(item.imaging) as volume:
                place = volume.geometry
                cases.append(
                    CaseSize(
                        case_id=item.case_id,
                        shape=place.canonical_shape,
                        spacing=place.spacing,
                        stored=volume.dtype.itemsize,
                    )
                )
        except (CaseError, OSError):
            unreadable.append(item.case_id)
    if not cases:
        raise CaseError(
            f"{config.data}: expected cases with imaging and {config.cohort.labels} labels, found none that can be "
            "read; python -m kitslib check says what is wrong",
            code="no_cases",
        )
    sample = next(item.imaging for item in files if item.case_id == cases[0].case_id)
    return Sizes(
        cases=tuple(cases), kidneys=_kidneys(), unreadable=tuple(unreadable), sample=sample
    )


def _synthetic(config: RunConfig) -> Sizes:
    wanted = config.cohort
    drawn = []
    for index in range(min(DRAWN, wanted.cases)):
        grid = draw_case(
            index,
            seed=wanted.seed,
            matrix=wanted.matrix,
            spacing_z=wanted.spacing_z,
            cysts=wanted.cysts,
        )[3]
        drawn.append((grid.shape, grid.spacing))
    cases = [
        CaseSize(case_id=f"case_{index:05}", shape=shape, spacing=spacing)
        for index in range(wanted.cases)
        for shape, spacing in (drawn[index % len(drawn)],)
    ]
    return Sizes(cases=tuple(cases), kidneys=_kidneys())


def _kidneys() -> Triple:
    """Mean (z, y, x) mm of the box around both kidneys in a few synthetic patients, who are built as those of KiTS."""
    boxes = []
    for index in range(MODELS):
        labels, spacing = render_label_map(index, seed=0, matrix=64, spacing_z=(5.0,))
        boxes.append(
            [(s.stop - s.start) * mm for s, mm in zip(bounding_box(labels), spacing, strict=True)]
        )
    depth, rows, columns = np.mean(boxes, axis=0).tolist()
    return depth, rows, columns
