"""Lanes are recruited as a pool has places: told by whether one still waits, on a server that stands for Prefect's."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas import State
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running, Scheduled

from flows.coordinator import LaneState
from flows.pools import MOST_LANES, VAIN_LANES, Lanes, _nobody_goes_on
from flows.work import lane_name
from storage.claims import SILENCE_S, Claims
from storage.errors import PlanFailed
from storage.local import LocalStore
from storage.plans import PlanFolder

# Of a store that is never asked.
FOLDER = PlanFolder(LocalStore(Path("/nowhere")), "plan")


@dataclass
class Run:
    """A lane's run as the server has it."""

    parameters: dict[str, Any]
    state: State[Any]
    run_count: int = 0
    id: UUID = field(default_factory=uuid4)


class Server:
    """Takes lanes on, of which a pool's workers start as many as they have places."""

    def __init__(self, places: dict[str, int], workers: int = 1) -> None:
        self.places = places
        self.workers = workers
        self.runs: dict[str, Run] = {}
        self.away = False
        self.deleted: list[UUID] = []

    def run_deployment(self, name: str, parameters: dict[str, Any], idempotency_key: str, **more: Any) -> Any:
        assert name == f"work/{parameters['pool']}"
        assert more["timeout"] == 0
        return self.runs.setdefault(idempotency_key, Run(parameters, Scheduled()))

    def work(self) -> None:
        """Workers take what waits while they have places."""
        for run in self.runs.values():
            pool = run.parameters["pool"]
            if run.state.is_scheduled() and self.count(pool, State.is_running) < self.places[pool]:
                run.state, run.run_count = Running(), 1

    def count(self, pool: str, what: Any) -> int:
        return sum(what(run.state) for run in self.runs.values() if run.parameters["pool"] == pool)

    def read_flow_runs(self, flow_run_filter: Any, limit: int, offset: int) -> list[Run]:
        if self.away:
            raise httpx.ConnectError("refused")
        return list(self.runs.values())[offset : offset + limit]

    def read_workers_for_work_pool(self, pool: str) -> list[Any]:
        now = datetime.now(UTC)
        online = [SimpleNamespace(name=f"{pool}-{n}", last_heartbeat_time=now) for n in range(self.workers)]
        return [*online, SimpleNamespace(name="gone", last_heartbeat_time=now - timedelta(hours=1))]

    def set_flow_run_state(self, run_id: UUID, state: State[Any]) -> None:
        next(run for run in self.runs.values() if run.id == run_id).state = state

    def delete_flow_run(self, run_id: UUID) -> None:
        self.deleted.append(run_id)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    def started(places: dict[str, int], workers: int = 1) -> Server:
        server = Server(places, workers)

        @contextmanager
        def get_client(sync_client: bool) -> Iterator[Server]:
            yield server

        monkeypatch.setattr("prefect.client.orchestration.get_client", get_client)
        monkeypatch.setattr("prefect.deployments.run_deployment", server.run_deployment)
        return server

    return started


def tended(server: Server, lanes: Lanes, wanted: dict[Any, int], times: int) -> None:
    for _ in range(times):
        lanes.tend(wanted)
        server.work()


def test_every_place_of_a_pool_gets_a_lane_and_one_at_least_waits_for_the_next(serve: Any) -> None:
    server = serve({"cpu": 11}, workers=2)
    tended(server, Lanes(FOLDER, "title"), {"cpu": 1000}, 6)
    assert server.count("cpu", State.is_running) == 11
    assert 1 <= server.count("cpu", State.is_scheduled) <= 11


def test_a_place_that_is_added_is_taken_and_the_next_one_too(serve: Any) -> None:
    server = serve({"gpu": 1})
    lanes = Lanes(FOLDER, "title")
    tended(server, lanes, {"gpu": 1000}, 3)
    assert server.count("gpu", State.is_running) == 1
    server.places["gpu"] = 3
    server.work()
    tended(server, lanes, {"gpu": 1000}, 2)
    assert server.count("gpu", State.is_running) == 3


def test_there_are_never_more_lanes_than_elements_or_than_two_hundred(serve: Any) -> None:
    server = serve({"cpu": 1000, "gpu": 1000})
    tended(server, Lanes(FOLDER, "title"), {"cpu": 3, "gpu": 10_000}, 12)
    assert server.count("cpu", State.is_running) == 3
    assert server.count("gpu", State.is_running) == MOST_LANES


def test_nothing_to_do_starts_no_lane(serve: Any) -> None:
    server = serve({"cpu": 4})
    tended(server, Lanes(FOLDER, "title"), {"cpu": 0}, 3)
    assert server.runs == {}


def test_lanes_that_ended_while_there_is_more_to_do_are_followed_by_others(serve: Any) -> None:
    server = serve({"cpu": 2})
    lanes = Lanes(FOLDER, "title")
    tended(server, lanes, {"cpu": 9}, 3)
    for run in server.runs.values():
        run.state = Completed()
    tended(server, lanes, {"cpu": 9}, 3)
    assert server.count("cpu", State.is_running) == 2


