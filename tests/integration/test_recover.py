"""Runs that die or are cancelled, for real: what died goes on, and nothing of what was cancelled does."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.recovery import HEARTBEAT
from storage.local import LocalStore
from tests.integration.served import Served, open_folder, possible_database, wait_for
from tests.integration.small_sample import WITHOUT_NETWORKS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
# More than the 30 s after which a live run is heard of again.
SILENCE_S = 45


@dataclass(frozen=True)
class Run:
    """A run of a deployment of its own, which lets one run at a time."""

    served: Served
    id: str
    deployment: str
    folder: Path

    @classmethod
    def start(cls, served: Served, name: str, pool: str) -> "Run":
        folder = served.home / name
        folder.mkdir()
        flow = served.ask("/flows/", name="until-told")["id"]
        deployment = served.ask(
            "/deployments/",
            name=name,
            flow_id=flow,
            entrypoint="tests.integration.recovered_flows.until_told",
            work_pool_name=pool,
            pull_steps=[],
            concurrency_limit=1,
            parameters={"folder": str(folder)},
        )["id"]
        run = served.ask(f"/deployments/{deployment}/create_flow_run", name=name)["id"]
        return cls(served, run, deployment, folder)

    def now(self) -> dict[str, Any]:
        """The run as the server has it."""
        answer = httpx.get(f"{self.served.api_url}/flow_runs/{self.id}", timeout=60, trust_env=False)
        answer.raise_for_status()
        return dict(answer.json())

    @property
    def state(self) -> str:
        return str(self.now()["state_type"])

    def end(self) -> None:
        (self.folder / "end").touch()

    def was_heard(self) -> bool:
        """Whether a heartbeat has arrived; the process says by itself that it has begun."""
        query = {"event": {"name": [HEARTBEAT]}, "resource": {"id": [f"prefect.flow-run.{self.id}"]}}
        return bool(list(self.folder.glob("*.pid")) and self.served.ask("/events/filter", filter=query)["events"])

    def kill(self) -> None:
        """SIGKILL to all processes of the run."""
        for pid in processes_of(self.id):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def slots(self) -> float:
        """How many slots of the deployment's limit are taken."""
        (limit,) = [
            limit for limit in self.served.ask("/v2/concurrency_limits/filter") if self.deployment in limit["name"]
        ]
        return float(limit["active_slots"])


def processes_of(run: str) -> list[int]:
    """Ids of the processes of a flow run."""
    mark, found = f"PREFECT__FLOW_RUN_ID={run}".encode(), []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with open_folder("telltale-recover-") as folder:
        telltale = Served.at(folder / "home", PYTHONPATH=str(ROOT), DATABASE=possible_database())
        try:
            telltale.serve("--cpu-limit", "3")
            yield telltale
        finally:
            telltale.command("stop")


def is_completed(run: Run) -> bool:
    return bool(run.state == "COMPLETED")


def test_what_died_goes_on_and_nothing_else_is_touched(served: Served) -> None:
    completed, crashed, dead = (Run.start(served, name, "cpu") for name in ("completed", "crashed", "dead"))
    alive = Run.start(served, "alive", "gpu")
    completed.end()
    for run in (crashed, dead, alive):
        wait_for(run.was_heard)
    wait_for(lambda: completed.state == "COMPLETED")

    crashed.kill()
    wait_for(lambda: crashed.state == "CRASHED")
    os.kill(served.pids()["cpu"], signal.SIGKILL)
    dead.kill()
    killed = time.monotonic()
    served.serve("--cpu-limit", "3")
    assert dead.state == "RUNNING"
    assert dead.slots() == 1
    for run in (crashed, dead):
        run.end()  # as soon as it is started again
    time.sleep(max(0.0, SILENCE_S - (time.monotonic() - killed)))

    recover = served.deployment("recover", "flows.maintain.recover")["id"]
    parameters = {"silence_s": SILENCE_S, "watch_s": 2}
    run_id = served.ask(f"/deployments/{recover}/create_flow_run", parameters=parameters)["id"]
    recovery = Run(served, run_id, recover, served.home)
    wait_for(lambda: recovery.state == "COMPLETED")
    for run in (crashed, dead):
        # It waits for no lease to run out, which lasts five minutes.
        wait_for(partial(is_completed, run), 120)
        assert run.now()["run_count"] == 2
        assert run.slots() == 0

    assert completed.now()["run_count"] == 1
    assert (alive.state, alive.now()["run_count"]) == ("RUNNING", 1)
    (artifact,) = served.ask("/artifacts/latest/filter", artifacts={"key": {"any_": ["recovered"]}})
    assert all(f"| `{run.id}` | cpu | AwaitingRetry |" in artifact["data"] for run in (crashed, dead))
    assert not any(run.id in artifact["data"] for run in (completed, alive))

    alive.end()
    wait_for(lambda: alive.state == "COMPLETED")


# A GAN that is trained for many minutes, one element, while the store is as small as it gets.
ENDLESS = WITHOUT_NETWORKS | {"sources.gan.gan.epochs": 100_000}


def test_cancelling_an_evaluation_ends_its_lanes_and_frees_their_claims(served: Served) -> None:
    store = LocalStore(served.home / "store")
    deployment = served.deployment("all")["id"]
    parameters = {"experiment": "sample", "overrides": ENDLESS, "dispatch": "pools"}
    made = served.ask(f"/deployments/{deployment}/create_flow_run", parameters=parameters)
    evaluation = Run(served, made["id"], deployment, served.home)
    wait_for(lambda: any("train-gan" in name for name in work_of(store, evaluation.id)))
    lanes = lanes_of(served, evaluation.id)
    assert any(lane["state_type"] == "RUNNING" for lane in lanes)

    served.ask(f"/flow_runs/{evaluation.id}/set_state", state={"type": "CANCELLING"})
    wait_for(lambda: all(lane["state_type"] in ("CANCELLED", "COMPLETED") for lane in lanes_of(served, evaluation.id)))
    wait_for(lambda: evaluation.state == "CANCELLED", 60)
    wait_for(lambda: not any(processes_of(lane["id"]) for lane in lanes), 60)
    assert store.list("claims") == []
    (folder,) = {key.split("/")[1] for key in store.list("plans")}
    assert json.loads(store.read(f"plans/{folder}/end.json"))["state"] == "cancelled"


def lanes_of(served: Served, run: str) -> list[dict[str, Any]]:
    """The runs of an evaluation's lanes."""
    return list(served.ask("/flow_runs/filter", flow_runs={"tags": {"all_": [f"plan {run}-0"]}}))


def work_of(store: LocalStore, run: str) -> list[str]:
    """What the lanes of an evaluation say that they are at."""
    statuses = [json.loads(store.read(key)) for key in store.list(f"plans/{run}-0/lanes")]
    return [work["name"] for status in statuses for work in status["work"]]
