"""From entries to image shards: scan the pictures, assign groups and splits, write shards with the original bytes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.digest import sha256_hex
from storage.errors import BadImage
from storage.objects import ROWS, Ref, read_table
from storage.store import Store
from storage.tables import FAKE, IMAGE_METADATA, IMAGE_SCHEMA, REAL
from tasks.data.assignment import (
    DEFAULT_QUALITIES,
    LEFT_OUT,
    Picture,
    SourceFacts,
    merge_groups,
    originals,
    place_name,
    place_pictures,
    unknown_names,
)
from tasks.data.duplicates import collapse_rate, find_duplicates
from tasks.data.entries import QUARANTINE, quarantine_table, quarantined, read_entries
from tasks.data.pictures import (
    decode_rgb,
    hash_text,
    inspect_picture,
    perceptual_hash_of_thumbnail,
    thumbnail32,
)
from tasks.data.splits import Place
from tasks.recipe import Output, StepRun, step
from tasks.spec import Splits

THUMBNAIL_BYTES = 32 * 32

SCAN_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("width", pa.int32()),  # as stored, before EXIF orientation
        ("height", pa.int32()),
        ("format", pa.string()),
        ("jpeg_quality", pa.int16()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("thumbnail", pa.binary(THUMBNAIL_BYTES)),  # luma, 32x32, row-major
    ]
)

ASSIGNMENT_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("image_id", pa.string()),
        ("group_id", pa.string()),  # after merging duplicates
        ("split", pa.string()),
        ("fold", pa.int16()),
        ("duplicate_of", pa.string()),  # the first picture that this one repeats
    ]
)

Scanned = list[dict[str, Any]]


def scan_picture(image_id: str, data: bytes) -> dict[str, Any]:
    """One row of `SCAN_SCHEMA`; `BadImage` for a picture that cannot be used."""
    facts = inspect_picture(data)
    thumbnail = thumbnail32(decode_rgb(data))
    return {
        "image_id": image_id,
        "width": facts.width,
        "height": facts.height,
        "format": facts.format,
        "jpeg_quality": facts.jpeg_quality,
        "sha256": sha256_hex(data),
        "phash": hash_text(perceptual_hash_of_thumbnail(thumbnail)),
        "thumbnail": thumbnail.astype(np.uint8).tobytes(),
    }


def photograph_qualities(
    jpeg_qualities: Sequence[int | None],
) -> tuple[list[list[int]], bool]:
    """The histogram `[[jpeg_quality, count], ...]`, sorted, and whether it is the default for want of any JPEG."""
    counted = Counter(quality for quality in jpeg_qualities if quality is not None)
    if not counted:
        return [list(item) for item in DEFAULT_QUALITIES], True
    return [[quality, counted[quality]] for quality in sorted(counted)], False


@step(
    "scan",
    version=1,
    label=lambda source, start, **_: f"{source}/{start:06d}",
    unkeyed=("root",),
    libraries=("numpy", "pillow", "simplejpeg"),
)
def scan_pictures(run: StepRun, *, entries: Ref, source: str, start: int, count: int, root: str) -> Output:
    """Read a chunk of entries: facts, hashes and thumbnails of good pictures, reasons for the others.

    `root` is the source's directory or Parquet file.
    """
    chunk = read_table(run.store, entries, ["image_id", "file"]).slice(start, count).to_pylist()
    progress = run.progress(len(chunk))
    rows, aside = [], []
    read = read_entries(Path(root), [entry["file"] for entry in chunk])
    for entry, (_, data) in zip(chunk, read, strict=True):
        try:
            if isinstance(data, BadImage):
                raise data
            rows.append(scan_picture(entry["image_id"], data))
        except BadImage as error:
            aside.append(quarantined(source, entry["image_id"], error.reason, error.detail))
        progress.advance()
    notes = {"n": len(rows), "quarantined": len(aside)}
    return Output({ROWS: pa.Table.from_pylist(rows, schema=SCAN_SCHEMA), QUARANTINE: quarantine_table(aside)}, notes)


@step("assign", version=1, label=lambda sources, **_: f"{len(sources)}-sources")
def assign_groups(
    run: StepRun,
    *,
    entries: tuple[Ref, ...],
    scans: tuple[tuple[Ref, ...], ...],
    sources: tuple[str, ...],
    labels: tuple[str, ...],
    evaluated: tuple[bool, ...],
    splits: Splits,
    seed: int,
) -> Output:
    """Find duplicates among all scanned pictures, merge their groups, and give each group a split or a fold.

    The notes hold counts per source, what was merged, and `qualities`, the histogram of the evaluated photographs' JPEG
    qualities, from which the fair path draws.

    Args:
        run: the step's surroundings.
        entries: the index of each source.
        scans: the scans of each source, all chunks.
        sources: names.
        labels: `real` or `fake`.
        evaluated: False for sources that only train generators.
        splits: fixed splits or folds.
        seed: decides the shares.

    Raises:
        SpecError: the splits cannot be had with these pictures; see `place_pictures`.
    """
    facts = [SourceFacts(*row) for row in zip(sources, labels, evaluated, strict=True)]
    pictures: list[Picture] = []
    scanned: Scanned = []
    for index, (entry_ref, scan_refs) in enumerate(zip(entries, scans, strict=True)):
        of_source = _scanned_rows(run.store, scan_refs)
        listed = read_table(run.store, entry_ref, ["image_id", "group_id", "position"]).to_pylist()
        known = {entry["image_id"]: entry for entry in listed}
        pictures += [Picture(source=index, **known[row["image_id"]]) for row in of_source]
        scanned += of_source

    pairs = find_duplicates(
        [row["sha256"] for row in scanned], [row["phash"] for row in scanned], _thumbnails_of(scanned)
    )
    merged = merge_groups([picture.group_id for picture in pictures], pairs)
    first = originals(len(pictures), pairs)
    places = place_pictures(pictures, merged, facts, splits, seed)
    rows = [
        {
            "source": facts[picture.source].name,
            "image_id": picture.image_id,
            "group_id": group,
            "split": place[0],
            "fold": place[1],
            "duplicate_of": None if original is None else pictures[original].image_id,
        }
        for picture, group, place, original in zip(pictures, merged, places, first, strict=True)
    ]
    qualities, is_default = photograph_qualities(
        [
            row["jpeg_quality"]
            for row, picture, place in zip(scanned, pictures, places, strict=True)
            if facts[picture.source].label == "real" and facts[picture.source].evaluated and place != LEFT_OUT
        ]
    )
    notes = {
        "sources": {
            source.name: _source_notes(index, facts, pictures, scanned, merged, places, first)
            for index, source in enumerate(facts)
        },
        "groups_merged_away": len({picture.group_id for picture in pictures}) - len(set(merged)),
        "qualities": qualities,
        "qualities_are_default": is_default,
        "unknown_groups": unknown_names(pictures, splits),
    }
    return Output({ROWS: pa.Table.from_pylist(rows, schema=ASSIGNMENT_SCHEMA)}, notes)


@step("shard", version=1, label=lambda source, start, **_: f"{source}/{start:06d}", unkeyed=("root",))
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

    Pictures that the scan set aside or the assignment left out are not in it; one that changed since the scan is set
    aside as `changed`.

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
    """
    scanned = {row["image_id"]: row for row in read_table(run.store, scan).drop_columns(["thumbnail"]).to_pylist()}
    assigned = {
        row["image_id"]: row
        for row in read_table(run.store, assignment).to_pylist()
        if row["source"] == source and (row["split"], row["fold"]) != LEFT_OUT
    }
    chunk = [
        entry
        for entry in read_table(run.store, entries).slice(start, count).to_pylist()
        if entry["image_id"] in scanned and entry["image_id"] in assigned
    ]
    progress = run.progress(len(chunk))
    rows, aside = [], []
    read = read_entries(Path(root), [entry["file"] for entry in chunk])
    for entry, (_, data) in zip(chunk, read, strict=True):
        facts, place = scanned[entry["image_id"]], assigned[entry["image_id"]]
        if isinstance(data, BadImage) or sha256_hex(data) != facts["sha256"]:
            detail = str(data) if isinstance(data, BadImage) else "other bytes than when it was scanned"
            aside.append(quarantined(source, entry["image_id"], "changed", detail))
        else:
            rows.append(_image_row(entry, facts, place, source, label, data))
        progress.advance()
    table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA.with_metadata(IMAGE_METADATA))
    notes = {"n": len(rows), "quarantined": len(aside), "left_out": len(scanned) - len(chunk)}
    return Output({ROWS: table, QUARANTINE: quarantine_table(aside)}, notes)


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


