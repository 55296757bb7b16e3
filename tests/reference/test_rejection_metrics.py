"""Rejection metrics agree with scikit-learn and with naive loops; the distance score with SciPy and scikit-learn."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis
from scipy.special import log_softmax, logsumexp
from sklearn import metrics as sklearn_metrics
from sklearn.covariance import empirical_covariance
from sklearn.decomposition import PCA

from tasks.evaluation.intervals import group_weights
from tasks.evaluation.rejection_metrics import (
    DIFFERENCE_METRICS,
    Answered,
    auroc_known_unknown,
    fpr_at_tpr,
    oscr,
    paired_difference,
    rejection_metrics,
    separation_metrics,
)
from tasks.networks.familiarity import familiarity_scores, fit_familiarity

Scores = NDArray[np.float64]
Features = NDArray[np.floating]
Classes = NDArray[np.int64]
Scored = tuple[Scores, NDArray[np.bool_], Scores]


def sides(known: int, unknown: int, seed: int, decimals: int | None = None, shift: float = 1.0) -> Scored:
    """Scores of known pictures, whether their class is right, and scores of unknown ones; rounding makes ties."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=known) + shift, rng.normal(size=unknown)
    correct = rng.random(known) < 0.8
    if decimals is not None:
        scores = np.round(scores[0], decimals), np.round(scores[1], decimals)
    return scores[0], correct, scores[1]


CASES: dict[str, Callable[[], Scored]] = {
    "random": lambda: sides(300, 200, 0),
    "imbalanced": lambda: sides(7, 400, 1),
    "many ties": lambda: sides(200, 300, 2, decimals=0),
    "some ties": lambda: sides(200, 100, 3, decimals=1),
    "twenty": lambda: sides(20, 20, 4),
    "all equal": lambda: (np.full(30, 0.5), np.arange(30) % 3 > 0, np.full(20, 0.5)),
    "perfect": lambda: (np.arange(30.0), np.arange(30) % 3 > 0, -np.arange(1.0, 20.0)),
    "reversed": lambda: (-np.arange(1.0, 30.0), np.arange(29) % 3 > 0, np.arange(20.0)),
    "one of each": lambda: (np.array([0.4]), np.array([True]), np.array([0.4])),
    "nothing right": lambda: (np.arange(30.0), np.zeros(30, bool), np.arange(20.0)),
}


def labelled(known: Scores, unknown: Scores) -> tuple[Scores, Scores]:
    return np.r_[np.ones(len(known)), np.zeros(len(unknown))], np.r_[known, unknown]


def reference_auroc(known: Scores, unknown: Scores) -> float:
    return float(sklearn_metrics.roc_auc_score(*labelled(known, unknown)))


def reference_fpr(known: Scores, unknown: Scores, tpr: float) -> float:
    fpr, found, _ = sklearn_metrics.roc_curve(*labelled(known, unknown), drop_intermediate=False)
    return float(fpr[np.argmax(found >= tpr)])


def reference_oscr(known: Scores, correct: NDArray[np.bool_], unknown: Scores) -> float:
    """The curve point by point, from the highest threshold to the lowest, and its trapezoids."""
    rates = [(0.0, 0.0)]
    for threshold in sorted({*known.tolist(), *unknown.tolist()}, reverse=True):
        ccr = sum(bool(right) and score >= threshold for score, right in zip(known, correct, strict=True)) / len(known)
        fpr = sum(score >= threshold for score in unknown) / len(unknown)
        rates.append((fpr, ccr))
    fprs, ccrs = zip(*rates, strict=True)
    return float(np.trapezoid(ccrs, fprs))


@pytest.mark.parametrize("name", CASES)
def test_curves_agree_with_scikit_learn_and_a_naive_loop(name: str) -> None:
    known, correct, unknown = CASES[name]()
    assert auroc_known_unknown(known, unknown) == pytest.approx(reference_auroc(known, unknown), abs=1e-12)
    for tpr in (0.5, 0.95, 1.0):
        assert fpr_at_tpr(known, unknown, tpr) == pytest.approx(reference_fpr(known, unknown, tpr), abs=1e-12)
    assert oscr(known, correct, unknown) == pytest.approx(reference_oscr(known, correct, unknown), abs=1e-12)


