"""From directories to image shards: index, scan, duplicates and splits, shards."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.collect import collect
from flows.stages import stage
from storage.objects import Ref, notes_of
from storage.opening import open_store
from tasks.data.grouping import assign_groups, assignment_warnings, warnings_on
from tasks.data.overlap import overlap, refuse_shared_files
from tasks.data.shards import read_tables, scan_pictures, shard_images
from tasks.data.sources.base import Deployment, DiskSource, Indexed
from tasks.spec.experiment import Experiment
from tasks.spec.views import Canonical

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """Finished image shards per source, and the canonical form that the photographs' qualities give.

    `assignment` holds groups and splits of all sources on disk but the unseen ones, which have their own.
    """

    shards: dict[str, tuple[Ref, ...]]
    indexed: dict[str, tuple[Ref, ...]]  # what was read on the way: entries, then scans
    assignment: Ref
    canonical: Canonical
    unseen_assignment: Ref | None = None


@dataclass(frozen=True)
class Scanned:
    """A source, its entries and the scans of its chunks."""

    source: DiskSource
    indexed: Indexed
    scans: tuple[Ref, ...]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def read(self) -> tuple[Ref, ...]:
        """What was read on the way: entries, then scans."""
        return (self.indexed.entries, *self.scans)


@dataclass(frozen=True)
class Scans:
    """Every source that lies on disk as it was read, and the groups and splits of its pictures.

    Those of `unseen` sources are assigned apart, so that another unknown generator to reject changes nothing of what
    the detectors are trained and tested on.
    """

    seen: tuple[Scanned, ...]
    unseen: tuple[Scanned, ...]
    assignment: Ref
    unseen_assignment: Ref | None

    def assignment_of(self, item: Scanned) -> Ref:
        """The object that says where a source's pictures belong."""
        if item in self.unseen:
            assert self.unseen_assignment is not None
            return self.unseen_assignment
        return self.assignment


def scanned_sources(experiment: Experiment) -> Scans:
    """Index and scan the sources that lie on disk, find duplicates, and assign groups and splits."""
    indexed = [(source, source.index()) for source in experiment.sources if isinstance(source, DiskSource)]
    for _, found in indexed:
        for warning in notes_of(open_store(), found.entries).get("warnings", ()):
            logger.warning("%s", warning)
    if not experiment.allow_overlap:
        roles = ["unseen" if source.name in experiment.unseen_names else source.label for source, _ in indexed]
        entries = [found.entries for _, found in indexed]
        refuse_shared_files(open_store(), list(zip(roles, entries, strict=True)))
    size = experiment.shard_size
    scans = [
        [
            scan_pictures.submit(entries=found.entries, source=source.name, start=start, count=size, root=found.root)
            for start in range(0, found.entries.rows, size)
        ]
        for source, found in indexed
    ]
    scanned = [Scanned(*item, tuple(collect(futures))) for item, futures in zip(indexed, scans, strict=True)]
    unseen = tuple(item for item in scanned if item.name in experiment.unseen_names)
    seen = tuple(item for item in scanned if item not in unseen)
    assignment = _assignment(experiment, seen)
    return Scans(seen, unseen, assignment, _assignment(experiment, unseen, beside=seen) if unseen else None)


def tables_read(experiment: Experiment, scans: Scans) -> dict[str, tuple[Ref, ...]]:
    """What quantisation tables the JPEGs of evaluated sources have, by source; nothing where no history is matched."""
    reading = {
        item.name: [read_tables.submit(**chunk) for chunk in _scanned_chunks(item, experiment.shard_size)]
        for item in scans.seen
        if experiment.matches_history and item.source.evaluated
    }
    return {name: tuple(collect(futures)) for name, futures in reading.items()}


def image_shards(experiment: Experiment, made_by: Deployment | None = None) -> Images:
    """Image shards of the sources that lie on disk; with `made_by` only those of that deployment are written."""
    scans = scanned_sources(experiment)
    futures = {
        item.name: [
            shard_images.submit(**chunk, assignment=scans.assignment_of(item), label=item.source.label)
            for chunk in _scanned_chunks(item, experiment.shard_size)
        ]
        for item in _in_order(experiment, scans)
        if made_by in (None, item.source.made_by)
    }
    shards = {name: tuple(collect(waiting)) for name, waiting in futures.items()}
    qualities = notes_of(open_store(), scans.assignment)["qualities"]
    canonical = Canonical(
        side=experiment.canonical_side,
        qualities=tuple((q, n) for q, n in qualities),
        kernel=experiment.canonical_kernel,
    )
    read = {item.name: item.read for item in _in_order(experiment, scans)}
    return Images(shards, read, scans.assignment, canonical, scans.unseen_assignment)


def _in_order(experiment: Experiment, scans: Scans) -> list[Scanned]:
    """All sources that were read, as the experiment lists them."""
    by_name = {item.name: item for item in (*scans.seen, *scans.unseen)}
    return [by_name[source.name] for source in experiment.sources if source.name in by_name]


def _scanned_chunks(item: Scanned, size: int) -> Iterator[dict[str, Any]]:
    """Every scanned chunk of a source, as the arguments of a step that reads its files again."""
    for index, scan in enumerate(item.scans):
        place = {"source": item.name, "start": index * size, "count": size, "root": item.indexed.root}
        yield {"entries": item.indexed.entries, "scan": scan, **place}


def _assignment(experiment: Experiment, scanned: Sequence[Scanned], beside: Sequence[Scanned] = ()) -> Ref:
    sources = [item.source for item in scanned]
    assignment: Ref = assign_groups(
        entries=tuple(item.indexed.entries for item in scanned),
        scans=tuple(item.scans for item in scanned),
        sources=tuple(source.name for source in sources),
        labels=tuple(source.label for source in sources),
        evaluated=tuple(source.evaluated for source in sources),
        splits=experiment.splits,
        seed=experiment.seed,
        beside=tuple(item.scans for item in beside),
    )
    notes = notes_of(open_store(), assignment)
    if notes["shared"]["count"] and not experiment.allow_overlap:
        raise overlap(notes["shared"]["count"], notes["shared"]["first"])
    if not beside:
        for warning in warnings_on(experiment.path, assignment_warnings(notes)):
            logger.warning("%s", warning)
    return assignment


shard_coco = stage(
    "shard",
    "shard",
    "Write image shards of an experiment's COCO photographs: original bytes, captions, splits, duplicates merged.",
    lambda spec: image_shards(spec, made_by="shard/coco"),
    pools=("cpu",),
)


shard_folder = stage(
    "shard",
    "shard folders of",
    "Write image shards of an experiment's folders and Parquet files of images, with one or several in a row.",
    lambda spec: image_shards(spec, made_by="shard/folder"),
    pools=("cpu",),
    preset="subset",
)
