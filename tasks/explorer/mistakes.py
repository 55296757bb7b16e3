"""Which pictures deserve a closer look than there is time for with all of them: the surest mistakes."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from storage.objects import Ref
from storage.store import Store
from storage.tables import FAKE, REAL
from tasks.evaluation.cells import read_scores
from tasks.evaluation.thresholds import threshold_per_picture, val_thresholds
from tasks.explorer.pictures import KEY, ShownScores


@dataclass(frozen=True)
class Mistaken:
    """A picture that detectors were wrong about, the rotation that tests it, and those among whose surest it is."""

    source: str
    image_id: str
    fold: int
    detectors: tuple[str, ...]


def surest_mistakes(store: Store, said: Sequence[ShownScores], most: int) -> tuple[Mistaken, ...]:
    """At most so many pictures: of every detector in every cell the surest false alarm and the surest miss, then the
    second ones, and so on.

    Sure is who is far from the threshold of the picture's fold. Probes have no part in it.
    """

    @functools.cache
    def thresholds(reference: Ref) -> dict[int, float | None]:
        return val_thresholds(read_scores(store, reference).drop_nulls("p_fake"))

    lists = []
    for one in said:
        if one.role == "detector":
            wrong = _mistakes(read_scores(store, one.scores), thresholds(one.reference))
            lists += [[(one.detector, *row) for row in wrong[label].head(most).iter_rows()] for label in (REAL, FAKE)]
    found: dict[tuple[str, str], tuple[int, dict[str, None]]] = {}
    for detector, source, image_id, fold in _in_turn(lists):
        if len(found) == most and (source, image_id) not in found:
            break
        found.setdefault((source, image_id), (fold, {}))[1][detector] = None
    return tuple(Mistaken(*key, fold, tuple(detectors)) for key, (fold, detectors) in found.items())


def _in_turn(
    lists: Sequence[Sequence[tuple[str, str, str, int]]],
) -> Iterator[tuple[str, str, str, int]]:
    """The first of every list, then the second ones."""
    for rank in itertools.zip_longest(*lists):
        yield from (one for one in rank if one is not None)


def _mistakes(scores: pl.DataFrame, thresholds: dict[int, float | None]) -> dict[int, pl.DataFrame]:
    """The tested pictures of each class that stand on the wrong side of their threshold, the surest first."""
    tested = scores.filter(pl.col("split") == "test").drop_nulls("p_fake")
    limits = pl.Series("limit", threshold_per_picture(tested["fold"].to_list(), thresholds), pl.Float64)
    beyond = tested.select(*KEY, "fold", "label", beyond=pl.col("p_fake") - limits).drop_nans("beyond")
    wrong = beyond.filter((pl.col("beyond") >= 0) != (pl.col("label") == FAKE))
    ordered = wrong.sort(pl.col("beyond").abs(), *KEY, descending=[True, False, False])
    return {label: ordered.filter(pl.col("label") == label).select(*KEY, "fold") for label in (REAL, FAKE)}
