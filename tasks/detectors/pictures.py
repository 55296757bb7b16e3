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
from storage.errors import SpecError, TelltaleError
from storage.objects import ROWS, Ref, read_table
from storage.tables import FAKE, REAL, SCORE_SCHEMA
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.splits import role
from tasks.data.views import apply_view
from tasks.detectors.base import Detector, DetectorBase, Entry, Grid, Inputs, picture_shards, score_place
from tasks.detectors.svm import Float, balanced_weights, fit_platt
from tasks.pieces import RowPieces
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import Fit
from tasks.spec.splits import Splits
from tasks.spec.views import View

Row = dict[str, Any]
# What is said of uint8 (H, W, 3), RGB, in a rotation: columns of a score table beside those that name the picture.
Answer = Callable[[Pixels, int], Row]

# In median absolute deviations.
_LINEAR_WITHIN = 10.0
# The share of distinct decision values that may become equal as probabilities.
_MAY_TIE = 0.01

SCORE_ORDER = [("split", "ascending"), ("fold", "ascending"), ("image_id", "ascending"), ("source", "ascending")]


class PictureDetector(DetectorBase):
    """A detector that is brought, not fitted: it says of every picture how much it looks like a fake.

    What it says is calibrated on val pictures that nothing happened to, one resolution at a time, and thresholds come
    from there, as for every other detector.
    """

    reads_pictures: ClassVar[bool] = True

    def opened(self) -> Callable[[Pixels], float]:
        """What gives the decision value of uint8 (H, W, 3), RGB: any finite number, larger for a fake."""
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
    places = {view: score_place(fit, view) for view in views}
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
        pixels.setflags(write=False)  # the next view may be made of the same pixels
        try:
            decision = float(decide(pixels))
        except TelltaleError:
            raise
        except Exception as error:
            raise SpecError(f"the detector failed: {type(error).__name__}: {error}") from error
        if not np.isfinite(decision):
            raise SpecError(f"expected a finite number, got {decision}")
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


def steadied(decisions: Float, val: Float) -> Float:
    """Decision values (N,) on a scale on which a logistic function neither saturates nor ties them.

    Linear within ten median absolute deviations of the val pictures' median, logarithmic beyond: so the order is kept,
    log-odds are what they were but for a factor, and a scale with a heavy tail fits into one calibration as well.
    """
    centre = np.median(val)
    spread = np.median(np.abs(val - centre)) or np.max(np.abs(val - centre)) or 1.0
    return np.arcsinh((decisions - centre) / spread / _LINEAR_WITHIN) * _LINEAR_WITHIN


def calibrated(scores: pl.DataFrame, reference: pl.DataFrame) -> pl.DataFrame:
    """Scores whose p(fake) is that of Platt's calibration on the reference's val rows, fold by fold.

    Raises:
        SpecError: a class has no val picture in a fold, or probabilities cannot tell decision values apart.
    """
    from scipy.special import expit

    made: list[pl.DataFrame] = []
    references = reference.filter(pl.col("split") == "val").partition_by("fold", as_dict=True)
    for (fold,), rows in scores.partition_by("fold", as_dict=True).items():
        val = references.get((fold,))
        name = scores["detector"][0]
        if val is None:
            raise SpecError(f"{name}: rotation {fold} has no val pictures to calibrate on")
        labels = val["label"].to_numpy().astype(np.int64)
        for label, missing in ((REAL, "photograph"), (FAKE, "fake")):
            if not (labels == label).any():
                raise SpecError(f"{name}: no {missing} in val (rotation {fold}) to calibrate on")
        weights = balanced_weights(labels, val["source"].to_numpy().astype(np.str_))
        decisions, known = rows["decision"].to_numpy(), val["decision"].to_numpy()
        slope, offset = fit_platt(steadied(known, known), labels, weights)
        p_fake = expit(slope * steadied(decisions, known) + offset)
        # A few that differ in their last digit alone, such as shares next to 1, may become one.
        if len(np.unique(p_fake)) < (1 - _MAY_TIE) * len(np.unique(decisions)):
            raise SpecError(
                f"{name}: its decision values span too much to be told apart as probabilities (from "
                f"{decisions.min():g} to {decisions.max():g}): let it give log-odds, or their like"
            )
        made.append(rows.with_columns(p_fake=pl.Series(p_fake, dtype=pl.Float64)))
    return pl.concat(made) if made else scores


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
