"""A source may name the column of its metadata that says which pictures belong together."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import MissingInput
from storage.local import LocalStore
from storage.objects import notes_of
from tasks.data.entries import prompt_group
from tasks.data.folder import check_folder, folder_inventory
from tasks.data.sources.folder import with_metadata_above
from tests.unit.indexed_folders import folder, indexed, rows_of, source
from tests.unit.test_folder import write_metadata

ROWS: list[dict[str, Any]] = [
    {"file_name": "a.png", "scene": "person", "prompt": "one", "group_id": "x"},
    {"file_name": "b.png", "scene": "place", "prompt": "one", "group_id": "x"},
    {"file_name": "c.png", "scene": "person", "prompt": "two", "group_id": "y"},
]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.mark.parametrize("label", ["real", "fake"])
@pytest.mark.parametrize("name", ["metadata.json", "metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_pictures_are_grouped_by_the_column_that_is_named(
    tmp_path: Path, store: LocalStore, name: str, label: str
) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png", "c.png")
    write_metadata(root / name, ROWS)
    given = source(root, label, group_by="scene")
    assert check_folder(given) == []
    ref = indexed(store, given)
    assert [row["group_id"] for row in rows_of(store, ref)] == ["person", "place", "person"]
    assert notes_of(store, ref)["warnings"] == []
    assert [row["group_id"] for row in rows_of(store, indexed(store, source(root, label)))] == ["x", "x", "y"]


@pytest.mark.parametrize("where", ["named", "above"])
def test_the_column_is_looked_for_in_the_metadata_that_are_read(tmp_path: Path, store: LocalStore, where: str) -> None:
    root = folder(tmp_path / "set", "a.png")
    about = write_metadata(tmp_path / "metadata.json", [{"file_name": "set/a.png", "scene": "place"}])
    given = source(root, group_by="scene", **({"metadata": str(about)} if where == "named" else {}))
    assert check_folder(given) == []
    assert [row["group_id"] for row in rows_of(store, indexed(store, with_metadata_above(given)))] == ["place"]
    [missing] = check_folder(given.model_copy(update={"group_by": "Scene"}))
    assert missing == (
        "the column 'Scene' by which sd is grouped: metadata.json has 'file_name', 'scene'; correct group_by, or leave "
        "it out"
    )


def test_a_column_that_is_not_there_is_refused_before_any_work(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", "a.png")
    [missing] = check_folder(source(root, group_by="scene"))
    assert missing.startswith("the column 'scene' by which sd is grouped: no metadata are found; correct group_by")
    write_metadata(root / "metadata.json", [{"file_name": "a.png", "style": "old"}])
    [missing] = check_folder(source(root, group_by="scene"))
    assert "metadata.json has 'file_name', 'style'" in missing
    with pytest.raises(MissingInput, match="'scene' by which sd is grouped"):
        folder_inventory(source(root, group_by="scene"))
    (root / "metadata.json").write_text("{}")
    assert "no metadata are found" in check_folder(source(root, group_by="scene"))[0]
    broken = root / "broken.csv"
    broken.write_bytes(b"file_name,scene\na.png,\xff\n")
    [missing] = check_folder(source(root, group_by="scene", metadata=str(broken)))
    assert missing.startswith("metadata of sd: broken.csv is not readable as csv")


def test_a_parquet_file_of_pictures_has_the_column_itself(tmp_path: Path, store: LocalStore) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"image": [b"x", b"y"], "prompt": ["one", "one"], "scene": [1, 2]}), path)
    assert [row["group_id"] for row in rows_of(store, indexed(store, source(path, group_by="scene")))] == ["1", "2"]
    [missing] = check_folder(source(path, group_by="image"))
    assert "the Parquet file has 'prompt', 'scene'" in missing


def test_pictures_of_which_the_column_says_nothing_are_told_and_grouped_as_without_it(
    tmp_path: Path, store: LocalStore
) -> None:
    root = folder(tmp_path / "set", "a.png", "b.png", "one/c.png")
    write_metadata(root / "metadata.json", [{"file_name": "a.png", "scene": "person"}, {"file_name": "b.png"}])
    write_metadata(root / "one" / "metadata.json", [{"file_name": "c.png", "prompt": "two", "group_id": "z"}])
    ref = indexed(store, source(root, group_by="scene"))
    assert [row["group_id"] for row in rows_of(store, ref)] == ["person", "sd:b.png", prompt_group("two")]
    assert "sd: 2 of 3 pictures (67 %, first: b.png) have nothing in 'scene'" in notes_of(store, ref)["warnings"]


def test_a_source_that_names_no_column_is_written_as_before() -> None:
    assert "group_by" not in source(Path("set")).model_dump(mode="json")
