"""Detectors that ran elsewhere: a table says which score each picture got in each cell."""

from __future__ import annotations

import csv
import logging
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import quote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from storage.errors import SpecError
from storage.objects import ROWS, Ref
from storage.tables import SCORE_SCHEMA
from tasks.brought_files import BroughtFiles, files_question, missing_files, read_file
from tasks.data.canonical import name_in_cell, picture_name, picture_rows
from tasks.data.entries import refuse_large
from tasks.detectors.base import SCORE_ORDER, Grid, Inputs, picture_shards, score_place, shown_as, tested_as
from tasks.detectors.pictures import PictureDetector
from tasks.facts import Question
from tasks.recipe import Output, StepRun, step
from tasks.spec.base import LocalPath, Truth
from tasks.spec.detectors import Fit
from tasks.spec.splits import Splits
from tasks.spec.views import Cell, View
from tasks.variables import needed

KEY = ("source", "image_id", "cell")
COLUMNS = (*KEY, "score")
# Of a table that `telltale pictures` wrote: what it calls a picture's file says which picture it is.
FILE = "file"

_DELIMITERS = (",", ";", "\t")
# How many pictures a sentence names.
_EXAMPLES = 3

# `name_in_cell` of a file, in whatever folder and format, and the cell's folder, if it lies in one.
_NAME = r"(?:^|[/\\])([0-9a-f]{20})(?:\.\w+)?$"
_CELL = r"(native|[1-9][0-9]*)/.+"
_FOLDER = r"(?:^|[/\\])((?:native|[1-9][0-9]*)[/\\][^/\\]+)[/\\][0-9a-f]{20}(?:\.\w+)?$"

Picture = tuple[str, str]  # source, image_id
Given = Sequence[Any]  # a score, and the `name_in_cell` that the table says with it

logger = logging.getLogger(__name__)


class ScoresTable(PictureDetector):
    """Scores from any system: a CSV or Parquet file with the columns `source`, `image_id`, `cell` and `score`.

    Cells go by their names (`64/q20`). A larger score looks more like a fake. Every test picture stands there once for
    each cell, every val picture for the cells without a perturbation alone, from which thresholds come; `telltale
    pictures` writes these pictures, and the table to fill in. Where its column `file` is left as it is, scores of
    pictures that have changed since are refused; `sealed` refuses a table that does not say of every score which file
    it is of. Other columns are not looked at, nor are cells that the experiment has not.
    """

    # It has the scores of the pictures that were written for it.
    can_be_asked_anew: ClassVar[bool] = False

    kind: Literal["scores"] = "scores"
    table: LocalPath
    sealed: Truth = Field(default=False, exclude_if=operator.not_)

    @property
    def title(self) -> str:
        return "scores from a table"

    @property
    def brings(self) -> BroughtFiles:
        return BroughtFiles.at(self.table, self.pool)

    @model_validator(mode="after")
    def _has_one_score_of_a_picture(self) -> Self:
        if self.windows != 1:
            raise ValueError(f"windows: a table has one score of each picture, of its first window, got {self.windows}")
        return self

    def missing(self) -> list[str]:
        absent = missing_files(self.table, f"{self.name}: the table of scores")
        if absent:
            return absent
        path = Path(needed(self.table))
        try:
            refuse_large(path)
            scores = read_scores(path.read_bytes())
            if self.sealed and (unsaid := scores["picture"].null_count()):
                raise SpecError(
                    f"{unsaid} of {len(scores)} rows do not name the file that was scored: a submission keeps the "
                    f"column {FILE} as `telltale pictures` wrote it"
                )
        except (SpecError, OSError) as error:
            return [f"{self.name}: {path}: {error}"]
        return []

    def facts(self) -> list[Question]:
        return [files_question(self.table, self.pool)]

    def parts(self, fit: Fit, views: tuple[View, ...], grid: Grid, inputs: Inputs) -> list[Any]:
        return [
            score_by_table.submit(
                fit=fit,
                table=inputs.models[self.brings],
                pictures=tuple(shard["pictures"] for shard in picture_shards(grid, inputs)),
                views=views,
                val_views=self.threshold_views(grid),
                splits=grid.splits,
                cells=grid.cells,
            )
        ]


def read_scores(data: bytes) -> pl.DataFrame:
    """The columns `COLUMNS` of a CSV or Parquet file, scores as float64.

    A fifth column, `picture`, is the `name_in_cell` in the name of a file, null where none is told.

    Raises:
        SpecError: columns are missing or of other types, a cell's name is none, a score is not finite, a picture has
            two in a cell, or a file lies in the folder of another cell.
    """
    frame = _parquet_columns(data) if data.startswith(b"PAR1") else _csv_columns(data)
    for name in KEY:
        unsaid = frame.filter(pl.col(name).is_null() | (pl.col(name) == ""))
        if len(unsaid):
            raise SpecError(f"{name} is empty in {len(unsaid)} of {len(frame)} rows")
    _refuse_nameless_cells(frame)
    _refuse_unscored(frame)
    _refuse_doubles(frame)
    _refuse_files_of_other_cells(frame)
    named = pl.col(FILE).str.extract(_NAME) if FILE in frame.columns else pl.lit(None, pl.String)
    return frame.select(*KEY, score="number", picture=named)


