"""Finished objects: the manifest is the truth, and a damaged object is never used."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from storage.digest import digest_of
from storage.errors import DamagedObject, ObjectMissing, OtherVersion
from storage.local import LocalStore
from storage.objects import (
    MANIFEST,
    ROWS,
    Ref,
    commit,
    find,
    finished_objects,
    notes_of,
    opened_part,
    parquet_bytes,
    read_manifest,
    read_part,
    read_table,
)

URI = "objects/test/x/0123"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def table(*values: int) -> pa.Table:
    return pa.table({"value": pa.array(values, pa.int64())})


def put(store: LocalStore, content: pa.Table, uri: str = URI) -> Ref:
    parts = {ROWS: content, "side.json": b"{}"}
    return commit(store, uri, step="test", digest="0123", recipe={"a": 1}, parts=parts, notes={"n": 2})


def part_file(store: LocalStore, name: str) -> Path:
    (part,) = [part for part in read_manifest(store, URI).parts if part.name == name]
    return store.path(f"{URI}/{part.file}")


def test_an_object_is_found_with_its_rows_and_notes(store: LocalStore) -> None:
    ref = put(store, table(1, 2, 3))
    assert find(store, URI) == ref
    assert ref.rows == 3
    assert read_table(store, ref)["value"].to_pylist() == [1, 2, 3]
    assert read_part(store, ref, "side.json") == b"{}"
    assert notes_of(store, ref) == {"n": 2}


def test_parts_without_a_manifest_are_no_object(store: LocalStore) -> None:
    put(store, table(1))
    store.delete(f"{URI}/{MANIFEST}")
    assert find(store, URI) is None


def test_the_second_of_two_writers_adopts_the_first_ones_object(store: LocalStore) -> None:
    first = put(store, table(1, 2))
    second = put(store, table(7, 8, 9))
    assert second == first
    assert read_table(store, second)["value"].to_pylist() == [1, 2]


def test_a_missing_part_voids_the_manifest(store: LocalStore) -> None:
    put(store, table(1))
    part_file(store, ROWS).unlink()
    assert find(store, URI) is None
    assert store.size(f"{URI}/{MANIFEST}") is None


def test_a_part_of_another_size_voids_the_manifest(store: LocalStore) -> None:
    put(store, table(1))
    path = part_file(store, ROWS)
    path.write_bytes(path.read_bytes() + b"x")
    assert find(store, URI) is None


def test_finished_objects_of_a_folder_are_those_with_a_manifest_in_it(store: LocalStore) -> None:
    others = ["objects/test/y/4567", "objects/other/x/89ab", "objects/testing/x/cdef"]
    for uri in (*others, URI):
        put(store, table(1), uri)
    store.delete(f"{others[0]}/{MANIFEST}")
    store.write(f"objects/test/z/no-{MANIFEST}", b"")
    assert finished_objects(store) == [others[1], URI, others[2]]


def test_an_altered_part_is_never_read_and_can_be_made_again(store: LocalStore) -> None:
    ref = put(store, table(1))
    path = part_file(store, ROWS)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedObject, match="altered"):
        read_table(store, ref)
    assert find(store, URI) is None
    again = put(store, table(1))
    assert read_table(store, again)["value"].to_pylist() == [1]


def test_an_unreadable_manifest_is_voided(store: LocalStore) -> None:
    put(store, table(1))
    store.write(f"{URI}/{MANIFEST}", b'{"step": "tes')
    assert find(store, URI) is None
    assert store.size(f"{URI}/{MANIFEST}") is None


@pytest.mark.parametrize("changes", [{"licence": "MIT"}, {"format": 2, "parts": {"rows": "elsewhere"}}])
def test_the_manifest_of_a_newer_version_is_named_and_stays(store: LocalStore, changes: dict[str, Any]) -> None:
    put(store, table(1))
    newer = json.dumps(json.loads(store.read(f"{URI}/{MANIFEST}")) | changes).encode()
    store.write(f"{URI}/{MANIFEST}", newer)
    for _ in range(2):
        with pytest.raises(OtherVersion, match=f"a newer version of telltale.*{next(iter(changes))}"):
            find(store, URI)
    assert store.read(f"{URI}/{MANIFEST}") == newer


def test_an_object_that_another_worker_has_voided_is_made_again(store: LocalStore) -> None:
    ref = put(store, table(1))
    store.delete(f"{URI}/{MANIFEST}")
    for ask in (lambda: read_part(store, ref, ROWS), lambda: notes_of(store, ref)):
        with pytest.raises(DamagedObject, match="its manifest is gone; the step will run again"):
            ask()


def test_asking_for_a_part_that_is_not_there_says_so(store: LocalStore) -> None:
    ref = put(store, table(1))
    with pytest.raises(ObjectMissing, match="no part"):
        read_part(store, ref, "other.bin")


def test_equal_content_has_an_equal_content_digest(store: LocalStore) -> None:
    put(store, table(1, 2))
    put(store, table(1, 2), uri="objects/test/y/4567")
    put(store, table(2, 1), uri="objects/test/z/89ab")
    one, two, three = (
        read_manifest(store, f"objects/test/{place}").content for place in ("x/0123", "y/4567", "z/89ab")
    )
    assert one == two != three


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [1.5, None]}) == digest_of({"b": [1.5, None], "a": 1})


def test_an_opened_part_is_the_part(store: LocalStore) -> None:
    ref = put(store, table(1, 2, 3))
    with opened_part(store, ref) as file:
        assert file.read() == read_part(store, ref, ROWS)
    assert file.closed


def test_an_altered_part_is_not_opened_and_voids_the_manifest(store: LocalStore) -> None:
    ref = put(store, table(1))
    path = part_file(store, ROWS)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DamagedObject, match="altered"), opened_part(store, ref):
        pass
    assert find(store, URI) is None


def test_a_part_that_is_gone_is_not_opened(store: LocalStore) -> None:
    ref = put(store, table(1))
    part_file(store, ROWS).unlink()
    with pytest.raises(DamagedObject, match="missing"), opened_part(store, ref):
        pass


def test_a_process_that_ends_after_reading_a_table_ends_well(tmp_path: Path) -> None:
    # Threads that still held the file's bytes aborted every third such process, and more where more was read.
    table = pa.table({"image": [b"x" * 1_000] * 500, "image_id": [str(row) for row in range(500)]})
    file = tmp_path / "part.parquet"
    file.write_bytes(parquet_bytes(table))
    program = (
        "import sys; from pathlib import Path; from storage.objects import table_of\n"
        "data = Path(sys.argv[1]).read_bytes()\n"
        "for _ in range(20): assert table_of(data).num_rows == 500\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(file)]) for _ in range(6)]
    assert [process.wait(timeout=60) for process in running] == [0] * 6
