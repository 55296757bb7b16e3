"""What a published network would have said of pictures that it was not fitted on, of known and unknown generators."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from storage.errors import SpecError
from storage.objects import ROWS
from storage.tables import FAKE, REAL
from tasks.networks.delivered_windows import DeliveredPictures
from tasks.networks.pattern_fit import Boolean, Calibrated, Float, PatternFit, Windows, even_weights, pattern_fits
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Name
from tasks.spec.published import Published
from tasks.spec.splits import Splits

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("group_id", pa.string()),
        ("source", pa.string()),
        ("label", pa.int8()),
        ("delivery", pa.string()),
        ("photographs", pa.string()),  # the source of photographs; null of generated pictures
        ("generator", pa.string()),  # that made it, or whose history a photograph has; null of one as it came
        ("rotation", pa.int16()),
        ("log_odds", pa.float64()),  # of a generated picture; null where it is too small for a window
        ("familiarity", pa.float64()),  # minus the squared distance; null likewise
        ("answer", pa.string()),  # "photograph", "generated", or null: none
    ]
)

PHOTOGRAPH, GENERATED = "photograph", "generated"


@step(
    "publish/score",
    version=1,
    label=lambda *, name, without, **_: name if without is None else f"{name}-without-{without}",
    libraries=("numpy", "scipy"),
)
def published_scores(
    run: StepRun,
    *,
    name: Name,
    spec: Published,
    delivered: tuple[DeliveredPictures, ...],
    splits: Splits,
    without: Name | None,
    absent: tuple[Name, ...],
) -> Output:
    """Every test picture of every rotation once, as a network says that was fitted without it: `SCHEMA`.

    With `absent` generators, which are called `without` together, it was fitted and calibrated without them and what
    has their history, and only these are scored. The notes have each rotation's strength and calibration.
    """
    windows = Windows.read(run.store, delivered)
    unknown = windows.pictures["generator"].is_in(list(absent)).fill_null(value=False).to_numpy()
    has_window = np.zeros(len(unknown), dtype=bool)
    has_window[windows.of] = True
    rotations: list[dict[str, Any]] = []
    tables: list[pl.DataFrame] = []
    progress = run.progress(splits.rotations, "rotations")
    for rotation in range(splits.rotations):
        roles = windows.roles(rotation, splits)
        fit, calibrated = fitted(windows, (roles == "train") & ~unknown, (roles == "val") & ~unknown & has_window, spec)
        tested = (roles == "test") & (unknown if absent else True)
        tables.append(_said(windows, tested, fit, calibrated, rotation))
        rotations.append({"strength": fit.strength, **asdict(calibrated)})
        progress.advance()
    rows = pl.concat(tables).sort("delivery", "source", "image_id")
    return Output({ROWS: rows.select(SCHEMA.names).to_arrow().cast(SCHEMA)}, {"rotations": rotations})


def fitted(windows: Windows, train: Boolean, val: Boolean, spec: Published) -> tuple[PatternFit, Calibrated]:
    """The fit whose decisions order val pictures best, and its calibration; photographs as they came train nothing.

    Raises:
        SpecError: a class has no train picture, or no val picture.
    """
    known = windows.pictures["generator"].is_not_null().to_numpy()
    labels = windows.labels
    promised = ((REAL, "photographs", spec.false_alarms), (FAKE, "generated pictures", spec.missed))
    for label, what, share in promised:
        there = windows.pictures.filter(val & known & (labels == label))["image_id"].n_unique()
        if there < 1 / share:
            raise SpecError(
                f"{there} {what} with a window are val, expected at least {math.ceil(1 / share)}: of fewer none is a "
                f"share of {share:g}. Take more or larger pictures, fewer folds, or promise less"
            )
    rows = np.flatnonzero(val & known)
    weights = even_weights(windows.pictures, rows)
    best: tuple[float, PatternFit, Float] | None = None
    for fit in pattern_fits(windows, train & known, spec.strengths):
        decisions = fit.decisions(windows, val)
        auroc = _auroc(decisions[rows], labels[rows], weights)
        if best is None or auroc > best[0]:
            best = (auroc, fit, decisions)
    assert best is not None
    _, fit, decisions = best
    of_val = np.flatnonzero(val)
    distances = fit.distances(windows, val)
    return fit, Calibrated.on(windows.pictures[of_val], decisions[of_val], distances[of_val], spec)


def _auroc(decisions: Float, labels: Any, weights: Float) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, decisions, sample_weight=weights))


def _said(windows: Windows, tested: Boolean, fit: PatternFit, calibrated: Calibrated, rotation: int) -> pl.DataFrame:
    rows = np.flatnonzero(tested)
    log_odds = (calibrated.slope * fit.decisions(windows, tested) + calibrated.offset)[rows]
    familiarity = fit.distances(windows, tested)[rows]
    with np.errstate(invalid="ignore"):
        is_familiar = familiarity >= calibrated.familiar_from
        generated = is_familiar & (log_odds >= calibrated.generated_from)
        photograph = is_familiar & (log_odds < calibrated.photograph_below)
    answers = np.where(generated, GENERATED, np.where(photograph, PHOTOGRAPH, ""))
    return windows.pictures[rows].with_columns(
        pl.lit(rotation, pl.Int16).alias("rotation"),
        pl.Series("log_odds", log_odds).fill_nan(None),
        pl.Series("familiarity", familiarity).fill_nan(None),
        pl.Series("answer", answers).replace("", None),
    )
