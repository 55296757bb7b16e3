"""`prefect deployment run evaluate/all` on three pools, each limit 1: what is finished is never computed again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.services import marked_processes
from storage.objects import MANIFEST, finished_objects, read_manifest
from storage.runs import latest_content
from storage.store import LocalStore
from tests.integration.served import Served, open_folder, possible_database, wait_for
from tests.integration.small_sample import SMALL

pytestmark = [pytest.mark.integration, pytest.mark.timeout(3000)]


class Telltale(Served):
    """A served telltale and its store, in which one evaluation was killed, taken up and completed."""

    # Objects that were finished when the evaluation was killed, and again when it was completed.
    when_killed: dict[str, str]
    when_completed: dict[str, str]

    @property
    def store(self) -> LocalStore:
        return LocalStore(Path(self.environment["TELLTALE_STORE"]))

    def start(self, overrides: dict[str, Any]) -> str:
        """Type `prefect deployment run evaluate/all`; returns the flow run's id."""
        parameters = json.dumps({"experiment": "sample", "overrides": overrides, "seed": 0})
        prefect = str(Path(sys.executable).with_name("prefect"))
        done = subprocess.run(
            [prefect, "deployment", "run", "evaluate/all", "--params", parameters],
            env={**self.environment, "PREFECT_API_URL": self.api_url},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        runs = self.ask("/flow_runs/filter", flows={"name": {"any_": ["evaluate"]}}, sort="EXPECTED_START_TIME_DESC")
        return str(runs[0]["id"])

    def state(self, run: str) -> dict[str, Any]:
        (found,) = self.ask("/flow_runs/filter", flow_runs={"id": {"any_": [run]}})
        return dict(found["state"])

    def completed(self, overrides: dict[str, Any]) -> str:
        """Run to the end, and see it Completed."""
        run = self.start(overrides)
        self.finish(run)
        return run

    def finish(self, run: str) -> None:
        state = wait_for(
            lambda: (s := self.state(run))["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") and s, 1800
        )
        assert state["type"] == "COMPLETED", state

    def drop_unfinished(self) -> None:
        """Take the runs off that died with their host, as a person does in the UI."""
        states = {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}}}
        for run in self.ask("/flow_runs/filter", flow_runs=states):
            self.ask(f"/flow_runs/{run['id']}/set_state", state={"type": "CANCELLED"}, force=True)

    def manifests(self) -> dict[str, str]:
        """Every finished object's place, and when and where it was made."""
        return {uri: self.store.read(f"{uri}/{MANIFEST}").decode() for uri in finished_objects(self.store)}

    def computed(self, before: dict[str, str]) -> set[str]:
        """Places of objects that were made since."""
        return {place for place, manifest in self.manifests().items() if before.get(place) != manifest}

    def task_states(self, run: str) -> set[str | None]:
        """How the task runs of a flow run ended."""
        runs = self.ask("/task_runs/filter", flow_runs={"id": {"any_": [run]}}, limit=200)
        # A run that was heard of before its first state has none yet.
        return {found["state_name"] for found in runs}


@pytest.fixture(scope="module")
def telltale() -> Iterator[Telltale]:
    with open_folder("telltale-evaluate-") as folder:
        settings = {"TELLTALE_STORE": str(folder / "store"), "TELLTALE_THREADS": "1", "DATABASE": possible_database()}
        served = Telltale.at(folder / "home", **settings)
        try:
            served.serve("--coordinator-limit", "1")
            served.start(SMALL)
            # In the middle: features are being computed, the report is far.
            wait_for(lambda: len([place for place in served.manifests() if "/embed/" in place]) >= 2, 1200)
            kill_workers(served)
            served.when_killed = served.manifests()
            served.drop_unfinished()
            served.serve("--coordinator-limit", "1")
            served.completed(SMALL)
            served.when_completed = served.manifests()
            yield served
        finally:
            served.command("stop")
            assert marked_processes(served.home) == []


