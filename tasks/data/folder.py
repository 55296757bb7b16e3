"""From a directory or a Parquet file of pictures, with optional metadata, to their entry table.

This is how a published set of fakes enters, or any further photographs.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from storage.digest import file_sha256
from storage.errors import MissingInput, SpecError
from storage.objects import ROWS
from tasks.data.entries import (
    ENTRY_SCHEMA,
    QUARANTINE,
    group_name,
    image_columns,
    is_safe_name,
    open_parquet,
    parquet_schema,
    prompt_group,
    quarantine_table,
    quarantined,
    reasons_told,
    refuse_large,
    row_name,
    stated_text,
    unreadable_parquet,
    whole_text,
    without_bytes,
)
from tasks.data.file_kinds import IMAGE_SUFFIXES
from tasks.data.folder_metadata import (
    FOUND_METADATA,
    Told,
    columns_by_file,
    descriptions,
    found_metadata,
    is_picture,
    not_taken,
    prefix_of,
    quoted,
    share_of,
)
from tasks.data.inventory import Inventory, Listed, list_files, outside_folders, take_inventory
from tasks.data.metadata import (
    CAPTION_COLUMNS,
    METADATA_COLUMNS,
    METADATA_SUFFIXES,
    PROMPT_COLUMNS,
    called_like_prompts,
    first_stated,
    known_columns,
    told_columns,
)
from tasks.recipe import Output

_PARQUET = "the Parquet file"
_OR_A_COLUMN = ", or name them in a source of `kind: column`"
# What lies in folders of pictures and is known to say nothing of each of them.
_ABOUT_THE_SET = ("readme", "licen", "notice", "copying", "changelog", "requirements", "dataset_info", ".")


class FolderOfPictures(Protocol):
    """What is asked of a source whose pictures lie in a directory or a Parquet file, its paths on this machine."""

    name: str
    path: str
    metadata: str | None
    label: Literal["real", "fake"]
    limit: int | None
    limit_per_class: int | None
    group_by: str | None


def check_folder(source: FolderOfPictures) -> list[str]:
    """What is missing for a run on this source, each with its remedy; empty when all is there. Fast."""
    return _missing(source, _listing(Path(source.path)))


def _listing(path: Path) -> list[Listed]:
    """What lies in a source's directory; nothing where it is a file, or is not there."""
    return list_files(path) if path.is_dir() else []


def _missing(source: FolderOfPictures, listed: Sequence[Listed]) -> list[str]:
    missing = []
    path = Path(source.path)
    if path.is_dir():
        if not listed:
            missing.append(f"pictures in {source.path}, which {source.name} names: the directory is empty")
        outside = outside_folders(listed)
        if outside is not None:
            missing.append(f"pictures in {source.path}, which {source.name} names: {outside}")
    elif not path.is_file():
        missing.append(f"{source.path}, which {source.name} names: expected a directory or a Parquet file of pictures")
    else:
        try:
            _check_parquet(path)
        except SpecError as error:
            missing.append(f"pictures in {source.path}, which {source.name} names: {error}")
    if source.metadata is not None:
        if not Path(source.metadata).is_file():
            missing.append(f"metadata {source.metadata} of {source.name}: put the file there, or leave metadata out")
        else:
            try:
                refuse_large(Path(source.metadata))
            except SpecError as error:
                missing.append(f"metadata of {source.name}: {error}")
    elif path.is_dir():
        try:
            for found in found_metadata(listed):
                refuse_large(path / found)
        except SpecError as error:
            missing.append(f"metadata of {source.name}: {error}")
    return missing or [*_missing_column(source, listed)]


