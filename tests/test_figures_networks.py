"""Drawings agree with the networks; the mechanisms' pictures show what they are given."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from kitslib.config import ARMS, arm
from kitslib.networks import build, hdc_coverage, shape_probe
from kitslib.reporting import FigureError, figures

WIDTHS = (8, 16, 32, 64)
SIZES = {"2d": (64, 48), "2.5d": (64, 48), "3d": (16, 64, 48)}
CHANNELS = {"2d": 1, "2.5d": 5, "3d": 1}
KIDNEY = {"name": "resunet3d", "widths": (2, 4, 6, 8, 10)}


@pytest.fixture(autouse=True)
def styled():
    """Figures in the pages' own style, whatever other tests have set."""
    with matplotlib.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def title(ax: Axes) -> str:
    return ax.get_title(loc="left")


def options_of(name: str) -> dict:
    return arm(name).network_options(slices=5, widths=WIDTHS, norm=True)


def drawn(name: str) -> Figure:
    return figures.tumor_network(options_of(name), SIZES[arm(name).dims])


def texts(fig: Figure) -> list[str]:
    return [text.get_text() for ax in fig.axes for text in ax.texts if text.get_text()]


def boxes(fig: Figure) -> list[tuple[int, str]]:
    """Channels and grid of every stage of a drawing, in the order of the forward pass's levels."""
    found = []
    for text in texts(fig):
        if "channels\n" in text:
            channels, grid, *_ = text.split("\n")
            found.append((int(channels.removesuffix(" channels")), grid))
    return found


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_is_drawn_inside_its_figure(name: str) -> None:
    fig = drawn(name)
    fig.canvas.draw()
    frame = fig.bbox
    for text in fig.axes[0].texts:
        box = text.get_window_extent()
        inside = (
            frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        )
        assert inside, (name, text.get_text())


@pytest.mark.parametrize("name", ["baseline", "full", "vnet_2d", "vnet_3d", "unet", "deeplab"])
def test_the_boxes_are_the_stages_of_the_network(name: str) -> None:
    dims = arm(name).dims
    rows = shape_probe(build(**options_of(name)), (1, CHANNELS[dims], *SIZES[dims]))
    stages = {stage: (shape[1], " × ".join(map(str, shape[2:]))) for stage, shape, _ in rows}
    wanted = [
        box
        for stage, box in stages.items()
        if stage.split(".")[0] in ("stem", "encoder", "decoder")
    ]
    assert sorted(boxes(drawn(name))) == sorted(wanted)


def test_a_mark_stands_where_the_mechanism_is_and_nowhere_else() -> None:
    def marks(name: str) -> dict[str, int]:
        found = texts(drawn(name))
        inputs = sum(text.startswith("5 slices") for text in found)
        return {
            "SE": found.count("SE"),
            "gate": found.count("gate"),
            "2, 3, 5": found.count("2, 3, 5"),
            "in": inputs,
        }

    assert marks("baseline") == {"SE": 0, "gate": 0, "2, 3, 5": 0, "in": 1}
    assert marks("multi_scale") == {"SE": 0, "gate": 0, "2, 3, 5": 0, "in": 4}
    assert marks("only_se") == {
        "SE": 3 + 1,
        "gate": 0,
        "2, 3, 5": 0,
        "in": 1,
    }  # a halving each, and the key
    assert marks("only_attention") == {"SE": 0, "gate": 3 + 1, "2, 3, 5": 0, "in": 1}
    assert marks("full") == {"SE": 4, "gate": 4, "2, 3, 5": 2, "in": 4}
    assert texts(drawn("plain_dilation")).count("2, 2, 2") == 2
    assert any("additive" in text for text in texts(drawn("additive_gate")))


def test_the_dilations_are_drawn_at_their_level() -> None:
    heights = []
    for name in ("hdc_level_0", "hdc_level_1", "hdc_level_2", "hdc"):
        marks = [text for text in drawn(name).axes[0].texts if text.get_text() == "2, 3, 5"]
        heights.append(max(text.get_position()[1] for text in marks))
    steps = np.diff(heights)
    assert (steps < 0).all() and np.allclose(steps, steps[0])


