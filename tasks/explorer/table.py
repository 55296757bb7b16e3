"""One table that opens anywhere: a row per tested picture and cell, with what every detector said."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from storage.tables import FAKE, IMAGE_METADATA, REAL
from tasks.evaluation.cells import drawn_pictures
from tasks.explorer.pictures import KEY, Answers, ShownPictures
from tasks.explorer.thumbnails import FACT_COLUMNS, LONGEST_SIDE, THUMBNAIL_SCHEMA
from tasks.spec.experiment import Mix
from tasks.spec.views import Cell, Path

TABLE, CARD = "pictures.parquet", "pictures.md"
# What stands behind a detector's name in the names of its columns.
P_FAKE, VERDICT = "_p_fake", "_verdict"
_ANYTHING_SAID = pl.any_horizontal(pl.col(f"^.*{P_FAKE}$").is_not_null())
# Of each picture the cells follow one another: its thumbnail is kept once in a row group.
_PICTURES_AT_ONCE = 200
_DICTIONARY_BYTES = 8 << 20


def pictures_schema(detectors: Sequence[str]) -> pa.Schema:
    """The table's columns: what is known of a picture, then `NAME_p_fake` and `NAME_verdict` of every detector."""
    of_detectors = [
        field
        for name in detectors
        for field in (pa.field(name + P_FAKE, pa.float64()), pa.field(name + VERDICT, pa.string()))
    ]
    return pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),  # a thumbnail
            *((name, pa.string()) for name in ("image_id", "group_id", "source", "truth")),
            ("fold", pa.int32()),
            *((name, pa.string()) for name in ("path", "resolution", "perturbation")),
            ("drawn", pa.list_(pa.string())),  # the mixes whose figures count this picture
            *(THUMBNAIL_SCHEMA.field(name) for name in ("file", "bytes", *FACT_COLUMNS)),
            *((name, pa.float32()) for name in ("x", "y")),
            *of_detectors,
        ],
        metadata=IMAGE_METADATA,
    )


def pictures_table(
    pictures: ShownPictures,
    cells: Sequence[Cell],
    projected: npt.NDArray[np.float64],
    path: Path,
    mixes: Sequence[Mix],
    seed: int,
) -> bytes:
    """The table as a Parquet file; `projected` (N, 2) are the pictures' places in a plane, `seed` is the experiment's.

    A picture has no row in a cell in which no detector said anything of it.
    """
    schema = pictures_schema([name for name, _, _ in pictures.detectors])
    known = pictures.rows.with_columns(
        image=pl.struct(pl.col("thumbnail").alias("bytes"), pl.lit(None, pl.String).alias("path")),
        truth=pl.col("label").replace_strict({REAL: "photograph", FAKE: "generated"}, return_dtype=pl.String),
        path=pl.lit(path),
        x=pl.Series(projected[:, 0]).fill_nan(None),
        y=pl.Series(projected[:, 1]).fill_nan(None),
    ).with_row_index("place")
    said = {cell: _said(pictures, cell, mixes, seed) for cell in cells}
    sink = io.BytesIO()
    # Whole thumbnails would be the least and the greatest one.
    told = [name for name in schema.names if name != "image"]
    options = {"compression": "zstd", "dictionary_pagesize_limit": _DICTIONARY_BYTES, "write_statistics": told}
    with pq.ParquetWriter(sink, schema, **options) as writer:
        for start in range(0, len(known), _PICTURES_AT_ONCE):
            some = known[start : start + _PICTURES_AT_ONCE]
            rows = pl.concat(_in_cell(some, cell, of[start : start + _PICTURES_AT_ONCE]) for cell, of in said.items())
            rows = rows.sort("place", maintain_order=True).select(schema.names)
            writer.write_table(rows.to_arrow().cast(schema))
    return sink.getvalue()


def _said(pictures: ShownPictures, cell: Cell, mixes: Sequence[Mix], seed: int) -> pl.DataFrame:
    """What all detectors said of all pictures in a cell: two columns each; and which mixes count a picture."""
    nothing = Answers(np.full(len(pictures.rows), np.nan), {})
    columns = []
    for name, _, _ in pictures.detectors:
        answers = pictures.answers.get((cell.name, name), nothing)
        columns.append(pl.Series(f"{name}{P_FAKE}", answers.p_fake).fill_nan(None))
        columns.append(pl.Series(f"{name}{VERDICT}", answers.verdicts(pictures.folds), pl.String))
    said = pl.DataFrame(columns)
    asked = pictures.rows.select(*KEY, "label").filter(said.select(_ANYTHING_SAID).to_series())
    return said.with_columns(_drawn(pictures, asked.drop_nulls("label"), mixes, seed))


def _drawn(pictures: ShownPictures, asked: pl.DataFrame, mixes: Sequence[Mix], seed: int) -> pl.Series:
    """The names of the mixes that draw each picture, as an evaluation does of those that were asked about."""
    test = asked.sort("image_id", "source")
    of_mixes = [
        drawn_pictures(test, mix.real, mix.fakes, seed, mix.versions).select(*KEY, drawn=pl.lit(mix.name))
        for mix in mixes
    ]
    nothing = pl.DataFrame(schema={**dict.fromkeys(KEY, pl.String), "drawn": pl.String})
    named = pl.concat([nothing, *of_mixes]).group_by(KEY).agg("drawn")
    found = pictures.rows.select(KEY).join(named, on=KEY, how="left", maintain_order="left")["drawn"]
    return found.fill_null(pl.Series([[]], dtype=pl.List(pl.String)))


def _in_cell(known: pl.DataFrame, cell: Cell, said: pl.DataFrame) -> pl.DataFrame:
    where = {"resolution": str(cell.resolution), "perturbation": cell.perturbation_name}
    rows = pl.concat([known, said], how="horizontal").with_columns(
        **{name: pl.lit(text) for name, text in where.items()}
    )
    return rows.filter(_ANYTHING_SAID)


def data_card(experiment: str, pictures: ShownPictures, cells: Sequence[Cell], layer: str) -> str:
    """What the table is, for those who find it: a dataset card of the Hugging Face Hub, in Markdown."""
    of_detectors = "\n".join(
        f"| `{name}{P_FAKE}`, `{name}{VERDICT}` | {title} ({role}) |" for name, title, role in pictures.detectors
    )
    facts = ", ".join(f"`{name}`" for name in ("file", "bytes", *FACT_COLUMNS))
    return f"""---
pretty_name: telltale, {experiment}
configs:
- config_name: default
  data_files: {TABLE}
---
# What every detector said of every tested picture: {experiment}

{len(pictures.rows)} pictures in {len(cells)} cells: {", ".join(cell.name for cell in cells)}. One row per picture and
cell; a picture is tested once, by the rotation `fold`, and has no row in a cell whose detectors all left it out.
Photographs that took the encoding of a generator's files have a `source` of their own for each.

| column | what it is |
|---|---|
| `image` | a thumbnail: a WebP file of at most {LONGEST_SIDE} pixels a side, of the picture as it came |
| `image_id`, `source` | which picture, and where it is from |
| `group_id` | its group, the unit of splits and intervals |
| `truth` | `photograph` or `generated` |
| `path`, `resolution`, `perturbation` | the cell in which it was seen |
| `drawn` | the mixes whose figures in the report count it: as many photographs as generated pictures |
| {facts} | the file as it came |
| `x`, `y` | the first two principal components of {layer} |
{of_detectors}

`{P_FAKE}` is the calibrated probability that a picture was generated; `{VERDICT}` is `generated` from the threshold on
that its fold's val pictures gave. Thumbnails are reduced copies: the licence of each picture holds for them, too.
"""
