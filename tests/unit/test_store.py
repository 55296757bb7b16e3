"""The store on a local disk: atomic, create-only, and never outside its folder."""

import threading
from pathlib import Path

import pytest

from storage.errors import ObjectExists, ObjectMissing, SpecError, StoreNotWritable
from storage.store import LocalStore, check_writable, open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_what_is_written_is_read_back(store: LocalStore) -> None:
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"two")
    assert store.read("a/b.bin") == b"two"
    assert store.size("a/b.bin") == 3
    assert store.size("a/c.bin") is None


def test_create_never_overwrites(store: LocalStore) -> None:
    store.create("a", b"first")
    with pytest.raises(ObjectExists):
        store.create("a", b"second")
    assert store.read("a") == b"first"


def test_of_many_creators_exactly_one_wins(store: LocalStore) -> None:
    outcomes: list[str] = []

    def create(index: int) -> None:
        try:
            store.create("contested", str(index).encode())
            outcomes.append("won")
        except ObjectExists:
            outcomes.append("lost")

    threads = [threading.Thread(target=create, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 15 + ["won"]


def test_reading_what_is_not_there_says_so(store: LocalStore) -> None:
    with pytest.raises(ObjectMissing, match="nothing under a/b"):
        store.read("a/b")


@pytest.mark.parametrize("key", ["../a", "/etc/passwd", "a/../../b", "", "a\\b", "a\0b"])
def test_keys_do_not_leave_the_store(store: LocalStore, key: str) -> None:
    with pytest.raises(SpecError, match="not a key"):
        store.read(key)


def test_listing_is_sorted_and_leaves_partial_writes_out(store: LocalStore, tmp_path: Path) -> None:
    for key in ("x/b", "x/a", "x/c/d", "y"):
        store.write(key, b"")
    (tmp_path / "store" / "x" / ".partial-123").write_bytes(b"half")
    assert store.list("x") == ["x/a", "x/b", "x/c/d"]
    assert store.list("nothing") == []


def test_deleting_twice_is_no_error(store: LocalStore) -> None:
    store.write("a", b"")
    store.delete("a")
    store.delete("a")
    assert store.size("a") is None


def test_a_store_where_a_file_is_in_the_way_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((StoreNotWritable, ObjectExists)):
        check_writable(LocalStore(tmp_path / "file"))


def test_a_full_store_is_reported_as_not_writable(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("storage.store.os.fsync", full)
    with pytest.raises(StoreNotWritable, match="No space left"):
        store.write("a", b"data")
    assert store.list("") == []
    assert not [path for path in store.root.rglob("*") if path.is_file()]


def test_a_read_only_store_is_reported_as_not_writable(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("storage.store.os.open", read_only)
    with pytest.raises(StoreNotWritable, match="Read-only"):
        check_writable(store)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(SpecError, match="expected a path"):
        open_store("ftp://host/store")
