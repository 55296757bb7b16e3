"""Stages on pools: children are waited for, believed only when completed, and cancelled with their parent."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Cancelling, Completed, Crashed, Failed, Running, State

from flows import dispatch
from flows.collect import collect, mended
from flows.dispatch import Child, run_children, run_stage
from flows.recovery import ATTEMPTS
from storage.errors import ChildRunFailed, DamagedObject, TelltaleError
from tasks.recipe import NotFinished

CHILDREN = [Child("embed/vgg16", {"experiment": "sample"}, "embed"), Child("train/svm", {}, "train")]


AWAY = httpx.ConnectError("connection refused")
REQUEST = httpx.Request("GET", "http://server/api")
BROKEN = httpx.HTTPStatusError("broken", request=REQUEST, response=httpx.Response(500))
WRONG = httpx.HTTPStatusError("wrong", request=REQUEST, response=httpx.Response(422))


class Server:
    """Stands for Prefect's server: every child has a script of states, the last one stays."""

    def __init__(self, *scripts: list[State], run_count: int = 1) -> None:
        self.scripts = list(scripts)
        self.run_count = run_count
        self.runs: dict[UUID, list[State]] = {}
        self.started: list[dict[str, Any]] = []
        self.refused_starts: list[Exception] = []
        self.keys: list[str] = []
        self.set_states: list[str] = []
        self.messages: list[str] = []
        self.away_when_cancelling = False

    def run_deployment(self, **arguments: Any) -> Any:
        self.keys.append(arguments["idempotency_key"])
        if self.refused_starts:
            raise self.refused_starts.pop(0)
        run_id = uuid4()
        self.runs[run_id] = self.scripts[len(self.started)]
        self.started.append(arguments)
        return SimpleNamespace(id=run_id)

    def read_flow_run(self, run_id: UUID) -> Any:
        script = self.runs[run_id]
        state = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(state, BaseException):
            raise state
        return SimpleNamespace(id=run_id, name="child", state=state, run_count=self.run_count)

    def read_flow_run_states(self, run_id: UUID) -> list[State]:
        return []

    def set_flow_run_state(self, run_id: UUID, state: State) -> Any:
        if self.away_when_cancelling:
            raise AWAY
        self.set_states.append(state.name or "")
        self.messages.append(state.message or "")
        return SimpleNamespace(status=SetStateStatus.ACCEPT, details=None)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    def with_scripts(*scripts: list[Any], run_count: int = 1) -> Server:
        server = Server(*scripts, run_count=run_count)

        @contextmanager
        def get_client(sync_client: bool) -> Iterator[Server]:
            yield server

        monkeypatch.setattr("prefect.client.orchestration.get_client", get_client)
        monkeypatch.setattr("prefect.deployments.run_deployment", server.run_deployment)
        monkeypatch.setattr("flows.dispatch.POLL_S", 0)
        monkeypatch.setattr("flows.dispatch.AWAY_POLL_S", 0)
        return server

    return with_scripts


def test_children_are_all_started_and_waited_for(serve: Any) -> None:
    server = serve([Running(), Running(), Completed()], [Running(), Completed()])
    run_children(CHILDREN)
    assert [started["name"] for started in server.started] == ["embed/vgg16", "train/svm"]
    assert {started["timeout"] for started in server.started} == {0}


def test_a_child_that_did_not_complete_fails_the_parent_by_name(serve: Any) -> None:
    serve([Completed()], [Running(), Failed(message="the disk is full")])
    with pytest.raises(ChildRunFailed, match=r"1 of 2 .* train \(train/svm\): Failed: the disk is full"):
        run_children(CHILDREN)


def test_a_crashed_child_is_put_back_and_waited_for(serve: Any) -> None:
    crashed = Crashed(message="the worker died")
    # Read once more before it is touched.
    server = serve([Completed()], [Running(), crashed, crashed, Running(), Completed()])
    run_children(CHILDREN)
    assert server.set_states == ["AwaitingRetry"]
    assert server.messages == ["put back: its parent saw it crash: the worker died"]


