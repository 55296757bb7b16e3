"""The data that the explorer's page reads: a few small files, so that it finds what it shows without reading the rest.

Every table has one row per tested picture of a source, in one order. A page reads the columns that it needs, by range
requests where the host answers them; `explorer/` has the page.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from storage.digest import canonical_json
from tasks.explorer.pictures import KEY, ShownPictures, ShownSource
from tasks.spec.detectors import Role
from tasks.spec.experiment import Mix
from tasks.spec.views import Cell, Path

VERSION = 1
RUN, PAIRS = "run.json", "pairs.json"
# A host that does not answer range requests sends whole files.
PACK_BYTES = 2_000_000
_TEXTS_AT_ONCE = 2_000
_PAGE_BYTES = 16_384
# Texts that are searched lie in files of so many pictures: a browser's strings have their limits.
_WORDS_AT_ONCE = 25_000
_SEARCHED = ("image_id", "file", "prompt", "caption")


def explorer_files(
    pictures: ShownPictures,
    views: pl.DataFrame,
    cells: Sequence[Cell],
    sources: Sequence[ShownSource],
    mixes: Sequence[Mix],
    pairs: pl.DataFrame,
    path: Path,
    experiment: str,
    pack_bytes: int = PACK_BYTES,
) -> dict[str, bytes]:
    """The files of the explorer's folder `data/` by name; `pairs` is in PAIR_SCHEMA, `views` in VIEW_SCHEMA."""
    packs, places = packed(list(pictures.rows["thumbnail"]), pack_bytes)
    formats = sorted(set(pictures.rows["format"].drop_nulls()))
    files = {f"thumbnails-{number}.bin": pack for number, pack in enumerate(packs)}
    files["pictures.parquet"] = _parquet(_numbers(pictures, [one.name for one in sources], formats, places))
    files["texts.parquet"] = _parquet(_texts(pictures.rows), _TEXTS_AT_ONCE)
    words = _words(pictures.rows)
    files |= {f"words-{number}.bin": part for number, part in enumerate(words)}
    view_packs, view_places = packed(list(views["picture"]), pack_bytes)
    files |= {f"views-{number}.bin": pack for number, pack in enumerate(view_packs)}
    detectors = [name for name, _, _ in pictures.detectors]
    files["views.parquet"] = _parquet(
        _views(pictures.rows, views, [cell.name for cell in cells], detectors, view_places)
    )
    for number, cell in enumerate(cells):
        columns = {
            name: pa.array(said.p_fake, from_pandas=True)
            for (of, name), said in pictures.answers.items()
            if of == cell.name
        }
        files[f"scores-{number}.parquet"] = _parquet(pa.table(columns))
    files[PAIRS] = canonical_json(pairs.select(_PAIR_COLUMNS).to_dicts()).encode()
    files[RUN] = canonical_json(
        {
            "version": VERSION,
            "experiment": experiment,
            "pictures": len(pictures.rows),
            "path": path,
            "cells": [_cell(number, cell) for number, cell in enumerate(cells)],
            "detectors": [_detector(*one, pictures) for one in pictures.detectors],
            "sources": [{"name": one.name, "label": one.label, "of": one.of} for one in sources],
            "mixes": [{"name": one.name, "real": one.real, "fakes": one.fakes} for one in mixes],
            "formats": formats,
            "thumbnails": len(packs),
            "words": {"files": len(words), "pictures": _WORDS_AT_ONCE},
            "views": {"rows": len(views), "pictures": views.select(KEY).n_unique()},
        }
    ).encode()
    return files


_PAIR_COLUMNS = (
    *("resolution", "perturbation", "mix", "detector", "than_detector", "than_perturbation", "metric"),
    *("difference", "low", "high", "p"),
)


def _cell(number: int, cell: Cell) -> dict[str, Any]:
    return {
        "name": cell.name,
        "resolution": str(cell.resolution),
        "perturbation": cell.perturbation_name,
        "file": f"scores-{number}.parquet",
    }


def _detector(name: str, title: str, role: Role, pictures: ShownPictures) -> dict[str, Any]:
    thresholds = {
        cell: {str(fold): limit for fold, limit in said.thresholds.items()}
        for (cell, of), said in pictures.answers.items()
        if of == name
    }
    return {"name": name, "title": title, "role": role, "thresholds": thresholds}


