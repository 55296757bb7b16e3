"""Measured comparisons behind every speed claim: `python -m benchmarks`, or one of the scripts in this folder."""
