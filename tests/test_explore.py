"""The explorer: which scans and arms there are, what is shown of them, and how it refuses."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kitslib import reporting
from kitslib.commands import explore
from kitslib.commands.explore import ExploreError, Explorer, answer
from kitslib.config import RunConfig, configure
from kitslib.data import canonical_affine, write_imaging, write_labels
from kitslib.evaluation import KidneyStage, dice
from kitslib.reporting import Shown
from kitslib.reporting.viewer.explorer import _Live
from kitslib.training import WEIGHTS, RunError, record

AFFINE = canonical_affine((5.0, 3.0, 3.0))


def a_case(folder: Path, *, labels: bool = True) -> Path:
    """A body with two bright kidneys, one of them with a tumour, in KiTS's file layout."""
    folder.mkdir(parents=True)
    imaging, truth = np.full((20, 64, 64), -80, np.int16), np.zeros((20, 64, 64), np.uint8)
    imaging[4:16, 24:40, 12:26] = imaging[4:16, 24:40, 38:52] = 180
    truth[imaging == 180], truth[8:10, 28:32, 14:18] = 1, 2
    write_imaging(folder / "imaging.nii.gz", imaging, AFFINE)
    if labels:
        write_labels(folder / "segmentation.nii.gz", truth, AFFINE)
    return folder / "imaging.nii.gz"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Six cases, and records of two arms whose networks are those of the package."""
    folder = tmp_path_factory.mktemp("study")
    for number in range(6):
        a_case(folder / "data" / f"case_{number:05}")
    options = {"arms": ["baseline", "full", "hdc"]}
    where = {"data": str(folder / "data"), "out": str(folder / "out")}
    config = configure(profile="smoke", options=options, **where)
    config.store.joinpath("runs").mkdir(parents=True)
    for stage in ("kidney", "tumor"):
        (config.store / "runs" / stage).symlink_to(WEIGHTS / stage)
    for name in ("02_kidney", "03_tumor-baseline-s0", "03_tumor-full-s0"):
        record(config, name, began=0.0, run=name[3:].partition("-")[0])
    return config


@pytest.fixture(scope="module")
def explorer(study: RunConfig) -> Explorer:
    return Explorer(study)


def test_the_cascades_arm_and_the_unseen_cases_come_first(explorer: Explorer) -> None:
    assert explorer.arms == ["full", "baseline", "shipped"]
    words = list(explorer.words.values())
    unseen = [text for text in words if text.endswith(", unseen")]
    assert unseen and words[: len(unseen)] == unseen and len(words) == 6
    assert explorer.chosen("", ["", ""]) == (next(iter(explorer.scans)), ["full"])
    assert explorer.chosen(3, ["shipped", "shipped"]) == ("case_00003", ["shipped"])


def test_what_is_shown_is_scored_and_kept(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bright(self: KidneyStage, imaging: np.ndarray, *_: object) -> np.ndarray:
        return (imaging > 100).astype(np.uint8)

    monkeypatch.setattr(KidneyStage, "mask", bright)  # the networks know no kidneys of a box
    shown = explorer.show("case_00003", ["full", "shipped"])
    assert list(shown.panels) == ["truth", "full", "shipped"]
    truth, found = shown.panels["truth"], shown.panels["full"]
    first, row, same = shown.scores.to_dict("records")
    assert first["kidney_and_masses_ml"] == pytest.approx(0.045 * (truth > 0).sum())
    assert first["tumor_ml"] == pytest.approx(0.045 * 32) and np.isnan(first["dice"])
    assert row["dice"] == dice(found > 0, truth > 0) and found.any()
    assert {**same, "panel": "full"} == row, "the same networks"
    monkeypatch.setattr(explore.data, "read_scan", None)
    monkeypatch.setattr(explore, "segment", None)
    again = explorer.show("case_00003", ["shipped"])
    assert again.panels["shipped"] is shown.panels["shipped"]


def test_scans_seen_longest_ago_are_forgotten(study: RunConfig, monkeypatch) -> None:
    explorer = Explorer(study)
    monkeypatch.setattr(explore, "MOST", 2)
    for number in (1, 2, 1, 3):
        explorer.show(f"case_0000{number}", [])
    assert list(explorer._kept) == ["case_00001", "case_00003"]


def test_a_file_of_ones_own_needs_no_study(tmp_path: Path) -> None:
    config = configure(profile="smoke", out=str(tmp_path / "out"))
    file = a_case(tmp_path / "somebody", labels=False)
    explorer = Explorer(config, str(file))
    assert explorer.arms == ["shipped"] and list(explorer.scans) == ["somebody"]
    shown = explorer.show(*explorer.chosen("", []))
    assert list(shown.panels) == ["shipped"] and "dice" not in shown.scores
    assert explorer.provenance["synthetic"] is False
    assert "shipped" in answer(shown).content["answer"]
    file = a_case(tmp_path / "case_00007")
    assert list(Explorer(config, str(file)).show("00007", []).panels) == ["truth"]
    assert not (tmp_path / "out").exists(), "nothing is written"


@pytest.mark.parametrize(
    ("scan", "shape", "panels"),
    [
        ("realct/data/ts_example_ct_sm", (30, 101, 122), ["truth", "shipped"]),
        ("dicom/enhanced_multiframe", (2, 512, 512), ["shipped"]),
    ],
)
def test_real_ct_and_dicom_are_shown(
    shared: Path, tmp_path: Path, scan: str, shape: tuple[int, ...], panels: list[str]
) -> None:
    explorer = Explorer(configure(profile="smoke", out=str(tmp_path)), str(shared / scan))
    shown = explorer.show(*explorer.chosen("", []))
    assert list(shown.panels) == panels
    assert {panel.shape for panel in shown.panels.values()} == {shape}
    assert "`shipped`: " in answer(shown).content["answer"]


@pytest.mark.parametrize(
    ("case", "arm", "told"),
    [
        ("case_00009", "full", "case: 'case_00009' is not among the scans; did you mean "),
        ("", "ful", "arm: 'ful' is not a choice; did you mean 'full'?. Allowed: full, baseline"),
    ],
)
def test_a_wrong_name_is_one_sentence(explorer: Explorer, case: str, arm: str, told: str) -> None:
    with pytest.raises(ExploreError) as caught:
        explorer.chosen(case, [arm])
    assert str(caught.value).startswith(told)
    assert caught.value._render_traceback_() == [f"ExploreError: {caught.value}"]


def test_an_arm_that_was_not_trained_names_the_command(explorer: Explorer) -> None:
    with pytest.raises(RunError, match=r"make it with: papermill .* -p arm hdc"):
        explorer.show(*explorer.chosen("", ["hdc"]))


def test_a_file_that_is_no_scan_is_named(tmp_path: Path) -> None:
    config = configure(profile="smoke", out=str(tmp_path / "out"))
    (tmp_path / "notes.txt").write_text("no scan")
    for file, told in (("notes.txt", "expected a NIfTI file"), ("none.nii.gz", "found none")):
        explorer = Explorer(config, str(tmp_path / file))
        with pytest.raises(ExploreError) as caught:
            explorer.show(*explorer.chosen("", []))
        text = str(caught.value)
        assert text.startswith(f"{tmp_path / file}: ") and told in text and "\n" not in text
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExploreError, match="empty: expected NIfTI files"):
        Explorer(config, str(tmp_path / "empty"))


def shown_of(*, panels: int, dark: bool = False) -> Shown:
    """A cube with a bright tumour, and so many equal label maps."""
    imaging, labels = np.full((8, 40, 60), 0, np.int16), np.zeros((8, 40, 60), np.uint8)
    labels[5, 18:22, 30:34], imaging[labels > 0] = 2, 200 * (not dark)
    names = [f"arm {number}" for number in range(panels)]
    return Shown(
        title="cube", imaging=imaging, spacing=(5, 5, 5), panels=dict.fromkeys(names, labels),
        scores=pd.DataFrame({"panel": names, "tumor_ml": 2.0}),
    )  # fmt: skip


def test_panels_stand_side_by_side_cut_to_what_is_labelled() -> None:
    shown = shown_of(panels=2)
    assert shown.box() == (slice(0, 11), slice(13, 27), slice(25, 39)), "5 voxels around"
    viewer = reporting.side_by_side(shown)
    assert (
        viewer.apart and viewer.size == (440, 440) and viewer.words[viewer.start][:7] == "slice 6"
    )
    html = viewer._repr_html_()
    assert html.count('class="frame"') == 3 and html.count('class="layer"') == 2
    assert html.count('type="range"') == 1 and "--columns:3" in html
    assert dataclasses.replace(shown, panels={}).box() == (slice(None),) * 3


def test_the_live_explorer_needs_a_kernel() -> None:
    with pytest.raises(reporting.ViewerError, match="running notebook kernel"):
        reporting.live_explorer(shown_of, scans={"a": "a"}, arms=["b"], scan="a", chosen=["b"])


def test_the_controls_of_the_live_explorer_change_what_is_drawn() -> None:
    def show(scan: str, arms: list[str]) -> Shown:
        if scan == "broken":
            raise ExploreError("broken.nii.gz: <cut short>")
        return shown_of(panels=len(arms), dark=scan == "dark")

    scans = {name: name for name in ("bright", "dark", "broken")}
    live = _Live(show, scans, ["b", "c"], "bright", ["b"])
    assert len(live.panels.children) == 2 and live.index.value == 5 and live.index.max == 7

    def picture(place: int) -> np.ndarray:
        data = live.panels.children[place].children[1].value
        return np.asarray(Image.open(io.BytesIO(data))).astype(int)

    scan, found = picture(0), picture(1)
    assert scan.shape == (480, 480, 3) and abs(scan - found).max() > 50
    live.index.value = 2
    assert abs(picture(0) - scan).max() > 50, "another slice"
    live.second.value = "c"
    assert len(live.panels.children) == 3 and live.index.value == 2, "the slice stays"
    live.plane.value = "sagittal"
    assert 30 <= live.index.value < 34 and live.index.max == 59
    live.plane.value, live.zoom.value = "axial", False
    assert picture(0).shape == (320, 480, 3), "the whole slice"
    bright = picture(0)
    live.scan.value = "dark"
    assert abs(picture(0) - bright).max() > 50
    live.scan.value = "broken"
    assert live.says.value == "<b>broken.nii.gz: &lt;cut short&gt;</b>"
    live.scan.value = "bright"
    assert live.says.value == "" and "arm 1" in live.table.value
