"""Kidney and kidney-tumour segmentation in CT: a study of one KiTS19 entry."""

__version__ = "0.1.0"
