"""Arrays and tables in, matplotlib axes out; one palette for the whole study."""

from kitslib.figures.architecture import kidney_network, tumor_network
from kitslib.figures.charts import (
    dice_against_cost,
    dice_against_volume,
    dice_strip,
    difficulty_over_time,
    false_positive_split,
    forest,
    hu_distributions,
    learning_curves,
    reliability_diagram,
)
from kitslib.figures.distributions import GLANCE, cohort_at_a_glance, cohort_comparison
from kitslib.figures.mechanisms import attention_maps, coverage_panels
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
from kitslib.figures.supervision import maps_over_training, supervision_terms

__all__ = [
    "ABDOMEN",
    "GLANCE",
    "NAMES",
    "PALETTE",
    "WORDS",
    "CaseView",
    "FigureError",
    "Plane",
    "attention_maps",
    "case_grid",
    "case_view",
    "cohort_at_a_glance",
    "cohort_comparison",
    "coverage_panels",
    "dice_against_cost",
    "dice_against_volume",
    "dice_strip",
    "difficulty_over_time",
    "false_positive_split",
    "figure_html",
    "focus_voxel",
    "forest",
    "hu_distributions",
    "kidney_network",
    "learning_curves",
    "maps_over_training",
    "overlay_panel",
    "plane_slice",
    "plane_spacing",
    "reliability_diagram",
    "show",
    "supervision_terms",
    "three_planes",
    "tumor_network",
    "use_style",
]
