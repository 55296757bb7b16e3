"""Scores of exported networks: every val and test picture in every view, by the very file that a phone runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from storage.digest import hash_fraction
from storage.objects import ROWS, PartContent, Ref, read_table
from storage.tables import FAMILIARITY, FAMILIARITY_SCHEMA, SCORE_SCHEMA
from tasks.data.pictures import decode_rgb
from tasks.data.splits import role
from tasks.data.views import apply_view
from tasks.pieces import Pieces, RowPieces
from tasks.recipe import Output, StepRun, folder_name, step
from tasks.spec.splits import Splits
from tasks.spec.views import View

if TYPE_CHECKING:
    from tasks.networks.exported import Detection, ExportedNetwork

Row = dict[str, Any]

# What both tables say of a picture, side by side.
ANSWER_SCHEMA = pa.unify_schemas([SCORE_SCHEMA, FAMILIARITY_SCHEMA])

_ORDER = [("split", "ascending"), ("fold", "ascending"), ("image_id", "ascending"), ("source", "ascending")]


def score_pictures(
    pictures: pa.Table,
    networks: Sequence[ExportedNetwork],
    detector: str,
    views: Sequence[View],
    val_views: Sequence[View],
    splits: Splits,
    *,
    unseen: bool,
    kept: Mapping[View, RowPieces] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[View, tuple[pa.Table, pa.Table]]:
    """Scores (`SCORE_SCHEMA`) and familiarity (`FAMILIARITY_SCHEMA`) of canonical pictures in fair views.

    Args:
        pictures: rows in CANONICAL_SCHEMA; each is decoded once.
        networks: one per rotation; each scores the pictures that are val or test in its rotation.
        val_views: the views that give thresholds; val pictures are scored in these only.
        unseen: no network was trained on this source: every picture is a test picture, scored once, by the network of
            a rotation that the hash of its group draws.
        kept: where answers (`ANSWER_SCHEMA`) are kept for an attempt that goes on, and those of earlier ones.
    """
    kept = kept or {}
    found = {view: kept[view].rows() if view in kept else () for view in views}
    made = {view: {_identity(row): row for row in rows} for view, rows in found.items()}
    for row in pictures.to_pylist():
        advance(len(views))
        roles = _roles(row, splits, unseen)
        wanted = [
            (view, rotation, split)
            for view in views
            for rotation, split in roles
            if (split == "test" or view in val_views) and _identity(row | {"fold": rotation}) not in made[view]
        ]
        if not wanted:
            continue
        rgb = decode_rgb(row["canonical"])
        seen = {view: apply_view(rgb, view).pixels for view in dict.fromkeys(view for view, _, _ in wanted)}
        for view, rotation, split in wanted:
            answer = _answer(row, networks[rotation].detect(seen[view]), detector, view, split, rotation)
            made[view][_identity(answer)] = answer
            if view in kept:
                kept[view].add(answer)
    return {view: _tables(list(rows.values())) for view, rows in made.items()}


def _identity(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["source"], row["image_id"], row["fold"]


def _roles(row: Mapping[str, Any], splits: Splits, unseen: bool) -> list[tuple[int, str]]:
    if unseen:
        return [(int(hash_fraction("unseen", row["group_id"]) * splits.rotations), "test")]
    roles = [(rotation, role(row, rotation, splits)) for rotation in range(splits.rotations)]
    return [(rotation, split) for rotation, split in roles if split != "train"]


def _answer(row: Mapping[str, Any], found: Detection, detector: str, view: View, split: str, rotation: int) -> Row:
    """What a network says of one picture: a row of `ANSWER_SCHEMA`."""
    logits = found.logits.astype(np.float64)
    max_probability, energy, distance = (float(value) for value in found.familiarity)
    return {
        "image_id": row["image_id"],
        "group_id": row["group_id"],
        "source": row["source"],
        "label": row["label"],
        "split": split,
        "fold": rotation,
        "detector": detector,
        "path": view.path,
        "resolution": str(view.resolution),
        "jpeg_quality": view.jpeg_quality,
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
    return scores.sort_by(_ORDER), familiarity.sort_by(_ORDER)


def _label(*, views: View, detector: str, source: str, shard: int, **_: object) -> str:
    return f"{folder_name(detector)}/{views.name}/{source}-{shard:05d}"


@step(
    "score/network",
    version=1,
    label=_label,
    each="views",
    unkeyed=("shard",),
    libraries=("onnxruntime", "pillow", "simplejpeg", "numpy"),
)
def score_network(
    run: StepRun,
    *,
    detector: str,
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
    scored = score_pictures(
        table, networks, detector, views, val_views, splits, unseen=unseen, kept=kept, advance=progress.advance
    )
    return {view: _output(*tables, kept[view]) for view, tables in scored.items()}


@step("score/gathered", version=1, label=lambda *, detector, view, **_: f"{folder_name(detector)}/{view.name}")
def gather_scores(run: StepRun, *, detector: str, view: View, scores: tuple[Ref, ...]) -> Output:
    """All shards' scores of one network in one view as one object, sorted."""
    tables = pa.concat_tables([read_table(run.store, ref) for ref in scores])
    familiarity = pa.concat_tables([read_table(run.store, ref, name=FAMILIARITY) for ref in scores])
    return _output(tables.sort_by(_ORDER), familiarity.sort_by(_ORDER))


def _output(scores: pa.Table, familiarity: pa.Table, pieces: Pieces | None = None) -> Output:
    parts: dict[str, PartContent] = {ROWS: scores, FAMILIARITY: familiarity}
    return Output(parts, {"rows": scores.num_rows}, pieces)
