"""Scores: what a head says of every val and test picture in one view. Everything after reads these only."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from storage.errors import SpecError
from storage.objects import ROWS, Ref
from storage.tables import SCORE_SCHEMA
from tasks.detectors.linear import FeatureRows, LinearHead, feature_rows
from tasks.recipe import Output, StepRun, folder_name, step
from tasks.spec.detectors import HeadSpec
from tasks.spec.splits import Splits
from tasks.spec.views import View


def score_rows(rows: FeatureRows, svm: LinearHead, detector: str, view: View, splits: Splits) -> pa.Table:
    """Score rows by every rotation in which they are val or test: `SCORE_SCHEMA`, sorted by split, fold, id and source.

    Sources that the head was not fitted on are scored as well (the cross table needs them). A row's score depends on
    its features alone, to the last bit, not on the rows, shards or batches beside it.

    Args:
        rows: features of this view.
        svm: the fitted head.
        detector: its name in the results.
        view: what the features are of.
        splits: with fixed splits, val and test are scored once, as fold 0; with folds, each rotation scores its own.

    Raises:
        SpecError: the features are of another extractor than the head's.
    """
    if rows.X.shape[1] != svm.coef.shape[1]:
        raise SpecError(f"{detector} reads {svm.coef.shape[1]} features, got {rows.X.shape[1]}")
    scored = [
        _score_role(rows, svm, rotation, split, splits)
        for rotation in range(splits.rotations)
        for split in ("val", "test")
    ]
    scores = pl.concat(scored).sort("split", "fold", "image_id", "source")
    count = len(scores)
    constants = {
        "detector": pa.array([detector] * count, pa.string()),
        "path": pa.array([view.path] * count, pa.string()),
        "resolution": pa.array([str(view.resolution)] * count, pa.string()),
        "jpeg_quality": pa.array([view.jpeg_quality] * count, pa.int16()),
        "class_probabilities": pa.nulls(count, SCORE_SCHEMA.field("class_probabilities").type),
    }
    columns = {
        name: constants[name] if name in constants else scores[name].to_arrow().cast(SCORE_SCHEMA.field(name).type)
        for name in SCORE_SCHEMA.names
    }
    return pa.table(columns, schema=SCORE_SCHEMA)


def _score_role(rows: FeatureRows, svm: LinearHead, rotation: int, split: str, splits: Splits) -> pl.DataFrame:
    chosen = rows.take(rows.roles(rotation, splits) == split)
    decisions = svm.decisions(chosen.X, rotation)
    return chosen.identity.select("image_id", "group_id", "source", "label").with_columns(
        pl.lit(split).alias("split"),
        pl.lit(rotation, pl.Int16).alias("fold"),
        pl.Series("p_fake", svm.probabilities(decisions, rotation)),
        pl.Series("decision", decisions),
    )


@step("score", version=1, label=lambda *, head, view, **_: f"{folder_name(head.name)}/{view.name}")
def score_view(
    run: StepRun, *, head: HeadSpec, model: Ref, features: tuple[Ref, ...], view: View, splits: Splits
) -> Output:
    """Score all val and test pictures of one view by one head; all sources given, fitted on or not."""
    if not features:
        raise SpecError(f"{head.name}: there are no features of {view.name} to score")
    scores = score_rows(feature_rows(run.store, features), LinearHead.load(run.store, model), head.name, view, splits)
    counts = scores.group_by("split").aggregate([("image_id", "count")]).to_pylist()
    return Output({ROWS: scores}, {"rows": {row["split"]: row["image_id_count"] for row in counts}})
