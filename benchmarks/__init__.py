"""Measurements against peers, one module per job: `python -m benchmarks JOB`."""
