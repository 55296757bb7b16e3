"""`make serve` and `make stop` for real: a server, three workers, every deployment, schedules that produce runs."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployments.bootstrap import deployments
from deployments.home_folder import load_state
from deployments.processes import marked_processes
from tests.integration.served import Served, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    telltale = Served.at(tmp_path_factory.mktemp("serve") / "home")
    home = telltale.home
    try:
        telltale.serve()
        yield telltale
    finally:
        telltale.command("stop")
        assert marked_processes(home) == []


def test_everything_is_registered_with_paused_schedules(served: Served) -> None:
    known = served.ask("/deployments/filter")
    assert {(each["entrypoint"], each["name"]) for each in known} == set(deployments())
    assert all(each["pull_steps"] == [] for each in known)
    assert not any(schedule["active"] for each in known for schedule in each["schedules"])
    assert served.deployment("all")["parameters"] == {"experiment": "coco", "dispatch": "pools"}


def test_what_a_person_waits_for_goes_before_what_a_schedule_started(served: Served) -> None:
    queues = served.ask("/work_pools/gpu/queues/filter")
    assert [queue["name"] for queue in sorted(queues, key=lambda queue: queue["priority"])][:2] == [
        "interactive",
        "scheduled",
    ]
    # Lanes of what a schedule has started are put into the other queue (`tests/unit/test_pools.py`).
    assert served.deployment("gpu", "flows.work.work")["work_queue_name"] == "interactive"


@pytest.mark.parametrize("pool", ["coordinator", "cpu", "gpu"])
def test_every_pool_has_one_process_worker_that_has_reported_when_serve_returns(served: Served, pool: str) -> None:
    (worker,) = served.ask(f"/work_pools/{pool}/workers/filter")
    assert worker["name"] == f"{pool}-local"
    assert worker["last_heartbeat_time"] is not None
    # On a busy machine the server takes a worker whose reports come late for offline until the next one.
    assert wait_for(lambda: served.ask(f"/work_pools/{pool}/workers/filter")[0]["status"] == "ONLINE")


def test_the_ui_calls_the_api_of_this_server(served: Served) -> None:
    settings = httpx.get(served.api_url.removesuffix("/api") + "/ui-settings", timeout=60, trust_env=False).json()
    assert settings["api_url"] == served.api_url


def test_the_stores_reports_are_served_and_workers_know_where(served: Served) -> None:
    (line,) = [line for line in served.output.splitlines() if line.startswith("Reports: ")]
    url = line.split()[1]
    page = served.home / "store" / "runs" / "evaluate" / "sample-1" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("a report", encoding="utf-8")
    assert httpx.get(f"{url}/runs/evaluate/sample-1/report.html", timeout=60, trust_env=False).text == "a report"
    worker = served.pids()["cpu"]
    assert f"TELLTALE_REPORTS_URL={url}".encode() in Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    assert f"reports      {url}" in served.command("status")


def test_the_printed_lines_make_prefect_work_in_a_shell(served: Served) -> None:
    lines = [line.strip() for line in served.output.splitlines() if line.strip().startswith("export ")]
    assert len(lines) == 2
    script = "\n".join([*lines, "prefect deployment run evaluate/sample --start-in '2 hours'"])
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(served.home), "DO_NOT_TRACK": "1"}
    done = subprocess.run(["sh", "-ec", script], env=bare, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Created flow run" in done.stdout


def test_serving_again_changes_nothing(served: Served) -> None:
    before = served.pids()
    output = served.command("serve")
    assert served.pids() == before
    assert "deployments: up to date" in output
    assert served.api_url in output


def test_serving_again_restarts_only_the_worker_that_died(served: Served) -> None:
    before = served.pids()
    os.kill(before["gpu"], signal.SIGKILL)
    served.command("serve")
    after = served.pids()
    assert after["gpu"] != before["gpu"]
    assert {**after, "gpu": 0} == {**before, "gpu": 0}


def test_an_active_schedule_produces_runs_and_a_worker_runs_them(served: Served) -> None:
    sweep = served.deployment("sweep", "flows.maintain.sweep")["id"]
    every = {"schedule": {"interval": 20.0, "timezone": "Europe/Berlin"}, "active": True}
    made = served.send("POST", f"/deployments/{sweep}/schedules", [every])
    completed = {"deployments": {"id": {"any_": [sweep]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    try:
        runs = wait_for(lambda: served.ask("/flow_runs/filter", **completed))
        assert all(run["auto_scheduled"] for run in runs)
    finally:
        for schedule in made:
            served.send("DELETE", f"/deployments/{sweep}/schedules/{schedule['id']}")


def test_schedules_run_where_that_is_asked_for(served: Served) -> None:
    served.command("serve", SCHEDULES="on")
    active = [
        each["entrypoint"]
        for each in served.ask("/deployments/filter")
        if any(schedule["active"] for schedule in each["schedules"])
    ]
    assert sorted(active) == [
        "flows.evaluate.evaluate_all",
        "flows.generate.generate_gan",
        "flows.generate.generate_stable_diffusion",
        "flows.maintain.recover",
        "flows.maintain.sweep",
    ]
    nightly = served.deployment("all")["id"]
    scheduled = {
        "deployments": {"id": {"any_": [nightly]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    assert wait_for(lambda: served.ask("/flow_runs/filter", **scheduled))
    served.command("serve")
    assert not any(schedule["active"] for each in served.ask("/deployments/filter") for schedule in each["schedules"])


def test_stopping_leaves_nothing_and_the_next_start_has_the_same_address(served: Served) -> None:
    port = load_state(served.home).port
    assert len(marked_processes(served.home)) >= 4
    assert "none is left" in served.command("stop")
    assert marked_processes(served.home) == []
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{served.api_url}/health", timeout=5, trust_env=False)
    assert "nothing was running" in served.command("stop")
    assert json.loads((served.home / "services.json").read_text(encoding="utf-8"))["port"] == port
