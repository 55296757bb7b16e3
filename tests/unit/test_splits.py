"""Splits and folds belong to groups; explicit ranges and names come before shares by hash."""

from collections import Counter

import pytest

from storage.errors import SpecError
from tasks.data.assignment import (
    LEFT_OUT,
    Picture,
    SourceFacts,
    merge_groups,
    originals,
    place_name,
    place_pictures,
    unknown_names,
)
from tasks.data.splits import Place, place_groups, role
from tasks.spec import FixedSplits, Folds, Splits

REAL = SourceFacts("coco", "real", True)
FAKE = SourceFacts("sd", "fake", True)
GROUPS = [f"g{number:03d}" for number in range(100)]


def pictures_of(source: int, count: int, group: str = "") -> list[Picture]:
    """`count` pictures of a source, each its own group, or all of the one that is named."""
    return [Picture(source, f"{source}:{n:03d}", group or f"{source}:{n:03d}", n) for n in range(count)]


def placed(pictures: list[Picture], sources: list[SourceFacts], splits: Splits, seed: int = 0) -> list[Place]:
    return place_pictures(pictures, [picture.group_id for picture in pictures], sources, splits, seed)


def test_shares_are_exact_and_depend_on_the_seed_and_not_on_the_order() -> None:
    places = place_groups(GROUPS, FixedSplits(), seed=0)
    assert Counter(split for split, _ in places.values()) == {"train": 60, "val": 20, "test": 20}
    assert place_groups(reversed(GROUPS), FixedSplits(), seed=0) == places
    assert place_groups(GROUPS, FixedSplits(), seed=1) != places


def test_named_groups_keep_their_names_split() -> None:
    splits = FixedSplits(groups={"g007": "test", "g008": "val"})
    places = place_groups(GROUPS, splits, seed=0)
    assert (places["g007"], places["g008"]) == (("test", None), ("val", None))


def test_folds_are_of_equal_size_and_rotate_through_every_role() -> None:
    splits = Folds(count=5)
    places = place_groups(GROUPS, splits, seed=0)
    assert Counter(fold for _, fold in places.values()) == dict.fromkeys(range(5), 20)
    for _, fold in places.values():
        roles = Counter(role({"split": None, "fold": fold}, rotation, splits) for rotation in range(5))
        assert roles == {"train": 3, "val": 1, "test": 1}


def test_the_role_of_a_fixed_split_is_the_split() -> None:
    assert role({"split": "val", "fold": None}, 0, FixedSplits()) == "val"


def test_pictures_of_a_group_share_its_place_across_sources() -> None:
    pictures = [*pictures_of(0, 30), *(Picture(1, f"1:{n:03d}", f"0:{n:03d}", n) for n in range(30))]
    for splits in (FixedSplits(), Folds(count=3)):
        places = placed(pictures, [REAL, FAKE], splits)
        assert places[:30] == places[30:]


def test_each_source_gets_its_own_shares() -> None:
    places = placed([*pictures_of(0, 50), *pictures_of(1, 10)], [REAL, FAKE], FixedSplits())
    assert Counter(map(place_name, places[:50])) == {"train": 30, "val": 10, "test": 10}
    assert Counter(map(place_name, places[50:])) == {"train": 6, "val": 2, "test": 2}


def test_ranges_place_photographs_by_position_and_leave_the_others_out() -> None:
    splits = FixedSplits(ranges={"train": (0, 4), "test": (4, 8), "val": (8, 9)})
    places = placed([*pictures_of(0, 12), *pictures_of(1, 10)], [REAL, FAKE], splits)
    assert [place_name(place) for place in places[:12]] == [
        *["train"] * 4,
        *["test"] * 4,
        "val",
        *["left-out"] * 3,
    ]
    assert Counter(map(place_name, places[12:])) == {"train": 6, "val": 2, "test": 2}


def test_a_fake_inherits_the_range_of_its_photograph() -> None:
    splits = FixedSplits(ranges={"train": (0, 4), "test": (4, 8), "val": (8, 9)})
    pictures = [*pictures_of(0, 9), *(Picture(1, f"1:{n:03d}", f"0:{n:03d}", n) for n in range(9))]
    places = placed(pictures, [REAL, FAKE], splits)
    assert places[:9] == places[9:]


def test_a_range_that_tears_a_group_apart_is_refused_with_the_two_images() -> None:
    pictures = [*pictures_of(0, 9), *pictures_of(1, 9)]
    merged = merge_groups([picture.group_id for picture in pictures], [(1, 6)])
    splits = FixedSplits(ranges={"train": (0, 4), "test": (4, 8), "val": (8, 9)})
    with pytest.raises(SpecError, match=r"0:001 is in train and 0:006 in test") as caught:
        place_pictures(pictures, merged, [REAL, FAKE], splits, 0)
    assert "tears a group apart" in str(caught.value)


