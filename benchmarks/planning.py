"""Planning alone, for synthetic ids: groups, splits, and the recipe of every task that a run would have.

    python -m benchmarks.planning plan|assign COUNT [SHARD_SIZE]     (one measurement in a process of its own)
    python -m benchmarks.planning elements COUNT

`plan` reads no picture and stores nothing. The functions are those that a run calls: `pictures_of`, `merge_groups` and
`place_pictures` of the step `assign`, and the recipes and places by which the steps `scan`, `shard` and `embed` look
their objects up. `assign` is that step itself, over made-up scans of pictures of which no two are near each other.

`elements` plans the preset `coco` over made-up inputs, for as many photographs as make so many elements, and writes the
documents by which lanes are told of them: what the coordinator of a run on pools computes, without store and lanes.

A shard has 1,000 pictures as in the presets, or more, so that each source has at most 500 of them: some hundreds of
tasks are what a flow run takes well. What was planned with is printed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.harness import Breaks, Case
from benchmarks.inputs import CANONICAL, grid
from benchmarks.memory import current_memory, peak_memory
from benchmarks.table import ROOT
from storage.digest import canonical_json
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit
from storage.store import Store
from tasks.data.assignment import SourceFacts, merge_groups, pictures_of, place_pictures
from tasks.data.shards import SCAN_SCHEMA, THUMBNAIL_BYTES, assign_groups, scan_pictures, shard_images
from tasks.features.shards import embed_shard
from tasks.spec.detectors import Vgg16Spec
from tasks.spec.splits import FixedSplits

SMALLEST_SHARD = 1_000
SHARDS_PER_SOURCE = 500
SOURCES = (SourceFacts("photographs", "real", True), SourceFacts("fakes", "fake", True))
# The rest is left to the machine: a plan that does not fit shall end this process, not others.
SHARE_OF_MEMORY = 0.85


@contextmanager
def planning_case(size: int, threads: int) -> Iterator[Case]:
    """So many pictures, half of them photographs: seconds."""

    def ours() -> tuple[float, dict[str, Any]]:
        document = _apart("plan", size)
        return sum(document["seconds"].values()), document

    def in_words(_: None, document: dict[str, Any]) -> str:
        parts = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in document["seconds"].items())
        tasks = f"{document['tasks']:,} tasks for shards of {document['shard_size']:,}"
        return f"{parts}; peak {document['peak'] / 1e9:.3g} GB; {tasks}"

    yield Case(None, ours, in_words)


@contextmanager
def assigning_case(size: int, threads: int) -> Iterator[Case]:
    """The step `assign` over so many pictures: the memory that it takes beyond what was there."""

    def ours() -> tuple[float, dict[str, Any]]:
        document = _apart("assign", size)
        return document["peak"] - document["before"], document

    def in_words(_: None, document: dict[str, Any]) -> str:
        taken = document["peak"] - document["before"]
        return f"{taken / size:,.0f} bytes per picture, {document['seconds']['assign']:.3g} s"

    yield Case(None, ours, in_words)


@contextmanager
def elements_case(size: int, threads: int) -> Iterator[Case]:
    """So many elements of an evaluation: processor seconds, of the one thread that there is."""

    def ours() -> tuple[float, dict[str, Any]]:
        document = _apart("elements", size)
        return document["seconds"]["elements"], document

    def in_words(_: None, document: dict[str, Any]) -> str:
        objects, seconds = document["objects"], document["seconds"]["elements"]
        per_object = f"{seconds / objects * 1e6:.0f} us for each of {objects:,} objects"
        return f"{document['elements']:,} elements, {per_object}; peak {document['peak'] / 1e9:.3g} GB"

    yield Case(None, ours, in_words)


def _apart(what: str, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.planning", what, str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    document: dict[str, Any] = json.loads(lines[-1]) if lines else {"broke": f"status {done.returncode}"}
    if "broke" in document:
        raise Breaks(f"{count:,} pictures: {document['broke']}")
    return document


def shard_size_for(count: int) -> int:
    """Pictures per shard, of so many in both sources."""
    return max(SMALLEST_SHARD, count // len(SOURCES) // SHARDS_PER_SOURCE)


def plan(count: int, shard_size: int) -> dict[str, Any]:
    """Seconds by part, and the number of tasks, of planning so many pictures, half of them photographs."""
    seconds: dict[str, float] = {}
    clock = _Laps(seconds)
    pictures = pictures_of(_listed(source.name, count // 2) for source in SOURCES)
    clock.lap("entries")
    merged = merge_groups(pictures, np.empty((0, 2), dtype=np.int64))
    clock.lap("groups")
    places = place_pictures(pictures, merged, SOURCES, FixedSplits(), 0)
    clock.lap("splits")
    assert len(places) == count
    del pictures, merged, places
    tasks = sum(_recipes(source.name, count // 2, shard_size) for source in SOURCES)
    clock.lap("recipes")
    return {"seconds": seconds, "tasks": tasks, "shard_size": shard_size}


def elements(count: int, shard_size: int) -> dict[str, Any]:
    """Processor seconds, elements and objects of planning about so many elements, and of their documents."""
    from benchmarks.made_up import planned, preset

    # One shard of each of the three sources makes 55 elements of `coco`.
    photographs = shard_size * max(1, count // 55)
    experiment = preset("coco", {"sources.gan.count": photographs, "shard_size": shard_size})
    began = time.process_time()
    found = objects = 0
    for wave in planned(experiment, photographs):
        for element in wave:
            canonical_json(element.document())
            found, objects = found + 1, objects + len(element.places)
    return {"seconds": {"elements": time.process_time() - began}, "elements": found, "objects": objects}


def _listed(source: str, count: int) -> pa.Table:
    """What an index lists of so many pictures; each fake is of a photograph's group."""
    rows = np.arange(count)
    names = [_names(source, rows), _names(SOURCES[0].name, rows)]
    return pa.table([*names, pa.array(rows, pa.int32())], names=["image_id", "group_id", "position"])