def _missing_column(source: FolderOfPictures, listed: Sequence[Listed]) -> Iterator[str]:
    """A sentence where nothing that is read of the pictures has the column by which they are grouped."""
    path, column = Path(source.path), source.group_by
    if column is None:
        return
    try:
        found = columns_by_file(path, source.metadata, listed)
    except SpecError as error:
        yield f"metadata of {source.name}: {error}"
        return
    if path.is_file():
        found[_PARQUET] = told_columns(parquet_schema(path))
    if not any(column in columns for columns in found.values()):
        told = "; ".join(f"{file} has {quoted(columns, 10)}" for file, columns in found.items())
        yield (
            f"the column {column!r} by which {source.name} is grouped: {told or 'no metadata are found'}; correct "
            "group_by, or leave it out"
        )


def folder_inventory(source: FolderOfPictures) -> Inventory:
    """What `folder_entries` reads: the pictures' names and content, or the Parquet file's, and the metadata's.

    Raises:
        MissingInput: `check_folder` finds something missing.
        InputChanged: a file is being written to.
    """
    path = Path(source.path)
    listed = _listing(path)
    missing = _missing(source, listed)
    if missing:
        raise MissingInput(*missing)
    metadata = None if source.metadata is None else Path(source.metadata)
    described = None
    if metadata is not None:
        described = [file_sha256(metadata), metadata.suffix, prefix_of(path, metadata)]
    if path.is_file():
        return take_inventory(path, [Listed("", path.stat())], lambda name: True, described)
    return take_inventory(path, listed, _is_read, described, *(not_taken(path, listed) if metadata is None else []))


def folder_entries(source: FolderOfPictures, inventory: str) -> Output:
    """The entry table of a folder or a Parquet file: one row per picture, sorted by relative path (Parquet: by row).

    The group is the metadata's `group_id`, as it stands, so that it can name another source's picture, or what they
    say in the column `group_by` in its place; else a fake's prompt, so that one prompt's pictures by several generators
    stay together; else the picture itself.

    The notes hold `warnings`, sentences for those who read the report.

    Raises:
        SpecError: metadata or Parquet file are broken, no picture is left, or `limit_per_class` finds no class.
        InputChanged: `inventory` is not the digest of `folder_inventory(source)`.
    """
    root, metadata = Path(source.path), source.metadata
    found = folder_inventory(source)
    found.expect(inventory, source.name)
    listed = list(_parquet_pictures(root, source.group_by) if root.is_file() else _folder_pictures(found.listed))
    names = [name for name, file, _ in listed if file is not None]
    told = descriptions(source.name, root, metadata, found.listed, names, source.group_by)
    pictures = []
    aside = told.aside
    for name, file, known in listed:
        if file is not None:
            pictures.append((name, file, {**known, **told.described.get(name, {})}))
        elif name not in told.files:
            aside.append(quarantined(source.name, f"{source.name}:{name}", known["reason"], known["detail"]))
    if source.limit_per_class is not None:
        pictures = _limited_per_class(source, pictures, aside)
    pictures = pictures[: source.limit]
    if not pictures:
        raise SpecError(f"{source.name}: no picture is left of {len(listed)}: {reasons_told(aside) or 'it is empty'}")
    rows = [
        _entry(source, position, name, file, known) | {"sha256": found.sha256["" if root.is_file() else file]}
        for position, (name, file, known) in enumerate(pictures)
    ]
    undescribed = [name for name, _, _ in pictures if name not in told.described]
    unnamed = found.listed if metadata is None and root.is_dir() else ()
    ungrouped = [name for name, _, known in pictures if "group_id" not in known] if source.group_by else []
    warnings = _warnings(source, root, rows, undescribed, told, unnamed)
    if ungrouped:
        warnings.append(f"{share_of(ungrouped, len(rows), 'pictures')} have nothing in {source.group_by!r}")
    notes = {
        "n": len(rows),
        "quarantined": len(aside),
        "without_metadata": len(undescribed) if told.files else None,
        "warnings": [f"{source.name}: {warning}" for warning in warnings],
    }
    return Output({ROWS: pa.Table.from_pylist(rows, schema=ENTRY_SCHEMA), QUARANTINE: quarantine_table(aside)}, notes)


