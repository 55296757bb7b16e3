"""Scores: one row per val or test picture and rotation, of every source, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy.special import expit

from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit, notes_of, read_table
from storage.tables import SCORE_SCHEMA, features_table
from tasks.data.perturbations.jpeg import jpeg
from tasks.detectors.linear import score_rows, score_view
from tasks.detectors.svm import FeatureRows, LinearHead
from tasks.features.vgg16 import Vgg16Spec
from tasks.spec.detectors import Fit, HeadSpec
from tasks.spec.splits import FixedSplits, Folds, Splits
from tasks.spec.views import View

VIEW = View(path="fair", resolution=64, perturbation=jpeg(20))
HEAD = HeadSpec(
    fit=Fit(detector="svm", fitted_on="gan"),
    extractor=Vgg16Spec(layer="pool5-avg", weights="random:0"),
    views=(VIEW,),
    real=("coco",),
    fakes=("gan",),
)
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


def features(count: int, folds: int | None) -> pa.Table:
    rng = np.random.default_rng(0)
    sources = ["coco" if index % 2 == 0 else "sd" for index in range(count)]
    identity = pa.table(
        {
            "image_id": [f"image-{index:03d}" for index in range(count)],
            "group_id": [f"group-{index}" for index in range(count)],
            "source": sources,
            "label": [int(source != "coco") for source in sources],
            "split": [None if folds else ("train", "val", "test")[index % 3] for index in range(count)],
            "fold": [index % folds if folds else None for index in range(count)],
        },
        schema=IDENTITY,
    )
    return features_table(identity, rng.normal(size=(count, 6)).astype(np.float32))


def fitted(rotations: int, dimension: int = 6) -> LinearHead:
    rng = np.random.default_rng(1)
    return LinearHead(
        coef=rng.normal(size=(rotations, dimension)),
        intercept=rng.normal(size=rotations),
        c=np.ones(rotations),
        calibration=np.stack([np.full(rotations, 2.0), np.full(rotations, 0.5)], axis=1),
        calibrated=True,
    )


def score(store: LocalStore, table: pa.Table, svm: LinearHead, splits: Splits) -> Ref:
    rows = commit(store, "features", step="embed", digest="features", recipe={}, parts={ROWS: table})
    model = commit(store, "model", step="train/svm", digest="model", recipe={}, parts=svm.parts(HEAD))
    given: dict[str, Any] = {"fit": HEAD.fit, "head": HEAD, "model": model, "view": VIEW, "splits": splits}
    ref: Ref = score_view.compute(store, **given, features=(rows,))[0]
    return ref


def test_fixed_splits_score_val_and_test_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ref = score(store, features(12, None), fitted(1), FixedSplits())
    table = read_table(store, ref)
    assert table.schema.equals(SCORE_SCHEMA)
    assert ref.uri.startswith("objects/score/svm-gan/fair/64/q20/")
    frame = pl.DataFrame(table)
    assert frame.sort("split", "fold", "image_id", "source").equals(frame)
    assert dict(frame.group_by("split").len().iter_rows()) == {"val": 4, "test": 4}
    assert frame["fold"].unique().to_list() == [0]
    assert set(frame["source"]) == {"coco", "sd"}  # `sd` is no source of the head
    assert Fit(**frame.select(*Fit.model_fields).unique().row(0, named=True)) == HEAD.fit
    constants = frame.select("path", "resolution", "perturbation", "class_probabilities").unique()
    assert constants.rows() == [("fair", "64", "q20", None)]
    assert notes_of(store, ref)["rows"] == {"val": 4, "test": 4}


def test_every_fold_is_tested_once_and_validates_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    svm, splits = fitted(3), Folds(count=3)
    table = features(12, 3)
    frame = pl.DataFrame(read_table(store, score(store, table, svm, splits)))
    place = {f"image-{index:03d}": index % 3 for index in range(12)}
    for split, offset in (("test", 0), ("val", 1)):
        part = frame.filter(pl.col("split") == split)
        assert sorted(part["image_id"]) == sorted(place)
        assert all((fold + offset) % 3 == place[image] for image, fold in part.select("image_id", "fold").iter_rows())


def test_scores_are_the_heads_decisions_and_their_calibration(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    svm, table = fitted(1), features(12, None)
    frame = pl.DataFrame(read_table(store, score(store, table, svm, FixedSplits())))
    X = np.stack([np.frombuffer(value, "<f4") for value in table["embedding"].to_pylist()]).astype(np.float64)
    decisions = dict(zip(table["image_id"].to_pylist(), X @ svm.coef[0] + svm.intercept[0], strict=True))
    expected = np.array([decisions[image] for image in frame["image_id"]])
    np.testing.assert_allclose(frame["decision"].to_numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(frame["p_fake"].to_numpy(), expit(2 * expected + 0.5), rtol=1e-12)


def test_features_of_another_extractor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="svm-gan reads 5 features, got 6"):
        score(LocalStore(tmp_path), features(12, None), fitted(1, dimension=5), FixedSplits())


def test_nothing_to_score_is_refused(tmp_path: Path) -> None:
    ref = Ref(uri="model", digest="model", rows=0, bytes=0)
    with pytest.raises(SpecError, match="no features of fair/64/q20 to score"):
        score_view.compute(
            LocalStore(tmp_path), fit=HEAD.fit, head=HEAD, model=ref, features=(), view=VIEW, splits=FixedSplits()
        )


def test_no_row_in_val_or_test_gives_an_empty_table() -> None:
    identity = pl.DataFrame(schema=dict.fromkeys(("image_id", "group_id", "source", "split"), pl.String))
    identity = identity.with_columns(pl.lit(None, pl.Int8).alias("label"), pl.lit(None, pl.Int16).alias("fold"))
    rows = FeatureRows(identity, np.empty(0, np.int64), np.empty(0, np.str_), np.empty((0, 6), np.float32))
    table = score_rows(rows, fitted(1), HEAD.fit, VIEW, FixedSplits())
    assert table.num_rows == 0
    assert table.schema.equals(SCORE_SCHEMA)
