"""A directory or a Parquet file of pictures becomes an entry table, and its bytes are read without leaving it."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import BadImage, MissingInput, SpecError
from storage.local import LocalStore
from storage.objects import notes_of, read_table
from tasks.data import entries as entries_module
from tasks.data.entries import ENTRY_SCHEMA, read_entries, read_entry, row_name
from tasks.data.folder import check_folder, folder_inventory
from tasks.data.metadata import read_metadata
from tasks.data.sources.folder import unlocated
from tests.unit.indexed_folders import folder, indexed, rows_of, set_aside, source


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_directory_is_listed_recursively_and_other_files_are_set_aside(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "pictures", "b.JPEG", "a/2.png", "a/10.webp", "notes.txt", "drawing.svg")
    ref = indexed(store, source(root))
    assert read_table(store, ref).schema.equals(ENTRY_SCHEMA)
    assert [(row["position"], row["image_id"], row["file"]) for row in rows_of(store, ref)] == [
        (0, "sd:a/10.webp", "a/10.webp"),
        (1, "sd:a/2.png", "a/2.png"),
        (2, "sd:b.JPEG", "b.JPEG"),
    ]
    assert set_aside(store, ref) == [("sd:drawing.svg", "not-an-image"), ("sd:notes.txt", "not-an-image")]


METADATA: list[dict[str, Any]] = [
    {"file_name": "a.png", "prompt": "a cat", "seed": 7, "class_name": "cat", "licence": "MIT", "caption": "Cat."},
    {"file_name": "b.png", "prompt": "a cat", "seed": 8, "class_name": "cat"},
    {"file_name": "c.png", "prompt": "a dog", "group_id": "coco:000000000009", "class_name": "dog"},
]


def write_metadata(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
            writer.writeheader()
            writer.writerows(rows)
    else:
        columns = sorted({key for row in rows for key in row})
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), path)
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_metadata_of_every_form_says_the_same(tmp_path: Path, store: LocalStore, suffix: str) -> None:
    root = folder(tmp_path / "pictures", "a.png", "b.png", "c.png", "d.png")
    metadata = write_metadata(root / f"metadata{suffix}", METADATA)
    ref = indexed(store, source(root, metadata=str(metadata)))
    a, b, c, d = rows_of(store, ref)
    assert a["group_id"] == b["group_id"] != d["group_id"]
    assert a["group_id"].startswith("prompt:")
    assert (c["group_id"], d["group_id"]) == ("coco:000000000009", "sd:d.png")
    assert (a["seed"], a["prompt"], a["caption"], a["categories"], a["licence"]) == (
        "7",
        "a cat",
        "Cat.",
        ["cat"],
        "MIT",
    )
    assert (d["seed"], d["prompt"], d["categories"]) == (None, None, [])
    assert set_aside(store, ref) == []  # the metadata file in the folder is not taken for a picture
    assert notes_of(store, ref)["without_metadata"] == 1


def test_a_photograph_with_a_prompt_stays_its_own_group(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "pictures", "a.png", "b.png", "c.png")
    metadata = write_metadata(tmp_path / "about.json", METADATA)
    rows = rows_of(store, indexed(store, source(root, "real", metadata=str(metadata))))
    assert [row["group_id"] for row in rows] == ["sd:a.png", "sd:b.png", "coco:000000000009"]


def test_metadata_above_several_folders_is_matched_from_its_own_place(tmp_path: Path, store: LocalStore) -> None:
    folder(tmp_path / "set", "one/a.png", "two/a.png")
    rows = [{"file_name": "one/a.png", "prompt": "first"}, {"file_name": "two/a.png", "prompt": "second"}]
    metadata = write_metadata(tmp_path / "set" / "metadata.json", rows)
    ref = indexed(store, source(tmp_path / "set" / "two", metadata=str(metadata)))
    assert [row["prompt"] for row in rows_of(store, ref)] == ["second"]
    assert set_aside(store, ref) == []


def test_metadata_rows_that_lead_nowhere_are_set_aside(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "pictures", "a.png")
    names = ["a.png", "a.png", "gone.png", "../up.png", "/etc/passwd"]
    metadata = write_metadata(tmp_path / "about.json", [{"file_name": name} for name in names])
    ref = indexed(store, source(root, metadata=str(metadata)))
    assert ref.rows == 1
    assert sorted(set_aside(store, ref)) == [
        ("sd:../up.png", "unsafe-name"),
        ("sd:/etc/passwd", "unsafe-name"),
        ("sd:a.png", "duplicate-id"),
        ("sd:gone.png", "missing-file"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("m.json", b'[{"file_name": "a.png"}, {"fil', "not readable as json, it may be cut off"),
        ("m.json", b"[1]", "expected objects"),
        ("m.json", b'[{"name": "a.png"}]', r"expected a column 'file_name', got the columns \['name'\]"),
        ("m.json", b'{"images": [1]}', r"expected a column 'file_name', got the columns \['images'\]"),
        ("m.json", b"[]", r"expected a column 'file_name', got the columns \[\]"),
        ("m.jsonl", b'{"file_name": "a.png"}\n{"file', "not readable as jsonl"),
        ("m.csv", b"file_name\n\xff\xfe.png\n", "not readable as csv: byte 0xff at 10 is no UTF-8, save it as UTF-8"),
        ("m.csv", "file_name,prompt\na.png,Kätzchen\n".encode("cp1252"), "byte 0xe4 at 24 is no UTF-8, save it as"),
        ("m.csv", "file_name,prompt\na.png,x\n".encode("utf-16"), "byte 0xff at 0 is no UTF-8, save it as UTF-8"),
        ("m.csv", b"file_name,prompt\na.png,a cat, sitting\n", "line 2 has 3 fields, the header has 2: put fields"),
        ("m.csv", b'file_name,prompt\na.png,"a cat\nb.png,a dog\n', "not readable as csv, it may be cut off"),
        ("m.csv", b"file_name,prompt,prompt\na.png,x,y\n", "two columns are called 'prompt'"),
        ("m.csv", b"file_name,Prompt,PROMPT\na.png,x,y\n", "two columns are called 'Prompt'"),
        ("m.csv", b"a_file_name,b_file_name\na.png,b.png\n", "expected one column of file names, got"),
        (
            "m.csv",
            b"file_name\n",
            "none of its 0 rows names a picture of sd: they name nothing; the pictures are 'a.png'",
        ),
        ("m.parquet", b"PAR1 and no more", "not readable as Parquet"),
        ("m.xlsx", b"", "expected metadata as one of"),
    ],
)
def test_broken_metadata_is_refused_with_one_sentence(
    tmp_path: Path, store: LocalStore, name: str, content: bytes, sentence: str
) -> None:
    root = folder(tmp_path / "pictures", "a.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=sentence):
        indexed(store, source(root, metadata=str(tmp_path / name)))


def test_metadata_texts_that_utf8_cannot_write_are_mended(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "pictures", "a.png")
    metadata = write_metadata(tmp_path / "m.json", [{"file_name": "a.png", "prompt": "half \ud83d"}])
    assert rows_of(store, indexed(store, source(root, metadata=str(metadata))))[0]["prompt"] == "half \ufffd"
    assert read_metadata(metadata).rows[0]["file_name"] == "a.png"


def test_a_file_name_that_is_no_text_is_set_aside(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "pictures", "a.png")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.png")).write_bytes(b"x")
    ref = indexed(store, source(root))
    assert [row["file"] for row in rows_of(store, ref)] == ["a.png"]
    assert set_aside(store, ref) == [("sd:\ufffd.png", "unsafe-name")]


def test_limits_take_the_first_by_name(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "pictures", "a.png", "b.png", "c.png")
    metadata = str(write_metadata(tmp_path / "about.json", METADATA))
    files = [row["file"] for row in rows_of(store, indexed(store, source(root, limit=2)))]
    assert files == ["a.png", "b.png"]
    by_class = source(root, metadata=metadata, limit_per_class=1)
    assert [(row["position"], row["file"]) for row in rows_of(store, indexed(store, by_class))] == [
        (0, "a.png"),
        (1, "c.png"),
    ]


def test_a_limit_per_class_needs_classes(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "pictures", "a.png", "b.png")
    with pytest.raises(SpecError, match="limit_per_class needs metadata"):
        indexed(store, source(root, limit_per_class=1))
    metadata = write_metadata(tmp_path / "about.json", [{"file_name": "a.png", "class_index": 0}])
    ref = indexed(store, source(root, limit_per_class=1, metadata=str(metadata)))
    assert ref.rows == 1
    assert set_aside(store, ref) == [("sd:b.png", "no-class")]


PICTURES = [b"first", b"second", None, b"fourth"]


def parquet(path: Path, column: str, paths: list[str | None] | None = None, **further: list[Any]) -> Path:
    cells: Any = PICTURES
    kind: pa.DataType = pa.binary()
    if paths is not None:
        cells = [{"bytes": data, "path": name} for data, name in zip(PICTURES, paths, strict=True)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(cells, kind), **further})
    pq.write_table(table, path, row_group_size=2)
    return path


@pytest.mark.parametrize(
    ("column", "paths"),
    [("image", ["a", "b", "c", "d"]), ("image", ["a", "b", None, "a"]), ("image", None), ("bytes", None)],
)
def test_a_parquet_file_is_indexed_by_rows_and_read_by_them(
    tmp_path: Path, store: LocalStore, column: str, paths: list[str | None] | None
) -> None:
    path = parquet(tmp_path / "set.parquet", column, paths, prompt=["p", "p", "q", None], seed=[1, 2, 3, None])
    rows = rows_of(store, indexed(store, source(path)))
    named = ["a", "b", "c", "d"] if paths == ["a", "b", "c", "d"] else [f"row-{n:09d}" for n in range(4)]
    assert [row["image_id"] for row in rows] == [f"sd:{name}" for name in named]
    assert [row["file"] for row in rows] == [row_name(n) for n in range(4)]
    assert rows[0]["group_id"] == rows[1]["group_id"] != rows[2]["group_id"]
    assert [row["seed"] for row in rows] == ["1", "2", "3", None]
    read = list(read_entries(path, [row_name(n) for n in (1, 2, 3)]))
    assert [name for name, _ in read] == ["row:1", "row:2", "row:3"]
    assert read[0][1] == b"second"
    assert isinstance(read[1][1], BadImage)
    assert read[2][1] == b"fourth"


def test_rows_are_found_in_any_row_group_and_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries_module, "_ROWS_AT_ONCE", 3)
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"bytes": [b"%d" % n for n in range(40)]}), path, row_group_size=7)
    for wanted in ([0, 39], [6, 7, 8], list(range(40)), [21], []):
        assert [data for _, data in read_entries(path, [row_name(n) for n in wanted])] == [b"%d" % n for n in wanted]
    [(_, beyond)] = read_entries(path, ["row:40"])
    assert isinstance(beyond, BadImage)
    with pytest.raises(ValueError, match="ascending"):
        list(read_entries(path, ["row:2", "row:1"]))


def test_a_check_names_what_is_missing(tmp_path: Path) -> None:
    assert len(check_folder(source(tmp_path / "none", metadata=str(tmp_path / "none.json")))) == 2
    (tmp_path / "empty").mkdir()
    assert "empty" in check_folder(source(tmp_path / "empty"))[0]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    assert "cut off" in check_folder(source(tmp_path / "broken.parquet"))[0]
    pq.write_table(pa.table({"data": [b"x"], "id": [1]}), tmp_path / "other.parquet")
    [other] = check_folder(source(tmp_path / "other.parquet"))
    assert "expected a column `image` with encoded pictures" in other
    assert "got the columns ['data', 'id']; ['data'] can be named in a source of `kind: column`" in other
    with pytest.raises(MissingInput):
        folder_inventory(source(tmp_path / "none"))


def test_the_inventory_follows_content_and_not_the_place(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", "a.png"), folder(tmp_path / "two", "a.png")
    assert folder_inventory(source(one)) == folder_inventory(source(two))
    folder(two, "b.png")
    assert folder_inventory(source(one)) != folder_inventory(source(two))
    about = write_metadata(tmp_path / "about.json", METADATA)
    described = folder_inventory(source(one, metadata=str(about)))
    write_metadata(about, METADATA[:1])
    assert folder_inventory(source(one, metadata=str(about))) != described
    first = parquet(tmp_path / "one.parquet", "bytes")
    second = parquet(tmp_path / "two.parquet", "bytes")
    assert folder_inventory(source(first)) == folder_inventory(source(second))
    parquet(second, "bytes", seed=[1, 2, 3, 4])
    assert folder_inventory(source(first)) != folder_inventory(source(second))


def test_an_unlocated_source_holds_no_path(tmp_path: Path) -> None:
    given = source(tmp_path, metadata=str(tmp_path / "m.json"), limit=3)
    assert str(tmp_path) not in unlocated(given).model_dump_json()
    assert unlocated(given).limit == 3


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "", ".", "a\0.png", "..\\x"])
def test_no_name_is_read_outside_its_directory(tmp_path: Path, name: str) -> None:
    folder(tmp_path, "secret.png", "root/a.png")
    with pytest.raises(BadImage) as caught:
        read_entry(tmp_path / "root", name)
    assert caught.value.reason == "unsafe-name"


def test_a_link_is_read_only_where_it_stays_inside(tmp_path: Path) -> None:
    root = folder(tmp_path, "secret.png", "root/a.png") / "root"
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "outside.png").symlink_to(tmp_path / "secret.png")
    (root / "up").symlink_to(tmp_path)
    assert read_entry(root, "inside.png") == b"root/a.png"
    for name in ("outside.png", "up/secret.png"):
        with pytest.raises(BadImage) as caught:
            read_entry(root, name)
        assert caught.value.reason == "unsafe-name"


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, "a.png", "folder.png/b.png")
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.setattr(entries_module, "MAX_FILE_BYTES", 4)
    reasons = {}
    for name, result in read_entries(tmp_path, ["a.png", "gone.png", "folder.png", "pipe.png", "a.png/b"]):
        assert isinstance(result, BadImage)
        reasons[name] = result.reason
    assert reasons == {
        "a.png": "too-large",
        "gone.png": "missing-file",
        "folder.png": "unreadable",
        "pipe.png": "unreadable",
        "a.png/b": "missing-file",
    }


# Claims and sizes from outside


def large_file(path: Path, size: int) -> Path:
    """A file of so many bytes that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_metadata_of_ten_gigabytes_are_refused_before_they_are_read(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"a picture")
    metadata = large_file(tmp_path / f"metadata{suffix}", 10 * 10**9)
    (missing,) = check_folder(source(tmp_path / "pictures", metadata=str(metadata)))
    assert "has 10000000000 bytes, more than" in missing
    with pytest.raises(SpecError, match="more than 2000000000: split it"):
        read_metadata(metadata)


