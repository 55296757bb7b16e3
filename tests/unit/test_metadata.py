"""Metadata of published sets: which columns say what, which picture a row names, and what is said of the rest."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import SpecError
from storage.objects import Ref, notes_of, read_table
from storage.store import LocalStore
from tasks.data.entries import QUARANTINE, prompt_group, stated_text
from tasks.data.folder import check_folder, folder_inventory, index_folder, unlocated, with_metadata_above
from tasks.data.metadata import NamedPictures, read_metadata
from tasks.spec import FolderSource

NAN = float("nan")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def pictures(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def source(path: Path, label: str = "fake", **fields: Any) -> FolderSource:
    return FolderSource.model_validate({"name": "sd", "path": str(path), "label": label, **fields})


def indexed(store: LocalStore, given: FolderSource) -> Ref:
    ref, _ = index_folder.compute(
        store,
        source=unlocated(given),
        inventory=folder_inventory(given).digest,
        path=given.path,
        metadata=given.metadata,
    )
    assert isinstance(ref, Ref)
    return ref


def rows_of(store: LocalStore, ref: Ref) -> list[dict[str, Any]]:
    return list(read_table(store, ref).to_pylist())


def set_aside(store: LocalStore, ref: Ref) -> list[tuple[str, str]]:
    return [(row["image_id"], row["reason"]) for row in read_table(store, ref, name=QUARANTINE).to_pylist()]


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def told(tmp_path: Path, store: LocalStore, label: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """What the index says of `0.png`, `1.png`, ..., each described by one row."""
    root = pictures(tmp_path / "pictures", *(f"{number}.png" for number in range(len(rows))))
    lines = ({"file_name": f"{number}.png", **row} for number, row in enumerate(rows))
    return rows_of(store, indexed(store, source(root, label, metadata=str(write_lines(tmp_path / "m.jsonl", *lines)))))


# What is stated


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (NAN, None),
        ("", None),
        (" \n\t\u3000", None),
        ("nan", None),
        ("NaN", None),
        ("None", None),
        ("null", None),
        ("<NA>", None),
        ([], None),
        (["", None, "a cat", "a dog"], "a cat"),
        ("NA", "NA"),
        ("a nan", "a nan"),
        (" a cat ", " a cat "),
        (7, "7"),
        (7.0, "7"),
        (7.5, "7.5"),
        (-3.0, "-3"),
        (2**64 - 1, "18446744073709551615"),
        (float("inf"), "inf"),
        (True, "True"),
        ("007", "007"),
        ("1e5", "1e5"),
        ("1.0", "1.0"),
        (b"K\xc3\xa4tzchen", "K\u00e4tzchen"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_what_says_nothing_is_nothing_and_all_else_is_its_text(value: object, text: str | None) -> None:
    assert stated_text(value) == text


def test_prompts_that_differ_in_white_space_or_unicode_form_are_one_group() -> None:
    same = ["a caf\u00e9  table", " a cafe\u0301 table\n", "a\u00a0caf\u00e9\r\ntable", "a caf\u00e9 table"]
    assert len({prompt_group(prompt) for prompt in same}) == 1
    assert len({prompt_group(prompt) for prompt in ("a cat", "A cat", "a cat.", "acat")}) == 4


@pytest.mark.parametrize("column", ["prompt", "text", "caption", "captions", "Prompt", "TEXT", " Caption "])
def test_every_usual_name_of_a_prompt_groups_fakes_and_only_fakes(
    tmp_path: Path, store: LocalStore, column: str
) -> None:
    given = [{column: "a cat"}, {column: " a  cat"}, {column: "a dog"}]
    fakes = told(tmp_path, store, "fake", *given)
    assert [row["prompt"] for row in fakes] == ["a cat", " a  cat", "a dog"]
    assert fakes[0]["group_id"] == fakes[1]["group_id"] == prompt_group("a cat") != fakes[2]["group_id"]
    photographs = told(tmp_path, store, "real", *given)
    assert [row["group_id"] for row in photographs] == ["sd:0.png", "sd:1.png", "sd:2.png"]
    is_prompt = column.strip().casefold() == "prompt"
    assert [row["caption"] for row in photographs] == ([None] * 3 if is_prompt else ["a cat", " a  cat", "a dog"])


def test_of_several_columns_the_first_that_says_something_is_the_prompt(tmp_path: Path, store: LocalStore) -> None:
    given = [
        {"caption": "c", "text": "t", "prompt": "p"},
        {"caption": "c", "text": "t", "prompt": NAN},
        {"caption": "c", "text": " ", "prompt": None},
        {"caption": None, "text": "None", "prompt": "nan"},
    ]
    assert [row["prompt"] for row in told(tmp_path, store, "fake", *given)] == ["p", "t", "c", None]
    assert [row["caption"] for row in told(tmp_path, store, "real", *given)] == ["c", "c", "c", None]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_prompts_that_are_not_a_number_are_no_group(tmp_path: Path, store: LocalStore, suffix: str) -> None:
    root = pictures(tmp_path / "pictures", "a.png", "b.png", "c.png", "d.png")
    metadata = tmp_path / f"m{suffix}"
    if suffix == ".jsonl":
        metadata.write_text(
            '{"file_name": "a.png", "prompt": NaN, "group_id": NaN}\n{"file_name": "b.png", "prompt": NaN}'
        )
    elif suffix == ".csv":
        metadata.write_text("file_name,prompt,group_id\na.png,nan,\nb.png,NaN,nan\n")
    else:
        columns = {"file_name": ["a.png", "b.png"], "prompt": [NAN, NAN], "group_id": [NAN, NAN]}
        pq.write_table(pa.table(columns), metadata)
    ref = indexed(store, source(root, metadata=str(metadata)))
    assert [(row["prompt"], row["group_id"]) for row in rows_of(store, ref)] == [
        (None, f"sd:{name}.png") for name in "abcd"
    ]


def test_a_group_is_the_same_number_whether_or_not_a_neighbour_lacks_it(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "pictures", "a.png", "b.png")
    pq.write_table(pa.table({"file_name": ["a.png", "b.png"], "group_id": [7.0, None]}), tmp_path / "floats.parquet")
    pq.write_table(pa.table({"file_name": ["a.png", "b.png"], "group_id": [7, 8]}), tmp_path / "ints.parquet")
    (tmp_path / "texts.csv").write_text("file_name,group_id\na.png,7.0\nb.png,\n")
    for name, groups in (
        ("floats.parquet", ["7", "sd:b.png"]),
        ("ints.parquet", ["7", "8"]),
        ("texts.csv", ["7", "sd:b.png"]),
    ):
        rows = rows_of(store, indexed(store, source(root, metadata=str(tmp_path / name))))
        assert [row["group_id"] for row in rows] == groups


@pytest.mark.parametrize(
    ("seed", "text"),
    [
        (2**64 - 1, "18446744073709551615"),
        (-1, "-1"),
        ("1.0", "1.0"),
        (1.0, "1"),
        ("seven", "seven"),
        ([42, 43], "42"),
        (NAN, None),
        (None, None),
        ("", None),
    ],
)
def test_a_seed_is_kept_as_it_is_stated(tmp_path: Path, store: LocalStore, seed: object, text: str | None) -> None:
    assert [row["seed"] for row in told(tmp_path, store, "fake", {"seed": seed})] == [text]


def test_seeds_of_64_unsigned_bits_come_out_of_parquet_whole(tmp_path: Path, store: LocalStore) -> None:
    table = {"image": [b"x", b"y"], "seed": pa.array([2**64 - 1, 2**63], pa.uint64())}
    pq.write_table(pa.table(table), tmp_path / "set.parquet")
    rows = rows_of(store, indexed(store, source(tmp_path / "set.parquet")))
    assert [row["seed"] for row in rows] == ["18446744073709551615", "9223372036854775808"]


# Files of every writer


def test_lines_are_parted_by_newlines_alone(tmp_path: Path) -> None:
    prompts = ["one\u2028two", "one\x85two", "one\u2029two\x0b\x1c"]
    path = tmp_path / "m.jsonl"
    text = "\r\n".join(json.dumps({"file_name": "a.png", "prompt": one}, ensure_ascii=False) for one in prompts)
    path.write_bytes(text.encode())
    assert [row["prompt"] for row in read_metadata(path)] == prompts


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_of_spreadsheets_is_read(tmp_path: Path, delimiter: str, mark: bytes) -> None:
    lines = [["file_name", "prompt", ""], ["a.png", '"one; two,\tand\nthree"', ""], ["007", "1e5", ""], ["", "", ""]]
    (tmp_path / "m.csv").write_bytes(mark + "\r\n".join(delimiter.join(line) for line in lines).encode())
    assert read_metadata(tmp_path / "m.csv") == [
        {"file_name": "a.png", "prompt": "one; two,\tand\nthree"},
        {"file_name": "007", "prompt": "1e5"},
    ]


@pytest.mark.parametrize("column", ["file_name", "image_file_name", "filename", "image_path", "image", "FILE_NAME"])
def test_the_usual_names_of_a_column_of_file_names_are_known(tmp_path: Path, column: str) -> None:
    assert read_metadata(write_lines(tmp_path / "m.jsonl", {column: "a.png"})) == [{"file_name": "a.png"}]


def test_rows_may_be_an_object_of_objects_by_name(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"/set/a": {"caption": "x"}, "/set/b": {"caption": "y"}}, indent=1))
    assert read_metadata(tmp_path / "m.json") == [
        {"file_name": "/set/a", "caption": "x"},
        {"file_name": "/set/b", "caption": "y"},
    ]


# Which picture a row names


@pytest.mark.parametrize(
    ("stated", "picture"),
    [
        ("a/x.png", "a/x.png"),
        ("./a/x.png", "a/x.png"),
        ("a//x.png", "a/x.png"),
        ("a\\x.png", "a/x.png"),
        (".\\a\\x.png", "a/x.png"),
        ("A/X.PNG", "a/x.png"),
        ("a/x", "a/x.png"),
        ("x.png", "a/x.png"),
        ("x", None),
        ("set/a/x.png", "a/x.png"),
        ("/home/me/set/a/x.png", "a/x.png"),
        ("C:\\Users\\me\\Set\\a\\x.png", "a/x.png"),
        ("/elsewhere/out/a/x", "a/x.png"),
        ("../set/a/x.png", "a/x.png"),
        ("https://example.org/set/b%20c.png", "b c.png"),
        ("https://example.org/other/b%20c.png", "b c.png"),
        ("b%20c.png", "b c.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("CAF\u00c9.png", "caf\u00e9.png"),
        ("twice.png", None),
        ("one/twice.png", "one/twice.png"),
        ("twin", None),
        ("twin.png", "twin.png"),
        ("TWIN.jpg", "twin.jpg"),
        ("Case.png", "Case.png"),
        ("CASE.png", None),
        ("other/b c.png", None),
        ("/b c.png", "b c.png"),
        ("gone.png", None),
        ("", None),
        (".", None),
        ("..", None),
    ],
)
def test_a_name_written_otherwise_is_found_where_one_picture_can_be_meant(stated: str, picture: str | None) -> None:
    names = [
        "a/x.png", "b c.png", "caf\u00e9.png", "one/twice.png", "two/twice.png",
        "twin.png", "twin.jpg", "Case.png", "case.png",
    ]  # fmt: skip
    found = NamedPictures(names, "set/").find(stated)
    assert (found and found[1]) == picture


def test_the_name_as_it_stands_comes_before_what_is_like_it(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "set", "a.png")
    rows = [{"file_name": "A.png", "prompt": "other case"}, {"file_name": "a.png", "prompt": "this"}]
    ref = indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))
    assert [row["prompt"] for row in rows_of(store, ref)] == ["this"]
    assert set_aside(store, ref) == [("sd:a.png", "duplicate-id")]


@pytest.mark.parametrize(("prompts", "taken"), [(["x", "x"], "x"), (["x", "y"], None)])
def test_two_rows_that_may_mean_one_picture_say_the_same_or_nothing(
    tmp_path: Path, store: LocalStore, prompts: list[str], taken: str | None
) -> None:
    root = pictures(tmp_path / "fake", "a.png", "b.png")
    names = ["/gen/one/a.png", "/gen/two/a.png"]
    rows = [{"file_name": name, "prompt": prompt} for name, prompt in zip(names, prompts, strict=True)]
    rows.append({"file_name": "b.png", "prompt": "z"})
    ref = indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))
    assert [row["prompt"] for row in rows_of(store, ref)] == [taken, "z"]
    reasons = ["duplicate-id"] if taken else ["ambiguous-name", "ambiguous-name"]
    assert set_aside(store, ref) == [("sd:a.png", reason) for reason in reasons]
    told = "sd: 2 of 3 rows of m.jsonl (67 %, first: sd:a.png) may mean the same picture"
    assert (told in notes_of(store, ref)["warnings"]) == (taken is None)


def test_metadata_of_which_every_row_may_mean_several_pictures_are_refused(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "fake", "a.png")
    rows = [{"file_name": f"/gen/{folder}/a.png", "prompt": folder} for folder in ("one", "two")]
    with pytest.raises(
        SpecError, match=r"none of its 2 rows names a picture of sd: .*; ambiguous-name 2 \(first: sd:a"
    ):
        indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))


def test_rows_of_another_folder_are_not_taken_for_the_pictures_of_this_one(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "two", "a.png")
    metadata = write_lines(tmp_path / "elsewhere" / "m.jsonl", {"file_name": "one/a.png", "prompt": "x"})
    with pytest.raises(SpecError, match="none of its 1 rows names a picture"):
        indexed(store, source(root, metadata=str(metadata)))


def test_of_absolute_paths_those_below_a_folder_of_the_same_name_are_meant(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "two", "a.png")
    rows = [{"file_name": f"/gen/{folder}/a.png", "prompt": folder} for folder in ("one", "two", "three")]
    ref = indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))
    assert [row["prompt"] for row in rows_of(store, ref)] == ["two"]


def test_metadata_of_other_pictures_are_refused_with_names_of_both(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "set", "a.png", "b.png", "c.png", "d.png")
    metadata = write_lines(tmp_path / "m.jsonl", *({"file_name": f"{n}.jpg"} for n in range(5)))
    with pytest.raises(SpecError) as caught:
        indexed(store, source(root, metadata=str(metadata)))
    assert str(caught.value) == (
        "m.jsonl: none of its 5 rows names a picture of sd: they name '0.jpg', '1.jpg', '2.jpg', ...; "
        "the pictures are 'a.png', 'b.png', 'c.png', ..."
    )


def test_rows_and_pictures_that_do_not_meet_are_warned_of_with_their_share(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "set", "a.png", "b.png", "c.png", "d.png")
    rows = [{"file_name": name, "prompt": name} for name in ("a.png", "b.png", "c.png", "x.png", "y.png")]
    ref = indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))
    assert notes_of(store, ref)["warnings"] == [
        "sd: 2 of 5 rows of m.jsonl (40 %, first: x.png) name no picture",
        "sd: 1 of 4 pictures (25 %, first: d.png) have no row in m.jsonl",
        "sd: 1 of 4 pictures (25 %, first: sd:d.png) have neither prompt nor group: each is its own",
    ]
    assert set_aside(store, ref) == [("sd:x.png", "missing-file"), ("sd:y.png", "missing-file")]
    whole = write_lines(tmp_path / "m.jsonl", *({"file_name": f"{name}.png", "prompt": "p"} for name in "abcd"))
    assert notes_of(store, indexed(store, source(root, metadata=str(whole))))["warnings"] == []


def test_metadata_without_any_known_column_are_warned_of(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "set", "a.png")
    metadata = write_lines(tmp_path / "m.jsonl", {"file_name": "a.png", "instruction": "a cat"})
    [warning] = notes_of(store, indexed(store, source(root, metadata=str(metadata))))["warnings"]
    assert warning.startswith("sd: m.jsonl has none of the columns prompt, text, caption, ")


def test_a_row_without_a_name_is_set_aside(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "set", "a.png", "1.png")
    rows = [{"file_name": "a.png"}, {"file_name": None, "prompt": "x"}, {"file_name": 1, "prompt": "one"}]
    ref = indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))
    assert set_aside(store, ref) == [("sd:row 1 of m.jsonl", "no-name")]
    assert [row["prompt"] for row in rows_of(store, ref)] == ["one", None]


# Metadata that nobody names


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet", "metadata.json"])
def test_metadata_among_the_pictures_are_found(tmp_path: Path, store: LocalStore, name: str) -> None:
    root = pictures(tmp_path / "set", "a.png", "b.png", "notes.txt")
    if name.endswith(".csv"):
        (root / name).write_text("file_name,text\na.png,a cat\nb.png,a cat\n")
    elif name.endswith(".parquet"):
        pq.write_table(pa.table({"file_name": ["a.png", "b.png"], "text": ["a cat", "a cat"]}), root / name)
    else:
        write_lines(root / name, {"file_name": "a.png", "text": "a cat"}, {"file_name": "b.png", "text": "a cat"})
    ref = indexed(store, source(root))
    assert [row["group_id"] for row in rows_of(store, ref)] == [prompt_group("a cat")] * 2
    assert set_aside(store, ref) == [("sd:notes.txt", "not-an-image")]
    assert notes_of(store, ref)["without_metadata"] == 0


def test_every_folders_metadata_count_from_it_and_the_nearest_is_believed(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "set", "one/a.png", "two/a.png", "c.png")
    write_lines(root / "one" / "metadata.jsonl", {"file_name": "a.png", "prompt": "first"})
    write_lines(
        root / "metadata.jsonl",
        {"file_name": "two/a.png", "prompt": "second"},
        {"file_name": "c.png", "prompt": "third"},
        {"file_name": "one/a.png", "prompt": "from above"},
    )
    ref = indexed(store, source(root))
    assert {row["file"]: row["prompt"] for row in rows_of(store, ref)} == {
        "c.png": "third",
        "one/a.png": "first",
        "two/a.png": "second",
    }
    assert set_aside(store, ref) == [("sd:one/a.png", "duplicate-id")]


def test_two_metadata_files_in_a_folder_are_refused_until_one_is_named(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "set", "a.png")
    write_lines(root / "metadata.jsonl", {"file_name": "a.png", "prompt": "lines"})
    (root / "metadata.csv").write_text("file_name,prompt\na.png,table\n")
    [missing] = check_folder(source(root))
    assert "metadata.csv and metadata.jsonl both describe the pictures: name one of them as metadata" in missing
    ref = indexed(store, source(root, metadata=str(root / "metadata.csv")))
    assert [row["prompt"] for row in rows_of(store, ref)] == ["table"]
    assert set_aside(store, ref) == [("sd:metadata.jsonl", "not-an-image")]


def test_found_metadata_do_not_lead_out_of_their_directory(tmp_path: Path, store: LocalStore) -> None:
    root = pictures(tmp_path / "set", "a.png")
    secret = write_lines(tmp_path / "secret", {"file_name": "a.png", "prompt": "secret"})
    (root / "metadata.jsonl").symlink_to(secret)
    [missing] = check_folder(source(root))
    assert "metadata.jsonl is a link to" in missing
    assert "out of its directory: name that file as metadata if it is meant" in missing
    named = source(root, metadata=str(root / "metadata.jsonl"))
    assert [row["prompt"] for row in rows_of(store, indexed(store, named))] == ["secret"]


def test_a_document_of_another_kind_called_metadata_json_is_told_and_not_read(
    tmp_path: Path, store: LocalStore
) -> None:
    root = pictures(tmp_path / "set", "a.png")
    (root / "metadata.json").write_text(json.dumps({"licence": "MIT", "version": 3}))
    ref = indexed(store, source(root))
    [warning] = notes_of(store, ref)["warnings"]
    assert warning.startswith("sd: not read: metadata.json: expected a column 'file_name', got ")
    assert set_aside(store, ref) == [("sd:metadata.json", "not-an-image")]


def test_found_metadata_change_the_inventory(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", "a.png")
    write_lines(root / "metadata.jsonl", {"file_name": "a.png", "prompt": "x"})
    before = folder_inventory(source(root))
    write_lines(root / "metadata.jsonl", {"file_name": "a.png", "prompt": "longer"})
    assert folder_inventory(source(root)) != before


def test_metadata_beside_a_folder_are_taken_where_they_name_it(tmp_path: Path, store: LocalStore) -> None:
    for folder in ("train", "test"):
        pictures(tmp_path / folder, "a.png", "b.png")
    above = tmp_path / "metadata.jsonl"
    train, test = source(tmp_path / "train"), source(tmp_path / "test")
    assert with_metadata_above(train) == train
    write_lines(above, {"file_name": "train/a.png", "text": "x"}, {"file_name": "train\\b.png", "text": "x"})
    assert with_metadata_above(train).metadata == str(above.resolve())
    assert with_metadata_above(test) == test
    assert [row["prompt"] for row in rows_of(store, indexed(store, with_metadata_above(train)))] == ["x", "x"]
    write_lines(tmp_path / "train" / "metadata.jsonl", {"file_name": "a.png", "text": "nearer"})
    assert with_metadata_above(train) == train
    above.write_text("{")
    assert with_metadata_above(test) == test
