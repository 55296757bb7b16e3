"""Planning alone, for synthetic ids: groups, splits, and the recipe of every task that a run would have.

    python -m benchmarks.planning plan|assign COUNT     (one measurement in a process of its own, as the rows start it)

`plan` reads no picture and stores nothing. The functions are those that a run calls: `merge_groups` and
`place_pictures` of the step `assign`, and the recipes and places by which the steps `scan`, `shard` and `embed` look
their objects up. `assign` is that step itself, over made-up scans of pictures of which no two are near each other.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Breaks, Case
from benchmarks.inputs import CANONICAL, grid
from benchmarks.memory import current_memory, peak_memory
from benchmarks.table import ROOT
from storage.objects import ROWS, Ref, commit
from storage.store import LocalStore, Store
from tasks.data.assignment import Picture, SourceFacts, merge_groups, place_pictures
from tasks.data.shards import SCAN_SCHEMA, THUMBNAIL_BYTES, assign_groups, scan_pictures, shard_images
from tasks.detectors.features import embed_shard
from tasks.spec import FixedSplits, Vgg16Spec

SHARD_SIZE = 1_000
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
        return f"{parts}; peak {document['peak'] / 1e9:.3g} GB; {document['tasks']:,} tasks"

    yield Case(None, ours, in_words)


@contextmanager
def assigning_case(size: int, threads: int) -> Iterator[Case]:
    """The step `assign` over so many pictures: the memory that it takes beyond what was there."""

    def ours() -> tuple[float, dict[str, Any]]:
        document = _apart("assign", size)
        return document["peak"] - document["before"], document

    def in_words(_: None, document: dict[str, Any]) -> str:
        taken = document["peak"] - document["before"]
        return f"{taken / size / 1e3:.3g} kB per picture, {document['seconds']['assign']:.3g} s"

    yield Case(None, ours, in_words)


def _apart(what: str, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.planning", what, str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    document: dict[str, Any] = json.loads(lines[-1]) if lines else {"broke": f"status {done.returncode}"}
    if "broke" in document:
        raise Breaks(f"{count:,} pictures: {document['broke']}")
    return document


def plan(count: int) -> dict[str, Any]:
    """Seconds by part, and the number of tasks, of planning so many pictures."""
    seconds: dict[str, float] = {}
    clock = _Laps(seconds)
    pictures = [
        Picture(row % 2, f"{SOURCES[row % 2].name}/{row:012d}", f"photographs/{row - row % 2:012d}", row // 2)
        for row in range(count)
    ]
    clock.lap("entries")
    merged = merge_groups([picture.group_id for picture in pictures], [])
    clock.lap("groups")
    places = place_pictures(pictures, merged, SOURCES, FixedSplits(), 0)
    clock.lap("splits")
    assert len(places) == count
    del pictures, merged, places
    tasks = sum(_recipes(source.name, count // 2) for source in SOURCES)
    clock.lap("recipes")
    return {"seconds": seconds, "tasks": tasks}


def assign(count: int) -> dict[str, Any]:
    """Memory before and at its peak, and seconds, of the step `assign` for so many pictures."""
    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as folder:
        store = LocalStore(Path(folder))
        scanned = [_scanned(store, number, count // 2) for number in range(2)]
        before = current_memory()
        began = time.perf_counter()
        assign_groups.compute(
            store,
            entries=tuple(entries for entries, _ in scanned),
            scans=tuple((scan,) for _, scan in scanned),
            sources=tuple(source.name for source in SOURCES),
            labels=tuple(source.label for source in SOURCES),
            evaluated=(True, True),
            splits=FixedSplits(),
            seed=0,
        )
        return {"seconds": {"assign": time.perf_counter() - began}, "before": before}


def _scanned(store: Store, number: int, count: int) -> tuple[Ref, Ref]:
    """Entries and a scan of so many pictures of one source."""
    random = np.random.default_rng(number)
    ids = [f"{SOURCES[number].name}/{row:08d}" for row in range(count)]
    hashes = [f"{value:016x}" for value in random.integers(0, 2**63, count).tolist()]
    positions = pa.array(range(count), pa.int64())
    entries = pa.table({"image_id": ids, "group_id": ids, "position": positions})
    scan = pa.table(
        {
            "image_id": ids,
            "width": pa.array([640] * count, pa.int32()),
            "height": pa.array([480] * count, pa.int32()),
            "format": ["JPEG"] * count,
            "jpeg_quality": pa.array([90] * count, pa.int16()),
            "sha256": [value * 4 for value in hashes],
            "phash": hashes,
            "thumbnail": pa.array([random.bytes(THUMBNAIL_BYTES) for _ in ids], pa.binary(THUMBNAIL_BYTES)),
        },
        schema=SCAN_SCHEMA,
    )
    return tuple(  # type: ignore[return-value]
        commit(store, f"objects/{name}/{number}", step=name, digest=str(number), recipe={}, parts={ROWS: table})
        for name, table in (("entries", entries), ("scan", scan))
    )


class _Laps:
    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name], self._last = now - self._last, now


def _recipes(source: str, count: int) -> int:
    """Name every task of one source and the place of what it makes; the number of tasks."""
    tasks = 0
    entries = _ref("entries")
    for shard, start in enumerate(range(0, count, SHARD_SIZE)):
        chunk = {"entries": entries, "source": source, "start": start, "count": SHARD_SIZE, "root": "."}
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
                only_tested=False,
            )
        # The views of a shard are one task with an object for each.
        tasks += 3
    return tasks


def _ref(uri: str) -> Ref:
    return Ref(uri=uri, digest=uri.rpartition("/")[2], rows=SHARD_SIZE, bytes=1)


def available_memory() -> int:
    """What the machine could give without taking it from others, in bytes."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def main(arguments: Sequence[str]) -> None:
    """Plan within what memory is available, and print what it took, or where it broke."""
    limit = int(available_memory() * SHARE_OF_MEMORY)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    what, count = arguments
    measure = {"plan": plan, "assign": assign}[what]
    try:
        document = measure(int(count)) | {"peak": peak_memory()}
    except MemoryError:
        document = {"broke": f"it does not fit in the {limit / 1e9:.3g} GB that are available"}
    print(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1:])