@pytest.mark.parametrize(
    ("ranges", "sentence"),
    [
        ({"train": (0, 5), "test": (4, 8)}, "train and test overlap at 4"),
        ({"train": (5, 5)}, "expected 0 <= start < end"),
        ({"train": (-1, 5)}, "expected 0 <= start < end"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(ranges: dict[str, tuple[int, int]], sentence: str) -> None:
    splits = FixedSplits.model_validate({"ranges": ranges})
    with pytest.raises(SpecError, match=sentence):
        placed([*pictures_of(0, 10), *pictures_of(1, 10)], [REAL, FAKE], splits)


def test_a_named_group_is_found_under_the_name_it_was_merged_to() -> None:
    pictures = [*pictures_of(0, 20), *pictures_of(1, 20)]
    merged = merge_groups([picture.group_id for picture in pictures], [(2, 9)])
    assert merged[9] == "0:002"
    places = place_pictures(pictures, merged, [REAL, FAKE], FixedSplits(groups={"0:009": "test"}), 0)
    assert places[2] == places[9] == ("test", None)
    torn = FixedSplits(groups={"0:009": "test", "0:002": "train"})
    with pytest.raises(SpecError, match="they hold the same picture"):
        place_pictures(pictures, merged, [REAL, FAKE], torn, 0)


def test_names_that_no_group_has_are_known() -> None:
    assert unknown_names(pictures_of(0, 3), FixedSplits(groups={"0:001": "test", "cat": "val"})) == ["cat"]
    assert unknown_names(pictures_of(0, 3), Folds(count=3)) == []


def test_a_source_that_is_not_evaluated_is_training_material_under_any_splits() -> None:
    sources = [REAL, FAKE, SourceFacts("more", "real", False)]
    pictures = [*pictures_of(0, 10), *pictures_of(1, 10), *pictures_of(2, 10)]
    for splits in (FixedSplits(), Folds(count=3), FixedSplits(ranges={"train": (0, 5), "val": (5, 6), "test": (6, 9)})):
        assert placed(pictures, sources, splits)[20:] == [("train", None)] * 10


def test_training_material_that_repeats_an_evaluated_picture_is_left_out_unless_that_one_trains() -> None:
    sources = [REAL, FAKE, SourceFacts("more", "real", False)]
    pictures = [*pictures_of(0, 20), *pictures_of(1, 20), *pictures_of(2, 20)]
    merged = merge_groups([picture.group_id for picture in pictures], [(n, 40 + n) for n in range(20)])
    assert place_pictures(pictures, merged, sources, Folds(count=3), 0)[40:] == [LEFT_OUT] * 20
    places = place_pictures(pictures, merged, sources, FixedSplits(), 0)
    assert places[40:] == [place if place == ("train", None) else LEFT_OUT for place in places[:20]]
    assert ("train", None) in places[40:]
    assert LEFT_OUT in places[40:]


def test_a_split_that_remains_empty_is_refused() -> None:
    with pytest.raises(SpecError, match=r"no fake picture is left in val, test: .* got {'train': 1}"):
        placed([*pictures_of(0, 10), *pictures_of(1, 1)], [REAL, FAKE], FixedSplits(train=0.9, val=0.05))
    with pytest.raises(SpecError, match="no real picture is left in test"):
        placed(
            [*pictures_of(0, 10), *pictures_of(1, 10)],
            [REAL, FAKE],
            FixedSplits(ranges={"train": (0, 5), "val": (5, 10)}),
        )
    with pytest.raises(SpecError, match="no real picture is left in train, val, test"):
        placed(pictures_of(1, 10), [REAL, FAKE], FixedSplits())


def test_fewer_groups_than_folds_are_refused() -> None:
    with pytest.raises(SpecError, match=r"left in fold-2, fold-3, fold-4: .*fewer groups than the 5"):
        placed([*pictures_of(0, 10), Picture(1, "a", "a", 0), Picture(1, "b", "b", 1)], [REAL, FAKE], Folds(count=5))
    with pytest.raises(SpecError, match="fewer groups"):
        placed([*pictures_of(0, 10), *pictures_of(1, 10, group="one")], [REAL, FAKE], Folds(count=3))


def test_a_label_without_sources_on_disk_is_not_asked_for() -> None:
    assert len(placed(pictures_of(0, 10), [REAL], FixedSplits())) == 10


def test_the_original_of_a_duplicate_is_the_first_picture() -> None:
    assert originals(5, [(1, 3), (3, 4)]) == [None, None, None, 1, 1]
