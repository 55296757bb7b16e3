"""Scores of exported networks: every val and test picture in every view, by the very file that a phone runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from storage.digest import hash_fraction
from storage.errors import SpecError
from storage.objects import ROWS, PartContent, Ref, read_table
from storage.tables import FAMILIARITY, FAMILIARITY_SCHEMA, SCORE_SCHEMA
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.views import shown_picture
from tasks.detectors.base import SCORE_ORDER, is_shown, score_place, shown_as
from tasks.pieces import Pieces, RowPieces
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import Fit
from tasks.spec.splits import Splits
from tasks.spec.views import View

if TYPE_CHECKING:
    from tasks.networks.exported import Detection

Row = dict[str, Any]
# What is said of a picture in a rotation, by windows of it, uint8 (H, W, 3), RGB: columns of a score table beside those
# that name the picture.
Answer = Callable[[Sequence[Pixels], int], Row]

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


def answers_of(
    pictures: pa.Table,
    answer: Answer,
    fit: Fit,
    views: Sequence[View],
    val_views: Sequence[View],
    splits: Splits,
    *,
    unseen: bool = False,
    kept: Mapping[View, RowPieces] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[View, list[Row]]:
    """What is said of every val and test picture in some views: `SCORE_SCHEMA` and whatever else `answer` gives.

    Args:
        pictures: rows in CANONICAL_SCHEMA; each is decoded once.
        answer: is asked once for each picture, view and rotation in which it is val or test.
        val_views: the views that give thresholds; val pictures are scored in these only.
        unseen: nothing was fitted on this source: every picture is a test picture, scored once, in a rotation that the
            hash of its group draws.
        kept: where answers are kept for an attempt that goes on, and those of earlier ones.
    """
    kept = kept or {}
    found = {view: kept[view].rows() if view in kept else () for view in views}
    made = {view: {_identity(row): row for row in rows} for view, rows in found.items()}
    places = {view: score_place(fit, view) for view in views}
    for row in pictures.to_pylist():
        advance(len(views))
        wanted = [
            (view, rotation, split)
            for view in views
            for rotation, split in _roles(row, view, val_views, splits, unseen)
            if _identity(row | {"fold": rotation}) not in made[view]
        ]
        if not wanted:
            continue
        rgb = decode_rgb(row["canonical"])
        seen = {
            view: [shown_picture(rgb, row, window).pixels for window in view.each_window]
            for view in dict.fromkeys(view for view, _, _ in wanted)
        }
        for view, rotation, split in wanted:
            said = {name: row[name] for name in ("image_id", "group_id", "source", "label")}
            said |= {"split": split, "fold": rotation} | places[view]
            try:
                said |= answer(seen[view], rotation)
            except SpecError as error:
                raise SpecError(f"{fit.label}: {row['source']}, {row['image_id']} in {view.name}: {error}") from error
            made[view][_identity(said)] = said
            if view in kept:
                kept[view].add(said)
    return {view: list(rows.values()) for view, rows in made.items()}


def _identity(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["source"], row["image_id"], row["fold"]


def _roles(
    row: Mapping[str, Any], view: View, val_views: Sequence[View], splits: Splits, unseen: bool
) -> list[tuple[int, str]]:
    if unseen:
        drawn = int(hash_fraction("unseen", row["group_id"]) * splits.rotations)
        return [(drawn, "test")] if is_shown(row, view) else []
    return shown_as(row, view, val_views, splits)


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
        lambda windows, rotation: answer_of(networks[rotation].opinion(windows)),
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
