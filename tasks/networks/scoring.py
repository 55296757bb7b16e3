"""Scores of exported networks: every val and test picture in every view, by the very file that a phone runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from storage.objects import ROWS, PartContent, Ref, read_table
from storage.tables import FAMILIARITY, FAMILIARITY_SCHEMA, SCORE_SCHEMA
from tasks.detectors.pictures import SCORE_ORDER, answers_of
from tasks.pieces import Pieces, RowPieces
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import Fit
from tasks.spec.splits import Splits
from tasks.spec.views import View

if TYPE_CHECKING:
    from tasks.networks.exported import Detection

Row = dict[str, Any]

# What both tables say of a picture, side by side.
ANSWER_SCHEMA = pa.unify_schemas([SCORE_SCHEMA, FAMILIARITY_SCHEMA])


def answer_of(found: Detection) -> Row:
    """What a network says of one picture: the columns of `ANSWER_SCHEMA` beside those that name the picture."""
    logits = found.logits.astype(np.float64)
    max_probability, energy, distance = (float(value) for value in found.familiarity)
    return {
        "p_fake": 1.0 - float(found.probabilities[0]),
        "decision": float(np.logaddexp.reduce(logits[1:]) - logits[0]),
        "class_probabilities": found.probabilities.astype(np.float64).tolist(),
        "max_probability": max_probability,
        "energy": energy,
        "distance": distance,
    }


def _tables(rows: list[Row]) -> tuple[pa.Table, pa.Table]:
    """Both tables of rows of `ANSWER_SCHEMA`, sorted."""
    scores, familiarity = (pa.Table.from_pylist(rows, schema=schema) for schema in (SCORE_SCHEMA, FAMILIARITY_SCHEMA))
    return scores.sort_by(SCORE_ORDER), familiarity.sort_by(SCORE_ORDER)


@step(
    "score/network",
    version=2,
    label=lambda *, fit, views, source, shard, **_: f"{fit.label}/{views.name}/{source}-{shard:05d}",
    each="views",
    unkeyed=("shard",),
    libraries=("onnxruntime", "pillow", "simplejpeg", "numpy"),
)
def score_network(
    run: StepRun,
    *,
    fit: Fit,
    models: tuple[Ref, ...],
    pictures: Ref,
    views: tuple[View, ...],
    val_views: tuple[View, ...],
    splits: Splits,
    unseen: bool,
    source: str,
    shard: int,
) -> dict[View, Output]:
    """Scores of a shard of canonical pictures in every missing view, an object each; `models`: one per rotation.

    Raises:
        WrongAnswers: this machine computes other answers with a network than its card says.
    """
    from tasks.networks.exported import ExportedNetwork

    networks = [ExportedNetwork.load(run.store, model) for model in models]
    table = read_table(run.store, pictures)
    progress = run.progress(table.num_rows * len(views))
    kept = {view: RowPieces(run.store, run.checkpoints_of(view), ANSWER_SCHEMA) for view in views}
    answers = answers_of(
        table,
        lambda pixels, rotation: answer_of(networks[rotation].detect(pixels)),
        fit,
        views,
        val_views,
        splits,
        unseen=unseen,
        kept=kept,
        advance=progress.advance,
    )
    return {view: _output(*_tables(rows), kept[view]) for view, rows in answers.items()}


@step("score/gathered", version=2, label=lambda *, fit, view, **_: f"{fit.label}/{view.name}")
def gather_scores(run: StepRun, *, fit: Fit, view: View, scores: tuple[Ref, ...]) -> Output:
    """All shards' scores of one network in one view as one object, sorted."""
    tables = pa.concat_tables([read_table(run.store, ref) for ref in scores])
    familiarity = pa.concat_tables([read_table(run.store, ref, name=FAMILIARITY) for ref in scores])
    return _output(tables.sort_by(SCORE_ORDER), familiarity.sort_by(SCORE_ORDER))


def _output(scores: pa.Table, familiarity: pa.Table, pieces: Pieces | None = None) -> Output:
    parts: dict[str, PartContent] = {ROWS: scores, FAMILIARITY: familiarity}
    return Output(parts, {"rows": scores.num_rows}, pieces)
