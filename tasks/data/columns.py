"""From one column of pictures of a Parquet file, or of a directory of them, to its entry table.

This is how a published set enters that holds a prompt and several generators' pictures of it in every row, such as D3
(Baraldi et al., "Contrasting Deepfakes Diffusion via Contrastive Learning and Global-Local Similarities", 2024): each
column is a source of its own, and what comes from one row shares a group over all of them.

Only footers, prompts and groups are read here. A row without a picture is set aside, in this source only, when its
pictures are scanned.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from storage.errors import MissingInput, SpecError
from storage.objects import ROWS
from tasks.data.entries import (
    ENTRY_SCHEMA,
    QUARANTINE,
    cell_name,
    column_problem,
    group_name,
    is_safe_name,
    open_parquet,
    picture_column,
    prompt_group,
    quarantine_table,
    row_name,
    stated_text,
    unreadable_parquet,
    without_bytes,
)
from tasks.data.inventory import Inventory, Listed, list_files, outside_folders, take_inventory
from tasks.data.metadata import called_like_prompts, told_columns
from tasks.recipe import Output

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class ParquetPart:
    """One Parquet file of a set; `name` counts from the set's directory and is empty where the set is this one file."""

    name: str
    path: Path
    rows: int
    schema: pa.Schema
    is_without: bool  # as the footer has it, no row has a picture in the source's column


class ColumnOfPictures(Protocol):
    """What is asked of a source that is one column of a Parquet file or of several, its path on this machine."""

    name: str
    path: str
    column: str
    prompt_column: str | None
    group_column: str | None
    label: Literal["real", "fake"]
    limit: int | None


def check_column(source: ColumnOfPictures) -> list[str]:
    """What is missing for a run on this source, each with its remedy; empty when all is there. Only footers are read.

    What concerns the files and not the column is said without the source's name: its siblings lack the same.
    """
    if not Path(source.path).exists():
        return [f"{source.path}: expected a Parquet file, or a directory of them, with columns of pictures"]
    outside = outside_folders(list_files(Path(source.path))) if Path(source.path).is_dir() else None
    if outside is not None:
        return [f"Parquet files below {source.path}: {outside}"]
    if not _listed(Path(source.path)):
        return [f"Parquet files below {source.path}: put them there, or name another path"]
    wrong: dict[str, list[str]] = {}
    needed = list(_needed(source))
    for part in needed:
        name = part.name if isinstance(part, ParquetPart) else part[0]
        for problem in _problems(source, part) if isinstance(part, ParquetPart) else [str(part[1])]:
            wrong.setdefault(problem, []).append(name or Path(source.path).name)
    if not wrong and all(isinstance(part, ParquetPart) and part.is_without for part in needed):
        return [f"{source.path}: pictures for {source.name}: {source.column!r} is null in all rows, or there are none"]
    return [
        f"{source.path}: {names[0]}{f' and {len(names) - 1} more files' if names[1:] else ''}: {problem}"
        for problem, names in wrong.items()
    ]


def column_inventory(source: ColumnOfPictures) -> Inventory:
    """Names and content of the files that hold the first `limit` rows.

    Raises:
        MissingInput: `check_column` finds something missing.
        InputChanged: a file is being written to.
    """
    return _inventory(Path(source.path), _checked_parts(source))


def column_entries(source: ColumnOfPictures, inventory: str) -> Output:
    """The entry table of one column: one row for each of the files', in the order of the files' names.

    Raises:
        MissingInput: files or columns have gone since the inventory.
        InputChanged: `inventory` is not the digest of `column_inventory(source)`.
        SpecError: a file's prompts or groups are damaged.
    """
    parts = _checked_parts(source)
    found = _inventory(Path(source.path), parts)
    found.expect(inventory, source.name)
    listed = itertools.islice(_entries(source, parts, found.sha256), source.limit)
    tables = [ENTRY_SCHEMA.empty_table()]
    while rows := list(itertools.islice(listed, _ROWS_AT_ONCE)):
        tables.append(pa.Table.from_pylist(rows, schema=ENTRY_SCHEMA))
    entries = pa.concat_tables(tables)
    notes = {
        "n": entries.num_rows,
        "quarantined": 0,
        "without_prompt": entries["prompt"].null_count if source.prompt_column else None,
        "warnings": [f"{source.name}: {warning}" for warning in _warnings(source, parts[0].schema)],
    }
    return Output({ROWS: entries, QUARANTINE: quarantine_table([])}, notes)


