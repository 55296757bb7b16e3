"""Two ways of doing one thing, measured in turns on the same input, and what may be said of them.

A row of the table is one claim: telltale's way against the plain one. At every size both ways run once and their
results are compared; only then are they measured, in alternating pairs, so that a machine that slows down slows both.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from benchmarks import ROOT
from storage.errors import TelltaleError

PAIRS = 5

Action = Callable[[], Any]
# Runs an action: what it cost (seconds, or bytes), and its result.
Meter = Callable[[Action], tuple[float, Any]]
Load = tuple[float, float, float]


class Unequal(TelltaleError):
    """Two ways whose results differ by more than their row allows: such times compare nothing."""


class Breaks(TelltaleError):
    """A size that cannot be had on this machine: what was measured below it stands, and this is said beside it."""


def seconds(action: Action) -> tuple[float, Any]:
    """Wall time of one call, and its result."""
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


def cpu_seconds(action: Action) -> tuple[float, Any]:
    """Processor time of one call in all threads of this process: what others compute meanwhile does not count."""
    began = time.process_time()
    result = action()
    return time.process_time() - began, result


def reported(action: Action) -> tuple[float, Any]:
    """What an action itself measured: it returns the cost and its result."""
    cost, result = action()
    return float(cost), result


def printed_apart(module: str, *arguments: str) -> dict[str, Any]:
    """What a module of the benchmarks prints last, as JSON, in a process of its own.

    Raises:
        Breaks: it printed nothing, or why it broke.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    document: dict[str, Any] = json.loads(lines[-1]) if lines else {"broke": f"status {done.returncode}"}
    if "broke" in document:
        raise Breaks(f"{' '.join(arguments)}: {document['broke']}")
    return document


@dataclass(frozen=True)
class Case:
    """Both ways at one size, on the same input; `plain` is None where there is nothing to compare with.

    `equality` gets what the plain way and ours returned, raises `Unequal` where they differ by more than allowed, and
    says in words how near they are.
    """

    plain: Action | None
    ours: Action
    equality: Callable[[Any, Any], str]


@dataclass(frozen=True)
class Row:
    """One claim. `case(size, threads)` makes its input at one size; `sizes` ascend, and the largest one is compared.

    `full_sizes` are those that are asked for as such, where they are others. `reach` is the ratio plain / ours that is
    aimed at, `at_most` the cost of ours; None where there is no such aim. `unit` is what `sizes` count, `meter` what a
    cost is: seconds, or what `costs` says with `reported`. Fewer `pairs` are for what hardly varies; none for what
    takes minutes: then the runs that are compared are those that count.
    """

    name: str
    what: str
    plainly: str
    unit: str
    sizes: tuple[int, ...]
    case: Callable[[int, int], AbstractContextManager[Case]]
    full_sizes: tuple[int, ...] = ()
    reach: float | None = None
    at_most: float | None = None
    meter: Meter = seconds
    costs: str = "s"
    threads: tuple[int, ...] = (1, 2)
    pairs: int = PAIRS
    libraries: tuple[str, ...] = ("numpy",)


@dataclass(frozen=True)
class Measured:
    """The costs of one size, in the order of their pairs; `plain` is empty where there is no plain way.

    After a single plain run, as with full sizes, that one stands against every run of ours.
    """

    size: int
    plain: tuple[float, ...]
    ours: tuple[float, ...]
    equality: str

    @property
    def ratios(self) -> tuple[float, ...]:
        """plain / ours, pair by pair."""
        if len(self.plain) == 1:
            return tuple(self.plain[0] / our for our in self.ours)
        return tuple(plain / our for plain, our in zip(self.plain, self.ours, strict=True)) if self.plain else ()


@dataclass(frozen=True)
class RowResult:
    """What was measured of a row with so many threads; `error` says why nothing was, `breaks` why no larger size."""

    row: str
    threads: int
    measured: tuple[Measured, ...] = ()
    load_before: Load | None = None
    load_after: Load | None = None
    error: str | None = None
    breaks: str | None = None
    seconds: float = 0.0

    @property
    def compared(self) -> Measured:
        """The largest size."""
        return self.measured[-1]


