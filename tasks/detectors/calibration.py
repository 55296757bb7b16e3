"""Calibration of scores that a detector gave by itself: p(fake) on val pictures, fold by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from storage.errors import SpecError
from storage.objects import ROWS, Ref, notes_of, read_table
from storage.store import Store
from storage.tables import FAKE, REAL, SCORE_SCHEMA
from tasks.detectors.base import SCORE_ORDER
from tasks.detectors.svm import Float, balanced_weights, fit_platt
from tasks.recipe import Output, StepRun, step
from tasks.spec.detectors import Fit
from tasks.spec.views import View

# In median absolute deviations.
_LINEAR_WITHIN = 10.0
# The share of distinct decision values that may become equal as probabilities.
_MAY_TIE = 0.01
# How many reasons are noted.
REASONS = 10


class NothingToCalibrateOn(SpecError):
    """Of a class a detector scored no val picture."""


def steadied(decisions: Float, val: Float) -> Float:
    """Decision values (N,) on a scale on which a logistic function neither saturates nor ties them.

    Linear within ten median absolute deviations of the val pictures' median, logarithmic beyond: so the order is kept,
    log-odds are what they were but for a factor, and a scale with a heavy tail fits into one calibration as well.
    """
    centre = np.median(val)
    spread = np.median(np.abs(val - centre)) or np.max(np.abs(val - centre)) or 1.0
    return np.arcsinh((decisions - centre) / spread / _LINEAR_WITHIN) * _LINEAR_WITHIN


def calibrated(
    scores: pl.DataFrame, reference: pl.DataFrame, why: str = "", may_be_silent: bool = False
) -> pl.DataFrame:
    """Scores whose p(fake) is that of Platt's calibration on the reference's val rows, fold by fold.

    A picture without a decision value has no p(fake) either; `why` says in an error why some have none. A detector that
    `may_be_silent` may have scored none of a class: then none has a p(fake).

    Raises:
        NothingToCalibrateOn: a class has no val picture in a fold.
        SpecError: probabilities cannot tell decision values apart.
    """
    from scipy.special import expit

    made: list[pl.DataFrame] = []
    references = reference.filter(pl.col("split") == "val").partition_by("fold", as_dict=True)
    for (fold,), rows in scores.partition_by("fold", as_dict=True).items():
        name = scores["detector"][0]
        val = references.get((fold,))
        if val is None:
            raise NothingToCalibrateOn(f"{name}: rotation {fold} has no val pictures to calibrate on")
        val = val.drop_nulls("decision")
        labels = val["label"].to_numpy().astype(np.int64)
        for label, missing in ((REAL, "photograph"), (FAKE, "fake")):
            if not (labels == label).any():
                raise NothingToCalibrateOn(
                    f"{name}: no {missing} that it scored in val (rotation {fold}) to calibrate on{why}"
                )
        weights = balanced_weights(labels, val["source"].to_numpy().astype(np.str_))
        known = val["decision"].to_numpy()
        slope, offset = fit_platt(steadied(known, known), labels, weights)
        decisions = rows["decision"].cast(pl.Float64).to_numpy()  # NaN where there is none
        p_fake = expit(slope * steadied(decisions, known) + offset)
        _refuse_ties(name, decisions[~np.isnan(decisions)], p_fake[~np.isnan(decisions)])
        made.append(rows.with_columns(p_fake=pl.Series(p_fake, dtype=pl.Float64).fill_nan(None)))
    return pl.concat(made) if made else scores


def _refuse_ties(name: str, decisions: Float, p_fake: Float) -> None:
    # A few that differ in their last digit alone, such as shares next to 1, may become one.
    if len(np.unique(p_fake)) < (1 - _MAY_TIE) * len(np.unique(decisions)):
        raise SpecError(
            f"{name}: its decision values span too much to be told apart as probabilities (from "
            f"{decisions.min():g} to {decisions.max():g}): let it give log-odds, or their like"
        )


@step("score/calibrated", version=3, label=lambda *, fit, view, **_: f"{fit.label}/{view.name}", libraries=("scipy",))
def calibrate_scores(
    run: StepRun, *, fit: Fit, view: View, scores: tuple[Ref, ...], reference: tuple[Ref, ...]
) -> Output:
    """All shards' scores of one fit in one view, calibrated on val pictures of the reference view, as one object.

    Whole pictures have any size, of which a detector may take none: then nothing has a p(fake), and no run ends.
    """
    frames = []
    for refs in (scores, reference):
        frame = pl.from_arrow(pa.concat_tables([read_table(run.store, ref) for ref in refs]))
        assert isinstance(frame, pl.DataFrame)
        frames.append(frame)
    failed = reasons_of(run.store, reference)
    why = f"; it failed: {shown_reasons(failed)}" if failed else ""
    ours, val = frames
    try:
        made = calibrated(ours, val, why)
    except NothingToCalibrateOn:
        if view.path != "raw":
            raise
        made = ours
    table = made.to_arrow().cast(SCORE_SCHEMA).sort_by(SCORE_ORDER)
    notes = {"rows": table.num_rows, "unscored": table["decision"].null_count}
    return Output({ROWS: table}, notes | {"reasons": reasons_of(run.store, scores)})


def reasons_of(store: Store, scores: Sequence[Ref]) -> dict[str, int]:
    """Why pictures have no score, as the notes of some score objects say, and how many; the most frequent ones."""
    found: dict[str, int] = {}
    for ref in scores:
        for reason, count in notes_of(store, ref).get("reasons", {}).items():
            found[reason] = found.get(reason, 0) + count
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0]))[:REASONS])


def shown_reasons(reasons: Mapping[str, int]) -> str:
    """The first of them, for people."""
    first = [f"{reason} ({count})" for reason, count in list(reasons.items())[:2]]
    return "; ".join([*first, f"and {len(reasons) - 2} other reasons"] if len(reasons) > 2 else first)