def test_a_json_list_in_a_thousand_lists_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(SpecError, match="not readable as json"):
        read_metadata(path)


def test_a_parquet_footer_that_claims_too_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "many.parquet"
    pq.write_table(pa.table({"image": pa.nulls(1_000, pa.binary())}), path)
    monkeypatch.setattr(entries_module, "MAX_ROWS", 999)
    (missing,) = check_folder(source(path))
    assert "has 1000 rows, more than 999" in missing
    with pytest.raises(SpecError, match="1000 rows, more than 999"):
        read_metadata(path)


def test_a_parquet_footer_of_all_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = large_file(tmp_path / "footer.parquet", 10 * 10**9)
    with path.open("r+b") as file:
        file.seek(-8, 2)
        file.write((4 * 10**9).to_bytes(4, "little") + b"PAR1")
    (missing,) = check_folder(source(path))
    assert "a footer of 4000000000 bytes, more than" in missing


def test_pictures_of_a_huge_row_group_are_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.parquet"
    pictures = [{"bytes": bytes([number]) * 100, "path": f"{number}.jpg"} for number in range(20)]
    pq.write_table(pa.table({"image": pictures}), path, row_group_size=10, use_dictionary=False, compression="none")
    sizes = pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size
    monkeypatch.setattr(entries_module, "MAX_ROW_GROUP_BYTES", sizes - 1)
    found = dict(read_entries(path, ["row:0", "row:15"]))
    reasons = {name: one.reason for name, one in found.items() if isinstance(one, BadImage)}
    assert reasons == {"row:0": "too-large", "row:15": "too-large"}
    monkeypatch.setattr(entries_module, "MAX_ROW_GROUP_BYTES", sizes)
    assert dict(read_entries(path, ["row:0"])) == {"row:0": bytes(100)}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (pa.int64(), "'image' is int64"),
        (pa.string(), "'image' is text: paths are not followed and base64 is not decoded"),
        (pa.large_string(), "'image' is text"),
        (pa.list_(pa.binary()), "'image' is list<element: binary>: pixels and lists of pictures are not read"),
        (pa.list_(pa.uint8()), "'image' is list<element: uint8>: pixels and lists"),
        (pa.list_(pa.uint8(), 3), "'image' is fixed_size_list<element: uint8>[3]: pixels and lists"),
        (pa.struct([("path", pa.string())]), "'image' is struct<path: string>"),
        (pa.struct([("bytes", pa.string()), ("path", pa.string())]), "'image' is struct<bytes: string, path: string>"),
    ],
)
def test_a_parquet_file_whose_pictures_are_none_is_refused_with_what_is_read(
    tmp_path: Path, kind: pa.DataType, told: str
) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": pa.nulls(3, kind)}), path)
    (missing,) = check_folder(source(path))
    assert (
        "expected a column `image` with encoded pictures (JPEG, PNG, ...) as binary, or as struct of `bytes` and "
        f"`path`, got {told}" in missing
    )


