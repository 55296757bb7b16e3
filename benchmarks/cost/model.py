"""What an evaluation asks of its store, its workers and Prefect, as formulas in its sources, shards, views and heads.

Tasks, objects and requests follow from the code and are exact: `evaluation_work` counts them for any number of
photographs, and a run that counts its requests has to agree to the last one. Seconds and bytes are fitted to measured
points (`benchmarks.cost.points`), linear in objects and rows unless a function below says otherwise.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from storage.s3 import PART_BYTES
from tasks.detectors.probe import DIMENSION as PROBE_DIMENSION
from tasks.detectors.svm import MAX_TRAIN_ROWS
from tasks.detectors.vgg16 import DIMENSIONS
from tasks.evaluation.protocols import cell_heads, needed_features
from tasks.spec import DiffusionSource, Experiment, ExtractorSpec, FixedSplits, GanSource, GanSpec, Vgg16Spec

FLOW = "(flow)"
# What is measured, in this order: single steps by themselves, then whole evaluations.
PARTS = ("train", "assign", "tables", "embed", "evaluations")
# `{"ref":"<64 digits>"},`: what each input adds to a manifest, which holds the recipe.
REF_BYTES = 75
LIST_PAGE = 1_000
# HTML, Markdown, and twelve tables as Parquet and CSV.
REPORT_PARTS = 2 + 2 * 12
# Of one S3 server and process: it is asked whether it honours If-None-Match.
S3_PROBE = Counter(PUT=2, DELETE=1)
GAN_SIDE = 64
VGG16_PARAMETERS = {"pool5-avg": 14_714_688, "fc6": 117_479_232, "fc7": 134_260_544}


@dataclass(frozen=True)
class Work:
    """All tasks of one step together.

    `reads` are parts read, by the step that made them; each takes a manifest and a part. `manifests` are manifests read
    for their notes alone. `more` are requests that are neither: checkpoints, pieces, the run's own files. `rows` is
    what bytes and seconds grow with, `refs` how many inputs the manifests name, `values` the bytes of numbers whose
    size is known from their shape. Where bytes grow with something else than time, it is `sheets`.
    """

    step: str
    tasks: int
    objects: int
    parts: int = 1
    rows: float = 0.0
    refs: int = 0
    values: float = 0.0
    sheets: int = 0
    reads: Mapping[str, int] = field(default_factory=dict)
    manifests: int = 0
    more: Mapping[str, int] = field(default_factory=dict)
    warm: Mapping[str, int] | None = None

    @property
    def sized_by(self) -> tuple[float, float]:
        """Objects and rows that its bytes are a line of, beyond what is known."""
        return (0, self.sheets) if self.sheets else (self.objects, self.rows)

    def requests(self) -> Counter[str]:
        """Requests of a run that makes everything: look-up, inputs, parts and manifest, and whether the parts stand."""
        counts = Counter(
            GET=self.objects + 2 * sum(self.reads.values()) + self.manifests,
            HEAD=2 * self.parts * self.objects,
            PUT=(self.parts + 1) * self.objects,
        )
        return +(counts + Counter(self.more))

    def warm_requests(self) -> Counter[str]:
        """Requests of a run that finds everything: a manifest and the sizes of its parts. Nothing is listed."""
        if self.warm is not None:
            return +Counter(self.warm)
        return +Counter(GET=self.objects, HEAD=self.parts * self.objects)


def evaluation_work(experiment: Experiment, photographs: int, stored_weights: bool = True) -> tuple[Work, ...]:
    """The work of a whole evaluation: one source of photographs on disk, a GAN, a text-to-image source.

    `stored_weights` says whether VGG16's weights are an object, as all but random ones are.

    Raises:
        ValueError: the experiment has networks, a seed protocol, folds or other sources, which are not counted here.
    """
    gans = [source for source in experiment.sources if isinstance(source, GanSource)]
    diffusions = [source for source in experiment.sources if isinstance(source, DiffusionSource)]
    splits = experiment.splits
    if (
        experiment.mobile is not None
        or experiment.seed_protocol is not None
        or experiment.inception is not None
        or not isinstance(splits, FixedSplits)
        or (len(gans), len(diffusions), len(experiment.sources)) != (1, 1, 3)
    ):
        raise ValueError("expected fixed splits, a source on disk, a GAN and a text-to-image source, and no networks")
    (gan,), (diffusion,), (real,) = gans, diffusions, experiment.real_names
    size, extractor = experiment.shard_size, experiment.extractor
    pictures = {real: photographs, gan.name: gan.count, diffusion.name: photographs}
    shards = {name: math.ceil(count / size) for name, count in pictures.items()}
    made_by = {real: "shard", gan.name: "generate/gan", diffusion.name: "generate/diffusion"}
    S, G, all_shards, total = shards[real], shards[gan.name], sum(shards.values()), sum(pictures.values())
    tested = total * (1 - splits.train)
    trained = photographs * splits.train

    sheets = (gan.gan.epochs - 1) // gan.gan.sheet_every
    works = [
        Work("index", 1, 1, 2, photographs),
        Work("scan", S, S, 2, photographs, refs=S, reads={"index": S}),
        Work("assign", 1, 1, 1, photographs, refs=1 + S, reads={"index": 1, "scan": S}),
        Work("shard", S, S, 2, photographs, refs=3 * S, reads={"index": S, "scan": S, "assign": S}),
        Work(
            "gan-pictures", 1, 1, 2, trained, refs=S, values=3 * GAN_SIDE**2 * trained, reads={"shard": S}, warm={}
        ),
        Work(
            "train-gan", 1, 1, 6 + sheets, trained * gan.gan.epochs, refs=S, values=4.0 * _generator_numbers(gan.gan),
            sheets=1 + sheets, reads={"gan-pictures": 2},
            # A checkpoint per epoch, of which two are kept, and the sheets, which are read at the end.
            more={
                "PUT": gan.gan.epochs + sheets, "GET": sheets, "LIST": 1 + gan.gan.epochs,
                "DELETE": max(0, gan.gan.epochs - 2),
            },
        ),
        Work("generate/gan", G, G, 1, gan.count, refs=G, reads={"train-gan": 2 * G}),
        # Pieces of an attempt that broke off are looked for at the beginning, and once more at the end.
        Work("generate/diffusion", S, S, 2, photographs, refs=S, reads={"shard": S}, more={"LIST": 2 * S}),
    ]  # fmt: skip
    if stored_weights:
        works.append(Work("weights/vgg16", 1, 1, 2, values=4.0 * VGG16_PARAMETERS[extractor.layer]))
    works += _embedding(experiment, pictures, shards, made_by, stored_weights)

    heads = {head: None for cell in experiment.cells for head in cell_heads(experiment, cell, extractor)}
    numbers = sum(_dimension(head.extractor) for head in heads)
    fitted_on = Counter[str]()
    for head in heads:
        of_sources = sum(shards[name] for name in (*head.real, *head.fakes))
        fitted_on[f"embed/{head.extractor.kind}"] += of_sources * len(head.views)
    works.append(
        Work(
            "train/svm", len(heads), len(heads), 2, total * splits.train * len(heads), refs=sum(fitted_on.values()),
            values=8.0 * numbers, reads=fitted_on,
        )
    )  # fmt: skip
    scored = [head for cell in experiment.cells for head in cell_heads(experiment, cell, extractor)]
    scored_on = Counter({"train/svm": 2 * len(scored)})
    for head in scored:
        scored_on[f"embed/{head.extractor.kind}"] += all_shards
    cells, features = len(experiment.cells), f"embed/{extractor.kind}"
    fakes = len(experiment.fake_names) * len(experiment.resolutions)
    compared = [(real, name) for name in experiment.fake_names for _ in experiment.resolutions]
    of_quality = sum(shards[name] for pair in compared for name in pair)
    embedded = sum(work.objects for work in works if work.step.startswith("embed/"))
    works += [
        Work(
            "score", len(scored), len(scored), 1, tested * len(scored),
            refs=len(scored) * (1 + all_shards), reads=scored_on,
        ),
        Work(
            "evaluate-cell", cells, cells, 2, (tested - total * splits.val) * len(scored), refs=2 * len(scored),
            reads={"score": 2 * len(scored)},
        ),
        Work("control/shuffled", 1, 1, 1, total * splits.train, refs=all_shards, reads={features: all_shards}),
        Work(
            "quality", fakes, fakes, 1, sum(pictures[name] for pair in compared for name in pair),
            refs=of_quality, reads={features: of_quality},
        ),
        Work("examples", 1, 1, 1, refs=3, reads=dict.fromkeys(made_by.values(), 1)),
        Work(
            "counts", 1, 1, 2, total, refs=1 + S + 2 * all_shards + 1,
            # Every shard's quarantine and notes; the identities in the features of one view.
            reads={"index": 1, "scan": S, "shard": S, "generate/diffusion": S, features: all_shards},
            manifests=1 + (1 + S) + 3 * all_shards,
        ),
        Work(
            "report", 1, 1, REPORT_PARTS, embedded, refs=cells + 1 + fakes + 2 + 1 + S + len(heads) + 1 + embedded,
            reads={"evaluate-cell": 2 * cells, "examples": 1, "quality": fakes, "counts": 2, "train-gan": 3},
            # The durations of all steps are in their manifests.
            manifests=3 + 1 + S + embedded + len(heads) + cells,
        ),
        _of_the_flow(cells, 6 + sheets),
    ]  # fmt: skip
    return tuple(works)


def _generator_numbers(gan: GanSpec) -> int:
    """Numbers of a DCGAN's generator: five convolutions of 4x4, and four numbers per normalised channel."""
    features = [gan.generator_features * factor for factor in (8, 4, 2, 1)]
    widths = [gan.latent, *features, 3]
    return sum(16 * a * b for a, b in itertools.pairwise(widths)) + 4 * sum(features)


