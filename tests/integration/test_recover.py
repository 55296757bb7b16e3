"""`maintain/recover` for real: runs whose process or worker is killed go on, live and completed ones are left alone."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.recovery import HEARTBEAT
from tests.integration.served import Served, open_folder, possible_database, wait_for

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
        mark = f"PREFECT__FLOW_RUN_ID={self.id}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)

    def slots(self) -> float:
        """How many slots of the deployment's limit are taken."""
        (limit,) = [
            limit for limit in self.served.ask("/v2/concurrency_limits/filter") if self.deployment in limit["name"]
        ]
        return float(limit["active_slots"])


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with open_folder("telltale-recover-") as folder:
        telltale = Served.at(folder / "home", PYTHONPATH=str(ROOT), DATABASE=possible_database())
        try:
            telltale.serve("--cpu-limit", "3")
            yield telltale
        finally:
            telltale.command("stop")


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
        wait_for(lambda run=run: run.state == "COMPLETED", 120)
        assert run.now()["run_count"] == 2
        assert run.slots() == 0

    assert completed.now()["run_count"] == 1
    assert (alive.state, alive.now()["run_count"]) == ("RUNNING", 1)
    (artifact,) = served.ask("/artifacts/latest/filter", artifacts={"key": {"any_": ["recovered"]}})
    assert all(f"| `{run.id}` | cpu | AwaitingRetry |" in artifact["data"] for run in (crashed, dead))
    assert not any(run.id in artifact["data"] for run in (completed, alive))

    alive.end()
    wait_for(lambda: alive.state == "COMPLETED")
