"""How many pictures of every source took part, and what was left out or quarantined."""

import json
import statistics
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from storage.objects import ROWS, Ref, manifest_of, notes_of, read_table
from storage.store import Store
from storage.tables import QUARANTINE_SCHEMA
from tasks.data.entries import QUARANTINE
from tasks.data.grouping import assignment_warnings
from tasks.recipe import Output, StepRun, step

COUNT_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("label", pa.string()),
        ("split_or_fold", pa.string()),
        ("images", pa.int32()),
        ("groups", pa.int32()),
        ("left_out", pa.int32()),  # too small for the fair path, over the whole source
        ("quarantined", pa.int32()),  # over the whole source
        ("duplicates", pa.int32()),  # files of the whole source that repeat an earlier picture of any source
        ("collapse_rate", pa.float64()),  # share of near-duplicates among a generator's pictures
        # Of the whole source, where histories are matched and its files come from a disk:
        ("files", pa.int32()),
        ("no_jpegs", pa.int32()),  # what they were before cannot be told
        ("own_tables", pa.int32()),  # JPEGs with other quantisation tables than libjpeg makes
        ("own_tables_quality", pa.int16()),  # their median quality
    ]
)
# Under this key the table's schema holds sentences of what the sources' metadata leave open.
WARNINGS = b"warnings"


@step("counts", version=3, label=lambda sources, **_: "-".join(sources)[:60])
def count_images(
    run: StepRun,
    *,
    sources: tuple[str, ...],
    labels: tuple[str, ...],
    shards: tuple[tuple[Ref, ...], ...],
    features: tuple[tuple[Ref, ...], ...],
    entries: tuple[tuple[Ref, ...], ...],
    assignment: Ref,
    unseen_assignment: Ref | None = None,
    encodings: tuple[tuple[Ref, ...], ...] = (),
) -> Output:
    """Count images and groups per source and split, and collect what was quarantined and warned of on the way.

    Args:
        shards: image shards per source; their notes and quarantine are read, not their pictures.
        features: feature shards of an uncompressed fair view per source, with the identity columns of what is
            evaluated; none for a source that only trains generators, or that only the rejection is tested on.
        entries: index and scan objects per source, which quarantine as well.
        assignment: notes duplicates of what was read from disk, and the collapse rates of the fakes among it.
        unseen_assignment: the same of what only the rejection is tested on.
        encodings: of each source how its files are encoded (`count_encodings`), where that is known and matters.
    """
    assigned = [notes_of(run.store, ref) for ref in (assignment, unseen_assignment) if ref is not None]
    from_disk = {name: facts for notes in assigned for name, facts in notes["sources"].items()}
    rows: list[dict[str, Any]] = []
    quarantine: list[pa.Table] = []
    warnings: list[str] = []
    of_sources = zip(sources, labels, shards, features, entries, encodings or ((),) * len(sources), strict=True)
    for source, label, images, embedded, indexed, encoded in of_sources:
        tables, told = _told_on_the_way(run.store, (*indexed, *images))
        warnings += told
        quarantine += tables
        of_views = [notes_of(run.store, ref) for ref in embedded]
        undecodable = sum(int(notes.get("undecodable", 0)) for notes in of_views)
        if undecodable:
            warnings.append(
                f"{undecodable} pictures of {source} were read when they were scanned and not when they were embedded: "
                "the workers have other libraries"
            )
        whole = {
            "source": source,
            "label": label,
            "left_out": sum(int(notes.get("left_out", 0)) for notes in of_views),
            "quarantined": sum(table.num_rows for table in tables),
            "duplicates": _repeats(from_disk.get(source)),
            "collapse_rate": from_disk.get(source, {}).get("collapse", _collapse(run.store, images)),
            **_encoded(run.store, encoded),
        }
        apart = "generator training" if label == "real" else "rejection only"
        places = _per_split(run.store, embedded) if embedded else [_apart(images, apart)]
        rows += [whole | counted for counted in places]
    warnings += assignment_warnings(assigned[0])
    return Output(
        {
            ROWS: pa.Table.from_pylist(rows, schema=COUNT_SCHEMA.with_metadata({WARNINGS: json.dumps(warnings)})),
            QUARANTINE: pa.concat_tables(quarantine) if quarantine else QUARANTINE_SCHEMA.empty_table(),
        }
    )


def _told_on_the_way(store: Store, refs: Sequence[Ref]) -> tuple[list[pa.Table], list[str]]:
    """What objects quarantined, and what they warn of."""
    manifests = [(ref, manifest_of(store, ref)) for ref in refs]
    aside = [ref for ref, manifest in manifests if any(part.name == QUARANTINE for part in manifest.parts)]
    warnings = [one for _, manifest in manifests for one in manifest.notes.get("warnings", [])]
    return [read_table(store, ref, name=QUARANTINE) for ref in aside], warnings


def warnings_of(counts: pa.Table) -> list[str]:
    """What the sources' indexes warn of, as `count_images` keeps it with its table: one sentence each."""
    warnings: list[str] = json.loads(counts.schema.metadata[WARNINGS])
    return warnings


def _encoded(store: Store, encodings: Sequence[Ref]) -> dict[str, int | None]:
    """What of a source's files is not made equal where histories are matched; nulls where nobody counted."""
    names = ("files", "no_jpegs", "own_tables", "own_tables_quality")
    if not encodings:
        return dict.fromkeys(names)
    rows = [row for ref in encodings for row in read_table(store, ref).to_pylist()]
    own = sorted((row["jpeg_quality"], row["count"]) for row in rows if row["own_tables"])
    qualities = [quality for quality, count in own for _ in range(count)]
    values = (
        sum(row["count"] for row in rows),
        sum(row["count"] for row in rows if row["jpeg_quality"] is None),
        len(qualities),
        int(statistics.median(qualities)) if qualities else None,
    )
    return dict(zip(names, values, strict=True))


def _repeats(notes: dict[str, Any] | None) -> int | None:
    """Pictures that repeat an earlier one; None where they were not compared, as those that a run makes."""
    return None if notes is None else sum(notes["duplicates"].values())


def _apart(images: Sequence[Ref], purpose: str) -> dict[str, Any]:
    return {"split_or_fold": purpose, "images": sum(ref.rows for ref in images), "groups": None}


def _per_split(store: Store, embedded: Sequence[Ref]) -> list[dict[str, Any]]:
    columns = ["group_id", "split", "fold"]
    identity = pl.concat([pl.DataFrame(pl.from_arrow(read_table(store, ref, columns))) for ref in embedded])
    named = identity.with_columns(
        pl.coalesce(pl.col("split"), pl.concat_str(pl.lit("fold "), pl.col("fold").cast(pl.String))).alias("place")
    )
    counted = named.group_by("place").agg(pl.len().alias("images"), pl.col("group_id").n_unique().alias("groups"))
    return [
        {"split_or_fold": row["place"], "images": row["images"], "groups": row["groups"]}
        for row in counted.sort("place").iter_rows(named=True)
    ]


def _collapse(store: Store, images: Sequence[Ref]) -> float | None:
    """Mean of the shards' rates, weighted by their pictures; None where they state none, as photographs' do."""
    rates = [(notes_of(store, ref).get("collapse_rate"), ref.rows) for ref in images]
    stated = [(float(rate), rows) for rate, rows in rates if rate is not None]
    total = sum(rows for _, rows in stated)
    return sum(rate * rows for rate, rows in stated) / total if total else None
