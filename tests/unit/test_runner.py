"""A flow whose GPU fails: its run is put back into the queue for another process, not for ever."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.exceptions import Abort
from prefect.states import State

from flows.runner import ATTEMPTS, put_back_if_device_lost
from storage.errors import SpecError
from tasks.device import DeviceLost


class Server:
    """Stands for Prefect's server with one flow run, which has been started so many times."""

    def __init__(self, run_count: int) -> None:
        self.run = SimpleNamespace(id=uuid4(), run_count=run_count)
        self.states: list[State] = []

    def read_flow_run(self, run_id: Any) -> Any:
        assert run_id == self.run.id
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

        run = SimpleNamespace(id=server.run.id, deployment_id=uuid4() if deployed else None)
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