def _names(source: str, rows: npt.NDArray[np.int64]) -> pa.StringArray:
    # Large: between these steps Arrow counts with more text than there is.
    numbers = pc.utf8_lpad(pa.array(rows).cast(pa.large_string()), 12, "0")
    prefix, nothing = pa.scalar(f"{source}/", pa.large_string()), pa.scalar("", pa.large_string())
    return pc.binary_join_element_wise(prefix, numbers, nothing).cast(pa.string())


def assign(count: int, shard_size: int) -> dict[str, Any]:
    """Memory before and at its peak, and seconds, of the step `assign` for so many pictures."""
    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as folder:
        store = LocalStore(Path(folder))
        listed = [_listed(source.name, count // 2) for source in SOURCES]
        entries = tuple(_kept(store, f"entries/{number}", table) for number, table in enumerate(listed))
        scans = tuple(_scans(store, number, count // 2, shard_size) for number in range(len(SOURCES)))
        del listed
        # What making the scans took at its peak is not the step's.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = current_memory()
        began = time.perf_counter()
        assign_groups.compute(
            store,
            entries=entries,
            scans=scans,
            sources=tuple(source.name for source in SOURCES),
            labels=tuple(source.label for source in SOURCES),
            evaluated=(True, True),
            splits=FixedSplits(),
            seed=0,
        )
        seconds = {"assign": time.perf_counter() - began}
        return {"seconds": seconds, "before": before, "shard_size": shard_size}


def _scans(store: Store, number: int, count: int, shard_size: int) -> tuple[Ref, ...]:
    """Scans of so many pictures of one source, a shard each."""
    random = np.random.default_rng(number)
    starts = range(0, count, shard_size)
    return tuple(
        _kept(store, f"scan/{number}/{start}", _scan(random, number, np.arange(start, min(count, start + shard_size))))
        for start in starts
    )


def _scan(random: np.random.Generator, number: int, rows: npt.NDArray[np.int64]) -> pa.Table:
    count = len(rows)
    hashes = [f"{value:016x}" for value in random.integers(0, 2**63, count).tolist()]
    thumbnails = pa.py_buffer(random.bytes(count * THUMBNAIL_BYTES))
    return pa.table(
        {
            "image_id": _names(SOURCES[number].name, rows),
            "width": pa.array([640] * count, pa.int32()),
            "height": pa.array([480] * count, pa.int32()),
            "format": ["JPEG"] * count,
            "jpeg_quality": pa.array([90] * count, pa.int16()),
            "sha256": [value * 4 for value in hashes],
            "pixels": [value * 4 for value in hashes],
            "phash": hashes,
            "thumbnail": pa.FixedSizeBinaryArray.from_buffers(pa.binary(THUMBNAIL_BYTES), count, [None, thumbnails]),
        },
        schema=SCAN_SCHEMA,
    )


def _kept(store: Store, name: str, table: pa.Table) -> Ref:
    return commit(store, f"objects/{name}", step=name, digest=name, recipe={}, parts={ROWS: table})


class _Laps:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name], self._last = now - self._last, now


def _recipes(source: str, count: int, shard_size: int) -> int:
    """Name every task of one source and the place of what it makes; the number of tasks."""
    tasks = 0
    entries = _ref("entries")
    for shard, start in enumerate(range(0, count, shard_size)):
        chunk = {"entries": entries, "source": source, "start": start, "count": shard_size, "root": "."}
        scan = _ref(scan_pictures.uri(**chunk))
        images = _ref(shard_images.uri(**chunk, scan=scan, assignment=entries, label="real"))
        for view in grid("fair"):
            embed_shard.uri(
                images=images,
                views=view,
                extractor=Vgg16Spec(),
                weights=None,
                canonical=CANONICAL,
                enlarge=False,
                source=source,
                shard=shard,
                device="cpu",
                rows="all",
            )
        # The views of a shard are one task with an object for each.
        tasks += 3
    return tasks


def _ref(uri: str) -> Ref:
    return Ref(uri=uri, digest=uri.rpartition("/")[2], rows=1, bytes=1)


def available_memory() -> int:
    """What the machine could give without taking it from others, in bytes."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def main(arguments: Sequence[str]) -> None:
    """Plan within what memory is available, and print what it took, or where it broke."""
    limit = int(available_memory() * SHARE_OF_MEMORY)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    # Arrow's own pool reserves more than it uses, and the limit counts what is reserved.
    pa.set_memory_pool(pa.system_memory_pool())
    count = int(arguments[1])
    of_pictures = SMALLEST_SHARD if arguments[0] == "elements" else shard_size_for(count)
    shard_size = int(arguments[2]) if len(arguments) > 2 else of_pictures
    measures: dict[str, Callable[[int, int], dict[str, Any]]] = {"plan": plan, "assign": assign, "elements": elements}
    measure = measures[arguments[0]]
    try:
        document = measure(count, shard_size) | {"peak": peak_memory()}
    except MemoryError:
        document = {"broke": f"it does not fit in the {limit / 1e9:.3g} GB that are available"}
    print(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1:])
