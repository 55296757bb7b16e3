"""Runs that died are told from runs that are slow, completed or cancelled, and put back so many times, not for ever."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas import State
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import (
    AwaitingRetry,
    Cancelled,
    Cancelling,
    Completed,
    Crashed,
    Failed,
    Pending,
    Running,
    Scheduled,
)

from flows import maintain, recovery
from flows.recovery import ATTEMPTS, Facts, NoHeartbeats, NotPutBack, Remedy, decide
from storage.errors import MissingInput

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PERIOD = timedelta(seconds=30)
SILENCE = 3 * PERIOD
PENDING = timedelta(minutes=10)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def judged(state: str, since: float, heard: float | None = None, **more: Any) -> Remedy | None:
    """The remedy for a first attempt that entered its state so many seconds ago and was heard of so long ago."""
    facts = Facts(**{"state": state, "since": ago(since), "attempts": 1, **more})
    return decide(facts, None if heard is None else ago(heard), NOW, SILENCE, PENDING)


def test_a_run_without_a_heartbeat_for_three_periods_is_put_back() -> None:
    assert judged("RUNNING", 1000, heard=90) == Remedy("AwaitingRetry", "no heartbeat for 90 s")


def test_a_run_whose_heartbeats_arrive_late_is_left_alone() -> None:
    assert judged("RUNNING", 1000, heard=89) is None


def test_a_run_that_began_less_than_three_periods_ago_is_left_alone() -> None:
    assert judged("RUNNING", 89) is None


def test_a_heartbeat_of_an_earlier_attempt_does_not_count_against_the_present_one() -> None:
    assert judged("RUNNING", 20, heard=600, attempts=2) is None


def test_a_run_that_never_sent_a_heartbeat_is_dead_three_periods_after_its_start() -> None:
    assert judged("RUNNING", 90) == Remedy("AwaitingRetry", "no heartbeat for 90 s")


def test_silence_says_nothing_where_nobody_knows_how_often_runs_are_heard() -> None:
    assert decide(Facts("RUNNING", ago(9999), 1), None, NOW, None, PENDING) is None


def test_a_dead_run_that_was_being_cancelled_becomes_cancelled_however_often_it_was_started() -> None:
    remedy = judged("CANCELLING", 500, heard=400, attempts=ATTEMPTS)
    assert remedy is not None
    assert remedy.state == "Cancelled"
    assert judged("CANCELLING", 500, heard=10) is None


def test_a_run_that_was_claimed_and_does_not_start_is_put_back() -> None:
    assert judged("PENDING", 599) is None
    remedy = judged("PENDING", 600)
    assert remedy is not None
    assert remedy.state == "AwaitingRetry"


def test_a_crashed_run_is_put_back_within_a_day_while_attempts_are_left() -> None:
    remedy = judged("CRASHED", 5, attempts=ATTEMPTS - 1)
    assert remedy is not None
    assert remedy.state == "AwaitingRetry"
    assert judged("CRASHED", 5, attempts=ATTEMPTS) is None
    assert judged("CRASHED", 25 * 3600) is None


def test_a_crashed_lane_is_not_repeated() -> None:
    assert judged("CRASHED", 5, is_lane=True) is None


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_dead_lane_ends_and_others_go_on(state: str, is_wanted: bool) -> None:
    remedy = judged(state, 1000, is_lane=True, is_wanted=is_wanted)
    assert remedy is not None
    assert remedy.state == "Crashed"
    assert "other lanes go on" in remedy.reason


def test_a_living_lane_is_cancelled_once_the_run_that_it_works_for_has_ended() -> None:
    remedy = judged("RUNNING", 1000, heard=10, is_lane=True, is_wanted=False)
    assert remedy == Remedy("Cancelling", "the run that it works for has ended")
    assert judged("RUNNING", 1000, heard=10, is_lane=True) is None
    assert judged("CANCELLING", 1000, heard=10, is_lane=True, is_wanted=False) is None


def test_after_the_last_attempt_a_dead_run_ends_and_says_why() -> None:
    remedy = judged("RUNNING", 1000, attempts=ATTEMPTS)
    assert remedy == Remedy("Crashed", f"no heartbeat for 1000 s, and attempt {ATTEMPTS} of {ATTEMPTS} was the last")
    assert judged("CRASHED", 5, attempts=ATTEMPTS) is None  # which is what it is then


@given(
    state=st.sampled_from(["COMPLETED", "CANCELLED", "FAILED", "SCHEDULED", "PAUSED"]),
    since=st.floats(0, 1e6),
    heard=st.none() | st.floats(-100, 1e6),
    attempts=st.integers(1, 9),
    is_lane=st.booleans(),
    is_wanted=st.booleans(),
)
def test_what_has_ended_or_waits_is_never_touched(
    state: str, since: float, heard: float | None, attempts: int, is_lane: bool, is_wanted: bool
) -> None:
    assert judged(state, since, heard, attempts=attempts, is_lane=is_lane, is_wanted=is_wanted) is None


@given(state=st.sampled_from(["RUNNING", "CANCELLING"]), since=st.floats(0, 1e6), heard=st.floats(-100, 89))
def test_a_run_that_was_heard_of_within_three_periods_is_never_touched(state: str, since: float, heard: float) -> None:
    assert judged(state, since, heard) is None


class Server:
    """Stands for Prefect's server: runs, their histories, heartbeats, and a clock that stands still."""

    def __init__(self) -> None:
        self.runs: dict[UUID, Any] = {}
        self.histories: dict[UUID, list[State]] = {}
        self.heartbeats: dict[UUID, datetime] = {}
        self.parents: dict[UUID, UUID] = {}
        self.environment: dict[str, str] = {recovery.HEARTBEAT_SETTING: "30"}
        self.answer = SetStateStatus.ACCEPT

    def add(self, state: State, age: float = 1000, parent: Any = None, **more: Any) -> Any:
        run_id = uuid4()
        run = SimpleNamespace(
            id=run_id,
            name=f"run {len(self.runs)}",
            state=state.model_copy(update={"timestamp": ago(age), "id": uuid4()}),
            run_count=1,
            deployment_id=uuid4(),
            work_pool_name="cpu",
            created=ago(age),
            parent_task_run_id=None if parent is None else uuid4(),
        )
        run.__dict__.update(more)
        if parent is not None:
            self.parents[run.parent_task_run_id] = parent.id
        self.runs[run_id], self.histories[run_id] = run, [run.state]
        return run

    def enter(self, run: Any, state: State) -> None:
        changed = SimpleNamespace(**{**vars(run), "state": state.model_copy(update={"timestamp": NOW, "id": uuid4()})})
        self.runs[run.id] = changed
        self.histories[run.id].append(changed.state)

    def read_flow_run(self, run_id: UUID) -> Any:
        if run_id not in self.runs:
            raise ObjectNotFound(http_exc=Exception("gone"))
        return self.runs[run_id]

    def read_flow_runs(self, flow_run_filter: Any, work_pool_filter: Any, limit: int, offset: int) -> list[Any]:
        kinds = flow_run_filter.state.type.any_
        assert flow_run_filter.deployment_id.is_null_ is False
        chosen = [
            run
            for run in self.runs.values()
            if run.state.type in kinds and run.work_pool_name in work_pool_filter.name.any_
        ]
        return chosen[offset : offset + min(limit, 2)]  # small pages

    def read_flow_run_states(self, run_id: UUID) -> list[State]:
        return self.histories[run_id]

    def read_task_run(self, task_run_id: UUID) -> Any:
        return SimpleNamespace(flow_run_id=self.parents[task_run_id])

    def read_events(self, filter: Any, limit: int) -> Any:
        (resource,) = filter.resource.id
        received = self.heartbeats.get(UUID(resource.removeprefix("prefect.flow-run.")))
        return SimpleNamespace(events=[] if received is None else [SimpleNamespace(received=received)])

    def read_work_pool(self, name: str) -> Any:
        template = {"variables": {"properties": {"env": {"default": self.environment}}}}
        return SimpleNamespace(base_job_template=template)

    def request(self, method: str, path: str) -> httpx.Response:
        assert (method, path) == ("GET", "/health")
        return httpx.Response(200, headers={"date": format_datetime(NOW, usegmt=True)})

    def set_flow_run_state(self, run_id: UUID, state: State) -> Any:
        if self.answer == SetStateStatus.ACCEPT:
            self.enter(self.runs[run_id], state)
        return SimpleNamespace(status=self.answer, details=SimpleNamespace(reason="because"))

    def found(self, pools: tuple[str, ...] = ("cpu",), asking: Any = None) -> dict[str, str]:
        """Names of the runs that have died, and what becomes of them."""
        asking = asking or SimpleNamespace(id=uuid4(), deployment_id=uuid4())
        silences = dict.fromkeys(pools, SILENCE)
        dead = recovery.dead_runs(self, silences, PENDING, asking)  # type: ignore[arg-type]
        return {run.name: remedy.state for run, remedy in dead}


