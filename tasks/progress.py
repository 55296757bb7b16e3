"""How far the work is: counters of single tasks for displays, and of a run's steps for its overview."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol


class Display(Protocol):
    """Something that shows the progress of tasks, such as a terminal's bars."""

    def update(self, progress: "Progress") -> None:
        """A task has done more; called for every picture, so a display that writes somewhere does so now and then."""
        ...


_displays: list[Display] = []


def show_on(display: Display) -> Callable[[], None]:
    """Report progress to a display, until the returned function is called."""
    _displays.append(display)
    return lambda: _displays.remove(display)


class Progress:
    """Counts what a task has done, for the displays.

    `done` were finished by an earlier attempt: they count as done, not for the rate. `price` is what an hour of the
    device costs, `load` says how busy it is (0..1).
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str = "pictures",
        clock: Callable[[], float] = time.monotonic,
        done: int = 0,
        price: float | None = None,
        load: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.name = name
        self.total = total
        self.done = done
        self._found = done
        self._price = price
        self._load = load
        self.unit = unit
        self._clock = clock
        self._started = clock()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        for display in tuple(_displays):
            display.update(self)

    def description(self) -> str:
        """How much is done, how fast, when it will be finished, what a thousand cost, and how busy the GPU is."""
        rate = (self.done - self._found) / max(1e-9, self._clock() - self._started)
        parts = [f"{self.name}: {self.done} of {self.total} {self.unit}", f"{rate:.1f} per second"]
        if rate > 0 and self.done < self.total:
            parts.append(f"{timedelta(seconds=round((self.total - self.done) / rate))} left")
        if rate > 0 and self._price is not None:
            parts.append(f"{self._price / 3600 / rate * 1000:.2f} per thousand {self.unit}")
        load = self._load()
        if load is not None:
            parts.append(f"GPU busy {load:.0%}")
        return ", ".join(parts)


@dataclass
class Counted:
    """What a `Tally` knows of one step. Times are the tally's clock; `seconds` are of work that was not found made."""

    submitted: int = 0
    done: int = 0
    found: int = 0
    failed: int = 0
    at_work: int = 0
    seconds: float = 0.0
    began: float | None = None
    ended: float | None = None

    def elapsed(self, now: float) -> float:
        """Seconds from its first beginning until now, or until its last end where nothing is at work."""
        if self.began is None:
            return 0.0
        return (now if self.at_work or self.ended is None else self.ended) - self.began


@dataclass(frozen=True)
class Failure:
    """One failed attempt of a task: the task's name and what was raised."""

    name: str
    error: str


@dataclass
class _Work:
    """A task that runs. Say `found` of one whose objects were there already."""

    found: bool = False


class Tally:
    """Counts the tasks of one run by their steps; several threads may call it.

    Args:
        changed: is called, outside of any lock, after each change.
        ended: is told the name of each task that has ended.
        clock: seconds.
    """

    kept_failures = 100

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        ended: Callable[[str], None] = lambda name: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._changed = changed
        self._ended = ended
        self._clock = clock
        self._lock = threading.Lock()
        self._steps: dict[str, Counted] = {}
        self._failures: list[Failure] = []

    def submitted(self, step: str) -> None:
        """One more task of a step will run."""
        with self._lock:
            self._steps.setdefault(step, Counted()).submitted += 1
        self._changed()

    @contextmanager
    def at_work(self, step: str, name: str) -> Iterator[_Work]:
        """Around a task of a step; `name` is the task's own, for its failure."""
        began = self._clock()
        with self._lock:
            counted = self._steps.setdefault(step, Counted())
            counted.at_work += 1
            counted.began = began if counted.began is None else counted.began
        self._changed()
        work = _Work()
        error: BaseException | None = None
        try:
            yield work
        except BaseException as raised:
            error = raised
            raise
        finally:
            ended = self._clock()
            with self._lock:
                counted.at_work -= 1
                counted.ended = ended
                if error is None:
                    counted.done += 1
                    counted.found += work.found
                    counted.seconds += 0.0 if work.found else ended - began
                elif isinstance(error, Exception):
                    counted.failed += 1
                    self._failures.append(Failure(name, f"{type(error).__name__}: {error}"))
                    del self._failures[: -self.kept_failures]
            self._ended(name)
            self._changed()

    def steps(self) -> dict[str, Counted]:
        """Copies of all counts, by step, in the order in which the steps were first submitted."""
        with self._lock:
            return {step: replace(counted) for step, counted in self._steps.items()}

    def failures(self) -> list[Failure]:
        """The newest failed attempts, oldest first."""
        with self._lock:
            return list(self._failures)


_tally: ContextVar[Tally | None] = ContextVar("tally", default=None)


def tally() -> Tally:
    """The tally of the run that this is part of; one that nobody looks at where none counts.

    Ask for it in the flow's own thread, where tasks are submitted, and take it along into the task.
    """
    return _tally.get() or Tally()


@contextmanager
def counting(run: Tally) -> Iterator[None]:
    """Within this block the steps that are submitted are counted here."""
    token = _tally.set(run)
    try:
        yield
    finally:
        _tally.reset(token)
