"""From the scans of all sources to one assignment: duplicates merged into groups, each with its split or fold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import SpecError
from storage.objects import ROWS, Ref, opened_part, read_table
from storage.store import Store
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
from tasks.data.entries import QUARANTINE, reasons_told
from tasks.data.overlap import NAMED, equal_rows
from tasks.data.shards import THUMBNAIL_BYTES
from tasks.data.splits import LEFT_OUT, PLACES, PlaceCodes
from tasks.recipe import Output, StepRun, step
from tasks.spec.splits import Splits

_ROWS_AT_ONCE = 2_000  # read
_ROWS_PER_ARRAY = 1_000_000

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


def photograph_qualities(jpeg_qualities: pa.ChunkedArray) -> tuple[list[list[int]], bool]:
    """The histogram `[[jpeg_quality, count], ...]`, sorted, and whether it is the default for want of any JPEG."""
    counted = pc.value_counts(jpeg_qualities.drop_null()).to_pylist()
    if not counted:
        return [list(item) for item in DEFAULT_QUALITIES], True
    return sorted([item["values"], item["counts"]] for item in counted), False


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
        SpecError: a source has no picture left, or the splits cannot be had with these pictures (`place_pictures`).
    """
    read = list(zip(sources, labels, entries, scans, strict=True))
    for name, label, listed_by, scan_refs in read:
        if not sum(ref.rows for ref in scan_refs):
            raise SpecError(f"no {label} picture is left of {name}: {_set_aside(run.store, (listed_by, *scan_refs))}")
    facts = [SourceFacts(*row) for row in zip(sources, labels, evaluated, strict=True)]
    scanned, pictures, pairs = _compared(run.store, entries, scans)
    phash = np.concatenate([of_source.phash for of_source in scanned])
    others = [_read_scans(run.store, scan_refs) for scan_refs in beside]
    shared = list(_shared(facts, pictures, np.concatenate([of_source.pixels for of_source in scanned]), others))
    merged = merge_groups(pictures, pairs)
    first = originals(len(pictures), pairs)
    try:
        places = place_pictures(pictures, merged, facts, splits, seed)
    except NoPictureLeft as error:
        raise SpecError(f"{error}{_set_aside_of(error.label, run.store, read)}") from None
    qualities, is_default = _evaluated_qualities(facts, pictures, scanned, places)
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


def warnings_on(path: str, warnings: Sequence[str]) -> list[str]:
    """Those of `assignment_warnings` that concern an experiment on a path: only the fair one draws JPEG qualities."""
    return [one for one in warnings if path == "fair" or "fair path" not in one]


def _compared(
    store: Store, entries: Sequence[Ref], scans: Sequence[Sequence[Ref]]
) -> tuple[list[Scanned], Pictures, npt.NDArray[np.int64]]:
    """The scans of each source, all their pictures, and the pairs of duplicates among these."""
    with TemporaryFile() as kept:
        scanned = [_read_scans(store, scan_refs, kept) for scan_refs in scans]
        listed = (_listed(store, ref, of_source) for ref, of_source in zip(entries, scanned, strict=True))
        pictures = pictures_of(listed)
        sha256 = np.concatenate([of_source.sha256 for of_source in scanned])
        phash = np.concatenate([of_source.phash for of_source in scanned])
        return scanned, pictures, find_duplicates(sha256, phash, _thumbnails(kept, len(pictures)))


def _evaluated_qualities(
    facts: Sequence[SourceFacts], pictures: Pictures, scanned: Sequence[Scanned], places: PlaceCodes
) -> tuple[list[list[int]], bool]:
    """`photograph_qualities` of the photographs that are evaluated."""
    photographs = np.array([source.label == "real" and source.evaluated for source in facts])[pictures.source]
    jpeg_quality = pa.chunked_array([chunk for of_source in scanned for chunk in of_source.jpeg_quality.chunks])
    return photograph_qualities(jpeg_quality.filter(pa.array(photographs & (places != LEFT_OUT))))


def _set_aside(store: Store, refs: Sequence[Ref]) -> str:
    """Why pictures of a source were set aside by its index and its scans, in words; empty where none was."""
    aside = [row for ref in refs for row in read_table(store, ref, name=QUARANTINE).to_pylist()]
    kept = sum(ref.rows for ref in refs[1:])
    return f"{len(aside)} of {kept + len(aside)} set aside: {reasons_told(aside)}" if aside else ""


def _set_aside_of(label: str, store: Store, read: Sequence[tuple[str, str, Ref, Sequence[Ref]]]) -> str:
    """`_set_aside` of every source of a label, to go on with a sentence; `read` has name, label, index and scans."""
    told = {name: _set_aside(store, (listed_by, *scans)) for name, of, listed_by, scans in read if of == label}
    return "".join(f"; of {name}, {why}" for name, why in told.items() if why)


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
