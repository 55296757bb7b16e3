"""A flow whose GPU fails, or whose run another process has: what it leaves to others, and what it says itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas import State
from prefect.exceptions import Abort
from prefect.states import AwaitingRetry, Cancelling, Pending, Running

from flows.recovery import ATTEMPTS
from flows.runner import attempt, put_back_if_device_lost, yield_to_newer_attempt
from storage.errors import SpecError
from storage.store import is_known
from tasks.device import DeviceLost


class Server:
    """Stands for Prefect's server with one flow run, which has been started so many times."""

    def __init__(self, run_count: int) -> None:
        self.run = SimpleNamespace(id=uuid4(), run_count=run_count, state=Running())
        self.away = False
        self.states: list[State] = []

    def read_flow_run(self, run_id: Any) -> Any:
        assert run_id == self.run.id
        if self.away:
            raise httpx.ConnectError("connection refused")
        return self.run

    def set_flow_run_state(self, run_id: Any, state: State) -> None:
        assert run_id == self.run.id
        self.states.append(state)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    def with_run(run_count: int, deployed: bool = True) -> Server:
        server = Server(run_count)

        @contextmanager
        def get_client(sync_client: bool) -> Iterator[Server]:
            yield server

        run = SimpleNamespace(id=server.run.id, run_count=run_count, deployment_id=uuid4() if deployed else None)
        monkeypatch.setattr("prefect.client.orchestration.get_client", get_client)
        monkeypatch.setattr("prefect.context.FlowRunContext.get", lambda: SimpleNamespace(flow_run=run))
        return server

    return with_run


def test_a_run_whose_device_is_lost_waits_in_its_queue_again(serve: Any) -> None:
    server = serve(run_count=1)
    with pytest.raises(Abort), put_back_if_device_lost():
        raise DeviceLost("cuda failed")
    (state,) = server.states
    assert state.name == "AwaitingRetry"
    assert state.is_scheduled()
    assert "cuda failed" in (state.message or "")


def test_after_the_last_attempt_the_run_fails(serve: Any) -> None:
    server = serve(run_count=ATTEMPTS)
    with pytest.raises(DeviceLost), put_back_if_device_lost():
        raise DeviceLost("cuda failed")
    assert server.states == []


def test_a_run_that_no_worker_has_fails_at_once(serve: Any) -> None:
    server = serve(run_count=1, deployed=False)
    with pytest.raises(DeviceLost), put_back_if_device_lost():
        raise DeviceLost("cuda failed")
    assert server.states == []


def test_other_failures_are_final(serve: Any) -> None:
    server = serve(run_count=1)
    with pytest.raises(SpecError), put_back_if_device_lost():
        raise SpecError("broken")
    assert server.states == []


@pytest.mark.parametrize("error", [OSError("the store did not answer"), KeyboardInterrupt()])
@pytest.mark.parametrize("state", [Running(), AwaitingRetry(), Pending()])
def test_an_attempt_whose_run_another_has_says_nothing_of_how_it_failed(
    serve: Any, state: State, error: BaseException
) -> None:
    server = serve(run_count=1)
    server.run = SimpleNamespace(id=server.run.id, run_count=2 if state.is_running() else 1, state=state)
    with pytest.raises(Abort), yield_to_newer_attempt():
        raise error


@pytest.mark.parametrize("state", [Running(), Cancelling()])
def test_the_newest_attempt_fails_as_it_does(serve: Any, state: State) -> None:
    server = serve(run_count=2)
    server.run.state = state
    with pytest.raises(SpecError), yield_to_newer_attempt():
        raise SpecError("wrong")


def test_without_an_answer_of_the_server_a_run_fails_as_it_does(serve: Any) -> None:
    server = serve(run_count=1)
    server.away = True
    with pytest.raises(SpecError), yield_to_newer_attempt():
        raise SpecError("wrong")


def test_without_a_deployment_there_is_no_other_attempt(serve: Any) -> None:
    serve(run_count=1, deployed=False).run.run_count = 2
    with pytest.raises(SpecError), yield_to_newer_attempt():
        raise SpecError("wrong")


@pytest.mark.parametrize(("parent", "run_count", "waits"), [(None, 1, False), (uuid4(), 1, True), (None, 2, True)])
def test_only_what_follows_on_others_work_waits_for_a_store_that_has_not_answered_yet(
    parent: Any, run_count: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(id=uuid4(), run_count=run_count, parent_task_run_id=parent, deployment_id=uuid4())
    monkeypatch.setattr("prefect.context.FlowRunContext.get", lambda: SimpleNamespace(flow_run=run))
    with attempt():
        assert is_known() is waits
    assert not is_known()
