"""Detectors that read pictures: every val and test picture of a shard in every view, then calibration on val.

A kind is a `PictureDetector` with a field `kind` and the function `opened`; everything else is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa

from storage.digest import hash_fraction
from storage.errors import SpecError
from storage.objects import ROWS, Ref, read_table
from storage.tables import FAKE, REAL, SCORE_SCHEMA
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.splits import role
from tasks.data.views import apply_view
from tasks.detectors.base import Detector, DetectorBase, Entry, Grid, Inputs, picture_shards, score_place
from tasks.detectors.svm import balanced_weights, fit_platt
from tasks.pieces import RowPieces
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import Fit
from tasks.spec.splits import Splits
from tasks.spec.views import View

Row = dict[str, Any]
# What is said of uint8 (H, W, 3), RGB, in a rotation: columns of a score table beside those that name the picture.
Answer = Callable[[Pixels, int], Row]

SCORE_ORDER = [("split", "ascending"), ("fold", "ascending"), ("image_id", "ascending"), ("source", "ascending")]


class PictureDetector(DetectorBase):
    """A detector that is brought, not fitted: it says of every picture how much it looks like a fake.

    What it says is calibrated on val pictures that nothing happened to, one resolution at a time, and thresholds come
    from there, as for every other detector.
    """

    reads_pictures: ClassVar[bool] = True

    def opened(self) -> Callable[[Pixels], float]:
        """What gives the decision value of uint8 (H, W, 3), RGB: any number, larger for a fake, finite."""
        raise NotImplementedError

    def parts(self, fit: Fit, views: tuple[View, ...], grid: Grid, inputs: Inputs) -> list[Any]:
        return [
            score_pictures.submit(
                detector=self,
                fit=fit,
                views=views,
                val_views=grid.threshold_views,
                splits=grid.splits,
                **shard,
            )
            for shard in picture_shards(grid, inputs)
        ]

    def scores(self, entry: Entry, parts: Mapping[View, tuple[Ref, ...]], grid: Grid, inputs: Inputs) -> Any:
        view = entry.cell.fair_view
        reference = parts[entry.reference.fair_view]
        return calibrate_scores.submit(fit=entry.fit, view=view, scores=parts[view], reference=reference)


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
    for row in pictures.to_pylist():
        advance(len(views))
        wanted = [
            (view, rotation, split)
            for view in views
            for rotation, split in _roles(row, splits, unseen)
            if (split == "test" or view in val_views) and _identity(row | {"fold": rotation}) not in made[view]
        ]
        if not wanted:
            continue
        rgb = decode_rgb(row["canonical"])
        seen = {view: apply_view(rgb, view).pixels for view in dict.fromkeys(view for view, _, _ in wanted)}
        for view, rotation, split in wanted:
            said = {name: row[name] for name in ("image_id", "group_id", "source", "label")}
            said |= {"split": split, "fold": rotation} | score_place(fit, view) | answer(seen[view], rotation)
            made[view][_identity(said)] = said
            if view in kept:
                kept[view].add(said)
    return {view: list(rows.values()) for view, rows in made.items()}


def _identity(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["source"], row["image_id"], row["fold"]


def _roles(row: Mapping[str, Any], splits: Splits, unseen: bool) -> list[tuple[int, str]]:
    if unseen:
        return [(int(hash_fraction("unseen", row["group_id"]) * splits.rotations), "test")]
    roles = [(rotation, role(row, rotation, splits)) for rotation in range(splits.rotations)]
    return [(rotation, split) for rotation, split in roles if split != "train"]


@step(
    "score/pictures",
    version=1,
    label=lambda *, fit, views, source, shard, **_: f"{fit.label}/{views.name}/{source}-{shard:05d}",
    each="views",
    unkeyed=("shard",),
    libraries=("pillow", "simplejpeg", "numpy"),
)
def score_pictures(
    run: StepRun,
    *,
    detector: Detector,
    fit: Fit,
    pictures: Ref,
    views: tuple[View, ...],
    val_views: tuple[View, ...],
    splits: Splits,
    source: str,
    shard: int,
) -> dict[View, Output]:
    """Decision values of a shard of canonical pictures in every missing view, an object each, not calibrated yet.

    Raises:
        SpecError: the detector gives something else than a finite number.
    """
    assert isinstance(detector, PictureDetector)
    decide = detector.opened()

    def answer(pixels: Pixels, rotation: int) -> Row:
        decision = float(decide(pixels))
        if not np.isfinite(decision):
            raise SpecError(f"{fit.label} gave {decision} for a picture: expected a finite number")
        return {"decision": decision, "p_fake": None, "class_probabilities": None}

    table = read_table(run.store, pictures)
    progress = run.progress(table.num_rows * len(views))
    kept = {view: RowPieces(run.store, run.checkpoints_of(view), SCORE_SCHEMA) for view in views}
    rows = answers_of(table, answer, fit, views, val_views, splits, kept=kept, advance=progress.advance)
    return {
        view: Output(
            {ROWS: pa.Table.from_pylist(made, schema=SCORE_SCHEMA).sort_by(SCORE_ORDER)},
            {"rows": len(made)},
            kept[view],
        )
        for view, made in rows.items()
    }


def calibrated(scores: pl.DataFrame, reference: pl.DataFrame) -> pl.DataFrame:
    """Scores whose p(fake) is that of Platt's calibration on the reference's val rows, fold by fold.

    Raises:
        SpecError: a class has no val picture in a fold.
    """
    of_fold: dict[int, tuple[float, float]] = {}
    for (fold,), val in reference.filter(pl.col("split") == "val").group_by(["fold"], maintain_order=True):
        labels = val["label"].to_numpy().astype(np.int64)
        for label, name in ((REAL, "photograph"), (FAKE, "fake")):
            if not (labels == label).any():
                raise SpecError(f"{val['detector'][0]}: no {name} in val (rotation {fold}) to calibrate on")
        weights = balanced_weights(labels, val["source"].to_numpy().astype(np.str_))
        of_fold[int(str(fold))] = fit_platt(val["decision"].to_numpy(), labels, weights)
    missing = sorted(set(scores["fold"].unique()) - of_fold.keys())
    if missing:
        raise SpecError(f"{scores['detector'][0]}: rotations {missing} have no val pictures to calibrate on")
    slopes, offsets = (
        pl.col("fold").replace_strict({fold: found[place] for fold, found in of_fold.items()}, return_dtype=pl.Float64)
        for place in (0, 1)
    )
    return scores.with_columns(p_fake=1 / (1 + (-(slopes * pl.col("decision") + offsets)).exp()))


@step("score/calibrated", version=1, label=lambda *, fit, view, **_: f"{fit.label}/{view.name}", libraries=("scipy",))
def calibrate_scores(
    run: StepRun, *, fit: Fit, view: View, scores: tuple[Ref, ...], reference: tuple[Ref, ...]
) -> Output:
    """All shards' scores of one fit in one view, calibrated on val pictures of the reference view, as one object."""
    frames = []
    for refs in (scores, reference):
        frame = pl.from_arrow(pa.concat_tables([read_table(run.store, ref) for ref in refs]))
        assert isinstance(frame, pl.DataFrame)
        frames.append(frame)
    table = calibrated(*frames).to_arrow().cast(SCORE_SCHEMA).sort_by(SCORE_ORDER)
    return Output({ROWS: table}, {"rows": table.num_rows})
