"""One artifact per evaluation that says how far it is: steps, lanes, problems, and in the end how it ended.

It is updated in place. A new artifact of the same key for every state would be thousands of rows of Prefect's database.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from flows.runner import own_run
from tasks.artifacts import artifact_key, harmless, rewrite_markdown, show_markdown
from tasks.progress import Progress, Tally, counting, show_on
from tasks.report.page import escape_markdown

# What a lane says of itself before its end.
AT_WORK = ("starting", "working")

PERIOD_S = 5.0
BAR_LENGTH = 12
SHOWN_LANES = 60
SHOWN_PROBLEMS = 10
ERROR_LENGTH = 2_000
WHY_LENGTH = 400
ENOUGH_FOR_A_RATE = 10


@dataclass(frozen=True)
class Line:
    """One step of an evaluation.

    Attributes:
        step: its name, such as `embed`.
        pool: where its work is done; empty for this process.
        done: units of work that are finished, `found` of them before this run.
        total: units that are known so far; planning may find more.
        seconds: of work that all workers together have spent on it.
        failed: attempts that failed.
        at_work: lanes or threads that are at it now.
        elapsed: seconds from its first beginning until now, or until its last end where nothing is at work.
    """

    step: str
    pool: str
    done: int
    total: int
    seconds: float
    failed: int
    at_work: int
    elapsed: float = 0.0
    found: int = 0


@dataclass(frozen=True)
class Lane:
    """One lane: who it is, what it is at (`done` of `total` units), for how many seconds it has said nothing."""

    name: str
    worker: str
    host: str
    device: str
    state: str
    at: str = ""
    done: int = 0
    total: int = 0
    silent: float = 0.0
    refusal: str = ""


@dataclass(frozen=True)
class Problem:
    """A failed attempt: of what, which one, on which lane, and what was raised."""

    what: str
    error: str
    attempt: int = 1
    lane: str = ""


@dataclass(frozen=True)
class Shown:
    """All that an overview shows beside its title and state; `tasks` are sentences about what runs in this process."""

    lines: Sequence[Line] = ()
    lanes: Sequence[Lane] = ()
    problems: Sequence[Problem] = ()
    tasks: Sequence[str] = ()
    gpu_price: float | None = None


def overview_markdown(
    title: str,
    lines: Sequence[Line],
    lanes: Sequence[Lane],
    state: str,
    problems: Sequence[Problem],
    tasks: Sequence[str] = (),
    gpu_price: float | None = None,
) -> str:
    """The overview as Markdown: a table of steps with their sum, of lanes, what runs here, and what failed.

    Args:
        title: what is evaluated.
        lines: one for each step.
        lanes: one for each lane, none where all runs in one process.
        state: such as `Running` or `Failed: why`.
        problems: failed attempts, the newest last.
        tasks: sentences about what runs in this process.
        gpu_price: of an hour of the pool `gpu`, where it is known.
    """
    parts = [f"## {_text(title)}", f"**{_text(state)}**"]
    if lines:
        parts.append(_table(*_steps(lines, gpu_price)))
    if lanes:
        parts.append(f"### Lanes\n\n{_table(*_lanes(lanes))}{_left_out(len(lanes), SHOWN_LANES, 'lanes')}")
    if tasks:
        parts.append("### At work\n\n" + "\n".join(f"* {_text(task)}" for task in tasks))
    if problems:
        newest = list(problems)[-SHOWN_PROBLEMS:][::-1]
        shown = "\n\n".join(_problem(problem) for problem in newest)
        parts.append(f"### Failed attempts\n\n{shown}{_left_out(len(problems), SHOWN_PROBLEMS, 'earlier ones')}")
    return "\n\n".join(parts) + "\n"


def progress_of(markdown: str) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """What an overview says, for who has only its text: (done, total) by step on all pools, and the sentences."""
    counts, *others = re.split(r"^### ", markdown, flags=re.MULTILINE)
    steps: dict[str, tuple[int, int]] = {}
    for row in re.findall(r"^\| ([^|*]+) \|(?: [^|]* \|)? ([0-9,]+) of ([0-9,]+) \|", counts, re.MULTILINE):
        step, (done, total) = _plain(row[0]), (int(count.replace(",", "")) for count in row[1:])
        before = steps.get(step, (0, 0))
        steps[step] = before[0] + done, before[1] + total
    at_work = next((part for part in others if part.startswith("At work")), "")
    return steps, [_plain(sentence) for sentence in re.findall(r"^\* (.+)$", at_work, re.MULTILINE)]


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _text(text: str) -> str:
    """A text that stays one: nor are addresses in it made links, as Prefect's UI would."""
    return re.sub(r"@|(?<=www)\.|:(?=//)", r"\\\g<0>", escape_markdown(text))


