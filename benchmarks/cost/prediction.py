"""What an evaluation of any size would take: the formulas of `cost_model`, and constants fitted to measured points."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cost.model import (
    FLOW,
    REF_BYTES,
    Line,
    Work,
    evaluation_work,
    fit_line,
    fit_power,
    fitted_rows,
    of_step,
    s3_puts,
    tasks_by_flow_run,
    total_requests,
    total_tasks,
)
from tasks.presets import load_unfilled, parse_experiment
from tasks.spec import Experiment, GanSource

POINTS = Path(__file__).with_name("points.json")
SIZES = (5_000, 118_000, 100_000_000)
# Parts of benchmarks/gpu.py that a step's rate comes from, and pictures per second that the arithmetic of an H100
# allows (`python benchmarks/gpu.py --paper`): sd768 with 8 steps of sampling.
GPU_PARTS = {"generate/diffusion": "sd768", "embed/vgg16": "vgg16", "train-gan": "dcgan"}
PAPER_LIMITS = {"sd768": 24.6, "vgg16": 32_000.0, "dcgan": 398_000.0}
CONTROL_REPEATS, CANDIDATES = 20, 6
# Two parts of these are read together: weights and card, rows and curves.
_READ_IN_TWO = ("weights/vgg16", "train/svm", "gan-pictures", "train-gan", "evaluate-cell")


@dataclass(frozen=True)
class Assumptions:
    """What nobody measured here, or what is somebody's choice; None leaves out what hangs on it."""

    workers: int = 1
    gpu_hour_price: float | None = None
    gpu_rates: Mapping[str, float] = field(default_factory=dict)
    memory: float = 64e9
    shard_size: int | None = None
    photograph_bytes: float | None = None
    diffusion_bytes: float | None = None


@dataclass(frozen=True)
class Fitted:
    """Constants of the machine of the points: what an object and a row of every step cost."""

    bytes: Mapping[str, Line]
    seconds: Mapping[str, Line]
    database: Line
    orchestration: float
    photograph_bytes: float
    other_bytes: Line
    embed: Line | None = None
    train: Callable[[float], float] | None = None
    assign: Line | None = None
    assign_memory: float = 0.0
    table_seconds: Mapping[str, float] = field(default_factory=dict)
    png_bytes: float = 0.0


@dataclass(frozen=True)
class StepCost:
    """One step of a predicted evaluation. `cpu` is None where only a GPU makes sense and nothing was measured."""

    work: Work
    bytes: float
    cpu: float | None
    gpu: float | None


@dataclass(frozen=True)
class Prediction:
    """A whole evaluation: totals are sums over its steps."""

    photographs: int
    experiment: Experiment
    steps: tuple[StepCost, ...]
    stored: float
    read: float
    puts_on_s3: int
    orchestration: float
    database_rows: float

    @property
    def works(self) -> tuple[Work, ...]:
        return tuple(step.work for step in self.steps)

    @property
    def requests(self) -> Counter[str]:
        """Requests of a cold run, uploads in parts included."""
        return total_requests(self.works) + Counter(PUT=self.puts_on_s3 - total_requests(self.works)["PUT"])

    @property
    def tasks(self) -> int:
        return total_tasks(self.works)

    @property
    def tasks_on_pools(self) -> int:
        """Task runs of all flow runs together."""
        cells = len(self.experiment.cells)
        runs = tasks_by_flow_run(self.works, cells)
        return sum(tasks * (cells if "each of" in name else 1) for name, tasks in runs.items())

    @property
    def processor_seconds(self) -> float:
        """Of one core, for all that no GPU does; text-to-image generation is in neither where it has no rate."""
        return sum(step.cpu or 0.0 for step in self.steps if step.gpu is None) + self.orchestration

    def wall(self, workers: int) -> float:
        """Seconds with so many workers of one core, over which a step's tasks are spread, and one GPU."""
        spread = sum(
            (step.cpu or 0.0) / min(workers, max(1, step.work.tasks)) for step in self.steps if step.gpu is None
        )
        return spread + self.orchestration + (self.gpu_seconds or 0.0)

    @property
    def gpu_seconds(self) -> float | None:
        """None where no rate is known."""
        known = [step.gpu for step in self.steps if step.gpu is not None]
        return sum(known) if known else None


def read_points(path: Path = POINTS) -> dict[str, Any]:
    """The measured points: `benchmarks.cost.measure.measure_all` wrote them."""
    points: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return points


def points_as_text(points: Mapping[str, Any]) -> str:
    """The points as JSON with a line for each."""
    shown = {
        name: "[\n" + ",\n".join(json.dumps(point) for point in value) + "\n]"
        if isinstance(value, list)
        else json.dumps(value)
        for name, value in points.items()
    }
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {value}" for name, value in shown.items()) + "\n}\n"


