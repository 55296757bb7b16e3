"""Fitting a published network's linear decision, and the thresholds between which it gives no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from storage.errors import SpecError
from storage.objects import read_table
from storage.store import Store
from storage.tables import FAKE, FEATURE_COLUMNS, REAL, embedding_matrix, read_features
from tasks.data.splits import role
from tasks.detectors.discriminant import shrunken_discriminants
from tasks.detectors.svm import fit_platt
from tasks.networks.delivered_windows import TOO_SMALL, DeliveredPictures
from tasks.spec.published import Published
from tasks.spec.splits import Splits

Float = npt.NDArray[np.float64]
Integer = npt.NDArray[np.int64]
Boolean = npt.NDArray[np.bool_]

Strictest = Callable[[list[float]], float]

# What tells kinds of pictures apart: `delivery` and `generator` as of `DeliveredPictures`, and the label.
KIND = ("delivery", "label", "generator")

_CHUNK_ROWS = 1_000


@dataclass(frozen=True, eq=False)
class Windows:
    """All windows of all deliveries: `X` (N, D), and the row of `pictures` that each is of (N,), ascending.

    `pictures` has one row per picture and delivery: `FEATURE_COLUMNS`, `delivery`, `photographs`, `generator`. Those
    that are too small have no window.
    """

    pictures: pl.DataFrame
    X: npt.NDArray[np.float32]
    of: Integer

    @classmethod
    def read(cls, store: Store, delivered: Sequence[DeliveredPictures]) -> Windows:
        """Read shards of windows, in an order that does not depend on theirs."""
        pictures, rows, first = [], [], 0
        ordered = sorted(
            delivered, key=lambda one: (one.delivery, one.photographs or "", one.generator or "", one.windows.digest)
        )
        for one in ordered:
            frame = read_features(store, [one.windows])
            small = pl.from_arrow(read_table(store, one.windows, name=TOO_SMALL))
            assert isinstance(small, pl.DataFrame)
            identity = frame.select(FEATURE_COLUMNS)
            begins = (identity["image_id"] != identity["image_id"].shift()).fill_null(value=True)
            kind = [
                pl.lit(getattr(one, name), pl.String).alias(name) for name in ("delivery", "photographs", "generator")
            ]
            pictures.append(pl.concat([identity.filter(begins), small.cast(identity.schema)]).with_columns(kind))
            rows.append((embedding_matrix(frame), first + begins.cast(pl.Int64).cum_sum().to_numpy() - 1))
            first += len(pictures[-1])
        return cls(pl.concat(pictures), np.concatenate([X for X, _ in rows]), np.concatenate([of for _, of in rows]))

    def roles(self, rotation: int, splits: Splits) -> npt.NDArray[np.str_]:
        """What each picture is in a rotation: train, val or test (P,)."""
        places = self.pictures.select("split", "fold").iter_rows(named=True)
        return np.array([role(place, rotation, splits) for place in places], dtype=np.str_)

    @property
    def labels(self) -> Integer:
        """Of pictures: (P,)."""
        labels: Integer = self.pictures["label"].to_numpy().astype(np.int64)
        return labels


@dataclass(frozen=True, eq=False)
class PatternFit:
    """A decision on features, (D,) and intercept, before it is calibrated; the means of both classes (2, D)."""

    strength: float
    coef: Float
    intercept: float
    class_means: Float

    def decisions(self, windows: Windows, wanted: Boolean) -> Float:
        """The mean decision of each wanted picture's windows (P,); NaN where it has none, or is not wanted."""
        return _by_picture(windows, wanted, lambda X: X @ self.coef + self.intercept)

    def distances(self, windows: Windows, wanted: Boolean) -> Float:
        """The mean, over a picture's windows, of minus the squared distance to the nearer class mean (P,)."""

        def nearest(X: Float) -> Float:
            squared: Float = np.min([((X - mean) ** 2).sum(axis=1) for mean in self.class_means], axis=0)
            return -squared

        return _by_picture(windows, wanted, nearest)


