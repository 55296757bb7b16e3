"""The store on a local disk: what every store promises, and what only disks do."""

import errno
from pathlib import Path

import pytest

from storage.errors import ObjectExists, SpecError, StoreNotWritable
from storage.s3 import ObjectStore
from storage.store import LocalStore, check_writable, open_store
from tests.unit.store_contract import StoreContract


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


class TestOnDisk(StoreContract):
    """A folder keeps what every store promises."""


def test_a_listing_leaves_partial_writes_out(store: LocalStore) -> None:
    store.write("x/a", b"")
    (store.root / "x" / ".partial-123").write_bytes(b"half")
    assert store.list("x") == ["x/a"]


def test_a_store_where_a_file_is_in_the_way_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((StoreNotWritable, ObjectExists)):
        check_writable(LocalStore(tmp_path / "file"))


def test_a_full_store_is_reported_as_not_writable(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("storage.store.os.fsync", full)
    with pytest.raises(StoreNotWritable, match="No space left"):
        store.write("a", b"data")
    assert store.list("") == []
    assert not [path for path in store.root.rglob("*") if path.is_file()]


def test_a_read_only_store_is_reported_as_not_writable(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("storage.store.os.open", read_only)
    with pytest.raises(StoreNotWritable, match="Read-only"):
        check_writable(store)


def test_an_unknown_scheme_is_refused_and_its_address_not_repeated() -> None:
    with pytest.raises(SpecError, match="expected a path") as raised:
        open_store("ftp://name:password@host/store")
    assert "password" not in str(raised.value)


@pytest.mark.parametrize("url", ["s3://", "s3://name:password@bucket/store", "s3://bucket/store?x=password"])
def test_a_broken_address_of_a_bucket_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SpecError, match="s3://bucket/prefix") as raised:
        open_store(url)
    assert "password" not in str(raised.value)


def test_opening_a_bucket_asks_nobody() -> None:
    assert open_store("s3://bucket/some/prefix/").url == "s3://bucket/some/prefix"
    assert ObjectStore("s3://bucket").url == "s3://bucket"
