"""Measured comparisons behind every speed claim: `python -m benchmarks`, or one of the scripts in this folder."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
