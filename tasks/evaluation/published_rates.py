"""How often a published network was wrong, and how often it gave no answer: by delivery, generator and photographs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from storage.tables import FAKE, REAL
from tasks.evaluation.intervals import (
    MINIMUM_GROUPS,
    TOO_FEW_GROUPS,
    Boolean,
    Float,
    Resampled,
    Weights,
    group_weights,
    share_of_resamples,
)
from tasks.networks.published_scores import GENERATED, PHOTOGRAPH

# Of a distribution, outside of either end of an interval of 95 %.
_TAIL = 0.025

# A share with its 95 % interval, both in 0..1 and null where undefined, and of how many pictures it is.
Rate = dict[str, float | int | None]


@dataclass(frozen=True, eq=False)
class Answers:
    """What was said of test pictures in one delivery, and the bootstrap's draws of their groups."""

    rows: pl.DataFrame
    weights: Weights

    @classmethod
    def of(cls, rows: pl.DataFrame, resamples: int, seed: int) -> Answers:
        """Rows of `published_scores`; every group of them is drawn, in whatever delivery."""
        return cls(rows, group_weights(rows["group_id"].to_numpy(), resamples, seed))

    def where(self, *conditions: pl.Expr) -> Answers:
        """Some of the rows, with the same draws."""
        return Answers(self.rows.filter(*conditions), self.weights)

    def rate(self, answer: str | None) -> Rate:
        """The share with this answer, every generator (or generator's history) weighted alike."""
        return as_rate(self._share(answer), self.pictures)

    def rate_by_generator(self, answer: str) -> Rate:
        """The mean share over generators, between the smallest and the largest: what to expect of another generator.

        Draws of pictures would say how sure this is of these generators, and nothing of others.
        """
        of_each = [self.where(pl.col("generator") == one).rate(answer)["value"] for one in self._generators]
        shares = [share for share in of_each if share is not None]
        if not shares:
            return {"value": None, "low": None, "high": None, "n": 0}
        return {"value": float(np.mean(shares)), "low": min(shares), "high": max(shares), "n": self.pictures}

    @property
    def _generators(self) -> list[str]:
        return self.rows["generator"].drop_nulls().unique().sort().to_list()

    @property
    def pictures(self) -> int:
        """How many there are; a photograph with several histories is one."""
        names = pl.struct(pl.coalesce("photographs", "source"), "image_id")
        return int(self.rows.select(names.n_unique()).item()) if len(self.rows) else 0

    def _share(self, answer: str | None) -> Resampled:
        said = self.rows["answer"]
        part = (said.is_null() if answer is None else (said == answer).fill_null(value=False)).to_numpy()
        groups = self.rows["group_id"].to_numpy()
        strata = self.rows["generator"].fill_null("").to_numpy()
        if not len(part):
            return Resampled(None, None, 0, "no test pictures")
        value = float(np.mean([part[strata == one].mean() for one in np.unique(strata)]))
        count = len(np.unique(groups))
        if count < MINIMUM_GROUPS:
            return Resampled(value, None, count, TOO_FEW_GROUPS)
        return Resampled(value, _mean_of_strata(part, strata, groups, self.weights), count)

    def right_of_answered(self) -> tuple[Rate, Rate]:
        """The share that is answered, and the share of these that is right; both classes weighted alike."""
        photographs, fakes = (self.where(pl.col("label") == label) for label in (REAL, FAKE))
        said = {
            (side, answer): answers._share(answer)
            for side, answers in (("real", photographs), ("fake", fakes))
            for answer in (PHOTOGRAPH, GENERATED)
        }
        right = _sum(said["real", PHOTOGRAPH], said["fake", GENERATED])
        answered = _sum(right, _sum(said["real", GENERATED], said["fake", PHOTOGRAPH]))
        return as_rate(_scaled(answered, 0.5), self.pictures), as_rate(_ratio(right, answered), self.pictures)


def as_rate(share: Resampled, n: int) -> Rate:
    """A share as cards have it."""
    found = share.measured()
    low, high = found.low, found.high
    # Where all pictures are alike every resample is, too: the bound of Clopper & Pearson 1934 over groups.
    if low is not None and low == high == 0:
        high = 1 - (_TAIL ** (1 / share.n_groups))
    if high is not None and low == high == 1:
        low = _TAIL ** (1 / share.n_groups)
    return {"value": found.value, "low": low, "high": high, "n": n}


