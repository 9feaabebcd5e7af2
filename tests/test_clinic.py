"""Patients of any clinic: forms of kidneys, phases, fields; KiTS's cohort stays as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from kitslib.commands import main
from kitslib.phantom import draw_case, render_case, render_label_map, write_cohort
from kitslib.phantom.clinic.frame import Body
from kitslib.phantom.clinic.kidneys import FORM_SHARES, FORMS, _of_form
from kitslib.phantom.clinic.patient import COVERAGE_SHARES, FIELD_SHARES, PHASE_SHARES, PHASES
from kitslib.phantom.clinic.rare import Streaks
from kitslib.phantom.population import draw_pair, draw_ranks
from kitslib.phantom.renal import Renal
from kitslib.phantom.shapes import Grid

QUICK = {"variety": "clinic", "pixel": 6.0, "spacing_z": (6.0,)}


def test_shares_add_up() -> None:
    for shares in (FORM_SHARES, FIELD_SHARES, COVERAGE_SHARES, PHASE_SHARES):
        assert sum(shares) == pytest.approx(1)


def test_a_case_is_decided_by_seed_and_number() -> None:
    first, again = (render_case(3, seed=5, tumor_free=0.4, **QUICK) for _ in range(2))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    imaging, labels, spacing = first
    assert imaging.dtype == np.int16 and imaging.shape == labels.shape and spacing == (6, 6, 6)
    other, _, _ = render_case(4, seed=5, tumor_free=0.4, **QUICK)
    assert other.shape != imaging.shape or not np.array_equal(other, imaging)


def test_some_patients_have_no_tumor_and_all_have_kidney() -> None:
    with_tumor = []
    for share in (0.0, 1.0):
        maps = [render_label_map(i, seed=2, tumor_free=share, **QUICK)[0] for i in range(12)]
        assert all((labels == 1).any() for labels in maps)
        with_tumor.append(sum((labels == 2).any() for labels in maps))
    assert with_tumor[0] >= 9 and with_tumor[1] == 0  # a tumour may lie where the field ends


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_kidneys(form: str) -> None:
    rng = np.random.default_rng(1)
    pair, ml = draw_pair(rng, draw_ranks(0, 0), 0.5)
    kidneys = _of_form(rng, form, pair, ml)
    grid = Grid((70, 80, 80), (5.0, 4.0, 4.0), (28.0, 40.0, 40.0))
    labels = Renal(kidneys, [], []).label_map(grid, 2.5)
    pieces, count = ndimage.label(labels, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:] * 0.08
    assert count == (1 if form in ("single", "horseshoe") else 2) and sizes.min() > 10
    low = np.argwhere(labels)[:, 0].max() * 5 - 140
    assert (low > 140) == (form == "pelvic")
    assert any(kidney.urine is not None for kidney in kidneys) == (form == "dilated")


def test_phases_are_told_apart_by_the_kidneys_and_the_urine() -> None:
    found: dict[str, list] = {phase: [] for phase in PHASES}
    for index in range(80):
        _, patient, *_ = draw_case(index, 11, **QUICK)
        found[patient.values.phase].append(patient.values)
    means = {phase: np.median([v.kidney for v in values]) for phase, values in found.items()}
    assert means["none"] < 60 < means["late"] < means["portal"]
    assert np.median([v.pelvis for v in found["late"]]) > 200
    arterial = np.median([v.artery - v.vein for v in found["arterial"]])
    assert arterial > 100


def test_fields_of_view_reach_from_chest_to_thigh() -> None:
    tops, ends, fields = [], [], []
    for index in range(60):
        protocol, patient, _, grid, _ = draw_case(
            index, 4, matrix=64, spacing_z=(5.0,), variety="clinic"
        )
        z = grid.mm(0, np.array([0, grid.shape[0] - 1]))
        tops.append(z[0] < patient.dome[0] - 60)
        ends.append(z[1] > patient.crotch)
        fields.append(protocol.field_of_view / protocol.body_mm)
    assert sum(tops) >= 5 and sum(ends) >= 5
    assert min(fields) < 0.9 and max(fields) > 1.4


def test_legs_are_apart_below_and_the_floor_ends_the_abdomen() -> None:
    _, patient, _, grid, rng = draw_case(0, 1, **QUICK)
    z = np.array([patient.crest, patient.crotch + 90.0], np.float32)
    body = Body(patient, grid, rng["scene"])
    skin = body.outside("skin", z) < 0
    pieces = [ndimage.label(plane)[1] for plane in skin]
    assert pieces == [1, 2]
    cavity = body.outside("cavity", z) < 0
    assert cavity[0].any() and not cavity[1].any()


@pytest.mark.parametrize("index", [1, 2, 5])
def test_around_the_kidneys_is_part_of_the_whole(index: int) -> None:
    whole, _ = render_label_map(index, seed=9, **QUICK)
    imaging, part, _ = render_case(index, seed=9, around_kidneys=True, **QUICK)
    assert part.size < 0.6 * whole.size and imaging.shape == part.shape
    counts = [np.bincount(labels.ravel(), minlength=4)[1:] for labels in (part, whole)]
    assert np.array_equal(*counts)
    assert (imaging > -1500).all()  # no corners of the field are filled in a part of it


def test_streaks_come_from_the_metal_and_fade() -> None:
    grid = Grid((5, 41, 41), (5.0, 5.0, 5.0), (2.0, 20.0, 20.0))
    (slab,) = grid.slabs(5.0)
    hu = np.zeros(slab.shape, np.float32)
    Streaks(np.zeros(3), 6.0, 10.0, np.array([[2, 100.0, 0.0]])).paint(hu, slab, hu)
    assert not hu[[0, 4]].any() and hu[2, 20, 20] == 0
    assert hu[2, 20, 24] > hu[2, 20, 36] > 0 > hu[2, 24, 20]  # rays along the rows


def test_kits_cohorts_say_nothing_of_varieties(tmp_path: Path) -> None:
    how = {"cases": 1, "seed": 3, "matrix": 32, "spacing_z": (10.0,)}
    write_cohort(tmp_path / "a", **how)
    write_cohort(tmp_path / "b", variety="clinic", tumor_free=0.5, **how)
    markers = []
    for name in "ab":
        text = (tmp_path / name / "case_00000" / "synthetic.json").read_text()
        markers.append(json.loads(text)["parameters"])
    assert set(markers[1]) - set(markers[0]) == {"variety", "tumor_free"}
    assert markers[0]["generator"] == 2 and markers[1]["generator"] == "clinic 2"
    with pytest.raises(ValueError, match="choose 'clinic'"):
        write_cohort(tmp_path / "c", tumor_free=0.5, **how)
    with pytest.raises(ValueError, match="'hospital'"):
        write_cohort(tmp_path / "c", variety="hospital", **how)


def test_the_command_writes_them(tmp_path: Path) -> None:
    words = ["phantom", str(tmp_path / "o"), "--cases", "1", "--matrix", "32", "--jobs", "1"]
    assert main([*words, "--variety", "clinic", "--tumor-free", "1"]) == 0
    (row,) = json.loads((tmp_path / "o" / "kits.json").read_text())
    assert row["volume_ml"]["tumor"] == 0


def test_a_kidney_keeps_its_own_urine() -> None:
    _, _, renal, grid, _ = draw_case(0, 1, **QUICK)
    renal = replace(renal, kidneys=[replace(k, urine=7.0) for k in renal.kidneys])
    parts = [part for slab in grid.slabs(6.0) for part in renal.sample(slab)]
    assert {part.urine for part in parts if part.label == 1} == {7.0}
