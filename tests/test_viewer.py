"""Viewer: every slice where it belongs, overlays on the right pixels, nothing random."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from kitslib import reporting
from kitslib.reporting import PALETTE, Viewer, ViewerError


def picture(code: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGBA")).astype(int)


def small(**options) -> Viewer:
    imaging = np.full((6, 8, 10), -1000, np.int16)
    return reporting.slice_viewer(imaging, spacing=(5.0, 1.0, 2.0), title="small", **options)


@pytest.mark.parametrize(
    ("plane", "expected"),
    [
        ("axial", (340, round(340 * 8 / 20))),
        ("coronal", (340, 340 * 30 // 20)),
        ("sagittal", (340, 340 * 30 // 8)),
    ],
)
def test_pictures_have_the_shape_of_the_body(plane, expected):
    shown = small(plane=plane)
    assert shown.size == expected
    assert picture(shown.frames["abdomen"][0]).shape[:2] == expected[::-1]


@pytest.mark.parametrize(("plane", "index"), [("axial", 0), ("coronal", 0), ("sagittal", 0)])
def test_the_first_voxel_is_at_the_upper_left(plane, index):
    imaging = np.full((6, 8, 10), -1000, np.int16)
    imaging[:2, :2, :2] = 1000
    frame = picture(
        reporting.slice_viewer(imaging, spacing=(2, 2, 2), title="t", plane=plane).frames[
            "abdomen"
        ][index]
    )
    assert (
        frame[3, 3, 0] > 230
        and frame[-3, -3, 0] < 25
        and frame[3, -3, 0] < 25
        and frame[-3, 3, 0] < 25
    )


def test_orientation_marks_stand_where_the_body_is():
    html = small()._repr_html_()
    assert re.search(r'left:6px;top:48%">R<', html) and re.search(r'right:6px;top:48%">L<', html)
    assert re.search(r'top:6px">A<', html) and re.search(r'bottom:6px">P<', html)


def test_overlays_lie_on_their_voxels_in_the_palette():
    imaging = np.zeros((1, 10, 10), np.int16)
    truth, prediction = np.zeros((2, 1, 10, 10), np.uint8)
    truth[0, :5, :5], prediction[0, 5:, 5:] = 2, 1
    shown = reporting.slice_viewer(
        imaging, truth, prediction=prediction, spacing=(1, 1, 1), title="t"
    )
    filled, outlined = (picture(shown.layers[name][0]) for name in ("truth", "prediction"))
    tumor, kidney = (
        [round(255 * part) for part in to_rgb(PALETTE[name])] for name in ("tumor", "kidney")
    )
    assert filled[85, 85, :3].tolist() == tumor and 40 < filled[85, 85, 3] < 160
    assert filled[255, 255, 3] == 0 and filled[85, 255, 3] == 0
    assert outlined[255, 255, 3] == 0 and outlined[255, 170].tolist() == [*kidney, 255]
    assert outlined[85, 85, 3] == 0
    assert [name for name, _ in shown.legend] == ["kidney", "tumour"]


def test_slices_span_the_labels_and_start_at_the_largest_tumour():
    imaging = np.zeros((100, 4, 4), np.int16)
    labels = np.zeros(imaging.shape, np.uint8)
    labels[40:60] = 1
    labels[52, :2], labels[45, 0, 0] = 2, 2
    shown = reporting.slice_viewer(imaging, labels, spacing=(3.0, 1, 1), title="t", max_slices=48)
    assert (
        shown.words[0] == "slice 36 of 100, 105 mm" and shown.words[-1] == "slice 65 of 100, 192 mm"
    )
    assert shown.words[shown.start] == "slice 53 of 100, 156 mm"
    thinned = reporting.slice_viewer(imaging, spacing=(3.0, 1, 1), title="t", max_slices=12)
    assert (
        len(thinned.words) == 12
        and thinned.words[0].startswith("slice 1 ")
        and thinned.words[-1].startswith("slice 100 ")
    )


def test_a_window_that_would_make_the_page_large_is_left_out_and_named(monkeypatch):
    both = small()
    assert list(both.frames) == ["abdomen", "bone"]
    monkeypatch.setattr("kitslib.reporting.viewer.slices.BUDGET", 10)
    one = small()
    assert list(one.frames) == ["abdomen"] and "bone left out" in one.caption


def test_ids_are_unique_and_the_same_every_time():
    assert small().id == small().id
    others = [small(plane="coronal").id, small(labels=np.ones((6, 8, 10))).id]
    assert len({small().id, *others}) == 3
    assert small()._repr_html_() == small()._repr_html_()


def test_html_has_one_named_slider_and_no_markup_from_the_title():
    imaging = np.zeros((3, 4, 4), np.int16)
    html = reporting.slice_viewer(imaging, spacing=(1, 1, 1), title='<b>"case"</b>')._repr_html_()
    assert html.count('type="range"') == 1 and "<b>" not in html
    assert 'aria-label="&lt;b&gt;&#34;case&#34;&lt;/b&gt;"' in html
    controls = re.findall(r"<(?:input|select)[^>]*>", html)
    assert len(controls) == 2 and all(
        "data-lm-suppress-shortcuts" in control for control in controls
    )
    data = json.loads(re.search(r"const data = (\{.*\});", html)[1])
    assert len(data["frames"]["abdomen"]) == len(data["words"]) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": np.zeros((6, 8, 9))},
            r"labels must have the imaging's shape \(6, 8, 10\), got \(6, 8, 9\)",
        ),
        (
            {"prediction": np.zeros((6, 8))},
            r"prediction must have the imaging's shape \(6, 8, 10\), got \(6, 8\)",
        ),
    ],
)
def test_wrong_input_is_named(change, message):
    with pytest.raises(ViewerError, match=message):
        small(**change)


def ball(shape, centre, radius, spacing):
    grid = np.indices(shape).T * np.asarray(spacing)
    return (np.linalg.norm(grid - np.asarray(centre), axis=-1) <= radius).T


def silhouette(frame: np.ndarray, channel: int) -> np.ndarray:
    return frame[..., channel] > 110


def test_a_ball_is_round_from_every_side_whatever_the_spacing():
    spacing = (4.0, 1.0, 1.0)
    labels = ball((20, 80, 80), (40, 40, 40), 30, spacing).astype(np.uint8)
    shown = reporting.turntable(labels, spacing=spacing, views=4)
    for code in shown.frames["surface"]:
        blue = silhouette(picture(code), 2)
        height, width = np.ptp(np.nonzero(blue.any(1))[0]), np.ptp(np.nonzero(blue.any(0))[0])
        assert height / width == pytest.approx(1.0, abs=0.12)


def test_the_front_view_has_the_patients_right_at_the_left_and_head_up():
    labels = ball((40, 40, 80), (20, 20, 60), 12, (1, 1, 1)).astype(np.uint8)
    labels[ball(labels.shape, (12, 20, 15), 8, (1, 1, 1))] = 2
    front, back = reporting.turntable(labels, spacing=(2, 2, 2), views=2).frames["surface"]
    rows, columns = np.nonzero(silhouette(picture(front), 0))
    assert columns.mean() < 120 and rows.mean() < picture(front).shape[0] / 2
    assert np.nonzero(silhouette(picture(back), 0))[1].mean() > 220


def test_a_tumour_inside_the_kidney_shines_through():
    labels = ball((40, 40, 40), (20, 20, 20), 17, (1, 1, 1)).astype(np.uint8)
    plain = picture(reporting.turntable(labels, spacing=(2, 2, 2), views=1).frames["surface"][0])
    labels[ball(labels.shape, (20, 20, 20), 8, (1, 1, 1))] = 2
    shown = picture(reporting.turntable(labels, spacing=(2, 2, 2), views=1).frames["surface"][0])
    middle = shown.shape[0] // 2, shown.shape[1] // 2
    assert shown[middle][0] > plain[middle][0] + 40
    assert abs(shown[middle[0], 60] - plain[middle[0], 60]).max() < 40


def test_an_empty_label_map_has_no_surface():
    with pytest.raises(ViewerError, match="only background"):
        reporting.turntable(np.zeros((4, 4, 4), np.uint8), spacing=(1, 1, 1))


def test_the_live_viewer_needs_a_kernel():
    with pytest.raises(ViewerError, match="running notebook kernel"):
        reporting.live_viewer(np.zeros((2, 3, 3)), spacing=(1, 1, 1), title="t")


@pytest.fixture
def kernel(monkeypatch):
    shell = type("Shell", (), {"kernel": object()})()
    monkeypatch.setattr("kitslib.reporting.viewer.explorer.get_ipython", lambda: shell)


def live(box, place: int) -> np.ndarray:
    """A panel of a live viewer."""
    _, _, _, panels, _ = box.children
    data = panels.children[place].children[1].value
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_the_live_viewer_draws_what_its_controls_say(kernel):
    imaging = np.full((4, 6, 8), -1000, np.int16)
    imaging[3] = 1000
    box = reporting.live_viewer(
        imaging, np.zeros(imaging.shape, np.uint8), spacing=(2, 1, 1), title="t"
    )
    controls, index, says, _, _ = box.children
    assert says.value == "t"
    index.value = 3
    bright = live(box, 0)
    index.value = 0
    assert bright.shape == (360, 480, 3) and bright.mean() > 240 and live(box, 0).mean() < 15
    controls.children[0].value = "coronal"
    assert live(box, 0).shape == (480, 480, 3) and index.max == 5
    with pytest.raises(ViewerError, match="labels must have the imaging's shape"):
        reporting.live_viewer(imaging, imaging[1:], spacing=(2, 1, 1), title="t")


def test_the_live_viewer_opens_where_the_lesion_is_in_every_plane(kernel):
    labels = np.zeros((4, 6, 8), np.uint8)
    labels[3, 1, 6] = 3
    box = reporting.live_viewer(
        np.zeros(labels.shape, np.int16), labels, spacing=(2, 1, 1), title="t"
    )
    controls, index, _, panels, _ = box.children
    assert index.value == 3, "no tumour: the largest cyst"
    for plane, expected in (("coronal", 1), ("sagittal", 6), ("axial", 3)):
        controls.children[0].value = plane
        assert index.value == expected
    assert len(panels.children) == 2
    apart = abs(live(box, 1) - live(box, 0))
    assert apart[60:120, 360:420].max() > 30 and apart[:, :240].max() < 12
