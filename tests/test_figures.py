"""Figures: the right way up, at true aspect, in colours that everybody can tell apart."""

from __future__ import annotations

import base64
import itertools
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from kitslib.reporting import FigureError, figures

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
)


@pytest.fixture(autouse=True)
def styled():
    """Figures in the pages' own style, whatever other tests have set."""
    with matplotlib.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def linear(color: str) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_labels_are_told_apart_by_every_reader(deficiency):
    matrix = np.asarray(DEFICIENCIES[deficiency])
    seen = {
        name: lab(matrix @ linear(figures.PALETTE[name])) for name in ("kidney", "tumor", "cyst")
    }
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 30, (one, other)
    pair = [lab(matrix @ linear(figures.PALETTE[name])) for name in ("truth", "prediction")]
    assert np.linalg.norm(pair[0] - pair[1]) > 30


@pytest.mark.parametrize("name", figures.PALETTE)
def test_every_colour_stands_out_on_white(name):
    luminance = TO_XYZ[1] @ linear(figures.PALETTE[name])
    assert 1.05 / (luminance + 0.05) >= 3.0


def test_figure_html_holds_picture_caption_and_alt():
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, 1])
    html = figures.figure_html(fig, caption="Dice < 1", alt='a "rising" line')
    assert html.startswith("<figure") and html.endswith(
        "<figcaption>Dice &lt; 1</figcaption></figure>"
    )
    assert 'alt="a &quot;rising&quot; line"' in html
    jpeg = re.search(r'src="data:image/jpeg;base64,([^"]+)"', html)[1]
    assert base64.b64decode(jpeg).startswith(b"\xff\xd8\xff")
    png = re.search(
        r'src="data:image/png;base64,([^"]+)"',
        figures.figure_html(fig, caption="c", alt="a", format="png"),
    )
    assert base64.b64decode(png[1]).startswith(b"\x89PNG")
    assert html == figures.figure_html(fig, caption="Dice < 1", alt='a "rising" line')


@pytest.mark.parametrize(("caption", "alt", "missing"), [("", "a", "caption"), ("c", "  ", "alt")])
def test_a_figure_without_words_is_refused(caption, alt, missing):
    with pytest.raises(FigureError, match=missing):
        figures.figure_html(plt.figure(), caption=caption, alt=alt)


def test_show_displays_html_and_closes(monkeypatch):
    shown = []
    monkeypatch.setattr("kitslib.reporting.figures.style.display", shown.append)
    fig = plt.figure(figsize=(1, 1))
    figures.show(fig, "A caption.", "An alt text.")
    assert "<figcaption>A caption.</figcaption>" in shown[0].data
    assert not plt.fignum_exists(fig.number)


def test_planes_keep_head_up_and_right_at_the_left():
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert figures.plane_slice(volume, "axial", 1).tolist() == [
        [12, 13, 14, 15],
        [16, 17, 18, 19],
        [20, 21, 22, 23],
    ]
    assert figures.plane_slice(volume, "coronal", 2).tolist() == [[8, 9, 10, 11], [20, 21, 22, 23]]
    assert figures.plane_slice(volume, "sagittal", 0).tolist() == [[0, 4, 8], [12, 16, 20]]
    assert [
        figures.plane_spacing((5, 2, 1), plane) for plane in ("axial", "coronal", "sagittal")
    ] == [(2.0, 1.0), (5.0, 1.0), (5.0, 2.0)]


def test_overlay_panel_is_drawn_at_true_aspect_and_row_0_on_top():
    image = np.zeros((4, 6))
    truth = np.zeros((4, 6), np.uint8)
    truth[0, 0], truth[3, 5] = 2, 1
    ax = figures.overlay_panel(plt.subplots()[1], image, truth, spacing=(5.0, 0.5), plane="coronal")
    assert ax.get_aspect() == 10.0
    assert ax.get_ylim() == (3.5, -0.5)
    fill = ax.images[1].get_array()
    assert fill[0, 0, :3].tolist() == pytest.approx(to_rgb(figures.PALETTE["tumor"]), abs=1e-6)
    assert fill[3, 5, :3].tolist() == pytest.approx(to_rgb(figures.PALETTE["kidney"]), abs=1e-6)
    assert (fill[..., 3] > 0).sum() == 2
    assert [text.get_text() for text in ax.texts][:4] == ["R", "L", "H", "F"]


def test_overlay_panel_refuses_labels_of_another_shape():
    with pytest.raises(
        FigureError, match=r"prediction: expected the image's shape \(4, 6\), got \(4, 5\)"
    ):
        figures.overlay_panel(
            plt.subplots()[1], np.zeros((4, 6)), None, np.zeros((4, 5)), spacing=(1, 1)
        )


def test_focus_prefers_tumour_then_cyst_then_kidney():
    labels = np.zeros((5, 6, 7), np.uint8)
    assert figures.focus_voxel(labels, labels.shape) == (2, 3, 3)
    labels[1, 1:5, 1:5] = 1
    assert figures.focus_voxel(labels, labels.shape)[0] == 1
    labels[3, 2, 6] = 3
    assert figures.focus_voxel(labels, labels.shape) == (3, 2, 6)
    labels[4, 5, 0] = 2
    assert figures.focus_voxel(labels, labels.shape) == (4, 5, 0)