def answered(count: int, seed: int, groups: int, decimals: int | None = None) -> tuple[Answered, Scores]:
    """Rows of three known classes and unknown ones, with scores that know a little."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, 3, count)
    answer = np.where((rng.random(count) < 0.8) & (truth >= 0), truth, rng.integers(0, 3, count))
    names = np.char.add("group ", rng.integers(0, groups, count).astype(str))
    score = rng.normal(size=count) + (truth >= 0)
    return Answered.of(truth, answer, names), score if decimals is None else np.round(score, decimals)


@pytest.mark.parametrize("decimals", [None, 1])
def test_intervals_are_those_of_resampled_rows(decimals: int | None) -> None:
    images, score = answered(150, 5, groups=30, decimals=decimals)
    limits = np.where(np.arange(150) % 2 == 0, 0.2, 0.4)
    weights, unique = group_weights(images.groups, resamples=60, seed=9)
    resampled: dict[str, list[float]] = {}
    for counts in weights:
        rows = np.repeat(np.arange(150), counts[np.searchsorted(unique, images.groups)])
        known, correct, accepted = images.known[rows], images.correct[rows], score[rows] >= limits[rows]
        for name, value in {
            "auroc": reference_auroc(score[rows][known], score[rows][~known]),
            "fpr_at_95_tpr": reference_fpr(score[rows][known], score[rows][~known], 0.95),
            "oscr": reference_oscr(score[rows][known], correct[known], score[rows][~known]),
            "accuracy": correct[known].mean(),
            "rejected_known": 1 - accepted[known].mean(),
            "rejected_unknown": 1 - accepted[~known].mean(),
            "accuracy_accepted": correct[known & accepted].mean(),
        }.items():
            resampled.setdefault(name, []).append(float(value))
    found = separation_metrics(images, score, resamples=60, seed=9)
    found |= rejection_metrics(images, score, limits, resamples=60, seed=9)
    assert found.keys() == resampled.keys()
    for name, values in resampled.items():
        assert (found[name].low, found[name].high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5]))), name


def test_differences_are_paired_over_the_same_resamples() -> None:
    images, score = answered(150, 6, groups=30)
    other = score + np.random.default_rng(0).normal(size=150)
    weights, unique = group_weights(images.groups, resamples=60, seed=2)
    differences = []
    for counts in weights:
        rows = np.repeat(np.arange(150), counts[np.searchsorted(unique, images.groups)])
        known = images.known[rows]
        first, second = (reference_auroc(values[rows][known], values[rows][~known]) for values in (score, other))
        differences.append(first - second)
    found = paired_difference(images, score, other, resamples=60, seed=2)
    assert tuple(found) == DIFFERENCE_METRICS
    assert (found["auroc"].low, found["auroc"].high) == pytest.approx(tuple(np.percentile(differences, [2.5, 97.5])))


def test_two_thousand_resamples_of_fifteen_hundred_pictures_take_a_second() -> None:
    images, score = answered(1500, 7, groups=700)
    started = time.process_time()
    separation_metrics(images, score)
    assert time.process_time() - started < 2.0  # about 0.3 s on an idle core


def clouds(per_class: int = 80, dimension: int = 6, seed: int = 0) -> tuple[NDArray[np.float32], Classes]:
    rng = np.random.default_rng(seed)
    classes = np.repeat([0, 1, 2], per_class)
    mixing = rng.normal(size=(dimension, dimension))
    means = rng.normal(size=(3, dimension), scale=3)
    features = rng.normal(size=(3 * per_class, dimension)) @ mixing + means[classes]
    return features.astype(np.float32), classes


def centred_within(features: Features, classes: Classes) -> tuple[Features, Features]:
    means = np.stack([features[classes == label].mean(axis=0) for label in range(3)])
    return means, features - means[classes]


@pytest.mark.parametrize("components", [6, 3])
def test_the_distance_is_scipys_mahalanobis_distance_without_shrinkage(components: int) -> None:
    features, classes = clouds()
    fresh = np.random.default_rng(1).normal(size=(25, 6), scale=4).astype(np.float32)
    familiarity = fit_familiarity(features, classes, 3, components=components, shrinkage=0.0)
    assert familiarity.projection.shape == (6, components)
    reduced = PCA(components).fit(features.astype(np.float64))
    seen, unseen = reduced.transform(features.astype(np.float64)), reduced.transform(fresh.astype(np.float64))
    means, within = centred_within(seen, classes)
    precision = np.linalg.inv(empirical_covariance(within, assume_centered=True))
    expected = [-min(mahalanobis(row, mean, precision) ** 2 for mean in means) for row in unseen]
    found = familiarity_scores(np.zeros((25, 3)), fresh, familiarity, 1.0)[:, 2]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_probability_is_scipys_and_energies_do_not_overflow() -> None:
    features, classes = clouds()
    logits = np.random.default_rng(2).normal(size=(len(features), 3), scale=300)  # exp(300) overflows
    found = familiarity_scores(logits, features, fit_familiarity(features, classes, 3), temperature=2.5)
    np.testing.assert_allclose(found[:, 0], np.exp(log_softmax(logits / 2.5, axis=1).max(axis=1)), rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], logsumexp(logits, axis=1), rtol=1e-12)
