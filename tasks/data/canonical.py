"""Canonical pictures: what the fair path makes of an image shard, once, for everything that looks at pixels often."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.digest import digest_of, sha256_hex
from storage.errors import BadImage, SpecError
from storage.objects import ROWS, Ref, opened_part, read_table
from storage.store import Store
from storage.tables import CANONICAL_SCHEMA, CROPPED_SCHEMA, FEATURE_COLUMNS
from tasks.data.histories import called
from tasks.data.pictures import decode_rgb
from tasks.data.views import (
    SIZE_COLUMNS,
    canonical_quality,
    decode_for_fair,
    fair_canonical_jpeg,
    is_enlarged,
    with_history,
)
from tasks.recipe import Output, StepRun, step
from tasks.spec.views import Canonical, Cell

_ROWS_AT_ONCE = 16
_NAME_LENGTH = 20


def picture_rows(store: Store, pictures: Ref) -> Iterator[dict[str, Any]]:
    """The rows of a shard of canonical pictures, of which a few at a time are in memory."""
    with opened_part(store, pictures) as file:
        for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, use_threads=False):
            yield from batch.to_pylist()


def picture_name(row: Mapping[str, Any]) -> str:
    """What a canonical picture's files are called elsewhere: 20 hexadecimal digits of its source, id and content.

    So scores that come back under it are seen to be of this picture, and not of one that had its id before.
    """
    return digest_of([row["source"], row["image_id"], sha256_hex(row["canonical"])])[:_NAME_LENGTH]


def name_in_cell(name: str, cell: Cell) -> str:
    """What the file of a picture of this `picture_name` is called in a cell: as many digits.

    It is the picture's own name, except in cells of an experiment's own chains: their names do not say what happens
    to a picture, so that their steps are part of the file's.
    """
    if cell.perturbation is None or _says_all(cell.name, cell):
        return name
    return digest_of([name, cell.perturbation.model_dump(mode="json")])[:_NAME_LENGTH]


def _says_all(name: str, cell: Cell) -> bool:
    try:
        return Cell.parse(name) == cell
    except SpecError:
        return False


@step(
    "canonical",
    version=2,
    label=lambda *, source, shard, **_: f"{source}-{shard:05d}",
    unkeyed=("source", "shard"),
    libraries=("pillow", "pillow-heif", "simplejpeg"),
)
def canonical_pictures(
    run: StepRun, *, images: Ref, canonical: Canonical, enlarge: bool, source: str, shard: int
) -> Output:
    """The canonical form of every picture of an image shard, as the JPEG file that it is: `CANONICAL_SCHEMA`.

    Pictures that would be enlarged are left out, unless `enlarge`, and undecodable ones too. Both are counted.
    """
    table = read_table(run.store, images, columns=["image", *FEATURE_COLUMNS, "width", "height"])
    progress = run.progress(table.num_rows)
    rows, notes = [], {"left_out": 0, "undecodable": 0}
    for number, (row, data) in enumerate(_pictures(table)):
        progress.advance()
        if is_enlarged(row["width"], row["height"], canonical) and not enlarge:
            notes["left_out"] += 1
            continue
        try:
            rgb = decode_for_fair(data, canonical)
        except BadImage:
            notes["undecodable"] += 1
            continue
        rows.append((number, fair_canonical_jpeg(rgb, row["image_id"], canonical)))
    kept = table.select(list(FEATURE_COLUMNS)).take(pa.array([number for number, _ in rows], pa.int64()))
    made = kept.append_column("canonical", pa.array([jpeg for _, jpeg in rows], pa.binary()))
    return Output({ROWS: made.cast(CANONICAL_SCHEMA)}, notes)


@step(
    "cropped",
    version=1,
    label=lambda *, source, shard, **_: f"{source}-{shard:05d}",
    unkeyed=("shard",),
    libraries=("pillow", "pillow-heif", "simplejpeg"),
)
def cropped_pictures(
    run: StepRun, *, images: Ref, canonical: Canonical, enlarge: bool, source: str, shard: int
) -> Output:
    """What windows of the crop path are cut from: `CROPPED_SCHEMA`, whole pictures with their history's encoding.

    Rows are called `source`. Pictures that their history leaves out are left out, and undecodable ones too. Both are
    counted.
    """
    assert not enlarge, "nothing is enlarged on the crop path"
    table = read_table(run.store, images, columns=["image", *FEATURE_COLUMNS, *SIZE_COLUMNS])
    progress = run.progress(table.num_rows)
    rows, notes = [], {"left_out": 0, "undecodable": 0}
    for row, data in _pictures(called(table, source, canonical.history)):
        progress.advance()
        if canonical.history is not None and canonical.history.leaves_out(row["jpeg_quality"]):
            notes["left_out"] += 1
            continue
        try:
            file = with_history(data, row["image_id"], canonical.history)
            height, width = decode_rgb(file).shape[:2]
        except BadImage:
            notes["undecodable"] += 1
            continue
        of_file = {"canonical": file, "width": width, "height": height}
        rows.append(row | of_file | {"quality": canonical_quality(row["image_id"], canonical)})
    return Output({ROWS: pa.Table.from_pylist(rows, schema=CROPPED_SCHEMA)}, notes)


def _pictures(table: pa.Table) -> Iterator[tuple[dict[str, Any], bytes]]:
    files = pc.struct_field(table["image"], "bytes")
    for number, row in enumerate(table.drop_columns(["image"]).to_pylist()):
        yield row, files[number].as_py()
