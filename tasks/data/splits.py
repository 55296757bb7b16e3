"""Splits and folds belong to groups: everything derived from a group inherits its split."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.digest import hash_fraction
from tasks.spec.splits import FixedSplits, Folds, Splits

Place = tuple[str | None, int | None]  # (split, fold): one of them is None, or both of what takes no part
PlaceCodes = npt.NDArray[np.int8]

# Columns hold places as indices of `PLACES`: int8. Folds are as many as a specification may have.
PLACES: tuple[Place, ...] = (
    (None, None),
    *((split, None) for split in ("train", "val", "test")),
    *((None, fold) for fold in range(20)),
)
LEFT_OUT, TRAIN, VAL, TEST, FIRST_FOLD = range(5)
CODE_OF_SPLIT = {"train": TRAIN, "val": VAL, "test": TEST}

_NAMES_AT_ONCE = 100_000


def place_groups(names: pa.LargeStringArray, splits: Splits, seed: int) -> PlaceCodes:
    """Give every group of one source a split or a fold by the rank of its hash; of equal hashes by that of its name.

    Ranks rather than hash ranges keep the shares exact in small experiments. Named groups of fixed splits keep their
    names' split; ranges of images are the caller's (they belong to images, not to groups).

    Args:
        names: of the G groups, each once, ascending.
        splits: fixed splits or folds.
        seed: decides the hashes.

    Returns:
        Indices of `PLACES`, int8 (G,).
    """
    places = np.zeros(len(names), dtype=np.int8)
    # A stable order leaves equal hashes in that of the names.
    ranked = np.argsort(_hash_fractions(names, seed), kind="stable")
    if isinstance(splits, Folds):
        places[ranked] = FIRST_FOLD + np.arange(len(names)) % splits.count
        return places
    for name, row in rows_named(names, splits.groups).items():
        places[row] = CODE_OF_SPLIT[splits.groups[name]]
    free = ranked[places[ranked] == LEFT_OUT]
    shares = (splits.train, splits.train + splits.val)
    ends = [bisect_left(range(len(free)), share, key=lambda rank: (rank + 0.5) / len(free)) for share in shares]
    for code, of_split in zip((TRAIN, VAL, TEST), np.split(free, ends), strict=True):
        places[of_split] = code
    return places


def rows_named(names: pa.LargeStringArray, wanted: Iterable[str]) -> dict[str, int]:
    """The row of each wanted name among names of which each is there once; without those that are not there."""
    values = pa.array(list(wanted), pa.large_string())
    if not len(values):
        return {}
    rows = np.flatnonzero(pc.is_in(names, value_set=values))
    return dict(zip(names.take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True))


def role(place: Mapping[str, object], rotation: int, splits: Splits) -> str:
    """What a row with columns `split` and `fold` is in a rotation: train, val or test."""
    if isinstance(splits, FixedSplits):
        return str(place["split"])
    fold = place["fold"]
    if fold == rotation:
        return "test"
    return "val" if fold == (rotation + 1) % splits.count else "train"


def _hash_fractions(names: pa.LargeStringArray, seed: int) -> npt.NDArray[np.float64]:
    fractions = np.empty(len(names))
    for start in range(0, len(names), _NAMES_AT_ONCE):
        piece = names.slice(start, _NAMES_AT_ONCE).to_pylist()
        fractions[start : start + len(piece)] = [hash_fraction("split", seed, name) for name in piece]
    return fractions
