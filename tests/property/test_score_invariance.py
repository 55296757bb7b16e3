"""Scores are the same, to the last bit, however the feature rows are cut into shards and ordered."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.local import LocalStore
from storage.objects import ROWS, commit
from storage.tables import features_table
from tasks.detectors.linear import score_rows
from tasks.detectors.svm import LinearHead, feature_rows
from tasks.spec.detectors import Fit
from tasks.spec.splits import Folds
from tasks.spec.views import View

VIEW = View(path="fair", resolution="native")
SPLITS = Folds(count=3)
COUNT = 40
IDENTITY = pa.schema(
    [
        ("image_id", pa.string()),
        ("group_id", pa.string()),
        ("source", pa.string()),
        ("label", pa.int8()),
        ("split", pa.string()),
        ("fold", pa.int16()),
    ]
)


def feature_shard(dimension: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    identity = pa.table(
        {
            "image_id": [f"image-{index // 2}" for index in range(COUNT)],  # ids are only unique within a source
            "group_id": [f"group-{index // 2}" for index in range(COUNT)],
            "source": ["coco" if index % 2 else "gan" for index in range(COUNT)],
            "label": [1 - index % 2 for index in range(COUNT)],
            "split": [None] * COUNT,
            "fold": [(index // 2) % 3 for index in range(COUNT)],
        },
        schema=IDENTITY,
    )
    return features_table(identity, rng.normal(scale=100, size=(COUNT, dimension)).astype(np.float32))


def head(dimension: int, seed: int) -> LinearHead:
    rng = np.random.default_rng(seed + 1)
    return LinearHead(
        coef=rng.normal(size=(3, dimension)),
        intercept=rng.normal(size=3),
        c=np.ones(3),
        calibration=np.ones((3, 2)),
        calibrated=True,
    )


def scores_of(shards: list[pa.Table], svm: LinearHead) -> pa.Table:
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        refs = [
            commit(store, f"features-{index}", step="embed", digest=str(index), recipe={}, parts={ROWS: shard})
            for index, shard in enumerate(shards)
        ]
        return score_rows(feature_rows(store, refs), svm, Fit(detector="svm"), VIEW, SPLITS)


@settings(max_examples=25, deadline=None)
@given(
    dimension=st.sampled_from([1, 3, 16, 129, 512]),
    seed=st.integers(0, 2**16),
    order=st.permutations(range(COUNT)),
    cuts=st.lists(st.integers(0, COUNT), max_size=5).map(sorted),
)
def test_shards_and_their_order_do_not_change_a_score(
    dimension: int, seed: int, order: list[int], cuts: list[int]
) -> None:
    whole, svm = feature_shard(dimension, seed), head(dimension, seed)
    edges = [0, *cuts, COUNT]
    shuffled = whole.take(pa.array(order))
    shards = [shuffled.slice(start, end - start) for start, end in itertools.pairwise(edges)]
    assert scores_of(shards, svm).equals(scores_of([whole], svm))


ORDERS: st.SearchStrategy[Literal["C", "F"]] = st.sampled_from(("C", "F"))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 2_100),
    dimension=st.sampled_from([1, 7, 512]),
    start=st.integers(0, 2_099),
    chunk=ORDERS,
)
def test_a_decision_does_not_depend_on_the_rows_beside_it(
    rows: int, dimension: int, start: int, chunk: Literal["C", "F"]
) -> None:
    X = np.asarray(np.random.default_rng(rows).normal(size=(rows, dimension)).astype(np.float32), order=chunk)
    svm = head(dimension, 0)
    start = start % rows
    np.testing.assert_array_equal(svm.decisions(X, 1)[start:], svm.decisions(X[start:], 1))
    np.testing.assert_array_equal(svm.decisions(X, 1)[start], svm.decisions(X[start : start + 1], 1)[0])