def packed(
    files: Sequence[bytes | None], most: int = PACK_BYTES
) -> tuple[list[bytes], list[tuple[int, int, int] | None]]:
    """Small files one after the other in larger ones of at most so many bytes, and (which, offset, length) of each."""
    packs: list[bytearray] = []
    places: list[tuple[int, int, int] | None] = []
    # Versions of a photograph share its thumbnail.
    known: dict[bytes, tuple[int, int, int]] = {}
    for file in files:
        if file is None:
            places.append(None)
            continue
        if file not in known:
            if not packs or len(packs[-1]) + len(file) > most:
                packs.append(bytearray())
            known[file] = (len(packs) - 1, len(packs[-1]), len(file))
            packs[-1] += file
        places.append(known[file])
    return [bytes(pack) for pack in packs], places


def _numbers(
    pictures: ShownPictures,
    sources: Sequence[str],
    formats: Sequence[str],
    places: Sequence[tuple[int, int, int] | None],
) -> pa.Table:
    """What is known of each picture in numbers; sources and formats by their place in these lists."""
    rows = pictures.rows.select(
        pl.col("source").replace_strict({name: place for place, name in enumerate(sources)}, return_dtype=pl.Int32),
        *(pl.col(name).cast(pl.Int32) for name in ("fold", "group", "width", "height")),
        pl.col("bytes").cast(pl.Int64).clip(upper_bound=2**31 - 1).cast(pl.Int32),
        pl.col("format").replace_strict({name: place for place, name in enumerate(formats)}, return_dtype=pl.Int32),
        pl.col("jpeg_quality").cast(pl.Int32),
        *(
            pl.Series(name, [None if place is None else place[index] for place in places], pl.Int32)
            for index, name in enumerate(("thumbnail", "offset", "length"))
        ),
    )
    return rows.to_arrow()


def _texts(rows: pl.DataFrame) -> pa.Table:
    texts = rows.select(
        *("image_id", "group_id", "file", "prompt", "caption"),
        pl.col("categories").list.join(", "),
        *("licence", "sha256"),
    )
    return texts.to_arrow()


def _words(rows: pl.DataFrame) -> list[bytes]:
    """What may be searched of each picture, in small letters, a line each: gzip files, as a browser reads them fast."""
    columns = [*(pl.col(name) for name in _SEARCHED), pl.col("categories").list.join(", ")]
    texts = [column.fill_null("").str.to_lowercase().str.replace_all(r"[\n\t]", " ") for column in columns]
    lines = rows.select(pl.concat_str(texts, separator="\t")).to_series()
    parts = [lines[start : start + _WORDS_AT_ONCE] for start in range(0, len(lines), _WORDS_AT_ONCE)]
    return [gzip.compress("".join(f"{line}\n" for line in part).encode(), mtime=0) for part in parts]


def _views(
    rows: pl.DataFrame,
    views: pl.DataFrame,
    cells: Sequence[str],
    detectors: Sequence[str],
    places: Sequence[tuple[int, int, int] | None],
) -> pa.Table:
    """Where the views of some pictures lie: picture, cell and detector by their places, -1 where it is of none."""
    found = views.join(rows.select(KEY).with_row_index("picture_row"), on=KEY, how="left", maintain_order="left")
    return found.select(
        pl.col("picture_row").cast(pl.Int32).alias("picture"),
        *(
            pl.col(name)
            .replace_strict({one: place for place, one in enumerate(known)}, return_dtype=pl.Int32)
            .fill_null(-1)
            for name, known in (("cell", cells), ("detector", detectors))
        ),
        *(
            pl.Series(name, [None if place is None else place[index] for place in places], pl.Int32)
            for index, name in enumerate(("file", "offset", "length"))
        ),
    ).to_arrow()


def _parquet(table: pa.Table, rows_at_once: int | None = None) -> bytes:
    """One row group unless said otherwise; texts as `string`, which every reader knows."""
    fields = [
        pa.field(
            one.name, pa.string() if pa.types.is_large_string(one.type) or one.type == pa.string_view() else one.type
        )
        for one in table.schema
    ]
    sink = io.BytesIO()
    pq.write_table(
        table.cast(pa.schema(fields)),
        sink,
        row_group_size=rows_at_once or max(1, table.num_rows),
        compression="snappy",
        # One picture's answers are a page, found by the index.
        write_page_index=True,
        data_page_size=_PAGE_BYTES,
        use_dictionary=[field.name for field in fields if field.type in (pa.string(), pa.int32())],
        store_schema=False,
    )
    return sink.getvalue()
