"""Rejection: thresholds come from known val pictures alone, known pictures can be rejected, gaps have reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, notes_of, read_table
from storage.tables import FAMILIARITY, FAMILIARITY_SCHEMA, SCORE_SCHEMA
from tasks.evaluation.classification import EvaluationError
from tasks.evaluation.rejection import CONFUSION, DIFFERENCES, RejectionTables, evaluate_answers, evaluate_rejection
from tasks.evaluation.rejection_metrics import (
    REJECTION_METRICS,
    SEPARATION_METRICS,
    Answered,
    auroc_known_unknown,
    confusion_matrix,
    fpr_at_tpr,
    oscr,
    paired_difference,
    rejection_metrics,
    separation_metrics,
    threshold_keeping,
)
from tasks.networks.familiarity import SCORES, Familiarity, familiarity_scores, fit_familiarity
from tasks.spec.detectors import Fit

CLASSES = ("real", "gan")
Classes = NDArray[np.int64]


def features(rows: int = 60, dimension: int = 40, seed: int = 0) -> tuple[NDArray[np.float32], Classes]:
    rng = np.random.default_rng(seed)
    classes = np.arange(rows) % 3
    values = rng.normal(size=(rows, dimension)) + 4 * rng.normal(size=(3, dimension))[classes]
    return values.astype(np.float32), classes


def test_pictures_like_the_train_pictures_are_the_more_familiar_ones() -> None:
    X, classes = features()
    familiarity = fit_familiarity(X, classes, 3)
    near = familiarity_scores(np.zeros((60, 3)), X, familiarity, 1.0)
    far = familiarity_scores(np.zeros((60, 3)), X + 10, familiarity, 1.0)
    assert near[:, 2].min() > far[:, 2].max()
    assert (near[:, 2] <= 0).all()
    sure, unsure = familiarity_scores(np.array([[9.0, 0, 0], [1.0, 1, 1]]), X[:2], familiarity, 1.0)
    assert (sure[:2] > unsure[:2]).all()
    assert near.dtype == np.float64


def test_a_familiarity_is_small_and_reads_back_from_its_tensors() -> None:
    familiarity = fit_familiarity(*features(), 3)
    tensors = familiarity.tensors()
    assert {name: (value.shape, value.dtype) for name, value in tensors.items()} == {
        "rejection.mean": ((40,), np.dtype(np.float32)),
        "rejection.projection": ((40, 32), np.dtype(np.float32)),
        "rejection.class_means": ((3, 32), np.dtype(np.float32)),
    }
    again = Familiarity.from_tensors(tensors | {"classifier.weight": np.zeros((3, 40))})
    assert all(np.array_equal(value, again.tensors()[name]) for name, value in tensors.items())


def test_weights_without_or_with_a_mangled_rejection_are_refused() -> None:
    tensors = fit_familiarity(*features(), 3).tensors()
    with pytest.raises(SpecError, match=r"missing rejection\.mean"):
        Familiarity.from_tensors({name: value for name, value in tensors.items() if name != "rejection.mean"})
    with pytest.raises(SpecError, match=r"expected mean \(D,\)"):
        Familiarity.from_tensors(tensors | {"rejection.mean": np.zeros(39)})


@pytest.mark.parametrize("rows", [5, 12, 34])
def test_fewer_pictures_than_dimensions_still_give_finite_distances(rows: int) -> None:
    X, classes = features(rows)
    familiarity = fit_familiarity(X, classes, 3)
    assert familiarity.projection.shape == (40, min(32, rows - 1))
    scores = familiarity_scores(np.zeros((60, 3)), features(60, seed=1)[0], familiarity, 1.0)
    assert np.isfinite(scores).all()


def test_a_score_does_not_depend_on_the_rows_beside_it() -> None:
    X, classes = features(200)
    logits = np.random.default_rng(1).normal(size=(200, 3))
    familiarity = fit_familiarity(X, classes, 3)
    together = familiarity_scores(logits, X, familiarity, 1.3)
    alone = [familiarity_scores(logits[i : i + 1], X[i : i + 1], familiarity, 1.3)[0] for i in range(200)]
    np.testing.assert_array_equal(together, alone)
    assert familiarity_scores(logits[:0], X[:0], familiarity, 1.3).shape == (0, 3)


def test_a_fit_does_not_change_the_features_that_it_was_given() -> None:
    X = features()[0].astype(np.float64)
    before = X.copy()
    fit_familiarity(X, features()[1], 3)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(
    ("X", "classes", "count", "message"),
    [
        (features()[0], features()[1], 4, r"none of class \[3\]"),
        (features()[0], features()[1], 2, r"0 \.\. 1, got \[2\]"),
        (features()[0], features()[1][:-1], 3, "expected features"),
        (np.zeros((0, 4)), np.zeros(0, int), 1, "expected features"),
        (features()[0] * np.nan, features()[1], 3, "finite; 60 of 60"),
        (np.full((6, 4), 0.1), np.arange(6) % 3, 3, "have the same"),
        (np.eye(3), np.arange(3), 3, "at least two different"),
        (np.eye(3)[[0, 1, 2, 0, 1, 2]], np.arange(6) % 3, 3, "at least two different"),
    ],
)
def test_features_that_no_distance_can_be_fitted_on_are_refused(
    X: NDArray[np.float64], classes: Classes, count: int, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        fit_familiarity(X, classes, count)


def test_logits_and_features_of_another_network_are_refused() -> None:
    X, classes = features()
    familiarity = fit_familiarity(X, classes, 3)
    for logits, values, temperature, message in [
        (np.zeros((60, 4)), X, 1.0, r"logits \(N, 3\)"),
        (np.zeros((60, 3)), X[:, 1:], 1.0, r"features \(N, 40\)"),
        (np.zeros((59, 3)), X, 1.0, "expected logits"),
        (np.full((60, 3), np.nan), X, 1.0, "finite"),
        (np.zeros((60, 3)), X, 0.0, "temperature"),
        (np.zeros((60, 3)), X, float("nan"), "temperature"),
    ]:
        with pytest.raises(SpecError, match=message):
            familiarity_scores(logits, values, familiarity, temperature)


@pytest.mark.parametrize(("count", "kept", "expected"), [(100, 0.95, 95), (20, 0.95, 19), (3, 0.95, 3), (7, 0.5, 4)])
def test_a_threshold_keeps_no_more_known_pictures_than_it_must(count: int, kept: float, expected: int) -> None:
    scores = np.random.default_rng(count).normal(size=count)
    assert np.sum(scores >= threshold_keeping(scores, kept)) == expected


def test_a_threshold_among_equal_scores_keeps_them_all() -> None:
    assert threshold_keeping([0.5] * 9 + [0.1], 0.5) == 0.5
    assert threshold_keeping([0.5] * 9 + [0.1], 0.95) == 0.1


def test_scores_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(EvaluationError, match="got none"):
        threshold_keeping([])
    with pytest.raises(EvaluationError, match="kept"):
        threshold_keeping([0.5], kept=0.0)
    with pytest.raises(EvaluationError, match="got 1 and 0"):
        auroc_known_unknown([0.5], [])
    with pytest.raises(EvaluationError, match="finite"):
        auroc_known_unknown([np.nan], [0.5])
    with pytest.raises(EvaluationError, match="tpr"):
        fpr_at_tpr([0.5], [0.5], 0.0)
    with pytest.raises(EvaluationError, match="one boolean per known picture"):
        oscr([0.5], [1], [0.5])
    with pytest.raises(EvaluationError, match="equally long"):
        Answered.of([0, 1], [0], ["a", "b"])
    with pytest.raises(EvaluationError, match="class index"):
        Answered.of([-2], [0], ["a"])
    images = Answered.of([0, -1], [0, 0], ["a", "b"])
    with pytest.raises(EvaluationError, match="one per picture"):
        separation_metrics(images, [0.5])
    with pytest.raises(EvaluationError, match="one per picture"):
        rejection_metrics(images, [0.5, 0.5], [0.5])


def test_oscr_is_the_accuracy_where_every_unknown_picture_scores_lower() -> None:
    assert oscr([3.0, 4, 5, 6], [True, True, True, False], [0.0, 1, 2]) == 0.75


def many(known: int = 40, unknown: int = 40) -> tuple[Answered, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    truth = np.r_[np.arange(known) % 2, np.full(unknown, -1)].astype(int)
    images = Answered.of(truth, np.abs(truth), [f"group {index}" for index in range(known + unknown)])
    return images, rng.normal(size=known + unknown) + (truth >= 0)


def test_what_is_undefined_is_null_with_a_reason() -> None:
    images, score = many(unknown=0)
    found = separation_metrics(images, score) | rejection_metrics(images, score, np.zeros(40))
    for name in ("auroc", "fpr_at_95_tpr", "oscr", "rejected_unknown"):
        assert (found[name].value, found[name].low, found[name].reason) == (None, None, "no unknown pictures")
    assert found["accuracy"].low is not None
    assert found["rejected_known"].low is not None

    images, score = many(known=0)
    found = separation_metrics(images, score) | rejection_metrics(images, score, np.zeros(40))
    assert {name for name, measured in found.items() if measured.value is not None} == {"rejected_unknown"}
    assert found["auroc"].reason == found["accuracy_accepted"].reason == "no known pictures"

    images, score = many()
    assert rejection_metrics(images, score, np.full(80, 99.0))["accuracy_accepted"].reason == (
        "every known picture is rejected"
    )
    for measured in rejection_metrics(images, score, np.full(80, np.nan)).values():
        assert (measured.value, measured.reason) == (None, "no known val pictures to set the threshold by")


def test_under_ten_groups_there_is_a_value_but_no_interval() -> None:
    images, score = many(unknown=9)
    found = separation_metrics(images, score) | rejection_metrics(images, score, np.zeros(49))
    for name in ("auroc", "fpr_at_95_tpr", "oscr", "rejected_unknown"):
        assert found[name].value is not None
        assert (found[name].low, found[name].high) == (None, None)
        assert found[name].reason == "n/a: unknown pictures of only 9 groups, ten are needed"
    assert found["rejected_known"].low is not None
    assert paired_difference(images, score, -score)["auroc"].reason == found["auroc"].reason


def test_a_score_compared_with_itself_differs_by_nothing() -> None:
    images, score = many()
    for measured in paired_difference(images, score, 2 * score + 1).values():
        assert (measured.value, measured.low, measured.high) == (0.0, 0.0, 0.0)


def test_scores_of_different_folds_are_not_compared() -> None:
    images, score = many()
    folds = np.arange(80) % 4
    apart = Answered.of(images.truth, images.answer, images.groups, folds)
    before, after = separation_metrics(apart, score), separation_metrics(apart, score + 1000 * folds)
    assert before == after
    each = [
        auroc_known_unknown(score[images.known & (folds == fold)], score[~images.known & (folds == fold)])
        for fold in range(4)
    ]
    assert before["auroc"].value == pytest.approx(np.mean(each))  # ten known and ten unknown pictures in each


def test_folds_that_share_no_pictures_of_both_kinds_say_so() -> None:
    images, score = many()
    apart = Answered.of(images.truth, images.answer, images.groups, images.known.astype(int))
    assert separation_metrics(apart, score)["auroc"].reason == "no fold has both known and unknown pictures"


def test_the_confusion_matrix_counts_every_row_once() -> None:
    images = Answered.of([0, 0, 1, 1, -1, -1, -1], [0, 1, 1, 1, 0, 1, 1], list("abcdefg"))
    sources = ["coco", "coco", "gan", "gan", "dalle", "dalle", "sdxl"]
    accepted = np.array([True, True, True, False, False, True, True])
    found = confusion_matrix(images, sources, accepted, CLASSES, ("dalle", "sdxl"))
    assert found.tolist() == [[1, 1, 0], [0, 1, 1], [0, 1, 1], [0, 1, 0]]
    with pytest.raises(EvaluationError, match=r"got sources \['sdxl'\]"):
        confusion_matrix(images, sources, accepted, CLASSES, ("dalle",))


def answers(per_source: int = 40, folds: int = 2, seed: int = 0) -> pl.DataFrame:
    """Val and test rows of two known sources, an unknown one and one that is neither; each fold has its own scale."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for source in ("coco", "gan", "dalle", "shifted"):
        for split in ("val", "test"):
            for index in range(per_source):
                known, fold = source in ("coco", "gan"), index % folds
                p = float(np.clip(rng.normal(0.15 if source == "coco" else 0.8, 0.2), 0.01, 0.99))
                rows.append(
                    {
                        "image_id": f"{split}-{index:04d}",
                        "group_id": f"{split}-{index}",
                        "source": source,
                        "label": int(source != "coco"),
                        "split": split,
                        "fold": fold,
                        **Fit(detector="dense").model_dump(),
                        "path": "fair",
                        "resolution": "native",
                        "perturbation": "none",
                        "p_fake": p,
                        "decision": p,
                        "class_probabilities": [1 - p, p],
                        "max_probability": max(p, 1 - p),
                        "energy": float(rng.normal(2 * known, 1) + 5 * fold),
                        "distance": float(rng.normal(3 * known, 1) * (1 + fold) - 20),
                    }
                )
    types: dict[str, Any] = {
        "label": pl.Int8,
        "fold": pl.Int16,
        "fitted_on": pl.String,
        "without": pl.String,
        "class_probabilities": pl.List(pl.Float64),
    }
    return pl.DataFrame(rows, schema_overrides=types)