def _warnings(
    source: FolderOfPictures,
    root: Path,
    rows: Sequence[Mapping[str, Any]],
    undescribed: Sequence[str],
    told: Told,
    unnamed: Sequence[Listed],
) -> list[str]:
    """What remains open, one sentence each; `unnamed` are the files of a folder of which none was named as metadata."""
    ungrouped = [row["image_id"] for row in rows if row["group_id"] == row["image_id"]]
    warnings = list(told.warnings)
    if told.files and undescribed:
        warnings.append(f"{share_of(undescribed, len(rows), 'pictures')} have no row in {' and '.join(told.files)}")
    if undescribed and unnamed:
        warnings += not_taken(root, unnamed)
        warnings += _not_read([item.name for item in unnamed if item.name not in told.files])
    if root.is_file():
        told.unread[_PARQUET] = _unread_columns(root, source.group_by)
    if source.label == "fake" and ungrouped:
        warnings += _ungrouped(ungrouped, len(rows), told.unread)
    for file in told.silent:
        if source.label == "real" or len(ungrouped) < len(rows) or not told.unread[file]:
            warnings.append(f"{file} has none of the columns {', '.join(METADATA_COLUMNS)}")
    return warnings


# A picture that was found: its name, its `file` (None: set aside), and what is known of it (or reason and detail).
_Found = tuple[str, str | None, dict[str, Any]]


def _is_read(name: str) -> bool:
    """Whether a file's content decides anything: pictures, and what is found among them as metadata."""
    return is_picture(name) or Path(name).name.casefold() in FOUND_METADATA


def _not_read(names: Sequence[str]) -> list[str]:
    """Sentences on files among pictures that may describe them and that nobody named."""
    pictures = [name for name in names if is_picture(name)]
    stems = {*pictures, *(name.removesuffix(Path(name).suffix) for name in pictures)}
    beside, others = [], []
    for name in names:
        suffix = Path(name).suffix
        if Path(name).name.casefold().startswith(_ABOUT_THE_SET):
            continue
        if suffix.lower() in (".txt", ".json", ".caption") and name.removesuffix(suffix) in stems:
            beside.append(name)
        elif suffix.lower() in (*METADATA_SUFFIXES, ".txt") and Path(name).name.casefold() not in FOUND_METADATA:
            others.append(name)
    told = []
    if beside:
        told.append(
            f"not read, though they lie beside pictures of their names: {quoted(beside)} ({len(beside)} in all): write "
            "what they say into a metadata.jsonl, with `file_name` and `prompt`"
        )
    if others:
        told.append(f"not read, though they may describe pictures: {quoted(others)}: name one as metadata")
    return told


def _ungrouped(ungrouped: Sequence[str], count: int, unread: Mapping[str, Sequence[str]]) -> list[str]:
    """What is said of fakes of which nobody knows which belong together, and of the columns that may say it."""
    told = []
    if len(ungrouped) < count:
        told.append(f"{share_of(ungrouped, count, 'pictures')} have neither prompt nor group: each is its own")
        unread = {file: called_like_prompts(columns) for file, columns in unread.items()}
    told += [
        f"{'no prompt and no group is known, each picture is its own; ' if len(ungrouped) == count else ''}the columns "
        f"{quoted(columns, 10)} of {file} are not read: call the one of prompts `prompt`, or the one that says which "
        f"pictures belong together `group_id`, or name it as group_by{_OR_A_COLUMN if file == _PARQUET else ''}"
        for file, columns in unread.items()
        if columns
    ]
    return told


def _unread_columns(path: Path, group_by: str | None) -> list[str]:
    """The columns of a Parquet file of pictures that may say something of them and are not known."""
    schema = parquet_schema(path)
    _, paths = image_columns(schema)
    known = known_columns(schema.names, path, group_by).values()
    return [name for name in told_columns(schema) if name not in known and name != paths]