def folder_of(cell: str) -> str:
    """Where `telltale pictures` puts the files of a cell of this name."""
    resolution, _, perturbation = cell.partition("/")
    return f"{resolution}/{quote(perturbation, safe='')}"


def _refuse_nameless_cells(frame: pl.DataFrame) -> None:
    """Only the form is looked at: which perturbations there are, the experiment says."""
    nameless = [cell for cell in frame["cell"].unique(maintain_order=True) if not re.fullmatch(_CELL, cell)]
    if nameless:
        shown = ", ".join(repr(cell) for cell in nameless[:_EXAMPLES])
        raise SpecError(f"a cell is named like 64/q20 or native/none, got {shown}")


def _refuse_files_of_other_cells(frame: pl.DataFrame) -> None:
    if FILE not in frame.columns:
        return
    folders = {cell: folder_of(cell) for cell in frame["cell"].unique()}
    said = pl.col(FILE).str.extract(_FOLDER).str.replace_all("\\", "/", literal=True)
    others = frame.filter(said != pl.col("cell").replace_strict(folders, return_dtype=pl.String))
    if len(others):
        shown = [f"{file} in {cell}" for cell, file in others.select("cell", FILE).head(_EXAMPLES).iter_rows()]
        raise SpecError(f"{len(others)} rows name a file of another cell, such as {'; '.join(shown)}")


def _refuse_unscored(frame: pl.DataFrame) -> None:
    unscored = frame.filter(~pl.col("number").is_finite().fill_null(False))
    if len(unscored):
        shown = [f"{_named(row[:2])} in {row[2]} ({row[3]!r})" for row in unscored.head(_EXAMPLES).iter_rows()]
        raise SpecError(f"{len(unscored)} of {len(frame)} rows have no finite score, such as {'; '.join(shown)}")


def _refuse_doubles(frame: pl.DataFrame) -> None:
    twice = frame.filter(frame.select(KEY).is_duplicated()).unique(KEY, maintain_order=True)
    if len(twice):
        shown = [f"{_named(row[:2])} in {row[2]}" for row in twice.head(_EXAMPLES).iter_rows()]
        raise SpecError(f"{len(twice)} pictures are there more than once in a cell, such as {'; '.join(shown)}")


def _csv_columns(data: bytes) -> pl.DataFrame:
    header, delimiter = _csv_header(data)
    _refuse_others(header)
    try:
        columns = _read_of(header)
        frame = pl.read_csv(data, separator=delimiter, columns=columns, infer_schema=False, empty_string_is_null=False)
    except pl.exceptions.PolarsError as error:
        said = str(error).partition("\n")[0]
        raise SpecError(f"neither Parquet nor readable as CSV in UTF-8, it may be cut off: {said}") from error
    number = pl.col("score").str.strip_chars().cast(pl.Float64, strict=False)
    return frame.select(columns).with_columns(number=number)


def _csv_header(data: bytes) -> tuple[list[str], str]:
    """The names of a CSV file's columns, and what separates them: spreadsheets of some languages write semicolons."""
    line = data[:100_000].removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    try:
        headers = {delimiter: next(csv.reader([line], delimiter=delimiter), []) for delimiter in _DELIMITERS}
    except csv.Error as error:
        raise SpecError(
            "neither Parquet nor readable as CSV: there is a bare carriage return in its first line; "
            "if it is a table, save it again as CSV in UTF-8 with line ends of Unix or Windows"
        ) from error
    fitting = [delimiter for delimiter, header in headers.items() if set(COLUMNS) <= set(header)]
    delimiter = (fitting or _DELIMITERS)[0]
    return headers[delimiter], delimiter


def _read_of(header: Sequence[str]) -> list[str]:
    return [*COLUMNS, *([FILE] if list(header).count(FILE) == 1 else [])]


def _refuse_others(header: Sequence[str]) -> None:
    if not set(COLUMNS) <= set(header):
        raise SpecError(f"expected the columns {', '.join(COLUMNS)}, got {', '.join(header)[:200] or 'none'}")
    doubled = [name for name in COLUMNS if list(header).count(name) > 1]
    if doubled:
        raise SpecError(f"two columns are called {doubled[0]}: rename one")


