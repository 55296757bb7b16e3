"""Shrunken discriminants agree with scikit-learn's, weigh rows as repeating them would, and serve as heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.covariance import shrunk_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from benchmarks.made_up import preset
from storage.errors import SpecError
from storage.local import LocalStore
from storage.weights import read_weights
from tasks.detectors.discriminant import shrunken_discriminants
from tasks.detectors.linear import Linear, train_head
from tasks.detectors.svm import LinearHead, balanced_weights, fit_head, head_rows, standardisation
from tasks.evaluation.protocols import grid_of
from tasks.spec.detectors import SvmSpec
from tasks.spec.splits import FixedSplits
from tests.reference.test_svm import head, rows_of, stored, unequal_rows

FIXED = FixedSplits()


def classes(count: int, dimension: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unequal classes that overlap; features are correlated, and have scales of their own."""
    random = np.random.default_rng(seed)
    y = (random.random(count) < 0.3).astype(np.int64)
    X = random.normal(size=(count, dimension)) @ random.normal(size=(dimension, dimension))
    return X * np.geomspace(0.1, 10, dimension) + y[:, None] * random.normal(size=dimension), y


@pytest.mark.parametrize("strength", [1e-4, 0.01, 0.3, 1.0])
@pytest.mark.parametrize(("count", "dimension"), [(200, 12), (30, 120), (40, 40)])
def test_with_equal_weights_it_is_scikit_learns(strength: float, count: int, dimension: int) -> None:
    X, y = classes(count, dimension)
    coef, intercept = shrunken_discriminants(X, y, np.full(count, 0.7))(strength)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=strength).fit(X, y)
    np.testing.assert_allclose(coef, reference.coef_[0], rtol=1e-6, atol=1e-8 * np.abs(coef).max())
    assert intercept == pytest.approx(reference.intercept_[0], rel=1e-6)


@pytest.mark.parametrize("dimension", [6, 400])
def test_a_weight_counts_a_row_as_often(dimension: int) -> None:
    X, y = classes(50, dimension)
    times = np.random.default_rng(1).integers(1, 5, len(y))
    weighted = shrunken_discriminants(X, y, times / 3)(0.1)
    repeated = shrunken_discriminants(np.repeat(X, times, axis=0), np.repeat(y, times), np.ones(times.sum()))(0.1)
    np.testing.assert_allclose(weighted[0], repeated[0], rtol=1e-8, atol=1e-10 * np.abs(repeated[0]).max())
    assert weighted[1] == pytest.approx(repeated[1])


def test_it_solves_the_system_of_its_shrunken_weighted_covariance() -> None:
    X, y = classes(80, 10)
    weights = np.random.default_rng(2).uniform(0.1, 3.0, len(y))
    coef, intercept = shrunken_discriminants(X, y, weights)(0.2)
    shares = [weights[y == label].sum() / weights.sum() for label in (0, 1)]
    covariances = [np.cov(X[y == label].T, aweights=weights[y == label], ddof=0) for label in (0, 1)]
    means = [np.average(X[y == label], axis=0, weights=weights[y == label]) for label in (0, 1)]
    within = shrunk_covariance(shares[0] * covariances[0] + shares[1] * covariances[1], shrinkage=0.2)
    np.testing.assert_allclose(within @ coef, means[1] - means[0], rtol=1e-8)
    between = (means[0] + means[1]) / 2
    assert coef @ between + intercept == pytest.approx(np.log(shares[1] / shares[0]))


@pytest.mark.parametrize("dimension", [3, 9])
def test_constant_features_and_classes_without_variance_give_finite_coefficients(dimension: int) -> None:
    y = np.array([0, 0, 0, 1, 1])
    X = np.zeros((5, dimension))
    X[:, 0] = y
    for features in (X, np.zeros((5, dimension))):
        coef, intercept = shrunken_discriminants(features, y, np.ones(5))(1e-5)
        assert np.isfinite([*coef, intercept]).all()
    assert shrunken_discriminants(X, y, np.ones(5))(1e-5)[0][0] > 0


def test_a_head_is_the_discriminant_of_its_train_rows_with_the_strength_that_is_best_on_val() -> None:
    rows = unequal_rows()
    fitted, notes = fit_head(rows, head(loss="discriminant", svm=SvmSpec(c_values=(1e-3, 0.1, 1.0))), FIXED)
    aurocs = notes[0]["val_auroc_by_c"]
    assert isinstance(aurocs, dict)
    assert fitted.c[0] == notes[0]["c"] == float(max(aurocs, key=lambda c: aurocs[c]))
    assert notes[0]["converged"] is True
    train = rows.take(rows.roles(0, FIXED) == "train")
    weights = balanced_weights(train.labels, train.sources)
    mean, scale = standardisation(train.X, weights)
    coef, intercept = shrunken_discriminants((train.X - mean) / scale, train.labels, weights)(fitted.c[0])
    expected = (rows.X - mean) / scale @ coef + intercept
    np.testing.assert_allclose(fitted.decisions(rows.X, 0), expected, atol=1e-6)


def test_a_head_is_stored_as_a_discriminant_and_gives_equal_scores(tmp_path: Path) -> None:
    store, rows, spec = LocalStore(tmp_path), rows_of(), head(loss="discriminant")
    ref, _ = train_head.compute(store, head=spec, features=(stored(store, rows, "features"),), splits=FIXED)
    assert read_weights(store, ref)[1]["model"] == "linear-discriminant"
    # `train_head` reads rows in another order.
    fitted, _ = fit_head(head_rows(store, (stored(store, rows, "features"),), spec), spec, FIXED)
    np.testing.assert_array_equal(LinearHead.load(store, ref).decisions(rows.X, 0), fitted.decisions(rows.X, 0))


def test_it_is_called_a_discriminant_and_refuses_strengths_above_one() -> None:
    detector = Linear(name="traces", loss="discriminant", svm=SvmSpec(c_values=(0.1, 10.0)))
    assert detector.title == "linear discriminant, fitted on uncompressed pictures"
    grid = grid_of(preset("sample"), lambda extractor: extractor)
    with pytest.raises(SpecError, match=r"traces: .* strengths of shrinkage, got 10: name values"):
        detector.trains(next(iter(detector.entries(grid))), grid)
