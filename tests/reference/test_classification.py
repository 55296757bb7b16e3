"""Metrics agree with scikit-learn, SciPy and torchmetrics within 1e-6, on random and degenerate scores."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn import metrics as sklearn_metrics

from tasks.evaluation.classification import (
    INTERVAL_METRICS,
    EvaluationError,
    ScoredImages,
    balanced_accuracy_threshold,
    binary_metrics,
    bootstrap_intervals,
    draw_balanced_mix,
    resampled_metrics,
    roc_curve,
)
from tasks.evaluation.intervals import TOO_FEW_GROUPS, Interval, group_weights

TOLERANCE = 1e-6
Labels = NDArray[np.int64]
Scores = NDArray[np.float64]
Names = NDArray[np.str_]
Scored = tuple[Labels, Scores]


def overlapping(count: int, seed: int, decimals: int | None = None, shift: float = 0.2) -> Scored:
    """Labels and p(fake) of two overlapping classes; rounding makes ties."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, count)
    label[:2] = (0, 1)
    score = np.clip(rng.random(count) * (1 - shift) + shift * label, 0.0, 0.999)
    return label, score if decimals is None else np.round(score, decimals)


CASES: dict[str, Callable[[], Scored]] = {
    "random": lambda: overlapping(500, 0),
    "imbalanced": lambda: (np.r_[np.ones(7, int), np.zeros(300, int)], np.random.default_rng(1).random(307)),
    "many ties": lambda: overlapping(400, 2, decimals=1),
    "two scores": lambda: overlapping(60, 3, decimals=0),
    "all equal": lambda: (np.tile([0, 1, 1], 10), np.full(30, 0.37)),
    "perfect": lambda: (np.r_[np.zeros(20, int), np.ones(30, int)], np.linspace(0, 0.99, 50)),
    "reversed": lambda: (np.r_[np.ones(20, int), np.zeros(30, int)], np.linspace(0, 0.99, 50)),
    "one of each": lambda: (np.array([0, 1]), np.array([0.4, 0.4])),
    "chance": lambda: overlapping(300, 4, shift=0.0),
}


def reference_eer(label: Labels, score: Scores) -> float:
    fpr, tpr, _ = sklearn_metrics.roc_curve(label, score, drop_intermediate=False)
    curve = interp1d(fpr, tpr)
    # The curve jumps at fpr 0 and 1 where interp1d sees one end of the jump only; widen the axis by a hair.
    if 1.0 - curve(0.0) <= 0.0:
        return 0.0
    if -curve(1.0) >= 0.0:
        return 1.0
    return float(brentq(lambda x: 1.0 - x - curve(x), 0.0, 1.0, xtol=1e-12))


def reference_ece(label: Labels, score: Scores) -> float:
    import torch

    from tasks.torch_vision_schema import define_missing_torchvision_schemas

    define_missing_torchvision_schemas()  # torchmetrics imports torchvision
    from torchmetrics.functional.classification import binary_calibration_error

    return float(binary_calibration_error(torch.tensor(score), torch.tensor(label), n_bins=15, norm="l1"))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.1])
def test_every_metric_agrees_with_scikit_learn_scipy_and_torchmetrics(name: str, threshold: float) -> None:
    label, score = CASES[name]()
    decision = score >= threshold
    found = binary_metrics(label, score, decision, threshold=threshold)
    tn, fp, fn, tp = sklearn_metrics.confusion_matrix(label, decision).ravel()
    assert (found.tp, found.fp, found.tn, found.fn) == (tp, fp, tn, fn)
    assert (found.n_fake, found.n_real) == (tp + fn, fp + tn)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(label, decision),
        "recall": sklearn_metrics.recall_score(label, decision),
        "f1": sklearn_metrics.f1_score(label, decision),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(label, decision),
        "auroc": sklearn_metrics.roc_auc_score(label, score),
        "average_precision": sklearn_metrics.average_precision_score(label, score),
        "ece": reference_ece(label, score),
        "eer": reference_eer(label, score),
    }
    if decision.any():
        expected["precision"] = sklearn_metrics.precision_score(label, decision)
        assert found.reasons == {}
    else:
        assert found.precision is None
        assert found.reasons == {"precision": "nothing was called fake"}
    for metric, value in expected.items():
        assert getattr(found, metric) == pytest.approx(value, abs=TOLERANCE), metric
    assert found.to_dict()["threshold"] == threshold