def _parquet_columns(data: bytes) -> pl.DataFrame:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        _refuse_others(file.schema_arrow.names)
        columns = _read_of([field.name for field in file.schema_arrow if field.name != FILE or _is_text(field.type)])
        table = file.read(columns=columns, use_threads=False).select(columns)
    except (pa.ArrowException, OSError) as error:
        raise SpecError(f"not readable as Parquet, it may be cut off: {error}") from error
    for field in table.schema:
        is_number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        if not (is_number if field.name == "score" else _is_text(field.type)):
            expected = "numbers" if field.name == "score" else "text"
            raise SpecError(f"column {field.name}: expected {expected}, got {field.type}")
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame = frame.with_columns(pl.col(name).cast(pl.String) for name in columns if name != "score")
    return frame.with_columns(number=pl.col("score").cast(pl.Float64))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


@step(
    "score/table",
    version=1,
    label=lambda *, fit, views, **_: f"{fit.label}/{views.name}",
    each="views",
    unkeyed=("cells",),
)
def score_by_table(
    run: StepRun,
    *,
    fit: Fit,
    table: Ref,
    pictures: tuple[Ref, ...],
    views: tuple[View, ...],
    val_views: tuple[View, ...],
    splits: Splits,
    cells: tuple[Cell, ...],
) -> dict[View, Output]:
    """The scores that a table has for all shards of canonical pictures in every missing view, not calibrated yet.

    Raises:
        SpecError: a picture that a view shows has no score, one that it does not show has one, or a score is of a
            picture that had the id before, or of a chain that had the name before.
    """
    scores, tested = read_scores(read_file(run.store, table)), {}
    progress = run.progress(sum(ref.rows for ref in pictures))
    for row in chain.from_iterable(picture_rows(run.store, ref) for ref in pictures):
        if tested_as(row, splits):
            known = {name: row[name] for name in row if name != "canonical"} | {"picture": picture_name(row)}
            tested[row["source"], row["image_id"]] = known
        progress.advance()
    shown_in = {view: Cell(resolution=view.resolution, perturbation=view.perturbation) for view in views}
    given = {view: _of_cell(scores, cell.name) for view, cell in shown_in.items()}
    shown = {
        view: {key: roles for key, row in tested.items() if (roles := shown_as(row, view, val_views, splits))}
        for view in views
    }
    ignored = sorted(set(scores["cell"].unique()) - {cell.name for cell in cells})
    problems = [line for view in views for line in _problems(shown_in[view], given[view], shown[view], tested)]
    if problems:
        beside = f"; its cells {', '.join(ignored[:6])} are none of this experiment" if ignored else ""
        said = "; ".join(problems[:6]) + beside
        raise SpecError(f"{fit.label}: {said}: `telltale pictures` writes the table to fill in")
    if ignored:
        logger.warning("%s: the table's cells %s are none of this experiment: ignored", fit.label, ", ".join(ignored))
    made = {view: list(_rows(fit, view, given[view], shown[view], tested)) for view in views}
    return {
        view: Output(
            {ROWS: pa.Table.from_pylist(rows, schema=SCORE_SCHEMA).sort_by(SCORE_ORDER)},
            {"rows": len(rows), "unscored": 0, "ignored_cells": ignored},
        )
        for view, rows in made.items()
    }


def _of_cell(scores: pl.DataFrame, cell: str) -> dict[Picture, Given]:
    """The scores of a cell, each with the `name_in_cell` that it is said to be of, None where that is not said."""
    return {(source, image_id): given for source, image_id, _, *given in scores.filter(cell=cell).iter_rows()}


def _problems(
    cell: Cell,
    given: Mapping[Picture, Given],
    shown: Mapping[Picture, Any],
    tested: Mapping[Picture, Mapping[str, Any]],
) -> Iterator[str]:
    """What is wrong with a cell's scores, a sentence each."""
    lacking = [key for key in shown if key not in given]
    if lacking:
        yield f"{cell.name}: {len(lacking)} of {len(shown)} pictures have no score, such as {_such_as(lacking)}"
    others = [key for key in given if key not in shown]
    if others:
        yield f"{cell.name}: {len(others)} scores are of pictures that it does not show, such as {_such_as(others)}"
    named = {key: name for key, (_, name) in given.items() if key in shown and name is not None}
    changed = [key for key, name in named.items() if name != name_in_cell(tested[key]["picture"], cell)]
    if changed:
        yield f"{cell.name}: {len(changed)} scores are of pictures that have changed since, such as {_such_as(changed)}"


def _rows(
    fit: Fit,
    view: View,
    given: Mapping[Picture, Given],
    shown: Mapping[Picture, Sequence[tuple[int, str]]],
    tested: Mapping[Picture, Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    place = score_place(fit, view) | {"p_fake": None, "class_probabilities": None}
    for key, roles in shown.items():
        of = {name: tested[key][name] for name in ("image_id", "group_id", "source", "label")}
        for rotation, split in roles:
            yield of | place | {"decision": given[key][0], "split": split, "fold": rotation}


def _such_as(pictures: Sequence[Picture]) -> str:
    return "; ".join(_named(picture) for picture in sorted(pictures)[:_EXAMPLES])


def _named(picture: Sequence[str]) -> str:
    return f"{picture[0]}, {picture[1]}"
