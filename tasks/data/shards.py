"""From entries to image shards: scan the pictures, assign groups and splits, write shards with the original bytes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.digest import sha256_hex
from storage.errors import BadImage, InputChanged, SpecError
from storage.objects import ROWS, Ref, opened_part, read_table
from storage.store import Store
from storage.tables import FAKE, IMAGE_METADATA, IMAGE_SCHEMA, REAL
from tasks.data.assignment import (
    DEFAULT_QUALITIES,
    GroupCodes,
    NoPictureLeft,
    Pictures,
    SourceFacts,
    count_places,
    merge_groups,
    originals,
    pictures_of,
    place_pictures,
    unknown_names,
)
from tasks.data.duplicates import collapse_rate, find_duplicates, words_of
from tasks.data.entries import QUARANTINE, parquet_place, quarantine_table, quarantined, read_entries, reasons_told
from tasks.data.inventory import Listed, content_digests
from tasks.data.overlap import NAMED, equal_rows
from tasks.data.pictures import (
    decode_rgb,
    hash_text,
    inspect_picture,
    perceptual_hash_of_thumbnail,
    thumbnail32,
)
from tasks.data.sample import source_folder
from tasks.data.splits import LEFT_OUT, PLACES, PlaceCodes
from tasks.recipe import Output, StepRun, step
from tasks.spec.splits import Splits

THUMBNAIL_BYTES = 32 * 32
_ROWS_AT_ONCE = 2_000  # read
_ROWS_PER_ARRAY = 1_000_000

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


@dataclass(frozen=True)
class Scanned:
    """What all scans of a source say, as columns of N rows; thumbnails are elsewhere."""

    image_id: pa.ChunkedArray  # string
    jpeg_quality: pa.ChunkedArray  # int16, null of what is no JPEG
    sha256: npt.NDArray[np.uint64]  # (N, 4)
    pixels: npt.NDArray[np.uint64]  # (N, 4), sha256 of the upright picture
    phash: npt.NDArray[np.uint64]  # (N,)


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


def photograph_qualities(jpeg_qualities: pa.ChunkedArray) -> tuple[list[list[int]], bool]:
    """The histogram `[[jpeg_quality, count], ...]`, sorted, and whether it is the default for want of any JPEG."""
    counted = pc.value_counts(jpeg_qualities.drop_null()).to_pylist()
    if not counted:
        return [list(item) for item in DEFAULT_QUALITIES], True
    return sorted([item["values"], item["counts"]] for item in counted), False


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


@step("assign", version=2, label=lambda sources, **_: f"{len(sources)}-sources")
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
    beside: tuple[tuple[Ref, ...], ...] = (),
) -> Output:
    """Find duplicates among all scanned pictures, merge their groups, and give each group a split or a fold.

    The notes hold counts per source, what was merged, `shared`, the pictures that are photographs and fakes at once or
    are among those of `beside` as well, pixel by pixel, and `qualities`, the histogram of the evaluated photographs'
    JPEG qualities, from which the fair path draws.

    Args:
        run: the step's surroundings.
        entries: the index of each source.
        scans: the scans of each source, all chunks.
        sources: names.
        labels: `real` or `fake`.
        evaluated: False for sources that only train generators.
        splits: fixed splits or folds.
        seed: decides the shares.
        beside: scans of further sources, with which these should share no picture.

    Raises:
        SpecError: a source has no picture left, or the splits cannot be had with these pictures; see
            `place_pictures`.
    """
    for name, label, listed_by, scan_refs in zip(sources, labels, entries, scans, strict=True):
        if not sum(ref.rows for ref in scan_refs):
            raise SpecError(f"no {label} picture is left of {name}: {_set_aside(run.store, (listed_by, *scan_refs))}")
    facts = [SourceFacts(*row) for row in zip(sources, labels, evaluated, strict=True)]
    with TemporaryFile() as kept:
        scanned = [_read_scans(run.store, scan_refs, kept) for scan_refs in scans]
        listed = (_listed(run.store, ref, of_source) for ref, of_source in zip(entries, scanned, strict=True))
        pictures = pictures_of(listed)
        sha256 = np.concatenate([of_source.sha256 for of_source in scanned])
        phash = np.concatenate([of_source.phash for of_source in scanned])
        pairs = find_duplicates(sha256, phash, _thumbnails(kept, len(pictures)))
    others = [_read_scans(run.store, scan_refs) for scan_refs in beside]
    shared = list(_shared(facts, pictures, np.concatenate([of_source.pixels for of_source in scanned]), others))
    merged = merge_groups(pictures, pairs)
    first = originals(len(pictures), pairs)
    try:
        places = place_pictures(pictures, merged, facts, splits, seed)
    except NoPictureLeft as error:
        of_label = [
            f"; of {name}, {told}"
            for name, label, listed_by, scan_refs in zip(sources, labels, entries, scans, strict=True)
            if label == error.label and (told := _set_aside(run.store, (listed_by, *scan_refs)))
        ]
        raise SpecError(f"{error}{''.join(of_label)}") from None
    jpeg_quality = pa.chunked_array([chunk for of_source in scanned for chunk in of_source.jpeg_quality.chunks])
    photographs = np.array([source.label == "real" and source.evaluated for source in facts])[pictures.source]
    qualities, is_default = photograph_qualities(jpeg_quality.filter(pa.array(photographs & (places != LEFT_OUT))))
    notes = {
        "sources": {
            source.name: _source_notes(index, facts, pictures, phash, merged, places, first)
            for index, source in enumerate(facts)
        },
        "shared": {"count": len(shared), "first": shared[:NAMED]},
        "groups_merged_away": len(pictures.group_names) - len(np.unique(merged)),
        "qualities": qualities,
        "qualities_are_default": is_default,
        "unknown_groups": unknown_names(pictures, splits),
    }
    return Output({ROWS: _assignment_table(facts, pictures, merged, places, first)}, notes)


def assignment_warnings(notes: Mapping[str, Any]) -> list[str]:
    """What the notes of `assign_groups` leave open, one sentence each."""
    warnings = []
    sources = notes["sources"]
    for name, facts in sources.items():
        for other, count in facts["duplicates"].items():
            if other != name and facts["label"] != sources[other]["label"]:
                warnings.append(
                    f"{count} of {name} look like pictures of {other}, which has the other label: if they are "
                    "reconstructions they stay in one split with these, if they were saved again they do not belong"
                )
    if notes["unknown_groups"]:
        named = ", ".join(map(repr, notes["unknown_groups"][:NAMED]))
        more = f" and {len(notes['unknown_groups']) - NAMED} more" if notes["unknown_groups"][NAMED:] else ""
        warnings.append(f"splits.groups names {named}{more}, which no picture has as its group")
    photographs = sum(
        facts["images"] - facts["places"].get("left-out", {"images": 0})["images"]
        for facts in sources.values()
        if facts["label"] == "real" and facts["evaluated"]
    )
    of_jpegs = sum(count for _, count in notes["qualities"])
    if notes["qualities_are_default"]:
        warnings.append(f"no photograph is a JPEG: on the fair path all are encoded at {notes['qualities'][0][0]}")
    elif of_jpegs < photographs / 2:
        warnings.append(
            f"the fair path draws its JPEG qualities from {of_jpegs} photographs, the other "
            f"{photographs - of_jpegs} of {photographs} are no JPEGs"
        )
    return warnings


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


def _set_aside(store: Store, refs: Sequence[Ref]) -> str:
    """Why pictures of a source were set aside by its index and its scans, in words; empty where none was."""
    aside = [row for ref in refs for row in read_table(store, ref, name=QUARANTINE).to_pylist()]
    kept = sum(ref.rows for ref in refs[1:])
    return f"{len(aside)} of {kept + len(aside)} set aside: {reasons_told(aside)}" if aside else ""


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


def _shared(
    facts: Sequence[SourceFacts], pictures: Pictures, pixels: npt.NDArray[np.uint64], others: Sequence[Scanned]
) -> Iterator[list[str]]:
    """The ids of pictures that are equal pixel by pixel, of a photograph and a fake, or of one here and one beside."""
    is_real = np.array([source.label == "real" for source in facts])[pictures.source]
    real, fake = np.flatnonzero(is_real), np.flatnonzero(~is_real)
    for a, b in equal_rows(pixels[real], pixels[fake]).tolist():
        yield [pictures.image_id[int(real[a])].as_py(), pictures.image_id[int(fake[b])].as_py()]
    for other in others:
        for a, b in equal_rows(other.pixels, pixels).tolist():
            yield [other.image_id[a].as_py(), pictures.image_id[b].as_py()]


def _read_scans(store: Store, scans: Sequence[Ref], thumbnails: BinaryIO | None = None) -> Scanned:
    """All chunks of a source's scans, in pieces; thumbnails are appended to a file."""
    image_id, jpeg_quality = [], []
    sha256, pixels, phash = ([np.empty(0, np.uint64)] for _ in range(3))
    kept = [] if thumbnails is None else ["thumbnail"]
    for piece in _pieces(store, scans, ["image_id", "sha256", "pixels", "phash", "jpeg_quality", *kept]):
        image_id.append(piece["image_id"])
        jpeg_quality.append(piece["jpeg_quality"])
        sha256.append(words_of(piece["sha256"].to_pylist()))
        pixels.append(words_of(piece["pixels"].to_pylist()))
        phash.append(words_of(piece["phash"].to_pylist()))
        if thumbnails is not None:
            thumbnails.write(b"".join(piece["thumbnail"].to_pylist()))
    return Scanned(
        image_id=pa.chunked_array(image_id, pa.string()),
        jpeg_quality=pa.chunked_array(jpeg_quality, pa.int16()),
        sha256=np.concatenate(sha256).reshape(-1, 4),
        pixels=np.concatenate(pixels).reshape(-1, 4),
        phash=np.concatenate(phash),
    )


