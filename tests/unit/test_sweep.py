"""What a sweep takes: what no manifest or no run speaks of, once it is old, and nothing that anybody may be using."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from storage.claims import Claims
from storage.digest import canonical_json, digest_of
from storage.errors import DamagedObject, OtherVersion
from storage.local import LocalStore
from storage.objects import MANIFEST, ROWS, Ref, commit, find, read_manifest, read_table
from storage.store import Listed, Store
from storage.sweep import (
    FinishedObject,
    Removed,
    find_debris,
    find_old_claims,
    find_old_plans,
    find_unfinished_writes,
    find_unreferenced,
    remove,
    remove_old_plans,
    remove_unfinished_writes,
    remove_unreferenced,
)

# Long past: whatever a test writes without setting its age is young.
NOW = 1_700_000_000.0
WEEK_AGO = NOW - 7 * 86_400
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


def age(store: LocalStore, days: float, below: str = "") -> None:
    for path in (store.root / below).rglob("*"):
        os.utime(path, (NOW - days * 86_400, NOW - days * 86_400))


def keys(found: Sequence[Listed]) -> list[str]:
    return [listed.key for listed in found]


def nobody() -> Sequence[str]:
    return ()


# Debris


def test_old_debris_goes_and_finished_objects_stay(store: LocalStore) -> None:
    age(store, days=10)
    debris = find_debris(store, older_than=WEEK_AGO)
    assert keys(debris) == [
        "checkpoints/digest/epoch-1",
        f"{URI}/part-0-loser.parquet",
        "objects/step/label/unfinished/part-0-abc.parquet",
    ]
    size = len(b"a slower writer's part") + len(b"no manifest") + len(b"state")
    assert sum(listed.bytes for listed in debris) == size
    assert remove(store, debris, older_than=WEEK_AGO) == Removed(3, size)
    assert find(store, URI) is not None
    assert find_debris(store, older_than=NOW) == []
    assert store.size("runs/evaluate/sample-1/index.json") is not None


def test_what_a_running_step_has_just_written_stays(store: LocalStore) -> None:
    age(store, days=1)
    assert find_debris(store, older_than=WEEK_AGO) == []


def test_an_object_whose_manifest_is_broken_is_debris_in_the_end(store: LocalStore) -> None:
    store.write(f"{URI}/{MANIFEST}", b"{broken")
    age(store, days=10)
    debris = find_debris(store, older_than=WEEK_AGO)
    assert [key for key in keys(debris) if key.startswith(f"{URI}/part-0")]
    # Looking changes nothing, and the step itself replaces the manifest.
    assert store.read(f"{URI}/{MANIFEST}") == b"{broken"
    assert f"{URI}/{MANIFEST}" not in keys(debris)


def test_what_was_written_again_since_the_sweep_looked_stays(store: LocalStore) -> None:
    age(store, days=10)
    debris = find_debris(store, older_than=WEEK_AGO)
    store.write("checkpoints/digest/epoch-1", b"a training that goes on")
    assert remove(store, debris, older_than=WEEK_AGO).keys == 2
    assert store.read("checkpoints/digest/epoch-1") == b"a training that goes on"


def test_an_old_part_that_a_manifest_names_by_now_stays(store: LocalStore) -> None:
    """Its step made the same bytes again and found the part there."""
    table = pa.table({"x": [1]})
    store.delete(f"{URI}/{MANIFEST}")
    age(store, days=10)
    debris = find_debris(store, older_than=WEEK_AGO)
    assert len([key for key in keys(debris) if key.startswith(f"{URI}/part-0")]) == 2
    ref = commit(store, URI, step="step", digest="digest", recipe={}, parts={ROWS: table})
    remove(store, debris, older_than=WEEK_AGO)
    assert read_table(store, ref).equals(table)


class Disturbed(LocalStore):
    """A store in which something happens right before a key is deleted."""

    def __init__(self, root: Path, before_delete: Callable[[], object]) -> None:
        super().__init__(root)
        self.before_delete = before_delete

    def delete(self, key: str) -> None:
        self.before_delete()
        super().delete(key)


def test_a_part_that_is_named_while_it_goes_is_put_back(store: LocalStore) -> None:
    table = pa.table({"x": [1]})
    store.delete(f"{URI}/{MANIFEST}")
    age(store, days=10)
    debris = find_debris(store, older_than=WEEK_AGO)

    def finish() -> Ref:
        return commit(store, URI, step="step", digest="digest", recipe={}, parts={ROWS: table})

    remove(Disturbed(store.root, finish), debris, older_than=WEEK_AGO)
    assert find(store, URI) is not None
    assert read_table(store, finish()).equals(table)


def test_a_writer_whose_part_goes_before_its_manifest_is_there_writes_it_again(store: LocalStore) -> None:
    class Late(LocalStore):
        def create(self, key: str, data: bytes) -> None:
            debris = [each for each in store.scan(URI) if not each.key.endswith(MANIFEST)]
            assert remove(store, debris, older_than=WEEK_AGO).keys == 2
            super().create(key, data)

    table = pa.table({"x": [1]})
    store.delete(f"{URI}/{MANIFEST}")
    age(store, days=10)
    ref = commit(Late(store.root), URI, step="step", digest="digest", recipe={}, parts={ROWS: table})
    assert read_table(store, ref).equals(table)


def test_writes_that_broke_off_are_debris_too(store: LocalStore) -> None:
    broken = store.root / URI / ".partial-123-abc"
    broken.write_bytes(b"half")
    age(store, days=10)
    young = store.root / URI / ".partial-124-def"
    young.write_bytes(b"being written")
    os.utime(young, (NOW, NOW))
    found = find_unfinished_writes(store, older_than=WEEK_AGO)
    assert found == [(f"{URI}/.partial-123-abc", 4)]
    assert remove_unfinished_writes(store, [name for name, _ in found]) == Removed(1, 4)
    assert not broken.exists()
    assert young.exists()


# Claims and plans

LANE = "plans/p/lanes/lane-1.json"
PLAN = {
    "plans/p/end.json": b"over",
    "plans/p/failures/d-1.json": b"it failed",
    LANE: b"status",
    "plans/p/plan.json": b"header",
    "plans/p/segments/cpu/000000.json": b"elements",
}


def make_plan(store: LocalStore) -> None:
    for key, content in PLAN.items():
        store.create(key, content)
    age(store, days=10, below="plans")


def test_old_claims_are_debris_and_younger_ones_stay(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    claims = Claims(store, LANE)
    assert claims.take("old") is not None
    age(store, days=10)
    young = claims.take("young")
    assert young is not None
    found = find_old_claims(store, older_than=WEEK_AGO)
    assert keys(found) == ["claims/old/000000.json"]
    assert remove(store, found, older_than=WEEK_AGO).keys == 1
    assert store.list("claims") == [young.key]
    # Whoever held it is not disturbed, and anybody may take it now.
    claims.release_all()
    assert Claims(store, "another").take("old") is not None


def test_a_claim_that_was_taken_again_since_the_sweep_looked_stays(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    Claims(store, LANE).take("d")
    age(store, days=10)
    found = find_old_claims(store, older_than=WEEK_AGO)
    store.delete("claims/d/000000.json")
    assert Claims(store, LANE).take("d") is not None
    assert remove(store, found, older_than=WEEK_AGO).keys == 0
    assert store.list("claims") == ["claims/d/000000.json"]


def test_a_plan_goes_as_a_whole_once_nothing_of_it_was_changed_for_long(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    make_plan(store)
    store.create("plans/q/plan.json", b"another")
    (plan,) = find_old_plans(store, older_than=WEEK_AGO)
    size = sum(len(content) for content in PLAN.values())
    assert (plan.place, plan.keys, plan.bytes) == ("plans/p", tuple(sorted(PLAN)), size)
    assert remove_old_plans(store, [plan], older_than=WEEK_AGO) == Removed(5, size)
    assert store.list("plans") == ["plans/q/plan.json"]
    assert find_debris(store, older_than=NOW) == []


@pytest.mark.parametrize("changed", sorted(PLAN))
def test_a_plan_of_which_anything_is_young_stays_as_a_whole(tmp_path: Path, changed: str) -> None:
    """Its coordinator still waits, perhaps: lanes rewrite their statuses, and the header is as old as the plan."""
    store = LocalStore(tmp_path)
    make_plan(store)
    found = find_old_plans(store, older_than=WEEK_AGO)
    store.write(changed, b"a sign of life")
    assert find_old_plans(store, older_than=WEEK_AGO) == []
    assert remove_old_plans(store, found, older_than=WEEK_AGO) == Removed(0, 0)
    assert store.list("plans") == sorted(PLAN)


def test_a_plan_to_which_something_new_was_added_since_the_sweep_looked_stays(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    make_plan(store)
    found = find_old_plans(store, older_than=WEEK_AGO)
    store.create("plans/p/lanes/lane-2.json", b"a lane that has only begun")
    assert remove_old_plans(store, found, older_than=WEEK_AGO) == Removed(0, 0)
    assert len(store.list("plans")) == len(PLAN) + 1


def test_a_plan_that_is_made_again_while_it_goes_keeps_what_it_writes(tmp_path: Path) -> None:
    make_plan(LocalStore(tmp_path))
    deletes = 0

    def make_again() -> None:
        nonlocal deletes
        deletes += 1
        if deletes == 2:
            LocalStore(tmp_path).create("plans/p/plan.json", b"header")

    store = Disturbed(tmp_path, make_again)
    removed = remove_old_plans(store, find_old_plans(store, older_than=WEEK_AGO), older_than=WEEK_AGO)
    assert removed.keys == 2
    assert "plans/p/plan.json" in store.list("plans")


def test_a_key_among_the_plans_that_belongs_to_none_goes_by_itself(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.create("plans/notes.txt", b"somebody's")
    age(store, days=10)
    found = find_old_plans(store, older_than=WEEK_AGO)
    assert remove_old_plans(store, found, older_than=WEEK_AGO).keys == 1
    assert store.list("") == []


# Objects that nothing refers to


def made(store: Store, name: str, *inputs: Ref, **parts: bytes) -> Ref:
    """An object of the step `name`, whose recipe holds its inputs as steps write them: by digest only."""
    recipe = {"step": name, "arguments": {"images": [{"ref": each.digest} for each in inputs]}}
    digest = digest_of(recipe)
    content = {ROWS: pa.table({"x": [name]}), **parts}
    return commit(store, f"objects/{name}/label/{digest}", step=name, digest=digest, recipe=recipe, parts=content)


def publish(store: Store, run: str, *results: Ref) -> None:
    index = {"results": [each.model_dump() for each in results]}
    store.write(f"runs/evaluate/{run}/index.json", canonical_json(index).encode())


def uris(found: Sequence[FinishedObject]) -> list[str]:
    return [each.uri for each in found]


@pytest.fixture
def chain(tmp_path: Path) -> tuple[LocalStore, list[Ref], list[Ref]]:
    """A run's objects, each made from the one before, and a second chain to which nothing refers; all are old."""
    store = LocalStore(tmp_path)
    kept = [made(store, "images")]
    kept += [made(store, "features", kept[0])]
    kept += [made(store, "scores", kept[1])]
    lost = [made(store, "other-images")]
    lost += [made(store, "other-features", lost[0])]
    publish(store, "sample-1", kept[2])
    age(store, days=10)
    return store, kept, lost


