"""Tests of significance agree with published numbers, with SciPy, and with their definitions written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata, t
from sklearn.metrics import roc_auc_score

from tasks.evaluation.intervals import Resampled, group_weights
from tasks.evaluation.significance import (
    accuracy_difference,
    auroc_difference,
    exchange_p,
    holm,
    rank_interval,
    ranked,
)

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]
Names = NDArray[np.str_]
Pictures = tuple[Labels, Scores, Scores, Names]


def pictures(groups: int = 30, per_group: int = 4, seed: int = 0, lead: float = 0.4) -> Pictures:
    """Label, two scores with many ties, and groups of unequal sizes, whose pictures are alike."""
    random = np.random.default_rng(seed)
    of = np.concatenate([np.full(random.integers(2, per_group + 1), index) for index in range(groups)])
    label = np.arange(len(of)) % 2
    alike = random.normal(size=(2, groups))[:, of]
    first, second = (
        np.round(alike[place] + random.normal(size=len(of)) + label * ease, 1)
        for place, ease in enumerate((0.8 + lead, 0.8))
    )
    return label, first, second, of.astype(str)


def kernel(fakes: Scores, reals: Scores) -> Scores:
    """psi of DeLong's equation 1, for every fake and photograph: (M, N)."""
    psi: Scores = (fakes[:, None] > reals[None, :]) + 0.5 * (fakes[:, None] == reals[None, :])
    return psi


def delong(label: Labels, first: Scores, second: Scores) -> tuple[float, float]:
    """The difference and its standard error by the equations of the paper of 1988, in O(M N)."""
    psi = [kernel(score[label == 1], score[label == 0]) for score in (first, second)]
    contrast = np.array([1.0, -1.0])
    v10, v01 = np.stack([one.mean(axis=1) for one in psi]), np.stack([one.mean(axis=0) for one in psi])
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    return float(psi[0].mean() - psi[1].mean()), math.sqrt(contrast @ covariance @ contrast)


def obuchowski(label: Labels, first: Scores, second: Scores, groups: Names) -> float:
    """The standard error of a difference by the equations of the paper of 1997, group by group."""
    psi = [kernel(score[label == 1], score[label == 0]) for score in (first, second)]
    m, n = psi[0].shape
    names = np.unique(groups)
    fakes_of, reals_of = ([groups[label == which] == name for name in names] for which in (1, 0))
    x = np.array([[np.sum(one.mean(axis=1)[of] - one.mean()) for of in fakes_of] for one in psi])
    y = np.array([[np.sum(one.mean(axis=0)[of] - one.mean()) for of in reals_of] for one in psi])
    i10, i01, i = len(set(groups[label == 1])), len(set(groups[label == 0])), len(names)

    def covariance(r: int, s: int) -> float:
        s10 = i10 / ((i10 - 1) * m) * np.sum(x[r] * x[s])
        s01 = i01 / ((i01 - 1) * n) * np.sum(y[r] * y[s])
        s11, s11_other = (i / (i - 1) * np.sum(x[one] * y[two]) for one, two in ((r, s), (s, r)))
        return float(s10 / m + s01 / n + (s11 + s11_other) / (m * n))

    return math.sqrt(covariance(0, 0) + covariance(1, 1) - 2 * covariance(0, 1))


@pytest.mark.parametrize("seed", range(4))
def test_with_a_picture_per_group_it_is_delongs_test(seed: int) -> None:
    label, first, second, _ = pictures(seed=seed)
    found = auroc_difference(label, first, second, np.arange(len(label)))
    value, error = delong(label, first, second)
    freedom = min(np.sum(label == 0), np.sum(label == 1)) - 1
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.value == pytest.approx(roc_auc_score(label, first) - roc_auc_score(label, second), abs=1e-12)
    assert found.p == pytest.approx(2 * t.sf(abs(value) / error, freedom), rel=1e-9)
    assert (found.low, found.high) == pytest.approx(t.interval(0.95, freedom, value, error), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_with_groups_it_is_obuchowskis_variance(seed: int) -> None:
    label, first, second, groups = pictures(seed=seed)
    found = auroc_difference(label, first, second, groups)
    assert found.value is not None
    error = obuchowski(label, first, second, groups)
    freedom = min(len(set(groups[label == one])) for one in (0, 1)) - 1
    assert found.p == pytest.approx(2 * t.sf(abs(found.value) / error, freedom), rel=1e-9)


def test_its_interval_is_near_that_of_the_group_bootstrap() -> None:
    label, first, second, groups = pictures(groups=150)
    found = auroc_difference(label, first, second, groups)
    counts, unique = group_weights(groups, 400, seed=3)
    position = np.searchsorted(unique, groups)
    drawn = [
        roc_auc_score(label, first, sample_weight=row[position])
        - roc_auc_score(label, second, sample_weight=row[position])
        for row in counts
    ]
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)