ARGUMENTS: dict[str, Any] = {
    "scenario": "dalle",
    "network": "dense",
    "unknown_sources": ("dalle",),
    "classes": CLASSES,
    "score": "distance",
    "kept": 0.95,
    "bounds": (0.6, 0.7),
    "seed": 0,
    "resamples": 200,
}


def evaluated(frame: pl.DataFrame, **changed: Any) -> RejectionTables:
    return evaluate_answers(frame, frame, **{**ARGUMENTS, **changed})


def by_name(tables: RejectionTables) -> dict[tuple[str, str | None, str], dict[str, Any]]:
    return {(row["score"], row["rule"], row["metric"]): row for row in tables.metrics}


def test_every_score_is_judged_by_the_share_kept_and_the_probability_by_bounds_too() -> None:
    found = by_name(evaluated(answers()))
    rules = {(score, rule) for score, rule, _ in found}
    assert rules == {
        *((score, rule) for score in SCORES for rule in (None, "kept-0.95")),
        ("max-probability", "bound-0.6"),
        ("max-probability", "bound-0.7"),
    }
    assert {metric for _, rule, metric in found if rule} == {*REJECTION_METRICS, "threshold"}
    assert {metric for _, rule, metric in found if not rule} == set(SEPARATION_METRICS)
    assert {score for (score, _, _), row in found.items() if row["chosen"]} == {"distance"}
    row = found["distance", None, "auroc"]
    assert (row["n_known"], row["n_unknown"], row["n_groups"]) == (80, 40, 40)
    assert row["low"] < row["value"] < row["high"]
    assert found["distance", "kept-0.95", "threshold"]["reason"] == "mean of 2 folds' thresholds"
    assert found["max-probability", "bound-0.6", "threshold"]["value"] == 0.6


