"""Lanes as flow runs: what they ask of a Prefect server, which may be away, and what holds in their threads."""

import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas import State
from prefect.client.schemas.responses import SetStateStatus
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling, Completed, Running

from flows import work
from storage.local import LocalStore
from storage.plans import PlanFolder, Segment
from tasks import lanes
from tasks.lanes import Hung, Lane
from tasks.planning import Finished, Plan
from tasks.recipe import planned_by
from tests.unit.pool_lanes import OFFER, sleep_a_while


def test_a_lane_does_not_wait_for_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(id=uuid4(), work_pool_name="gpu", work_queue_name="scheduled")
    monkeypatch.setattr(work, "own_run", lambda: run)
    began = time.monotonic()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 9}):
        assert not work._somebody_urgent_waits()
        work._rename("a name that nobody is told")
    # Asked nine times more it would be seventeen minutes.
    assert time.monotonic() - began < 20


def test_whether_somebody_urgent_waits_is_asked_as_the_flow_run_that_the_lane_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "BEAT_S", 0.1)
    own = contextvars.ContextVar("own", default="nobody")
    own.set("this run")
    asked: list[str] = []

    def yields() -> bool:
        asked.append(own.get())
        return True

    folder = PlanFolder(LocalStore(tmp_path), "plan")
    folder.begin({"title": "test"})
    folder.decide("cpu", {"device": "cpu", "versions": {}, "telltale": OFFER.telltale})
    assert Lane(folder, "cpu", "lane", 0, OFFER, lambda *_: None, slots=1, yields=yields).run() == "ended"
    assert set(asked) == {"this run"}


def test_what_does_not_move_is_left_to_others_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "BEAT_S", 0.05)
    monkeypatch.setattr(sleep_a_while, "patience_s", 0.3)
    folder = PlanFolder(LocalStore(tmp_path), "plan")
    folder.begin({"title": "test"})
    folder.decide("cpu", {"device": "cpu", "versions": {}, "telltale": OFFER.telltale})
    plan = Plan(Finished(folder.store), lambda pool: {})
    with planned_by(plan):
        sleep_a_while.submit(number=1, seconds=0.0)
        (element,) = plan.take_ready()
    folder.add_segment("cpu", Segment(0, 0), [element.document()])
    goes_on = threading.Event()
    stands = Lane(folder, "cpu", "stands", 0, OFFER, lambda *_: goes_on.wait(60), slots=1)
    try:
        with pytest.raises(Hung, match="no progress for"):
            stands.run()
        assert stands.is_busy
        ((key,),) = folder.failures().values()
        assert folder.failure(key)["error"] == "Hung"
        assert not folder.failure(key)["final"]
        # Its claim is free: another lane makes it at once.
        moves = Lane(folder, "cpu", "moves", 1, OFFER, work.made_by_tasks(folder.store), slots=1)
        monkeypatch.setattr(lanes, "WAIT_FOR_WORK_S", 0.1)
        assert moves.run() == "ended"
        assert moves.computed == 1
    finally:
        goes_on.set()


class Server:
    """Keeps a run's state as Prefect's does: what is being cancelled becomes Cancelled, and an end stays."""

    def __init__(self, state: State[Any]) -> None:
        self.state = state

    def read_flow_run(self, run_id: Any) -> SimpleNamespace:
        return SimpleNamespace(state=self.state, run_count=1)

    def set_flow_run_state(self, run_id: Any, state: State[Any]) -> SimpleNamespace:
        if (self.state.is_cancelling() and not state.is_cancelled()) or (self.state.is_final() and state.is_crashed()):
            return SimpleNamespace(status=SetStateStatus.REJECT)
        self.state = state
        return SimpleNamespace(status=SetStateStatus.ACCEPT)


@pytest.mark.parametrize(
    ("before", "how", "after"),
    [
        (Running(), "Completed", "Completed"),
        (Running(), "Crashed", "Crashed"),
        (Cancelling(), "Completed", "Cancelled"),
        (Cancelling(), "Crashed", "Cancelled"),
        (Completed(), "Crashed", "Completed"),
    ],
)
def test_no_lane_that_has_ended_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, before: State[Any], how: work.End, after: str
) -> None:
    server = Server(before)

    @contextmanager
    def get_client(sync_client: bool) -> Iterator[Server]:
        yield server

    monkeypatch.setattr("prefect.client.orchestration.get_client", get_client)
    run: Any = SimpleNamespace(id=uuid4(), run_count=1)
    assert work._conclude(run, how, "its message")
    assert server.state.name == after


def test_a_server_that_is_away_does_not_know_of_a_lanes_end() -> None:
    run: Any = SimpleNamespace(id=uuid4(), run_count=1)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}):
        assert not work._conclude(run, "Crashed", "its process was told to end")
