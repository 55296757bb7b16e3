"""Debris is what no manifest speaks of, once it is old."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from storage.objects import MANIFEST, ROWS, commit, find
from storage.store import LocalStore
from storage.sweep import find_debris, remove

NOW = 1_800_000_000.0
URI = "objects/step/label/digest"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path)
    commit(store, URI, step="step", digest="digest", recipe={}, parts={ROWS: pa.table({"x": [1]})})
    store.write(f"{URI}/part-0-loser.parquet", b"a slower writer's part")
    store.write("objects/step/label/unfinished/part-0-abc.parquet", b"no manifest")
    store.write("checkpoints/digest/epoch-1", b"state")
    store.write("runs/evaluate/sample-1/index.json", b"{}")
    return store


def age(store: LocalStore, days: float) -> None:
    for path in store.root.rglob("*"):
        os.utime(path, (NOW - days * 86_400, NOW - days * 86_400))


def test_old_debris_goes_and_finished_objects_stay(store: LocalStore) -> None:
    age(store, days=10)
    debris = find_debris(store, older_than=NOW - 7 * 86_400)
    assert sorted(debris) == [
        "checkpoints/digest/epoch-1",
        f"{URI}/part-0-loser.parquet",
        "objects/step/label/unfinished/part-0-abc.parquet",
    ]
    assert remove(store, debris) == len(b"a slower writer's part") + len(b"no manifest") + len(b"state")
    assert find(store, URI) is not None
    assert find_debris(store, older_than=NOW) == []
    assert store.size("runs/evaluate/sample-1/index.json") is not None


def test_what_a_running_step_has_just_written_stays(store: LocalStore) -> None:
    age(store, days=1)
    assert find_debris(store, older_than=NOW - 7 * 86_400) == []


def test_an_object_whose_manifest_is_broken_is_debris_in_the_end(store: LocalStore) -> None:
    store.write(f"{URI}/{MANIFEST}", b"{broken")
    age(store, days=10)
    debris = find_debris(store, older_than=NOW - 7 * 86_400)
    assert [key for key in debris if key.startswith(f"{URI}/part-0")]
