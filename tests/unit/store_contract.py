"""What every store promises: the same tests for the local disk, for a real S3 server, and for any other endpoint.

A subclass says by its fixture `store` which one is meant; each test gets an empty one.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import ObjectExists, ObjectMissing, SpecError, StoreError
from storage.store import Store, check_writable

LARGE = 20 * 2**20

ODD_KEYS = (
    "a b/ c",
    "a+b%20c",
    "q?versionId=3",
    "#h&x=1;",
    "~tilde'\"",
    "*[a]{b}",
    "ü/ä",
    "e\u0301",
    "\N{GRINNING FACE}",
    "trailing ",
    "dots..in.name",
    ".hidden",
    "n" * 255,
    "/".join(["long"] * 150),
)

names = st.sampled_from(["a", "b", "c/d", "c/e", "c-", "c.", "d/x/y"])
contents = st.binary(max_size=20)
operations = st.one_of(
    st.tuples(st.just("write"), names, contents),
    st.tuples(st.just("create"), names, contents),
    st.tuples(st.just("delete"), names, st.just(b"")),
)


def attempt(action: Callable[[], object]) -> bool:
    """Whether a create won."""
    try:
        action()
    except ObjectExists:
        return False
    return True


class StoreContract:
    """The promises of `storage.store.Store`."""

    # A disk lists in one go, a server in pages of 1,000; a disk answers sooner.
    many_keys = 200
    examples = 20

    def test_what_is_written_is_read_back(self, store: Store) -> None:
        store.write("a/b.bin", b"one")
        assert store.read("a/b.bin") == b"one"
        store.write("a/b.bin", b"three")
        assert store.read("a/b.bin") == b"three"
        assert store.size("a/b.bin") == 5
        assert store.size("a/c.bin") is None

    @pytest.mark.parametrize("size", [0, 1, LARGE])
    def test_objects_of_any_size_are_kept_whole(self, store: Store, size: int) -> None:
        data = random.Random(size).randbytes(size)
        store.write("written", data)
        store.create("created", data)
        for key in ("written", "created"):
            assert store.read(key) == data
            assert store.size(key) == size

    def test_create_never_overwrites(self, store: Store) -> None:
        store.create("a", b"first")
        with pytest.raises(ObjectExists):
            store.create("a", b"second")
        with pytest.raises(ObjectExists):
            store.create("a", b"a large one" * 2_000_000)
        assert store.read("a") == b"first"
        store.delete("a")
        store.create("a", b"third")
        assert store.read("a") == b"third"

    def test_of_many_creators_exactly_one_wins_whatever_the_order(self, store: Store) -> None:
        assert store.is_exclusive()
        keys = [f"contested/{index}" for index in range(6)]
        won: dict[str, list[int]] = {key: [] for key in keys}

        def create_all(writer: int) -> None:
            order = random.Random(writer).sample(keys, len(keys))
            for key in order:
                if attempt(lambda key=key: store.create(key, str(writer).encode())):  # type: ignore[misc]
                    won[key].append(writer)
                # Whoever has lost can read what the winner wrote.
                assert store.read(key).decode() in map(str, range(8))

        with ThreadPoolExecutor(8) as writers:
            list(writers.map(create_all, range(8)))
        for key in keys:
            (winner,) = won[key]
            assert store.read(key) == str(winner).encode()

    def test_a_reader_never_sees_half_an_object(self, store: Store) -> None:
        versions = [bytes([letter]) * size for letter, size in ((97, 3_000_000), (98, 1_000_000), (99, LARGE))]
        store.write("changing", versions[0])
        done = threading.Event()
        seen: list[bool] = []

        def read_on() -> None:
            while not done.is_set():
                seen.append(store.read("changing") in versions)

        reader = threading.Thread(target=read_on)
        reader.start()
        for index in range(6):
            store.write("changing", versions[index % 3])
        done.set()
        reader.join()
        assert seen
        assert all(seen)

    def test_reading_what_is_not_there_says_so(self, store: Store) -> None:
        with pytest.raises(ObjectMissing, match="nothing under a/b"):
            store.read("a/b")
        with pytest.raises(ObjectMissing, match="nothing under a/b"):
            store.modified("a/b")

    def test_a_folder_is_no_object(self, store: Store) -> None:
        store.write("folder/object", b"content")
        assert store.size("folder") is None
        with pytest.raises(ObjectMissing):
            store.read("folder")
        store.delete("folder")
        assert store.read("folder/object") == b"content"

    def test_deleting_twice_is_no_error(self, store: Store) -> None:
        store.write("a/b", b"")
        store.delete("a/b")
        store.delete("a/b")
        store.delete("a/b/c")
        assert store.size("a/b") is None

    def test_an_object_says_when_it_was_changed(self, store: Store) -> None:
        store.write("a", b"")
        assert abs(store.modified("a") - time.time()) < 60

    def test_a_listing_is_sorted_and_of_that_folder_only(self, store: Store) -> None:
        for key in ("x/b", "x/a", "x/c/d", "x/c-/d", "x/c.d", "xy/z", "y"):
            store.write(key, b"")
        assert store.list("x") == ["x/a", "x/b", "x/c-/d", "x/c.d", "x/c/d"]
        assert store.list("") == ["x/a", "x/b", "x/c-/d", "x/c.d", "x/c/d", "xy/z", "y"]
        assert store.list("nothing") == []
        assert store.list("y") == []

    def test_a_long_listing_is_complete(self, store: Store) -> None:
        keys = sorted(f"many/{index % 7}{'/-.'[index % 3]}{index:04}" for index in range(self.many_keys))
        with ThreadPoolExecutor(8) as writers:
            list(writers.map(lambda key: store.write(key, b""), keys))
        assert store.list("many") == keys

    def test_a_scan_tells_the_keys_of_a_folder_with_their_sizes(self, store: Store) -> None:
        sizes = {"x/b": 3, "x/c/d": 0, "x/c-/d": 70_000, "xy/z": 1, "y": 2}
        for key, size in sizes.items():
            store.write(key, b"x" * size)
        assert sorted((listed.key, listed.bytes) for listed in store.scan("x")) == [
            ("x/b", 3), ("x/c-/d", 70_000), ("x/c/d", 0),
        ]  # fmt: skip
        assert {listed.key: listed.bytes for listed in store.scan("")} == sizes
        assert list(store.scan("nothing")) == []
        assert list(store.scan("y")) == []
        assert list(store.scan("y/z")) == []

    def test_a_version_changes_with_the_bytes_and_at_no_other_time(self, store: Store) -> None:
        def versions() -> dict[str, str]:
            return {listed.key: listed.version for listed in store.scan("x")}

        store.write("x/a", b"0")
        store.write("x/b", b"b")
        seen = [versions()]
        for number in range(1, 8):
            store.write("x/a", str(number).encode())
            seen.append(versions())
        store.write("x/a", random.Random(0).randbytes(LARGE))
        seen.append(versions())
        assert versions() == seen[-1]
        assert len({version["x/b"] for version in seen}) == 1
        assert all(before["x/a"] != after["x/a"] for before, after in itertools.pairwise(seen))

    def test_keys_that_vanish_during_a_scan_cost_no_others(self, store: Store) -> None:
        keys = [f"many/{index % 7}/{index:04}" for index in range(self.many_keys)]
        with ThreadPoolExecutor(8) as workers:
            list(workers.map(lambda key: store.write(key, b"x"), keys))
            seen: list[str] = []
            for listed in store.scan("many"):
                if not seen:
                    list(workers.map(store.delete, keys[::3]))
                seen.append(listed.key)
                store.delete(listed.key)
        assert len(seen) == len(set(seen))
        assert set(keys) - set(keys[::3]) <= set(seen) <= set(keys)
        assert list(store.scan("many")) == []

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_an_odd_name_is_kept_as_it_is(self, store: Store, key: str) -> None:
        assert attempt(lambda: store.create(key, b"content"))
        assert not attempt(lambda: store.create(key, b"other"))
        assert store.read(key) == b"content"
        assert store.size(key) == 7
        assert store.list("") == [key]
        assert [(listed.key, listed.bytes) for listed in store.scan("")] == [(key, 7)]
        store.delete(key)
        assert store.list("") == []

    @pytest.mark.parametrize(
        "key",
        [
            "../a",
            "/etc/passwd",
            "a/../../b",
            "",
            ".",
            "a\\b",
            "a\0b",
            "a\nb",
            "\ud800",
            "n" * 256,
            "n/" * 500,
            ".partial-1",
        ],
    )
    def test_keys_that_no_store_or_not_every_store_can_hold_are_refused(self, store: Store, key: str) -> None:
        for action in (store.read, store.size, store.delete, store.modified):
            with pytest.raises(SpecError, match="not a key"):
                action(key)
        with pytest.raises(SpecError, match="not a key"):
            store.create(key, b"")

    @pytest.mark.parametrize(("first", "second"), [("z", "z/x"), ("z/x", "z")])
    def test_an_object_under_an_objects_name_costs_neither(self, store: Store, first: str, second: str) -> None:
        """Object stores can hold both, disks cannot; none may lose what it has."""
        store.write(first, b"first")
        try:
            store.write(second, b"second")
        except (StoreError, OSError):
            assert store.size(second) is None
        else:
            assert store.read(second) == b"second"
        assert store.read(first) == b"first"

    def test_it_is_writable_and_keeps_no_probe(self, store: Store) -> None:
        check_writable(store)
        assert store.list("") == []

    def test_it_does_what_a_dictionary_does(self, store: Store) -> None:
        @settings(max_examples=self.examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(operations, max_size=8))
        def check(program: list[tuple[str, str, bytes]]) -> None:
            for key in store.list(""):
                store.delete(key)
            expected: dict[str, bytes] = {}
            for action, key, content in program:
                if action == "write":
                    store.write(key, content)
                    expected[key] = content
                elif action == "create":
                    assert attempt(lambda key=key, content=content: store.create(key, content)) == (key not in expected)  # type: ignore[misc]
                    expected.setdefault(key, content)
                else:
                    store.delete(key)
                    expected.pop(key, None)
            assert store.list("") == sorted(expected)
            assert {key: store.read(key) for key in expected} == expected

        check()