def test_lists_of_pictures_are_told_as_what_they_are(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"images": pa.nulls(2, kind)}), tmp_path / "set.parquet")
    (missing,) = check_folder(source(tmp_path / "set.parquet"))
    assert "'images' is list<" in missing
    assert "lists of pictures are not read, put one file's bytes into each row" in missing


@pytest.mark.parametrize(
    "column", ["jpg", "png", "jpeg", "webp", "img", "picture", "image_bytes", "Image", "image.bytes"]
)
def test_the_usual_names_of_a_column_of_pictures_are_known(tmp_path: Path, store: LocalStore, column: str) -> None:
    path = parquet(tmp_path / "set.parquet", column, text=["p", "p", "q", None], md5=[b"1", b"2", b"3", b"4"])
    rows = rows_of(store, indexed(store, source(path)))
    assert [row["prompt"] for row in rows] == ["p", "p", "q", None]
    assert [data for _, data in read_entries(path, [row["file"] for row in rows[:2]])] == PICTURES[:2]


def test_flattened_columns_keep_their_paths(tmp_path: Path, store: LocalStore) -> None:
    flattened: dict[str, Any] = {"image.path": ["a", "b", "c", "d"]}
    path = parquet(tmp_path / "set.parquet", "image.bytes", **flattened)
    assert [row["image_id"] for row in rows_of(store, indexed(store, source(path)))] == ["sd:a", "sd:b", "sd:c", "sd:d"]


