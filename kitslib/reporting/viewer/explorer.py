"""A scan and several label maps of it side by side: behind live controls, and in a page."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from IPython import get_ipython

from kitslib.reporting.figures.panels import AXES, plane_slice, plane_spacing
from kitslib.reporting.tables import shaped
from kitslib.reporting.viewer import slices
from kitslib.reporting.viewer.slider import Viewer, ViewerError, columns_of

AROUND_MM = 25  # shown beyond the labels, where only the kidneys are
LIVE_SIDE = 480  # pixels of a panel's longer side
NONE = ("none", "")  # words and value
COLUMNS = {
    "panel": "", "kidney_and_masses_ml": "kidneys and masses, ml", "tumor_ml": "tumour, ml",
    "tumor_diameter_mm": "tumour diameter, mm", "dice": "Dice, kidneys and masses",
    "tumor_dice": "Dice, tumour",
}  # fmt: skip
DIGITS = {"kidney_and_masses_ml": 1, "tumor_ml": 1, "tumor_diameter_mm": 0}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A scan with what is known and found in it: HU and label maps (D, H, W), the maps by title.

    spacing: (z, y, x) in mm. scores: a row for each map, `panel` its title. words: of the scan.
    Raises ViewerError when shapes differ.
    """

    title: str
    imaging: np.ndarray
    spacing: Sequence[float]
    panels: Mapping[str, np.ndarray]
    scores: pd.DataFrame
    words: str = ""

    def __post_init__(self) -> None:
        slices.check_overlays(self.imaging, self.panels, self.spacing)

    @property
    def table(self) -> pd.DataFrame:
        """The scores as they are shown."""
        columns = {name: words for name, words in COLUMNS.items() if name in self.scores}
        return shaped(self.scores, columns, DIGITS, "panel")

    def box(self, around_mm: float = AROUND_MM) -> tuple[slice, ...]:
        """Return the part of the volume that holds all labels and so much around; all, if none."""
        box = []
        for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
            where = np.flatnonzero(sum(v.any(axis=others) for v in self.panels.values()))
            if not len(where):
                return (slice(None),) * 3
            margin = round(around_mm / self.spacing[axis])
            box.append(slice(max(where[0] - margin, 0), where[-1] + margin + 1))
        return tuple(box)


def side_by_side(shown: Shown, *, max_slices: int = 32) -> Viewer:
    """The scan and each label map beside each other behind one slider, cut to the kidneys."""
    part = (slice(None), *shown.box()[1:])  # all slices, so that they keep their numbers
    panels = {name: volume[part] for name, volume in shown.panels.items()}
    return slices.viewer_of(
        shown.imaging[part], panels, spacing=shown.spacing, title=shown.title,
        max_slices=max_slices, words=shown.words, apart=True,
    )  # fmt: skip


def live_viewer(
    imaging: np.ndarray, labels: np.ndarray | None = None, *, spacing: Sequence[float], title: str
) -> Any:
    """Every slice, plane and HU window of a CT (D, H, W), and beside it with its labels.

    Raises ViewerError where shapes differ or no kernel is running.
    """
    panels = {} if labels is None else {"labels": labels}
    shown = Shown(
        title=title, imaging=imaging, spacing=spacing, panels=panels, scores=pd.DataFrame(),
        words=title,
    )  # fmt: skip
    return live_explorer(lambda *_: shown, scans={title: title}, scan=title)


def live_explorer(
    show: Callable[[str, list[str]], Shown], *, scans: Mapping[str, str], scan: str,
    arms: Sequence[str] = (), chosen: Sequence[str] = (),
) -> Any:  # fmt: skip
    """Controls that choose a scan, one or two arms and a slice, and their panels.

    `show` returns what is to be seen of a scan and arms; its ValueError, RuntimeError or OSError
    becomes a line under the controls. scans: names to the words in the list. The kernel draws: call
    it where somebody watches. Raises ViewerError when there is none.
    """
    if getattr(get_ipython(), "kernel", None) is None:
        fix = "use slice_viewer or side_by_side instead"
        raise ViewerError(f"live viewer: expected a running notebook kernel, found none; {fix}")
    return _Live(show, scans, arms, scan, chosen).box


