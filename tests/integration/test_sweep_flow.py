"""`maintain/sweep` beside other flow runs: what it says before it removes anything, and what it refuses."""

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.states import Completed, Running
from prefect.testing.utilities import prefect_test_harness

from flows.maintain import sweep
from storage.errors import TelltaleError
from storage.local import LocalStore
from storage.objects import find
from storage.sweep import NOTHING, Removed
from tests.unit.test_sweep import made, publish

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A run with its objects, an object of no run, a claim, a plan, and debris; all ten days old."""
    monkeypatch.setenv("TELLTALE_STORE", str(tmp_path))
    store = LocalStore(tmp_path)
    publish(store, "sample-1", made(store, "scores", made(store, "images")))
    made(store, "forgotten")
    store.write("claims/d/000000.json", b'{"status":"plans/p/lanes/lane-1.json"}')
    store.write("plans/p/plan.json", b"header")
    store.write("plans/p/lanes/lane-1.json", b"status")
    store.write("objects/broken/label/none/part-0-abc.parquet", b"no manifest")
    long_ago = time.time() - 10 * 86_400
    for path in tmp_path.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    return store


@flow(name="evaluate", flow_run_name="evaluate sample")
def evaluation() -> None:
    """Stands for any flow that uses the store."""


def shown() -> list[str]:
    """Everything that sweeps have shown in the artifact, oldest first."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["sweep"])))
    return [str(artifact.data) for artifact in sorted(found, key=lambda each: str(each.created))]


def test_a_dry_run_says_what_would_go_and_removes_nothing(store: LocalStore) -> None:
    before = store.list("")
    assert sweep(unreferenced=True, dry_run=True) == 0
    assert store.list("") == before
    said = shown()[-1]
    assert said.startswith(f"Would be removed from {store.url}, last changed over 7 days ago.")
    assert "| debris | `broken` | 1 | 11 |" in said
    assert "| claim | `claims` | 1 | 38 |" in said
    assert "| plan | `plans` | 1 | 12 |" in said
    assert "| unreferenced object | `forgotten` | 1 |" in said
    assert "objects/forgotten/label/" in said
    assert "images" not in said


def test_debris_goes_whoever_is_at_work_and_is_listed_before(store: LocalStore) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(evaluation, state=Running())
        try:
            assert sweep() == 4
        finally:
            client.set_flow_run_state(run.id, Completed(), force=True)
    assert store.size("objects/broken/label/none/part-0-abc.parquet") is None
    assert len([key for key in store.list("objects") if key.endswith("manifest.json")]) == 3
    listed, outcome = shown()[-2:]
    assert listed.startswith("To be removed from")
    assert "objects/broken/label/none/part-0-abc.parquet" in listed
    assert outcome.startswith("Removed 4 keys, 61 bytes.")
    assert store.list("claims") == store.list("plans") == []


def test_unreferenced_objects_stay_while_a_run_is_at_work_and_go_afterwards(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.list("")
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(evaluation, name="evaluate sample", state=Running())
        with pytest.raises(TelltaleError, match="evaluate sample"):
            sweep(unreferenced=True)
        client.set_flow_run_state(run.id, Completed(), force=True)
        # It has only just ended.
        with pytest.raises(TelltaleError, match="evaluate sample"):
            sweep(unreferenced=True)
        assert store.list("") == before
        end_all_long_ago(monkeypatch)
        assert sweep(unreferenced=True) == 6
    steps = {key.split("/")[1] for key in store.list("objects")}
    assert steps == {"scores", "images"}


def test_a_run_that_begins_during_the_sweep_stops_it(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    end_all_long_ago(monkeypatch)
    begun = []

    def begin(*_: object) -> Removed:
        with get_client(sync_client=True) as client:
            begun.append(client.create_flow_run(evaluation, name="evaluate now", state=Running()).id)
        return NOTHING

    monkeypatch.setattr("flows.maintain.remove_unfinished_writes", begin)
    sweep(unreferenced=True)
    forgotten = {key.rsplit("/", 1)[0] for key in store.list("objects/forgotten")}
    assert all(find(store, uri) is not None for uri in forgotten)
    assert len(forgotten) == 1
    assert "stopped before the other unreferenced objects" in shown()[-1]
    assert "evaluate now" in shown()[-1]
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(begun[0], Completed(), force=True)


def end_all_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runs of other tests, which have all ended, have ended long ago."""
    monkeypatch.setattr("flows.maintain.JUST_ENDED", -timedelta(hours=1))
