"""Metadata of published sets: which columns say what, which picture a row names, and what is said of the rest."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import SpecError
from storage.local import LocalStore
from storage.objects import notes_of, read_manifest
from tasks.data.entries import prompt_group, stated_text
from tasks.data.folder import check_folder, folder_inventory
from tasks.data.metadata import NamedPictures, read_metadata
from tasks.data.sources.folder import FolderSource, folder_content, index_folder, unlocated, with_metadata_above
from tests.unit.indexed_folders import folder, indexed, rows_of, set_aside, source

NAN = float("nan")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def told(tmp_path: Path, store: LocalStore, label: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """What the index says of `0.png`, `1.png`, ..., each described by one row."""
    root = folder(tmp_path / "pictures", *(f"{number}.png" for number in range(len(rows))))
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


@pytest.mark.parametrize(
    "prompt",
    [
        "A DOG'S PORTRAIT",
        "A dog's portrait.",
        "A dog\u2019s portrait",
        '"A dog\'s portrait"',
        "\u201cA dog\u2018s portrait\u201d",
        "A dog's\u200b portrait",
        "\ufeffA dog's portrait",
        "A dog's por\u00adtrait",
        "A dog's por\u2060trait",
        "\uff21 \uff44og's portrait",
        "a  dog's\nportrait",
        "(a dog's portrait)",
        "A dog's portrait \u2764\ufe0f",
        "A dog-s portrait!",
    ],
)
def test_prompts_that_people_would_call_equal_are_one_group(prompt: str) -> None:
    assert prompt_group(prompt) == prompt_group("A dog's portrait")


def test_prompts_that_say_something_else_are_different_groups() -> None:
    different = ["a cat", "a cats", "cat", "a cat 1", "a cat 2", "\u0915\u093f", "\u0915\u0940", "caf\u00e9", "cafe"]
    assert len({prompt_group(prompt) for prompt in different}) == len(different)


def test_prompts_without_letters_are_equal_but_for_white_space() -> None:
    dog, cat = "\U0001f436", "\U0001f431"
    assert prompt_group(f" {dog}  {cat}") == prompt_group(f"{dog} {cat}\n") == prompt_group(f"{dog} {cat}\ufe0f")
    assert len({prompt_group(prompt) for prompt in (dog, cat, f"{dog}{cat}", "!", "?")}) == 5


@pytest.mark.parametrize(
    "column",
    [
        "prompt", "text", "caption", "captions", "Prompt", "TEXT", " Caption ", "prompts", "prompt_text", "Prompt Text",
        "text_prompt", "positive_prompt", "positivePrompt", "description", "txt",
    ],
)  # fmt: skip
def test_every_usual_name_of_a_prompt_groups_fakes_and_only_fakes(
    tmp_path: Path, store: LocalStore, column: str
) -> None:
    given = [{column: "a cat"}, {column: " a  cat"}, {column: "a dog"}]
    fakes = told(tmp_path, store, "fake", *given)
    assert [row["prompt"] for row in fakes] == ["a cat", " a  cat", "a dog"]
    assert fakes[0]["group_id"] == fakes[1]["group_id"] == prompt_group("a cat") != fakes[2]["group_id"]
    photographs = told(tmp_path, store, "real", *given)
    assert [row["group_id"] for row in photographs] == ["sd:0.png", "sd:1.png", "sd:2.png"]
    is_caption = column.strip().casefold() in ("text", "caption", "captions", "description", "txt")
    assert [row["caption"] for row in photographs] == (["a cat", " a  cat", "a dog"] if is_caption else [None] * 3)


def test_of_several_columns_the_first_that_says_something_is_the_prompt(tmp_path: Path, store: LocalStore) -> None:
    given: list[dict[str, Any]] = [
        {"caption": "c", "text": "t", "prompt": "p"},
        {"caption": "c", "text": "t", "prompt": NAN},
        {"caption": "c", "text": " ", "prompt": None},
        {"caption": None, "text": "None", "prompt": "nan"},
    ]
    assert [row["prompt"] for row in told(tmp_path, store, "fake", *given)] == ["p", "t", "c", None]
    assert [row["caption"] for row in told(tmp_path, store, "real", *given)] == ["c", "c", "c", None]


def test_a_negative_prompt_is_no_prompt(tmp_path: Path, store: LocalStore) -> None:
    given = [{"negative_prompt": "ugly", "seed": n} for n in range(3)]
    assert [row["prompt"] for row in told(tmp_path, store, "fake", *given)] == [None] * 3


def test_usual_names_come_before_their_like(tmp_path: Path, store: LocalStore) -> None:
    given = [{"description": "d", "prompts": "ps", "captions": "cs"}, {"description": "d", "prompts": "ps"}]
    assert [row["prompt"] for row in told(tmp_path, store, "fake", *given)] == ["cs", "ps"]


def warnings(store: LocalStore, given: FolderSource) -> list[str]:
    found: list[str] = notes_of(store, indexed(store, given))["warnings"]
    return found


UNREAD = (
    "are not read: call the one of prompts `prompt`, or the one that says which pictures belong together `group_id`, "
    "or name it as group_by"
)


def test_fakes_without_prompt_and_group_are_warned_of_with_the_columns_that_are_not_read(
    tmp_path: Path, store: LocalStore
) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png")
    rows = [{"file_name": name, "seed": 1, "p": "a cat", "parameters": {"prompt": "x"}} for name in ("a.png", "b.png")]
    metadata = str(write_lines(tmp_path / "m.jsonl", *rows))
    said = "sd: no prompt and no group is known, each picture is its own; the columns 'p', 'parameters' of "
    assert warnings(store, source(root, metadata=metadata)) == [f"{said}m.jsonl {UNREAD}"]
    assert warnings(store, source(root, "real", metadata=metadata)) == []
    table = {
        "image": [{"bytes": b"x", "path": "a"}],
        "p": ["a cat"],
        "md5": [b"1"],
        "parameters": [{"prompt": "x"}],
        "license": ["MIT"],
    }
    pq.write_table(pa.table(table), tmp_path / "set.parquet")
    assert warnings(store, source(tmp_path / "set.parquet")) == [
        f"{said}the Parquet file {UNREAD}, or name them in a source of `kind: column`"
    ]
    pq.write_table(pa.table({**table, "group_id": [1]}), tmp_path / "set.parquet")
    assert warnings(store, source(tmp_path / "set.parquet")) == []
    pq.write_table(pa.table({"image": [b"x"], "license": ["MIT"]}), tmp_path / "set.parquet")
    assert warnings(store, source(tmp_path / "set.parquet")) == []


def test_columns_called_like_prompts_are_named_where_some_fakes_have_no_group(
    tmp_path: Path, store: LocalStore
) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png")
    rows: list[dict[str, Any]] = [
        {"file_name": "a.png", "prompt": "x", "user_prompt": "u", "negative_prompt": "n", "model": "m"},
        {"file_name": "b.png", "prompt": None, "user_prompt": "u", "negative_prompt": "n", "model": "m"},
    ]
    assert warnings(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows)))) == [
        "sd: 1 of 2 pictures (50 %, first: sd:b.png) have neither prompt nor group: each is its own",
        f"sd: the columns 'user_prompt' of m.jsonl {UNREAD}",
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_prompts_that_are_not_a_number_are_no_group(tmp_path: Path, store: LocalStore, suffix: str) -> None:
    root = folder(tmp_path / "pictures", "a.png", "b.png", "c.png", "d.png")
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
    root = folder(tmp_path / "pictures", "a.png", "b.png")
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
    assert [row["prompt"] for row in read_metadata(path).rows] == prompts


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_csv_of_spreadsheets_is_read(tmp_path: Path, delimiter: str, mark: bytes) -> None:
    lines = [["file_name", "prompt", ""], ["a.png", '"one; two,\tand\nthree"', ""], ["007", "1e5", ""], ["", "", ""]]
    (tmp_path / "m.csv").write_bytes(mark + "\r\n".join(delimiter.join(line) for line in lines).encode())
    assert read_metadata(tmp_path / "m.csv").rows == [
        {"file_name": "a.png", "prompt": "one; two,\tand\nthree"},
        {"file_name": "007", "prompt": "1e5"},
    ]


@pytest.mark.parametrize(
    "column",
    [
        "file_name", "image_file_name", "filename", "image_path", "image", "FILE_NAME", "image_name", "Image Name",
        "fileName", "img_path",
    ],
)  # fmt: skip
def test_the_usual_names_of_a_column_of_file_names_are_known(tmp_path: Path, column: str) -> None:
    assert read_metadata(write_lines(tmp_path / "m.jsonl", {column: "a.png"})).rows == [{"file_name": "a.png"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line", ["sep={}\r\n", '"sep={}"\n', "SEP={}\n", ""])
def test_the_first_line_of_excel_that_states_the_delimiter_is_understood(
    tmp_path: Path, delimiter: str, line: str
) -> None:
    text = line.format(delimiter) + delimiter.join(["file_name", "prompt"]) + "\n" + delimiter.join(["a.png", "a cat"])
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_metadata(tmp_path / "m.csv").rows == [{"file_name": "a.png", "prompt": "a cat"}]


@pytest.mark.parametrize("name", ["m.TSV", "m.tsv", "m.CSV"])
def test_suffixes_of_metadata_are_read_in_any_letter_case(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("file_name\tprompt\na.png\ta cat\n")
    assert read_metadata(tmp_path / name).rows == [{"file_name": "a.png", "prompt": "a cat"}]


@pytest.mark.parametrize("key", ["data", "images", "annotations", "image", "rows"])
@pytest.mark.parametrize("name", ["m.json", "m.jsonl"])
def test_rows_may_be_the_only_list_of_objects_in_an_object(tmp_path: Path, key: str, name: str) -> None:
    rows = [{"file_name": "a.png", "prompt": "x"}, {"file_name": "b.png", "prompt": "y"}]
    (tmp_path / name).write_text(json.dumps({"version": 1, "info": {"by": "me"}, "tags": ["t"], "none": [], key: rows}))
    assert read_metadata(tmp_path / name).rows == rows


def test_a_row_with_a_list_of_objects_is_still_a_row_and_two_lists_are_refused(tmp_path: Path) -> None:
    row = {"file_name": "a.png", "prompt": "x", "boxes": [{"x": 1}]}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    assert read_metadata(tmp_path / "m.jsonl").rows == [{"file_name": "a.png", "prompt": "x"}]
    (tmp_path / "m.json").write_text(json.dumps({"images": [{"id": 1}], "annotations": [{"id": 1}]}))
    with pytest.raises(SpecError, match="expected a column 'file_name'"):
        read_metadata(tmp_path / "m.json")


def test_rows_may_be_an_object_of_objects_by_name(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"/set/a": {"caption": "x"}, "/set/b": {"caption": "y"}}, indent=1))
    assert read_metadata(tmp_path / "m.json").rows == [
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


@pytest.mark.parametrize(
    ("stated", "picture"),
    [
        ("7", "007.png"), ("0007", "007.png"), ("00007.jpg", "007.png"), ("0", "000.png"), ("12", None), ("8", None),
        ("x7", None), ("-7", None), ("7.0", "007.png"), ("7.5", None), ("a/7", None), ("a/..", None), ("\u0667", None),
    ],
)  # fmt: skip
def test_a_number_is_the_same_with_zeros_before_it_where_one_picture_can_be_meant(
    stated: str, picture: str | None
) -> None:
    found = NamedPictures(["007.png", "000.png", "0012.png", "012.png"], "").find(stated)
    assert (found and found[1]) == picture


@pytest.mark.parametrize(
    ("own", "other"),
    [("image", "original_file_name"), ("filename", "input_file_name"), ("file_name", "source_file_name"),
     ("image", "path")],
)  # fmt: skip
def test_two_columns_that_name_different_pictures_are_refused_by_name(
    tmp_path: Path, store: LocalStore, own: str, other: str
) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png")
    rows = [{other: "b.png", own: "a.png", "prompt": "x"}, {other: "a.png", own: "b.png", "prompt": "y"}]
    metadata = write_lines(tmp_path / "m.jsonl", *rows)
    with pytest.raises(SpecError) as caught:
        indexed(store, source(root, metadata=str(metadata)))
    assert str(caught.value) == (
        f"m.jsonl: the columns '{own}' and '{other}' name different pictures in row 0, 'a.png' and 'b.png': rename "
        "the one that does not name the row's own picture"
    )
    (root / "metadata.json").write_text(json.dumps(rows))
    with pytest.raises(SpecError, match="name different pictures"):
        indexed(store, source(root))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_column_that_names_pictures_is_believed_whatever_others_are_called(
    tmp_path: Path, store: LocalStore, suffix: str
) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png")
    columns = {
        "original_file_name": ["0001.jpg", "0002.jpg"],
        "file_name": ["https://example.org/7f", "https://example.org/8f"],
        "path": ["a.png", "b.png"],
        "prompt": ["x", "y"],
    }
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    metadata = tmp_path / f"m{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({**columns, "image": [b"a.png", b"b.png"]}), metadata)
    elif suffix == ".csv":
        metadata.write_text("\n".join(",".join(line) for line in (columns, *(row.values() for row in rows))))
    else:
        write_lines(metadata, *rows)
    ref = indexed(store, source(root, metadata=str(metadata)))
    assert [row["prompt"] for row in rows_of(store, ref)] == ["x", "y"]


def test_the_name_as_it_stands_comes_before_what_is_like_it(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "set", "a.png")
    rows = [{"file_name": "A.png", "prompt": "other case"}, {"file_name": "a.png", "prompt": "this"}]
    ref = indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))
    assert [row["prompt"] for row in rows_of(store, ref)] == ["this"]
    assert set_aside(store, ref) == [("sd:a.png", "duplicate-id")]


@pytest.mark.parametrize(("prompts", "taken"), [(["x", "x"], "x"), (["x", "y"], None)])
def test_two_rows_that_may_mean_one_picture_say_the_same_or_nothing(
    tmp_path: Path, store: LocalStore, prompts: list[str], taken: str | None
) -> None:
    root = folder(tmp_path / "fake", "a.png", "b.png")
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
    root = folder(tmp_path / "fake", "a.png")
    rows = [{"file_name": f"/gen/{folder}/a.png", "prompt": folder} for folder in ("one", "two")]
    with pytest.raises(
        SpecError, match=r"none of its 2 rows names a picture of sd: .*; ambiguous-name 2 \(first: sd:a"
    ):
        indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))


def test_rows_of_another_folder_are_not_taken_for_the_pictures_of_this_one(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "two", "a.png")
    metadata = write_lines(tmp_path / "elsewhere" / "m.jsonl", {"file_name": "one/a.png", "prompt": "x"})
    with pytest.raises(SpecError, match="none of its 1 rows names a picture"):
        indexed(store, source(root, metadata=str(metadata)))


def test_of_absolute_paths_those_below_a_folder_of_the_same_name_are_meant(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "two", "a.png")
    rows = [{"file_name": f"/gen/{folder}/a.png", "prompt": folder} for folder in ("one", "two", "three")]
    ref = indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))
    assert [row["prompt"] for row in rows_of(store, ref)] == ["two"]


def test_metadata_of_other_pictures_are_refused_with_names_of_both(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png", "c.png", "d.png")
    metadata = write_lines(tmp_path / "m.jsonl", *({"file_name": f"{n}.jpg"} for n in range(5)))
    with pytest.raises(SpecError) as caught:
        indexed(store, source(root, metadata=str(metadata)))
    assert str(caught.value) == (
        "m.jsonl: none of its 5 rows names a picture of sd: they name '0.jpg', '1.jpg', '2.jpg', ...; "
        "the pictures are 'a.png', 'b.png', 'c.png', ..."
    )


def test_rows_and_pictures_that_do_not_meet_are_warned_of_with_their_share(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png", "c.png", "d.png")
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
    root = folder(tmp_path / "set", "a.png")
    metadata = write_lines(tmp_path / "m.jsonl", {"file_name": "a.png", "instruction": "a cat"})
    [warning] = warnings(store, source(root, "real", metadata=str(metadata)))
    assert warning.startswith("sd: m.jsonl has none of the columns prompt, text, caption, ")
    [warning] = warnings(store, source(root, metadata=str(metadata)))
    assert "the columns 'instruction' of m.jsonl are not read" in warning


def test_a_row_without_a_name_is_set_aside(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "set", "a.png", "1.png")
    rows: list[dict[str, Any]] = [
        {"file_name": "a.png"},
        {"file_name": None, "prompt": "x"},
        {"file_name": 1, "prompt": "one"},
    ]
    ref = indexed(store, source(root, metadata=str(write_lines(tmp_path / "m.jsonl", *rows))))
    assert set_aside(store, ref) == [("sd:row 1 of m.jsonl", "no-name")]
    assert [row["prompt"] for row in rows_of(store, ref)] == ["one", None]


# Metadata that nobody names


@pytest.mark.parametrize(
    "name", ["metadata.jsonl", "metadata.csv", "metadata.parquet", "metadata.json", "Metadata.jsonl", "METADATA.CSV"]
)
def test_metadata_among_the_pictures_are_found(tmp_path: Path, store: LocalStore, name: str) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png", "notes.txt")
    if name.lower().endswith(".csv"):
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
    root = folder(tmp_path / "set", "one/a.png", "two/a.png", "c.png")
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
    root = folder(tmp_path / "set", "a.png")
    write_lines(root / "metadata.jsonl", {"file_name": "a.png", "prompt": "lines"})
    (root / "metadata.csv").write_text("file_name,prompt\na.png,table\n")
    [missing] = check_folder(source(root))
    assert "metadata.csv and metadata.jsonl both describe the pictures: name one of them as metadata" in missing
    ref = indexed(store, source(root, metadata=str(root / "metadata.csv")))
    assert [row["prompt"] for row in rows_of(store, ref)] == ["table"]
    assert set_aside(store, ref) == [("sd:metadata.jsonl", "not-an-image")]


def test_found_metadata_do_not_lead_out_of_their_directory(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "set", "a.png")
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
    root = folder(tmp_path / "set", "a.png")
    (root / "metadata.json").write_text(json.dumps({"licence": "MIT", "version": 3}))
    ref = indexed(store, source(root))
    [warning] = notes_of(store, ref)["warnings"]
    assert warning.startswith("sd: not read: metadata.json: expected a column 'file_name', got ")
    assert set_aside(store, ref) == [("sd:metadata.json", "not-an-image")]


def test_found_metadata_change_the_inventory(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "a.png")
    write_lines(root / "metadata.jsonl", {"file_name": "a.png", "prompt": "x"})
    before = folder_inventory(source(root))
    write_lines(root / "metadata.jsonl", {"file_name": "a.png", "prompt": "longer"})
    assert folder_inventory(source(root)) != before


def test_metadata_beside_a_folder_are_taken_where_they_name_it(tmp_path: Path, store: LocalStore) -> None:
    for name in ("train", "test"):
        folder(tmp_path / name, "a.png", "b.png")
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


@pytest.mark.parametrize(
    "stated",
    ["{name}", "images/{name}", "./images/{name}", "Images/{name}", "g/images/{name}", "/data/g/images/{name}",
     "images\\{name}"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["metadata.jsonl", "Metadata.jsonl"])
def test_metadata_above_a_folder_that_can_be_about_no_other_are_taken(
    tmp_path: Path, store: LocalStore, stated: str, name: str
) -> None:
    root = folder(tmp_path / "g" / "images", "a.png", "b.png")
    above = write_lines(
        tmp_path / "g" / name, *({"file_name": stated.format(name=one), "prompt": one} for one in ("a.png", "b.png"))
    )
    given = with_metadata_above(source(root))
    assert given.metadata == str(above.resolve())
    ref = indexed(store, given)
    assert [row["prompt"] for row in rows_of(store, ref)] == ["a.png", "b.png"]
    assert notes_of(store, ref)["warnings"] == []


def test_metadata_two_folders_above_are_taken_where_they_name_the_folder(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "set" / "train" / "sd", "a.png")
    write_lines(
        tmp_path / "set" / "metadata.jsonl",
        {"file_name": "train/sd/a.png", "prompt": "x"},
        {"file_name": "train/dalle/a.png", "prompt": "y"},
    )
    assert [row["prompt"] for row in rows_of(store, indexed(store, with_metadata_above(source(root))))] == ["x"]


def test_metadata_above_that_may_be_about_another_folder_are_told_and_not_taken(
    tmp_path: Path, store: LocalStore
) -> None:
    root = folder(tmp_path / "set" / "fake", "a.png", "b.png")
    folder(tmp_path / "set" / "real", "a.png", "b.png")
    above = tmp_path / "set" / "metadata.jsonl"
    write_lines(above, *({"file_name": name, "prompt": "x"} for name in ("a.png", "b.png")))
    assert with_metadata_above(source(root)) == source(root)
    assert warnings(store, source(root)) == [
        "sd: metadata.jsonl in a folder above is not read: its rows name 'a.png', 'b.png'; name it as metadata if it "
        "is about these pictures"
    ]
    before = folder_inventory(source(root))
    write_lines(above, {"file_name": "gone/a.png", "prompt": "x"})
    assert folder_inventory(source(root)) != before
    assert "its rows name 'gone/a.png'" in warnings(store, source(root))[0]
    write_lines(above, {"file_name": "real/a.png", "prompt": "x"}, {"file_name": f"{'x' * 300}/a.png"})
    assert "its rows name 'xxx" in warnings(store, source(root))[0]
    write_lines(above, {"file_name": "real/a.png", "prompt": "x"})
    assert warnings(store, source(root)) == []  # they are about the folder beside this one
    above.write_text("{")
    assert "metadata.jsonl in a folder above is not read: metadata.jsonl is not" in warnings(store, source(root))[0]
    above.rename(above.with_suffix(".json"))
    assert warnings(store, source(root)) == []  # a document of another kind
    write_lines(above, {"file_name": "a.png", "prompt": "x"})
    write_lines(root / "metadata.jsonl", *({"file_name": name, "prompt": "x"} for name in ("a.png", "b.png")))
    assert warnings(store, source(root)) == []


def test_files_that_may_describe_pictures_and_are_not_read_are_warned_of(tmp_path: Path, store: LocalStore) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png", "README.txt", "LICENSE.txt", ".hidden.json", "dataset_info.json")
    assert warnings(store, source(root)) == []
    folder(root, "captions.jsonl", "metadata.tsv", "prompts.txt", "train.parquet")
    assert warnings(store, source(root)) == [
        "sd: not read, though they may describe pictures: 'captions.jsonl', 'metadata.tsv', 'prompts.txt', ...: name "
        "one as metadata"
    ]
    for name in ("captions.jsonl", "metadata.tsv", "prompts.txt", "train.parquet"):
        (root / name).unlink()
    folder(root, "a.txt", "a.json", "b.png.txt")
    assert warnings(store, source(root)) == [
        "sd: not read, though they lie beside pictures of their names: 'a.json', 'a.txt', 'b.png.txt' (3 in all): "
        "write what they say into a metadata.jsonl, with `file_name` and `prompt`"
    ]
    write_lines(root / "metadata.jsonl", *({"file_name": name, "prompt": "x"} for name in ("a.png", "b.png")))
    assert warnings(store, source(root)) == []  # every picture is described


@pytest.mark.parametrize("levels", [1, 2])
def test_metadata_above_are_found_wherever_a_machine_has_the_folder(
    tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch, levels: int
) -> None:
    below = "train/sd" if levels == 2 else "sd"
    for machine in ("one", "other/place"):
        folder(tmp_path / machine / "real" / below, "a.png")
        write_lines(tmp_path / machine / "real" / "metadata.jsonl", {"file_name": f"{below}/a.png", "prompt": "x"})
    # The way up leads from where a link leads.
    (tmp_path / "linked").symlink_to(tmp_path / "other" / "place" / "real" / below)
    written = source(Path("${TELLTALE_TEST_SET}"), metadata="${TELLTALE_TEST_METADATA:-}")
    monkeypatch.delenv("TELLTALE_TEST_METADATA", raising=False)
    monkeypatch.setenv("TELLTALE_TEST_SET", str(tmp_path / "one" / "real" / below))
    found, inventory = folder_content(written)
    assert found == written.model_copy(update={"metadata": f"${{TELLTALE_TEST_SET}}/{'../' * levels}metadata.jsonl"})
    monkeypatch.setenv("TELLTALE_TEST_SET", str(tmp_path / "linked"))
    assert folder_content(written) == (found, inventory)
    ref, _ = index_folder.compute(
        store, source=unlocated(found), inventory=inventory, path=found.path, metadata=found.metadata
    )
    assert [row["prompt"] for row in rows_of(store, ref)] == ["x"]
    assert "TELLTALE" not in json.dumps(read_manifest(store, ref.uri).recipe)
