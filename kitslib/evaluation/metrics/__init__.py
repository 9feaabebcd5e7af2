"""Scores of label maps as KiTS19 and KiTS23 define them, and the statistics that compare them."""