class _Live:
    """The controls, and what each of them does."""

    def __init__(
        self, show: Callable[[str, list[str]], Shown], scans: Mapping[str, str],
        arms: Sequence[str], scan: str, chosen: Sequence[str],
    ) -> None:  # fmt: skip
        import ipywidgets as w

        options = list(zip(scans.values(), scans, strict=True))
        first, second = (*chosen, "", "")[:2]
        self.show, self.shown, self.kidneys = show, None, ()
        self.scan = w.Dropdown(options=options, value=scan, description="scan")
        self.first = w.Dropdown(options=list(arms) or [""], value=first, description="arm")
        self.second = w.Dropdown(
            options=[NONE, *zip(arms, arms, strict=True)], value=second, description="beside"
        )
        self.plane = w.Dropdown(options=list(AXES), description="plane")
        self.hu_window = w.Dropdown(options=list(slices.HU_WINDOWS), description="HU window")
        self.zoom = w.Checkbox(value=True, description="kidneys only", indent=False)
        self.index = w.IntSlider(description="slice", layout=w.Layout(width="min(100%, 40rem)"))
        self.says, self.table = w.HTML(), w.HTML()
        whole = w.Layout(width="100%")
        self.cells = [w.VBox([w.HTML(), w.Image(format="jpeg", layout=whole)]) for _ in range(4)]
        self.panels = w.GridBox(layout=w.Layout(width="100%", grid_gap="0.6rem"))
        rows = [[self.scan, self.first, self.second]] if arms else []
        rows.append([self.plane, self.hu_window, self.zoom])
        boxes = [w.HBox(row, layout=w.Layout(flex_flow="row wrap")) for row in rows]
        self.box = w.VBox([*boxes, self.index, self.says, self.panels, self.table])
        self.choose()
        for control in (self.scan, self.first, self.second):
            control.observe(self.choose, "value")
        self.plane.observe(self.turn, "value")
        for control in (self.hu_window, self.zoom, self.index):
            control.observe(self.draw, "value")

    def choose(self, change: Any = None) -> None:
        """Show another scan or other arms; a slice that is looked at stays for other arms."""
        arms = [self.first.value, self.second.value]
        self.says.value = "Working: what is seen for the first time is read and segmented first …"
        try:
            self.shown = self.show(self.scan.value, list(filter(None, arms)))
        except (ValueError, RuntimeError, OSError) as error:
            self.says.value = f"<b>{escape(str(error))}</b>"
            return
        self.says.value = escape(self.shown.words)
        if len(self.shown.scores):
            self.table.value = self.shown.table.to_html()
        self.kidneys = self.shown.box()
        if change is None or change.owner is self.scan:
            self.turn()
        else:
            self.draw()

    def turn(self, _: object = None) -> None:
        """Go to the slice of a plane with most tumour, else cyst, else kidney."""
        axis = AXES[self.plane.value]
        count = self.shown.imaging.shape[axis]
        first, last, _ = self.kidneys[axis].indices(count)
        cut = {name: volume[self.kidneys] for name, volume in self.shown.panels.items()}
        self.index.max = count - 1
        self.index.value = first + slices.start_of(cut, axis, range(last - first))
        self.draw()

    def draw(self, _: object = None) -> None:
        """Draw the slice: the scan, then each label map over it."""
        plane, z = self.plane.value, self.index.value
        part = list(self.kidneys) if self.zoom.value else [slice(None)] * 3
        part[AXES[plane]] = slice(None)
        image = plane_slice(self.shown.imaging[tuple(part)], plane, z)
        step = plane_spacing(self.shown.spacing, plane)
        width, height = slices.picture_size(image, step, LIVE_SIDE)
        scale = LIVE_SIDE / max(width, height)
        size = round(width * scale), max(1, round(height * scale))
        ground = slices.grey(image, size, self.hu_window.value)
        pictures = {"scan": ground}
        for name, volume in self.shown.panels.items():
            over = slices.layer(plane_slice(volume[tuple(part)], plane, z), size, "labels")
            pictures[name] = ground.convert("RGBA")
            pictures[name].alpha_composite(over.convert("RGBA"))
        for cell, (name, picture) in zip(self.cells, pictures.items(), strict=False):
            title, image = cell.children
            data = io.BytesIO()
            picture.convert("RGB").save(data, "JPEG", quality=85)
            title.value, image.value = f"<b>{escape(name)}</b>", data.getvalue()
        self.panels.children = self.cells[: len(pictures)]
        self.panels.layout.grid_template_columns = f"repeat({columns_of(len(pictures))}, 1fr)"