def pattern_fits(windows: Windows, train: Boolean, strengths: Sequence[float]) -> Iterator[PatternFit]:
    """The discriminant of the train pictures' windows at each strength of shrinkage.

    Deliveries, classes and, within each class, generators count alike, however many pictures there are of each.

    Raises:
        SpecError: a class has no window.
    """
    rows = train[windows.of]
    of = windows.of[rows]
    X, y = windows.X[rows], windows.labels[of]
    weights = even_weights(windows.pictures, of)
    for label, what in ((REAL, "photograph"), (FAKE, "generated picture")):
        if not (y == label).any():
            raise SpecError(f"no {what} that is trained on has a window")
    means = np.stack([np.average(X[y == label], axis=0, weights=weights[y == label]) for label in (REAL, FAKE)])
    discriminant = shrunken_discriminants(X, y, weights)
    for strength in strengths:
        coef, intercept = discriminant(strength)
        yield PatternFit(strength, coef, intercept, means)


def even_weights(pictures: pl.DataFrame, rows: Integer) -> Float:
    """A weight for each of some rows of pictures (N,), so that kinds of `KIND` weigh alike and all sum to N."""
    kinds = pictures.select(pl.struct(KIND).rank("dense").alias("kind"))["kind"].to_numpy()[rows]
    labels, deliveries = (pictures[name].to_numpy()[rows] for name in ("label", "delivery"))
    weights = 1 / np.bincount(kinds)[kinds]
    for delivery in np.unique(deliveries):
        for label in (REAL, FAKE):
            chosen = (deliveries == delivery) & (labels == label)
            if chosen.any():
                weights[chosen] /= weights[chosen].sum()
    scaled: Float = weights * len(rows) / weights.sum()
    return scaled


@dataclass(frozen=True)
class Calibrated:
    """What a rotation's val pictures decide: log odds = slope * decision + offset, and where answers begin.

    `generated_from` and `photograph_below` are log odds, `familiar_from` a distance.
    """

    slope: float
    offset: float
    generated_from: float
    photograph_below: float
    familiar_from: float

    @classmethod
    def on(cls, pictures: pl.DataFrame, decisions: Float, distances: Float, spec: Published) -> Calibrated:
        """Calibrate on val pictures of all deliveries (P,), all of which have windows.

        Photographs as they came count for the threshold of false alarms, not for the odds: no fake has their history.
        """
        known = pictures["generator"].is_not_null().to_numpy()
        labels = pictures["label"].to_numpy().astype(np.int64)
        rows = np.flatnonzero(known)
        slope, offset = fit_platt(decisions[rows], labels[rows], even_weights(pictures, rows))
        log_odds = slope * decisions + offset
        # Above that photograph, which itself may be called one.
        generated_from = float(
            np.nextafter(_of_strictest(pictures, log_odds, labels == REAL, 1 - spec.false_alarms, max), np.inf)
        )
        missed_below = _of_strictest(pictures, log_odds, known & (labels == FAKE), spec.missed, min)
        familiar = _of_strictest(pictures, distances, known, 1 - spec.kept, min)
        return cls(slope, offset, generated_from, min(missed_below, generated_from), familiar)


def _of_strictest(pictures: pl.DataFrame, values: Float, among: Boolean, share: float, strictest: Strictest) -> float:
    """A quantile of values, generators weighted alike: that of the delivery and history where it is the strictest."""
    with_history = pictures["generator"].is_not_null().to_numpy()
    deliveries = pictures["delivery"].to_numpy()
    found = []
    for delivery in np.unique(deliveries):
        for history in (True, False):
            rows = np.flatnonzero(among & (deliveries == delivery) & (with_history == history))
            if len(rows):
                found.append(_weighted_quantile(values[rows], even_weights(pictures, rows), share))
    return strictest(found)


def _weighted_quantile(values: Float, weights: Float, share: float) -> float:
    """The smallest of the values at or below which lies this share of the weight."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, share)), len(values) - 1)])


def _by_picture(windows: Windows, wanted: Boolean, of_rows: Callable[[Float], Float]) -> Float:
    """The mean over windows of what is computed of features in float64; NaN where there are none."""
    sums, counts = np.zeros(len(wanted)), np.zeros(len(wanted), np.int64)
    rows = np.flatnonzero(wanted[windows.of])
    for start in range(0, len(rows), _CHUNK_ROWS):
        chunk = rows[start : start + _CHUNK_ROWS]
        values = of_rows(windows.X[chunk].astype(np.float64))
        np.add.at(sums, windows.of[chunk], values)
        np.add.at(counts, windows.of[chunk], 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
