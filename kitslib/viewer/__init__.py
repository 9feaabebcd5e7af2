"""Slice viewer and turntable: pictures and a slider, live in JupyterLab and in the offline report."""

from kitslib.viewer.slices import WINDOWS, live_viewer, slice_viewer
from kitslib.viewer.slider import Viewer, ViewerError
from kitslib.viewer.turntable import turntable

__all__ = ["WINDOWS", "Viewer", "ViewerError", "live_viewer", "slice_viewer", "turntable"]