def test_only_dead_runs_of_our_pools_are_found() -> None:
    server = Server()
    dead, crashed = server.add(Running()), server.add(Crashed(), age=10)
    alive = server.add(Running())
    server.heartbeats[alive.id] = ago(40)
    others: tuple[State, ...] = (Completed(), Cancelled(), Failed(), Scheduled())
    for state in others:
        server.add(state)
    server.add(Running(), work_pool_name="somebody-elses")
    assert server.found() == {dead.name: "AwaitingRetry", crashed.name: "AwaitingRetry"}


@pytest.mark.parametrize(
    ("coordinator", "age", "wanted"),
    [
        (Running(), 500, True),
        (Scheduled(), 500, True),
        (Crashed(), 500, True),  # it is put back
        (Completed(), 5, True),  # its lanes end by themselves
        (Completed(), 500, False),
        (Cancelled(), 500, False),
        (Failed(), 500, False),
        (None, 500, False),
    ],
)
def test_living_lanes_end_with_their_coordinator(coordinator: State | None, age: float, wanted: bool) -> None:
    server = Server()
    lost = SimpleNamespace(id=uuid4())
    parent = lost if coordinator is None else server.add(coordinator, age=age)
    server.heartbeats[parent.id] = ago(1)
    lane = server.add(Running(), age=400, parent=parent)
    server.heartbeats[lane.id] = ago(1)
    assert server.found().get(lane.name) == (None if wanted else "Cancelling")


