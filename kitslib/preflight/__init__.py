"""What a study will take of disk, memory and time, from headers and a short timing, before anything long starts."""

from kitslib.preflight.costs import Cost, Estimate, estimate
from kitslib.preflight.machine import Machine, look
from kitslib.preflight.sizes import CaseSize, Sizes, cohort_sizes
from kitslib.preflight.timing import NetworkSpeed, Speed, time_here

__all__ = [
    "CaseSize",
    "Cost",
    "Estimate",
    "Machine",
    "NetworkSpeed",
    "Sizes",
    "Speed",
    "cohort_sizes",
    "estimate",
    "look",
    "time_here",
]
