"""What holds for any scores: order, duplication, symmetry, and how mixes grow."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.classification import (
    INTERVAL_METRICS,
    balanced_accuracy_threshold,
    binary_metrics,
    bootstrap_intervals,
    draw_balanced_mix,
    roc_curve,
)

# (label, score in sixteenths so that ties are common and 1 - score is exact, group)
IMAGE = st.tuples(
    st.integers(0, 1), st.integers(0, 16).map(lambda n: n / 16), st.integers(0, 14).map("group {}".format)
)
BOTH_CLASSES = st.lists(IMAGE, min_size=2, max_size=60).filter(lambda images: len({image[0] for image in images}) == 2)
# Hypothesis' deadline measures the machine's load, not the code.
QUICK = settings(max_examples=60, deadline=None)
Images = list[tuple[int, float, str]]


def columns(images: Images) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label, score, group = zip(*images, strict=True)
    return np.array(label), np.array(score), np.array(group)


@QUICK
@given(st.lists(IMAGE, max_size=60), st.randoms(use_true_random=False))
def test_metrics_do_not_depend_on_the_order_of_images(images: Images, random: Random) -> None:
    shuffled = random.sample(images, len(images))
    results = []
    for rows in images, shuffled:
        label, score, _ = columns(rows) if rows else (np.array([], int), np.array([]), np.array([]))
        results.append(binary_metrics(label, score, score >= 0.5))
    assert results[0].reasons == results[1].reasons
    for name in INTERVAL_METRICS:
        assert getattr(results[0], name) == pytest.approx(getattr(results[1], name), abs=1e-12)


@QUICK
@given(BOTH_CLASSES, st.integers(2, 4))
def test_counting_every_image_several_times_changes_no_metric(images: Images, times: int) -> None:
    label, score, _ = columns(images)
    once = binary_metrics(label, score, score >= 0.5)
    often = binary_metrics(np.tile(label, times), np.tile(score, times), np.tile(score >= 0.5, times))
    assert once.reasons == often.reasons
    for name in INTERVAL_METRICS:
        assert getattr(once, name) == pytest.approx(getattr(often, name), abs=1e-12)
    assert balanced_accuracy_threshold(label, score) == balanced_accuracy_threshold(
        np.tile(label, times), np.tile(score, times)
    )


@QUICK
@given(BOTH_CLASSES)
def test_turning_the_score_round_mirrors_auroc_and_eer_and_swapping_classes_too_restores_them(images: Images) -> None:
    label, score, _ = columns(images)
    found = binary_metrics(label, score, score >= 0.5)
    turned = binary_metrics(label, 1 - score, score >= 0.5)
    swapped = binary_metrics(1 - label, 1 - score, ~(score >= 0.5))
    assert found.auroc is not None
    assert found.eer is not None
    assert turned.auroc == pytest.approx(1 - found.auroc, abs=1e-12)
    assert turned.eer == pytest.approx(1 - found.eer, abs=1e-12)
    assert swapped.auroc == pytest.approx(found.auroc, abs=1e-12)
    assert swapped.eer == pytest.approx(found.eer, abs=1e-12)
    assert swapped.accuracy == found.accuracy
    assert swapped.balanced_accuracy == pytest.approx(found.balanced_accuracy, abs=1e-12)
    assert (swapped.tp, swapped.fp) == (found.tn, found.fn)


@QUICK
@given(BOTH_CLASSES)
def test_the_roc_curve_rises_and_its_area_is_the_auroc(images: Images) -> None:
    label, score, _ = columns(images)
    fpr, tpr, thresholds = roc_curve(label, score)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert (np.diff(thresholds) < 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(binary_metrics(label, score, score >= 0.5).auroc, abs=1e-12)


@QUICK
@given(BOTH_CLASSES)
def test_the_chosen_threshold_is_never_worse_than_chance_and_ignores_order(images: Images) -> None:
    label, score, _ = columns(images)
    threshold = balanced_accuracy_threshold(label, score)
    reached = binary_metrics(label, score, score >= threshold).balanced_accuracy
    assert reached is not None
    assert reached >= 0.5
    assert threshold == balanced_accuracy_threshold(label[::-1], score[::-1])


@QUICK
@given(BOTH_CLASSES, st.randoms(use_true_random=False))
def test_intervals_do_not_depend_on_the_order_of_images(images: Images, random: Random) -> None:
    results = []
    for rows in images, random.sample(images, len(images)):
        label, score, group = columns(rows)
        results.append(bootstrap_intervals(label, score, score >= 0.5, group, resamples=50))
    for name in INTERVAL_METRICS:
        first, second = (result[name] for result in results)
        assert (first.reason, first.n_dropped) == (second.reason, second.n_dropped)
        assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)


@QUICK
@given(BOTH_CLASSES)
def test_intervals_are_ordered_and_lie_in_the_unit_range(images: Images) -> None:
    label, score, group = columns(images)
    for interval in bootstrap_intervals(label, score, score >= 0.5, group, resamples=50).values():
        if interval.low is None:
            assert interval.high is None
            assert interval.reason
        else:
            assert interval.high is not None
            assert -1e-12 <= interval.low <= interval.high <= 1 + 1e-12


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_interval_contains_the_value_itself(seed: int) -> None:
    """True of unbiased metrics on some hundred groups; ECE is biased upwards in resamples and left out."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], 100)
    score = rng.random(200) * 0.7 + 0.3 * label
    decision = score >= 0.5
    value = binary_metrics(label, score, decision)
    for name, interval in bootstrap_intervals(
        label, score, decision, np.arange(200).astype(str), resamples=400, metrics=("accuracy", "auroc", "f1", "recall")
    ).items():
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low <= getattr(value, name) <= interval.high


@QUICK
@given(st.integers(0, 40), st.lists(st.integers(1, 30), min_size=1, max_size=3), st.integers(0, 5), st.data())
def test_mixes_ignore_order_and_a_smaller_mix_is_part_of_a_larger_one(
    reals: int, fakes: list[int], seed: int, data: st.DataObject
) -> None:
    rows = [(f"real/{index}", 0, "coco") for index in range(reals)]
    rows += [(f"{name}/{index}", 1, f"fake {name}") for name, count in enumerate(fakes) for index in range(count)]

    def drawn(members: list[tuple[str, int, str]]) -> set[str]:
        ids, label, source = zip(*members, strict=True)
        mask = draw_balanced_mix(ids, label, source, seed)
        return {name for name, taken in zip(ids, mask, strict=True) if taken}

    full = drawn(rows)
    assert drawn(data.draw(st.permutations(rows))) == full
    # Taking away photographs that were drawn shrinks the mix; what is left of each fake source was in it before.
    fewer = [row for row in rows if row[1] == 1 or row[0] not in sorted(full)[:3]]
    if any(label == 0 for _, label, _ in fewer):
        assert {name for name in drawn(fewer) if not name.startswith("real/")} <= full
