"""Columns of pictures are merged and placed as one picture after the other would be: same places, same words."""

import itertools
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.digest import hash_fraction
from storage.errors import SpecError
from tasks.data.assignment import SourceFacts, merge_groups, originals, pictures_of, place_pictures, unknown_names
from tasks.data.splits import PLACES, Place
from tasks.spec.splits import FixedSplits, Folds, Splits

GROUPS = ["a", "aa", "b", "B", "Ω", "é", "zz", "prompt:1", "\U0001f600", "g"]


class Picture(NamedTuple):
    source: int
    image_id: str
    group: str
    position: int


class Case(NamedTuple):
    pictures: list[Picture]
    sources: list[SourceFacts]
    pairs: list[tuple[int, int]]
    splits: Splits
    seed: int


def merge_plainly(groups: list[str], pairs: list[tuple[int, int]]) -> list[str]:
    """Rename until nothing changes any more."""
    merged = list(groups)
    while True:
        linked = [(merged[a], merged[b]) for a, b in pairs if merged[a] != merged[b]]
        if not linked:
            return merged
        smaller, larger = sorted(linked[0])
        merged = [smaller if group == larger else group for group in merged]


def place_groups_plainly(groups: set[str], splits: Splits, seed: int) -> dict[str, Place]:
    ordered = sorted(groups, key=lambda group: (hash_fraction("split", seed, group), group))
    if isinstance(splits, Folds):
        return {group: (None, rank % splits.count) for rank, group in enumerate(ordered)}
    places: dict[str, Place] = {group: (splits.groups[group], None) for group in ordered if group in splits.groups}
    free = [group for group in ordered if group not in places]
    for rank, group in enumerate(free):
        position = (rank + 0.5) / len(free)
        split = "train" if position < splits.train else "val" if position < splits.train + splits.val else "test"
        places[group] = (split, None)
    return places


def place_plainly(case: Case, merged: list[str]) -> list[Place]:
    """Places, one picture after the other, in Python's own types."""
    pictures, sources, _, splits, seed = case
    places: dict[str, Place] = {}
    taking = [sources[picture.source].evaluated for picture in pictures]
    if isinstance(splits, FixedSplits):
        named_by: dict[str, str] = {}
        for picture, group, takes in zip(pictures, merged, taking, strict=True):
            name = picture.group
            if not takes or name not in splits.groups:
                continue
            other = named_by.setdefault(group, name)
            if splits.groups[other] != splits.groups[name]:
                raise SpecError(
                    f"splits.groups puts {other!r} into {splits.groups[other]} and {name!r} into "
                    f"{splits.groups[name]}, but they hold the same picture: put both into one"
                )
        places = {group: (splits.groups[name], None) for group, name in named_by.items()}
        if splits.ranges:
            place_ranges_plainly(case, merged, taking, places)
    for index in range(len(sources)):
        rows = zip(pictures, merged, taking, strict=True)
        free = {group for picture, group, takes in rows if takes and picture.source == index and group not in places}
        places |= place_groups_plainly(free, splits, seed)
    evaluated = {group for group, takes in zip(merged, taking, strict=True) if takes}
    result: list[Place] = []
    for picture, group, takes in zip(pictures, merged, taking, strict=True):
        if takes:
            result.append(places[group])
        elif sources[picture.source].evaluated:
            result.append((None, None))
        else:
            may_train = group not in evaluated or places[group] == ("train", None)
            result.append(("train", None) if may_train else (None, None))
    check_plainly(case, merged, result)
    return result


def place_ranges_plainly(case: Case, merged: list[str], taking: list[bool], places: dict[str, Place]) -> None:
    splits = case.splits
    assert isinstance(splits, FixedSplits)
    placed_by: dict[str, Picture] = {}
    for row, (picture, group) in enumerate(zip(case.pictures, merged, strict=True)):
        if not taking[row] or case.sources[picture.source].label != "real":
            continue
        if group in places and group not in placed_by:
            continue
        found = next((s for s, (start, end) in splits.ranges.items() if start <= picture.position < end), None)
        if found is None:
            taking[row] = False
            continue
        first = placed_by.setdefault(group, picture)
        if places.setdefault(group, (found, None)) != (found, None):
            raise SpecError(
                f"splits.ranges tears a group apart: {first.image_id} is in {places[group][0]} and "
                f"{picture.image_id} in {found}, but they are of one group; choose other ranges"
            )


