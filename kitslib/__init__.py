"""Kidney and kidney-tumour segmentation in CT: a study of one KiTS19 entry, in ten doors.

A door is entered by its face (`from kitslib.data import load_case`); names load on first use.
`tests/test_layers.py` reads this map and refuses an import that is not on it.

door        may import                                             what it holds
commands    everything                                             what a person types
recipes     config data evaluation networks training transforms    one stage of the study as a value
evaluation  config data networks transforms                        whole scans, scores, claims
phantom     data                                                   a synthetic cohort
training    config                                                 losses, the loop, a run's folder
data        config transforms                                      KiTS on disk, cache, sampling
transforms  nothing                                                volumes and batches changed
networks    nothing                                                everything that has weights
config      nothing                                                every number we chose
reporting   nothing                                                figures, viewer, offline pages
"""

from importlib import metadata

__version__ = metadata.version("kitslib")
