"""From directories to image shards: index, scan, duplicates and splits, shards."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from flows.collect import collect
from flows.preflight import checked_experiment
from flows.runner import tasks_side_by_side
from storage.objects import Ref, notes_of
from storage.store import open_store
from tasks.data.coco import coco_inventory, index_coco
from tasks.data.folder import folder_inventory, index_folder, unlocated
from tasks.data.sample import SPLIT, write_sample_coco
from tasks.data.shards import assign_groups, scan_pictures, shard_images
from tasks.spec import Canonical, CocoSource, Experiment, FolderSource, SampleSource

DiskSource = CocoSource | FolderSource | SampleSource


@dataclass(frozen=True)
class Images:
    """Finished image shards per source, and the canonical form that the photographs' qualities give."""

    shards: dict[str, tuple[Ref, ...]]
    indexed: dict[str, tuple[Ref, ...]]  # what was read on the way: entries, then scans
    assignment: Ref
    canonical: Canonical


@dataclass(frozen=True)
class _Located:
    """A source on this machine's disk: its entries, and the folder that their files are relative to."""

    source: DiskSource
    entries: Ref
    root: str


def image_shards(experiment: Experiment, kinds: Sequence[str] = ("coco", "sample", "folder")) -> Images:
    """Image shards of the sources that lie on disk; only those of the given kinds are written."""
    located = [_index(source) for source in experiment.sources if isinstance(source, DiskSource)]
    size = experiment.shard_size
    scans = [
        [
            scan_pictures.submit(entries=item.entries, source=item.source.name, start=start, count=size, root=item.root)
            for start in range(0, item.entries.rows, size)
        ]
        for item in located
    ]
    scanned = [tuple(collect(futures)) for futures in scans]
    assignment = assign_groups(
        entries=tuple(item.entries for item in located),
        scans=tuple(scanned),
        sources=tuple(item.source.name for item in located),
        labels=tuple(item.source.label for item in located),
        evaluated=tuple(item.source.evaluated for item in located),
        splits=experiment.splits,
        seed=experiment.seed,
    )
    futures = {
        item.source.name: [
            shard_images.submit(
                entries=item.entries,
                scan=scan,
                assignment=assignment,
                source=item.source.name,
                label=item.source.label,
                start=index * size,
                count=size,
                root=item.root,
            )
            for index, scan in enumerate(scans_of)
        ]
        for item, scans_of in zip(located, scanned, strict=True)
        if item.source.kind in kinds
    }
    shards = {name: tuple(collect(waiting)) for name, waiting in futures.items()}
    qualities = notes_of(open_store(), assignment)["qualities"]
    canonical = Canonical(side=experiment.canonical_side, qualities=tuple((q, n) for q, n in qualities))
    indexed = {item.source.name: (item.entries, *scans_of) for item, scans_of in zip(located, scanned, strict=True)}
    return Images(shards, indexed, assignment, canonical)


def _index(source: DiskSource) -> _Located:
    if isinstance(source, FolderSource):
        entries = index_folder(
            source=unlocated(source),
            inventory=folder_inventory(source),
            path=source.path,
            metadata=source.metadata,
        )
        return _Located(source, entries, source.path)
    if isinstance(source, SampleSource):
        directory, split, first = str(_sample_directory(source.crops_per_photograph)), SPLIT, 0
    else:
        directory, split, first = source.directory, source.split, source.first
    entries = index_coco(
        source=source.name,
        inventory=coco_inventory(directory, split),
        split=split,
        first=first,
        limit=source.limit,
        directory=str(Path(directory).absolute()),
    )
    return _Located(source, entries, directory)


def _sample_directory(crops_per_photograph: int) -> Path:
    """The sample's COCO directory in the system's temporary folder; written anew when it is not whole.

    Another process may write it at the same time: each writes a folder of its own, and the first rename wins.
    """
    parent = Path(tempfile.gettempdir()) / f"telltale-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    target = parent / f"sample-{crops_per_photograph}"
    with tempfile.TemporaryDirectory(dir=parent) as fresh:
        write_sample_coco(Path(fresh) / "sample", crops_per_photograph=crops_per_photograph)
        if target.exists() and coco_inventory(str(target), SPLIT) == coco_inventory(f"{fresh}/sample", SPLIT):
            return target
        shutil.rmtree(target, ignore_errors=True)
        with contextlib.suppress(OSError):
            (Path(fresh) / "sample").rename(target)
    return target


@flow(
    name="shard",
    flow_run_name="shard {experiment}",
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def shard_coco(experiment: str = "coco", overrides: dict[str, Any] | None = None, seed: int | None = None) -> None:
    """Write image shards of an experiment's COCO photographs: original bytes, captions, splits, duplicates merged.

    Args:
        experiment: a preset's name or a YAML file.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.
    """
    spec = checked_experiment(experiment, overrides, seed)
    image_shards(spec, kinds=("coco", "sample"))


@flow(
    name="shard",
    flow_run_name="shard folders of {experiment}",
    task_runner=tasks_side_by_side(),
    persist_result=False,
)
def shard_folder(experiment: str = "subset", overrides: dict[str, Any] | None = None, seed: int | None = None) -> None:
    """Write image shards of an experiment's folders and Parquet files of images.

    Args:
        experiment: a preset's name or a YAML file.
        overrides: values put over it, by dotted keys.
        seed: the experiment's seed, if another than the preset's.
    """
    spec = checked_experiment(experiment, overrides, seed)
    image_shards(spec, kinds=("folder",))