@pytest.mark.parametrize("groups", [10, 40])
def test_equally_good_detectors_differ_in_one_case_of_twenty_by_groups_and_in_many_more_by_pictures(
    groups: int,
) -> None:
    """Fakes of one group are alike here, and so are photographs: ten of each are not ten draws."""
    random = np.random.default_rng(groups)
    of, label = np.repeat(np.arange(2 * groups), 10), np.repeat(np.arange(2 * groups) % 2, 10)
    rejected = np.zeros(3)
    repeats = 250
    for _ in range(repeats):
        first, second = (random.normal(size=2 * groups)[of] + 0.5 * random.normal(size=len(of)) for _ in range(2))
        first, second = first + label, second + label
        right, other = ((score > 0.5) == (label == 1) for score in (first, second))
        p = (
            auroc_difference(label, first, second, of).p,
            accuracy_difference(right, other, of, group_weights(of, 1)).p,
            auroc_difference(label, first, second, np.arange(len(of))).p,
        )
        rejected += np.array(p, dtype=float) < 0.05
    by_groups, decisions, by_pictures = rejected / repeats
    assert 0.02 <= by_groups <= 0.08
    assert decisions <= 0.08
    assert by_pictures > 0.3


# What statsmodels' tests expect of SPSS and of Vassar's calculator, for McNemar's exact test.
@pytest.mark.parametrize(
    ("first_alone", "second_alone", "p"),
    [(121, 59, 0.000004), (70, 59, 0.378688), (80, 59, 0.089452), (30, 60, 0.00206), (10, 30, 0.002221), (10, 10, 1.0)],
)
def test_with_a_picture_per_group_it_is_mcnemars_exact_test(first_alone: int, second_alone: int, p: float) -> None:
    first = np.repeat([True, False, True, False], [101, second_alone, first_alone, 33])
    second = np.repeat([True, True, False, False], [101, second_alone, first_alone, 33])
    found = accuracy_difference(first, second, np.arange(len(first)))
    assert found.p == pytest.approx(p, abs=1e-6)
    assert found.p == pytest.approx(binomtest(first_alone, first_alone + second_alone).pvalue, rel=1e-9)
    assert found.value == pytest.approx((first_alone - second_alone) / len(first))


@pytest.mark.parametrize("seed", range(5))
def test_the_exact_p_is_that_of_all_exchanges_written_out(seed: int) -> None:
    sums = np.random.default_rng(seed).integers(-3, 4, size=11)
    exchanged = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=len(sums))]
    expected = np.mean([one >= abs(sums.sum()) for one in exchanged])
    assert exchange_p(sums) == pytest.approx(float(expected), rel=1e-12)


def test_holms_adjustment_of_the_common_example() -> None:
    # Of Wikipedia's article on it and of R's p.adjust: at 0.05 the first and the last are rejected alone.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holms_adjustment_is_bonferronis_over_all_subsets() -> None:
    """By the closure principle: the largest Bonferroni p of all subsets that hold the hypothesis."""
    p = np.random.default_rng(2).uniform(0, 0.3, 6).tolist()
    subsets = [s for size in range(1, 7) for s in itertools.combinations(range(6), size)]
    expected = [max(min(1.0, len(s) * min(p[i] for i in s)) for s in subsets if one in s) for one in range(6)]
    assert holm(p) == pytest.approx(expected)


def test_ranks_are_scipys() -> None:
    values = np.round(np.random.default_rng(4).uniform(size=(4, 50)), 1)
    found = ranked([Resampled(float(row[0]), row, 50) for row in values])
    expected = rankdata(-values, axis=0)
    for rank, row in zip(found, expected, strict=True):
        assert rank.value == row[0]
        assert np.array_equal(np.asarray(rank.samples), row)


def test_the_bounds_of_a_rank_are_ranks_and_not_between_two() -> None:
    samples = np.repeat([1.0, 2.0, 2.5, np.nan], [1, 38, 1, 3])
    assert np.nanpercentile(samples, [2.5, 97.5]) == pytest.approx([1.975, 2.0125])
    found = rank_interval(Resampled(2.0, samples, 40))
    assert (found.value, found.low, found.high) == (2.0, 1.0, 2.5)
    without = rank_interval(Resampled(2.0, None, 4, "n/a: fewer than ten groups"))
    assert (without.low, without.high, without.reason) == (None, None, "n/a: fewer than ten groups")
