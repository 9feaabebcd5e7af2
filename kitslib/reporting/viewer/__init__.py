"""Slice viewer and turntable: pictures and a slider, live in JupyterLab and in the offline report."""
