"""Who goes where: duplicates make groups one, and groups have splits or folds, over all sources that are on disk.

Pictures are columns, a few tens of bytes for each, so that as many can be planned as there are.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import SpecError
from tasks.data.splits import (
    CODE_OF_SPLIT,
    FIRST_FOLD,
    LEFT_OUT,
    PLACES,
    TRAIN,
    Place,
    PlaceCodes,
    place_groups,
    rows_named,
)
from tasks.spec.splits import FixedSplits, Folds, Splits

# What stands in for the photographs' JPEG qualities where no photograph is a JPEG.
DEFAULT_QUALITIES = ((90, 1),)

_NAMES_AT_ONCE = 100_000

Bools = npt.NDArray[np.bool_]
GroupCodes = npt.NDArray[np.int32]
Pairs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """N pictures of all sources as columns. Groups are indices of their names, of which the smaller has the smaller."""

    source: npt.NDArray[np.int16]  # (N,) indices of the sources
    position: npt.NDArray[np.int32]  # (N,) rank in the source's order
    image_id: pa.ChunkedArray  # (N,) string
    group: GroupCodes  # (N,)
    group_names: pa.LargeStringArray  # (G,) ascending, each once

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class SourceFacts:
    """What placing needs to know of a source. Those that are not evaluated only train generators."""

    name: str
    label: str
    evaluated: bool


class NoPictureLeft(SpecError):
    """A split or a fold in which no picture of a label remains."""

    def __init__(self, label: str, message: str) -> None:
        super().__init__(message)
        self.label = label


def pictures_of(listed: Iterable[pa.Table]) -> Pictures:
    """The pictures of all sources, from a table of each with `image_id`, `group_id` and `position`.

    Tables of an iterator are not kept: but for one source's, both columns of names are in memory once.
    """
    sizes, positions, image_ids = [], [], []
    groups = _Text()
    for table in listed:
        sizes.append(table.num_rows)
        positions.append(table["position"].to_numpy().astype(np.int32))
        image_ids += table["image_id"].chunks
        groups.add(table["group_id"])
        del table
    group, group_names = _coded(groups.whole())
    return Pictures(
        source=np.repeat(np.arange(len(sizes), dtype=np.int16), sizes),
        position=np.concatenate([np.empty(0, np.int32), *positions]),
        image_id=pa.chunked_array(image_ids, pa.string()),
        group=group,
        group_names=group_names,
    )


def first_connected(count: int, pairs: Pairs) -> npt.NDArray[np.int64]:
    """For each of the members 0..count-1 the smallest that pairs (M, 2) connect it to; that may be itself."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = np.arange(count)
    if not len(pairs):
        return first
    # Few members are in pairs: the graph is of those, ascending, not of all.
    members, ends = np.unique(pairs, return_inverse=True)
    a, b = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(len(members), len(members)))
    _, component = connected_components(graph, directed=False)
    _, smallest = np.unique(component, return_index=True)
    first[members] = members[smallest][component]
    return first


def merge_groups(pictures: Pictures, pairs: Pairs) -> GroupCodes:
    """The group of every picture once the groups of each pair of rows are one: the one of the smallest name."""
    first = first_connected(len(pictures.group_names), pictures.group[pairs].astype(np.int64))
    return first.astype(np.int32)[pictures.group]


def originals(count: int, pairs: Pairs) -> npt.NDArray[np.int64]:
    """For every row the first row that it duplicates, or -1; `pairs` as of `find_duplicates`."""
    first = first_connected(count, pairs)
    return np.where(first == np.arange(count), -1, first)


