"""Which detectors differ in a cell, by more than chance, and what its perturbation costs each of them.

Both are asked on the same pictures: those of a mix that both have scored. Each result is a difference with its own p;
a table that shows several adjusts them (`tasks.evaluation.significance.holm`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from storage.objects import ROWS, Ref
from storage.store import Store
from storage.tables import PAIR_SCHEMA, RANK_SCHEMA
from tasks.data.perturbations.kinds import NONE
from tasks.evaluation.cells import drawn_pictures, read_scores, why_unranked
from tasks.evaluation.classification import ScoredImages, few_groups_of_a_class, resampled_metrics
from tasks.evaluation.intervals import Resampled, Weights, group_weights
from tasks.evaluation.significance import Difference, accuracy_difference, auroc_difference, rank_interval, ranked
from tasks.evaluation.thresholds import threshold_per_picture, val_thresholds
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import Spec
from tasks.spec.detectors import Fit
from tasks.spec.experiment import Mix
from tasks.spec.views import Cell

RANKS = "ranks.parquet"
AUROC, ACCURACY = "auroc", "accuracy"
# Up to so many detectors are compared each with each; more of them each with the best alone.
ALL_PAIRS = 6

_PICTURE = ("image_id", "source")

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Compared:
    """Scores of a detector in a cell, in SCORE_SCHEMA: those that give its thresholds, and the uncompressed ones.

    `uncompressed` is of the same resolution; None where there is none, or the cell is uncompressed itself.
    """

    scores: pl.DataFrame
    reference: pl.DataFrame
    uncompressed: pl.DataFrame | None = None


def compare_in_cell(
    detectors: Mapping[str, Compared], mixes: Sequence[Mix], cell: Cell, *, seed: int, resamples: int
) -> tuple[list[Row], list[Row]]:
    """Paired differences and ranks of some detectors in one cell.

    Differences are of AUROC, and of accuracy at each fold's val threshold. Of two detectors it is the one of lower
    AUROC minus the other: each with each, or each with the best where they are more than six. Of one detector it is the
    cell minus the uncompressed one. Ranks are those of the AUROCs, with percentiles of the ranks in resamples.

    Returns:
        Rows in PAIR_SCHEMA, and rows in RANK_SCHEMA.
    """
    thresholds = {name: val_thresholds(one.reference.drop_nulls("p_fake")) for name, one in detectors.items()}
    pairs: list[Row] = []
    ranks: list[Row] = []
    for mix in mixes:
        place = {"resolution": str(cell.resolution), "perturbation": cell.perturbation_name, "mix": mix.name}
        answers = {name: Answers.of(one.scores, thresholds[name], mix, seed) for name, one in detectors.items()}
        groups = {group for one in answers.values() for group in one.asked["group_id"]}
        weights = group_weights(sorted(groups), resamples, seed)
        aurocs = {name: one.auroc(weights) for name, one in answers.items()}
        order = _best_first(aurocs)
        for name, rank in zip(aurocs, ranked(list(aurocs.values())), strict=True):
            row = {"detector": name, "best": name in order[:1], **_renamed(rank), "n_groups": rank.n_groups}
            ranks.append(place | row)
        for better, worse in _paired(order):
            names = {"detector": worse, "than_detector": better, "than_perturbation": cell.perturbation_name}
            pairs += [place | names | row for row in _differences(answers[worse], answers[better], weights)]
        for name, one in detectors.items():
            if one.uncompressed is not None:
                before = Answers.of(one.uncompressed, thresholds[name], mix, seed)
                names = {"detector": name, "than_detector": name, "than_perturbation": NONE}
                pairs += [place | names | row for row in _differences(answers[name], before, weights)]
    return pairs, ranks


@dataclass(frozen=True, eq=False)
class Answers:
    """What a detector says of a mix's drawn pictures in one cell.

    `asked` has image_id, source, group_id, label, p_fake (null where it has no score) and correct (null where it has
    no score or its fold has no threshold).
    """

    asked: pl.DataFrame
    reason: str  # why it has no AUROC; else empty

    @classmethod
    def of(cls, scores: pl.DataFrame, thresholds: Mapping[int, float | None], mix: Mix, seed: int) -> Answers:
        test = scores.filter(pl.col("split") == "test").sort(*_PICTURE)
        drawn = drawn_pictures(test, mix.real, mix.fakes, seed, mix.versions).with_columns(
            pl.col("p_fake").fill_nan(None)
        )
        limits = pl.Series(threshold_per_picture(drawn["fold"].to_list(), thresholds)).fill_nan(None)
        called_fake = drawn["p_fake"] >= limits
        asked = drawn.select(*_PICTURE, "group_id", "label", "p_fake").with_columns(
            correct=called_fake == (drawn["label"] == 1)
        )
        return cls(asked, why_unranked(drawn, drawn.drop_nulls("p_fake")))

    def auroc(self, weights: Weights) -> Resampled:
        """Of the pictures that it scored; without samples where photographs or fakes are of too few groups."""
        scored = self.asked.drop_nulls("p_fake")
        label, groups = scored["label"].to_numpy(), scored["group_id"].to_numpy()
        if self.reason:
            return Resampled(None, None, len(np.unique(groups)), self.reason)
        # AUROC needs no decision.
        images = ScoredImages(label, scored["p_fake"].to_numpy(), np.zeros(len(scored), dtype=bool), groups)
        found = resampled_metrics(images, *weights, [AUROC])[AUROC]
        few = few_groups_of_a_class(label, groups)
        return Resampled(found.value, None, found.n_groups, few) if few else found


def _best_first(aurocs: Mapping[str, Resampled]) -> list[str]:
    """Those that have an AUROC; the first given of equal ones first."""
    known = {name: one.value for name, one in aurocs.items() if one.value is not None}
    return sorted(known, key=lambda name: -known[name])


def _paired(order: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of which the first is not worse."""
    if len(order) <= ALL_PAIRS:
        return itertools.combinations(order, 2)
    return ((order[0], other) for other in order[1:])