def _steps(lines: Sequence[Line], gpu_price: float | None) -> tuple[list[str], list[list[str]]]:
    pools, failures = any(line.pool for line in lines), any(line.failed for line in lines)
    costs = [_cost(line, gpu_price) for line in lines]
    known = [cost for cost in costs if cost is not None]
    wanted = {"pool": pools, "failed": failures, "cost": bool(known)}
    heads = ["step", "pool", "done", "", "rate", "left", "at work", "failed", "cost"]
    rows = [
        [
            _text(line.step),
            _text(line.pool),
            _counts(line.done, line.total),
            _bar(line.done, line.total),
            _rate(line),
            _left(line),
            _number(line.at_work),
            _number(line.failed),
            "" if cost is None else f"{cost:,.2f}",
        ]
        for line, cost in zip(lines, costs, strict=True)
    ]
    done, total = sum(line.done for line in lines), sum(line.total for line in lines)
    longest = max((left for line in lines if (left := seconds_left(line)) is not None), default=None)
    rows.append(
        [
            "**all**",
            "",
            _counts(done, total),
            _bar(done, total),
            "",
            "" if longest is None else f"at least {duration(longest)}",
            _number(sum(line.at_work for line in lines)),
            _number(sum(line.failed for line in lines)),
            f"{sum(known):,.2f}",
        ]
    )
    kept = [index for index, head in enumerate(heads) if wanted.get(head, True)]
    return [heads[index] for index in kept], [[row[index] for index in kept] for row in rows]


def _lanes(lanes: Sequence[Lane]) -> tuple[list[str], list[list[str]]]:
    refused = any(lane.refusal for lane in lanes)
    heads = ["lane", "worker", "host", "device", "state", "at", "", "silent for", *(["refused"] if refused else [])]
    rows = []
    for lane in list(lanes)[:SHOWN_LANES]:
        counts = _counts(lane.done, lane.total) if lane.total else ""
        texts = (lane.name, lane.worker, lane.host, lane.device, lane.state, lane.at)
        row = [*(_text(text) for text in texts), counts, f"{lane.silent:,.0f} s"]
        rows.append(row + ([_text(lane.refusal)] if refused else []))
    return heads, rows


def _problem(problem: Problem) -> str:
    where = f" on {problem.lane}" if problem.lane else ""
    printable = "".join(letter for letter in problem.error if letter == "\n" or letter.isprintable())
    error = _cut(printable, ERROR_LENGTH)
    # What was raised may hold anything: a fence that is longer than every run of backticks in it keeps it plain.
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", error))])
    return f"{_text(f'{problem.what}, attempt {problem.attempt}{where}')}:\n\n{fence}text\n{error}\n{fence}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _left_out(count: int, shown: int, what: str) -> str:
    return f"\n\nand {count - shown:,} {what}" if count > shown else ""


def _counts(done: int, total: int) -> str:
    return f"{done:,} of {total:,}"


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _bar(done: int, total: int) -> str:
    # Rounded down: a full bar means that all is done.
    filled = BAR_LENGTH * min(done, total) // total if total else 0
    return "█" * filled + "░" * (BAR_LENGTH - filled)