def place_pictures(
    pictures: Pictures, merged: GroupCodes, sources: Sequence[SourceFacts], splits: Splits, seed: int
) -> PlaceCodes:
    """A split or a fold for every picture, the same for all of a group; `LEFT_OUT` for those that take no part.

    Groups that the splits name come first, then ranges of the real sources' positions (real pictures in none are left
    out), then shares by hash, per source, of the groups whose first source it is. Pictures of sources that are not
    evaluated are training material, except where their group is evaluated and not in train: these are left out, so
    that no generator sees a test picture.

    Returns:
        Indices of `PLACES`, int8 (N,).

    Raises:
        NoPictureLeft: a split or fold remains empty.
        SpecError: a range or two names tear a group apart.
    """
    evaluated = np.array([source.evaluated for source in sources], dtype=bool)[pictures.source]
    takes_part = evaluated.copy()
    places = np.full(len(pictures.group_names), LEFT_OUT, dtype=np.int8)  # of groups
    if isinstance(splits, FixedSplits):
        _place_named(pictures, merged, takes_part, splits, places)
        if splits.ranges:
            _place_ranges(pictures, merged, sources, takes_part, splits, places)
    for index in range(len(sources)):
        of_source = _among(merged[takes_part & (pictures.source == index)], len(places))
        free = np.flatnonzero(of_source & (places == LEFT_OUT))
        places[free] = place_groups(pictures.group_names.take(pa.array(free)), splits, seed)
    may_train = ~_among(merged[takes_part], len(places)) | (places == TRAIN)
    result = np.where(
        evaluated,
        np.where(takes_part, places[merged], LEFT_OUT),
        np.where(may_train[merged], TRAIN, LEFT_OUT),
    ).astype(np.int8)
    _check_none_empty(pictures, merged, result, sources, splits)
    return result


def unknown_names(pictures: Pictures, splits: Splits) -> list[str]:
    """Groups that the splits name and no picture has, sorted."""
    if isinstance(splits, Folds):
        return []
    return sorted(splits.groups.keys() - rows_named(pictures.group_names, splits.groups))


def place_name(place: Place) -> str:
    """`train`, `val`, `test`, `fold-0` and so on, or `left-out`."""
    split, fold = place
    return split or ("left-out" if fold is None else f"fold-{fold}")


def count_places(places: PlaceCodes) -> dict[str, int]:
    """How many pictures are in each place that is not empty, by its name, sorted."""
    counts = np.bincount(places, minlength=len(PLACES)).tolist()
    return dict(sorted((place_name(place), count) for place, count in zip(PLACES, counts, strict=True) if count))


class _Text:
    """A column of text that grows in place: Arrow would need pieces and their whole at once."""

    def __init__(self) -> None:
        self._text = io.BytesIO()
        self._lengths = [np.empty(0, np.int32)]

    def add(self, column: pa.ChunkedArray) -> None:
        for chunk in column.chunks:
            for start in range(0, len(chunk), _NAMES_AT_ONCE):
                piece = chunk.slice(start, _NAMES_AT_ONCE)
                self._lengths.append(pc.binary_length(piece).to_numpy())
                self._text.write("".join(piece.to_pylist()).encode())

    def whole(self) -> pa.LargeStringArray:
        offsets = np.zeros(sum(map(len, self._lengths)) + 1, dtype=np.int64)
        np.cumsum(np.concatenate(self._lengths), out=offsets[1:])
        buffers = [pa.py_buffer(offsets), pa.py_buffer(self._text.getbuffer())]
        return pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers)


def _coded(names: pa.LargeStringArray) -> tuple[GroupCodes, pa.LargeStringArray]:
    """The rank of every name among the different ones, and these, ascending."""
    order = pc.sort_indices(names).to_numpy()
    differs = np.ones(len(order), dtype=bool)  # from the name before it in this order
    for start in range(1, len(order), _NAMES_AT_ONCE):
        piece = names.take(pa.array(order[start - 1 : start + _NAMES_AT_ONCE]))
        differs[start : start + _NAMES_AT_ONCE] = pc.not_equal(piece[1:], piece[:-1])
    codes = np.empty(len(order), dtype=np.int32)
    codes[order] = np.cumsum(differs, dtype=np.int32) - 1
    return codes, names.take(pa.array(order[differs]))


