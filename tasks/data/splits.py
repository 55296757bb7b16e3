"""Splits and folds belong to groups: everything derived from a group inherits its split."""

from collections.abc import Iterable, Mapping

from storage.digest import hash_fraction
from tasks.spec import FixedSplits, Folds, Splits

Place = tuple[str | None, int | None]  # (split, fold): one of them is None


def place_groups(groups: Iterable[str], splits: Splits, seed: int) -> dict[str, Place]:
    """Give every group of one source a split or a fold by the rank of its hash.

    Ranks rather than hash ranges keep the shares exact in small experiments. Named groups of fixed splits keep their
    names' split; ranges of images are the caller's (they belong to images, not to groups).
    """
    ordered = sorted(set(groups), key=lambda group: (hash_fraction("split", seed, group), group))
    if isinstance(splits, Folds):
        return {group: (None, rank % splits.count) for rank, group in enumerate(ordered)}
    named: dict[str, Place] = {group: (splits.groups[group], None) for group in ordered if group in splits.groups}
    free = [group for group in ordered if group not in named]
    return named | {group: (_share(rank, len(free), splits), None) for rank, group in enumerate(free)}


def _share(rank: int, count: int, splits: FixedSplits) -> str:
    position = (rank + 0.5) / count
    if position < splits.train:
        return "train"
    return "val" if position < splits.train + splits.val else "test"


def role(place: Mapping[str, object], rotation: int, splits: Splits) -> str:
    """What a row with columns `split` and `fold` is in a rotation: train, val or test."""
    if isinstance(splits, FixedSplits):
        return str(place["split"])
    fold = place["fold"]
    if fold == rotation:
        return "test"
    return "val" if fold == (rotation + 1) % splits.count else "train"
