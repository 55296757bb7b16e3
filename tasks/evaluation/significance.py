"""Whether two sets of answers about the same pictures differ by more than chance: paired tests, corrections, ranks.

Pictures are not independent of each other: a photograph stands in a group with the fakes that were made of it. Every
test here takes groups as what is independent. Where each picture is a group of its own, they are the published tests of
independent pictures: DeLong's and McNemar's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from storage.tables import FAKE, REAL
from tasks.evaluation.classification import EvaluationError, few_groups_of_a_class
from tasks.evaluation.intervals import (
    CONFIDENCE,
    Boolean,
    Float,
    Integer,
    Measured,
    Names,
    Resampled,
    Weights,
    group_weights,
    share,
    too_few_groups,
)

# A difference is called significant where its p, adjusted for all comparisons of its table, is below this.
LEVEL = 1 - CONFIDENCE
# Standard errors of AUROCs below this are rounding.
_NOTHING = 1e-12


@dataclass(frozen=True)
class Difference:
    """A paired difference, its 95 % interval, and the two-sided p of no difference.

    What is undefined is None, and `reason` says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str = ""


def auroc_difference(label: ArrayLike, first: ArrayLike, second: ArrayLike, groups: ArrayLike) -> Difference:
    """AUROC of the scores `first` minus that of `second`, of the same pictures, by DeLong's test for groups.

    The variance is Obuchowski's (1997, Biometrics 53:567, equation 4): structural components are summed within groups.
    With one picture in every group it is that of DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44:837).
    Components come from midranks (Sun and Xu 2014, IEEE SPL 21:1389), in O(N log N). The p and the interval are of
    Student's t with one degree of freedom less than the class of fewer groups has, which is the papers' normal
    distribution where there are many: with ten groups the normal one finds a difference in 9 % of cases where none is.

    Args:
        label: (N,) 0 real, 1 fake.
        first, second: (N,) finite scores on any scale, higher is more fake; ties count one half.
        groups: (N,) group ids.

    Returns:
        Without interval and p where photographs or fakes are of fewer than ten groups, or where a difference other
        than 0 is the same in every group; without a value where a class is missing.

    Raises:
        EvaluationError: unequal lengths, other labels, or scores that are not finite.
    """
    from scipy.special import stdtr, stdtrit

    label_, first_, second_, groups_ = _validated(label, first, second, groups)
    fake = label_ == FAKE
    if fake.all() or not fake.any():
        return Difference(None, reason="no photographs" if fake.any() else "no fakes")
    change = structural_components(label_, first_) - structural_components(label_, second_)  # (N,)
    value = float(change[fake].mean())
    if few := few_groups_of_a_class(label_, groups_):
        return Difference(value, reason=few)
    error = _standard_error(change, fake, groups_)
    if error < _NOTHING:
        if abs(value) < _NOTHING:
            return Difference(0.0, 0.0, 0.0, 1.0)
        return Difference(value, reason="n/a: the difference is the same in every group")
    freedom = min(len(np.unique(groups_[fake])), len(np.unique(groups_[~fake]))) - 1
    half = float(stdtrit(freedom, 1 - LEVEL / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(value) / error))
    return Difference(value, max(value - half, -1.0), min(value + half, 1.0), p)


def structural_components(label: Integer, score: Float) -> Float:
    """Of each picture the share of the other class that it is ordered rightly against, ties one half: (N,) in [0, 1].

    The mean over all fakes is the AUROC, and so is that over all photographs. Both classes must be there.
    """
    fake = label == FAKE
    among_all = _midranks(score)
    components = np.empty(len(score))
    components[fake] = (among_all[fake] - _midranks(score[fake])) / np.sum(~fake)
    components[~fake] = 1 - (among_all[~fake] - _midranks(score[~fake])) / np.sum(fake)
    return components


