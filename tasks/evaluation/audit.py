"""An audit of a set: what is told of it as it was shipped, and what is left when container, size and history are equal.

Every stage is an experiment of its own on one generator and all photographs, and what is fitted is fitted on the
pictures of that stage. The last stage of the report, photographs beside their reconstructions, is the run's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from storage.objects import ROWS, Ref
from tasks.data.perturbations.jpeg import jpeg
from tasks.detectors.calibration import reasons_of, shown_reasons
from tasks.evaluation.cells import Row, picture_counts, read_scores, result_key, result_row, results_table
from tasks.evaluation.intervals import Interval, Resampled, group_weights
from tasks.evaluation.pairs import AUROC, Answers
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Spec
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Experiment, Mix
from tasks.spec.views import Cell

# What results of the stages are called, in order.
AS_SHIPPED, SAME_CONTAINER = "audit-as-shipped", "audit-same-container"
SAME_SIZE, SAME_HISTORY = "audit-same-size", "audit-same-history"
AUDIT_STAGES = (AS_SHIPPED, SAME_CONTAINER, SAME_SIZE, SAME_HISTORY)
# AUROC at a stage minus that at the stage before it; its pictures are those that are drawn at both.
CHANGE = "auroc_change"

# Every file is a JPEG of this quality, 4:2:0, where the container is the same: one that leaves most of what was before.
CONTAINER_QUALITY = 90
WHOLE_CELLS = {
    AS_SHIPPED: Cell(resolution="native"),
    SAME_CONTAINER: Cell(resolution="native", perturbation=jpeg(CONTAINER_QUALITY)),
}


def audited_windows(experiment: Experiment, mix: Mix, history: Literal["matched", "as-is"]) -> Experiment:
    """An experiment on one of its audited mixes alone: uncompressed windows of the largest side, each detector once.

    A copy is not validated, here and below: its sources may have lost a partner, and whole pictures are on no path
    that an experiment may name.
    """
    sources = tuple(one for one in experiment.evaluated_sources if one.name in (*mix.real, *mix.fakes))
    update: dict[str, Any] = {"sources": sources, "mixes": (mix,), "families": {}, "audited": (), "history": history}
    return experiment.uncompressed().model_copy(update=update | {"resolutions": (window_cell(experiment).resolution,)})


def audited_whole(experiment: Experiment, mix: Mix) -> Experiment:
    """An experiment on an audited mix's pictures as files have them: `WHOLE_CELLS`."""
    windows = audited_windows(experiment, mix, "as-is")
    update: dict[str, Any] = {"path": "raw", "resolutions": ("native",), "qualities": (None, CONTAINER_QUALITY)}
    detectors = tuple(one.on_whole_pictures() for one in windows.detectors)
    return windows.model_copy(update=update | {"detectors": detectors})


def window_cell(experiment: Experiment) -> Cell:
    """The cell of an audit's windows."""
    return Cell(resolution=max(side for side in experiment.resolutions if side != "native"))


class StageScores(Spec):
    """Scores of a fit at a stage, and the mix as it is there: photographs may be called by the generator's name."""

    stage: str
    cell: Cell
    fit: Fit
    mix: Mix
    scores: Ref


class Absent(Spec):
    """Why a fit has no scores at a stage."""

    stage: str
    cell: Cell
    fit: Fit
    reason: str


@dataclass(frozen=True, eq=False)
class _Told:
    """What a detector says of the pictures that are drawn at a stage."""

    cell: Cell
    answers: Answers

    @classmethod
    def of(cls, scores: pl.DataFrame, cell: Cell, mix: Mix, there: Mix, seed: int, why: str = "") -> _Told:
        """Of a mix whose sources of photographs may be called otherwise `there`: they are named as in the mix.

        `why` says why it could not score some pictures.
        """
        answers = Answers.of(scores, {}, there, seed)
        named = pl.col("source").replace(dict(zip(there.real, mix.real, strict=True)))
        reason = f"{answers.reason}: {why}" if answers.reason and why else answers.reason
        return cls(cell, Answers(answers.asked.with_columns(named), reason))

    @property
    def pictures(self) -> pl.DataFrame:
        return self.answers.asked.drop_nulls("p_fake").select("source", "image_id", "label", "group_id")


def audit_rows(
    mix: Mix, fit: Fit, told: Mapping[str, _Told], absent: Mapping[str, Absent], *, seed: int, resamples: int
) -> Iterator[Row]:
    """AUROC of a fit at every stage that has its scores, and the change from the stage before: rows in RESULT_SCHEMA.

    All are resampled by the same draws of groups, so that changes are paired as far as stages show the same pictures.
    """
    groups = sorted({group for one in told.values() for group in one.answers.asked["group_id"]})
    weights = group_weights(groups, resamples, seed)
    before: tuple[Resampled, pl.DataFrame] | None = None
    for stage in AUDIT_STAGES:
        if stage not in told:
            if stage in absent:
                yield _row(result_key(absent[stage].cell, stage, mix.name, fit), AUROC, None, absent[stage].reason)
            before = None
            continue
        one = told[stage]
        key, pictures, auroc = result_key(one.cell, stage, mix.name, fit), one.pictures, one.answers.auroc(weights)
        yield _row(key | picture_counts(pictures), AUROC, auroc, auroc.reason)
        if before is not None and auroc.value is not None and before[0].value is not None:
            both = pictures.join(before[1].select("source", "image_id"), on=["source", "image_id"])
            yield _row(key | picture_counts(both), CHANGE, auroc.minus(before[0]))
        before = auroc, pictures


def _row(key: Row, metric: str, found: Resampled | None, reason: str = "") -> Row:
    if found is None:
        return result_row(key, None, metric, None, None, reason)
    interval: Interval = found.interval()
    return result_row(key, None, metric, found.value, interval, reason or None)


@step("audit", version=1, label=lambda *, mix, **_: mix.name, libraries=("numpy",))
def audit_stages(
    run: StepRun,
    *,
    mix: Mix,
    scored: tuple[StageScores, ...],
    absent: tuple[Absent, ...],
    seed: int,
    resamples: int,
) -> Output:
    """AUROC of every fit at every stage of one generator's audit, and its changes: RESULT_SCHEMA, `auroc` and `CHANGE`.

    `mix` has the photographs by their own names.
    """
    fits = list(dict.fromkeys([*(one.fit for one in scored), *(one.fit for one in absent)]))
    progress = run.progress(len(fits), unit="detectors")
    rows: list[Row] = []
    for fit in fits:
        told = {
            one.stage: _Told.of(
                read_scores(run.store, one.scores),
                one.cell,
                mix,
                one.mix,
                seed,
                shown_reasons(reasons_of(run.store, [one.scores])),
            )
            for one in scored
            if one.fit == fit
        }
        missing = {one.stage: one for one in absent if one.fit == fit}
        rows += audit_rows(mix, fit, told, missing, seed=seed, resamples=resamples)
        progress.advance()
    return Output({ROWS: results_table(rows)})