def _dimension(extractor: ExtractorSpec) -> int:
    return DIMENSIONS[extractor.layer] if isinstance(extractor, Vgg16Spec) else PROBE_DIMENSION


def _embedding(
    experiment: Experiment,
    pictures: Mapping[str, int],
    shards: Mapping[str, int],
    made_by: Mapping[str, str],
    stored_weights: bool,
) -> Iterable[Work]:
    found: dict[str, list[tuple[str, int]]] = {}
    dimensions: dict[str, int] = {}
    for (source, extractor), views in needed_features(experiment, experiment.extractor).items():
        found.setdefault(extractor.kind, []).append((source, len(views)))
        dimensions[extractor.kind] = _dimension(extractor)
    for kind, wanted in found.items():
        tasks = sum(shards[source] for source, _ in wanted)
        objects = sum(shards[source] * views for source, views in wanted)
        rows = sum(pictures[source] * views for source, views in wanted)
        reads = Counter[str]()
        for source, _ in wanted:
            reads[made_by[source]] += shards[source]
        weighed = stored_weights and kind == "vgg16"
        if weighed:
            reads["weights/vgg16"] = 2  # all tasks of a flow run compute with one network
        yield Work(
            f"embed/{kind}", tasks, objects, 1, rows, refs=objects * (2 if weighed else 1),
            values=4.0 * dimensions[kind] * rows, reads=reads,
        )  # fmt: skip