def test_what_a_run_was_made_from_stays_and_the_rest_goes(chain: tuple[LocalStore, list[Ref], list[Ref]]) -> None:
    store, kept, lost = chain
    found = find_unreferenced(store, older_than=WEEK_AGO)
    assert uris(found) == sorted(ref.uri for ref in lost)
    assert {each.step for each in found} == {"other-images", "other-features"}
    size = sum(each.bytes for each in found)
    removed, stopped = remove_unreferenced(store, found, nobody)
    assert (removed, stopped) == (Removed(4, size), ())
    assert all(find(store, ref.uri) == ref for ref in kept)
    assert [key for key in store.list("objects") if "other" in key] == []
    assert find_debris(store, older_than=NOW) == []


def test_what_a_young_object_was_made_from_stays(chain: tuple[LocalStore, list[Ref], list[Ref]]) -> None:
    """The run that makes it has no index yet."""
    store, _, lost = chain
    made(store, "unfinished-scores", lost[1])
    age(store, days=1, below="objects/unfinished-scores")
    assert find_unreferenced(store, older_than=WEEK_AGO) == []


def test_an_object_named_in_notes_stays(chain: tuple[LocalStore, list[Ref], list[Ref]]) -> None:
    store, _, lost = chain
    digest = digest_of("noting")
    commit(
        store,
        f"objects/noting/label/{digest}",
        step="noting",
        digest=digest,
        recipe={},
        parts={},
        notes={"plan": {"uri": lost[0].uri}},
    )
    publish(store, "sample-2", Ref(uri=f"objects/noting/label/{digest}", digest=digest, rows=0, bytes=0))
    age(store, days=10)
    assert uris(find_unreferenced(store, older_than=WEEK_AGO)) == [lost[1].uri]


