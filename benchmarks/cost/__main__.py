"""The cost of a whole evaluation, for any number of photographs: seconds, bytes, requests, tasks, dollars.

    python -m benchmarks.cost                                  5 thousand, 118 thousand and 100 million photographs
    python -m benchmarks.cost --photographs 118000 --workers 8 --gpu-hour-price 2.5 --markdown
    python -m benchmarks.cost --gpu-pictures-per-second sd768=8 --gpu-pictures-per-second vgg16=15000
    python -m benchmarks.cost --measure --json points.json     the points anew, on this machine
    python -m benchmarks.cost --measure --part assign --json points.json       one part of them anew
    python -m benchmarks.cost --points points.json             and the table fitted to them

The evaluation is the preset `coco` with so many photographs, as many pictures of each of its two generators, and
without the networks for a phone and the first project's table. Counts follow from the code. Seconds and bytes are
fitted to `points.json`. What nobody measured is left out, or is an option of this command and named as such.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks.cost.limits import (
    SHARD_BYTES,
    TASKS_PER_FLOW_RUN,
    Limit,
    largest_part,
    limits,
    reached_at,
    shard_size_for,
)
from benchmarks.cost.model import PARTS, sweep_requests, tasks_by_flow_run, total_requests
from benchmarks.cost.prediction import (
    GPU_PARTS,
    PAPER_LIMITS,
    POINTS,
    SIZES,
    Assumptions,
    Fitted,
    Prediction,
    StepCost,
    fit,
    holdout,
    points_as_text,
    predict,
    preset,
    read_points,
)
from tasks.threads import threads_environment

Table = list[list[str]]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    if options.measure:
        _measure(options.json, options.part)
        return
    points = read_points(options.points)
    fitted, assumed = fit(points), _assumptions(options)
    sizes = options.photographs or SIZES
    predictions = [predict(preset(size, assumed.shard_size), size, fitted, assumed) for size in sizes]
    print("\n".join(_report(points, fitted, assumed, predictions, _markdown if options.markdown else _plain)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=int, action="append", help="how many; again for another size")
    parser.add_argument("--workers", type=int, default=1, help="workers of one core each")
    parser.add_argument("--gpu-hour-price", type=float, help="dollars; without it there are none in the table")
    parser.add_argument(
        "--gpu-pictures-per-second",
        action="append",
        default=[],
        metavar="PART=RATE",
        help=f"a rate of yours ({', '.join(GPU_PARTS.values())}); of dcgan pictures per second of training",
    )
    parser.add_argument("--memory-gb", type=float, default=64.0, help="of a worker's machine")
    parser.add_argument("--shard-size", type=int, help="if another than the preset's")
    parser.add_argument("--photograph-kb", type=float, help="mean of a photograph; default that of the points")
    parser.add_argument("--fake-kb", type=float, help="mean PNG of the text-to-image source; default a stand-in")
    parser.add_argument("--markdown", action="store_true", help="tables as Markdown")
    parser.add_argument("--points", type=Path, default=POINTS, help="measured points to fit to")
    parser.add_argument(
        "--measure", action="store_true", help="measure the points on this machine, on one core, ten minutes or more"
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="of --measure, only this; again for another")
    parser.add_argument("--json", type=Path, help="where --measure keeps the points, after each of them")
    return parser


def _assumptions(options: argparse.Namespace) -> Assumptions:
    return Assumptions(
        workers=options.workers,
        gpu_hour_price=options.gpu_hour_price,
        gpu_rates=dict(_rate(text) for text in options.gpu_pictures_per_second),
        memory=options.memory_gb * 1e9,
        shard_size=options.shard_size,
        photograph_bytes=None if options.photograph_kb is None else options.photograph_kb * 1e3,
        diffusion_bytes=None if options.fake_kb is None else options.fake_kb * 1e3,
    )


def _rate(text: str) -> tuple[str, float]:
    part, _, value = text.partition("=")
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if part not in PAPER_LIMITS or rate <= 0:
        sys.exit(f"--gpu-pictures-per-second {text}: expected one of {[*PAPER_LIMITS]} = a rate above 0")
    if rate > PAPER_LIMITS[part]:
        sys.exit(
            f"{part}: {rate:g} pictures/s are more than the {PAPER_LIMITS[part]:g} that an H100's arithmetic allows"
        )
    return part, rate


def _measure(path: Path | None, parts: Sequence[str] | None) -> None:
    # Of one thread: what a process computes is then what its only task does.
    os.environ.update(threads_environment(1))
    threadpool_limits(limits=1)
    from benchmarks.cost.measure import measure_all

    def keep(points: dict[str, Any]) -> None:
        if path is not None:
            path.write_text(points_as_text(points), encoding="utf-8")

    measured = read_points(path) if parts and path is not None and path.exists() else {}
    measure_all(lambda line: print(line, file=sys.stderr, flush=True), keep, measured, parts or PARTS)
    if path is None:
        print(points_as_text(measured), end="")


def _report(
    points: Mapping[str, Any],
    fitted: Fitted,
    assumed: Assumptions,
    predictions: Sequence[Prediction],
    shown: Callable[[Table], list[str]],
) -> list[str]:
    sizes = [f"{prediction.photographs:,}" for prediction in predictions]
    found = limits(fitted, assumed)
    return [
        *_measured_on(points),
        "",
        "Predicted, per evaluation; counts are exact, the rest is fitted:",
        "",
        *shown([["photographs", *sizes], *_quantities(predictions, assumed)]),
        "",
        "Processor time by step, one core (– : not measured):",
        "",
        *shown([["step", *sizes], *_times(predictions)]),
        "",
        "The largest measured evaluation as the smaller ones predict it:",
        "",
        *shown([["quantity", "predicted", "measured", "error"], *_errors(points)]),
        "",
        f"What ends, and where, with {size(assumed.memory)} of memory per worker:",
        "",
        *shown([["limit", "from", "photographs", *sizes, "then"], *_limit_rows(found, predictions)]),
        "",
        *(_advice(found, prediction, fitted, assumed) for prediction in predictions),
        "",
        *_assumed(fitted, assumed),
    ]


def _measured_on(points: Mapping[str, Any]) -> list[str]:
    machines = points["machines"]
    last = machines["evaluations"]
    moments = [f"{part} {m['when']} (load {m['load_before']} to {m['load_after']})" for part, m in machines.items()]
    return [
        f"Measured on {last['processor']}, {last['cores']} cores, {last['threads']} thread: {', '.join(moments)}.",
        f"Evaluations of {', '.join(str(3 * point['pictures']) for point in points['evaluations'])} pictures. "
        f"Photographs: {points['pictures']}.",
    ]


def _quantities(predictions: Sequence[Prediction], assumed: Assumptions) -> Table:
    def row(name: str, value: Callable[[Prediction], str]) -> list[str]:
        return [name, *(value(prediction) for prediction in predictions)]

    def requests(verb: str) -> Callable[[Prediction], str]:
        return lambda p: f"{p.requests[verb]:,}"

    def warm(p: Prediction) -> str:
        counts = total_requests(p.works, warm=True)
        return ", ".join(f"{counts[verb]:,} {verb}" for verb in ("GET", "HEAD", "LIST"))

    def sweep(p: Prediction) -> str:
        counts = sweep_requests(p.works, 0)
        return f"{counts['LIST']:,} LIST, {counts['GET']:,} GET"

    left_out = "" if GPU_PARTS["generate/diffusion"] in assumed.gpu_rates else " without text-to-image"
    workers = "1 worker" if assumed.workers == 1 else f"{assumed.workers} workers"
    workers += " and one GPU" if assumed.gpu_rates else ""
    table = [
        row("shard size", lambda p: f"{p.experiment.shard_size:,}"),
        row("task runs of one flow run", lambda p: f"{p.tasks:,}"),
        row("task runs of all flow runs on pools, by the code", lambda p: f"{p.tasks_on_pools:,}"),
        row("rows in Prefect's database, at least", lambda p: f"{p.database_rows:,.0f}"),
        row("objects", lambda p: f"{sum(work.objects for work in p.works):,}"),
        row("bytes stored", lambda p: size(p.stored)),
        row("bytes read", lambda p: size(p.read)),
        row("PUT, uploads in parts counted", requests("PUT")),
        row("GET", requests("GET")),
        row("HEAD", requests("HEAD")),
        row("LIST", requests("LIST")),
        row("a run that finds everything", warm),
        row("a sweep that finds nothing", sweep),
        row(f"processor time{left_out}", lambda p: duration(p.processor_seconds)),
        row(f"wall time{left_out}, {workers}", lambda p: duration(p.wall(assumed.workers))),
    ]
    if assumed.gpu_rates:
        parts = ", ".join(sorted(assumed.gpu_rates))
        table.append(row(f"GPU time ({parts}), at the rates given", lambda p: duration(p.gpu_seconds or 0.0)))
        if assumed.gpu_hour_price is not None:
            price = assumed.gpu_hour_price
            table.append(
                row(f"GPU dollars at {price:g} an hour", lambda p: f"{(p.gpu_seconds or 0.0) / 3600 * price:,.2f}")
            )
    return table


def _times(predictions: Sequence[Prediction]) -> Table:
    def shown(step: StepCost) -> str:
        on_gpu = "" if step.gpu is None else f" ({duration(step.gpu)} on a GPU)"
        return ("–" if step.cpu is None else duration(step.cpu)) + on_gpu

    steps = zip(*(prediction.steps for prediction in predictions), strict=True)
    rows = [[of_step[0].work.step, *(shown(step) for step in of_step)] for of_step in steps if of_step[0].work.tasks]
    return [*rows, ["orchestration", *(duration(prediction.orchestration) for prediction in predictions)]]


def _errors(points: Mapping[str, Any]) -> Table:
    return [
        [name, _number(predicted), _number(measured), f"{predicted / measured - 1:+.1%}" if measured else ""]
        for name, (predicted, measured) in holdout(points).items()
        if "seconds, " not in name or name.endswith("all steps")
    ]


def _limit_rows(found: Sequence[Limit], predictions: Sequence[Prediction]) -> Table:
    rows = []
    for limit in sorted(found, key=lambda limit: reached_at(limit) or 10**13):
        reached = reached_at(limit)
        shares = [limit.value(prediction.photographs) / limit.bound for prediction in predictions]
        rows.append(
            [
                limit.name,
                limit.source,
                "never" if reached is None else _number(reached),
                *map(_share, shares),
                limit.remedy,
            ]
        )
    return rows


def _share(share: float) -> str:
    return f"{share:.0%}" if share <= 1 else f"**{share:,.1f} x**"


def _advice(found: Sequence[Limit], prediction: Prediction, fitted: Fitted, assumed: Assumptions) -> str:
    """What is exceeded first at this size, and the shards that one flow run can take."""
    count = prediction.photographs
    exceeded = [limit for limit in found if limit.value(count) > limit.bound]
    words = f"* {count:,}: "
    if exceeded:
        first = min(exceeded, key=lambda limit: reached_at(limit) or 10**13)
        words += f"first exceeded is {first.name}. "
    else:
        words += "nothing is exceeded. "
    least = shard_size_for(count)
    weight = least * (assumed.photograph_bytes or fitted.photograph_bytes)
    words += f"{TASKS_PER_FLOW_RUN} task runs take shards of {least:,} photographs ({size(weight)})"
    if weight > SHARD_BYTES:
        largest = int(SHARD_BYTES / (assumed.photograph_bytes or fitted.photograph_bytes))
        part = largest_part(largest)
        runs = -(-count // part)
        words += (
            f", more than the {size(SHARD_BYTES)} that a task should hold: {runs:,} experiments of {part:,} "
            f"photographs each, in shards of {largest:,}"
        )
    runs_of = tasks_by_flow_run(prediction.works, len(prediction.experiment.cells))
    most = max((tasks, name) for name, tasks in runs_of.items() if name != "evaluate/all")
    return f"{words}. On pools the largest child is {most[1]} with {most[0]:,} task runs."


def _assumed(fitted: Fitted, assumed: Assumptions) -> list[str]:
    photograph = assumed.photograph_bytes or fitted.photograph_bytes
    fake = assumed.diffusion_bytes or fitted.png_bytes
    lines = [
        "Assumed, not measured:",
        f"* a photograph has {size(photograph)} (the mean of the points' pictures unless given), a text-to-image "
        f"picture {size(fake)} (photographs of 768 pixels as PNG stand in unless given);",
        "* time grows linearly beyond the points, that of a head as a power of its rows up to 10,000, where rows are "
        "sampled; score and evaluate-cell were measured on 512 features and a few hundred pictures;",
        f"* GPU rates are parameters; on paper an H100 allows {_paper()} pictures/s (`benchmarks/gpu.py --paper`; "
        "sd768 with 8 steps of sampling, where the preset has 25; of vgg16 pictures in one view). A step on a GPU "
        "takes its pictures over that rate, as if decoding kept up; tasks on pools were not counted in a run.",
    ]
    if not assumed.gpu_rates:
        lines.append("* No rates were given: text-to-image generation is in no time and no price above.")
    return lines


def _paper() -> str:
    return ", ".join(f"{part} {rate:,g}" for part, rate in PAPER_LIMITS.items())


def size(count: float) -> str:
    """Bytes with three digits: `812 MB`, `4.92 TB`."""
    for unit, scale in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 1000 * scale else f"{count / scale:,.0f} {unit}"
    return f"{count / 1e3:.3g} kB"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would take."""
    for unit, scale in (("years", 31_557_600.0), ("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 1000 * scale else f"{seconds / scale:,.0f} {unit}"
    return f"{seconds:.3g} s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def _markdown(table: Table) -> list[str]:
    head, *rows = table
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _plain(table: Table) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(cell.replace("**", "").ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


if __name__ == "__main__":
    main()