def test_pictures_in_a_struct_of_any_name_are_found_where_there_is_one(tmp_path: Path, store: LocalStore) -> None:
    path = parquet(tmp_path / "set.parquet", "image_gen0", ["a", "b", "c", "d"])
    assert len(rows_of(store, indexed(store, source(path)))) == 4


def test_several_columns_of_pictures_are_refused_by_name(tmp_path: Path) -> None:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for names, kind in ((["jpg", "png"], pa.binary()), (["image_gen0", "image_gen1"], struct)):
        pq.write_table(pa.table({name: pa.array([None, None], kind) for name in names}), tmp_path / "set.parquet")
        (missing,) = check_folder(source(tmp_path / "set.parquet"))
        assert f"several columns hold pictures, {names}: make each a source of `kind: column`" in missing


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("kinds", "counted"),
    [
        ({"mask": STRUCT, "image": STRUCT}, ["mask", "image"]),
        ({"image": STRUCT, "generated_image": STRUCT, "md5": pa.binary()}, ["image", "generated_image"]),
        ({"image": pa.binary(), "source": STRUCT}, ["image", "source"]),
        ({"image": pa.binary(), "generated_image": pa.binary()}, ["image", "generated_image"]),
        ({"jpg": pa.binary(), "mask.png": pa.binary()}, ["jpg", "mask.png"]),
        ({"image": pa.binary(), "editedImage": pa.large_binary()}, ["image", "editedImage"]),
        ({"image.bytes": pa.binary(), "mask.bytes": pa.binary()}, ["image.bytes", "mask.bytes"]),
        ({"image_gen0": STRUCT, "image_original": pa.binary()}, ["image_gen0", "image_original"]),
    ],
)
def test_another_column_of_pictures_beside_the_image_is_refused_by_name(
    tmp_path: Path, kinds: dict[str, pa.DataType], counted: list[str]
) -> None:
    cells = {STRUCT: {"bytes": b"x", "path": "a"}}
    table = {name: pa.array([cells.get(kind, b"x")], kind) for name, kind in kinds.items()}
    pq.write_table(pa.table(table), tmp_path / "set.parquet")
    (missing,) = check_folder(source(tmp_path / "set.parquet"))
    assert f"several columns hold pictures, {counted}: make each a source of `kind: column`" in missing