def test_a_dead_lane_ends_whoever_it_works_for() -> None:
    server = Server()
    parent = server.add(Running(), age=500)
    server.heartbeats[parent.id] = ago(1)
    dead = server.add(Running(), age=400, parent=parent)
    of_an_earlier_attempt = server.add(Running(), age=600, parent=parent)
    server.add(Crashed(), age=10, parent=parent)
    assert server.found() == {dead.name: "Crashed", of_an_earlier_attempt.name: "Crashed"}


def test_a_dead_coordinator_is_put_back_and_its_living_lanes_are_left_alone() -> None:
    server = Server()
    parent = server.add(Running(), age=500)
    dead, alive = (server.add(Running(), age=400, parent=parent) for _ in range(2))
    server.heartbeats[alive.id] = ago(1)
    asking = SimpleNamespace(id=uuid4(), deployment_id=uuid4())
    found = {}
    for run, remedy in recovery.dead_runs(server, {"cpu": SILENCE}, PENDING, asking):  # type: ignore[arg-type]
        assert recovery.apply(server, run, remedy)  # type: ignore[arg-type]
        found[run.name] = remedy.state
    assert found == {parent.name: "AwaitingRetry", dead.name: "Crashed"}


def test_the_run_that_asks_is_not_judged_and_others_of_its_deployment_are_not_repeated() -> None:
    server = Server()
    asking = server.add(Running())
    killed = server.add(Running(), deployment_id=asking.deployment_id)
    server.add(Crashed(), age=10, deployment_id=asking.deployment_id)
    assert server.found(asking=asking) == {killed.name: "Crashed"}


def test_put_backs_count_as_attempts_where_a_run_never_started() -> None:
    server = Server()
    run = server.add(Pending(), run_count=0)
    for _ in range(ATTEMPTS - 1):
        assert server.found() == {run.name: "AwaitingRetry"}
        assert recovery.put_back(server, server.runs[run.id], "it died")  # type: ignore[arg-type]
        run = server.runs[run.id]
        run.state = Pending(timestamp=ago(1000))
    assert server.found() == {run.name: "Crashed"}


def test_a_run_that_is_put_back_waits_in_its_queue_with_the_reason() -> None:
    server = Server()
    run = server.add(Running())
    assert recovery.put_back(server, run, "its host died")  # type: ignore[arg-type]
    state = server.runs[run.id].state
    assert state.is_scheduled()
    assert (state.name, state.message) == (AwaitingRetry().name, "put back: its host died")
    # Its worker may not have seen yet that its process has ended.
    due = state.state_details.scheduled_time
    assert timedelta(seconds=20) < due - datetime.now(UTC) <= recovery.PAUSE


def test_a_run_that_changed_since_it_was_looked_at_is_left_alone() -> None:
    server = Server()
    run = server.add(Running())
    server.enter(run, Completed())
    assert not recovery.put_back(server, run, "it died")  # type: ignore[arg-type]
    assert server.runs[run.id].state.is_completed()


def test_a_refusal_of_the_server_is_an_error_that_says_why() -> None:
    server = Server()
    run = server.add(Crashed())
    server.answer = SetStateStatus.ABORT
    with pytest.raises(NotPutBack, match="stays Crashed: because"):
        recovery.put_back(server, run, "it died")  # type: ignore[arg-type]


def test_nothing_is_said_about_others_before_ones_own_heartbeat_has_arrived() -> None:
    server, own, pauses = Server(), uuid4(), []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            server.heartbeats[own] = NOW

    recovery.await_own_heartbeat(server, own, sleep)  # type: ignore[arg-type]
    assert len(pauses) == 5
    with pytest.raises(NoHeartbeats, match="nothing was put back"):
        recovery.await_own_heartbeat(server, uuid4(), sleep)  # type: ignore[arg-type]


