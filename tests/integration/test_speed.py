"""The cheap ratios of the benchmarks, with margins: no figure of docs/BENCHMARKS.md is lost unnoticed.

Processor time of alternating pairs, of which the best counts: a ratio of two ways on the same machine in the same
seconds, which other processes can lower, but hardly raise.
"""

import pytest

from benchmarks.harness import cpu_seconds, measure_case
from benchmarks.rows import ROWS

PAIRS = 3


@pytest.mark.integration
@pytest.mark.parametrize(
    ("row", "size", "at_least"),
    [
        ("views", 3, 3.5),
        ("views-raw", 3, 2.0),
        ("views-scaled", 720, 5.0),
        ("embed", 4, 1.6),
        ("svm", 120, 4.0),
        ("frechet", 256, 3.0),
        ("feature-store-read", 4_096, 3.0),
        ("feature-store-write", 4_096, 2.0),
    ],
)
def test_ours_is_still_faster_than_the_plain_way(row: str, size: int, at_least: float) -> None:
    with ROWS[row].case(size, 1) as case:
        measured = measure_case(case, size, cpu_seconds, PAIRS)
    assert max(measured.ratios) >= at_least, (measured.ratios, measured.plain, measured.ours)