def test_a_run_that_was_killed_is_taken_up_where_it_was(telltale: Telltale, tmp_path: Path) -> None:
    assert telltale.when_killed
    assert not any(place.startswith("objects/report/") for place in telltale.when_killed)
    assert telltale.when_killed.items() <= telltale.when_completed.items(), "a finished step ran again"

    undisturbed = LocalStore(tmp_path / "undisturbed")
    evaluate_inline(telltale, undisturbed)
    assert latest_content(telltale.store, "sample") == latest_content(undisturbed, "sample")


def test_the_ui_shows_named_runs_and_the_artifacts(telltale: Telltale) -> None:
    names = {run["name"] for run in telltale.ask("/flow_runs/filter")}
    assert {"evaluate sample", "evaluate 64/none", "evaluate 64/q20", "embed sample"} <= names
    artifacts = telltale.ask("/artifacts/latest/filter")
    kinds = {artifact["key"]: artifact["type"] for artifact in artifacts}
    assert kinds["results-sample"] == "table"
    assert kinds["report-sample"] == "markdown"
    assert kinds["progress-evaluate-sample"] == "progress"
    (table,) = [artifact for artifact in artifacts if artifact["key"] == "results-sample"]
    rows = json.loads(table["data"]) if isinstance(table["data"], str) else table["data"]
    assert {row["cell"] for row in rows} == {"64/none", "64/q20"}


def test_the_same_run_again_recomputes_nothing(telltale: Telltale) -> None:
    before = telltale.manifests()
    run = telltale.completed(SMALL)
    assert telltale.computed(before) == set()
    # Task runs reach the API as events, one after the other, a moment after the flow run's end.
    wait_for(lambda: telltale.task_states(run) == {"Cached"}, 60)


OF_THE_CELL = ("score", "plan-cell", "evaluate-cell", "compare-networks")


def test_one_more_quality_computes_only_its_view(telltale: Telltale) -> None:
    before = telltale.manifests()
    telltale.completed(SMALL | {"qualities": [None, 20, 50]})
    made = telltale.computed(before)
    embedded = {place for place in made if place.startswith("objects/embed/")}
    assert embedded
    assert all("/fair/64/q50/" in place for place in embedded)
    steps = {"embed", "train", "score", "plan-cell", "evaluate-cell", "compare-networks", "card", "examples", "report"}
    assert {place.split("/")[1] for place in made} == steps
    # The heads that exist keep their digests: only the new view's own probe is fitted.
    assert all("probe" in place for place in made if place.startswith("objects/train/"))
    assert all("q50" in place for place in made if place.split("/")[1] in OF_THE_CELL)


def test_a_deleted_part_makes_exactly_its_step_run_again(telltale: Telltale) -> None:
    store = telltale.store
    victim = next(place for place in telltale.manifests() if place.startswith("objects/embed/vgg16") and "q20" in place)
    part = read_manifest(store, victim).parts[0]
    before = telltale.manifests()
    store.delete(f"{victim}/{part.file}")
    telltale.completed(SMALL)
    assert telltale.computed(before) == {victim}
    assert read_manifest(store, victim).parts[0] == part


def kill_workers(telltale: Telltale) -> None:
    """SIGKILL for every worker and every flow run that it started, as when a host dies; the server's host lives on."""
    for pid in workers_and_runs(telltale):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: workers_and_runs(telltale) == [], 30)


def workers_and_runs(telltale: Telltale) -> list[int]:
    """The processes of this telltale without its server and its database."""
    server = telltale.pids()["server"]
    return [pid for pid in marked_processes(telltale.home) if pid != server and not is_postgres(pid)]


def is_postgres(pid: int) -> bool:
    """Whether a process is one of PostgreSQL's."""
    try:
        return Path(f"/proc/{pid}/exe").resolve().name == "postgres"
    except OSError:  # it has ended
        return False


def evaluate_inline(telltale: Telltale, store: LocalStore) -> None:
    """The same evaluation in one process against the same server, into another store."""
    code = (
        "import json, sys; from flows.evaluate import evaluate_all; "
        "evaluate_all(experiment='sample', overrides=json.loads(sys.argv[1]), seed=0)"
    )
    environment = {
        **telltale.environment,
        "PREFECT_API_URL": telltale.api_url,
        "TELLTALE_STORE": str(store.root),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", code, json.dumps(SMALL)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
