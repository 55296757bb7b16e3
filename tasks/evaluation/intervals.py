"""Numbers with intervals: percentile bootstrap over groups, and why there is none.

A group is what depends on itself, such as a photograph and the fakes made of it: it is drawn as a whole. A value or an
interval that is undefined is None, and a reason says why; it is never 0 or NaN in disguise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000
CONFIDENCE = 0.95
MINIMUM_GROUPS = 10
TOO_FEW_GROUPS = "n/a: fewer than ten groups"

# Resamples that are worked on at once: 128 x 1,000 images x 8 bytes stays within a core's cache.
_ROWS_PER_CHUNK = 128

Float = NDArray[np.float64]
Integer = NDArray[np.int64]
Boolean = NDArray[np.bool_]
# Names of groups.
Names = NDArray[np.str_]
# As `group_weights` gives them: (R, G) and (G,).
Weights = tuple[NDArray[np.uint16], Names]


@dataclass(frozen=True)
class Measured:
    """A value with its interval; None where undefined, and `reason` says why value or interval is."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Interval:
    """A percentile interval [low, high]; both None where there is none, and `reason` says why."""

    low: float | None
    high: float | None
    n_groups: int
    n_resamples: int  # resamples that the percentiles were taken of
    n_dropped: int  # resamples with one class only, or in which the metric is undefined
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric of some images, and of every resample of their groups: intervals and paired differences are made of it.

    `value` is None where undefined. `samples` (R,) are NaN where the metric is undefined in a resample; None where
    there is no interval, and `reason` says why.
    """

    value: float | None
    samples: Float | None
    n_groups: int
    reason: str = ""

    def interval(self) -> Interval:
        """The 95 % percentile interval of the resamples; undefined ones are dropped and counted."""
        if self.samples is None:
            return Interval(None, None, self.n_groups, 0, 0, self.reason)
        defined = self.samples[~np.isnan(self.samples)]
        dropped = len(self.samples) - len(defined)
        if len(defined) == 0:
            return Interval(None, None, self.n_groups, 0, dropped, "undefined in every resample")
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(defined, [tail, 100 - tail])
        return Interval(float(low), float(high), self.n_groups, len(defined), dropped)

    def measured(self) -> Measured:
        """The value with its interval, for a table."""
        interval = self.interval()
        return Measured(self.value, interval.low, interval.high, interval.reason or None)

    def minus(self, other: Resampled) -> Resampled:
        """The paired difference from a metric that was resampled by the same group weights."""
        value = None if self.value is None or other.value is None else self.value - other.value
        if self.samples is None or other.samples is None:
            return Resampled(value, None, self.n_groups, self.reason or other.reason)
        return Resampled(value, self.samples - other.samples, self.n_groups)


def too_few_groups(groups: ArrayLike, pictures: str) -> str:
    """Why there is no interval of some pictures, if their groups (N,) are fewer than ten; else empty."""
    count = len(np.unique(np.asarray(groups, dtype=np.str_)))
    return "" if count >= MINIMUM_GROUPS else f"n/a: {pictures} of only {count} groups, ten are needed"


def group_weights(groups: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Weights:
    """How often each group is drawn in each bootstrap resample, and the groups: (R, G) and (G,) sorted.

    Depends on the seed and the *set* of groups only, not on order or on how many images a group has: detectors and
    cells with the same groups get the same resamples, which pairs their differences.
    """
    unique = np.unique(np.asarray(groups, dtype=np.str_))
    count = len(unique)
    if count == 0:
        return np.zeros((resamples, 0), dtype=np.uint16), unique
    drawn = np.random.default_rng(seed).integers(0, count, size=(resamples, count), dtype=np.int64)
    drawn += np.arange(resamples)[:, None] * count
    weights = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    return weights.astype(np.uint16), unique


def of_resamples(
    metrics_of: Callable[[Float], Mapping[str, Float]], groups: ArrayLike, weights: Weights
) -> dict[str, Float]:
    """Metrics of every resample, name -> (R,), from what makes them of image weights: (r, N) -> name -> (r,).

    groups: (N,), all among those of `weights`.
    """
    counts, unique = weights
    position = np.searchsorted(unique, np.asarray(groups, dtype=np.str_))  # (N,) image -> group
    chunks = [
        metrics_of(counts[start : start + _ROWS_PER_CHUNK].astype(np.float64)[:, position])
        for start in range(0, len(counts), _ROWS_PER_CHUNK)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def share(part: Boolean | Float, whole: Boolean, groups: Names, weights: Weights) -> Resampled:
    """The mean of `part` (N,) among the pictures in `whole` (N,); no resamples where these are of too few groups."""
    group_count = len(np.unique(groups[whole]))
    if not group_count:
        return Resampled(None, None, 0, "no test pictures")
    value = float(part[whole].mean())
    if group_count < MINIMUM_GROUPS:
        return Resampled(value, None, group_count, TOO_FEW_GROUPS)
    return Resampled(value, share_of_resamples(part, whole, groups, weights), group_count)


def share_of_resamples(part: Boolean | Float, whole: Boolean, groups: Names, weights: Weights) -> Float:
    """The mean of `part` among the pictures in `whole` in every resample: (R,), NaN where it has none of them."""
    counts, unique = weights
    position = np.searchsorted(unique, groups[whole])
    sums = np.stack([np.bincount(position, values, len(unique)) for values in (part[whole], whole[whole])], axis=1)
    parts, wholes = (counts.astype(np.float64) @ sums).T
    with np.errstate(invalid="ignore"):
        shares: Float = parts / wholes
    return shares
