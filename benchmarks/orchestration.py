"""What an evaluation costs beside its steps: the offline sample in this process, on a Prefect server of its own.

A step is timed from the call of its function until its object is committed, where it had something to make; finding
finished objects is not its work, but the flow's. Wall time in which no step was at work is what the flow costs:
planning, look-ups, Prefect's states and artifacts, waiting for the server. The server's start is not in it.

A run begins when the server is at rest. After one it goes on writing what has happened, and on SQLite refuses a run
that begins meanwhile: its client asks again after two seconds, then four, then eight.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.harness import Case, Unequal
from storage.store import STORE_SETTING
from tasks.recipe import Step

Span = tuple[float, float]

COLD_SHARE = 0.05
AGAIN_S = 10.0

# At rest: so small a share of one core over a second; it is waited for so long.
_REST_SHARE = 0.1
_REST_S = 120.0


@dataclass
class Evaluation:
    """One run of an experiment: its wall time, and when its steps were at work, in seconds of one clock."""

    seconds: float
    steps: Sequence[Span]

    @property
    def outside(self) -> float:
        """Wall time in which no step was at work."""
        return self.seconds - covered(self.steps)


@dataclass
class Sample:
    """The offline sample in one store, as often as it is asked for."""

    store: str
    runs: list[Evaluation] = field(default_factory=list)

    def run(self) -> Evaluation:
        """Once more."""
        rest()
        with timed_steps() as spans:
            began = time.perf_counter()
            evaluate(self.store, "sample")
            self.runs.append(Evaluation(time.perf_counter() - began, spans))
        return self.runs[-1]


@contextmanager
def sample_case(size: int, threads: int) -> Iterator[Case]:
    """The run with this number in a store that is empty before the first: its wall time outside of steps."""
    serve()
    sample = _sample()
    for _ in range(len(sample.runs), size - 1):
        sample.run()

    def outside() -> tuple[float, Evaluation]:
        evaluation = sample.run()
        return evaluation.outside, evaluation

    yield Case(None, outside, lambda *_: _said(sample.runs, threads))


def _said(runs: Sequence[Evaluation], threads: int) -> str:
    cold, *again = runs
    computed = sum(end - began for began, end in cold.steps)
    used = computed / (threads * cold.seconds)
    words = (
        f"first run {cold.seconds:.1f} s, {cold.outside:.1f} s of them without a step at work "
        f"({cold.outside / cold.seconds:.1%}, aim at most {COLD_SHARE:.0%}); "
        f"{len(cold.steps)} steps of {computed:.1f} s together, {used:.0%} of {threads} x wall time"
    )
    if not again:
        return words
    computed_again = sum(len(evaluation.steps) for evaluation in again)
    if computed_again:
        raise Unequal(f"{computed_again} steps were computed again, though nothing had changed")
    times = ", ".join(f"{evaluation.seconds:.1f}" for evaluation in again)
    return f"{words}; again, nothing changed: {times} s in all (aim at most {AGAIN_S:.0f} s)"


def covered(spans: Sequence[Span]) -> float:
    """The length of the union of some spans of time."""
    total, reached = 0.0, -float("inf")
    for began, end in sorted(spans):
        total += max(0.0, end - max(began, reached))
        reached = max(reached, end)
    return total


@contextmanager
def timed_steps() -> Iterator[list[Span]]:
    """Within this block, when every step that made something was at work, in the order in which they ended."""
    spans: list[Span] = []
    make = Step._make

    def timed(step: Step, *arguments: Any) -> None:
        began = time.perf_counter()
        try:
            make(step, *arguments)
        finally:
            spans.append((began, time.perf_counter()))

    with mock.patch.object(Step, "_make", timed):
        yield spans


def evaluate(store: str, experiment: str, overrides: dict[str, Any] | None = None) -> str:
    """Run an experiment in this process, on the server of `serve`, into a store; returns the run's place there."""
    os.environ[STORE_SETTING] = store
    from flows.evaluate import evaluate_all

    place: str = evaluate_all(experiment=experiment, overrides=overrides, dispatch="inline")
    return place


@functools.cache
def serve() -> None:
    """Start a Prefect server for this process, which ends with it. Prefect reads its settings when it is imported."""
    from deployments.services import ensure_server, stop
    from storage.opening import HOME_SETTING

    if "prefect" in sys.modules:
        raise RuntimeError("Prefect was imported before its server's address was known")
    home = tempfile.mkdtemp(prefix="telltale-bench-")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ[HOME_SETTING] = home
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")

    def end() -> None:
        stop(say=lambda line: None)
        shutil.rmtree(home, ignore_errors=True)

    # Registered before Prefect's own, and so called after it has sent its last logs.
    atexit.register(end)
    os.environ.update(ensure_server(say=lambda line: None).environment)


def rest() -> None:
    """Wait until the server has written what the run before made it write.

    Raises:
        Unequal: it goes on for two minutes.
    """
    from deployments.home_folder import home, load_state

    server = load_state(home()).server
    assert server is not None
    end = time.monotonic() + _REST_S
    used = _processor_seconds(server.pid)
    while time.monotonic() < end:
        time.sleep(1.0)
        before, used = used, _processor_seconds(server.pid)
        if used - before < _REST_SHARE:
            return
    raise Unequal(f"the server did not come to rest within {_REST_S:.0f} s")


def _processor_seconds(pid: int) -> float:
    """What a process has computed so far (proc(5): fields 14 and 15 of its `stat`)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@functools.cache
def _sample() -> Sample:
    store = tempfile.mkdtemp(prefix="telltale-bench-")
    atexit.register(shutil.rmtree, store, ignore_errors=True)
    return Sample(store)
