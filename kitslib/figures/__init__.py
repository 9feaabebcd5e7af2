"""Arrays and tables in, matplotlib axes out; one palette for the whole study."""

from kitslib.figures.charts import (
    dice_against_volume,
    dice_strip,
    difficulty_over_time,
    forest,
    hu_distributions,
    learning_curves,
)
from kitslib.figures.panels import (
    ABDOMEN,
    CaseView,
    Plane,
    case_grid,
    case_view,
    focus_voxel,
    overlay_panel,
    plane_slice,
    plane_spacing,
    three_planes,
)
from kitslib.figures.style import NAMES, PALETTE, WORDS, FigureError, figure_html, show, use_style

__all__ = [
    "ABDOMEN",
    "NAMES",
    "PALETTE",
    "WORDS",
    "CaseView",
    "FigureError",
    "Plane",
    "case_grid",
    "case_view",
    "dice_against_volume",
    "dice_strip",
    "difficulty_over_time",
    "figure_html",
    "focus_voxel",
    "forest",
    "hu_distributions",
    "learning_curves",
    "overlay_panel",
    "plane_slice",
    "plane_spacing",
    "show",
    "three_planes",
    "use_style",
]
