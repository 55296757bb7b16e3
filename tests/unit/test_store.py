"""The store on a local disk: what every store promises, and what only disks do."""

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from botocore import exceptions
from fsspec.asyn import get_loop

from storage import s3
from storage.errors import ObjectExists, SpecError, StoreNotWritable, StoreRefused
from storage.local import LocalStore
from storage.opening import open_store
from storage.s3 import ObjectStore
from storage.store import Listed, check_writable
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


def test_a_scan_follows_links_to_files_and_none_to_folders(store: LocalStore) -> None:
    store.write("x/a", b"four")
    store.write("y/b", b"")
    folder = store.root / "x"
    (folder / "link").symlink_to(folder / "a")
    (folder / "round").symlink_to(folder)
    (folder / "nowhere").symlink_to(folder / "missing")
    (folder / "itself").symlink_to(folder / "itself")
    assert sorted((listed.key, listed.bytes) for listed in store.scan("x")) == [("x/a", 4), ("x/link", 4)]
    assert store.list("x/round") == ["x/round/a", "x/round/link"]


def test_a_folder_that_vanishes_during_a_scan_is_no_error(store: LocalStore) -> None:
    for folder in "abcd":
        store.write(f"x/{folder}/1", b"")
        store.write(f"x/{folder}/2", b"")
    scan = store.scan("x")
    first = next(scan)
    for made in (store.root / "x").iterdir():
        shutil.rmtree(made)
    assert [listed.key for listed in scan] == []
    assert first.key.startswith("x/")


def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    store.write("x/a", b"")
    monkeypatch.setattr("storage.local.os.scandir", denied)
    with pytest.raises(StoreRefused, match="x cannot be listed"):
        store.list("x")


def test_a_bucket_is_scanned_page_by_page_and_asked_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [{"Key": f"a/x/{number}", "Size": number, "ETag": f'"{number}"'} for number in range(3)]
    pages: list[dict[str, object]] = [
        {"Contents": [{"Key": "a/x/", "Size": 0, "ETag": '""'}, entries[0]], "IsTruncated": True},
        {"IsTruncated": True},
        {"Contents": entries[1:], "IsTruncated": False},
    ]
    asked: list[tuple[str, str | None]] = []

    async def answer(_: object, method: str, arguments: dict[str, str]) -> dict[str, object]:
        asked.append((method, arguments.get("ContinuationToken")))
        return {**pages[len(asked) - 1], "NextContinuationToken": f"after {len(asked)}"}

    connection = SimpleNamespace(files=SimpleNamespace(loop=get_loop()), endpoint="http://host", answered=True)
    monkeypatch.setattr(s3, "connect", lambda *_: connection)
    monkeypatch.setattr(s3, "send", answer)
    scan = ObjectStore("s3://bucket/a").scan("x")
    assert next(scan) == Listed("x/0", 0, '"0"')
    assert asked == [("list_objects_v2", None)]
    assert list(scan) == [Listed("x/1", 1, '"1"'), Listed("x/2", 2, '"2"')]
    assert asked == [("list_objects_v2", None), ("list_objects_v2", "after 1"), ("list_objects_v2", "after 2")]


def test_a_folder_goes_with_the_last_of_its_keys_and_the_store_stays(store: LocalStore) -> None:
    store.write("x/a", b"")
    store.write("x/b", b"")
    store.write("c", b"")
    store.delete("x/a")
    assert store.list("") == ["c", "x/b"]
    for key in ("x/b", "c"):
        store.delete(key)
    assert list(store.root.iterdir()) == []


def test_nobody_is_disturbed_by_a_folder_that_goes_while_it_is_written_to(store: LocalStore) -> None:
    """Each has a key of its own, so that a create that says it exists would be wrong."""

    def come_and_go(writer: int) -> None:
        for _ in range(300):
            store.create(f"x/{writer}", b"content")
            assert store.read(f"x/{writer}") == b"content"
            assert f"x/{writer}" in store.list("x")
            store.delete(f"x/{writer}")

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(come_and_go, range(4)))
    assert store.list("") == []


def test_a_store_where_a_file_is_in_the_way_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((StoreNotWritable, ObjectExists)):
        check_writable(LocalStore(tmp_path / "file"))