def _of_the_flow(cells: int, gan_parts: int) -> Work:
    """What the flow itself asks: whether the store can be written, the qualities, the GAN, and the run's own files."""
    shown = 4  # two parts of the report
    cold = {
        "GET": 1 + 1 + 1 + 2 * REPORT_PARTS + (cells + 1) + shown,
        "HEAD": 2,
        "PUT": 1 + REPORT_PARTS + 2,
        "DELETE": 1,
    }
    # A finished run's place is looked up, and it becomes the newest one again.
    warm = {"GET": 1 + 1 + 1 + 1 + shown, "HEAD": gan_parts + 2, "PUT": 2, "DELETE": 1}
    return Work(FLOW, 0, 0, more=cold, warm=warm)


def total_requests(works: Iterable[Work], *, warm: bool = False) -> Counter[str]:
    """Requests of all steps and of the flow, inline: no child looks up again what its parent knows."""
    return sum((work.warm_requests() if warm else work.requests() for work in works), Counter())


def total_tasks(works: Iterable[Work], *, warm: bool = False) -> int:
    """Task runs of one flow run that does everything; a finished GAN needs no array of its pictures."""
    return sum(work.tasks for work in works if not (warm and work.warm is not None))


def keys_of(works: Iterable[Work]) -> int:
    """Keys of finished objects: what a sweep lists."""
    return sum((work.parts + 1) * work.objects for work in works)


