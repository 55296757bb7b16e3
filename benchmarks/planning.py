"""What planning and its largest step take: processor time, memory, and what a plan of so many photographs has.

    python -m benchmarks.planning plan PHOTOGRAPHS [SHARD_SIZE]      (one measurement in a process of its own)
    python -m benchmarks.planning assign PICTURES [SHARD_SIZE]

`plan` plans the preset `coco` over made-up inputs, with as many pictures of each generator as there are photographs,
and writes the documents by which lanes are told of its elements: what the coordinator of a run on pools computes,
without store and lanes. It counts elements and objects, also by step, and the bytes of these documents.

`assign` is the step of that name over made-up scans of pictures of which no two are near each other, half of them
photographs. A shard has 1,000 pictures as in the presets, or more, so that each source has at most 500 of them.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.harness import Case, printed_apart
from benchmarks.memory import current_memory, peak_memory
from storage.digest import canonical_json
from storage.local import LocalStore
from storage.objects import ROWS, Ref, commit
from storage.store import Store
from tasks.data.assignment import SourceFacts
from tasks.data.grouping import assign_groups
from tasks.data.shards import SCAN_SCHEMA, THUMBNAIL_BYTES
from tasks.spec.splits import FixedSplits

SMALLEST_SHARD = 1_000
SHARDS_PER_SOURCE = 500
SOURCES = (SourceFacts("photographs", "real", True), SourceFacts("fakes", "fake", True))
# The rest is left to the machine: a plan that does not fit shall end this process, not others.
SHARE_OF_MEMORY = 0.85


@contextmanager
def assigning_case(size: int, threads: int) -> Iterator[Case]:
    """The step `assign` over so many pictures: the memory that it takes beyond what was there."""

    def ours() -> tuple[float, dict[str, Any]]:
        document = printed_apart("planning", "assign", str(size))
        return document["peak"] - document["before"], document

    def in_words(_: None, document: dict[str, Any]) -> str:
        taken = document["peak"] - document["before"]
        return f"{taken / size:,.0f} bytes per picture, {document['seconds']:.3g} s"

    yield Case(None, ours, in_words)


@contextmanager
def plan_case(size: int, threads: int) -> Iterator[Case]:
    """About so many elements of an evaluation: processor seconds, of the one thread that there is."""
    # One shard of each of the three sources makes 55 elements of `coco`.
    photographs = SMALLEST_SHARD * max(1, size // 55)

    def ours() -> tuple[float, dict[str, Any]]:
        document = printed_apart("planning", "plan", str(photographs))
        return document["seconds"], document

    def in_words(_: None, document: dict[str, Any]) -> str:
        objects = document["objects"]
        per_object = f"{document['seconds'] / objects * 1e6:.0f} us for each of {objects:,} objects"
        return f"{document['elements']:,} elements, {per_object}; peak {document['peak'] / 1e9:.3g} GB"

    yield Case(None, ours, in_words)


def plan(photographs: int, shard_size: int) -> dict[str, Any]:
    """Processor seconds of planning, and what was planned; `longest` has elements of which each waits for the last."""
    from benchmarks.made_up import planned, preset

    experiment = preset("coco", {"sources.gan.count": photographs, "shard_size": shard_size})
    began = time.process_time()
    elements, objects, largest = Counter[str](), Counter[str](), Counter[str]()
    written = longest = 0
    for wave in planned(experiment, photographs):
        longest += 1
        for element in wave:
            name, size = element.step.name, len(canonical_json(element.document()))
            written += size
            elements[name] += 1
            objects[name] += len(element.places)
            largest[name] = max(largest[name], size)
    return {
        "seconds": time.process_time() - began,
        "elements": elements.total(),
        "objects": objects.total(),
        "longest": longest,
        "bytes": written,
        "largest": largest.most_common(1)[0],
        "by_step": {name: [elements[name], objects[name]] for name in sorted(elements)},
    }


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
        return {"seconds": time.perf_counter() - began, "before": before}


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
    measure = {"plan": plan, "assign": assign}[arguments[0]]
    usual = SMALLEST_SHARD if measure is plan else max(SMALLEST_SHARD, count // len(SOURCES) // SHARDS_PER_SOURCE)
    shard_size = int(arguments[2]) if len(arguments) > 2 else usual
    try:
        document = measure(count, shard_size) | {"peak": peak_memory()}
    except MemoryError:
        document = {"broke": f"it does not fit in the {limit / 1e9:.3g} GB that are available"}
    print(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1:])
