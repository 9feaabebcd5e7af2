"""Volume to volume, deterministic and invertible: resample, HU window, crop, mask, mirror."""

from kitslib.transforms.grids import Grid, Mapping, TransformError
from kitslib.transforms.intensity import HU_WINDOWS, HuWindow, hide_outside, hu_window, mirror, window
from kitslib.transforms.masks import bounding_box, dilate, kidney_slices
from kitslib.transforms.resampling import resample, restore_labels, restore_mask, restore_probability
from kitslib.transforms.stages import (
    KidneyGrid,
    TumorGrid,
    kidney_input,
    kidney_mapping,
    stage_labels,
    tumor_input,
    tumor_mapping,
)

__all__ = [
    "HU_WINDOWS",
    "Grid",
    "HuWindow",
    "KidneyGrid",
    "Mapping",
    "TransformError",
    "TumorGrid",
    "bounding_box",
    "dilate",
    "hide_outside",
    "hu_window",
    "kidney_input",
    "kidney_mapping",
    "kidney_slices",
    "mirror",
    "resample",
    "restore_labels",
    "restore_mask",
    "restore_probability",
    "stage_labels",
    "tumor_input",
    "tumor_mapping",
    "window",
]
