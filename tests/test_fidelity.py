"""Fidelity: tissue is found where it was put, figures have sources, bounds can fail."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from kitslib.data import find_cases, load_case
from kitslib.phantom import (
    GEOMETRY,
    complex_cysts,
    find_tissues,
    geometry_rows,
    hu_rows,
    kits_reference,
    label_geometry,
    overlap_row,
    render_case,
    render_label_map,
    sample_geometry,
)
from kitslib.phantom.scene import draw_case

ROOT = Path(__file__).resolve().parent.parent


def test_geometry_of_a_label_map_on_paper() -> None:
    labels = np.zeros((6, 10, 10), np.uint8)
    labels[1:5, :5, :5], labels[2, 0, :2], labels[4, 1, 0] = 1, 2, 3
    expected = {"kidney_ml": 0.98, "tumor_ml": 0.02, "cyst_ml": 0.01, "extent_mm": 20.0}
    assert label_geometry(labels, (5.0, 2.0, 1.0)) == pytest.approx(expected)
    assert set(label_geometry(labels * 0, (5.0, 2.0, 1.0)).values()) == {0.0}


def test_the_figures_are_those_of_the_public_label_maps(shared: Path) -> None:
    with (shared / "kits_geometry.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kits19_kidney_ml"]]
    ours = kits_reference().geometry
    for name, column in (
        ("kidney_ml", "kits19_kidney_ml"),
        ("tumor_ml", "kits19_tumor_ml"),
        ("cyst_ml", "kits23_cyst_ml"),
    ):
        np.testing.assert_allclose(ours[name], [float(row[column]) for row in rows], atol=0.06)
    first_last = [(int(row["kidney_first_slice"]), int(row["kidney_last_slice"])) for row in rows]
    extent = [
        (b - a + 1) * float(row["spacing_z_mm"])
        for (a, b), row in zip(first_last, rows, strict=True)
    ]
    np.testing.assert_allclose(ours["extent_mm"], extent, atol=0.06)
    share = [(b - a + 1) / int(row["slices"]) for (a, b), row in zip(first_last, rows, strict=True)]
    np.testing.assert_allclose(ours["kidney_slices"], share, atol=6e-4)


def test_the_figures_have_sources_and_travel_with_the_package() -> None:
    reference = kits_reference()
    assert {len(values) for values in reference.geometry.values()} == {210}
    assert set(reference.sources) == {"geometry", "hu", "label_versions"}
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]["kitslib"]
    packaged = {path for pattern in patterns for path in (ROOT / "kitslib").glob(pattern)}
    assert ROOT / "kitslib" / "phantom" / "reference.json" in packaged


def test_the_real_scans_measure_as_the_figures_say(shared: Path) -> None:
    for item in find_cases(shared / "realct"):
        if item.case_id not in kits_reference().hu:
            continue
        case = load_case(item)
        labels = case.labels
        if labels is None:  # kidneys by threshold in two boxes, as the source says
            labels = np.zeros(case.imaging.shape, np.uint8)
            for z, y, x in (((24, 36), (230, 300), (135, 205)), ((21, 34), (235, 320), (285, 372))):
                box = slice(*z), slice(*y), slice(*x)
                labels[box] = (
                    ndimage.uniform_filter(case.imaging[box].astype(np.float32), (1, 5, 5)) > 140
                )
        found = find_tissues(case.imaging, labels, case.spacing).medians
        assert found == pytest.approx(dict(kits_reference().hu[item.case_id]), abs=0.6), (
            item.case_id
        )


@pytest.mark.parametrize("index", [1, 4])
def test_tissue_is_found_where_the_phantom_put_it(index: int) -> None:
    options = {"seed": 19, "matrix": 128, "spacing_z": (5.0,)}
    imaging, labels, spacing = render_case(index, **options)
    found = find_tissues(imaging, labels, spacing)
    drawn = draw_case(index, **options)[1].values
    for name in ("liver", "muscle", "fat"):
        assert found.medians[name] == pytest.approx(getattr(drawn, name), abs=4), name
        assert len(found.hu[name]) > 200
    assert np.array_equal(np.sort(found.hu["kidney"]), np.sort(imaging[labels == 1]))
    louder = imaging + np.random.default_rng(0).normal(0, 9, imaging.shape).round().astype(np.int16)
    noise = find_tissues(louder, labels, spacing).noise
    assert noise == pytest.approx(np.hypot(found.noise, 9), rel=0.08)


def test_tissue_without_kidneys_is_refused() -> None:
    with pytest.raises(ValueError, match="expected labels with kidney"):
        find_tissues(np.zeros((4, 8, 8), np.int16), np.zeros((4, 8, 8), np.uint8), (5.0, 2.0, 2.0))


def test_too_little_tissue_is_nan_and_not_a_number_from_nothing() -> None:
    labels = np.zeros((4, 32, 32), np.uint8)
    labels[1:3, 10:14, 6:10] = labels[1:3, 10:14, 22:26] = 1
    found = find_tissues(
        np.where(labels > 0, 150, -1000).astype(np.int16), labels, (5.0, 4.0, 4.0)
    ).medians
    assert found["kidney"] == 150 and all(
        np.isnan(found[name]) for name in ("liver", "muscle", "fat", "noise")
    )


def test_complex_cysts_are_told_from_simple_ones() -> None:
    options = {"seed": 3, "matrix": 96, "spacing_z": (5.0,)}
    kinds = {
        i: {c.appearance.kind for c in draw_case(i, **options)[2].cysts} for i in (1, 2, 3, 5, 12)
    }
    assert {len(kind) for kind in kinds.values()} == {0, 1, 2}, (
        "cases without, of one kind, and of both"
    )
    for index, kind in kinds.items():
        labels, _ = render_label_map(index, **options)
        chosen = complex_cysts(labels, index, **options)
        assert not (chosen & (labels != 3)).any()
        if kind == {"complex cyst"}:
            assert np.array_equal(chosen, labels == 3)
        elif "complex cyst" not in kind:
            assert not chosen.any()
        else:
            assert 0 < chosen.sum() < (labels == 3).sum()
    with pytest.raises(ValueError, match="give its parameters"):
        complex_cysts(labels, index, seed=3)


def test_a_coarse_sample_measures_what_the_cohort_has() -> None:
    sample = sample_geometry(seed=19, cases=2)
    for index, coarse in enumerate(sample):
        fine = label_geometry(*render_label_map(index, seed=19, matrix=192, spacing_z=(2.5,)))
        for name in GEOMETRY:
            assert coarse[name] == pytest.approx(
                fine[name], rel=0.04, abs=5 if name == "extent_mm" else 0.2
            ), name


def test_the_phantom_is_within_the_bounds_over_200_cases() -> None:
    rows = geometry_rows(sample_geometry(seed=19, jobs=2))
    assert [row["n"] for row in rows] == [200] * 4 and all(row["holds"] for row in rows), rows


def test_a_cohort_unlike_kits_is_said_to_be() -> None:
    reference = kits_reference().geometry
    same = [
        dict(zip(reference, values, strict=True))
        for values in zip(*reference.values(), strict=True)
    ]
    for row in geometry_rows(same):
        assert row["holds"] and row["difference"] == "+0%" and (row["ks"] or 0) == 0
    small = geometry_rows(
        [{**case, "tumor_ml": case["tumor_ml"] / 2, "cyst_ml": np.nan} for case in same]
    )
    assert [(row["quantity"], row["holds"]) for row in small] == [
        ("kidneys, ml", True), ("tumour, ml", False), ("kidneys along z, mm", True),
    ]  # fmt: skip
    assert small[1]["difference"] == "-50%" and small[1]["ks"] > 0.15


def test_hu_is_held_against_the_mean_of_the_real_scans() -> None:
    liver = kits_reference().tissue("liver")
    medians = [
        {"kidney": np.nan, "liver": liver + d, "muscle": 0.0, "fat": np.nan, "noise": np.nan}
        for d in (4, 20, 24)
    ]
    rows = {row["quantity"]: row for row in hu_rows(medians)}
    assert set(rows) == {"liver, HU", "muscle, HU"}, "what nobody measured has no row"
    assert rows["liver, HU"]["holds"] and rows["liver, HU"]["difference"] == "+20 HU"
    assert not rows["muscle, HU"]["holds"]
    assert overlap_row(0.41, 5)["holds"] and not overlap_row(0.39, 5)["holds"]
    nothing = overlap_row(float("nan"), 0)
    assert nothing["holds"] is None and nothing["here"] is None