def _folder_pictures(listed: Sequence[Listed]) -> Iterator[_Found]:
    for item in listed:
        name = item.name
        if item.reason is not None:
            yield name, None, {"reason": item.reason, "detail": item.detail}
        elif not is_picture(name):
            suffix = Path(name).suffix.lower() or "missing"
            detail = f"the suffix is {suffix}; read are {' '.join(sorted(IMAGE_SUFFIXES))}"
            yield name, None, {"reason": "not-an-image", "detail": detail}
        elif not is_safe_name(name):
            yield name, None, {"reason": "unsafe-name", "detail": repr(name)}
        else:
            yield name, name, {}


def _check_parquet(path: Path) -> None:
    """Refuse a Parquet file of which no picture can be read, by its footer alone: `SpecError`."""
    with open_parquet(path) as file:
        column, _ = image_columns(file.schema_arrow)
        known_columns(file.schema_arrow.names, path)
        if not file.metadata.num_rows:
            raise SpecError("the file has no rows")
        if without_bytes(file, column):
            raise SpecError(f"{column!r} is null in all rows: embed the pictures' bytes, or name their folder")


def _parquet_pictures(path: Path, group_by: str | None) -> Iterator[_Found]:
    """Rows are named by their pictures' paths where these are all there and differ, else by their number."""
    schema = parquet_schema(path)
    _, path_column = image_columns(schema)
    by_name = known_columns(schema.names, path, group_by)
    columns = list(by_name.values())
    try:
        with open_parquet(path) as file:
            count = file.metadata.num_rows
            known = file.read(columns=columns).to_pylist() if columns else [{} for _ in range(count)]
            paths: list[Any] = []
            if path_column is not None:
                column = file.read(columns=[path_column]).column(0).combine_chunks()
                paths = (column.field(0) if pa.types.is_struct(column.type) else column).to_pylist()
    except pa.ArrowException as error:
        raise unreadable_parquet(path, error) from error
    if not all(paths) or len(set(paths)) != count:
        paths = [f"row-{row:09d}" for row in range(count)]
    for row in range(count):
        told = {key: known[row][name] for key, name in by_name.items() if stated_text(known[row][name]) is not None}
        yield whole_text(paths[row]), row_name(row), told


def _limited_per_class(
    source: FolderOfPictures, pictures: Sequence[tuple[str, str, dict[str, Any]]], aside: list[dict[str, str]]
) -> list[tuple[str, str, dict[str, Any]]]:
    taken: Counter[str] = Counter()
    kept = []
    for name, file, known in pictures:
        kind = first_stated(known, ("class_index", "class_name"))
        if kind is None:
            aside.append(quarantined(source.name, f"{source.name}:{name}", "no-class", "limit_per_class needs one"))
            continue
        taken[kind] += 1
        if taken[kind] <= (source.limit_per_class or 0):
            kept.append((name, file, known))
    if pictures and not taken:
        raise SpecError(f"{source.name}: limit_per_class needs metadata with class_index or class_name")
    return kept


def _entry(source: FolderOfPictures, position: int, name: str, file: str, known: Mapping[str, Any]) -> dict[str, Any]:
    image_id = f"{source.name}:{name}"
    is_fake = source.label == "fake"
    # What is told of a photograph was not what it was made from.
    prompt = first_stated(known, PROMPT_COLUMNS if is_fake else PROMPT_COLUMNS[:1])
    group = first_stated(known, ("group_id",))
    if group is None and is_fake and prompt is not None:
        group = prompt_group(prompt)
    class_name = first_stated(known, ("class_name",))
    return {
        "position": position,
        "image_id": image_id,
        "file": file,
        "group_id": image_id if group is None else group_name(group),
        "prompt": prompt,
        "caption": first_stated(known, CAPTION_COLUMNS[:2] if is_fake else CAPTION_COLUMNS),
        "categories": [] if class_name is None else [class_name],
        "licence": first_stated(known, ("licence", "license")),
        "seed": first_stated(known, ("seed",)),
    }
