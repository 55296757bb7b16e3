"""What lies below a directory, and that its content decides."""

import hashlib
import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import tasks.data.inventory as inventory_module
from storage.errors import InputChanged
from tasks.cache import CACHE_SETTING
from tasks.data.inventory import Listed, content_digests, list_files, outside_folders, take_inventory

AN_HOUR_NS = 3_600_000_000_000


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_SETTING, str(tmp_path / "cache"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are read, as they are."""
    read: list[str] = []
    original = inventory_module._read

    def counted(path: Path) -> str | None:
        read.append(path.name)
        return original(path)

    monkeypatch.setattr(inventory_module, "_read", counted)
    return read


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def later() -> int:
    return time.time_ns() + AN_HOUR_NS


def test_an_unchanged_folder_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    root = write(tmp_path / "pictures", a="1", b="2", deep__c="3")
    expected = {name: hashlib.sha256(text).hexdigest() for name, text in (("a", b"1"), ("b", b"2"), ("deep/c", b"3"))}
    assert content_digests(root, list_files(root), later) == expected
    assert sorted(reads) == ["a", "b", "c"]
    assert content_digests(root, list_files(root), later) == expected
    assert len(reads) == 3
    (root / "b").write_text("4")
    assert content_digests(root, list_files(root), later)["b"] == hashlib.sha256(b"4").hexdigest()
    assert reads[3:] == ["b"]


def test_a_file_of_equal_size_and_time_is_read_again_where_its_time_of_change_tells(
    tmp_path: Path, reads: list[str]
) -> None:
    root = write(tmp_path / "pictures", a="1")
    times = (root / "a").stat()
    before = content_digests(root, list_files(root), later)
    (root / "a").write_text("2")
    os.utime(root / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (root / "a").stat().st_mtime_ns == times.st_mtime_ns
    assert content_digests(root, list_files(root), later) != before


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, reads: list[str]) -> None:
    # Within one tick of the clock it may be written again without any sign of it.
    root = write(tmp_path / "pictures", a="1")
    written = (root / "a").stat().st_mtime_ns
    for _ in range(2):
        content_digests(root, list_files(root), lambda: written + 1)
    assert reads == ["a", "a"]


def test_a_damaged_or_lost_memory_costs_reading_alone(tmp_path: Path, reads: list[str]) -> None:
    root = write(tmp_path / "pictures", a="1")
    first = content_digests(root, list_files(root), later)
    [memory] = (tmp_path / "cache").iterdir()
    memory.write_bytes(b"PAR1 and no more")
    assert content_digests(root, list_files(root), later) == first
    memory.unlink()
    assert content_digests(root, list_files(root), later) == first
    assert reads == ["a", "a", "a"]


def test_a_memory_that_cannot_be_kept_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    root = write(tmp_path / "pictures", a="1")
    monkeypatch.setattr(pq, "write_table", full)
    assert content_digests(root, list_files(root), later)["a"] == hashlib.sha256(b"1").hexdigest()
    assert "No space left on device" in caplog.text


def test_a_file_that_grows_while_it_is_read_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "pictures", a="1")
    original = hashlib.file_digest

    def slow(file: object, name: str) -> object:
        found = original(file, name)  # type: ignore[arg-type]
        with (root / "a").open("a") as other:
            other.write("2")
        return found

    monkeypatch.setattr(hashlib, "file_digest", slow)
    with pytest.raises(InputChanged, match="written to while it was read"):
        content_digests(root, list_files(root))


def test_one_changed_byte_is_another_inventory(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", a="1", b="2"), write(tmp_path / "two", a="1", b="2")

    def digest(root: Path) -> str:
        return take_inventory(root, list_files(root), lambda name: True, "metadata").digest

    assert digest(one) == digest(two)
    (two / "b").write_text("3")
    assert digest(one) != digest(two)
    (two / "b").write_text("2")
    assert digest(one) == digest(two)
    (two / "b").rename(two / "c")
    assert digest(one) != digest(two)


def test_what_is_no_file_in_the_folder_is_set_aside_by_name(tmp_path: Path) -> None:
    root = write(tmp_path / "pictures", a="1", deep__b="2", deep__er__c="3")
    write(tmp_path / "elsewhere", d="4", e="5")
    (root / "again").symlink_to(root / "deep")
    (root / "deep" / "circle").symlink_to(root)
    (root / "deep" / "er" / "relative").symlink_to("..")
    (root / "gone").symlink_to(tmp_path / "nothing")
    (root / "itself").symlink_to(root / "itself")
    (root / "inside").symlink_to(root / "a")
    (root / "outside").symlink_to(tmp_path / "elsewhere" / "d")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(root / "pipe")
    listed = list_files(root)
    assert {item.name: item.reason for item in listed} == {
        "a": None,
        "again": "link-to-folder",
        "deep/b": None,
        "deep/circle": "link-to-folder",
        "deep/er/c": None,
        "deep/er/relative": "link-to-folder",
        "folder": "link-outside",
        "gone": "missing-file",
        "inside": None,
        "itself": "unreadable",
        "outside": "link-outside",
        "pipe": "unreadable",
    }
    assert [item.name for item in listed] == sorted(item.name for item in listed)
    said = outside_folders(listed)
    assert said is not None
    assert "'folder': links to folders outside" in said
    assert set(content_digests(root, listed)) == {"a", "deep/b", "deep/er/c", "inside"}


def test_links_within_a_larger_directory_are_followed(tmp_path: Path) -> None:
    root = write(tmp_path / "coco", train2017__a="1", val2017__b="2")
    (root / "val2017" / "c").symlink_to("../train2017/a")
    assert [item.reason for item in list_files(root / "val2017")] == [None, "link-outside"]
    assert [item.reason for item in list_files(root / "val2017", within=root)] == [None, None]


def test_names_that_are_no_utf_8_are_remembered_too(tmp_path: Path, reads: list[str]) -> None:
    root = write(tmp_path / "pictures", a="1")
    (root / os.fsdecode(b"caf\xe9.png")).write_text("2")
    first = content_digests(root, list_files(root), later)
    assert content_digests(root, list_files(root), later) == first
    assert len(reads) == 2
    assert take_inventory(root, list_files(root), lambda name: True).digest


def test_a_single_file_has_the_empty_name(tmp_path: Path) -> None:
    path = write(tmp_path, rows="1") / "rows"
    assert content_digests(path, [Listed("", path.stat())]) == {"": hashlib.sha256(b"1").hexdigest()}
