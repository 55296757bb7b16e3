"""How the orchestration benchmark counts: steps at work, and the time beside them."""

import time
from pathlib import Path

import pytest

from benchmarks.harness import Unequal
from benchmarks.orchestration import Evaluation, _said, covered, timed_steps
from storage.local import LocalStore
from tasks.recipe import Output, StepRun, step


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0.0),
        ([(1.0, 2.0), (4.0, 7.0)], 4.0),
        ([(4.0, 7.0), (1.0, 5.0)], 6.0),
        ([(0.0, 10.0), (2.0, 3.0), (9.0, 11.0)], 11.0),
    ],
)
def test_time_in_which_several_steps_are_at_work_counts_once(spans: list[tuple[float, float]], length: float) -> None:
    assert covered(spans) == length


@step("wait", version=1, label=lambda *, number, **_: str(number))
def wait(run: StepRun, *, number: int) -> Output:
    """Take a moment."""
    time.sleep(0.02)
    if number < 0:
        raise ValueError("negative")
    return Output({"x": b"x"})


def test_a_step_is_timed_where_it_makes_something_or_fails(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with timed_steps() as spans:
        wait.compute(store, number=1)
        wait.compute(store, number=1)
        with pytest.raises(ValueError, match="negative"):
            wait.compute(store, number=-1)
    wait.compute(store, number=2)
    assert len(spans) == 2
    assert all(end - began >= 0.02 for began, end in spans)


def test_the_words_say_all_runs_and_their_aims() -> None:
    cold = Evaluation(100.0, [(0.0, 50.0), (40.0, 96.0)])
    assert cold.outside == pytest.approx(4.0)
    said = _said([cold, Evaluation(6.0, []), Evaluation(5.0, [])], threads=2)
    assert "first run 100.0 s, 4.0 s of them without a step at work (4.0%, aim at most 5%)" in said
    assert "2 steps of 106.0 s together, 53% of 2 x wall time" in said
    assert said.endswith("again, nothing changed: 6.0, 5.0 s in all (aim at most 10 s)")
    assert "again" not in _said([cold], threads=2)


def test_a_second_run_that_computes_is_an_error() -> None:
    with pytest.raises(Unequal, match="1 steps were computed again"):
        _said([Evaluation(10.0, [(0.0, 9.0)]), Evaluation(3.0, [(0.0, 1.0)])], threads=1)
