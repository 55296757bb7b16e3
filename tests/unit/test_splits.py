"""Splits and folds belong to groups; explicit ranges and names come before shares by hash."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from storage.errors import SpecError
from tasks.data.assignment import (
    GroupCodes,
    Pictures,
    SourceFacts,
    first_connected,
    merge_groups,
    originals,
    pictures_of,
    place_name,
    place_pictures,
    unknown_names,
)
from tasks.data.splits import PLACES, Place, place_groups, role
from tasks.spec.splits import FixedSplits, Folds, Splits

REAL = SourceFacts("coco", "real", True)
FAKE = SourceFacts("sd", "fake", True)
GROUPS = [f"g{number:03d}" for number in range(100)]


Row = tuple[int, str, str, int]  # source, image id, group, position


def rows_of(source: int, count: int, group: str = "") -> list[Row]:
    """`count` pictures of a source, each its own group, or all of the one that is named."""
    return [(source, f"{source}:{n:03d}", group or f"{source}:{n:03d}", n) for n in range(count)]


def columns(rows: list[Row]) -> Pictures:
    """Rows, sorted by source, as columns."""
    sources = range(max((row[0] for row in rows), default=-1) + 1)
    of_source = [[row for row in rows if row[0] == source] for source in sources]
    names = ("image_id", "group_id", "position")
    types = (pa.string(), pa.string(), pa.int32())
    return pictures_of(
        pa.table({name: pa.array([row[k + 1] for row in some], types[k]) for k, name in enumerate(names)})
        for some in of_source
    )


def merged_by(pictures: Pictures, pairs: list[tuple[int, int]]) -> GroupCodes:
    return merge_groups(pictures, np.array(pairs, dtype=np.int64).reshape(-1, 2))


def place_rows(
    rows: list[Row],
    sources: list[SourceFacts],
    splits: Splits,
    pairs: Iterable[tuple[int, int]] = (),
) -> list[Place]:
    pictures = columns(rows)
    places = place_pictures(pictures, merged_by(pictures, list(pairs)), sources, splits, 0)
    assert places.dtype == np.int8
    return [PLACES[place] for place in places]


def place_names(names: list[str], splits: Splits, seed: int = 0) -> dict[str, Place]:
    places = place_groups(pa.array(names, pa.large_string()), splits, seed)
    return {name: PLACES[place] for name, place in zip(names, places, strict=True)}


def test_shares_are_exact_and_depend_on_the_seed() -> None:
    places = place_names(GROUPS, FixedSplits())
    assert Counter(split for split, _ in places.values()) == {"train": 60, "val": 20, "test": 20}
    assert place_names(GROUPS, FixedSplits(), seed=1) != places


def test_the_order_of_the_pictures_does_not_matter() -> None:
    rows = [*rows_of(0, 30), *rows_of(1, 30)]
    for splits in (FixedSplits(), Folds(count=3)):
        straight = dict(zip(rows, place_rows(rows, [REAL, FAKE], splits), strict=True))
        turned = [*reversed(rows[:30]), *reversed(rows[30:])]
        assert dict(zip(turned, place_rows(turned, [REAL, FAKE], splits), strict=True)) == straight


def test_named_groups_keep_their_names_split() -> None:
    splits = FixedSplits(groups={"g007": "test", "g008": "val", "unknown": "val"})
    places = place_names(GROUPS, splits)
    assert (places["g007"], places["g008"]) == (("test", None), ("val", None))


def test_folds_are_of_equal_size_and_rotate_through_every_role() -> None:
    splits = Folds(count=5)
    places = place_names(GROUPS, splits)
    assert Counter(fold for _, fold in places.values()) == dict.fromkeys(range(5), 20)
    for _, fold in places.values():
        roles = Counter(role({"split": None, "fold": fold}, rotation, splits) for rotation in range(5))
        assert roles == {"train": 3, "val": 1, "test": 1}


def test_the_role_of_a_fixed_split_is_the_split() -> None:
    assert role({"split": "val", "fold": None}, 0, FixedSplits()) == "val"


def test_pictures_of_a_group_share_its_place_across_sources() -> None:
    rows = [*rows_of(0, 30), *((1, f"1:{n:03d}", f"0:{n:03d}", n) for n in range(30))]
    for splits in (FixedSplits(), Folds(count=3)):
        places = place_rows(rows, [REAL, FAKE], splits)
        assert places[:30] == places[30:]


def test_each_source_gets_its_own_shares() -> None:
    places = place_rows([*rows_of(0, 50), *rows_of(1, 10)], [REAL, FAKE], FixedSplits())
    assert Counter(map(place_name, places[:50])) == {"train": 30, "val": 10, "test": 10}
    assert Counter(map(place_name, places[50:])) == {"train": 6, "val": 2, "test": 2}


def test_ranges_place_photographs_by_position_and_leave_the_others_out() -> None:
    splits = FixedSplits(ranges={"train": (0, 4), "test": (4, 8), "val": (8, 9)})
    places = place_rows([*rows_of(0, 12), *rows_of(1, 10)], [REAL, FAKE], splits)
    assert [place_name(place) for place in places[:12]] == [
        *["train"] * 4,
        *["test"] * 4,
        "val",
        *["left-out"] * 3,
    ]
    assert Counter(map(place_name, places[12:])) == {"train": 6, "val": 2, "test": 2}


def test_a_fake_inherits_the_range_of_its_photograph() -> None:
    splits = FixedSplits(ranges={"train": (0, 4), "test": (4, 8), "val": (8, 9)})
    rows = [*rows_of(0, 9), *((1, f"1:{n:03d}", f"0:{n:03d}", n) for n in range(9))]
    places = place_rows(rows, [REAL, FAKE], splits)
    assert places[:9] == places[9:]


def test_a_range_that_tears_a_group_apart_is_refused_with_the_two_images() -> None:
    rows = [*rows_of(0, 9), *rows_of(1, 9)]
    pairs = [(1, 6)]
    splits = FixedSplits(ranges={"train": (0, 4), "test": (4, 8), "val": (8, 9)})
    with pytest.raises(SpecError, match=r"0:001 is in train and 0:006 in test") as caught:
        place_rows(rows, [REAL, FAKE], splits, pairs)
    assert "tears a group apart" in str(caught.value)


@pytest.mark.parametrize(
    ("ranges", "sentence"),
    [
        ({"train": (0, 5), "test": (4, 8)}, "train and test overlap at 4"),
        ({"train": (5, 5)}, "train must be from 0 or more up to something larger, got 5, 5"),
        ({"train": (-1, 5)}, "train must be from 0 or more up to something larger, got -1, 5"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(ranges: dict[str, tuple[int, int]], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        FixedSplits.model_validate({"ranges": ranges})


def test_a_named_group_is_found_under_the_name_it_was_merged_to() -> None:
    rows = [*rows_of(0, 20), *rows_of(1, 20)]
    pairs = [(2, 9)]
    pictures = columns(rows)
    assert pictures.group_names[merged_by(pictures, pairs)[9]].as_py() == "0:002"
    places = place_rows(rows, [REAL, FAKE], FixedSplits(groups={"0:009": "test"}), pairs)
    assert places[2] == places[9] == ("test", None)
    torn = FixedSplits(groups={"0:009": "test", "0:002": "train"})
    with pytest.raises(SpecError, match="they hold the same picture"):
        place_rows(rows, [REAL, FAKE], torn, pairs)


def test_names_that_no_group_has_are_known() -> None:
    assert unknown_names(columns(rows_of(0, 3)), FixedSplits(groups={"0:001": "test", "cat": "val"})) == ["cat"]
    assert unknown_names(columns(rows_of(0, 3)), Folds(count=3)) == []


def test_a_source_that_is_not_evaluated_is_training_material_under_any_splits() -> None:
    sources = [REAL, FAKE, SourceFacts("more", "real", False)]
    rows = [*rows_of(0, 10), *rows_of(1, 10), *rows_of(2, 10)]
    for splits in (FixedSplits(), Folds(count=3), FixedSplits(ranges={"train": (0, 5), "val": (5, 6), "test": (6, 9)})):
        assert place_rows(rows, sources, splits)[20:] == [("train", None)] * 10


def test_training_material_that_repeats_an_evaluated_picture_is_left_out_unless_that_one_trains() -> None:
    sources = [REAL, FAKE, SourceFacts("more", "real", False)]
    rows = [*rows_of(0, 20), *rows_of(1, 20), *rows_of(2, 20)]
    pairs = [(n, 40 + n) for n in range(20)]
    assert place_rows(rows, sources, Folds(count=3), pairs)[40:] == [(None, None)] * 20
    places = place_rows(rows, sources, FixedSplits(), pairs)
    assert places[40:] == [place if place == ("train", None) else (None, None) for place in places[:20]]
    assert ("train", None) in places[40:]
    assert (None, None) in places[40:]


def test_a_split_that_remains_empty_is_refused() -> None:
    with pytest.raises(SpecError, match=r"no fake picture is left in val, test: .* got {'train': 1}"):
        place_rows([*rows_of(0, 10), *rows_of(1, 1)], [REAL, FAKE], FixedSplits(train=0.9, val=0.05))
    with pytest.raises(SpecError, match="no real picture is left in test"):
        place_rows(
            [*rows_of(0, 10), *rows_of(1, 10)],
            [REAL, FAKE],
            FixedSplits(ranges={"train": (0, 5), "val": (5, 10)}),
        )
    with pytest.raises(SpecError, match="no real picture is left in train, val, test"):
        place_rows(rows_of(1, 10), [REAL, FAKE], FixedSplits())


def test_fewer_groups_than_folds_are_refused() -> None:
    with pytest.raises(SpecError, match=r"left in fold-2, fold-3, fold-4: .*fewer groups than the 5"):
        place_rows([*rows_of(0, 10), (1, "a", "a", 0), (1, "b", "b", 1)], [REAL, FAKE], Folds(count=5))
    with pytest.raises(SpecError, match="fewer groups"):
        place_rows([*rows_of(0, 10), *rows_of(1, 10, group="one")], [REAL, FAKE], Folds(count=3))


def test_a_label_without_sources_on_disk_is_not_asked_for() -> None:
    assert len(place_rows(rows_of(0, 10), [REAL], FixedSplits())) == 10


def test_the_original_of_a_duplicate_is_the_first_picture() -> None:
    assert originals(5, np.array([(1, 3), (3, 4)])).tolist() == [-1, -1, -1, 1, 1]


def test_what_pairs_connect_is_named_by_its_smallest_member() -> None:
    pairs = np.array([(6, 7), (4, 7), (1, 2), (2, 1), (5, 5)])
    assert first_connected(8, pairs).tolist() == [0, 1, 1, 3, 4, 5, 4, 4]
    assert first_connected(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]


def test_columns_of_pictures_know_their_groups_by_name_in_ascending_order() -> None:
    rows = [
        (0, "a", "über", 1),
        (0, "b", "zebra", 0),
        (1, "c", "Z", 2),
        (1, "d", "zebra", 0),
        (1, "e", "\U0001f600", 7),
    ]
    pictures = columns(rows)
    assert pictures.group_names.to_pylist() == sorted({group for _, _, group, _ in rows})
    assert [pictures.group_names[code].as_py() for code in pictures.group] == [group for _, _, group, _ in rows]
    assert pictures.image_id.to_pylist() == ["a", "b", "c", "d", "e"]
    assert (pictures.source.tolist(), pictures.position.tolist()) == ([0, 0, 1, 1, 1], [1, 0, 2, 0, 7])
