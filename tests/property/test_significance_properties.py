"""What holds for any pair of detectors: which comes first, how rows are ordered, on which scale scores are."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.evaluation.intervals import Resampled
from tasks.evaluation.significance import (
    Difference,
    accuracy_difference,
    auroc_difference,
    exchange_p,
    holm,
    ranked,
    structural_components,
)

# (label, two scores in eighths so that ties are common, group)
IMAGE = st.tuples(
    st.integers(0, 1), *(st.integers(0, 8).map(lambda n: n / 8),) * 2, st.integers(0, 24).map("group {}".format)
)
IMAGES = st.lists(IMAGE, min_size=40, max_size=120).filter(lambda images: len({image[0] for image in images}) == 2)
CHANCES = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12)
QUICK = settings(max_examples=60, deadline=None)
Labels = NDArray[np.int64]
Scores = NDArray[np.float64]
Names = NDArray[np.str_]
Images = list[tuple[int, float, float, str]]


def columns(images: Images) -> tuple[Labels, Scores, Scores, Names]:
    label, first, second, group = (np.array(column) for column in zip(*images, strict=True))
    return label, first, second, group


def assert_equal(found: Difference, expected: Difference, sign: int = 1) -> None:
    bounds = (expected.low, expected.high) if sign == 1 else (expected.high, expected.low)
    for one, other in zip((found.value, found.low, found.high), (expected.value, *bounds), strict=True):
        assert one == pytest.approx(None if other is None else sign * other, abs=1e-9)
    assert found.p == pytest.approx(expected.p, abs=1e-9)
    assert found.reason == expected.reason


@QUICK
@given(IMAGES)
def test_exchanging_the_detectors_changes_the_sign_alone(images: Images) -> None:
    label, first, second, group = columns(images)
    assert_equal(auroc_difference(label, first, second, group), auroc_difference(label, second, first, group), sign=-1)
    one, other = first > 0.5, second > 0.5
    here, there = accuracy_difference(one, other, group), accuracy_difference(other, one, group)
    assert here.value == pytest.approx(-there.value if there.value is not None else None)
    assert here.p == there.p


@QUICK
@given(IMAGES, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_names_of_groups_do_not_matter(images: Images, random: Random) -> None:
    label, first, second, group = columns(images)
    shuffled = columns(random.sample(images, len(images)))
    renamed = np.array([f"{name[::-1]}!" for name in shuffled[3]])
    assert_equal(auroc_difference(*shuffled[:3], renamed), auroc_difference(label, first, second, group))
    here = accuracy_difference(first > 0.5, second > 0.5, group)
    assert_equal(accuracy_difference(shuffled[1] > 0.5, shuffled[2] > 0.5, shuffled[3]), here)


@QUICK
@given(IMAGES)
def test_a_monotone_scale_of_either_detector_does_not_matter(images: Images) -> None:
    label, first, second, group = columns(images)
    found = auroc_difference(label, np.exp(5 * first), second**3 - 7, group)
    assert found == auroc_difference(label, first, second, group)


@QUICK
@given(IMAGES)
def test_exchanging_the_classes_changes_nothing_where_scores_change_their_sign(images: Images) -> None:
    label, first, second, group = columns(images)
    assert_equal(auroc_difference(1 - label, -first, -second, group), auroc_difference(label, first, second, group))


@QUICK
@given(IMAGES)
def test_a_detector_does_not_differ_from_itself(images: Images) -> None:
    label, first, _, group = columns(images)
    found = auroc_difference(label, first, 2 * first, group)
    assert found.value == 0
    assert found.p == (None if found.reason else 1.0)
    assert accuracy_difference(first > 0.5, first > 0.5, group).p in (None, 1.0)


@QUICK
@given(IMAGES)
def test_the_interval_leaves_out_nothing_where_the_difference_is_significant(images: Images) -> None:
    found = auroc_difference(*columns(images))
    if found.p is not None and found.low is not None and found.high is not None and abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


@QUICK
@given(IMAGES)
def test_components_of_either_class_have_the_auroc_as_their_mean(images: Images) -> None:
    label, first, _, _ = columns(images)
    components = structural_components(label, first)
    assert components[label == 1].mean() == pytest.approx(components[label == 0].mean(), abs=1e-12)
    assert (components >= 0).all()
    assert (components <= 1).all()


@QUICK
@given(st.lists(st.integers(-6, 6), max_size=40))
def test_an_exact_p_is_a_chance_and_a_group_without_a_difference_does_not_count(sums: list[int]) -> None:
    found = exchange_p(np.array(sums, dtype=np.int64))
    assert 0 < found <= 1
    assert exchange_p(np.array([*sums, 0, 0], dtype=np.int64)) == found
    assert exchange_p(-np.array(sums, dtype=np.int64)) == found


@QUICK
@given(CHANCES, st.randoms(use_true_random=False))
def test_adjusted_chances_keep_their_order_and_are_never_smaller(p: list[float | None], random: Random) -> None:
    adjusted = holm(p)
    known = [(one, other) for one, other in zip(p, adjusted, strict=True) if one is not None and other is not None]
    assert [one is None for one in p] == [one is None for one in adjusted]
    assert all(one <= other <= min(1.0, one * len(known)) for one, other in known)
    in_order = [other for _, other in sorted(known)]
    assert in_order == sorted(in_order)
    places = random.sample(range(len(p)), len(p))
    assert holm([p[place] for place in places]) == [adjusted[place] for place in places]


@QUICK
@given(st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=5))
def test_ranks_sum_up_to_those_without_ties_in_every_resample(values: list[list[int]]) -> None:
    metrics = [Resampled(float(row[0]), np.array(row, dtype=np.float64), 20) for row in values]
    count = len(values)
    totals = np.sum([np.asarray(rank.samples) for rank in ranked(metrics)], axis=0)
    assert totals.tolist() == [count * (count + 1) / 2] * 6