def test_an_absence_of_the_server_starts_the_watch_anew() -> None:
    server, clock = Server(), [0.0]
    answers: Iterator[float] = iter([0.1, 40.0] + [0.1] * 100)

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def server_time(method: str, path: str) -> httpx.Response:
        clock[0] += next(answers)
        return Server.request(server, method, path)

    server.request = server_time  # type: ignore[method-assign]
    recovery.watch(server, timedelta(seconds=60), sleep, lambda: clock[0])  # type: ignore[arg-type]
    assert clock[0] == pytest.approx(5.1 + 45 + 60, abs=1)


def test_a_pool_whose_template_does_not_say_how_often_is_known_as_such() -> None:
    server = Server()
    assert recovery.periods(server, ["cpu"]) == {"cpu": PERIOD}  # type: ignore[arg-type]
    server.environment = {}
    assert recovery.periods(server, ["cpu"]) == {"cpu": None}  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["", "often", "0"])
def test_without_the_setting_the_flow_refuses_and_says_what_to_do(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(recovery.HEARTBEAT_SETTING, setting)
    with pytest.raises(MissingInput, match=r"PREFECT_FLOWS_HEARTBEAT_FREQUENCY .*`make serve`"):
        recovery.heartbeat_period()


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *values: Any) -> None:
        self.lines.append(text % values)

    warning = info


@pytest.fixture
def recover(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The flow's function on a stand-in for the server; it returns what the artifact and the log say."""
    server, log, artifacts = Server(), Log(), []
    own = server.add(Running(), age=1)
    server.heartbeats[own.id] = NOW

    @contextmanager
    def get_client(sync_client: bool) -> Iterator[Server]:
        yield server

    monkeypatch.setenv(recovery.HEARTBEAT_SETTING, "30")
    monkeypatch.setattr("prefect.client.orchestration.get_client", get_client)
    monkeypatch.setattr("prefect.context.FlowRunContext.get", lambda: SimpleNamespace(flow_run=own))
    monkeypatch.setattr(maintain, "get_run_logger", lambda: log)
    monkeypatch.setattr(maintain, "show_markdown", lambda key, markdown, description: artifacts.append((key, markdown)))
    watched: list[timedelta] = []
    monkeypatch.setattr(recovery, "watch", lambda client, wait: watched.append(wait))
    return SimpleNamespace(server=server, log=log, artifacts=artifacts, watched=watched, run=maintain.recover.fn)


def test_what_was_put_back_is_in_the_log_and_in_an_artifact(recover: Any) -> None:
    dead = recover.server.add(Running(), name="embed | coco")
    recover.server.add(Completed())
    assert recover.run() == 1
    assert recover.server.runs[dead.id].state.name == "AwaitingRetry"
    assert any("embed | coco" in line and "no heartbeat for 1000 s" in line for line in recover.log.lines)
    ((key, markdown),) = recover.artifacts
    assert key == "recovered"
    assert f"| `embed / coco` | `{dead.id}` | cpu | AwaitingRetry | `no heartbeat for 1000 s` |" in markdown
    assert recover.watched == [2 * PERIOD]


def test_where_nothing_died_nothing_is_waited_for_and_no_artifact_is_written(recover: Any) -> None:
    recover.server.heartbeats[recover.server.add(Running()).id] = ago(10)
    assert recover.run() == 0
    assert recover.artifacts == []
    assert recover.watched == []


def test_a_crashed_run_is_put_back_without_a_watch(recover: Any) -> None:
    recover.server.add(Crashed(), age=5)
    assert recover.run() == 1
    assert recover.watched == []


def test_a_run_that_is_heard_of_during_the_watch_is_left_alone(recover: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    late = recover.server.add(Running())

    def watch(client: Any, wait: timedelta) -> None:
        recover.server.heartbeats[late.id] = NOW

    monkeypatch.setattr(recovery, "watch", watch)
    assert recover.run() == 0
    assert recover.server.runs[late.id].state.is_running()


def test_a_run_that_completes_during_the_watch_stays_completed(recover: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    late = recover.server.add(Running())
    monkeypatch.setattr(recovery, "watch", lambda client, wait: recover.server.enter(late, Completed()))
    assert recover.run() == 0
    assert recover.server.runs[late.id].state.is_completed()


def test_a_run_that_was_being_cancelled_becomes_cancelled(recover: Any) -> None:
    run = recover.server.add(Cancelling())
    assert recover.run() == 1
    assert recover.server.runs[run.id].state.is_cancelled()


def test_runs_of_a_pool_that_sets_no_heartbeat_are_left_alone_with_a_warning(recover: Any) -> None:
    recover.server.environment = {}
    recover.server.add(Running())
    assert recover.run() == 0
    assert any("cannot be told from slow ones" in line for line in recover.log.lines)