@pytest.mark.parametrize(
    "column", ["md5", "embedding", "image_md5", "image_embedding", "clip_features", "image_sha256", "json", "latents"]
)
def test_bytes_that_are_not_called_like_pictures_are_none(tmp_path: Path, store: LocalStore, column: str) -> None:
    cells = pa.array([{"bytes": b"x", "path": "a"}], STRUCT)
    pq.write_table(pa.table({"image": cells, column: pa.array([b"x"])}), tmp_path / "set.parquet")
    assert len(rows_of(store, indexed(store, source(tmp_path / "set.parquet")))) == 1


def test_a_parquet_file_of_paths_without_bytes_or_of_no_rows_is_refused_before_the_run(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": None, "path": f"/home/me/{number}.png"} for number in range(5)]
    pq.write_table(pa.table({"image": pa.array(cells, kind)}), tmp_path / "set.parquet", row_group_size=2)
    assert (
        "'image.bytes' is null in all rows: embed the pictures' bytes"
        in check_folder(source(tmp_path / "set.parquet"))[0]
    )
    pq.write_table(pa.table({"image": pa.array([], kind)}), tmp_path / "set.parquet")
    assert "the file has no rows" in check_folder(source(tmp_path / "set.parquet"))[0]


def test_a_folder_of_which_nothing_is_left_says_why(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "pictures", *(f"IMG_{number:02d}" for number in range(12)), "a/read.txt")
    with pytest.raises(SpecError) as caught:
        indexed(store, source(root))
    assert str(caught.value).startswith(
        "sd: no picture is left of 13: not-an-image 13 (first: sd:IMG_00: the suffix is missing; read are ."
    )
    (root / "a.png").touch()
    with pytest.raises(SpecError, match="limit_per_class needs metadata"):
        indexed(store, source(root, limit_per_class=1))


def test_a_link_to_a_folder_elsewhere_is_refused_by_name_and_one_within_is_set_aside(
    tmp_path: Path, store: LocalStore
) -> None:
    root = folder(tmp_path, "fakes/a.png", "fakes/deep/b.png", "elsewhere/c.png") / "fakes"
    (root / "again").symlink_to(root / "deep")
    (root / "gone.png").symlink_to(root / "nothing.png")
    ref = indexed(store, source(root))
    assert [row["image_id"] for row in rows_of(store, ref)] == ["sd:a.png", "sd:deep/b.png"]
    assert set_aside(store, ref) == [("sd:again", "link-to-folder"), ("sd:gone.png", "missing-file")]
    (root / "more").symlink_to(tmp_path / "elsewhere")
    [missing] = check_folder(source(root))
    assert "'more': links to folders outside, whose pictures would be missing" in missing