def preset(photographs: int, shard_size: int | None = None) -> Experiment:
    """The preset `coco` for so many photographs, with as many pictures of each generator: the grid, no networks."""
    grid = _preset_grid()
    sources = [
        source.model_copy(update={"count": photographs}) if isinstance(source, GanSource) else source
        for source in grid.sources
    ]
    return grid.model_copy(update={"sources": tuple(sources), "shard_size": shard_size or grid.shard_size})


@functools.cache
def _preset_grid() -> Experiment:
    experiment, _ = load_unfilled("coco", {"mobile": None, "seed_protocol": None})
    return experiment


def measured_work(point: Mapping[str, Any]) -> tuple[Work, ...]:
    """The work of a measured evaluation."""
    return evaluation_work(parse_experiment(point["experiment"]), point["pictures"])


def known_bytes(work: Work, photograph_bytes: float) -> float:
    """What follows from shapes and inputs: numbers, names of inputs in manifests, original bytes of photographs."""
    return work.values + REF_BYTES * work.refs + (photograph_bytes if work.step == "shard" else 0.0)


def fit(points: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]] | None = None) -> Fitted:
    """Fit everything; `evaluations` in place of the points' own leave some out, for a check on these."""
    evaluations = points["evaluations"] if evaluations is None else evaluations
    works = [(measured_work(point), point) for point in evaluations]
    in_bytes: dict[str, Line] = {}
    in_seconds: dict[str, Line] = {}
    for step in (work.step for work in works[0][0] if work.step != FLOW):
        sized, timed = [], []
        for work, point in ((work, point) for all_work, point in works for work in all_work if work.step == step):
            size = of_step(point["steps"], step)["bytes"] - known_bytes(work, point["photograph_bytes"])
            sized.append((*work.sized_by, size))
            took = of_step(point["cold"]["step_processor_s"], step)
            timed.append((work.objects, work.rows, took))
        in_bytes[step], in_seconds[step] = fit_line(sized), fit_line(timed)
    # Of runs that find everything: in others long tasks tell of their progress as well.
    ran = [(1, total_tasks(work, warm=True), sum(point["warm"]["database_rows"].values())) for work, point in works]
    spare = [point["cold"]["processor_s"] - sum(point["cold"]["step_processor_s"].values()) for _, point in works]
    others = [(1, point["pictures"], sum(point["other_bytes"].values())) for _, point in works]
    slopes = _table_slopes(points["tables"]) if "tables" in points else {}
    assign = points.get("assign", ())
    return Fitted(
        bytes=in_bytes,
        seconds=in_seconds,
        database=fit_line(ran),
        orchestration=sum(spare) / sum(total_tasks(work) for work, _ in works),
        photograph_bytes=sum(p["photograph_bytes"] for _, p in works) / sum(p["pictures"] for _, p in works),
        other_bytes=fit_line(others),
        embed=fit_line([(1, p["pictures"] * p["views"], p["seconds"]) for p in points["embed"]])
        if "embed" in points
        else None,
        train=fit_power([(p["rows"], p["seconds"]) for p in points["train"]]) if "train" in points else None,
        assign=fit_line([(1, p["pictures"], p["seconds"]) for p in assign]) if assign else None,
        assign_memory=fit_line([(1, p["pictures"], p["memory"]) for p in assign]).per_row if assign else 0.0,
        table_seconds=slopes,
        png_bytes=points.get("png_768_bytes", 0.0),
    )


