"""A COCO directory becomes an entry table; what is broken in it is set aside or refused."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from storage.errors import MissingInput, SpecError
from storage.local import LocalStore
from storage.objects import Ref, notes_of, read_table
from tasks.data.coco import check_coco, coco_inventory, index_coco, read_annotations
from tasks.data.entries import ENTRY_SCHEMA, QUARANTINE

SPLIT = "val2017"


def write_coco(
    root: Path, *, images: list[dict[str, Any]] | None = None, instances: bool = True, **captions: Any
) -> Path:
    """Three pictures with two captions each, and boxes; `images` and further keys replace what is in captions."""
    numbers = (9, 139, 30)
    (root / SPLIT).mkdir(parents=True)
    (root / "annotations").mkdir()
    for number in numbers:
        (root / SPLIT / f"{number:012d}.jpg").write_bytes(b"picture %d" % number)
    document = {
        "licenses": [{"id": 2, "name": "Attribution License"}],
        "images": images
        if images is not None
        else [{"id": number, "file_name": f"{number:012d}.jpg", "license": 2} for number in numbers],
        "annotations": [
            {"id": 10 * number + later, "image_id": number, "caption": f"{'later' if later else 'first'} of {number}"}
            for number in numbers
            for later in (1, 0)
        ],
        **captions,
    }
    (root / "annotations" / f"captions_{SPLIT}.json").write_text(json.dumps(document))
    if instances:
        boxes = {
            "images": document["images"],
            "categories": [{"id": 17, "name": "cat"}, {"id": 1, "name": "person"}],
            "annotations": [
                {"id": n, "image_id": 9, "category_id": category, "segmentation": [[0, 0, 1, 1]]}
                for n, category in enumerate((17, 1, 17))
            ],
        }
        (root / "annotations" / f"instances_{SPLIT}.json").write_text(json.dumps(boxes))
    return root


def indexed(root: Path, store: LocalStore, first: int = 0, limit: int | None = None) -> Ref:
    inventory = coco_inventory(str(root), SPLIT).digest
    ref, _ = index_coco.compute(
        store, source="coco", inventory=inventory, split=SPLIT, first=first, limit=limit, directory=str(root)
    )
    assert isinstance(ref, Ref)
    return ref


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def set_aside(store: LocalStore, ref: Ref) -> list[tuple[str, str]]:
    return [(row["image_id"], row["reason"]) for row in read_table(store, ref, name=QUARANTINE).to_pylist()]


def test_entries_are_sorted_by_image_id_with_first_caption_categories_and_licence(
    tmp_path: Path, store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = indexed(write_coco(tmp_path / "coco"), store)
    table = read_table(store, ref)
    assert table.schema.equals(ENTRY_SCHEMA)
    assert table["image_id"].to_pylist() == [f"coco:{number:012d}" for number in (9, 30, 139)]
    first = table.to_pylist()[0]
    assert first == {
        "position": 0,
        "image_id": "coco:000000000009",
        "file": "val2017/000000000009.jpg",
        "sha256": hashlib.sha256((tmp_path / "coco" / SPLIT / "000000000009.jpg").read_bytes()).hexdigest(),
        "group_id": "coco:000000000009",
        "prompt": None,
        "caption": "first of 9",
        "categories": ["person", "cat"],
        "licence": "Attribution License",
        "seed": None,
    }
    assert table["categories"].to_pylist()[1:] == [[], []]
    assert capsys.readouterr().out == ""
    assert set_aside(store, ref) == []


def test_a_range_selects_by_image_id_and_counts_positions_from_its_start(tmp_path: Path, store: LocalStore) -> None:
    rows = read_table(store, indexed(write_coco(tmp_path / "coco"), store, first=1, limit=1)).to_pylist()
    assert [(row["position"], row["image_id"]) for row in rows] == [(0, "coco:000000000030")]


def test_instances_may_be_missing(tmp_path: Path, store: LocalStore) -> None:
    root = write_coco(tmp_path / "coco", instances=False)
    assert check_coco(str(root), SPLIT) == []
    ref = indexed(root, store)
    assert notes_of(store, ref)["instances"] is False
    assert read_table(store, ref)["categories"].to_pylist() == [[], [], []]


def test_the_group_of_an_image_counts_within_its_source(tmp_path: Path, store: LocalStore) -> None:
    images = [{"id": 9, "file_name": "000000000009.jpg", "group": "cat"}]
    rows = read_table(store, indexed(write_coco(tmp_path / "coco", images=images), store)).to_pylist()
    assert [row["group_id"] for row in rows] == ["coco:cat"]


def test_entries_that_cannot_be_used_are_set_aside_with_their_reason(tmp_path: Path, store: LocalStore) -> None:
    images = [
        {"id": 1, "file_name": "../../etc/passwd"},
        {"id": 2, "file_name": "/etc/passwd"},
        {"id": 3, "file_name": "gone.jpg"},
        {"id": 9, "file_name": "000000000009.jpg"},
        {"id": 9, "file_name": "000000000030.jpg"},
        {"id": 10, "file_name": "..\\up.jpg"},
    ]
    ref = indexed(write_coco(tmp_path / "coco", images=images), store)
    assert read_table(store, ref)["file"].to_pylist() == ["val2017/000000000009.jpg"]
    assert sorted(set_aside(store, ref)) == [
        ("coco:000000000001", "unsafe-name"),
        ("coco:000000000002", "unsafe-name"),
        ("coco:000000000003", "missing-file"),
        ("coco:000000000009", "duplicate-id"),
        ("coco:000000000010", "unsafe-name"),
        ("coco:000000000139.jpg", "no-entry"),
    ]


def test_odd_captions_are_kept_and_lone_surrogates_replaced(tmp_path: Path, store: LocalStore) -> None:
    odd = ["\u202eright to left \U0001f408\u200d\U0001f9ba e\u0301 \x00", "half \ud83d a pair", " as it is \n"]
    annotations = [{"id": n, "image_id": i, "caption": odd[n]} for n, i in enumerate((9, 30, 139))]
    rows = read_table(store, indexed(write_coco(tmp_path / "coco", annotations=annotations), store)).to_pylist()
    assert [row["caption"] for row in rows] == [odd[0], "half \ufffd a pair", odd[2]]


def test_of_captions_the_first_that_says_something_is_taken_by_the_annotations_ids(
    tmp_path: Path, store: LocalStore
) -> None:
    given = {9: [(5, "fifth"), (1, ""), (3, " \n\u3000"), (4, "fourth")], 30: [(7, "\t"), (6, "")], 139: [(8, "nan")]}
    annotations = [{"id": n, "image_id": i, "caption": text} for i, told in given.items() for n, text in told]
    rows = read_table(store, indexed(write_coco(tmp_path / "coco", annotations=annotations), store)).to_pylist()
    assert [row["caption"] for row in rows] == ["fourth", None, None]


@pytest.mark.parametrize("group", [None, float("nan"), "", " "])
def test_a_group_that_is_not_stated_is_none(tmp_path: Path, store: LocalStore, group: object) -> None:
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "group": group} for n in (9, 30)]
    rows = read_table(store, indexed(write_coco(tmp_path / "coco", images=images), store)).to_pylist()
    assert [row["group_id"] for row in rows] == ["coco:000000000009", "coco:000000000030"]


def test_a_file_name_may_begin_with_the_split(tmp_path: Path, store: LocalStore) -> None:
    images = [{"id": n, "file_name": f"{SPLIT}/{n:012d}.jpg"} for n in (9, 30, 139)]
    ref = indexed(write_coco(tmp_path / "coco", images=images), store)
    assert read_table(store, ref)["file"].to_pylist() == [f"{SPLIT}/{n:012d}.jpg" for n in (9, 30, 139)]
    assert set_aside(store, ref) == []


def test_a_file_name_in_another_letter_case_means_the_only_file_of_these_letters(
    tmp_path: Path, store: LocalStore
) -> None:
    names = {1: "A.JPG", 2: f"{SPLIT}/B.JPG", 3: "c.jpg", 4: "C.JPG", 5: "D.jpg", 6: "e.JPG", 7: "E.JPG", 8: "f.JPG"}
    root = write_coco(tmp_path / "coco", images=[{"id": number, "file_name": name} for number, name in names.items()])
    for path in (root / SPLIT).iterdir():
        path.unlink()
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "d.JPG", "e.jpg", "f.JPG", "f.jpg"):
        (root / SPLIT / name).write_bytes(name.encode())
    ref = indexed(root, store)
    assert [(row["image_id"][-1], row["file"]) for row in read_table(store, ref).to_pylist()] == [
        ("1", f"{SPLIT}/a.jpg"), ("2", f"{SPLIT}/b.jpg"), ("3", f"{SPLIT}/c.jpg"), ("8", f"{SPLIT}/f.JPG"),
    ]  # fmt: skip
    # c.jpg is another's, two files are D.jpg, and two names are e.jpg.
    assert [key[-1] for key, reason in set_aside(store, ref) if reason == "missing-file"] == ["4", "5", "6", "7"]


def test_annotations_without_any_of_their_pictures_are_refused_with_the_reason(
    tmp_path: Path, store: LocalStore
) -> None:
    images = [{"id": n, "file_name": f"train2017/r{n:03d}.jpg"} for n in range(30)]
    root = write_coco(tmp_path / "coco", images=images)
    with pytest.raises(SpecError) as caught:
        indexed(root, store)
    assert "no picture is left of 30 in the range, of 30 annotated ones: missing-file 30 (first: " in str(caught.value)
    assert "train2017/r000.jpg)" in str(caught.value)
    assert "no-entry 3 (first: coco:000000000009.jpg" in str(caught.value)


def test_a_picture_without_caption_has_none(tmp_path: Path, store: LocalStore) -> None:
    rows = read_table(store, indexed(write_coco(tmp_path / "coco", annotations=[]), store)).to_pylist()
    assert [row["caption"] for row in rows] == [None, None, None]


@pytest.mark.parametrize("kind", ["captions", "instances"])
def test_an_annotation_file_that_is_cut_off_is_refused_before_any_work(
    tmp_path: Path, store: LocalStore, kind: str
) -> None:
    root = write_coco(tmp_path / "coco")
    path = root / "annotations" / f"{kind}_{SPLIT}.json"
    inventory = coco_inventory(str(root), SPLIT).digest
    path.write_bytes(path.read_bytes()[:-20])
    [missing] = check_coco(str(root), SPLIT)
    assert "cut off" in missing
    assert path.name in missing
    with pytest.raises(MissingInput, match="fetch/coco"):
        coco_inventory(str(root), SPLIT)
    with pytest.raises(MissingInput, match="cut off"):
        index_coco.compute(
            store, source="coco", inventory=inventory, split=SPLIT, first=0, limit=None, directory=str(root)
        )
    with pytest.raises(SpecError, match=f"{path.name} is not readable as JSON"):
        read_annotations(path, {})


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"images": {}}, "expected a list 'images', got dict"),
        ({"annotations": None}, "expected a list 'annotations', got NoneType"),
        ({"images": [{"id": 1}]}, r"images\[0\]: expected 'file_name' as str, got none"),
        ({"images": [{"id": "1", "file_name": "a.jpg"}]}, r"images\[0\]: expected 'id' as int, got '1'"),
        ({"images": [7]}, r"images\[0\]: expected an object, got int"),
        ({"images": [{"id": True, "file_name": "a.jpg"}]}, r"images\[0\]: expected 'id' as int, got True"),
        (
            {"images": [{"id": 2**63, "file_name": "a.jpg"}]},
            r"images\[0\]: expected 'id' as int, got 9223372036854775808",
        ),
        ({"images": [{"id": 1.5, "file_name": "a.jpg"}]}, r"images\[0\]: expected 'id' as int, got 1.5"),
        ({"images": [{"id": 1, "file_name": ["a.jpg"]}]}, r"images\[0\]: expected 'file_name' as str, got \['a.jpg'\]"),
        ({"annotations": [{"id": 1, "image_id": 9}]}, r"annotations\[0\]: expected 'caption' as str"),
        ({"annotations": [{"id": 1, "image_id": 9, "caption": None}]}, "expected 'caption' as str, got None"),
    ],
)
def test_annotations_without_their_keys_are_refused_with_one_sentence(
    tmp_path: Path, store: LocalStore, broken: dict[str, Any], sentence: str
) -> None:
    root = write_coco(tmp_path / "coco", **broken)
    with pytest.raises(SpecError, match=sentence):
        indexed(root, store)


def test_annotations_of_ten_gigabytes_are_refused_before_they_are_read(tmp_path: Path, store: LocalStore) -> None:
    root = write_coco(tmp_path / "coco")
    path = root / "annotations" / f"captions_{SPLIT}.json"
    with path.open("r+b") as file:
        file.truncate(10 * 10**9)
    [missing] = check_coco(str(root), SPLIT)
    assert f"{path.name} has 10000000000 bytes, more than" in missing
    with pytest.raises(MissingInput, match="more than 2000000000: split it"):
        indexed(root, store)
    with pytest.raises(SpecError, match="more than 2000000000: split it"):
        read_annotations(path, {})


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_annotations_nested_without_end_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"captions\.json is not readable as JSON"):
        read_annotations(path, {"images": {"id": int}})


def test_an_unknown_category_is_refused(tmp_path: Path, store: LocalStore) -> None:
    root = write_coco(tmp_path / "coco")
    path = root / "annotations" / f"instances_{SPLIT}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "categories": []}))
    with pytest.raises(SpecError, match="unknown category_id 17"):
        indexed(root, store)


def test_boxes_without_ids_are_refused_with_one_sentence(tmp_path: Path, store: LocalStore) -> None:
    root = write_coco(tmp_path / "coco")
    path = root / "annotations" / f"instances_{SPLIT}.json"
    boxes = [{"image_id": 9, "category_id": 17}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": boxes}))
    with pytest.raises(SpecError, match=r"annotations\[0\]: expected 'id' as int, got none"):
        indexed(root, store)


def test_licences_of_any_shape_do_not_matter(tmp_path: Path, store: LocalStore) -> None:
    rows = read_table(store, indexed(write_coco(tmp_path / "coco", licenses="none"), store)).to_pylist()
    assert [row["licence"] for row in rows] == [None] * 3


def test_a_check_names_everything_that_is_missing_with_its_remedy(tmp_path: Path) -> None:
    [nothing] = check_coco(str(tmp_path / "coco"), SPLIT)
    assert "fetch/coco" in nothing
    (tmp_path / "coco" / SPLIT).mkdir(parents=True)
    missing = check_coco(str(tmp_path / "coco"), SPLIT)
    assert len(missing) == 2
    assert all("fetch/coco" in line for line in missing)
    [unsafe] = check_coco(str(tmp_path / "coco"), "../val2017")
    assert "expected the name of a folder" in unsafe


def test_a_picture_folder_that_is_a_link_elsewhere_is_named(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    (root / SPLIT).rename(tmp_path / "elsewhere")
    (root / SPLIT).symlink_to(tmp_path / "elsewhere")
    [missing] = check_coco(str(root), SPLIT)
    assert "link that leads out" in missing


def test_the_inventory_follows_content_and_not_the_place(tmp_path: Path) -> None:
    one, two = write_coco(tmp_path / "one"), write_coco(tmp_path / "two")
    same = coco_inventory(str(one), SPLIT)
    assert coco_inventory(str(two), SPLIT) == same
    (two / SPLIT / "000000000009.jpg").write_bytes(b"longer than before")
    assert coco_inventory(str(two), SPLIT) != same
    (one / "annotations" / f"instances_{SPLIT}.json").unlink()
    assert coco_inventory(str(one), SPLIT) != same


def test_the_index_is_found_again_wherever_the_directory_lies(tmp_path: Path, store: LocalStore) -> None:
    one, two = write_coco(tmp_path / "one"), write_coco(tmp_path / "two")
    assert indexed(one, store) == indexed(two, store)


def test_annotations_are_read_as_utf8_with_or_without_a_mark(tmp_path: Path, store: LocalStore) -> None:
    images = [{"id": 9, "file_name": "000000000009.jpg"}]
    root = write_coco(tmp_path / "coco", images=images)
    path = root / "annotations" / f"captions_{SPLIT}.json"
    document = {**json.loads(path.read_text()), "annotations": [{"id": 1, "image_id": 9, "caption": "Ein Kätzchen"}]}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(document, ensure_ascii=False).encode())
    assert read_table(store, indexed(root, store))["caption"].to_pylist() == ["Ein Kätzchen"]


def test_real_coco_indexes_completely(store: LocalStore) -> None:
    shared = Path(os.environ.get("TELLTALE_SHARED", Path(__file__).parents[2].parent / "shared")) / "data" / "coco"
    if not shared.is_dir():
        pytest.skip("no real COCO directory: name one's parent with TELLTALE_SHARED")
    ref = indexed(shared, store)
    assert (ref.rows, set_aside(store, ref)) == (283, [])
    rows = read_table(store, ref).to_pylist()
    assert sum(not row["categories"] for row in rows) == 79
    assert all(row["caption"] and row["licence"] for row in rows)