def test_three_planes_meet_in_the_tumour():
    volume = np.random.default_rng(0).integers(-100, 200, (4, 6, 8))
    labels = np.zeros(volume.shape, np.uint8)
    labels[1, 2, 3] = 2
    fig = figures.three_planes(volume, labels, spacing=(5, 1, 1))
    drawn = [np.asarray(ax.images[0].get_array()) for ax in fig.axes]
    for picture, expected in zip(drawn, (volume[1], volume[:, 2], volume[:, :, 3]), strict=True):
        assert np.array_equal(picture, expected)
    assert [ax.get_aspect() for ax in fig.axes] == [1.0, 5.0, 5.0]


def test_case_view_cuts_to_the_labels_and_a_margin():
    imaging = np.zeros((3, 100, 100), np.int16)
    truth = np.zeros(imaging.shape, np.uint8)
    truth[1, 40:50, 30:40] = 2
    view = figures.case_view("a case", imaging, truth, np.zeros_like(truth), spacing=(3, 1, 2.5))
    assert view.image.shape == (10 + 2 * 25, 10 + 2 * 10)
    assert int(view.truth.sum()) == 200 and view.spacing == (1.0, 2.5)
    assert view.image.base.ndim == view.truth.base.ndim == 2  # the volumes can go
    fig = figures.case_grid([view] * 4, columns=3)
    assert [ax.get_title(loc="left") for ax in fig.axes if ax.get_visible()] == ["a case"] * 4
    with pytest.raises(FigureError, match="at least one case"):
        figures.case_grid([])


def test_forest_fills_only_effects_whose_interval_excludes_zero():
    rows = [
        {"label": "se", "effect": 0.02, "low": -0.01, "high": 0.05},
        {"label": "hdc", "effect": 0.05, "low": 0.01, "high": 0.09},
        {"label": "mirror", "effect": -0.05, "low": -0.09, "high": -0.0002},
    ]
    ax = figures.forest(rows)
    assert [text.get_text() for text in ax.texts][1:] == [
        "+0.050  [+0.010, +0.090]",
        "−0.050  [−0.090, −0.0002]",
    ]
    faces = [tuple(points.get_facecolor()[0][:3]) for points in ax.collections]
    expected = [
        (1.0, 1.0, 1.0),
        to_rgb(figures.PALETTE["kidney"]),
        to_rgb(figures.PALETTE["tumor"]),
    ]
    assert faces == [pytest.approx(color) for color in expected]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["se", "hdc", "mirror"]
    with pytest.raises(FigureError, match=r"label, effect, low, high.*1 rows with label, effect"):
        figures.forest([{"label": "se", "effect": 0.1}])


def test_dice_strip_marks_the_mean():
    table = {"arm": ["a", "a", "b"], "dice": [0.2, 0.6, 0.9]}
    ax = figures.dice_strip(table, {"a": (0.1, 0.7)})
    means = [points.get_offsets()[0].tolist() for points in ax.collections[1::2]]
    assert means == [[pytest.approx(0.4), 0.0], [pytest.approx(0.9), 1.0]]
    assert [list(line.get_xdata()) for line in ax.lines] == [[0.1, 0.7]]


