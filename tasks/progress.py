"""Progress of long tasks: an artifact in the Prefect UI, a bar in the terminal where one is shown."""

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

ARTIFACT_PERIOD_S = 2.0


class Display(Protocol):
    """Something that shows progress beside Prefect, such as a terminal's bars."""

    def update(self, name: str, done: int, total: int) -> None:
        """A task has done so much."""
        ...


_displays: list[Display] = []


def show_on(display: Display) -> Callable[[], None]:
    """Report progress to a display as well, until the returned function is called."""
    _displays.append(display)
    return lambda: _displays.remove(display)


def artifact_key(*parts: str) -> str:
    """A Prefect artifact key: lowercase letters, digits and single dashes only."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


class Progress:
    """Counts what a task or flow has done; the artifact is written at most every two seconds, and when done.

    With `eager` there is an artifact from the beginning, however soon all is done: for a flow, whose stages it names.
    `done` were finished by an earlier attempt: they count as done, not for the rate. `price` is what an hour of the
    device costs, `load` says how busy it is (0..1).
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str = "pictures",
        clock: Callable[[], float] = time.monotonic,
        eager: bool = False,
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
        self._unit = unit
        self._clock = clock
        self._started = clock()
        self._reported = self._started
        self._artifact: object | None = None
        if eager:
            self._tell_displays()
            self._report()

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        now = self._clock()
        self._tell_displays()
        last = self.done >= self.total
        # Work of under a period gets no artifact of its own accord: its task run says the same.
        if now - self._reported >= ARTIFACT_PERIOD_S or (last and self._artifact is not None):
            self._reported = now
            self._report()

    def description(self) -> str:
        """How much is done, how fast, when it will be finished, what a thousand cost, and how busy the GPU is."""
        rate = (self.done - self._found) / max(1e-9, self._clock() - self._started)
        parts = [f"{self.name}: {self.done} of {self.total} {self._unit}", f"{rate:.1f} per second"]
        if rate > 0 and self.done < self.total:
            parts.append(f"{timedelta(seconds=round((self.total - self.done) / rate))} left")
        if rate > 0 and self._price is not None:
            parts.append(f"{self._price / 3600 / rate * 1000:.2f} per thousand {self._unit}")
        load = self._load()
        if load is not None:
            parts.append(f"GPU busy {load:.0%}")
        return ", ".join(parts)

    def _tell_displays(self) -> None:
        for display in _displays:
            display.update(self.name, self.done, self.total)

    def _report(self) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact
        from prefect.context import FlowRunContext, TaskRunContext

        if TaskRunContext.get() is None and FlowRunContext.get() is None:
            return
        percent = 100.0 * min(1.0, self.done / max(1, self.total))
        description = self.description()
        if self._artifact is None:
            self._artifact = create_progress_artifact(
                percent, key=artifact_key("progress", self.name), description=description
            )
        else:
            update_progress_artifact(self._artifact, progress=percent, description=description)  # type: ignore[arg-type]
