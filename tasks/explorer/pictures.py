"""What every detector says of every tested picture, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from storage.digest import hash_fraction
from storage.objects import Ref, read_table
from storage.store import Store
from storage.tables import embedding_matrix, read_features
from tasks.evaluation.cells import read_scores
from tasks.evaluation.thresholds import threshold_per_picture, val_thresholds
from tasks.explorer.thumbnails import THUMBNAIL_SCHEMA
from tasks.spec.base import Spec
from tasks.spec.detectors import Role
from tasks.spec.views import Cell

# A picture of a source: photographs that stand against several generators are in several of them.
KEY = ("source", "image_id")
# So many pictures decide the directions of a projection.
_PROJECTED = 5_000

Float = npt.NDArray[np.float64]


class ShownScores(Spec):
    """A detector's scores in a cell, and those whose val pictures give its thresholds there."""

    detector: str
    title: str
    role: Role
    cell: Cell
    scores: Ref
    reference: Ref

    @property
    def key(self) -> tuple[str, str]:
        """The names of cell and detector."""
        return self.cell.name, self.detector


class ShownSource(Spec):
    """What rows are called, whose pictures they are, and these: `THUMBNAIL_SCHEMA`, shard by shard."""

    name: str
    of: str
    label: int
    thumbnails: tuple[Ref, ...]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one detector says in one cell: p(fake) (N,), NaN where it says nothing, and its thresholds by fold."""

    p_fake: Float
    thresholds: dict[int, float | None]

    def verdicts(self, folds: npt.NDArray[np.int64]) -> list[str | None]:
        """What it calls each picture, by its fold's threshold; None where there is no score or no threshold."""
        limits = threshold_per_picture(folds.tolist(), self.thresholds)
        unknown = np.isnan(self.p_fake) | np.isnan(limits)
        called = np.where(self.p_fake >= limits, "generated", "photograph").astype(object)
        called[unknown] = None
        found: list[str | None] = called.tolist()
        return found


@dataclass(frozen=True, eq=False)
class ShownPictures:
    """All tested pictures of a run, sorted by `KEY`, and what is known and said of them.

    Attributes:
        rows: source, image_id, fold, group (a number), then `THUMBNAIL_SCHEMA`'s other columns; one row per picture.
        answers: by the names of cell and detector.
        detectors: (name, title, role) of each.
    """

    rows: pl.DataFrame
    answers: Mapping[tuple[str, str], Answers]
    detectors: Sequence[tuple[str, str, Role]]

    @cached_property
    def folds(self) -> npt.NDArray[np.int64]:
        """The rotation that tests each picture (N,)."""
        folds: npt.NDArray[np.int64] = self.rows["fold"].to_numpy().astype(np.int64)
        return folds


def shown_pictures(store: Store, sources: Sequence[ShownSource], said: Sequence[ShownScores]) -> ShownPictures:
    """Every picture that any detector was asked about in a test, with what is known of it."""
    # The uncompressed cell's scores give the thresholds of a whole resolution: they are read once.
    refs = dict.fromkeys(ref for one in said for ref in (one.scores, one.reference))
    read = {ref: read_scores(store, ref) for ref in refs}
    tested = {one.key: read[one.scores].filter(pl.col("split") == "test") for one in said}
    asked = [frame.select(*KEY, pl.col("fold").cast(pl.Int32)) for frame in tested.values()]
    rows = pl.concat(asked).unique(KEY, keep="any").sort(KEY) if asked else pl.DataFrame()
    rows = rows.join(_facts(store, sources), on=KEY, how="left", maintain_order="left")
    rows = rows.with_columns(group=pl.col("group_id").rank("dense").cast(pl.Int32) - 1)
    answers = {}
    for one in said:
        known = rows.select(KEY).join(tested[one.key].select(*KEY, "p_fake"), on=KEY, how="left", maintain_order="left")
        reference = read[one.reference].drop_nulls("p_fake")
        p_fake = known["p_fake"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        answers[one.key] = Answers(p_fake, dict(sorted(val_thresholds(reference).items())))
    detectors = dict.fromkeys((one.detector, one.title, one.role) for one in said)
    return ShownPictures(rows, answers, tuple(detectors))


def _facts(store: Store, sources: Sequence[ShownSource]) -> pl.DataFrame:
    """`THUMBNAIL_SCHEMA` of all sources, by `KEY`."""
    frames = [pl.DataFrame(THUMBNAIL_SCHEMA.empty_table()).with_columns(source=pl.lit("", pl.String))]
    read: dict[tuple[Ref, ...], pl.DataFrame] = {}
    for source in sources:
        if source.thumbnails not in read:
            shards = [pl.DataFrame(read_table(store, ref)) for ref in source.thumbnails]
            read[source.thumbnails] = pl.concat(shards) if shards else frames[0].drop("source")
        frames.append(read[source.thumbnails].with_columns(source=pl.lit(source.name)))
    return pl.concat(frames)


def projection(store: Store, pictures: ShownPictures, features: Sequence[Ref], seed: int) -> Float:
    """The two directions in which features differ most, of each picture: float64 (N, 2); NaN where it has no features.

    Principal components of at most 5,000 pictures (and of all their versions), drawn by hash.
    """
    places = {key: place for place, key in enumerate(pictures.rows.select(KEY).iter_rows())}
    found = np.full((len(places), 2), np.nan)
    ids = sorted(set(pictures.rows["image_id"]), key=lambda one: hash_fraction("projection", seed, one))
    drawn = set(ids[:_PROJECTED])

    def described(ref: Ref) -> tuple[pl.DataFrame, npt.NDArray[np.float32]]:
        frame = read_features(store, [ref])
        return frame.select(KEY), embedding_matrix(frame)

    some = [matrix[keys["image_id"].is_in(drawn).to_numpy()] for keys, matrix in map(described, features)]
    if sum(map(len, some)) < 3:
        return found
    from sklearn.decomposition import PCA

    fitted = PCA(n_components=2, svd_solver="randomized", random_state=seed).fit(np.concatenate(some))
    for keys, matrix in map(described, features):
        rows = np.array([places.get(key, -1) for key in keys.iter_rows()], dtype=np.int64)
        if np.any(rows >= 0):
            found[rows[rows >= 0]] = fitted.transform(matrix[rows >= 0])
    return found
