"""What single steps take, each measured by itself: VGG16 in its true size, fitting a head, long tables, `assign`."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from PIL import Image

from benchmarks import inputs
from benchmarks.harness import cpu_seconds
from benchmarks.memory import current_memory, peak_memory
from benchmarks.support_vectors import labelled
from benchmarks.table import ROOT
from storage.digest import hash_seed, sha256_hex
from storage.objects import ROWS, Ref, commit
from storage.store import LocalStore, Store
from storage.tables import IMAGE_METADATA, IMAGE_SCHEMA
from tasks.data.entries import ENTRY_SCHEMA
from tasks.data.pictures import Pixels, encode_png
from tasks.data.shards import (
    ASSIGNMENT_SCHEMA,
    SCAN_SCHEMA,
    THUMBNAIL_BYTES,
    assign_groups,
    scan_picture,
    scan_pictures,
    shard_images,
)
from tasks.detectors.features import embed_shard
from tasks.detectors.svm import FeatureRows, fit_head, train_head
from tasks.generators.shards import place_generated
from tasks.spec import FixedSplits, HeadSpec, Vgg16Spec, View

SCANNED_AT_ONCE = 1_000

Say = Callable[[str], None]


def distinct_pictures(count: int) -> list[bytes]:
    """So many JPEG files, no two alike: where the benchmark's files come again they are other cuts of themselves."""
    random = np.random.default_rng(0)
    seen: set[bytes] = set()
    files = []
    for _, data in inputs.pictures(count):
        files.append(_cut(data, random) if data in seen else data)
        seen.add(data)
    return files


def _cut(data: bytes, random: np.random.Generator) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        sides = [int(random.integers(inputs.CANONICAL.side, side + 1)) for side in image.size]
        left, top = (int(random.integers(0, whole - side + 1)) for whole, side in zip(image.size, sides, strict=True))
        sink = io.BytesIO()
        cut = image.convert("RGB").crop((left, top, left + sides[0], top + sides[1]))
        cut.save(sink, "JPEG", quality=inputs.SAMPLE_QUALITY)
        return sink.getvalue()


def write_pictures(folder: Path, count: int) -> None:
    """So many different JPEG files of at least the canonical side, each with a caption, below a folder."""
    (folder / "photographs").mkdir(parents=True)
    files = distinct_pictures(count)
    for number, data in enumerate(files):
        (folder / "photographs" / f"{number:06d}.jpg").write_bytes(data)
    captions = [{"file_name": f"{n:06d}.jpg", "caption": f"photograph {n} of a street"} for n in range(count)]
    (folder / "captions.json").write_text(json.dumps(captions), encoding="utf-8")


def measure_tables(folder: Path, rows: int, say: Say) -> dict[str, Any]:
    """Processor seconds of a shard of one picture among so many: its tasks read the tables of all of them.

    A shard of a GAN's pictures finds the places of all of that source's (`place_s`).
    """
    store = LocalStore(folder / f"tables-{rows}")
    root = folder / f"one-{rows}"
    write_pictures(root, 1)
    data = (root / "photographs" / "000000.jpg").read_bytes()
    ids = [f"photographs:{row:08d}.jpg" for row in range(rows)]
    columns = {"position": range(rows), "image_id": ids, "file": ["000000.jpg"] * rows, "group_id": ids}
    entries = _filled(ENTRY_SCHEMA, rows, {**columns, "sha256": [sha256_hex(data)] * rows})
    places = {"source": ["photographs"] * rows, "image_id": ids, "group_id": ids, "split": ["train"] * rows}
    assignment = _filled(ASSIGNMENT_SCHEMA, rows, places)
    scan = pa.Table.from_pylist([scan_picture(ids[0], data)], schema=SCAN_SCHEMA)
    refs = {name: _kept(store, name, table) for name, table in (("e", entries), ("s", scan), ("a", assignment))}
    chunk = {"entries": refs["e"], "source": "photographs", "start": 0, "count": 1, "root": str(root / "photographs")}
    scan_s, _ = cpu_seconds(lambda: scan_pictures.compute(store, **chunk))
    shard_s, _ = cpu_seconds(
        lambda: shard_images.compute(store, **chunk, scan=refs["s"], assignment=refs["a"], label="real")
    )
    place_s, _ = cpu_seconds(lambda: place_generated(ids, FixedSplits(), 0))
    point = {
        "rows": rows,
        "entries_bytes": refs["e"].bytes,
        "assignment_bytes": refs["a"].bytes,
        "scan_s": round(scan_s, 3),
        "shard_s": round(shard_s, 3),
        "place_s": round(place_s, 3),
    }
    say(f"a shard of one picture among {rows:,} entries: scan {point['scan_s']} s, shard {point['shard_s']} s")
    return point


def _kept(store: Store, name: str, table: pa.Table) -> Ref:
    return commit(store, f"objects/{name}/{name}", step=name, digest=name, recipe={}, parts={ROWS: table})