def test_known_pictures_can_be_rejected() -> None:
    found = by_name(evaluated(answers(), kept=0.5))
    assert found["distance", "kept-0.5", "rejected_known"]["value"] > 0.2
    matrix = {(row["truth"], row["answer"]): row["count"] for row in evaluated(answers(), kept=0.5).confusion}
    assert matrix["real", "unknown"] > 0
    assert matrix["gan", "unknown"] > 0


def test_unknown_pictures_never_touch_the_threshold() -> None:
    frame = answers()
    unknown = pl.col("source").is_in(["dalle", "shifted"])
    changed = frame.with_columns(
        pl.when(unknown).then(pl.col(name) - 100).otherwise(pl.col(name)).alias(name)
        for name in ("max_probability", "energy", "distance")
    )
    before, after = evaluated(frame), evaluated(changed)
    assert before.thresholds == after.thresholds
    rows, again = by_name(before), by_name(after)
    for key, row in rows.items():
        if key[2] in ("rejected_known", "accuracy_accepted", "accuracy", "threshold"):
            assert row == again[key]
    assert rows["energy", "kept-0.95", "rejected_unknown"]["value"] < 1
    assert again["energy", "kept-0.95", "rejected_unknown"]["value"] == 1


def test_test_pictures_never_touch_the_threshold() -> None:
    frame = answers()
    changed = frame.with_columns(
        pl.when(pl.col("split") == "test").then(pl.col("energy") * 3).otherwise(pl.col("energy")).alias("energy")
    )
    assert evaluated(frame).thresholds == evaluated(changed).thresholds