def test_a_restarted_coordinator_finds_its_lanes_and_numbers_on(serve: Any) -> None:
    server = serve({"cpu": 2})
    tended(server, Lanes(FOLDER, "title"), {"cpu": 2}, 2)
    before = dict(server.runs)
    again = Lanes(FOLDER, "title")
    again.tend({"cpu": 2})
    assert server.runs == before
    assert again.recruited("cpu") == 2
    tended(server, again, {"cpu": 3}, 1)
    assert sorted(run.parameters["index"] for run in server.runs.values()) == [0, 1, 2]


def test_at_the_end_those_that_never_began_are_no_more_and_those_at_work_end_by_themselves(serve: Any) -> None:
    server = serve({"cpu": 1})
    lanes = Lanes(FOLDER, "title")
    tended(server, lanes, {"cpu": 9}, 3)
    (begun,) = [run for run in server.runs.values() if run.run_count]
    waiting = [run for run in server.runs.values() if not run.run_count]
    pending = Run({"pool": "cpu", "index": 7}, Pending())
    server.runs["pending"] = pending
    lanes.end("the end")
    assert begun.state.is_running()
    assert pending.state.name == Cancelled().name
    assert server.deleted == [run.id for run in waiting]


def test_a_lane_that_was_put_back_is_cancelled_not_forgotten(serve: Any) -> None:
    server = serve({"cpu": 1})
    server.runs["put back"] = run = Run({"pool": "cpu", "index": 0}, Scheduled(), run_count=1)
    Lanes(FOLDER, "title").end("the end")
    assert run.state.name == Cancelled().name
    assert server.deleted == []


def test_a_server_that_is_away_ends_nothing(serve: Any) -> None:
    server = serve({"cpu": 1})
    server.away = True
    lanes = Lanes(FOLDER, "title")
    lanes.tend({"cpu": 5})
    lanes.end("the end")
    assert server.runs == {}


def test_a_pool_without_workers_says_how_to_start_one_and_the_others_go_on(serve: Any) -> None:
    server = serve({"cpu": 1, "gpu": 0}, workers=0)
    lanes = Lanes(FOLDER, "title")
    lanes.tend({"cpu": 2, "gpu": 2})
    server.work()
    hindrances = lanes.tend({"cpu": 2, "gpu": 2})
    assert set(hindrances) == {"gpu"}
    assert "prefect worker start --pool gpu" in hindrances["gpu"]


def test_lanes_that_fail_again_and_again_and_make_nothing_end_the_plan(serve: Any) -> None:
    server = serve({"cpu": 1})
    lanes = Lanes(FOLDER, "title")
    for _ in range(VAIN_LANES):
        tended(server, lanes, {"cpu": 5}, 1)
        for run in server.runs.values():
            run.state = Failed(message="there is no such plan")
    with pytest.raises(PlanFailed, match="there is no such plan"):
        lanes.tend({"cpu": 5})


@pytest.mark.parametrize("said", ["its process was told to end", "Process exited with status code: -15. Why"])
def test_lanes_whose_worker_was_stopped_say_nothing_about_the_next(serve: Any, said: str) -> None:
    server = serve({"cpu": 1})
    lanes = Lanes(FOLDER, "title")
    for _ in range(VAIN_LANES + 1):
        tended(server, lanes, {"cpu": 5}, 1)
        for run in server.runs.values():
            run.state = Crashed(message=said)
    assert lanes.tend({"cpu": 5}) == {}


def test_lanes_that_failed_are_counted_while_the_next_one_waits(serve: Any) -> None:
    server = serve({"cpu": 1})
    lanes = Lanes(FOLDER, "title")
    for index in range(VAIN_LANES):
        server.runs[str(index)] = Run({"pool": "cpu", "index": index}, Failed(message="no"), run_count=1)
    server.runs["next"] = Run({"pool": "cpu", "index": VAIN_LANES}, Scheduled())
    with pytest.raises(PlanFailed, match="no"):
        lanes.tend({"cpu": 5})


def test_one_lane_that_made_something_shows_that_others_may(serve: Any) -> None:
    server = serve({"cpu": 1})
    lanes = Lanes(FOLDER, "title")
    for _ in range(VAIN_LANES + 2):
        tended(server, lanes, {"cpu": 5}, 1)
        for run in server.runs.values():
            run.state = Failed(message="the store was away")
        newest: Any = max(server.runs.values(), key=lambda run: int(run.parameters["index"]))
        status = {"computed": 3, "state": "ended", "pool": "cpu"}
        lanes.heard = {lane_name(newest.parameters["index"], newest): LaneState(status, "1", 0.0)}
    assert len(server.runs) >= VAIN_LANES


def test_there_is_no_hope_only_once_every_online_worker_has_refused(serve: Any) -> None:
    serve({"gpu": 1}, workers=2)
    lanes = Lanes(FOLDER, "title")
    assert lanes.without_hope("gpu", {"gpu-0": "worker gpu-0: no GPU"}) is None
    said = lanes.without_hope("gpu", {"gpu-0": "worker gpu-0: no GPU", "gpu-1": "worker gpu-1: no GPU"})
    assert said == "no worker of the pool gpu can do this work: worker gpu-0: no GPU; worker gpu-1: no GPU"


