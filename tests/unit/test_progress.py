"""Progress artifacts: often enough to be watched, and not so often that the server is kept busy with them."""

from __future__ import annotations

import pytest

from tasks import progress as progress_module
from tasks.progress import ARTIFACT_PERIOD_S, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much was done whenever the artifact was written."""
    written: list[int] = []

    def report(self: Progress) -> None:
        written.append(self.done)
        self._artifact = object()

    monkeypatch.setattr(progress_module.Progress, "_report", report)
    return written


def test_short_work_has_no_artifact(clock: Clock, reported: list[int]) -> None:
    progress = Progress("shard", 3, clock=clock)
    for _ in range(3):
        progress.advance()
    assert reported == []


def test_a_flow_has_an_artifact_from_the_beginning_and_one_write_at_its_end(clock: Clock, reported: list[int]) -> None:
    progress = Progress("evaluate", 3, unit="stages", clock=clock, eager=True)
    assert reported == [0]
    for _ in range(3):
        progress.advance()
    assert reported == [0, 3]


def test_long_work_writes_once_a_period(clock: Clock, reported: list[int]) -> None:
    progress = Progress("shard", 100, clock=clock)
    for _ in range(10):
        clock.now += ARTIFACT_PERIOD_S / 4
        progress.advance(10)
    assert reported == [40, 80, 100]