@dataclass(frozen=True)
class Plan:
    """How often to measure: pairs at the largest size, pairs at the smaller ones, and whether plain runs only once."""

    pairs: int = PAIRS
    growth_pairs: int = 1
    plain_once: bool = False
    sizes: tuple[int, ...] = field(default=())


def measure_row(row: Row, threads: int, plan: Plan, say: Callable[[str], None] = lambda line: None) -> RowResult:
    """Measure a row in this process, whose libraries have been given so many threads already.

    Raises:
        Unequal: the ways do not agree.
    """
    began, before = time.perf_counter(), load()
    sizes = plan.sizes or row.sizes
    measured: list[Measured] = []
    breaks = None
    for size in sizes:
        pairs = min(plan.pairs if size == sizes[-1] else plan.growth_pairs, row.pairs)
        try:
            with row.case(size, threads) as case:
                measured.append(measure_case(case, size, row.meter, pairs, plan.plain_once))
        except Breaks as limit:
            say(f"{row.name}: {limit}")
            breaks = str(limit)
            break
        say(f"{row.name}, {threads} thread(s), {size:,} {row.unit}: {_summary(measured[-1], row.costs)}")
    took = time.perf_counter() - began
    error = None if measured else breaks
    return RowResult(row.name, threads, tuple(measured), before, load(), error, breaks, took)


def measure_case(case: Case, size: int, meter: Meter, pairs: int, plain_once: bool = False) -> Measured:
    """Compare both results, then measure in pairs whose order alternates. The runs that are compared warm both ways up.

    With `plain_once` the compared plain run is the only one, and counts; so does the first one where there is no plain
    way, and both where there are to be no pairs.
    """
    if case.plain is None:
        first, result = meter(case.ours)
        words = case.equality(None, result)
        return Measured(size, (), (first, *(meter(case.ours)[0] for _ in range(pairs - 1))), words)
    first, plain_result = meter(case.plain)
    our_first, our_result = meter(case.ours)
    words = case.equality(plain_result, our_result)
    del plain_result, our_result
    if pairs == 0:
        return Measured(size, (first,), (our_first,), words)
    plain: list[float] = []
    ours: list[float] = []
    for pair in range(pairs):
        ways = [(plain, case.plain), (ours, case.ours)]
        for costs, action in ways if pair % 2 == 0 else reversed(ways):
            if costs is plain and plain_once:
                continue
            costs.append(meter(action)[0])
    return Measured(size, (first,) if plain_once else tuple(plain), tuple(ours), words)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """The slope of log cost over log size by least squares: 1 is linear. None of fewer than two sizes."""
    if len(set(sizes)) < 2 or min(costs) <= 0:
        return None
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


def load() -> Load:
    """How many processes wanted to compute, on average over 1, 5 and 15 minutes."""
    one, five, fifteen = os.getloadavg()
    return round(one, 2), round(five, 2), round(fifteen, 2)


def quantity(cost: float, unit: str) -> str:
    """A cost with three digits: `1.23 s`, `45.6 ms`, `812 MB`, `4.56%`, `1.23 times`."""
    if unit == "%":
        return f"{cost:.3g}%" if cost >= 1 else f"{cost:.2f}%"
    if unit == "times":
        return f"{cost:.3g} times"
    if unit == "bytes":
        return f"{cost / 1e9:.3g} GB" if cost >= 1e9 else f"{cost / 1e6:.3g} MB"
    if cost >= 1:
        return f"{cost:.3g} s" if cost < 1000 else f"{cost:,.0f} s"
    return f"{cost * 1e3:.3g} ms"


def _summary(measured: Measured, unit: str) -> str:
    ours = quantity(statistics.median(measured.ours), unit)
    if not measured.plain:
        return f"{ours}; {measured.equality}"
    ratio = statistics.median(measured.ratios)
    return f"plain {quantity(statistics.median(measured.plain), unit)}, ours {ours}, ratio {ratio:.3g}"