def sweep_requests(works: Iterable[Work], other_keys: int) -> Counter[str]:
    """Requests of a sweep that finds no debris: listings by the page, then every manifest.

    `other_keys` are checkpoints and the like, whose age is asked one by one.
    """
    works = tuple(works)
    pages = math.ceil(keys_of(works) / LIST_PAGE) + 2
    return +Counter(LIST=pages, GET=sum(work.objects for work in works), HEAD=other_keys)


def s3_puts(data: float) -> int:
    """Requests that write an object of so many bytes: one, or an upload in parts with its begin and end."""
    return 1 if data <= PART_BYTES else 2 + math.ceil(data / PART_BYTES)


# Which steps a deployment's flow runs as tasks of its own, found or made; `evaluate/all` has all of them.
_PHOTOGRAPHS = ("index", "scan", "assign", "shard")
_GAN = (*_PHOTOGRAPHS, "gan-pictures", "train-gan")
_IMAGES = (*_GAN, "generate/gan", "generate/diffusion")
_FEATURES = (*_IMAGES, "weights/vgg16", "embed/vgg16", "embed/probe")
DEPLOYMENTS: dict[str, tuple[str, ...]] = {
    "shard/coco": _PHOTOGRAPHS,
    "train-gan/coco": _GAN,
    "generate/stable-diffusion": (*_PHOTOGRAPHS, "generate/diffusion"),
    "generate/gan": (*_GAN, "generate/gan"),
    "embed/vgg16": _FEATURES,
    "train/svm": (*_FEATURES, "train/svm"),
}


def tasks_by_flow_run(works: Sequence[Work], cells: int) -> dict[str, int]:
    """Task runs of every flow run on pools: its parent's, its children's, and the largest cell's.

    A child looks up everything before its own stage, and the parent all of it once more.
    """
    tasks = {work.step: work.tasks for work in works}
    found = {"evaluate/all": total_tasks(works)}
    for deployment, steps in DEPLOYMENTS.items():
        found[deployment] = sum(tasks.get(step, 0) for step in steps)
    found[f"evaluate-cell/cpu, each of {cells}"] = math.ceil(tasks["score"] / cells) + 1
    return found


@dataclass(frozen=True)
class Line:
    """`per_object * objects + per_row * rows`, neither below zero."""

    per_object: float
    per_row: float

    def of(self, objects: float, rows: float) -> float:
        return self.per_object * objects + self.per_row * rows


def fit_line(points: Sequence[tuple[float, float, float]]) -> Line:
    """The line through (objects, rows, value) with the smallest sum of squared relative errors."""
    from scipy.optimize import nnls

    kept = [(objects, rows, value) for objects, rows, value in points if value > 0]
    if not kept:
        return Line(0.0, 0.0)
    A = np.array([[objects / value, rows / value] for objects, rows, value in kept])
    scale = np.where(A.max(axis=0) > 0, A.max(axis=0), 1.0)
    (a, b), _ = nnls(A / scale, np.ones(len(kept)))
    return Line(float(a / scale[0]), float(b / scale[1]))


def fit_power(points: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """`factor * x ** exponent` through (x, value), by least squares of the logarithms."""
    x, y = np.log([point[0] for point in points]), np.log([point[1] for point in points])
    exponent, offset = np.polyfit(x, y, 1)
    return lambda value: float(np.exp(offset) * value**exponent)


def fitted_rows(rows: float) -> float:
    """Rows that a head is fitted on: of more, each source gives an equal share."""
    return min(rows, MAX_TRAIN_ROWS)


def works_by_step(works: Iterable[Work]) -> dict[str, Work]:
    """The works by name; the flow's own has no objects."""
    return {work.step: work for work in works}


def of_step(measured: Mapping[str, Any], step: str) -> Any:
    """What was measured of a step, by name: an index is an index, whatever kind of source it is of."""
    return next(
        value for name, value in measured.items() if name == step or (step == "index" and name.startswith("index/"))
    )