def _per_second(line: Line) -> float:
    return (line.done - line.found) / line.elapsed if line.elapsed > 0 else 0.0


def _rate(line: Line) -> str:
    """How many in a second, minute or hour: in the shortest of these in which it is one at least."""
    rate = _per_second(line)
    if rate <= 0 or (line.done == line.total and line.done - line.found < ENOUGH_FOR_A_RATE):
        return ""
    for seconds, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if rate * seconds >= 1 or unit == "hour":
            return f"{rate * seconds:,.1f} per {unit}"
    raise AssertionError("unreachable")


def seconds_left(line: Line) -> float | None:
    """When what is known of a step will be finished at its present rate; None where nobody is at it, or it is done."""
    rate = _per_second(line)
    return (line.total - line.done) / rate if rate > 0 and line.done < line.total and line.at_work else None


def _left(line: Line) -> str:
    """Time left, or how long it took."""
    if line.total and line.done == line.total:
        return "found" if line.found == line.total else f"done in {duration(line.elapsed)}"
    left = seconds_left(line)
    return "" if left is None else duration(left)


def duration(seconds: float) -> str:
    """A time as people say it: `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    minutes, hours, days = round(seconds / 60), round(seconds / 3600), 0
    if round(seconds) < 120:
        return f"{round(seconds)} s"
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def _cost(line: Line, gpu_price: float | None) -> float | None:
    return None if gpu_price is None or line.pool != "gpu" else line.seconds / 3600 * gpu_price


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."


class Overview:
    """The artifact `overview-<experiment>` of the flow run that this is part of; nothing where there is none.

        with Overview("sample", "evaluate sample", shown) as overview:
            ...
            overview.refresh()

    It is made at the start, or taken over from an earlier attempt of the same run; written at most once in `period`
    seconds; and in the end, whatever the end is, with a final state. A server that does not answer harms no run.

    Args:
        experiment: its name.
        title: what is evaluated; see `flows.names`.
        shown: is asked when something is written.
        clock: seconds, for the period and how long it has run.
        now: the time that the state names.
        period: seconds.
    """

    def __init__(
        self,
        experiment: str,
        title: str,
        shown: Callable[[], Shown],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        period: float = PERIOD_S,
    ) -> None:
        self.key = artifact_key("overview", experiment)
        self._title = title
        self._shown = shown
        self._clock = clock
        self._now = now
        self._period = period
        self._began = self._written = clock()
        self._before = 0.0  # seconds of earlier attempts of the run, and between them
        self._artifact: UUID | None = None
        self._run: Any = None
        self._ended = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._run = own_run()
        if self._run is not None:
            if self._run.run_count > 1 and self._run.start_time is not None:
                self._before = (datetime.now(UTC) - self._run.start_time).total_seconds()
            with self._lock, harmless(self.key):
                self._begin(self._markdown(self._running()))
        return self

    def refresh(self) -> None:
        """Write what is shown now, unless that was done within the period or another thread is at it."""
        if self._artifact is None or self._ended or self._clock() - self._written < self._period:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._written = self._clock()
                if not self._ended:
                    with harmless(self.key):
                        rewrite_markdown(self.key, self._artifact, self._markdown(self._running()))
            finally:
                self._lock.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            # Tasks of a run that is cancelled go on for a while, and would say that it runs.
            self._ended = True
            if self._artifact is not None:
                with harmless(self.key):
                    self._end(self._artifact, error)

    def _running(self) -> str:
        return f"Running for {self._elapsed()}, as of {self._now():%H:%M:%S} UTC"

    def _elapsed(self) -> str:
        return duration(self._before + self._clock() - self._began)

    def _end(self, artifact: UUID, error: BaseException | None) -> None:
        state = f"Completed in {self._elapsed()}" if error is None else self._failed(error)
        if state is not None:
            ended = f"{state.rstrip('.')}, {self._now():%d %B %Y, %H:%M:%S} UTC"
            rewrite_markdown(self.key, artifact, self._markdown(ended, over=True))

    def _failed(self, error: BaseException) -> str | None:
        """How a run ended that did not complete; None where another attempt of it goes on, and writes."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            run = client.read_flow_run(self._run.id)
        if run.run_count > self._run.run_count or (run.state and (run.state.is_scheduled() or run.state.is_pending())):
            return None
        if run.state is not None and (run.state.is_cancelling() or run.state.is_cancelled()):
            return f"Cancelled after {self._elapsed()}"
        if isinstance(error, Exception):
            return f"Failed after {self._elapsed()}: {_cut(f'{type(error).__name__}: {error}', WHY_LENGTH)}"
        # A worker that is stopped, or Ctrl-C; another attempt may follow.
        return f"Stopped after {self._elapsed()}: its process was told to end"

    def _markdown(self, state: str, *, over: bool = False) -> str:
        shown = self._shown()
        if over:
            # Lanes see the end a little later, and nobody writes then what they say.
            shown = replace(
                shown,
                lines=[replace(line, at_work=0) for line in shown.lines],
                lanes=[replace(lane, state="ended", at="") if lane.state in AT_WORK else lane for lane in shown.lanes],
                tasks=(),
            )
        return overview_markdown(
            self._title, shown.lines, shown.lanes, state, shown.problems, shown.tasks, shown.gpu_price
        )

    def _begin(self, markdown: str) -> None:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

        mine = ArtifactFilter(
            key=ArtifactFilterKey(any_=[self.key]), flow_run_id=ArtifactFilterFlowRunId(any_=[self._run.id])
        )
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(artifact_filter=mine, limit=1)
        if found:
            self._artifact = found[0].id
            rewrite_markdown(self.key, self._artifact, markdown)
        else:
            self._artifact = show_markdown(self.key, markdown, self._title)