def test_the_kidney_network_is_drawn_stage_by_stage_with_its_maps() -> None:
    fig = figures.kidney_network(KIDNEY, (16, 32, 32))
    rows = {stage: shape for stage, shape, _ in shape_probe(build(**KIDNEY), (1, 1, 16, 32, 32))}
    stages = [rows[f"{part}{n}"] for part in ("encode", "decode") for n in (1, 2, 3, 4)]
    assert sorted(boxes(fig)) == sorted(
        (shape[1], " × ".join(map(str, shape[2:]))) for shape in stages
    )
    maps = [text.split("\n") for text in texts(fig) if text.startswith("map ")]
    factors = {f"map {n}": 16 // rows[f"map{n}"][2] for n in (1, 2, 3, 4)}
    assert dict(maps) == {
        name: f"enlarged × {f}" if f > 1 else "full size" for name, f in factors.items()
    }


def test_the_kidney_arms_are_drawn_apart() -> None:
    alone = texts(figures.kidney_network({**KIDNEY, "deep_supervision": False}, (16, 32, 32)))
    assert [text for text in alone if text.startswith("map ")] == ["map 4\nfull size"]
    assert any(
        "without residual" in t
        for t in texts(figures.kidney_network({**KIDNEY, "residual": False}, (8, 8, 8)))
    )


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(FigureError, match="one of vnet, unet, deeplab, got 'resunet3d'"):
        figures.tumor_network(KIDNEY, (16, 32, 32))
    with pytest.raises(FigureError, match="a 3d network has another number of axes"):
        figures.tumor_network(options_of("vnet_3d"), (64, 64))


def test_text_can_be_read_at_400_pixels() -> None:
    for fig in (drawn("full"), figures.kidney_network(KIDNEY, (64, 256, 256))):
        shrunk = min(1.0, 400 / (fig.get_figwidth() * 96))
        sizes = [t.get_fontsize() for t in fig.axes[0].texts if not isinstance(t, Annotation)]
        assert min(sizes) * 96 / 72 * shrunk >= 9  # pixels


# What the mechanisms do


def test_attention_maps_stand_beside_the_slice_on_one_scale() -> None:
    image = np.zeros((8, 12))
    labels = np.zeros((8, 12), np.uint8)
    labels[2:5, 3:8] = 2
    maps = {2: np.full((8, 12), 0.25), 1: np.linspace(0.1, 0.9, 96).reshape(8, 12)}
    fig = figures.attention_maps(image, maps, labels, spacing=(2.0, 1.0))
    ct, coarse, fine = fig.axes[:3]
    assert title(coarse) == "1/2 resolution: 0.25 to 0.25"
    assert title(fine) == "full resolution: 0.10 to 0.90"
    for ax, found in ((coarse, maps[2]), (fine, maps[1])):
        assert np.array_equal(ax.images[0].get_array(), found)
        assert ax.images[0].get_clim() == (0, 1)
        assert ax.get_aspect() == 2.0 == ct.get_aspect()


def test_attention_maps_of_another_shape_are_refused() -> None:
    with pytest.raises(FigureError, match="map 2: expected the image's shape"):
        figures.attention_maps(np.zeros((8, 8)), {2: np.zeros((4, 4))}, spacing=(1, 1))
    with pytest.raises(FigureError, match="is attention on"):
        figures.attention_maps(np.zeros((8, 8)), {}, spacing=(1, 1))


def test_coverage_fills_the_holes_and_counts_what_is_reached() -> None:
    hybrid, plain = hdc_coverage((2, 3, 5)), hdc_coverage((2, 2, 2))
    fig = figures.coverage_panels({"HDC": hybrid, "plain": plain})
    assert [title(ax).split("\n")[1] for ax in fig.axes[:2]] == [
        f"{19**2} of {21**2} voxels reached",
        f"{7**2} of {13**2} voxels reached",
    ]
    for ax, paths in zip(fig.axes, (hybrid, plain), strict=False):
        assert np.array_equal(ax.images[0].get_array().mask, paths == 0)
        assert ax.get_xlim() == (-10.5, 10.5)  # the same scale for both
    assert fig.axes[1].images[0].get_extent() == [-6.5, 6.5, 6.5, -6.5]


@pytest.mark.parametrize(
    "wrong", [{}, {"a": np.ones((2, 2))}, {"a": np.ones(3)}, {"a": np.ones((3, 5))}]
)
def test_coverage_of_no_square_is_refused(wrong: dict) -> None:
    with pytest.raises(FigureError, match="coverage"):
        figures.coverage_panels(wrong)


def test_the_four_maps_over_a_training_have_a_row_per_epoch() -> None:
    rng = np.random.default_rng(0)
    image, truth = rng.integers(-100, 200, (20, 24)).astype(np.int16), np.zeros((20, 24), np.uint8)
    truth[5:12, 6:14] = 1
    maps = {40: rng.random((4, 20, 24)), 1: rng.random((4, 20, 24))}
    fig = figures.maps_over_training(image, maps, truth, spacing=(5.0, 5.0))
    assert [ax.get_ylabel() for ax in fig.axes if ax.get_ylabel().startswith("epoch")] == [
        "epoch 1",
        "epoch 40",
    ]
    assert [title(ax) for ax in fig.axes[:6]] == [
        "CT",
        "map at 1/8",
        "map at 1/4",
        "map at 1/2",
        "map at full",
        "",
    ]
    shown = [ax.images[0].get_array() for ax in fig.axes[1:5]]
    np.testing.assert_allclose(np.stack(shown), maps[1])
    with pytest.raises(FigureError, match="epoch 3: expected maps of"):
        figures.maps_over_training(image, {3: rng.random((3, 20, 24))}, truth, spacing=(5.0, 5.0))
    with pytest.raises(FigureError, match="got none"):
        figures.maps_over_training(image, {}, truth, spacing=(5.0, 5.0))


def test_supervision_terms_show_each_loss_and_p() -> None:
    history = [
        {"epoch": 1, "maps": [0.9, 0.8, 0.7, 0.6]},
        {"epoch": 2},
        {"epoch": 3, "maps": [0.5, 0.4, 0.3, 0.2]},
    ]
    fig = figures.supervision_terms(history, [0.33, 0.33, 0.264])
    left, right = fig.axes
    assert [line.get_ydata().tolist() for line in left.lines] == [
        [0.9, 0.5],
        [0.8, 0.4],
        [0.7, 0.3],
        [0.6, 0.2],
    ]
    assert right.lines[0].get_ydata().tolist() == [0.33, 0.33, 0.264]
    with pytest.raises(FigureError, match="got none"):
        figures.supervision_terms([{"epoch": 1}], [0.33])


def test_the_reliability_diagram_shows_the_bins_that_hold_voxels() -> None:
    counts = np.array([[4, 0, 2], [0.4, 0, 1.8], [1, 0, 2]])
    ax = figures.reliability_diagram(counts)
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[0.1, 0.25], [0.9, 1.0]])
    with pytest.raises(FigureError, match="got none"):
        figures.reliability_diagram(np.zeros((3, 5)))