def test_every_fold_has_its_own_threshold() -> None:
    frame = answers()
    for fold, threshold in evaluated(frame).thresholds["distance"].items():
        val = frame.filter(
            (pl.col("split") == "val") & (pl.col("fold") == fold) & pl.col("source").is_in(["coco", "gan"])
        )
        assert (val["distance"] >= threshold).sum() == 38  # of 40


def test_sources_that_are_neither_known_nor_unknown_take_no_part() -> None:
    frame = answers()
    assert evaluated(frame) == evaluated(frame.filter(pl.col("source") != "shifted"))
    confusion = evaluated(frame).confusion
    assert {row["truth"] for row in confusion} == {"real", "gan", "dalle"}
    rule = [row for row in confusion if row["score"] == "energy" and row["rule"] == "kept-0.95"]
    assert sum(row["count"] for row in rule) == 120
    assert {row["answer"] for row in rule} == {"real", "gan", "unknown"}


def test_the_order_of_rows_does_not_matter() -> None:
    frame = answers()
    assert evaluated(frame) == evaluated(frame.sample(fraction=1.0, shuffle=True, seed=3))


def test_a_picture_that_several_folds_score_is_one_picture() -> None:
    frame = answers(folds=1)
    twice = pl.concat(
        [frame, frame.filter(pl.col("source") == "dalle").with_columns(pl.lit(1, pl.Int16).alias("fold"))]
    )
    found = by_name(evaluate_answers(frame, frame, **ARGUMENTS))
    again = by_name(evaluate_answers(frame, twice, **ARGUMENTS))
    assert again["energy", None, "auroc"]["n_unknown"] == 40
    assert again["energy", None, "auroc"]["value"] == found["energy", None, "auroc"]["value"]