@pytest.mark.parametrize("name", CASES)
def test_the_roc_curve_agrees_with_scikit_learn(name: str) -> None:
    label, score = CASES[name]()
    expected = sklearn_metrics.roc_curve(label, score, drop_intermediate=False)
    for ours, theirs in zip(roc_curve(label, score), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize(("value", "called"), [(0, False), (0, True), (1, False), (1, True)])
@pytest.mark.parametrize("count", [1, 5])
def test_one_class_leaves_undefined_metrics_empty_with_a_reason(value: int, called: bool, count: int) -> None:
    label, score, decision = np.full(count, value), np.linspace(0.2, 0.7, count), np.full(count, called)
    found = binary_metrics(label, score, decision)
    assert found.accuracy == float(value == called)
    assert found.ece == pytest.approx(reference_ece(label, score), abs=TOLERANCE)
    assert {"balanced_accuracy", "auroc", "eer"} <= found.reasons.keys()
    assert {name for name in INTERVAL_METRICS if getattr(found, name) is None} == found.reasons.keys()
    if value:  # fakes only: scikit-learn defines these as well
        assert found.recall == float(called)
        assert found.f1 == pytest.approx(sklearn_metrics.f1_score(label, decision))
        assert found.average_precision == pytest.approx(sklearn_metrics.average_precision_score(label, score))
    else:
        assert {"recall", "average_precision"} <= found.reasons.keys()
        assert found.f1 == (0.0 if called else None)


def test_no_images_leave_every_metric_empty() -> None:
    found = binary_metrics([], [], [])
    assert found.reasons == dict.fromkeys(INTERVAL_METRICS, "no images")
    assert all(getattr(found, name) is None for name in INTERVAL_METRICS)
    assert found.n_real == found.n_fake == 0


def test_the_last_calibration_bin_includes_certainty() -> None:
    # torchmetrics gives p = 1 a sixteenth bin of its own; with fifteen bins it shares the last one.
    assert binary_metrics([1, 0], [1.0, 0.95], [True, True]).ece == pytest.approx(abs(1.0 + 0.95 - 1.0) / 2)
    assert binary_metrics([1, 1, 0], [1.0, 1.0, 0.0], [True, True, False]).ece == 0.0


def test_decision_values_have_no_calibration_error() -> None:
    found = binary_metrics([0, 1], [-3.0, 2.5], [False, True], calibrated=False)
    assert found.ece is None
    assert found.reasons == {"ece": "the scores are not probabilities"}
    assert found.auroc == 1.0


@pytest.mark.parametrize(
    ("label", "score", "decision", "message"),
    [
        ([0, 1], [0.1], [True, False], "equally long"),
        ([[0, 1]], [[0.1, 0.2]], [[True, False]], "one-dimensional"),
        ([0, 2], [0.1, 0.2], [True, False], "labels must be 0"),
        ([0, 1], [0.1, np.nan], [True, False], "finite"),
        ([0, 1], [0.1, 1.2], [True, False], r"\[0, 1\]"),
        ([0, 1], [0.1, 0.2], [1, 0], "booleans"),
    ],
)
def test_bad_input_is_refused_with_the_reason(
    label: ArrayLike, score: ArrayLike, decision: ArrayLike, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        binary_metrics(label, score, decision)


@pytest.mark.parametrize("name", CASES)
def test_no_threshold_beats_the_chosen_one(name: str) -> None:
    label, score = CASES[name]()
    chosen = balanced_accuracy_threshold(label, score)
    reached = sklearn_metrics.balanced_accuracy_score(label, score >= chosen)
    everything = np.concatenate([[-1.0], np.unique(score), [2.0]])
    best = max(sklearn_metrics.balanced_accuracy_score(label, score >= t) for t in everything)
    assert reached == pytest.approx(best, abs=1e-12)


def test_the_threshold_lies_midway_and_equal_maxima_are_decided_by_nearness_to_one_half() -> None:
    assert balanced_accuracy_threshold([0, 1], [0.2, 0.6]) == pytest.approx(0.4)
    # 0.15 and 0.6 both reach 0.75.
    assert balanced_accuracy_threshold([0, 1, 0, 1], [0.1, 0.2, 0.5, 0.7]) == pytest.approx(0.6)
    # 0.375 and 0.625 both reach 0.75 and are equally near: the smaller one.
    assert balanced_accuracy_threshold([0, 1, 0, 1], [0.25, 0.5, 0.5625, 0.6875]) == 0.375
    upper = np.nextafter(0.3, 1.0)
    assert balanced_accuracy_threshold([0, 1], [0.3, upper]) == upper


@pytest.mark.parametrize("function", [balanced_accuracy_threshold, roc_curve])
def test_curves_and_thresholds_need_both_classes(function: Callable[..., object]) -> None:
    with pytest.raises(EvaluationError, match="both classes"):
        function([1, 1], [0.2, 0.3])


def grouped(count: int, groups: int, seed: int) -> tuple[Labels, Scores, NDArray[np.bool_], Names]:
    label, score = overlapping(count, seed, decimals=2)
    names = np.array([f"group {index}" for index in np.random.default_rng(seed + 1).integers(0, groups, count)])
    return label, score, score >= 0.55, names


def test_resamples_equal_scikit_learn_on_repeated_rows() -> None:
    label, score, decision, groups = grouped(120, 25, 5)
    weights, unique = group_weights(groups, resamples=40, seed=9)
    repeats = weights[:, np.searchsorted(unique, groups)]
    expected: dict[str, list[float]] = {name: [] for name in INTERVAL_METRICS}
    for row in repeats:
        lab, sco, dec = np.repeat(label, row), np.repeat(score, row), np.repeat(decision, row)
        expected["accuracy"].append(sklearn_metrics.accuracy_score(lab, dec))
        expected["precision"].append(sklearn_metrics.precision_score(lab, dec))
        expected["recall"].append(sklearn_metrics.recall_score(lab, dec))
        expected["f1"].append(sklearn_metrics.f1_score(lab, dec))
        expected["balanced_accuracy"].append(sklearn_metrics.balanced_accuracy_score(lab, dec))
        expected["auroc"].append(sklearn_metrics.roc_auc_score(lab, sco))
        expected["average_precision"].append(sklearn_metrics.average_precision_score(lab, sco))
        expected["ece"].append(reference_ece(lab, sco))
        expected["eer"].append(reference_eer(lab, sco))
    found = bootstrap_intervals(label, score, decision, groups, resamples=40, seed=9)
    for name in INTERVAL_METRICS:
        low, high = np.percentile(expected[name], [2.5, 97.5])
        assert found[name].low == pytest.approx(low, abs=TOLERANCE), name
        assert found[name].high == pytest.approx(high, abs=TOLERANCE), name
        assert (found[name].n_resamples, found[name].n_dropped) == (40, 0)


def test_group_weights_are_counts_that_depend_on_the_set_of_groups_only() -> None:
    weights, unique = group_weights(["b", "a", "c", "a"], resamples=50, seed=3)
    again, same = group_weights(["c", "a", "b"], resamples=50, seed=3)
    assert unique.tolist() == same.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(weights, again)
    np.testing.assert_array_equal(weights.sum(axis=1), 3)
    assert (group_weights(["a", "b", "c"], resamples=50, seed=4)[0] != weights).any()


def test_the_bootstrap_of_the_mean_has_its_known_spread() -> None:
    decision = np.tile([True, False], 200)
    label = np.repeat([0, 1], 200)
    interval = bootstrap_intervals(label, decision * 1.0, decision, np.arange(400).astype(str))["accuracy"]
    assert interval.low is not None
    assert interval.high is not None
    expected = 2 * 1.96 * np.sqrt(0.25 / 400)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.1)


def paired_difference(first: ScoredImages, second: ScoredImages, metric: str = "auroc") -> Interval:
    weights, unique = group_weights(np.union1d(first.groups, second.groups))
    one, other = (resampled_metrics(side, weights, unique, [metric])[metric] for side in (first, second))
    return one.minus(other).interval()


def test_fewer_than_ten_groups_give_no_interval() -> None:
    label, score, decision, groups = grouped(60, 9, 6)
    for interval in bootstrap_intervals(label, score, decision, groups).values():
        assert (interval.low, interval.high, interval.reason) == (None, None, TOO_FEW_GROUPS)
    side = ScoredImages(label, score, decision, groups)
    assert paired_difference(side, side).reason == TOO_FEW_GROUPS


def test_resamples_with_one_class_are_dropped_and_counted() -> None:
    label = np.r_[1, np.zeros(11, int)]
    score = np.linspace(0.9, 0.1, 12)
    groups = np.arange(12).astype(str)
    weights, unique = group_weights(groups)
    without = int(np.sum(weights[:, np.searchsorted(unique, "0")] == 0))
    interval = bootstrap_intervals(label, score, score > 0.5, groups)["accuracy"]
    assert interval.n_dropped == without > 500
    assert interval.n_resamples + interval.n_dropped == 2_000


def test_an_undefined_metric_has_no_interval_and_keeps_its_reason() -> None:
    label, score, decision, groups = grouped(60, 20, 7)
    found = bootstrap_intervals(label, score, np.zeros(60, bool), groups, calibrated=False)
    assert (found["precision"].low, found["precision"].reason) == (None, "nothing was called fake")
    assert found["ece"].reason == "the scores are not probabilities"
    assert found["auroc"].low is not None
    only_real = bootstrap_intervals(np.zeros(60, int), score, decision, groups)
    assert only_real["auroc"].reason == "no fakes"
    assert only_real["accuracy"].reason == "undefined in every resample"
    side = ScoredImages(np.zeros(60, int), score, decision, groups)
    assert paired_difference(side, side).reason == "no fakes"


def test_differences_are_paired() -> None:
    label, score, decision, groups = grouped(300, 60, 8)
    side = ScoredImages(label, score, decision, groups)
    same = paired_difference(side, side)
    assert (same.low, same.high) == (0.0, 0.0)
    # A slightly noisier detector on the same images: paired is narrower than the two intervals laid side by side.
    noisy = np.clip(score + np.random.default_rng(1).normal(0, 0.05, 300), 0, 1)
    other = ScoredImages(label, noisy, noisy >= 0.55, groups)
    for metric in ("auroc", "accuracy"):
        paired = paired_difference(side, other, metric)
        alone = bootstrap_intervals(label, score, decision, groups)[metric]
        assert paired.low is not None
        assert paired.high is not None
        assert alone.low is not None
        assert alone.high is not None
        assert paired.high - paired.low < alone.high - alone.low


def test_cells_that_share_only_some_groups_can_be_compared() -> None:
    label, score, decision, groups = grouped(200, 40, 9)
    keep = groups > "group 2"
    part = ScoredImages(label[keep], score[keep], decision[keep], groups[keep])
    interval = paired_difference(ScoredImages(label, score, decision, groups), part)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low <= 0.0 <= interval.high


def test_groups_and_metric_names_are_validated() -> None:
    with pytest.raises(EvaluationError, match="one id per image"):
        bootstrap_intervals([0, 1], [0.1, 0.2], [True, False], ["a"])
    with pytest.raises(EvaluationError, match="unknown metrics"):
        bootstrap_intervals([0, 1], [0.1, 0.2], [True, False], ["a", "b"], metrics=["auc"])


def test_two_thousand_resamples_of_a_thousand_images_take_a_fraction_of_a_second() -> None:
    label, score = overlapping(1000, 11)
    groups = np.arange(1000).astype(str)
    started = time.process_time()
    bootstrap_intervals(label, score, score >= 0.5, groups)
    assert time.process_time() - started < 1.5  # about 0.2 s on an idle core


def mix(reals: int, **fakes: int) -> tuple[Names, Labels, Names]:
    ids = [f"real/{index}" for index in range(reals)]
    ids += [f"{name}/{index}" for name, count in fakes.items() for index in range(count)]
    sources = ["coco"] * reals + [name for name, count in fakes.items() for _ in range(count)]
    return np.array(ids), np.r_[np.zeros(reals, int), np.ones(sum(fakes.values()), int)], np.array(sources)


@pytest.mark.parametrize(
    ("reals", "fakes", "per_source"),
    [
        (100, {"gan": 40}, 40),
        (30, {"gan": 40}, 30),
        (100, {"gan": 40, "sd": 25}, 25),
        (41, {"gan": 40, "sd": 30}, 20),
        (100, {"gan": 40, "sd": 30, "sdxl": 7}, 7),
        (1, {"gan": 40, "sd": 30}, 0),
        (0, {"gan": 40}, 0),
        (5, {}, 0),
    ],
)
def test_a_mix_is_one_to_one_with_equal_parts_of_each_source(
    reals: int, fakes: dict[str, int], per_source: int
) -> None:
    ids, label, source = mix(reals, **fakes)
    drawn = draw_balanced_mix(ids, label, source, seed=1)
    assert drawn[label == 0].sum() == drawn[label == 1].sum() == per_source * len(fakes)
    assert all(drawn[source == name].sum() == per_source for name in fakes)


def test_the_draw_of_a_mix_follows_the_seed() -> None:
    ids, label, source = mix(100, gan=40, sd=25)
    first, again = (draw_balanced_mix(ids, label, source, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (draw_balanced_mix(ids, label, source, seed=2) != first).any()


def test_an_image_counted_twice_is_refused() -> None:
    with pytest.raises(EvaluationError, match="more than once"):
        draw_balanced_mix(["a", "a"], [1, 1], ["gan", "gan"])
    with pytest.raises(EvaluationError, match="equally long"):
        draw_balanced_mix(["a"], [1, 1], ["gan", "gan"])
    with pytest.raises(EvaluationError, match="labels"):
        draw_balanced_mix(["a"], [3], ["gan"])


def test_no_metric_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for label, score in ([], []), ([1], [0.5]), ([0], [0.5]), ([0, 1], [0.5, 0.5]):
            binary_metrics(label, score, np.zeros(len(label), bool))
        label = np.r_[1, np.zeros(11, int)]
        bootstrap_intervals(label, np.zeros(12), np.zeros(12, bool), np.arange(12).astype(str))