def _midranks(values: Float) -> Float:
    """Ranks from 1, the mean of them among equal values: (N,)."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Float = (np.cumsum(counts) - (counts - 1) / 2)[position]
    return ranks


def _standard_error(change: Float, fake: Boolean, groups: Names) -> float:
    """Of an AUROC, or of a difference of two, from its structural components (N,), summed within groups."""
    _, position = np.unique(groups, return_inverse=True)
    count = int(position.max()) + 1
    centred = change - change[fake].mean()
    of_fakes = np.bincount(position[fake], centred[fake], count) / np.sum(fake)  # (G,)
    of_reals = np.bincount(position[~fake], centred[~fake], count) / np.sum(~fake)  # (G,)
    # S10 / M + S01 / N + 2 S11 / MN, of the groups that have fakes, have photographs, and of all.
    variance = (
        _small_sample(len(np.unique(position[fake]))) * np.sum(of_fakes**2)
        + _small_sample(len(np.unique(position[~fake]))) * np.sum(of_reals**2)
        + 2 * _small_sample(count) * np.sum(of_fakes * of_reals)
    )
    return math.sqrt(max(float(variance), 0.0))


def _small_sample(count: int) -> float:
    return count / (count - 1)


def accuracy_difference(
    first: ArrayLike, second: ArrayLike, groups: ArrayLike, weights: Weights | None = None
) -> Difference:
    """Share of pictures that `first` calls rightly minus that of `second`: McNemar's exact test, for groups.

    If neither is better, then in each group the two may change places. The p is the share of all such exchanges, group
    by group, after which the accuracies differ by at least as much, counted exactly. With one picture in every group
    it is McNemar's exact test (1947, Psychometrika 12:153). The interval is the percentile bootstrap over groups.

    Args:
        first, second: (N,) bool, whether each calls a picture what it is.
        groups: (N,) group ids.
        weights: as `group_weights` gives them, of these groups or of more.

    Returns:
        Without interval and p where the pictures are of fewer than ten groups, without a value where there are none.

    Raises:
        EvaluationError: unequal lengths, or answers that are not booleans.
    """
    first_, second_, groups_ = np.asarray(first), np.asarray(second), np.asarray(groups, dtype=np.str_)
    if not first_.shape == second_.shape == groups_.shape or first_.ndim != 1:
        raise EvaluationError(
            "answers and groups must be one-dimensional and equally long; "
            f"got shapes {first_.shape}, {second_.shape}, {groups_.shape}"
        )
    if first_.dtype != np.bool_ or second_.dtype != np.bool_:
        raise EvaluationError(f"answers must be booleans (True: right); got dtypes {first_.dtype}, {second_.dtype}")
    if not len(first_):
        return Difference(None, reason="no test pictures")
    change = first_.astype(np.int64) - second_
    if few := too_few_groups(groups_, "pictures"):
        return Difference(float(change.mean()), reason=few)
    found = share(change, np.ones(len(change), dtype=bool), groups_, weights or group_weights(groups_)).measured()
    _, position = np.unique(groups_, return_inverse=True)
    sums = np.bincount(position, change).astype(np.int64)
    return Difference(found.value, found.low, found.high, exchange_p(sums), found.reason or "")


def exchange_p(sums: Integer) -> float:
    """The share of all choices of signs with which whole numbers (G,) sum up to at least as much, in either direction.

    Exact: the distribution of the sum is put together of a binomial one for each distinct size.
    """
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    chances = np.ones(1)  # of the sum of all that have the sign +
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = _fair_coins(count)
        chances = np.convolve(chances, spread)
    total = len(chances) - 1
    extreme = np.abs(2 * np.arange(total + 1) - total) >= abs(int(sums.sum()))
    return min(1.0, float(chances[extreme].sum()))


def _fair_coins(count: int) -> Float:
    """The chance of each number of heads: (count + 1,)."""
    from scipy.special import gammaln  # a binomial of `scipy.stats` takes seconds to import

    heads = np.arange(count + 1)
    ways = np.exp(gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * math.log(2))
    chances: Float = ways / ways.sum()
    return chances


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p (1979, Scand. J. Stat. 6:65) in the given order; None stays None and is no comparison.

    The chance that any of them falls below a level, where nothing differs, is at most this level, however they depend
    on each other.
    """
    tested = sorted((value, place) for place, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for before, (value, place) in enumerate(tested):
        largest = max(largest, min(1.0, value * (len(tested) - before)))
        adjusted[place] = largest
    return adjusted


def ranked(metrics: Sequence[Resampled]) -> list[Resampled]:
    """Ranks from 1 for the highest, the mean of them for equal values, in the data and in every resample.

    All must have been resampled by the same group weights. A resample in which one of them is undefined ranks nothing.
    One without a value has no rank and takes none from the others; where one has no samples no rank has an interval.
    """
    valued = [one for one in metrics if one.value is not None]
    if not valued:
        return [Resampled(None, None, one.n_groups, one.reason) for one in metrics]
    values = iter(_ranks(np.array([[one.value] for one in valued], dtype=np.float64)))
    samples = [one.samples for one in valued if one.samples is not None]
    resampled = iter(_ranks(np.stack(samples))) if len(samples) == len(valued) else None
    without = next((one.reason for one in valued if one.samples is None), "")
    return [
        Resampled(None, None, one.n_groups, one.reason)
        if one.value is None
        else Resampled(float(next(values)[0]), None if resampled is None else next(resampled), one.n_groups, without)
        for one in metrics
    ]


def rank_interval(rank: Resampled) -> Measured:
    """A rank with its 95 % interval, whose bounds are ranks of resamples, not numbers between two of them."""
    found = rank.measured()
    if rank.samples is None or found.low is None:
        return found
    defined, tail = rank.samples[~np.isnan(rank.samples)], 100 * LEVEL / 2
    low = np.percentile(defined, tail, method="lower")
    high = np.percentile(defined, 100 - tail, method="higher")
    return replace(found, low=float(low), high=float(high))


def _ranks(values: Float) -> Float:
    """Of D things in R resamples: (D, R) -> (D, R), NaN where one of the things is NaN."""
    above = (values[None, :, :] > values[:, None, :]).sum(axis=1)
    equal = (values[None, :, :] == values[:, None, :]).sum(axis=1)
    ranks: Float = np.where(np.isnan(values).any(axis=0), np.nan, above + (equal + 1) / 2)
    return ranks


def _validated(
    label: ArrayLike, first: ArrayLike, second: ArrayLike, groups: ArrayLike
) -> tuple[Integer, Float, Float, Names]:
    label_: Integer = np.asarray(label)
    groups_ = np.asarray(groups, dtype=np.str_)
    first_, second_ = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if label_.ndim != 1 or not label_.shape == first_.shape == second_.shape == groups_.shape:
        raise EvaluationError(
            "labels, scores and groups must be one-dimensional and equally long; "
            f"got shapes {label_.shape}, {first_.shape}, {second_.shape}, {groups_.shape}"
        )
    if not np.isin(label_, (REAL, FAKE)).all():
        raise EvaluationError("labels must be 0 (real) or 1 (fake)")
    if not (np.isfinite(first_).all() and np.isfinite(second_).all()):
        raise EvaluationError("scores must be finite: leave out pictures that one of the two did not score")
    return label_, first_, second_, groups_
