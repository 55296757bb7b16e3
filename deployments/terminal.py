"""What a person sees on the terminal while a flow runs in this process: bars, and at the end what failed."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from tasks.progress import Progress, show_on


def leave_the_log_to_the_ui() -> None:
    """Settings of Prefect's, which reads them when it is imported: the bars are for the terminal."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "WARNING")
    # As on the pools: a row for each task that has ended says what its state says.
    os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL", "WARNING")


def print_uncut(table: Table) -> None:
    """Print a table whose figures are cut by no terminal, and by no pipe."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    whole = console.measure(table, options=console.options.update(max_width=10_000))
    console.width = max(console.width, whole.maximum)
    console.print(table)


@contextmanager
def task_bars(console: Console) -> Iterator[None]:
    """Within this block a bar for each running task, or where nobody watches a line now and then.

    Prefect has been imported before.
    """
    _leave_failures_to_the_end()
    if not console.is_terminal:
        stop_showing = show_on(Lines(console))
        try:
            yield
        finally:
            stop_showing()
        return
    bars = Bars(console)
    stop_showing = show_on(bars)
    try:
        with bars.rich:
            yield
    finally:
        stop_showing()


class Bars:
    """Progress bars of the running tasks; a finished task's bar stays for the last few, then goes."""

    kept = 4

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description:<52.52}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.rich = RichProgress(*columns, console=console, transient=False, refresh_per_second=4)
        self._bars: dict[str, TaskID] = {}
        self._finished: list[str] = []

    def update(self, progress: Progress) -> None:
        """A task has done more."""
        name, done, total = progress.name, progress.done, progress.total
        if name not in self._bars:
            self._bars[name] = self.rich.add_task(name, total=total)
        self.rich.update(self._bars[name], completed=done, total=total)
        if done >= total and name not in self._finished:
            self._finished.append(name)
            if len(self._finished) > self.kept:
                old = self._bars.pop(self._finished.pop(0))
                self.rich.remove_task(old)


class Lines:
    """A line on what is done, every ten seconds at most: for a log."""

    every_s = 10.0

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._last = clock()
        self._finished: set[str] = set()

    def update(self, progress: Progress) -> None:
        """A task has done more."""
        if progress.done >= progress.total:
            self._finished.add(progress.name)
        if self._clock() - self._last >= self.every_s:
            self._last = self._clock()
            text = f"{len(self._finished)} tasks done; {progress.description()}"
            self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def _leave_failures_to_the_end() -> None:
    """Keep Prefect's account of a failure from the terminal: it goes to the UI, and here one sentence says what it is.

    What Prefect's own threads say of events that they could not send concerns no result.
    """

    def is_no_failed_run(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or not record.name.startswith(("prefect.flow_runs", "prefect.task_runs"))

    for handler in logging.getLogger().handlers:
        handler.addFilter(is_no_failed_run)
    for threads in ("prefect._internal", "APILogWorker", "EventsWorker"):
        logging.getLogger(threads).setLevel(logging.CRITICAL)
