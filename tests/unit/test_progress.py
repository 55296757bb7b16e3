"""What tasks tell of themselves: to displays as they advance, and to the tally of their run."""

from __future__ import annotations

import threading

import pytest

from tasks.progress import Counted, Failure, Progress, Tally, counting, show_on, tally


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Kept:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def update(self, progress: Progress) -> None:
        self.seen.append((progress.name, progress.done, progress.total))


def test_a_display_is_told_until_it_is_taken_away() -> None:
    kept = Kept()
    stop = show_on(kept)
    progress = Progress("shard", 3)
    progress.advance()
    progress.advance(2)
    stop()
    progress.advance()
    assert kept.seen == [("shard", 1, 3), ("shard", 3, 3)]


def test_a_tally_knows_what_is_at_work_done_found_and_failed_and_for_how_long() -> None:
    clock = Clock()
    run = Tally(clock=clock)
    for _ in range(3):
        run.submitted("embed")
    assert run.steps() == {"embed": Counted(submitted=3)}
    clock.now = 10.0
    with run.at_work("embed", "embed a"):
        clock.now = 14.0
        assert run.steps()["embed"].at_work == 1
    with run.at_work("embed", "embed b") as work:
        clock.now = 15.0
        work.found = True
    with pytest.raises(ValueError, match="odd"), run.at_work("embed", "embed c"):
        raise ValueError("odd")
    clock.now = 100.0
    counted = run.steps()["embed"]
    # What was found made is no work: four seconds, not five.
    assert counted == Counted(submitted=3, done=2, found=1, failed=1, seconds=4.0, began=10.0, ended=15.0)
    assert counted.elapsed(clock.now) == 5.0
    assert run.failures() == [Failure("embed c", "ValueError: odd")]


def test_a_step_that_is_at_work_has_not_ended() -> None:
    assert Counted(began=10.0, ended=15.0, at_work=1).elapsed(100.0) == 90.0
    assert Counted().elapsed(100.0) == 0.0


def test_a_run_that_is_cancelled_has_not_failed() -> None:
    run = Tally()
    with pytest.raises(KeyboardInterrupt), run.at_work("embed", "embed a"):
        raise KeyboardInterrupt
    assert run.steps()["embed"].failed == 0
    assert run.failures() == []


def test_of_many_failures_the_newest_are_kept() -> None:
    run = Tally()
    for number in range(Tally.kept_failures + 5):
        with pytest.raises(ValueError, match="odd"), run.at_work("embed", f"embed {number}"):
            raise ValueError("odd")
    assert run.steps()["embed"].failed == Tally.kept_failures + 5
    assert [failure.name for failure in run.failures()] == [f"embed {n}" for n in range(5, Tally.kept_failures + 5)]


def test_every_change_is_told_and_every_end_by_name() -> None:
    changes: list[int] = []
    ended: list[str] = []
    run = Tally(lambda: changes.append(run.steps()["embed"].at_work), ended.append)
    run.submitted("embed")
    with run.at_work("embed", "embed a"):
        pass
    assert changes == [0, 1, 0]
    assert ended == ["embed a"]


def test_threads_count_together() -> None:
    run = Tally()

    def work() -> None:
        for _ in range(200):
            run.submitted("embed")
            with run.at_work("embed", "embed a"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = run.steps()["embed"]
    assert (counted.submitted, counted.done, counted.at_work) == (800, 800, 0)


def test_steps_are_counted_by_the_run_around_them_and_else_by_nobody() -> None:
    run = Tally()
    with counting(run):
        assert tally() is run
    tally().submitted("embed")
    assert run.steps() == {}
