"""From entries to image shards: scan the pictures, assign groups and splits, write shards with the original bytes."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.digest import sha256_hex
from storage.errors import BadImage, InputChanged
from storage.objects import ROWS, Ref, opened_part, read_table
from storage.store import Store
from storage.tables import FAKE, IMAGE_METADATA, IMAGE_SCHEMA, REAL
from tasks.data.entries import QUARANTINE, parquet_place, quarantine_table, quarantined, read_entries
from tasks.data.fingerprints import hash_text, perceptual_hash_of_thumbnail, thumbnail32
from tasks.data.inventory import Listed, content_digests
from tasks.data.pictures import decode_rgb, has_own_tables, inspect_picture
from tasks.data.sample import source_folder
from tasks.recipe import Output, StepRun, step

THUMBNAIL_BYTES = 32 * 32

SCAN_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("width", pa.int32()),  # as stored, before EXIF orientation
        ("height", pa.int32()),
        ("format", pa.string()),
        ("jpeg_quality", pa.int16()),
        ("sha256", pa.string()),
        ("pixels", pa.string()),  # sha256 of the upright picture: the same however a file says it
        ("phash", pa.string()),
        ("thumbnail", pa.binary(THUMBNAIL_BYTES)),  # luma, 32x32, row-major
    ]
)

TABLES_SCHEMA = pa.schema([("image_id", pa.string()), ("jpeg_quality", pa.int16()), ("own_tables", pa.bool_())])


def scan_picture(image_id: str, data: bytes) -> dict[str, Any]:
    """One row of `SCAN_SCHEMA`; `BadImage` for a picture that cannot be used."""
    facts = inspect_picture(data)
    rgb = decode_rgb(data)
    thumbnail = thumbnail32(rgb)
    return {
        "image_id": image_id,
        "width": facts.width,
        "height": facts.height,
        "format": facts.format,
        "jpeg_quality": facts.jpeg_quality,
        "sha256": sha256_hex(data),
        "pixels": sha256_hex(repr(rgb.shape).encode() + rgb.tobytes()),
        "phash": hash_text(perceptual_hash_of_thumbnail(thumbnail)),
        "thumbnail": thumbnail.astype(np.uint8).tobytes(),
    }


@step(
    "scan",
    version=2,
    label=lambda source, start, **_: f"{source}/{start:06d}",
    unkeyed=("root",),
    libraries=("numpy", "pillow", "pillow-heif", "simplejpeg"),
    paths=("root",),
)
def scan_pictures(run: StepRun, *, entries: Ref, source: str, start: int, count: int, root: str) -> Output:
    """Read a chunk of entries: facts, hashes and thumbnails of good pictures, reasons for the others.

    `root` is the source's directory, which may be the sample's by its name, or Parquet file.

    Raises:
        InputChanged: a file is no longer what the index says.
    """
    chunk = _chunk(run.store, entries, start, count, ["image_id", "file", "sha256"]).to_pylist()
    progress = run.progress(len(chunk))
    rows, aside = [], []
    for entry, data in _read_unchanged(source_folder(root), source, chunk):
        try:
            if isinstance(data, BadImage):
                raise data
            rows.append(scan_picture(entry["image_id"], data))
        except BadImage as error:
            aside.append(quarantined(source, entry["image_id"], error.reason, error.detail))
        progress.advance()
    notes = {"n": len(rows), "quarantined": len(aside)}
    return Output({ROWS: pa.Table.from_pylist(rows, schema=SCAN_SCHEMA), QUARANTINE: quarantine_table(aside)}, notes)


@step(
    "tables",
    version=1,
    label=lambda source, start, **_: f"{source}/{start:06d}",
    unkeyed=("root",),
    libraries=("pillow",),
    paths=("root",),
)
def read_tables(run: StepRun, *, entries: Ref, scan: Ref, source: str, start: int, count: int, root: str) -> Output:
    """Which JPEGs of a scanned chunk have quantisation tables of their own: `TABLES_SCHEMA`, by their headers alone.

    Apart from the scan, as it is asked where histories are matched: nothing that follows from a scan depends on it.

    Raises:
        InputChanged: a file is no longer what the index says.
    """
    facts = read_table(run.store, scan, columns=["image_id", "jpeg_quality"]).to_pylist()
    qualities = {one["image_id"]: one["jpeg_quality"] for one in facts if one["jpeg_quality"] is not None}
    chunk = _chunk(run.store, entries, start, count, ["image_id", "file", "sha256"]).to_pylist()
    chunk = [entry for entry in chunk if entry["image_id"] in qualities]
    rows = []
    for entry, data in _read_unchanged(source_folder(root), source, chunk):
        if isinstance(data, BadImage):
            raise _changed(source, entry["file"])
        image_id = entry["image_id"]
        own = has_own_tables(data)
        rows.append({"image_id": image_id, "jpeg_quality": qualities[image_id], "own_tables": own})
    return Output({ROWS: pa.Table.from_pylist(rows, schema=TABLES_SCHEMA)}, {"n": len(rows)})


@step("shard", version=2, label=lambda source, start, **_: f"{source}/{start:06d}", unkeyed=("root",), paths=("root",))
def shard_images(
    run: StepRun,
    *,
    entries: Ref,
    scan: Ref,
    assignment: Ref,
    source: str,
    label: str,
    start: int,
    count: int,
    root: str,
) -> Output:
    """Write a chunk of a source as an image shard: original bytes and what is known of each picture.

    Pictures that the scan set aside or the assignment left out are not in it.

    Args:
        run: the step's surroundings.
        entries: the source's index.
        scan: the scan of the same chunk.
        assignment: groups and splits of all sources.
        source: the source's name.
        label: `real` or `fake`.
        start: the chunk's first entry.
        count: the chunk's entries.
        root: the source's directory or Parquet file.

    Raises:
        InputChanged: a picture is no longer what was scanned.
    """
    scanned = {row["image_id"]: row for row in read_table(run.store, scan).drop_columns(["thumbnail"]).to_pylist()}
    assigned = _assigned(run.store, assignment, source, scanned)
    chunk = [
        entry
        for entry in _chunk(run.store, entries, start, count).to_pylist()
        if entry["image_id"] in scanned and entry["image_id"] in assigned
    ]
    progress = run.progress(len(chunk))
    rows = []
    for entry, data in _read_unchanged(source_folder(root), source, chunk):
        facts, place = scanned[entry["image_id"]], assigned[entry["image_id"]]
        if isinstance(data, BadImage) or sha256_hex(data) != facts["sha256"]:
            raise _changed(source, entry["file"])
        rows.append(_image_row(entry, facts, place, source, label, data))
        progress.advance()
    table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA.with_metadata(IMAGE_METADATA))
    return Output({ROWS: table}, {"n": len(rows), "left_out": len(scanned) - len(chunk)})


def _read_unchanged(
    root: Path, source: str, chunk: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], bytes | BadImage]]:
    """Entries with their pictures' bytes, or with why one cannot be used; `InputChanged` where the index knew others.

    A Parquet file is asked once its rows have been read, when it may have been replaced between them.
    """
    parquet: dict[str, str] = {}  # sha256 of each file, by its name, which is empty for the root itself
    read = read_entries(root, [entry["file"] for entry in chunk])
    for entry, (_, data) in zip(chunk, read, strict=True):
        place = parquet_place(entry["file"], root.is_file())
        if place is not None:
            parquet[place[0]] = entry["sha256"]
        elif isinstance(data, BadImage):
            if data.reason == "missing-file" or (data.reason == "unreadable" and entry["sha256"] is not None):
                raise _changed(source, entry["file"])
        elif sha256_hex(data) != entry["sha256"]:
            raise _changed(source, entry["file"])
        yield entry, data
    for name, sha256 in parquet.items():
        try:
            found = content_digests(root, [Listed(name, (root / name).stat())])
        except FileNotFoundError as error:
            raise _changed(source, name or root.name) from error
        if found[name] != sha256:
            raise _changed(source, name or root.name)


def _changed(source: str, file: str) -> InputChanged:
    return InputChanged(f"{source}: {file!r} has changed or gone since the run began: start it again")


def _image_row(
    entry: dict[str, Any], facts: dict[str, Any], place: dict[str, Any], source: str, label: str, data: bytes
) -> dict[str, Any]:
    from_entry = ("image_id", "prompt", "caption", "categories", "licence", "seed")
    from_scan = ("width", "height", "format", "jpeg_quality", "sha256", "phash")
    from_assignment = ("group_id", "split", "fold")
    return {
        "image": {"bytes": data, "path": entry["file"]},
        "source": source,
        "label": REAL if label == "real" else FAKE,
        **{name: entry[name] for name in from_entry},
        **{name: facts[name] for name in from_scan},
        **{name: place[name] for name in from_assignment},
    }


def _chunk(store: Store, entries: Ref, start: int, count: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Some entries of an index, which is never in memory as a whole."""
    with opened_part(store, entries) as part:
        file = pq.ParquetFile(part)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.flatnonzero((ends > start) & (ends - sizes < start + count))
        table = file.read_row_groups(groups.tolist(), columns=columns)
    before = sum(sizes[: groups[0]]) if len(groups) else 0
    return table.slice(start - before, count)


def _assigned(store: Store, assignment: Ref, source: str, image_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The rows of an assignment for pictures of a source, by their ids, without those that take no part."""
    if not image_ids:
        return {}
    ids = pc.field("image_id")
    # By the range the file's statistics tell which of its pieces need not be read.
    in_range = (ids >= min(image_ids)) & (ids <= max(image_ids))
    of_source = (pc.field("source") == source) & in_range & ids.isin(pa.array(list(image_ids), pa.string()))
    takes_part = pc.field("split").is_valid() | pc.field("fold").is_valid()
    with opened_part(store, assignment) as part:
        table = pq.read_table(part, filters=of_source & takes_part)
    return {row["image_id"]: row for row in table.to_pylist()}