def test_dice_against_volume_says_what_a_logarithm_cannot_show():
    ax = figures.dice_against_volume({"tumor_ml": [0.0, 3.0, 30.0], "dice": [0.0, 0.5, 0.7]})
    assert ax.collections[0].get_offsets().tolist() == [[3.0, 0.5], [30.0, 0.7]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1 with 0 ml not shown"]


def test_hu_densities_integrate_to_one_and_show_the_median():
    ax = figures.hu_distributions({"cyst": np.arange(0, 21), "fat": np.full(10, -100.0)})
    for stairs in ax.patches[1::2]:
        values, edges, _ = stairs.get_data()
        assert (values * np.diff(edges)).sum() == pytest.approx(1.0)
    assert [line.get_xdata()[0] for line in ax.lines] == [10.0, -100.0]
    assert ax.lines[0].get_color() == figures.PALETTE["cyst"] != ax.lines[1].get_color()


def test_difficulty_puts_the_hardest_case_on_top():
    rows = [
        {"epoch": epoch, "case": case, "difficulty": value}
        for epoch, case, value in [(0, "x", 0.9), (0, "y", 0.1), (5, "x", 0.2), (5, "y", 0.8)]
    ]
    ax = figures.difficulty_over_time(rows)
    assert ax.images[0].get_array().tolist() == [[0.1, 0.8], [0.9, 0.2]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["y", "x"]


def test_learning_curves_average_over_seeds():
    history = {"epoch": [0, 1, 0, 1], "seed": [0, 0, 1, 1], "dice": [0.0, 0.4, 0.2, 0.8]}
    fig = figures.learning_curves(
        {"full": history, "baseline": {"epoch": [0, 1], "loss": [1.0, 0.5]}}
    )
    loss, dice = fig.axes
    assert [list(line.get_ydata()) for line in loss.lines] == [[1.0, 0.5]]
    assert list(dice.lines[-1].get_ydata()) == pytest.approx([0.1, 0.6]) and len(dice.lines) == 3
    with pytest.raises(FigureError, match="history 'full': expected rows with epoch"):
        figures.learning_curves({"full": {"loss": [1.0]}})


def test_a_cohort_at_a_glance_counts_every_case_once():
    table = {
        "spacing_z": [5.0, 3.0, 3.0], "slices": [60, 90, 100], "kidney_slices": [0.3, 0.4, 0.5],
        "kidney_and_masses_ml": [300.0, 400.0, 500.0], "tumor_ml": [1.0, 30.0, 900.0],
        "cyst_ml": [0.0, 0.0, 2.0],
    }  # fmt: skip
    fig = figures.cohort_at_a_glance(table)
    assert [sum(bar.get_height() for bar in ax.patches) for ax in fig.axes] == [3, 3, 3, 3, 3, 1]
    assert [ax.get_xscale() for ax in fig.axes] == ["linear"] * 4 + ["log", "linear"]
    assert fig.axes[5].get_xlabel() == "cysts, ml (2 without)"
    assert fig.axes[4].patches[0].get_facecolor()[:3] == pytest.approx(
        to_rgb(figures.PALETTE["tumor"])
    )
    with pytest.raises(FigureError, match=r"cohort: expected rows with .*cyst_ml, got 3 rows"):
        figures.cohort_at_a_glance(
            {name: values for name, values in table.items() if name != "cyst_ml"}
        )


def test_a_cohort_is_drawn_beside_its_reference():
    cases = [{"ml": 1.0}, {"ml": 3.0}, {"ml": 0.0}]
    tissues = [
        {"liver": 100.0, "noise": np.nan},
        {"liver": 110.0, "noise": np.nan},
        {"liver": 150.0, "noise": np.nan},
    ]
    scans = [{"liver": 115.0, "noise": 12.0}, {"liver": 117.0, "noise": 14.0}]
    fig = figures.cohort_comparison(
        cases, tissues, {"ml": [2.0, 4.0]}, scans, labels={"ml": "tumour, ml"}
    )
    curves, strip = fig.axes
    assert [line.get_xdata().max() for line in curves.lines] == [4.0, 3.0]
    assert [text.get_text() for text in curves.get_legend().get_texts()] == [
        "KiTS19, n = 2",
        "this cohort, n = 2",
    ]
    assert [label.get_text() for label in strip.get_yticklabels()] == ["liver"], (
        "a tissue nobody found has no row"
    )
    assert strip.lines[0].get_xdata().tolist() == [110.0, 110.0]
    assert strip.collections[1].get_offsets()[:, 0].tolist() == [115.0, 117.0]
    assert (
        len(figures.cohort_comparison(cases, [], {"ml": [2.0]}, scans, labels={"ml": "ml"}).axes)
        == 1
    )
    with pytest.raises(FigureError, match="ml: expected positive values"):
        figures.cohort_comparison(cases, [], {"ml": [0.0]}, scans, labels={"ml": "ml"})


def test_false_positives_are_split_by_cyst_where_cysts_are_known() -> None:
    rows = [
        {"case": "case_00001", "fp_ml": 5.0, "cyst_fp_ml": 2.0},
        {"case": "case_00002", "fp_ml": 9.0, "cyst_fp_ml": None},
        {"case": "case_00003", "fp_ml": 1.0, "cyst_fp_ml": 0.0},
    ]
    ax = figures.false_positive_split(rows)
    widths = [[bar.get_width() for bar in group] for group in ax.containers]
    assert widths == [[0, 2, 0], [1, 3, 0], [0, 0, 9]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["00003", "00001", "00002"]
    with pytest.raises(figures.FigureError, match="cyst_fp_ml"):
        figures.false_positive_split([{"case": "a", "fp_ml": 1.0}])


@pytest.mark.filterwarnings("error")
def test_arms_that_cost_alike_keep_their_names_apart() -> None:
    rows = [
        {"arm": name, "dice": dice, "low": dice - 0.2, "high": dice + 0.2, "parameters": cost,
         "train_s": cost / 2e4}
        for name, dice, cost in (
            ("multi_scale", 0.553, 1.20e6), ("se", 0.554, 1.21e6), ("attention", 0.5535, 1.215e6),
            ("hdc", 0.56, 1.4e6), ("baseline", 0.3, 1.0e6),
        )
    ]  # fmt: skip
    fig = figures.dice_against_cost(rows, {"parameters": "parameters", "train_s": "training, s"})
    for ax in fig.axes:
        assert {text.get_text() for text in ax.texts} == {row["arm"] for row in rows}
        boxes = [text.get_window_extent() for text in ax.texts]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        dots = ax.transData.transform([text.xy for text in ax.texts])
        assert not any(box.contains(*dot) for box in boxes for dot in dots)
        gaps = [
            min(abs(box.x0 - dot[0]), abs(box.x1 - dot[0]))
            for box, dot in zip(boxes, dots, strict=True)
        ]
        assert max(gaps) < 20, "a name stands beside its dot"
