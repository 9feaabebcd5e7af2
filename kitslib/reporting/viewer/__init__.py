"""Slice viewer and turntable: pictures behind a slider, in JupyterLab and on the offline page."""