def _warnings(source: ColumnOfPictures, schema: pa.Schema) -> list[str]:
    """What is said where nothing tells which rows belong together though columns may."""
    if source.prompt_column or source.group_column:
        return []
    told = told_columns(schema)
    prompts = called_like_prompts(told)
    if prompts:
        return [f"prompts are not read from {prompts}: name one as prompt_column"]
    if told and source.label == "fake":
        return [
            f"each row is a group of its own, {told[:10]} are not read: name the one of prompts as prompt_column, or "
            "the one that says which rows belong together as group_column"
        ]
    return []


def _inventory(root: Path, parts: Sequence[ParquetPart]) -> Inventory:
    return take_inventory(root, [Listed(part.name, part.path.stat()) for part in parts], lambda name: True)


def _checked_parts(source: ColumnOfPictures) -> list[ParquetPart]:
    missing = check_column(source)
    if missing:
        raise MissingInput(*missing)
    return [part for part in _needed(source) if isinstance(part, ParquetPart)]


def _listed(path: Path) -> list[tuple[str, Path]]:
    """Every Parquet file with its name; others, such as a read-me beside them, are no part of the set."""
    if path.is_file():
        return [("", path)]
    # A link may lead anywhere, as in the cache of a model hub: its name is its directory's, not an annotation's.
    return [
        (item.name, path / item.name) for item in list_files(path) if item.is_file and item.name.endswith(".parquet")
    ]


def _needed(source: ColumnOfPictures) -> Iterator[ParquetPart | tuple[str, SpecError]]:
    """The files that hold the first `limit` rows; for one that cannot be used, its name and why."""
    left = source.limit
    for name, file in _listed(Path(source.path)):
        if left is not None and left <= 0:
            return
        try:
            part = _opened(name, file, source.column)
        except SpecError as error:
            yield name, error
            continue
        yield part
        left = None if left is None else left - part.rows


def _opened(name: str, path: Path, column: str) -> ParquetPart:
    if name and not is_safe_name(name):
        raise SpecError(f"{name!r} is a name that cannot be written down: rename the file")
    with open_parquet(path) as file:
        rows, schema = file.metadata.num_rows, file.schema_arrow
        found = picture_column(schema, column)
        is_without = not rows or (found is not None and without_bytes(file, found[0]))
        return ParquetPart(name, path, rows, schema, is_without)


def _problems(source: ColumnOfPictures, part: ParquetPart) -> Iterator[str]:
    schema = part.schema
    problem = column_problem(schema, source.column)
    if problem is not None:
        yield f"for {source.name}, {problem}"
    for name in _described_by(source):
        if schema.names.count(name) != 1 or not _is_told(schema.field(name).type):
            yield f"expected a column {name!r} of texts or numbers, got the columns {schema.names}"


def _is_told(kind: pa.DataType) -> bool:
    """Whether a column can say prompts or groups: texts, numbers, or lists of them."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return not pa.types.is_nested(kind)


def _described_by(source: ColumnOfPictures) -> list[str]:
    return list(dict.fromkeys(name for name in (source.prompt_column, source.group_column) if name))


def _entries(
    source: ColumnOfPictures, parts: Sequence[ParquetPart], sha256: Mapping[str, str | None]
) -> Iterator[dict[str, Any]]:
    position = 0
    for part in parts:
        # What a row is called must not say where the set lies: it may be moved.
        of_file = str(sha256[part.name])[:12]
        for row, known in enumerate(_descriptions(part, _described_by(source))):
            prompt = stated_text(known.get(source.prompt_column))
            group = stated_text(known.get(source.group_column))
            if group is not None:
                group = group_name(group)
            else:
                group = f"{row_name(row)}:{of_file}" if prompt is None else prompt_group(prompt)
            yield {
                "position": position,
                "image_id": f"{source.name}:{part.name}{'/' if part.name else ''}row-{row:09d}",
                "file": cell_name(row, source.column, part.name),
                "sha256": sha256[part.name],
                "group_id": group,
                "prompt": prompt,
                "caption": None,
                "categories": [],
                "licence": None,
                "seed": None,
            }
            position += 1


def _descriptions(part: ParquetPart, columns: list[str]) -> Iterator[dict[str | None, Any]]:
    """What a file says of each of its rows, some thousand rows in memory at a time."""
    if not columns:
        yield from itertools.repeat({}, part.rows)
        return
    try:
        with open_parquet(part.path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise unreadable_parquet(part.path, error) from error