def test_differences_stand_against_the_maximum_probability() -> None:
    rows = evaluated(answers(folds=1)).differences
    assert {(row["score"], row["against"], row["metric"]) for row in rows} == {
        (score, "max-probability", metric) for score in ("energy", "distance") for metric in ("auroc", "oscr")
    }
    found = by_name(evaluated(answers(folds=1)))
    for row in rows:
        expected = (
            found[row["score"], None, row["metric"]]["value"] - found["max-probability", None, row["metric"]]["value"]
        )
        assert row["value"] == pytest.approx(expected)
        assert row["low"] < row["value"] < row["high"]


def test_a_scenario_without_unknown_pictures_or_val_pictures_says_so() -> None:
    frame = answers()
    found = by_name(evaluated(frame.filter(pl.col("source") != "dalle")))
    assert found["distance", None, "auroc"]["reason"] == "no unknown pictures"
    assert found["distance", "kept-0.95", "rejected_known"]["value"] is not None
    without = evaluated(frame.filter((pl.col("split") == "test") | (pl.col("fold") == 0)))
    row = by_name(without)["distance", "kept-0.95", "rejected_known"]
    assert (row["value"], row["reason"]) == (None, "no known val pictures to set the threshold by")
    assert {row["rule"] for row in without.confusion} == {"bound-0.6", "bound-0.7"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"score": "entropy"}, "unknown score 'entropy', expected one of max-probability, energy, distance"),
        ({"classes": ("gan", "real")}, "first class must be 'real'"),
        ({"classes": ()}, "first class must be 'real'"),
        ({"unknown_sources": ("gan",)}, "cannot be unknown"),
        ({"classes": ("real", "gan", "sdxl")}, r"probabilities of 3 classes .* got \[2\]"),
    ],
)
def test_names_that_do_not_fit_the_network_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        evaluated(answers(), **changed)