def _differences(first: Answers, second: Answers, weights: Weights) -> Iterator[Row]:
    """Of AUROC and accuracy, on the pictures that both scored."""
    everything = first.asked.join(second.asked, on=list(_PICTURE), how="full", coalesce=True, suffix="_other")
    both = everything.drop_nulls(["p_fake", "p_fake_other"]).sort(*_PICTURE)
    label, groups = both["label"].to_numpy(), both["group_id"].to_numpy()
    counts = {
        "n_real": int(np.sum(label == 0)),
        "n_fake": int(np.sum(label == 1)),
        "n_left_out": len(everything) - len(both),
        "n_groups": len(np.unique(groups)),
    }
    reason = first.reason or second.reason
    if reason:
        yield from (_row(metric, Difference(None, reason=reason), counts) for metric in (AUROC, ACCURACY))
        return
    scores = both["p_fake"].to_numpy(), both["p_fake_other"].to_numpy()
    yield _row(AUROC, auroc_difference(label, *scores, groups), counts)
    if both["correct"].has_nulls() or both["correct_other"].has_nulls():
        found = Difference(None, reason="no val pictures of both classes to set the threshold by")
    else:
        found = accuracy_difference(both["correct"].to_numpy(), both["correct_other"].to_numpy(), groups, weights)
        if few := few_groups_of_a_class(label, groups):
            found = Difference(found.value, reason=few)
    yield _row(ACCURACY, found, counts)


def _row(metric: str, found: Difference, counts: Row) -> Row:
    row = asdict(found)
    return {"metric": metric, "difference": row.pop("value"), **row, "reason": found.reason or None, **counts}


def _renamed(rank: Resampled) -> Row:
    found = rank_interval(rank)
    return {"rank": found.value, "rank_low": found.low, "rank_high": found.high, "reason": found.reason}


class ComparedDetector(Spec):
    """A detector's fit and its scores in a cell, those that give its thresholds, and the uncompressed ones."""

    fit: Fit
    scores: Ref
    reference: Ref
    uncompressed: Ref | None = None


@step("compare-detectors", version=2, label=lambda *, cell, **_: cell.name, libraries=("numpy", "scipy"))
def compare_detectors(
    run: StepRun,
    *,
    cell: Cell,
    mixes: tuple[Mix, ...],
    detectors: tuple[ComparedDetector, ...],
    seed: int,
    resamples: int,
) -> Output:
    """How detectors differ in one cell, what its perturbation costs each of them, and how they rank."""
    frames = {
        one.fit.detector: Compared(
            read_scores(run.store, one.scores),
            read_scores(run.store, one.reference),
            _read(run.store, one.uncompressed),
        )
        for one in detectors
    }
    pairs, ranks = compare_in_cell(frames, mixes, cell, seed=seed, resamples=resamples)
    return Output(
        {
            ROWS: pa.Table.from_pylist(pairs, schema=PAIR_SCHEMA),
            RANKS: pa.Table.from_pylist(ranks, schema=RANK_SCHEMA),
        }
    )


def _read(store: Store, ref: Ref | None) -> pl.DataFrame | None:
    return None if ref is None else read_scores(store, ref)
