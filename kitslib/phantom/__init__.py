"""A synthetic cohort: anatomy to label map to CT, or CT for a given label map."""

from kitslib.phantom.cohort import write_cohort, write_rendered
from kitslib.phantom.scene import render_case, render_label_map, render_labels

__all__ = ["render_case", "render_label_map", "render_labels", "write_cohort", "write_rendered"]
