"""Lanes as flow runs: what they ask of a Prefect server, which may be away, and what holds in their threads."""

import contextvars
import time
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import work
from storage.plans import PlanFolder
from storage.store import LocalStore
from tasks import lanes
from tasks.lanes import Lane
from tests.unit.pool_lanes import OFFER


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