def _table_slopes(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds per task and row of the tables that every task of a step reads as a whole."""
    small, large = tables[0], tables[-1]
    rows = large["rows"] - small["rows"]
    keys = {"scan": "scan_s", "shard": "shard_s", "generate/gan": "place_s"}
    return {step: max(0.0, large[key] - small[key]) / rows for step, key in keys.items()}


def predict(experiment: Experiment, photographs: int, fitted: Fitted, assumed: Assumptions) -> Prediction:
    """An evaluation of so many photographs, with as many pictures by each generator."""
    works = evaluation_work(experiment, photographs)
    photograph = assumed.photograph_bytes or fitted.photograph_bytes
    steps, stored_by = [], {}
    for work in works:
        size = _bytes(work, photographs, photograph, fitted, assumed)
        stored_by[work.step] = size
        rate = assumed.gpu_rates.get(GPU_PARTS.get(work.step, ""))
        steps.append(
            StepCost(
                work, size, _seconds(work, experiment, photographs, fitted), None if rate is None else work.rows / rate
            )
        )
    mean = {work.step: stored_by[work.step] / work.objects for work in works if work.objects}
    read = _bytes_read(works, mean)
    puts = total_requests(works)["PUT"]
    puts += sum((s3_puts(mean[work.step]) - 1) * work.objects for work in works if work.objects)
    tasks = total_tasks(works)
    return Prediction(
        photographs=photographs,
        experiment=experiment,
        steps=tuple(steps),
        stored=sum(stored_by.values()) + fitted.other_bytes.of(1, photographs),
        read=read,
        puts_on_s3=puts,
        orchestration=fitted.orchestration * tasks,
        database_rows=fitted.database.of(1, tasks),
    )


def _bytes_read(works: Sequence[Work], mean: Mapping[str, float]) -> float:
    """Bytes of all parts that are read, by the mean size of each step's objects."""
    # Of a GAN its generator and the card, not the sheets.
    sizes = {**mean, **{work.step: work.values for work in works if work.sheets}}
    return sum(
        count * sizes[step] / (2 if step in _READ_IN_TWO else 1) for work in works for step, count in work.reads.items()
    )


def _bytes(work: Work, photographs: int, photograph: float, fitted: Fitted, assumed: Assumptions) -> float:
    if work.step == FLOW:
        return 0.0
    line = fitted.bytes[work.step]
    if work.step == "generate/diffusion":
        # The tiny model's pictures are smaller: those of the preset weigh what photographs of their side do as PNG.
        overhead = fitted.bytes["shard"]
        picture = assumed.diffusion_bytes or fitted.png_bytes
        return overhead.of(work.objects, work.rows) + picture * work.rows + known_bytes(work, 0.0)
    return line.of(*work.sized_by) + known_bytes(work, photograph * photographs)


def _seconds(work: Work, experiment: Experiment, photographs: int, fitted: Fitted) -> float | None:
    """Processor seconds of a step on the points' machine, with the preset's sizes; None where none were measured."""
    if work.step == FLOW:
        return 0.0
    if work.step == "generate/diffusion":
        return None
    if work.step == "assign" and fitted.assign is not None:
        return fitted.assign.of(1, photographs)
    if work.step == "embed/vgg16" and fitted.embed is not None:
        return fitted.embed.of(work.tasks, work.rows)
    if work.step in ("train/svm", "control/shuffled") and fitted.train is not None:
        rows = fitted_rows(work.rows / max(1, work.objects))
        # The control fits one candidate so many times, where a head has six to choose from.
        fits = CONTROL_REPEATS / CANDIDATES if work.step == "control/shuffled" else work.objects
        return fits * fitted.train(rows)
    tables = fitted.table_seconds.get(work.step, 0.0) * work.tasks * photographs
    return fitted.seconds[work.step].of(work.objects, work.rows) + tables


def holdout(points: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """The largest measured evaluation as the smaller ones predict it: (predicted, measured) by quantity."""
    *smaller, largest = points["evaluations"]
    fitted = fit(points, smaller)
    works = measured_work(largest)
    found: dict[str, tuple[float, float]] = {}
    requests, measured = total_requests(works), Counter[str]()
    for counts in largest["cold"]["requests"].values():
        measured.update(counts)
    for verb in ("GET", "PUT", "HEAD", "LIST", "DELETE"):
        found[f"{verb} requests"] = (requests[verb], measured[verb])
    found["objects"] = (
        sum(work.objects for work in works), sum(step["objects"] for step in largest["steps"].values())
    )  # fmt: skip
    found["task runs"] = (total_tasks(works), largest["cold"]["database_rows"]["task_run"])
    sizes, took = {}, 0.0
    for work in works:
        if work.step == FLOW:
            continue
        sizes[work.step] = fitted.bytes[work.step].of(*work.sized_by)
        sizes[work.step] += known_bytes(work, largest["photograph_bytes"])
        seconds = fitted.seconds[work.step].of(work.objects, work.rows)
        took += seconds
        found[f"processor seconds, {work.step}"] = (seconds, of_step(largest["cold"]["step_processor_s"], work.step))
    mean = {work.step: sizes[work.step] / work.objects for work in works if work.objects}
    read = _bytes_read(works, mean)
    stored = sum(sizes.values()) + fitted.other_bytes.of(1, largest["pictures"])
    really = sum(step["bytes"] for step in largest["steps"].values()) + sum(largest["other_bytes"].values())
    found["bytes stored"] = (stored, really)
    found["bytes read"] = (read, measured["read_bytes"])
    in_database = fitted.database.of(1, total_tasks(works, warm=True))
    found["rows in Prefect's database, nothing to compute"] = (
        in_database, sum(largest["warm"]["database_rows"].values())
    )  # fmt: skip
    found["processor seconds, all steps"] = (took, sum(largest["cold"]["step_processor_s"].values()))
    return found
