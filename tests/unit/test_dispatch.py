"""Waiting: for many tasks, and for damaged objects to be mended."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.collect import collect, mended
from storage.errors import DamagedObject, TelltaleError


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
