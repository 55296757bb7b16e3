"""What ends as evaluations grow, at how many photographs, and what to do then."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cost.model import evaluation_work, total_tasks
from benchmarks.cost.prediction import Assumptions, Fitted, preset
from tasks.data.entries import MAX_DOCUMENT_BYTES
from tasks.detectors.vgg16 import DIMENSIONS
from tasks.spec import FixedSplits

TASKS_PER_FLOW_RUN = 500
# COCO's own file has 0.45 GB for 118,287 photographs.
ANNOTATION_BYTES = 0.45e9 / 118_287
# What a task may well hold of one shard.
SHARD_BYTES = 2e9


@dataclass(frozen=True)
class Limit:
    """Something that ends: `value(photographs)` grows, and must stay within `bound`."""

    name: str
    value: Callable[[int], float]
    bound: float
    source: str  # exact, measured, or from the code
    remedy: str


@functools.cache
def reached_at(limit: Limit) -> int | None:
    """The smallest number of photographs beyond a limit's bound; None beyond a trillion."""
    low, high = 0, 1
    while limit.value(high) <= limit.bound:
        low, high = high, 2 * high
        if high > 10**12:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if limit.value(middle) <= limit.bound else (low, middle)
    return high


def limits(fitted: Fitted, assumed: Assumptions) -> tuple[Limit, ...]:
    """What ends as evaluations grow, each with its remedy."""
    sample = preset(1_000, assumed.shard_size)
    splits = sample.splits
    assert isinstance(splits, FixedSplits)
    row = 4.0 * DIMENSIONS[sample.extractor.layer]
    sources, views = len(sample.sources), len(sample.augmented_qualities)
    tables = sum(fitted.table_seconds.values()) / sample.shard_size
    own = sum(fitted.seconds[step].per_row for step in ("scan", "shard", "generate/gan"))
    return (
        Limit(
            "task runs of one flow run (evaluate/all)",
            lambda n: total_tasks(evaluation_work(preset(n, assumed.shard_size), n)),
            TASKS_PER_FLOW_RUN,
            "exact",
            "larger shards, then an experiment per part of the source",
        ),
        Limit(
            "memory of train/svm for svm-aug: the features of four views of all sources",
            lambda n: row * views * sources * n,
            assumed.memory,
            "from shapes",
            "read the train and val rows of the sample only, a shard at a time",
        ),
        Limit(
            "memory of score: the features of one view of all sources",
            lambda n: row * sources * n,
            assumed.memory,
            "from shapes",
            "score shard by shard: a row's score depends on nothing beside it",
        ),
        Limit(
            "memory of gan-pictures: the training pictures as one array",
            lambda n: 3 * 64 * 64 * splits.train * n,
            assumed.memory,
            "from shapes",
            "train the GAN on a limited source",
        ),
        Limit(
            "memory of assign",
            lambda n: fitted.assign_memory * n,
            assumed.memory,
            "measured, in proportion",
            "the row `assign` of `make bench` is its measure",
        ),
        Limit(
            "one annotation file of COCO's layout",
            lambda n: ANNOTATION_BYTES * n,
            MAX_DOCUMENT_BYTES,
            "from the code",
            "Parquet files of at most 5 million rows, as sources of their own",
        ),
        Limit(
            "tables of all pictures, which each shard's task goes through: longer than its own work",
            lambda n: tables * n / own if own else 0.0,
            1.0,
            "measured, in proportion",
            "larger shards, or entries and assignment as a part per shard",
        ),
    )


def shard_size_for(photographs: int, tasks: int = TASKS_PER_FLOW_RUN) -> int:
    """The smallest shard size that keeps one flow run within so many task runs."""
    low, high = 0, 1
    while total_tasks(evaluation_work(preset(photographs, high), photographs)) > tasks:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = total_tasks(evaluation_work(preset(photographs, middle), photographs)) <= tasks
        low, high = (low, middle) if fits else (middle, high)
    return high


def largest_part(shard_size: int) -> int:
    """Photographs of one flow run within the limit of task runs, whole shards of such a size."""
    shards = 1
    while True:
        more = (shards + 1) * shard_size
        if total_tasks(evaluation_work(preset(more, shard_size), more)) > TASKS_PER_FLOW_RUN:
            return shards * shard_size
        shards += 1