def _pieces(store: Store, refs: Sequence[Ref], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of objects in pieces, one after the other."""
    for ref in refs:
        with opened_part(store, ref) as part:
            yield from pq.ParquetFile(part).iter_batches(_ROWS_AT_ONCE, columns=list(columns))


def _listed(store: Store, entries: Ref, scanned: Scanned) -> pa.Table:
    """What the index of a source says of its scanned pictures, in their order."""
    with opened_part(store, entries) as part:
        table = pq.read_table(part, columns=["image_id", "group_id", "position"])
    rows = pc.index_in(scanned.image_id, value_set=table["image_id"])
    if rows.null_count:
        raise KeyError(f"{entries.uri} does not list {scanned.image_id.filter(rows.is_null())[0]}")
    return table.take(rows)


def _thumbnails(kept: BinaryIO, count: int) -> npt.NDArray[np.uint8]:
    """The rows of a file of thumbnails, (count, 1024), of which only those that are looked at come into memory."""
    if not count:
        return np.empty((0, THUMBNAIL_BYTES), dtype=np.uint8)
    kept.flush()
    return np.memmap(kept, dtype=np.uint8, mode="r", shape=(count, THUMBNAIL_BYTES))


def _assignment_table(
    facts: Sequence[SourceFacts],
    pictures: Pictures,
    merged: GroupCodes,
    places: PlaceCodes,
    first: npt.NDArray[np.int64],
) -> pa.Table:
    """Rows of `ASSIGNMENT_SCHEMA`. In pieces: all names of a column may be more than one array of text can hold."""
    sources = pa.array([source.name for source in facts], pa.string())
    splits = pa.array([split for split, _ in PLACES], pa.string())
    folds = pa.array([fold for _, fold in PLACES], pa.int16())
    repeats = first >= 0
    repeated = pictures.image_id.take(pa.array(first[repeats])).cast(pa.large_string()).combine_chunks()
    number = np.cumsum(repeats) - 1  # of a repeat among all
    pieces = [ASSIGNMENT_SCHEMA.empty_table()]
    for start in range(0, len(pictures), _ROWS_PER_ARRAY):
        rows = slice(start, start + _ROWS_PER_ARRAY)
        columns = [
            sources.take(pa.array(pictures.source[rows])),
            pictures.image_id[rows],
            pictures.group_names.take(pa.array(merged[rows])).cast(pa.string()),
            splits.take(pa.array(places[rows])),
            folds.take(pa.array(places[rows])),
            repeated.take(pa.array(number[rows], mask=~repeats[rows])).cast(pa.string()),
        ]
        pieces.append(pa.table(columns, schema=ASSIGNMENT_SCHEMA))
    return pa.concat_tables(pieces)


def _source_notes(
    index: int,
    facts: Sequence[SourceFacts],
    pictures: Pictures,
    phash: npt.NDArray[np.uint64],
    merged: GroupCodes,
    places: PlaceCodes,
    first: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Counts of one source; `duplicates` counts pictures that repeat an earlier one, by the source of that one."""
    of_source = pictures.source == index
    images = count_places(places[of_source])
    # A place and a group as one number: each that occurs is one group there.
    in_places = np.unique(merged[of_source].astype(np.int64) * len(PLACES) + places[of_source])
    groups = count_places((in_places % len(PLACES)).astype(np.int8))
    repeats = first[of_source & (first >= 0)]
    repeated = np.bincount(pictures.source[repeats], minlength=len(facts)).tolist()
    notes: dict[str, Any] = {
        "label": facts[index].label,
        "evaluated": facts[index].evaluated,
        "images": sum(images.values()),
        "groups": len(np.unique(merged[of_source])),
        "places": {name: {"images": images[name], "groups": groups[name]} for name in images},
        "duplicates": {fact.name: count for fact, count in zip(facts, repeated, strict=True) if count},
    }
    if facts[index].label == "fake":
        notes["collapse"] = round(collapse_rate(phash[of_source]), 6)
    return notes
