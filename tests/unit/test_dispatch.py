"""Stages on pools: children are waited for, believed only when completed, and cancelled with their parent."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.states import Cancelling, Completed, Crashed, Running, State

from flows.collect import collect, mended
from flows.dispatch import Child, run_children, run_stage
from storage.errors import ChildRunFailed, DamagedObject, TelltaleError
from tasks.recipe import NotFinished

CHILDREN = [Child("embed/vgg16", {"experiment": "sample"}, "embed"), Child("train/svm", {}, "train")]


class Server:
    """Stands for Prefect's server: every child has a script of states, the last one stays."""

    def __init__(self, *scripts: list[State]) -> None:
        self.scripts = list(scripts)
        self.runs: dict[UUID, list[State]] = {}
        self.started: list[dict[str, Any]] = []
        self.set_states: list[str] = []

    def run_deployment(self, **arguments: Any) -> Any:
        run_id = uuid4()
        self.runs[run_id] = self.scripts[len(self.started)]
        self.started.append(arguments)
        return SimpleNamespace(id=run_id)

    def read_flow_run(self, run_id: UUID) -> Any:
        script = self.runs[run_id]
        state = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(state, BaseException):
            raise state
        return SimpleNamespace(state=state)

    def set_flow_run_state(self, run_id: UUID, state: State) -> None:
        self.set_states.append(state.name or "")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    def with_scripts(*scripts: list[Any]) -> Server:
        server = Server(*scripts)

        @contextmanager
        def get_client(sync_client: bool) -> Iterator[Server]:
            yield server

        monkeypatch.setattr("prefect.client.orchestration.get_client", get_client)
        monkeypatch.setattr("prefect.deployments.run_deployment", server.run_deployment)
        monkeypatch.setattr("flows.dispatch.POLL_S", 0)
        return server

    return with_scripts


def test_children_are_all_started_and_waited_for(serve: Any) -> None:
    server = serve([Running(), Running(), Completed()], [Running(), Completed()])
    run_children(CHILDREN)
    assert [started["name"] for started in server.started] == ["embed/vgg16", "train/svm"]
    assert {started["timeout"] for started in server.started} == {0}


def test_a_child_that_did_not_complete_fails_the_parent_by_name(serve: Any) -> None:
    serve([Completed()], [Running(), Crashed(message="the worker died")])
    with pytest.raises(ChildRunFailed, match=r"1 of 2 .* train \(train/svm\): Crashed: the worker died"):
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