class _Tasks:
    """What the tasks of this process say about themselves; those that have ended are forgotten."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._running: dict[str, Progress] = {}

    def update(self, progress: Progress) -> None:
        """A task has done more."""
        # Stages are not equally long: neither a rate nor an end follows from their number.
        if progress.unit == "stages":
            return
        if progress.done < progress.total:
            self._running[progress.name] = progress
        else:
            self.forget(progress.name)
        self._changed()

    def forget(self, name: str) -> None:
        """A task has ended, perhaps before all was done."""
        self._running.pop(name, None)

    def sentences(self) -> list[str]:
        """One for each task that is at work."""
        return [progress.description() for progress in tuple(self._running.values())]


@contextmanager
def watched(experiment: str, title: str, period: float = PERIOD_S) -> Iterator[Tally]:
    """Around the body of a flow whose work runs in this process: an overview of the steps that it submits."""
    clock = time.monotonic
    tasks = _Tasks(lambda: overview.refresh())
    tally = Tally(lambda: overview.refresh(), tasks.forget, clock)
    overview = Overview(experiment, title, lambda: _shown(tally, tasks, clock()), clock, period=period)
    stop_showing = show_on(tasks)
    try:
        with overview, counting(tally):
            yield tally
    finally:
        stop_showing()


def _shown(tally: Tally, tasks: _Tasks, now: float) -> Shown:
    steps = tally.steps()
    lines = [
        Line(
            step=name,
            pool="",
            done=counted.done,
            total=counted.submitted,
            seconds=counted.seconds,
            failed=counted.failed,
            at_work=counted.at_work,
            elapsed=0.0
            if counted.began is None
            else (now if counted.at_work else counted.ended or now) - counted.began,
            found=counted.found,
        )
        for name, counted in steps.items()
    ]
    problems = [Problem(failure.name, failure.error) for failure in tally.failures()]
    return Shown(lines, (), problems, tasks.sentences())