def _scanned_rows(store: Store, scans: Sequence[Ref]) -> Scanned:
    columns = ["image_id", "sha256", "phash", "jpeg_quality", "thumbnail"]
    return [row for scan in scans for row in read_table(store, scan, columns).to_pylist()]


def _thumbnails_of(scanned: Scanned) -> npt.NDArray[np.uint8]:
    joined = b"".join(row["thumbnail"] for row in scanned)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, THUMBNAIL_BYTES)


def _source_notes(
    index: int,
    facts: Sequence[SourceFacts],
    pictures: Sequence[Picture],
    scanned: Scanned,
    merged: Sequence[str],
    places: Sequence[Place],
    first: Sequence[int | None],
) -> dict[str, Any]:
    """Counts of one source; `duplicates` counts pictures that repeat an earlier one, by the source of that one."""
    rows = [row for row, picture in enumerate(pictures) if picture.source == index]
    by_place: dict[str, list[int]] = {}
    for row in rows:
        by_place.setdefault(place_name(places[row]), []).append(row)
    repeated = [original for row in rows if (original := first[row]) is not None]
    notes: dict[str, Any] = {
        "images": len(rows),
        "groups": len({merged[row] for row in rows}),
        "places": {
            name: {"images": len(of_place), "groups": len({merged[row] for row in of_place})}
            for name, of_place in sorted(by_place.items())
        },
        "duplicates": dict(sorted(Counter(facts[pictures[row].source].name for row in repeated).items())),
    }
    if facts[index].label == "fake":
        notes["collapse"] = round(collapse_rate([scanned[row]["phash"] for row in rows]), 6)
    return notes
