"""Frechet distance with the reference's root at hand, against `scipy.linalg.sqrtm` of the product of covariances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Case, Unequal
from tasks.evaluation.fidelity import FrechetReference, gaussian_statistics

RELATIVE = 1e-5

Float = npt.NDArray[np.float64]


def statistics_of(dimensions: int, seed: int) -> tuple[Float, Float]:
    """Mean and covariance of 2 N pictures' features of N dimensions, whose spectrum falls as that of real ones."""
    random = np.random.default_rng(seed)
    spread = np.arange(1, dimensions + 1) ** (-0.4 - 0.1 * seed)
    return gaussian_statistics(random.standard_normal((2 * dimensions, dimensions)) * spread + 0.05 * seed)


@contextmanager
def frechet_case(size: int, threads: int) -> Iterator[Case]:
    """Two Gaussians of so many dimensions; the reference is prepared beforehand."""
    (mean1, cov1), (mean2, cov2) = statistics_of(size, 0), statistics_of(size, 1)
    reference = FrechetReference.of(mean1, cov1)

    def plain() -> float:
        from scipy.linalg import sqrtm

        trace = np.trace(sqrtm(cov1 @ cov2)).real
        return float(np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * trace)

    def ours() -> float:
        return reference.distance(mean2, cov2)

    def equality(one: float, other: float) -> str:
        difference = abs(one - other) / abs(one)
        if not difference <= RELATIVE:
            raise Unequal(f"{one!r} and {other!r} differ by {difference:.1e}, allowed {RELATIVE:.0e}")
        return f"{difference:.0e} relative"

    yield Case(plain, ours, equality)
