"""Comparisons agree with scikit-learn, and their intervals with a plain loop over the same draws."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sklearn_metrics

from tasks.evaluation.classification import balanced_accuracy_threshold
from tasks.evaluation.comparison import compare, compare_seeds
from tasks.evaluation.intervals import group_weights
from tasks.spec.detectors import Fit
from tasks.spec.views import Cell
from tests.unit.compared_scores import CLASSES, network_scores

CELL = Cell(resolution="native")
RESAMPLES, SEED = 60, 5


@pytest.fixture(scope="module")
def scores() -> dict[str, pl.DataFrame]:
    noises = {"dense": 1.5, "int8": 1.8, "small": 2.0, "small-1": 2.0, "small-alone": 2.5, "small-alone-1": 2.5}
    return {name: network_scores(noise, seed) for seed, (name, noise) in enumerate(noises.items())}


# The fit of each name above.
FITS = {name: Fit(detector=name) for name in ("dense", "int8", "small", "small-alone")} | {
    f"{name}-1": Fit(detector=name, seed=1) for name in ("small", "small-alone")
}


def rows_of_test(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("split") == "test").sort("image_id", "source")


def truth_and_call(test: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    truth = [CLASSES.index(source) if source in CLASSES else 0 for source in test["source"]]
    return np.array(truth), np.array(test["class_probabilities"].to_list()).argmax(axis=1)


def called_fake(frame: pl.DataFrame) -> np.ndarray:
    """By the threshold of each picture's fold."""
    val, test = frame.filter(pl.col("split") == "val"), rows_of_test(frame)
    of_fold = {
        fold: balanced_accuracy_threshold(rows["label"].to_numpy(), rows["p_fake"].to_numpy())
        for (fold,), rows in val.group_by("fold")
    }
    return test["p_fake"].to_numpy() >= np.array([of_fold[fold] for fold in test["fold"]])


def statistics(frame: pl.DataFrame) -> dict[str, Callable[[np.ndarray], float]]:
    """Each metric as scikit-learn computes it, of chosen rows."""
    test = rows_of_test(frame)
    label, p_fake, decided = test["label"].to_numpy(), test["p_fake"].to_numpy(), called_fake(frame)
    truth, called = truth_and_call(test)

    def recall(number: int) -> Callable[[np.ndarray], float]:
        return lambda rows: sklearn_metrics.recall_score(
            truth[rows], called[rows], labels=[number], average="macro", zero_division=np.nan
        )

    return {
        "class_accuracy": lambda rows: sklearn_metrics.accuracy_score(truth[rows], called[rows]),
        "balanced_accuracy": lambda rows: sklearn_metrics.balanced_accuracy_score(label[rows], decided[rows]),
        "auroc": lambda rows: sklearn_metrics.roc_auc_score(label[rows], p_fake[rows]),
        **{f"class_accuracy:{name}": recall(number) for number, name in enumerate(CLASSES)},
    }


def resampled_rows(groups: np.ndarray) -> list[np.ndarray]:
    """The rows of every resample, one by one, each as often as its group was drawn."""
    weights, unique = group_weights(groups, RESAMPLES, SEED)
    return [
        np.concatenate(
            [np.repeat(np.flatnonzero(groups == name), times) for name, times in zip(unique, row, strict=True)]
        )
        for row in weights
    ]


def bounds(samples: list[float]) -> tuple[float, float]:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def test_every_metric_interval_and_paired_change_agrees_with_a_plain_loop(scores: dict[str, pl.DataFrame]) -> None:
    chosen = {name: scores[name] for name in ("dense", "int8", "small")}
    of_fits = {FITS[name]: frame for name, frame in chosen.items()}
    origins = {FITS["int8"]: FITS["small"]}
    rows = compare(
        of_fits, FITS["dense"], CLASSES, CELL, references=of_fits, origins=origins, seed=SEED, resamples=RESAMPLES
    )
    found: dict[tuple[str, str], dict[str, Any]] = {(row["network"], row["metric"]): row for row in rows}
    resamples = resampled_rows(rows_of_test(scores["dense"])["group_id"].to_numpy())
    everything = np.arange(len(rows_of_test(scores["dense"])))
    expected = {name: statistics(frame) for name, frame in chosen.items()}
    samples = {
        (name, metric): [statistic(rows) for rows in resamples]
        for name, metrics in expected.items()
        for metric, statistic in metrics.items()
    }

    def check(row: dict[str, Any], name: str, against: str | None, metric: str) -> None:
        own = samples[name, metric]
        assert row["value"] == pytest.approx(expected[name][metric](everything), abs=1e-12)
        assert (row["low"], row["high"]) == pytest.approx(bounds(own), abs=1e-12)
        if against is not None:
            change = expected[name][metric](everything) - expected[against][metric](everything)
            differences = [one - other for one, other in zip(own, samples[against, metric], strict=True)]
            assert row["change"] == pytest.approx(change, abs=1e-12)
            assert (row["change_low"], row["change_high"]) == pytest.approx(bounds(differences), abs=1e-12)

    for name, metrics in expected.items():
        for metric in metrics:
            check(found[name, metric], name, None if name == "dense" else "dense", metric)
            if name == "int8" and metric.startswith("class_accuracy"):
                from_origin = metric.replace("class_accuracy", "class_accuracy_from_origin")
                check(found[name, from_origin], name, "small", metric)


def test_the_mean_over_seeds_agrees_with_a_plain_loop(scores: dict[str, pl.DataFrame]) -> None:
    of_fits = {FITS[name]: frame for name, frame in scores.items()}
    alone_of = {"small": "small-alone"}
    taught, alone = compare_seeds(of_fits, CLASSES, CELL, alone=alone_of, seed=SEED, resamples=RESAMPLES)
    test = rows_of_test(scores["dense"])
    per_seed = {name: statistics(frame)["class_accuracy"] for name, frame in scores.items()}

    def mean(base: str, rows: np.ndarray) -> float:
        return float(np.mean([per_seed[name](rows) for name in (base, f"{base}-1")]))

    resamples = resampled_rows(test["group_id"].to_numpy())
    for row, base in ((taught, "small"), (alone, "small-alone")):
        assert row["value"] == pytest.approx(mean(base, np.arange(len(test))), abs=1e-12)
        assert (row["low"], row["high"]) == pytest.approx(bounds([mean(base, rows) for rows in resamples]), abs=1e-12)
    differences = [mean("small", rows) - mean("small-alone", rows) for rows in resamples]
    assert (taught["change_low"], taught["change_high"]) == pytest.approx(bounds(differences), abs=1e-12)
