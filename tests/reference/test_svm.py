"""Linear heads agree with scikit-learn's own SVM, scaler and sigmoid, survive storage, and never look at test rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, notes_of
from storage.tables import features_table
from storage.weights import read_weights
from tasks.detectors import logistic, svm
from tasks.detectors.linear import Linear, train_head
from tasks.detectors.logistic import fit_logistic
from tasks.detectors.svm import (
    FeatureRows,
    LinearHead,
    Machine,
    balanced_weights,
    choose_c,
    fit_gram_svm,
    fit_head,
    fit_linear_svm,
    fit_platt,
    gram_matrix,
    standardisation,
)
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.detectors import Fit, HeadSpec, SvmSpec
from tasks.spec.splits import FixedSplits, Folds, Splits
from tasks.spec.views import View

FIXED = FixedSplits()
FOLDS = Folds(count=3)


def head(seed: int = 0, **changes: Any) -> HeadSpec:
    fields: dict[str, Any] = {
        "fit": Fit(detector="svm-64", seed=seed),
        "extractor": Vgg16Spec(layer="pool5-avg", weights="random:0"),
        "views": (View(path="fair", resolution=64),),
        "real": ("coco",),
        "fakes": ("gan", "sd"),
    }
    return HeadSpec(**(fields | changes))


def overlapping(count: int, dimension: int, seed: int = 0, shift: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping Gaussian classes: X (N, D) and labels (N,)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count)
    y[:2] = (0, 1)
    X = rng.normal(size=(count, dimension)).astype(np.float32)
    X[:, : max(1, dimension // 4)] += shift * y[:, None]
    return X, y


def identity(groups: int, folds: bool = False) -> pl.DataFrame:
    """One photograph and one `sd` picture of each group, and a `gan` picture in a group of its own."""
    rows = []
    for index in range(groups):
        split, fold = (None, index % 3) if folds else (("train", "train", "train", "val", "test")[index % 5], None)
        for source, group in (("coco", f"p{index}"), ("sd", f"p{index}"), ("gan", f"g{index}")):
            rows.append(
                {
                    "image_id": f"{source}-{index}",
                    "group_id": group,
                    "source": source,
                    "label": int(source != "coco"),
                    "split": split,
                    "fold": fold,
                }
            )
    schema = {"label": pl.Int8, "split": pl.String, "fold": pl.Int16}
    return pl.DataFrame(rows, schema_overrides=schema)


def rows_of(groups: int = 60, *, folds: bool = False, shift: float = 1.0, dimension: int = 8) -> FeatureRows:
    known = identity(groups, folds)
    labels = known["label"].to_numpy().astype(np.int64)
    X = np.random.default_rng(1).normal(size=(len(labels), dimension)).astype(np.float32)
    X[:, 0] += shift * labels
    return FeatureRows(known, labels, known["source"].to_numpy().astype(np.str_), X)


def stored(store: LocalStore, rows: FeatureRows, place: str) -> Ref:
    table = rows.identity.to_arrow().cast(
        pa.schema(
            [
                ("image_id", pa.string()),
                ("group_id", pa.string()),
                ("source", pa.string()),
                ("label", pa.int8()),
                ("split", pa.string()),
                ("fold", pa.int16()),
            ]
        )
    )
    return commit(store, place, step="embed", digest=place, recipe={}, parts={ROWS: features_table(table, rows.X)})


@pytest.mark.parametrize("c", [1e-3, 1e-1, 1.0])
def test_a_precomputed_gram_matrix_gives_the_linear_svm(c: float) -> None:
    X, y = overlapping(160, 24)
    weights = np.random.default_rng(2).uniform(0.2, 3.0, len(y))
    dual, intercept, converged = fit_gram_svm(gram_matrix(X), y, weights, c, tolerance=1e-9)
    reference = SVC(kernel="linear", C=c, tol=1e-9).fit(X.astype(np.float64), y, sample_weight=weights)
    decisions = X.astype(np.float64) @ (dual @ X.astype(np.float64)) + intercept
    expected = reference.decision_function(X.astype(np.float64))
    assert converged
    np.testing.assert_allclose(decisions, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(dual @ X, reference.coef_[0], atol=1e-6 * np.abs(reference.coef_).max())


def test_the_first_projects_svm_is_scikit_learns() -> None:
    X, y = overlapping(120, 16)
    coef, intercept = fit_linear_svm(X, y, np.ones(len(y)), 1.0)
    reference = SVC(kernel="linear", C=1).fit(X, y)
    np.testing.assert_allclose(X @ coef + intercept, reference.decision_function(X), rtol=1e-6, atol=1e-6)


def test_an_svm_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "MAX_ITERATIONS", 3)
    X, y = overlapping(100, 8)
    assert fit_gram_svm(gram_matrix(X), y, np.ones(100), 1.0)[2] is False
    _, notes = fit_head(rows_of(), head(), FIXED)
    assert notes[0]["converged"] is False


def test_features_are_standardised_like_scikit_learns_scaler() -> None:
    X, _ = overlapping(80, 5)
    X[:, 3] = 5.545177  # constant, and not exactly representable
    weights = np.random.default_rng(3).uniform(0.1, 2.0, 80)
    mean, scale = standardisation(X, weights)
    reference = StandardScaler().fit(X.astype(np.float64), sample_weight=weights)
    np.testing.assert_allclose(mean, reference.mean_, rtol=1e-12)
    np.testing.assert_allclose(np.delete(scale, 3), np.delete(reference.scale_, 3), rtol=1e-9)
    assert scale[3] == 1.0


def test_classes_weigh_the_same_and_so_do_a_class_sources() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    sources = np.array(["coco", "coco", "coco", "imagenet", "imagenet", "gan", "gan", "sd"])
    weights = balanced_weights(labels, sources)
    share = {name: weights[sources == name].sum() / 8 for name in ("coco", "imagenet", "gan", "sd")}
    assert share == pytest.approx({"coco": 0.25, "imagenet": 0.25, "gan": 0.25, "sd": 0.25})
    assert weights.mean() == pytest.approx(1.0)


def test_a_row_that_counts_twice_weighs_like_two_rows() -> None:
    labels, sources = np.array([0, 0, 1]), np.array(["a", "a", "b"])
    twice = balanced_weights(labels, sources, np.array([2.0, 1.0, 3.0]))
    repeated = balanced_weights(np.array([0, 0, 0, 1, 1, 1]), np.array(["a", "a", "a", "b", "b", "b"]))
    np.testing.assert_allclose(twice, [repeated[:2].sum(), repeated[2], repeated[3:].sum()])


@pytest.mark.parametrize("spread", [0.3, 5.0])
def test_the_calibration_minimises_platts_cross_entropy(spread: float) -> None:
    _, y = overlapping(200, 2)
    rng = np.random.default_rng(4)
    decisions = spread * (rng.normal(size=200) + y - 0.5)
    weights = rng.uniform(0.5, 2.0, 200)
    slope, offset = fit_platt(decisions, y, weights)
    targets = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))

    def cross_entropy(parameters: np.ndarray) -> float:
        p = np.clip(expit(parameters[0] * decisions + parameters[1]), 1e-300, 1 - 1e-16)
        return float(-np.sum(weights * (targets * np.log(p) + (1 - targets) * np.log(1 - p))))

    found = minimize(cross_entropy, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    np.testing.assert_allclose([slope, offset], found, rtol=1e-4, atol=1e-6)


def test_the_calibration_of_perfectly_separated_decisions_is_finite() -> None:
    slope, offset = fit_platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]), np.ones(4))
    assert 0 < slope < 100
    assert offset == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("decisions", [np.array([3.0, 2.0, -1.0, -2.0]), np.zeros(4)])
def test_a_calibration_keeps_the_order_where_val_is_below_chance(decisions: np.ndarray) -> None:
    slope, offset = fit_platt(decisions, np.array([0, 0, 1, 1]), np.ones(4))
    assert slope > 0
    np.testing.assert_allclose(expit(slope * decisions + offset), 0.5, atol=2e-3)


def fake_machine(c: float, X_sign: float = 1.0) -> Machine:
    return Machine(c, np.array([X_sign]), 0.0, converged=True)


def test_of_equally_good_candidates_the_smallest_c_is_taken() -> None:
    val = rows_of(shift=3.0, dimension=1)
    best, aurocs = choose_c(fake_machine, [0.1, 1.0, 10.0], val, np.ones(len(val.labels)))
    assert best.c == 0.1
    assert len(set(aurocs.values())) == 1


def test_candidates_end_after_two_that_are_worse() -> None:
    val = rows_of(shift=3.0, dimension=1)
    signs = {0.1: 1.0, 1.0: -1.0, 10.0: -1.0, 100.0: 1.0}
    best, aurocs = choose_c(lambda c: fake_machine(c, signs[c]), list(signs), val, np.ones(len(val.labels)))
    assert best.c == 0.1
    assert list(aurocs) == ["0.1", "1", "10"]


@pytest.mark.parametrize("splits", [FIXED, FOLDS])
def test_a_stored_head_gives_equal_scores_bit_for_bit(tmp_path: Path, splits: Splits) -> None:
    store = LocalStore(tmp_path)
    rows = rows_of(folds=splits is FOLDS)
    ref, _ = train_head.compute(store, head=head(), features=(stored(store, rows, "features"),), splits=splits)
    loaded = LinearHead.load(store, ref)
    fitted, _ = fit_head(svm.head_rows(store, (stored(store, rows, "features"),), head()), head(), splits)
    assert loaded.coef.shape == (splits.rotations, 8)
    for rotation in range(splits.rotations):
        decisions = fitted.decisions(rows.X, rotation)
        np.testing.assert_array_equal(loaded.decisions(rows.X, rotation), decisions)
        np.testing.assert_array_equal(
            loaded.probabilities(decisions, rotation), fitted.probabilities(decisions, rotation)
        )


def test_a_head_is_the_svm_on_its_train_rows_alone() -> None:
    rows = rows_of()
    spec = head(svm=SvmSpec(c_values=(0.1,), calibrate=False))
    fitted, notes = fit_head(rows, spec, FIXED)
    train = rows.take(rows.roles(0, FIXED) == "train")
    weights = balanced_weights(train.labels, train.sources)
    scaler = StandardScaler().fit(train.X.astype(np.float64), sample_weight=weights)
    reference = SVC(kernel="linear", C=0.1).fit(
        scaler.transform(train.X.astype(np.float64)), train.labels, sample_weight=weights
    )
    expected = reference.decision_function(scaler.transform(rows.X.astype(np.float64)))
    np.testing.assert_allclose(fitted.decisions(rows.X, 0), expected, atol=1e-6)
    np.testing.assert_allclose(fitted.probabilities(expected, 0), expit(expected))
    assert notes[0]["n_train"] == {"coco": 36, "gan": 36, "sd": 36}


def unequal_rows() -> FeatureRows:
    """All photographs of 100 groups, half of the `sd` pictures and a fifth of the `gan` ones; the classes overlap."""
    rows = rows_of(100, shift=0.7, dimension=24)
    number = rows.identity["image_id"].str.extract(r"-(\d+)").cast(pl.Int64).to_numpy() // 5
    every = np.select([rows.sources == "coco", rows.sources == "sd"], [1, 2], default=5)
    return rows.take(number % every == 0)


@pytest.mark.parametrize("c", [1e-3, 0.1, 1.0])
def test_a_logistic_head_is_scikit_learns_logistic_regression_on_its_train_rows_alone(c: float) -> None:
    rows = unequal_rows()
    spec = head(loss="logistic", svm=SvmSpec(c_values=(c,), calibrate=False))
    fitted, notes = fit_head(rows, spec, FIXED)
    train = rows.take(rows.roles(0, FIXED) == "train")
    assert notes[0]["n_train"] == {"coco": 60, "gan": 12, "sd": 30}
    weights = balanced_weights(train.labels, train.sources)
    scaler = StandardScaler().fit(train.X.astype(np.float64), sample_weight=weights)
    # Another algorithm than the head's own.
    reference = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10).fit(
        scaler.transform(train.X.astype(np.float64)), train.labels, sample_weight=weights
    )
    scaled = scaler.transform(rows.X.astype(np.float64))
    expected = reference.decision_function(scaled)
    np.testing.assert_allclose(fitted.decisions(rows.X, 0), expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(fitted.probabilities(expected, 0), reference.predict_proba(scaled)[:, 1])
    assert notes[0]["converged"] is True


def test_a_logistic_head_takes_the_c_that_is_best_on_val_and_is_calibrated_there() -> None:
    rows = unequal_rows()
    fitted, notes = fit_head(rows, head(loss="logistic"), FIXED)
    aurocs = notes[0]["val_auroc_by_c"]
    assert isinstance(aurocs, dict)
    assert len(aurocs) > 1
    assert fitted.c[0] == notes[0]["c"] == float(max(aurocs, key=lambda c: aurocs[c]))
    val = rows.take(rows.roles(0, FIXED) == "val")
    expected = fit_platt(fitted.decisions(val.X, 0), val.labels, balanced_weights(val.labels, val.sources))
    np.testing.assert_array_equal(fitted.calibration[0], expected)


def test_a_logistic_regression_that_does_not_converge_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 2)
    X, y = overlapping(100, 8)
    assert fit_logistic(X, y, np.ones(100), 1.0)[2] is False


def test_a_logistic_head_is_stored_as_such_and_gives_equal_scores(tmp_path: Path) -> None:
    store, rows, spec = LocalStore(tmp_path), unequal_rows(), head(loss="logistic")
    ref, _ = train_head.compute(store, head=spec, features=(stored(store, rows, "features"),), splits=FIXED)
    assert read_weights(store, ref)[1]["model"] == "logistic-regression"
    fitted, _ = fit_head(svm.head_rows(store, (stored(store, rows, "features"),), spec), spec, FIXED)
    np.testing.assert_array_equal(LinearHead.load(store, ref).decisions(rows.X, 0), fitted.decisions(rows.X, 0))


def test_the_loss_is_in_recipes_and_titles_only_where_it_is_not_the_svms() -> None:
    assert "loss" not in head().model_dump()
    assert head(loss="logistic").model_dump()["loss"] == "logistic"
    assert Linear(name="plain").title == "SVM, fitted on uncompressed pictures"
    named = Linear(name="logit", loss="logistic", fitted_in="augmented")
    assert named.title == "logistic regression, fitted over all qualities"
    assert Linear.model_validate(named.model_dump(mode="json")) == named


@pytest.mark.parametrize("splits", [FIXED, FOLDS])
@pytest.mark.parametrize("seed", [0, 1])
def test_test_rows_change_nothing(splits: Splits, seed: int) -> None:
    rows = rows_of(folds=splits is FOLDS)
    fitted, _ = fit_head(rows, head(seed=seed), splits)
    for rotation in range(splits.rotations):
        X = rows.X.copy()
        X[rows.roles(rotation, splits) == "test"] = 1e3
        changed, _ = fit_head(dataclasses.replace(rows, X=X), head(seed=seed), splits)
        np.testing.assert_array_equal(changed.coef[rotation], fitted.coef[rotation])
        np.testing.assert_array_equal(changed.calibration[rotation], fitted.calibration[rotation])


def test_a_head_that_needs_no_val_leaves_it_alone() -> None:
    rows = rows_of()
    spec = head(svm=SvmSpec(c_values=(1.0,), standardise=False, calibrate=False))
    without = rows.take(rows.roles(0, FIXED) != "val")
    np.testing.assert_array_equal(fit_head(rows, spec, FIXED)[0].coef, fit_head(without, spec, FIXED)[0].coef)
    with pytest.raises(SpecError, match=r"svm-64: no real picture in val \(rotation 0\) of coco"):
        fit_head(without, head(), FIXED)


def test_one_class_only_is_refused_in_one_sentence() -> None:
    rows = rows_of()
    photographs = rows.take(rows.labels == 0)
    with pytest.raises(SpecError, match=r"svm-64: no fake picture in train \(rotation 0\) of gan, sd; it needs"):
        fit_head(photographs, head(), FIXED)
    with pytest.raises(SpecError, match="there are no features"):
        svm.head_rows(LocalStore.__new__(LocalStore), (), head())


def test_a_training_seed_draws_groups_and_keeps_every_source() -> None:
    rows = rows_of()
    train = rows.take(rows.roles(0, FIXED) == "train")
    counts = svm._bootstrap_counts(train, 1, 0)
    by_group: dict[str, set[float]] = {}
    for group, count in zip(train.identity["group_id"], counts, strict=True):
        by_group.setdefault(group, set()).add(count)
    assert all(len(values) == 1 for values in by_group.values())
    assert {source: counts[train.sources == source].sum() for source in ("coco", "sd", "gan")} == {
        "coco": 36,
        "sd": 36,
        "gan": 36,
    }
    np.testing.assert_array_equal(counts, svm._bootstrap_counts(train, 1, 0))
    assert not np.array_equal(counts, svm._bootstrap_counts(train, 2, 0))
    assert not np.array_equal(fit_head(rows, head(), FIXED)[0].coef, fit_head(rows, head(seed=1), FIXED)[0].coef)


def test_too_many_training_rows_are_thinned_equally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "MAX_TRAIN_ROWS", 30)
    rows = rows_of()
    _, notes = fit_head(rows, head(), FIXED)
    assert notes[0]["n_train"] == {"coco": 10, "gan": 10, "sd": 10}


def test_rows_of_other_sources_are_dropped(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    rows = stored(store, rows_of(), "features")
    ref, _ = train_head.compute(store, head=head(fakes=("gan",)), features=(rows,), splits=FIXED)
    assert notes_of(store, ref)["rotations"][0]["n_train"] == {"coco": 36, "gan": 36}


def test_shards_and_their_order_do_not_change_a_head(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    rows = rows_of()
    shuffled = np.random.default_rng(5).permutation(len(rows.labels))
    shards = tuple(stored(store, rows.take(part), f"part-{i}") for i, part in enumerate(np.array_split(shuffled, 4)))
    one = svm.head_rows(store, (stored(store, rows, "whole"),), head())
    np.testing.assert_array_equal(
        fit_head(svm.head_rows(store, shards, head()), head(), FIXED)[0].coef, fit_head(one, head(), FIXED)[0].coef
    )
