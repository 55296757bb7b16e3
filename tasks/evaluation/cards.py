"""The card of a network: what a person who runs it must know, thresholds and error rates included."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from storage.objects import Ref, notes_of, read_part, read_table
from storage.tables import FAKE, FAMILIARITY, REAL
from tasks.evaluation.cells import read_scores
from tasks.evaluation.intervals import group_weights, share
from tasks.evaluation.rejection_metrics import threshold_keeping
from tasks.evaluation.thresholds import threshold_per_picture, val_thresholds
from tasks.networks.exported import CARD
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Spec
from tasks.spec.detectors import Rejection
from tasks.spec.views import Cell

# Of cards of networks that always answer: versions of telltale that know no other read them, too.
FORMAT = 1

# A card's rotation: with folds, several networks were tested out of fold, and one of them is given away.
PUBLISHED_ROTATION = 0


def fake_thresholds(cells: Sequence[Cell], scores: Sequence[pl.DataFrame]) -> dict[str, float]:
    """Per resolution the threshold on p(fake) of the published rotation, from its uncompressed val pictures."""
    found = {
        str(cell.resolution): val_thresholds(frame).get(PUBLISHED_ROTATION)
        for cell, frame in zip(cells, scores, strict=True)
        if cell.perturbation is None
    }
    return {resolution: threshold for resolution, threshold in found.items() if threshold is not None}


def error_rates(
    cell: Cell, scores: pl.DataFrame, thresholds: Mapping[int, float | None], seed: int, resamples: int
) -> dict[str, Any]:
    """How often a network was wrong in a cell, every test picture once, at each rotation's own threshold.

    A rotation without one, as its val pictures are of one class, calls fake what is at or above one half.
    A cell is its name, its resolution, and either `jpeg_quality` (null: nothing happened to the pictures) or, where
    something else happened, `perturbation`. `false_alarms` is the share of photographs called generated, `missed` that
    of generated pictures called photographs, each with a 95 % interval (null where there are too few groups) and its n.
    """
    test = scores.filter(pl.col("split") == "test").sort("image_id", "source")
    limits = threshold_per_picture(test["fold"].to_list(), thresholds)
    called_fake = test["p_fake"].to_numpy() >= np.where(np.isnan(limits), 0.5, limits)
    label = test["label"].to_numpy()
    groups = test["group_id"].to_numpy()

    def rate(wrong: np.ndarray, of: np.ndarray) -> dict[str, Any]:
        found = share(wrong, of, groups, group_weights(groups[of], resamples, seed)).measured()
        return {"value": found.value, "low": found.low, "high": found.high, "n": int(of.sum())}

    return {
        "cell": cell.name,
        **cell.model_dump(mode="json"),
        "resolution": str(cell.resolution),
        "false_alarms": rate(called_fake, label == REAL),
        "missed": rate(~called_fake, label == FAKE),
    }


class ScoredCell(Spec):
    """A network's scores in a cell."""

    cell: Cell
    scores: Ref


@step("card", version=3, label=lambda *, name, **_: name, libraries=("numpy",))
def complete_card(
    run: StepRun,
    *,
    name: str,
    exported: Ref,
    cells: tuple[ScoredCell, ...],
    rejection: Rejection,
    sources: dict[str, str],
    canonical_side: int,
    seed: int,
    resamples: int,
) -> Output:
    """The exported card of one network with its thresholds, its rejection rule and its error rates in every cell.

    The first cell is that of training, whose val pictures give the rejection's threshold. `sources` says what each
    evaluated source is, in words; `canonical_side` is that of native pictures.
    """
    frames = {one.cell: read_scores(run.store, one.scores) for one in cells}
    by_resolution = {
        str(cell.resolution): val_thresholds(frame) for cell, frame in frames.items() if cell.perturbation is None
    }
    card = json.loads(read_part(run.store, exported, CARD))
    card |= {
        "format": FORMAT,
        "name": name,
        "decision": {
            "rule": "familiarity below its threshold: unknown source; else p(fake) = 1 - p(real) at or above its "
            "threshold: generated, by the generator with the highest probability; else a photograph",
            "fake_thresholds": fake_thresholds(list(frames), list(frames.values())),
            "rejection": {
                "score": rejection.score,
                "threshold": _familiar_enough(run, cells[0].scores, rejection),
                "kept": rejection.kept,
            },
        },
        "error_rates": [
            error_rates(cell, frame, by_resolution[str(cell.resolution)], seed, resamples)
            for cell, frame in frames.items()
        ],
        "sources": sources,
        "canonical_side": canonical_side,
        "evaluation": notes_of(run.store, exported),
    }
    return Output({CARD: json.dumps(card, sort_keys=True, allow_nan=False).encode()}, {"name": name})


def _familiar_enough(run: StepRun, scores: Ref, rejection: Rejection) -> float:
    """The threshold of the published rotation: `rejection.kept` of its val pictures lie at or above it."""
    known = pl.from_arrow(read_table(run.store, scores, name=FAMILIARITY))
    assert isinstance(known, pl.DataFrame)
    val = known.filter((pl.col("split") == "val") & (pl.col("fold") == PUBLISHED_ROTATION))
    return float(threshold_keeping(val[rejection.score.replace("-", "_")].to_numpy(), rejection.kept))