def delivery_rates(known: Answers, unknown: Answers) -> dict[str, Any]:
    """What a card says of one delivery; `unknown` pictures are of generators that were left out of the training."""
    matched = known.where(pl.col("generator").is_not_null())
    photographs, fakes = (matched.where(pl.col("label") == label) for label in (REAL, FAKE))
    answered, right = matched.right_of_answered()
    as_came = known.where(pl.col("generator").is_null())
    # Who asks has a photograph as it came.
    asked = as_came if as_came.pictures else photographs
    left_out = unknown.where(pl.col("label") == FAKE)
    return {
        "false_alarms": asked.rate(GENERATED),
        "false_alarms_matched": photographs.rate(GENERATED),
        "missed": fakes.rate(PHOTOGRAPH),
        "photographs_undecided": asked.rate(None),
        "generated_undecided": fakes.rate(None),
        "missed_unknown": left_out.rate_by_generator(PHOTOGRAPH),
        "found_unknown": left_out.rate_by_generator(GENERATED),
        "answered": answered,
        "right": right,
    }


def generator_rates(known: Answers, unknown: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """Of every generator: how it was answered when it was known, and by networks that had not seen its family."""
    found = []
    for (name,), rows in known.rows.filter(pl.col("label") == FAKE).group_by("generator", maintain_order=True):
        of_one = Answers(rows, known.weights)
        entry: dict[str, Any] = {"generator": name, "pictures": of_one.pictures, "known": _both(of_one)}
        for family, answers in unknown.items():
            alone = answers.where(pl.col("label") == FAKE, pl.col("generator") == name)
            if alone.pictures:
                entry |= {"left_out_with": family, "unknown": _both(alone)}
        found.append(entry)
    return found


def photograph_rates(known: Answers) -> list[dict[str, Any]]:
    """Of every source of photographs: as they came, and with the histories of the generators' files."""
    found = []
    photographs = known.rows.filter(pl.col("label") == REAL)
    for (name,), rows in photographs.group_by("photographs", maintain_order=True):
        as_came = pl.col("generator").is_null()
        for history, chosen in (("as-came", as_came), ("matched", ~as_came)):
            of_one = Answers(rows.filter(chosen), known.weights)
            if of_one.pictures:
                found.append({"photographs": name, "history": history, "pictures": of_one.pictures, **_both(of_one)})
    return found


def _both(answers: Answers) -> dict[str, Rate]:
    return {GENERATED: answers.rate(GENERATED), PHOTOGRAPH: answers.rate(PHOTOGRAPH)}


def _mean_of_strata(part: Boolean, strata: Any, groups: Any, weights: Weights) -> Float:
    """(R,): the mean over strata of each one's share; a stratum without a picture in a resample is passed over."""
    shares = np.stack([share_of_resamples(part, strata == one, groups, weights) for one in np.unique(strata)])
    there = ~np.isnan(shares)
    with np.errstate(invalid="ignore"):
        means: Float = np.where(there, shares, 0).sum(axis=0) / there.sum(axis=0)
    return means


def _sum(one: Resampled, other: Resampled) -> Resampled:
    if one.value is None or other.value is None:
        return Resampled(None, None, 0, one.reason or other.reason)
    samples = None if one.samples is None or other.samples is None else one.samples + other.samples
    return Resampled(one.value + other.value, samples, one.n_groups, one.reason or other.reason)


def _scaled(one: Resampled, factor: float) -> Resampled:
    if one.value is None:
        return one
    samples = None if one.samples is None else one.samples * factor
    return Resampled(one.value * factor, samples, one.n_groups, one.reason)


def _ratio(one: Resampled, other: Resampled) -> Resampled:
    if one.value is None or not other.value:
        return Resampled(None, None, 0, "nothing is answered")
    samples = None
    if one.samples is not None and other.samples is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            samples = one.samples / other.samples
    return Resampled(one.value / other.value, samples, one.n_groups, one.reason)