def check_plainly(case: Case, merged: list[str], places: list[Place]) -> None:
    sources, splits = case.sources, case.splits
    for label in sorted({source.label for source in sources if source.evaluated}):
        counts = Counter(
            split or ("left-out" if fold is None else f"fold-{fold}")
            for picture, (split, fold) in zip(case.pictures, places, strict=True)
            if sources[picture.source].evaluated and sources[picture.source].label == label
        )
        if isinstance(splits, Folds):
            needed = [f"fold-{fold}" for fold in range(splits.count)]
            why = f"there are fewer groups than the {splits.count} folds"
        else:
            needed, why = ["train", "val", "test"], "give it more pictures, or other splits"
        empty = [name for name in needed if not counts[name]]
        if empty:
            got = {name: counts[name] for name in sorted(counts) if counts[name]}
            left = f"no {label} picture is left in {', '.join(empty)}"
            if not got:
                raise SpecError(left)
            rows = [
                row
                for row, picture in enumerate(case.pictures)
                if sources[picture.source].evaluated and sources[picture.source].label == label
            ]
            groups, before = len({merged[row] for row in rows}), len({case.pictures[row].group for row in rows})
            raise SpecError(f"{left}: {why}; got {got} of {groups} groups, {before} before merging")


@st.composite
def splits_of(draw: st.DrawFn) -> Splits:
    if draw(st.integers(0, 3)) == 0:
        return Folds(count=draw(st.integers(3, 4)))
    train = draw(st.sampled_from([0.6, 0.3, 1 / 3]))
    names = st.sampled_from(["train", "val", "test"])
    groups = draw(st.dictionaries(st.sampled_from([*GROUPS[:6], "no such"]), names, max_size=4))
    ranges: dict[Any, tuple[int, int]] = {}
    kind = draw(st.integers(0, 5))
    if kind < 3:
        edges = sorted(draw(st.lists(st.integers(0, 12), min_size=4, max_size=4, unique=True)))
        ranges = dict(zip(draw(st.permutations(["train", "val", "test"])), itertools.pairwise(edges), strict=True))
    return FixedSplits(train=train, val=draw(st.sampled_from([0.2, 0.3])), groups=groups, ranges=ranges)  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Some sources of some pictures, in groups of their own and in common ones, with pairs that are one."""
    flags = st.tuples(st.sampled_from(["real", "fake"]), st.sampled_from([True, True, True, False]))
    kinds = [("real", True), ("fake", True), *draw(st.lists(flags, max_size=2))]
    sources = [SourceFacts(f"s{index}", label, evaluated) for index, (label, evaluated) in enumerate(kinds)]
    pictures = []
    for index in range(len(sources)):
        own = [f"{index}:{number}" for number in range(8)]
        groups = draw(st.lists(st.sampled_from([*GROUPS, *own, *own]), max_size=12))
        positions = draw(st.permutations(range(len(groups))))
        pictures += [
            Picture(index, f"s{index}:{number}", group, position)
            for number, (group, position) in enumerate(zip(groups, positions, strict=True))
        ]
    rows = st.integers(0, max(0, len(pictures) - 1))
    pairs = draw(st.lists(st.tuples(rows, rows), max_size=5)) if pictures else []
    return Case(pictures, sources, pairs, draw(splits_of()), draw(st.integers(0, 3)))


def outcome_plainly(case: Case) -> tuple[list[str], list[Place] | str]:
    merged = merge_plainly([picture.group for picture in case.pictures], case.pairs)
    try:
        return merged, place_plainly(case, merged)
    except SpecError as error:
        return merged, str(error)


def outcome(case: Case) -> tuple[list[str], list[Place] | str]:
    pictures = pictures_of(
        pa.table(
            {
                "image_id": pa.array([picture.image_id for picture in of_source], pa.string()),
                "group_id": pa.array([picture.group for picture in of_source], pa.string()),
                "position": pa.array([picture.position for picture in of_source], pa.int32()),
            }
        )
        for of_source in (
            [picture for picture in case.pictures if picture.source == index] for index in range(len(case.sources))
        )
    )
    codes = merge_groups(pictures, np.array(case.pairs, dtype=np.int64).reshape(-1, 2))
    merged = pictures.group_names.take(pa.array(codes)).to_pylist()
    if isinstance(case.splits, FixedSplits):
        known = {picture.group for picture in case.pictures}
        assert unknown_names(pictures, case.splits) == sorted(set(case.splits.groups) - known)
    try:
        places = place_pictures(pictures, codes, case.sources, case.splits, case.seed)
        return merged, [PLACES[place] for place in places]
    except SpecError as error:
        return merged, str(error)


@settings(max_examples=400, deadline=None)
@given(cases())
def test_pictures_go_where_they_go_one_by_one_or_are_refused_in_the_same_words(case: Case) -> None:
    assert outcome(case) == outcome_plainly(case)


@given(st.integers(1, 12), st.data())
def test_the_original_is_the_first_row_of_all_that_are_one(count: int, data: st.DataObject) -> None:
    rows = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(rows, rows), max_size=8))
    names = [f"{row:02d}" for row in range(count)]
    expected = [-1 if (first := int(name)) == row else first for row, name in enumerate(merge_plainly(names, pairs))]
    assert originals(count, np.array(pairs, dtype=np.int64).reshape(-1, 2)).tolist() == expected