def heard(status: str, seconds_ago: float) -> LaneState:
    """A lane that was last heard of so long ago."""
    return LaneState({"state": status}, "version", time.monotonic() - seconds_ago)


@pytest.mark.parametrize(("status", "seconds_ago"), [("working", SILENCE_S + 1), ("ended", 1)])
def test_a_lane_that_is_silent_is_replaced_before_prefect_knows_that_it_died(
    serve: Any, status: str, seconds_ago: float
) -> None:
    server = serve({"cpu": 2})
    lanes = Lanes(FOLDER, "title")
    tended(server, lanes, {"cpu": 1}, 2)
    (run,) = server.runs.values()
    lanes.heard = {lane_name(0, run): heard("working", 1)}
    tended(server, lanes, {"cpu": 1}, 2)
    assert len(server.runs) == 1
    lanes.heard = {lane_name(0, run): heard(status, seconds_ago)}
    tended(server, lanes, {"cpu": 1}, 2)
    assert len(server.runs) == 2


@pytest.mark.parametrize(("minutes", "recruits"), [(0, False), (2, True)])
def test_a_lane_that_a_worker_took_and_never_began_is_not_waited_for(
    serve: Any, minutes: float, recruits: bool
) -> None:
    server = serve({"cpu": 2})
    claimed: State = Pending(timestamp=datetime.now(UTC) - timedelta(minutes=minutes))
    server.runs["claimed"] = Run({"pool": "cpu", "index": 0}, claimed)
    tended(server, Lanes(FOLDER, "title"), {"cpu": 1}, 1)
    assert (len(server.runs) == 2) is recruits


@pytest.mark.parametrize(
    ("error", "now", "run_count", "is_the_end"),
    [
        (PlanFailed("an element failed"), Running(), 1, True),
        (PlanFailed("the store was away"), Running(), 2, False),
        (PlanFailed("the store was away"), Scheduled(), 1, False),
        (KeyboardInterrupt(), Running(), 1, False),  # as a worker's process is told to end
        (KeyboardInterrupt(), Cancelling(), 1, True),
        (KeyboardInterrupt(), Running(), 2, False),
    ],
)
def test_a_plan_ends_with_its_run_unless_another_attempt_goes_on(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, now: State[Any], run_count: int, is_the_end: bool
) -> None:
    first = SimpleNamespace(flow_run=SimpleNamespace(id=uuid4(), deployment_id=uuid4(), run_count=1))
    by_now = SimpleNamespace(state=now, run_count=run_count)
    client = SimpleNamespace(read_flow_run=lambda run_id: by_now)
    monkeypatch.setattr("prefect.context.FlowRunContext.get", lambda: first)
    monkeypatch.setattr("prefect.client.orchestration.get_client", lambda sync_client: nullcontext(client))
    assert _nobody_goes_on(error) is is_the_end


def test_the_claims_of_a_lane_that_prefect_knows_to_be_dead_are_free_at_once(serve: Any, tmp_path: Path) -> None:
    server, folder = serve({"cpu": 2}), PlanFolder(LocalStore(tmp_path), "plan")
    lanes = Lanes(folder, "title")
    tended(server, lanes, {"cpu": 1}, 2)
    (run,) = server.runs.values()
    name = lane_name(0, run)
    folder.write_status(name, {"state": "working", "notes": ["what it had made"]})
    lanes.heard = {name: heard("working", 1)}
    claim = Claims(folder.store, folder.status_key(name)).take("digest")
    others = Claims(folder.store, folder.status_key("other"))
    lanes.tend({"cpu": 1})
    assert claim is not None
    assert others.take("digest") is None

    run.state = Crashed()
    lanes.tend({"cpu": 1})
    assert folder.status(name) == {
        "state": "ended",
        "reason": "its run is Crashed",
        "notes": ["what it had made"],
    }
    assert others.take("digest") is not None


@pytest.mark.parametrize(("auto_scheduled", "queue"), [(False, "interactive"), (True, "scheduled")])
def test_lanes_for_which_a_person_waits_go_before_those_of_a_schedule(
    serve: Any, monkeypatch: pytest.MonkeyPatch, auto_scheduled: bool, queue: str
) -> None:
    server = serve({"cpu": 1, "gpu": 1})
    started: list[tuple[str, str | None]] = []
    run_deployment = server.run_deployment

    def noted(name: str, work_queue_name: str | None, **more: Any) -> Any:
        started.append((name, work_queue_name))
        return run_deployment(name=name, **more)

    run = SimpleNamespace(flow_run=SimpleNamespace(auto_scheduled=auto_scheduled))
    monkeypatch.setattr("prefect.deployments.run_deployment", noted)
    monkeypatch.setattr("prefect.context.FlowRunContext.get", lambda: run)
    Lanes(FOLDER, "title").tend({"cpu": 1, "gpu": 1})
    assert sorted(started) == [("work/cpu", None), ("work/gpu", queue)]
