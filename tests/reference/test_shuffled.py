"""Controls with shuffled labels are at chance unless groups are torn; those of a discriminant equal refitting it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from storage.digest import hash_seed
from storage.local import LocalStore
from storage.objects import notes_of, read_table
from tasks.detectors.discriminant import discriminants_of_labels, shrunken_discriminants
from tasks.detectors.logistic import fit_logistic
from tasks.detectors.shuffled import mean_interval, shuffled_aurocs, shuffled_control
from tasks.detectors.svm import balanced_weights, fit_linear_svm, standardisation
from tasks.spec.detectors import SvmSpec
from tasks.spec.splits import FixedSplits, Folds
from tests.reference.test_discriminant import classes
from tests.reference.test_svm import head, rows_of, stored

FIXED = FixedSplits()
FOLDS = Folds(count=3)
LOSSES: Mapping[str, Mapping[str, Any]] = {
    "hinge": {},
    "logistic": {"loss": "logistic"},
    "discriminant": {"loss": "discriminant", "svm": SvmSpec(c_values=(0.001, 0.01, 0.1), standardise=False)},
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_control_with_shuffled_labels_is_at_chance(loss: str) -> None:
    outcomes = shuffled_aurocs(rows_of(100, shift=4.0), head(**LOSSES[loss]), FIXED, repeats=40, seed=0)
    assert {n for _, n in outcomes} == {60}
    low, high = mean_interval([auroc for auroc, _ in outcomes if auroc is not None])[1:]
    assert low is not None
    assert high is not None
    assert low < 0.5 < high


@pytest.mark.parametrize("loss", LOSSES)
def test_the_control_finds_groups_that_are_torn_between_train_and_test(loss: str) -> None:
    rows = rows_of(60, shift=0.0, dimension=200)
    twins = np.random.default_rng(6).normal(size=(60, 200)).astype(np.float32)
    X = np.stack([twins[int(image.split("-")[1]) // 5] for image in rows.identity["image_id"]])
    X += np.where(rows.labels == 1, 3.0, -3.0)[:, None].astype(np.float32) * twins[0]
    torn = rows.identity.with_columns(
        (pl.col("image_id").str.extract(r"-(\d+)").cast(pl.Int32) // 5).cast(pl.String).alias("group_id")
    )
    rows = dataclasses.replace(rows, X=X, identity=torn)
    outcomes = shuffled_aurocs(rows, head(**LOSSES[loss]), FIXED, repeats=20, seed=0)
    low = mean_interval([auroc for auroc, _ in outcomes if auroc is not None])[1]
    assert low is not None
    assert low > 0.5


def same_ridge(X: np.ndarray, y: np.ndarray, strength: float) -> float:
    """The strength at which the covariance within the classes gets the ridge that one gives to that of all rows."""
    total = np.sum((X - X.mean(axis=0)) ** 2)
    within = sum(np.sum((X[y == label] - X[y == label].mean(axis=0)) ** 2) for label in (0, 1))
    return float(strength * total / ((1 - strength) * within + strength * total))


@pytest.mark.parametrize("strength", [0.003, 0.2, 1.0])
@pytest.mark.parametrize(("count", "dimension"), [(200, 12), (30, 120), (40, 40)])
def test_discriminants_of_many_labels_have_the_directions_of_refitting(
    strength: float, count: int, dimension: int
) -> None:
    X, _ = classes(count, dimension)
    labels = np.random.default_rng(3).integers(0, 2, (5, count))
    found = discriminants_of_labels(X, labels, strength)
    for y, coef in zip(labels, found, strict=True):
        expected, _ = shrunken_discriminants(X, y, np.ones(count))(same_ridge(X, y, strength))
        cosine = coef @ expected / (np.linalg.norm(coef) * np.linalg.norm(expected))
        assert cosine == pytest.approx(1.0, abs=1e-9)


def test_discriminants_of_features_without_variance_are_finite() -> None:
    labels = np.array([[0, 1, 0, 1]])
    assert np.isfinite(discriminants_of_labels(np.zeros((4, 3)), labels, 0.1)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_each_repeat_is_the_machine_of_its_own_labels(loss: str) -> None:
    rows, spec = rows_of(40, folds=True), head(**LOSSES[loss])
    c = 0.01  # the middle one of the candidates
    roles = rows.roles(0, FOLDS)
    train, test = rows.take(roles == "train"), rows.take(roles == "test")
    mean, scale = standardisation(train.X, np.ones(len(train.labels)))
    groups = sorted(set(rows.identity["group_id"]))
    for repeat, (auroc, _) in enumerate(shuffled_aurocs(rows, spec, FOLDS, repeats=4, seed=7)):
        coins = np.random.default_rng(hash_seed("shuffled", 7, repeat)).integers(0, 2, len(groups))
        flips = dict(zip(groups, coins.tolist(), strict=True))
        y, wanted = (
            np.array(
                [label ^ flips[group] for label, group in zip(part.labels, part.identity["group_id"], strict=True)]
            )
            for part in (train, test)
        )
        weights, X = balanced_weights(y, y.astype(np.str_)), (train.X - mean) / scale
        if loss == "hinge":
            expected = fit_linear_svm(X, y, weights, c)[0] / scale
        elif loss == "logistic":
            expected = fit_logistic(X, y, weights, c)[0] / scale
        else:
            expected = shrunken_discriminants(train.X, y, np.ones(len(y)))(same_ridge(train.X, y, c))[0]
        assert auroc == pytest.approx(roc_auc_score(wanted, test.X @ expected), abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_repeat_that_leaves_one_class_alone_has_no_auroc(loss: str) -> None:
    rows = rows_of(5)
    rows = rows.take(np.isin(rows.sources, ["coco", "gan"]))
    aurocs = [auroc for auroc, n in shuffled_aurocs(rows, head(**LOSSES[loss]), FIXED, repeats=20, seed=0) if n == 2]
    assert len(aurocs) == 20
    assert None in aurocs
    assert {*aurocs} - {None} <= {0.0, 0.5, 1.0}
    alone = rows.take(np.isin(rows.identity["image_id"].to_numpy(), ["coco-0", "gan-0", "coco-4"]))
    assert shuffled_aurocs(alone, head(**LOSSES[loss]), FIXED, repeats=2, seed=0) == [(None, 1), (None, 1)]


def test_the_controls_interval_is_the_t_interval() -> None:
    values = np.random.default_rng(7).normal(0.5, 0.1, 12)
    interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean_interval(values.tolist()) == pytest.approx((values.mean(), interval.low, interval.high))
    assert mean_interval([0.5]) == (0.5, None, None)
    assert mean_interval([]) == (None, None, None)


def test_the_control_is_stored_with_its_interval(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    features = (stored(store, rows_of(), "features"),)
    ref, _ = shuffled_control.compute(store, head=head(), features=features, splits=FIXED, repeats=5, seed=0)
    table = read_table(store, ref)
    notes = notes_of(store, ref)
    assert table.column_names == ["repeat", "auroc", "n"]
    assert notes["repeats"] == 5
    assert notes["mean"] == pytest.approx(np.mean(table["auroc"].to_numpy()))