def measure_embedding(folder: Path, count: int, say: Say) -> dict[str, Any]:
    """Processor seconds of the step `embed` with the extractor of the preset `coco`: all twelve views.

    Its network, whose weights no point of this benchmark needs, is the seeded random one.
    """
    store = LocalStore(folder / f"embed-{count}")
    rows = [_image_row(number, data) for number, data in enumerate(distinct_pictures(count))]
    images = _kept(store, "shard", pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA.with_metadata(IMAGE_METADATA)))
    views = inputs.grid("fair")
    took, _ = cpu_seconds(
        lambda: embed_shard.compute(
            store,
            images=images,
            views=views,
            extractor=Vgg16Spec(layer="fc7", side=224, weights="random:0", batch=64),
            weights=None,
            canonical=inputs.CANONICAL,
            enlarge=False,
            source="photographs",
            shard=0,
            device="cpu",
            rows="all",
        )
    )
    say(f"VGG16 fc7 at 224 pixels, {count} pictures in {len(views)} views: {took:.1f} s")
    return {"pictures": count, "views": len(views), "seconds": round(took, 2)}


def _image_row(number: int, data: bytes) -> dict[str, Any]:
    facts = {key: value for key, value in scan_picture(f"photographs:{number}", data).items() if key != "thumbnail"}
    place = {"group_id": f"photographs:{number}", "source": "photographs", "label": 0, "split": "train"}
    return {"image": {"bytes": data, "path": f"{number}.jpg"}, **facts, **place}


def measure_training(rows: int, say: Say) -> dict[str, Any]:
    """Processor seconds of fitting one head on so many train rows of 4,096 features; C by a third as many."""
    total = rows + rows // 3
    X, labels = labelled(total, seed=0)
    names = [f"picture-{row}" for row in range(total)]
    splits = ["train" if row < rows else "val" for row in range(total)]
    sources = np.where(labels == 0, "photographs", "fakes")
    identity = pl.DataFrame(
        {"image_id": names, "group_id": names, "source": sources, "label": labels, "split": splits},
    ).with_columns(pl.lit(None, pl.Int16).alias("fold"))
    head = HeadSpec(
        name="svm",
        extractor=Vgg16Spec(),
        views=(View(path="fair", resolution=64),),
        real=("photographs",),
        fakes=("fakes",),
    )
    took, _ = cpu_seconds(lambda: fit_head(FeatureRows(identity, labels, sources, X), head, FixedSplits()))
    say(f"{train_head.name} on {rows:,} x 4,096: {took:.1f} s")
    return {"rows": rows, "seconds": round(took, 2)}


def measure_assigning(count: int, say: Say) -> dict[str, Any]:
    """Processor seconds of the step `assign`, and the memory that it takes, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cost.parts", str(count)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    point: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    say(f"assign of {count:,} pictures: {point['seconds']} s, {point['memory'] / 1e6:,.0f} MB")
    return point


def _assign(count: int) -> dict[str, Any]:
    """The point itself: made-up scans of a source of photographs and one of fakes, no two pictures alike."""
    with tempfile.TemporaryDirectory(prefix="telltale-cost-") as folder:
        store = LocalStore(Path(folder))
        sources = {"photographs": "real", "fakes": "fake"}
        listed = [_listed(store, name, count // 2) for name in sources]
        # What making them took at its peak is not the step's.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = current_memory()
        took, _ = cpu_seconds(
            lambda: assign_groups.compute(
                store,
                entries=tuple(entries for entries, _ in listed),
                scans=tuple(scans for _, scans in listed),
                sources=tuple(sources),
                labels=tuple(sources.values()),
                evaluated=(True, True),
                splits=FixedSplits(),
                seed=0,
            )
        )
        return {"pictures": count, "seconds": round(took, 2), "memory": max(0, peak_memory() - before)}


def _listed(store: Store, source: str, count: int) -> tuple[Ref, tuple[Ref, ...]]:
    """The entries of a source and its scans, a chunk at a time."""
    ids = [f"{source}/{row:08d}" for row in range(count)]
    entries = _filled(ENTRY_SCHEMA, count, {"image_id": ids, "group_id": ids, "position": range(count)})
    random = np.random.default_rng(hash_seed(source))
    scans = [
        _kept(store, f"{source}-scan-{start}", _scan(ids[start : start + SCANNED_AT_ONCE], random))
        for start in range(0, count, SCANNED_AT_ONCE)
    ]
    return _kept(store, f"{source}-entries", entries), tuple(scans)


def _scan(ids: list[str], random: np.random.Generator) -> pa.Table:
    hashes = [f"{value:016x}" for value in random.integers(0, 2**63, len(ids)).tolist()]
    known = {
        "image_id": ids,
        "width": [640] * len(ids),
        "height": [480] * len(ids),
        "format": ["JPEG"] * len(ids),
        "jpeg_quality": [90] * len(ids),
        "sha256": [value * 4 for value in hashes],
        "pixels": [value * 4 for value in hashes],
        "phash": hashes,
        "thumbnail": [random.bytes(THUMBNAIL_BYTES) for _ in ids],
    }
    return _filled(SCAN_SCHEMA, len(ids), known)


def _filled(schema: pa.Schema, count: int, columns: dict[str, Any]) -> pa.Table:
    """A table of a schema; columns that are not given are null."""
    return pa.table({field.name: pa.array(columns.get(field.name, [None] * count), field.type) for field in schema})


def png_bytes(side: int, count: int = 8) -> float:
    """Mean bytes of photographs brought to a square of such a side as PNG, the form in which fakes are kept."""
    return sum(len(encode_png(_square(data, side))) for data in distinct_pictures(count)) / count


def _square(data: bytes, side: int) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    print(json.dumps(_assign(int(sys.argv[1]))))
