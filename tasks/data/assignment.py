"""Who goes where: duplicates make groups one, and groups have splits or folds, over all sources that are on disk."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from storage.errors import SpecError
from tasks.data.duplicates import Forest
from tasks.data.splits import Place, place_groups
from tasks.spec import FixedSplits, Folds, Splits

LEFT_OUT: Place = (None, None)

# What stands in for the photographs' JPEG qualities where no photograph is a JPEG.
DEFAULT_QUALITIES = ((90, 1),)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a source; `position` is its rank in the source's order, `source` an index of `SourceFacts`."""

    source: int
    image_id: str
    group_id: str
    position: int


@dataclass(frozen=True)
class SourceFacts:
    """What placing needs to know of a source. Those that are not evaluated only train generators."""

    name: str
    label: str
    evaluated: bool


def merge_groups(groups: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
    """The group of every row once the groups of each pair of rows are one: the smallest name among them."""
    forest = Forest(len(groups))
    first_of: dict[str, int] = {}
    for row, group in enumerate(groups):
        forest.unite(first_of.setdefault(group, row), row)
    for a, b in pairs:
        forest.unite(a, b)
    names: dict[int, str] = {}
    for row, group in enumerate(groups):
        root = forest.root(row)
        names[root] = min(names.get(root, group), group)
    return [names[forest.root(row)] for row in range(len(groups))]


def originals(count: int, pairs: Iterable[tuple[int, int]]) -> list[int | None]:
    """For every row the first row that it duplicates, or None; `pairs` as of `find_duplicates`."""
    forest = Forest(count)
    for a, b in pairs:
        forest.unite(a, b)
    return [None if forest.root(row) == row else forest.root(row) for row in range(count)]


def place_pictures(
    pictures: Sequence[Picture], merged: Sequence[str], sources: Sequence[SourceFacts], splits: Splits, seed: int
) -> list[Place]:
    """A split or a fold for every picture, the same for all of a group; `LEFT_OUT` for those that take no part.

    Groups that the splits name come first, then ranges of the real sources' positions (real pictures in none are left
    out), then shares by hash, per source, of the groups whose first source it is. Pictures of sources that are not
    evaluated are training material, except where their group is evaluated and not in train: these are left out, so
    that no generator sees a test picture.

    Raises:
        SpecError: a range or two names tear a group apart, ranges overlap, or a split or fold remains empty.
    """
    places: dict[str, Place] = {}
    takes_part = [sources[picture.source].evaluated for picture in pictures]
    if isinstance(splits, FixedSplits):
        places = _named_places(pictures, merged, takes_part, splits)
        if splits.ranges:
            _place_ranges(pictures, merged, sources, takes_part, splits, places)
    for index in range(len(sources)):
        free = {
            group
            for picture, group, takes in zip(pictures, merged, takes_part, strict=True)
            if takes and picture.source == index and group not in places
        }
        places |= place_groups(free, splits, seed)
    evaluated_groups = {group for group, takes in zip(merged, takes_part, strict=True) if takes}
    result = []
    for picture, group, takes in zip(pictures, merged, takes_part, strict=True):
        if takes:
            result.append(places[group])
        elif sources[picture.source].evaluated:
            result.append(LEFT_OUT)
        else:
            may_train = group not in evaluated_groups or places[group] == ("train", None)
            result.append(("train", None) if may_train else LEFT_OUT)
    _check_none_empty(pictures, result, sources, splits)
    return result


def unknown_names(pictures: Sequence[Picture], splits: Splits) -> list[str]:
    """Groups that the splits name and no picture has, sorted."""
    if isinstance(splits, Folds):
        return []
    return sorted(set(splits.groups) - {picture.group_id for picture in pictures})


def place_name(place: Place) -> str:
    """`train`, `val`, `test`, `fold-0` and so on, or `left-out`."""
    split, fold = place
    return split or ("left-out" if fold is None else f"fold-{fold}")


def _named_places(
    pictures: Sequence[Picture], merged: Sequence[str], takes_part: Sequence[bool], splits: FixedSplits
) -> dict[str, Place]:
    # A named group may have been merged under another name.
    named_by: dict[str, str] = {}
    for picture, group, takes in zip(pictures, merged, takes_part, strict=True):
        name = picture.group_id
        if not takes or name not in splits.groups:
            continue
        other = named_by.setdefault(group, name)
        if splits.groups[other] != splits.groups[name]:
            raise SpecError(
                f"splits.groups puts {other!r} into {splits.groups[other]} and {name!r} into {splits.groups[name]}, "
                "but they hold the same picture: put both into one"
            )
    return {group: (splits.groups[name], None) for group, name in named_by.items()}


def _place_ranges(
    pictures: Sequence[Picture],
    merged: Sequence[str],
    sources: Sequence[SourceFacts],
    takes_part: list[bool],
    splits: FixedSplits,
    places: dict[str, Place],
) -> None:
    """Put groups of real pictures into `places` by ranges; real pictures in no range do not take part."""
    _check_ranges(splits)
    placed_by: dict[str, Picture] = {}
    for row, (picture, group) in enumerate(zip(pictures, merged, strict=True)):
        if not takes_part[row] or sources[picture.source].label != "real":
            continue
        if group in places and group not in placed_by:
            continue  # by name
        split = next((s for s, (start, end) in splits.ranges.items() if start <= picture.position < end), None)
        if split is None:
            takes_part[row] = False
            continue
        other = placed_by.setdefault(group, picture)
        if places.setdefault(group, (split, None)) != (split, None):
            raise SpecError(
                f"splits.ranges tears a group apart: {other.image_id} is in {places[group][0]} and "
                f"{picture.image_id} in {split}, but they are of one group; choose other ranges"
            )


def _check_ranges(splits: FixedSplits) -> None:
    ordered = sorted((start, end, split) for split, (start, end) in splits.ranges.items())
    for start, end, split in ordered:
        if not 0 <= start < end:
            raise SpecError(f"splits.ranges.{split}: expected 0 <= start < end, got [{start}, {end}]")
    for (_, end, split), (start, _, other) in itertools.pairwise(ordered):
        if start < end:
            raise SpecError(f"splits.ranges: {split} and {other} overlap at {start}")


def _check_none_empty(
    pictures: Sequence[Picture], places: Sequence[Place], sources: Sequence[SourceFacts], splits: Splits
) -> None:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for picture, place in zip(pictures, places, strict=True):
        if sources[picture.source].evaluated:
            found[sources[picture.source].label][place_name(place)] += 1
    for label in sorted({source.label for source in sources if source.evaluated}):
        if isinstance(splits, Folds):
            needed = [f"fold-{fold}" for fold in range(splits.count)]
            why = f"there are fewer groups than the {splits.count} folds"
        else:
            needed = ["train", "val", "test"]
            why = "give it more pictures, or other splits"
        empty = [name for name in needed if not found[label][name]]
        if empty:
            counts = dict(sorted(found[label].items()))
            raise SpecError(f"no {label} picture is left in {', '.join(empty)}: {why}; got {counts}")