def test_a_full_store_is_reported_as_not_writable(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("storage.local.os.fsync", full)
    with pytest.raises(StoreNotWritable, match="No space left"):
        store.write("a", b"data")
    assert store.list("") == []
    assert not [path for path in store.root.rglob("*") if path.is_file()]


def test_a_read_only_store_is_reported_as_not_writable(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("storage.local.os.open", read_only)
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


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://bucket/a#b", "neither \\? nor #"),
        ("s3://bucket/a?b", "neither \\? nor #"),
        ("s3://bucket#b", "neither \\? nor #"),
        ("s3://bucket?versionId=1", "neither \\? nor #"),
        ("s3://bucket/a//b", "single slashes"),
        ("s3://bucket//a", "single slashes"),
        ("s3://bucket//", "single slashes"),
        ("s3://bucket///", "single slashes"),
        ("s3://bucket/a//", "single slashes"),
        ("s3://bucket/../b", "single slashes"),
        ("s3://bucket/a/./b", "single slashes"),
        ("s3://bucket/a/..", "single slashes"),
        ("s3://bucket/a\\b", "backslashes"),
        ("s3://bucket/a\nb", "cannot be printed"),
        ("s3://bucket/\udcff", "cannot be printed"),
        ("s3://bucket/.partial-a", "single slashes"),
        ("s3://bucket/" + "a" * 224, "at most 223 bytes"),
        ("s3://bucket/" + "é" * 112, "at most 223 bytes"),
        ("s3://Bücket/a", "a bucket's name"),
        ("s3://my bucket/a", "a bucket's name"),
        ("s3://bucket%20/a", "a bucket's name"),
        ("s3://ab/a", "a bucket's name"),
        ("s3://..\\a/b", "a bucket's name"),
        ("s3://localhost:9000/bucket", "AWS_ENDPOINT_URL"),
        ("s3://key:secret@bucket/a", "neither credentials nor a server"),
        ("s3:/bucket/a", "s3://bucket/prefix$"),
        ("s3:bucket/a", "s3://bucket/prefix$"),
        ("s3:///a", "s3://bucket/prefix$"),
    ],
)
def test_an_address_of_a_bucket_that_names_no_place_says_what_is_wrong_with_it(url: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as raised:
        open_store(url)
    if "#" in url or "?" in url:
        assert "credentials" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("S3://bucket/a", "s3://bucket/a"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://My_old.bucket/a b/c%20d/e+f/é", "s3://My_old.bucket/a b/c%20d/e+f/é"),
        ("s3://bucket/" + "a" * 223, "s3://bucket/" + "a" * 223),
    ],
)
def test_a_prefix_stands_for_itself(url: str, shown: str) -> None:
    assert open_store(url).url == shown


@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a%20b", "a+b", "é", "a\udcffb", "a&b", "[a]", "a;b", "a\nb"])
def test_a_folder_of_any_name_keeps_what_is_written_and_its_address_leads_back(name: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / name))
    store.write("x/a b", b"data")
    assert (tmp_path / name / "x" / "a b").read_bytes() == b"data"
    assert store.url.isascii()
    again = open_store(store.url)
    assert (again.url, again.list(""), again.read("x/a b")) == (store.url, ["x/a b"], b"data")


@pytest.mark.parametrize("url", ["file:{}/a%20b", "file://{}/a%20b", "file://localhost{}/a%20b", "FILE://{}/a%20b"])
def test_a_file_address_is_read_as_every_link_is(url: str, tmp_path: Path) -> None:
    store = open_store(url.format(tmp_path))
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path.resolve() / "a b"


@pytest.mark.parametrize(
    "url", ["file:store", "file://host/store", "file://store", "file:///a?b", "file:///a#b", "file:"]
)
def test_a_file_address_of_another_machine_or_without_its_slashes_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="expected file:///folder"):
        open_store(url)


@pytest.mark.parametrize("url", ["c:\\store", "gs://bucket/a", "http://host/a", "a:b"])
def test_another_scheme_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="expected a path, file:// or s3:// address"):
        open_store(url)


def test_a_path_that_no_parser_of_addresses_takes_is_a_path() -> None:
    store = open_store("//[not-an-address")
    assert isinstance(store, LocalStore)
    assert str(store.root) == "/[not-an-address"


def test_opening_a_bucket_asks_nobody() -> None:
    assert open_store("s3://bucket/some/prefix/").url == "s3://bucket/some/prefix"
    assert ObjectStore("s3://bucket").url == "s3://bucket"


@pytest.mark.parametrize(
    ("error", "credentials"),
    [
        (exceptions.NoCredentialsError(), True),
        (exceptions.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), True),
        (exceptions.CredentialRetrievalError(provider="process", error_msg="no"), True),
        (exceptions.ProfileNotFound(profile="work"), True),
        (exceptions.TokenRetrievalError(provider="sso", error_msg="no"), True),
        (exceptions.ParamValidationError(report="Invalid bucket name"), False),
        (exceptions.InvalidRegionError(region_name="no region"), False),
        (exceptions.UnknownServiceError(service_name="s4", known_service_names="s3"), False),
    ],
)
def test_only_what_concerns_credentials_is_blamed_on_them(
    error: Exception, credentials: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise error

    connection = SimpleNamespace(files=SimpleNamespace(loop=get_loop()), endpoint="http://host", answered=True)
    monkeypatch.setattr(s3, "connect", lambda *_: connection)
    monkeypatch.setattr(s3, "send", refuse)
    with pytest.raises(StoreRefused) as raised:
        check_writable(ObjectStore("s3://bucket/a"))
    assert ("credentials" in str(raised.value)) == credentials
    assert ("AWS_DEFAULT_REGION" in str(raised.value)) != credentials
