"""A synthetic cohort: anatomy to label map to CT, or CT for a given label map; and how near it is to KiTS."""

from kitslib.phantom.cohort import write_cohort, write_rendered
from kitslib.phantom.fidelity import (
    GEOMETRY,
    complex_cysts,
    find_tissues,
    geometry_rows,
    hu_rows,
    kits_reference,
    label_geometry,
    overlap_row,
    sample_geometry,
)
from kitslib.phantom.scene import render_case, render_label_map, render_labels

__all__ = [
    "GEOMETRY",
    "complex_cysts",
    "find_tissues",
    "geometry_rows",
    "hu_rows",
    "kits_reference",
    "label_geometry",
    "overlap_row",
    "render_case",
    "render_label_map",
    "render_labels",
    "sample_geometry",
    "write_cohort",
    "write_rendered",
]
