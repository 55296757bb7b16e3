"""The measured rows as Markdown, with the machine that they were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import ROOT
from benchmarks.harness import Measured, Row, RowResult, exponent, quantity


def machine_facts(libraries: Sequence[str]) -> dict[str, str]:
    """Processor, cores, memory, versions, date and commit."""
    from tasks.device import processor_name

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(libraries)))
    return {
        "machine": f"{processor_name()}, {len(os.sched_getaffinity(0))} usable cores, {memory / 2**30:.0f} GiB",
        "versions": f"Python {platform.python_version()}, {versions}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit_name(ROOT),
    }


def commit_name(root: Path) -> str:
    """The commit that is checked out, and whether files differ from it; `unknown` outside a repository."""
    try:
        commit, changed = (
            subprocess.run(["git", *question], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
            for question in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with changes" if changed else commit


def markdown(
    rows: Mapping[str, Row], results: Sequence[RowResult], facts: Mapping[str, str], command: str, inputs: str
) -> str:
    """Facts, the table of ratios, growth over sizes, and how near the results are, as one Markdown text."""
    loads = [load for result in results for load in (result.load_before, result.load_after) if load is not None]
    busy = f"{min(load[0] for load in loads)} to {max(load[0] for load in loads)}" if loads else "not measured"
    minutes = sum(result.seconds for result in results) / 60
    lines = [
        f"`{command}` on {facts['date']}, commit {facts['commit']}, {minutes:.1f} minutes.",
        "",
        f"* {facts['machine']}; {facts['versions']}",
        f"* load (processes that wanted to compute, over a minute) before and after the rows: {busy}",
        f"* pictures: {inputs}",
        "",
        "| what | size | threads | plain way | plain | telltale | ratio (lowest to highest) | aim |",
        "|---|---|---|---|---|---|---|---|",
        *(_ratio_line(rows[result.row], result) for result in results),
        "",
        "Growth: costs at each size, and the exponent e of cost ~ size^e.",
        "",
        "| what | threads | sizes | plain | telltale |",
        "|---|---|---|---|---|",
        *(_growth_line(rows[result.row], result) for result in results if result.measured),
        "",
        "How near both results are, at the largest size:",
        "",
        *(
            f"* {rows[result.row].what}, {_threads(result.threads)}: {result.compared.equality}"
            for result in results
            if result.measured
        ),
        *(f"* {rows[result.row].what}: breaks at {result.breaks}" for result in results if result.breaks),
    ]
    return "\n".join(lines) + "\n"


def _ratio_line(row: Row, result: RowResult) -> str:
    if result.error is not None:
        return f"| {row.what} | | {result.threads} | {row.plainly} | ERROR: {result.error} | | | |"
    last = result.compared
    cost, size = statistics.median(last.ours), f"{last.size:,} {row.unit}"
    plain = ratio = ""
    if last.plain:
        plain = quantity(statistics.median(last.plain), row.costs)
        ratio = f"{statistics.median(last.ratios):.3g} ({min(last.ratios):.3g} to {max(last.ratios):.3g})"
    return (
        f"| {row.what} | {size} | {result.threads} | {row.plainly} | {plain} | {quantity(cost, row.costs)} | {ratio} | "
        f"{_verdict(row, last, cost)} |"
    )


def _verdict(row: Row, last: Measured, cost: float) -> str:
    aims = []
    if row.reach is not None and last.ratios:
        aims.append((f">= {row.reach:g}", 1 - statistics.median(last.ratios) / row.reach, "short"))
    if row.at_most is not None:
        aims.append((f"<= {quantity(row.at_most, row.costs)}", cost / row.at_most - 1, "over"))
    return "; ".join(f"{aim}: " + (f"{word} by {by:.0%}" if by > 0 else "reached") for aim, by, word in aims)


def _growth_line(row: Row, result: RowResult) -> str:
    sizes = ", ".join(f"{one.size:,}" for one in result.measured)
    plain = _growth(row, result.measured, [one.plain for one in result.measured])
    ours = _growth(row, result.measured, [one.ours for one in result.measured])
    return f"| {row.what} | {result.threads} | {sizes} {row.unit} | {plain} | {ours} |"


def _growth(row: Row, measured: Sequence[Measured], costs: Sequence[Sequence[float]]) -> str:
    if not all(costs):
        return ""
    medians = [statistics.median(of_size) for of_size in costs]
    slope = exponent([one.size for one in measured], medians)
    words = ", ".join(quantity(cost, row.costs) for cost in medians)
    return words if slope is None else f"{words}; e = {slope:.2f}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