def test_an_index_that_cannot_be_read_stops_the_sweep(chain: tuple[LocalStore, list[Ref], list[Ref]]) -> None:
    store, *_ = chain
    store.write("runs/evaluate/sample-2/index.json", b'{"results": [')
    with pytest.raises(DamagedObject, match=r"sample-2/index\.json"):
        find_unreferenced(store, older_than=WEEK_AGO)


def test_objects_of_a_newer_version_stop_the_sweep(chain: tuple[LocalStore, list[Ref], list[Ref]]) -> None:
    store, kept, lost = chain
    for ref in (*kept, *lost):
        manifest = json.loads(store.read(f"{ref.uri}/{MANIFEST}"))
        store.write(f"{ref.uri}/{MANIFEST}", json.dumps(manifest | {"format": 2}).encode())
    age(store, days=10)
    before = set(store.list(""))
    for look in (find_unreferenced, find_debris):
        with pytest.raises(OtherVersion, match="a newer version of telltale"):
            look(store, older_than=WEEK_AGO)
    assert set(store.list("")) == before


@pytest.mark.parametrize("asked_before", [0, 1, 2, 3])
def test_a_run_that_begins_meanwhile_keeps_what_it_may_have_found(
    chain: tuple[LocalStore, list[Ref], list[Ref]], asked_before: int
) -> None:
    """It is seen before an object goes, or between its manifest and its parts."""
    store, _, lost = chain
    asked = 0

    def at_work() -> Sequence[str]:
        nonlocal asked
        asked += 1
        return ["evaluate sample"] if asked > asked_before else []

    found = find_unreferenced(store, older_than=WEEK_AGO)
    removed, stopped = remove_unreferenced(store, found, at_work)
    assert stopped == ["evaluate sample"]
    whole = {ref.uri for ref in lost if find(store, ref.uri) == ref}
    assert len(whole) == 2 - asked_before // 2
    assert removed.keys == 2 * (asked_before // 2)
    assert find_debris(store, older_than=NOW) == []


def test_neither_claims_nor_plans_keep_an_object_nor_are_they_taken_for_one(
    chain: tuple[LocalStore, list[Ref], list[Ref]],
) -> None:
    store, _, lost = chain
    assert Claims(store, LANE).take(lost[1].digest) is not None
    store.create("plans/p/segments/cpu/000000.json", lost[1].uri.encode())
    store.create("plans/p/manifest.json", b"no object's")
    assert uris(find_unreferenced(store, older_than=WEEK_AGO)) == sorted(ref.uri for ref in lost)
    assert find_debris(store, older_than=NOW * 2) == []


class CutOff(Exception):
    """The sweep dies."""


def test_a_sweep_that_dies_leaves_debris_and_no_half_object(chain: tuple[LocalStore, list[Ref], list[Ref]]) -> None:
    store, _, lost = chain
    deletes = 0

    def die() -> None:
        nonlocal deletes
        deletes += 1
        if deletes == 2:
            raise CutOff

    found = find_unreferenced(store, older_than=WEEK_AGO)
    with pytest.raises(CutOff):
        remove_unreferenced(Disturbed(store.root, die), found, nobody)
    whole = [ref for ref in lost if find(store, ref.uri) is not None]
    assert len(whole) == 1
    debris = find_debris(store, older_than=WEEK_AGO)
    assert len(debris) == 1
    assert remove(store, debris, older_than=WEEK_AGO).keys == 1


# Writers beside it


def assert_whole(store: LocalStore) -> None:
    """No manifest is without its parts."""
    for key in store.list("objects"):
        if key.endswith(f"/{MANIFEST}"):
            uri = key.removesuffix(f"/{MANIFEST}")
            for part in read_manifest(store, uri).parts:
                assert store.size(f"{uri}/{part.file}") == part.bytes, f"{uri}/{part.file}"


def sweep_once(store: LocalStore) -> None:
    """Sweep with the moment between the old files, ten days back, and those of now."""
    moment = time.time() - 7 * 86_400
    remove(store, find_debris(store, moment), moment)
    remove_unreferenced(store, find_unreferenced(store, moment), nobody)


def make_old_debris(store: LocalStore, names: Sequence[str]) -> None:
    """The parts of objects as a void manifest leaves them: the very files that their steps will make again."""
    for name in names:
        ref = made(store, name, more=name.encode() * 2_000)
        store.delete(f"{ref.uri}/{MANIFEST}")
    long_ago = time.time() - 10 * 86_400
    for path in store.root.rglob("*"):
        os.utime(path, (long_ago, long_ago))


def test_threads_that_write_the_same_objects_while_a_sweep_goes_on_lose_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    names = [f"step-{number}" for number in range(60)]
    make_old_debris(store, names)
    done = threading.Event()

    def sweep_on() -> int:
        rounds = 0
        while not done.is_set():
            sweep_once(store)
            rounds += 1
        return rounds

    def write_all(writer: int) -> list[Ref]:
        order = random.Random(writer).sample(names, len(names))
        return [made(store, name, more=name.encode() * 2_000) for name in order]

    with ThreadPoolExecutor(6) as pool:
        sweepers = [pool.submit(sweep_on) for _ in range(2)]
        written = [ref for future in [pool.submit(write_all, writer) for writer in range(4)] for ref in future.result()]
        done.set()
        assert all(sweeper.result() > 0 for sweeper in sweepers)
    assert {ref.uri.split("/")[1] for ref in written} == set(names)
    assert all(find(store, ref.uri) == ref for ref in written)
    assert_whole(store)


WRITE = """
import sys
from pathlib import Path
from storage.local import LocalStore
from tests.unit.test_sweep import made
for name in sys.argv[2:]:
    print(made(LocalStore(Path(sys.argv[1])), name, more=name.encode() * 2_000).uri)
"""


def test_processes_that_write_while_a_sweep_goes_on_lose_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    names = [f"step-{number}" for number in range(40)]
    make_old_debris(store, names)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path), *random.Random(writer).sample(names, len(names))],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for writer in range(2)
    ]
    rounds = 0
    while any(writer.poll() is None for writer in writers):
        sweep_once(store)
        rounds += 1
    written = {uri for writer in writers for uri in writer.communicate()[0].split()}
    assert all(writer.returncode == 0 for writer in writers)
    assert rounds > 1
    assert len(written) == len(names)
    assert all(find(store, uri) is not None for uri in written)
    assert_whole(store)