def test_rows_twice_and_rows_without_classes_are_refused() -> None:
    frame = answers()
    with pytest.raises(SpecError, match="more than once"):
        evaluate_answers(pl.concat([frame, frame]), frame, **ARGUMENTS)
    with pytest.raises(SpecError, match=r"got \[0\]"):
        evaluated(frame.with_columns(pl.lit(None, pl.List(pl.Float64)).alias("class_probabilities")))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def saved(store: LocalStore, frame: pl.DataFrame, name: str = "dense", familiar: pl.DataFrame | None = None) -> Ref:
    scores = frame.select(SCORE_SCHEMA.names).to_arrow().cast(SCORE_SCHEMA)
    familiarity = (frame if familiar is None else familiar).select(FAMILIARITY_SCHEMA.names)
    parts = {ROWS: scores, FAMILIARITY: familiarity.to_arrow().cast(FAMILIARITY_SCHEMA)}
    return commit(store, f"objects/score/{name}", step="score", digest=name, recipe={}, parts=parts)


def test_the_step_writes_metrics_confusion_and_differences(store: LocalStore) -> None:
    frame = answers()
    known = saved(store, frame.filter(pl.col("source") != "dalle"), "known")
    unknown = saved(store, frame.filter(pl.col("source") == "dalle"), "unknown")
    ref, _ = evaluate_rejection.compute(store, known=(known,), unknown=(unknown,), **ARGUMENTS)
    tables = evaluated(frame)
    assert read_table(store, ref).to_pylist() == tables.metrics
    assert read_table(store, ref, name=CONFUSION).to_pylist() == tables.confusion
    assert read_table(store, ref, name=DIFFERENCES).to_pylist() == tables.differences
    assert notes_of(store, ref)["thresholds"]["distance"] == {
        str(fold): threshold for fold, threshold in tables.thresholds["distance"].items()
    }
    # Leave one out: the absent generator's pictures lie in the same objects.
    together = saved(store, frame, "together")
    again, _ = evaluate_rejection.compute(store, known=(together,), unknown=(together,), **ARGUMENTS)
    assert read_table(store, again).equals(read_table(store, ref))


def test_scores_without_their_familiarity_are_refused(store: LocalStore) -> None:
    frame = answers()
    short = saved(store, frame, familiar=frame.tail(-1))
    with pytest.raises(SpecError, match="320 scores and 319 rows of familiarity, of which 319 agree"):
        evaluate_rejection.compute(store, known=(short,), unknown=(short,), **ARGUMENTS)
    with pytest.raises(SpecError, match="no score objects"):
        evaluate_rejection.compute(store, known=(), unknown=(), **ARGUMENTS)