def _among(codes: GroupCodes, count: int) -> Bools:
    """Which of the groups 0..count-1 occur, bool (count,)."""
    found = np.zeros(count, dtype=bool)
    found[codes] = True
    return found


def _place_named(
    pictures: Pictures, merged: GroupCodes, takes_part: Bools, splits: FixedSplits, places: PlaceCodes
) -> None:
    """Put groups into `places` that the splits name. A named group may have been merged under another name."""
    names = {code: name for name, code in rows_named(pictures.group_names, splits.groups).items()}
    is_named = _among(np.array(list(names), dtype=np.int32), len(places))
    rows = np.flatnonzero(takes_part & is_named[pictures.group])
    _, first = np.unique(pictures.group[rows], return_index=True)
    named_by: dict[int, str] = {}
    for row in rows[np.sort(first)].tolist():
        name = names[int(pictures.group[row])]
        other = named_by.setdefault(int(merged[row]), name)
        if splits.groups[other] != splits.groups[name]:
            raise SpecError(
                f"splits.groups puts {other!r} into {splits.groups[other]} and {name!r} into {splits.groups[name]}, "
                "but they hold the same picture: put both into one"
            )
    for group, name in named_by.items():
        places[group] = CODE_OF_SPLIT[splits.groups[name]]


def _place_ranges(
    pictures: Pictures,
    merged: GroupCodes,
    sources: Sequence[SourceFacts],
    takes_part: Bools,
    splits: FixedSplits,
    places: PlaceCodes,
) -> None:
    """Put groups of real pictures into `places` by ranges; real pictures in no range do not take part."""
    is_real = np.array([source.label == "real" for source in sources], dtype=bool)
    by_name = places != LEFT_OUT
    rows = np.flatnonzero(takes_part & is_real[pictures.source] & ~by_name[merged])
    position = pictures.position[rows]
    ranged = np.full(len(rows), LEFT_OUT, dtype=np.int8)
    for split, (start, end) in splits.ranges.items():
        ranged[(start <= position) & (position < end)] = CODE_OF_SPLIT[split]
    takes_part[rows[ranged == LEFT_OUT]] = False
    rows, ranged = rows[ranged != LEFT_OUT], ranged[ranged != LEFT_OUT]
    group = merged[rows]
    # Of several pictures of a group the last one assigned remains, here the first.
    places[group[::-1]] = ranged[::-1]
    torn = np.flatnonzero(places[group] != ranged)
    if len(torn):
        first, second = int(rows[group == group[torn[0]]][0]), int(rows[torn[0]])
        here, there = PLACES[places[group[torn[0]]]], PLACES[ranged[torn[0]]]
        raise SpecError(
            f"splits.ranges tears a group apart: {pictures.image_id[first].as_py()} is in {place_name(here)} and "
            f"{pictures.image_id[second].as_py()} in {place_name(there)}, but they are of one group; "
            "choose other ranges"
        )


def _check_none_empty(
    pictures: Pictures, merged: GroupCodes, places: PlaceCodes, sources: Sequence[SourceFacts], splits: Splits
) -> None:
    for label in sorted({source.label for source in sources if source.evaluated}):
        if isinstance(splits, Folds):
            needed = PLACES[FIRST_FOLD : FIRST_FOLD + splits.count]
            why = f"there are fewer groups than the {splits.count} folds"
        else:
            needed = PLACES[TRAIN:FIRST_FOLD]
            why = "give it more pictures, or other splits"
        counted = np.array([source.evaluated and source.label == label for source in sources])[pictures.source]
        counts = count_places(places[counted])
        empty = [name for name in map(place_name, needed) if name not in counts]
        if empty:
            left = f"no {label} picture is left in {', '.join(empty)}"
            # Of no picture at all, those who know what was set aside say why.
            if not counts:
                raise NoPictureLeft(label, left)
            groups, before = (len(np.unique(codes[counted])) for codes in (merged, pictures.group))
            raise NoPictureLeft(label, f"{left}: {why}; got {counts} of {groups} groups, {before} before merging")