def test_a_crashed_child_that_somebody_else_put_back_is_waited_for(serve: Any) -> None:
    server = serve([Completed()], [Crashed(), Running(), Completed()])
    run_children(CHILDREN)
    assert server.set_states == []


def test_a_child_that_crashed_in_its_last_attempt_fails_the_parent(serve: Any) -> None:
    server = serve([Completed()], [Running(), Crashed(message="the worker died")], run_count=ATTEMPTS)
    with pytest.raises(ChildRunFailed, match=r"1 of 2 .* train \(train/svm\): Crashed: the worker died"):
        run_children(CHILDREN)
    assert server.set_states == []


@pytest.mark.parametrize("error", [AWAY, httpx.ReadTimeout("slow"), BROKEN])
def test_a_server_that_is_away_for_a_while_fails_no_parent(serve: Any, error: Exception) -> None:
    server = serve([Running(), error, error, Completed()], [Completed()])
    server.refused_starts = [error]
    run_children(CHILDREN)
    assert len(server.started) == 2
    # The start that was not confirmed is asked for again under the same key.
    assert server.keys[0] == server.keys[1] != server.keys[2]
    assert server.set_states == []


def test_a_server_that_stays_away_fails_the_parent_in_the_end(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve([Running(), AWAY], [Running()])
    server.away_when_cancelling = True
    monkeypatch.setattr(dispatch, "AWAY_S", 0.01)
    with pytest.raises(httpx.ConnectError):
        run_children(CHILDREN)


def test_a_question_that_the_server_rejects_is_not_asked_again(serve: Any) -> None:
    serve([WRONG, Completed()], [Completed()])
    with pytest.raises(httpx.HTTPStatusError, match="wrong"):
        run_children(CHILDREN)


def test_children_that_still_run_are_cancelled_with_their_parent(serve: Any) -> None:
    server = serve([Completed()], [Running(), KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        run_children(CHILDREN)
    assert server.set_states == [Cancelling().name]


def test_nothing_is_dispatched_when_everything_is_finished(serve: Any) -> None:
    server = serve()
    assert run_stage("pools", lambda: "refs", lambda: CHILDREN) == "refs"
    assert server.started == []


def test_what_is_missing_is_dispatched_and_then_found(serve: Any) -> None:
    server = serve([Completed()], [Completed()])
    answers: list[Any] = [NotFinished("embed"), "refs"]

    def compute() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert run_stage("pools", compute, lambda: CHILDREN) == "refs"
    assert len(server.started) == 2


def test_inline_starts_no_child(serve: Any) -> None:
    server = serve()
    assert run_stage("inline", lambda: 1, lambda: CHILDREN) == 1
    assert server.started == []


class Future:
    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome
        self.asked = False

    def result(self) -> Any:
        self.asked = True
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def test_all_futures_are_waited_for_before_a_failure_is_raised() -> None:
    futures = [Future(1), Future(ValueError("broken")), Future(2)]
    with pytest.raises(ValueError, match="broken"):
        collect(futures)
    assert all(future.asked for future in futures)


def test_damage_is_raised_before_other_failures_because_it_can_be_mended() -> None:
    with pytest.raises(DamagedObject) as raised:
        collect([Future(ValueError("other")), Future(DamagedObject("altered"))])
    assert raised.value.__notes__ == ["1 more of 2 tasks failed"]


def silent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    logger = SimpleNamespace(warning=lambda text, error: said.append(str(error)))
    monkeypatch.setattr("prefect.logging.get_run_logger", lambda: logger)
    return said


def test_a_damaged_object_makes_the_stage_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    said = silent(monkeypatch)
    attempts: list[int] = []

    def attempt() -> str:
        attempts.append(1)
        if len(attempts) < 3:
            raise DamagedObject(f"damage {len(attempts)}")
        return "whole"

    assert mended(attempt) == "whole"
    assert said == ["damage 1", "damage 2"]


def test_damage_without_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch)

    def attempt() -> str:
        raise DamagedObject("again")

    with pytest.raises(TelltaleError, match="check the store"):
        mended(attempt)
