"""From a directory or a Parquet file of pictures, with optional metadata, to their entry table.

This is how a published set of fakes enters, or any further photographs.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.errors import MissingInput, SpecError
from storage.objects import ROWS
from tasks.data.entries import (
    ENTRY_SCHEMA,
    QUARANTINE,
    image_columns,
    is_safe_name,
    open_parquet,
    parquet_schema,
    prompt_group,
    quarantine_table,
    quarantined,
    read_document,
    refuse_large,
    row_name,
    stated_text,
    unreadable_parquet,
    whole_text,
)
from tasks.data.inventory import Inventory, Listed, list_files, outside_folders, take_inventory
from tasks.recipe import Output, StepRun, step
from tasks.spec import FolderSource

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".avifs"}
    | {".heic", ".heif", ".jp2", ".j2k", ".jxl"},  # named as what they are where they are not read
)
METADATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
METADATA_COLUMNS = ("prompt", "caption", "group_id", "seed", "licence", "class_index", "class_name")


def unlocated(source: FolderSource) -> FolderSource:
    """The source without its paths, which say where it lies and not what it is: the form that a recipe takes."""
    return source.model_copy(update={"path": "", "metadata": None})


def check_folder(source: FolderSource) -> list[str]:
    """What is missing for a run on this source, each with its remedy; empty when all is there. Fast."""
    missing = []
    path = Path(source.path)
    if path.is_dir():
        listed = list_files(path)
        if not listed:
            missing.append(f"pictures in {source.path}, which {source.name} names: the directory is empty")
        outside = outside_folders(listed)
        if outside is not None:
            missing.append(f"pictures in {source.path}, which {source.name} names: {outside}")
    elif not path.is_file():
        missing.append(f"{source.path}, which {source.name} names: expected a directory or a Parquet file of pictures")
    else:
        try:
            image_columns(parquet_schema(path))
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
    return missing


def folder_inventory(source: FolderSource) -> Inventory:
    """What `index_folder` reads: the pictures' names and content, or the Parquet file's, and the metadata's.

    Raises:
        MissingInput: `check_folder` finds something missing.
        InputChanged: a file is being written to.
    """
    missing = check_folder(source)
    if missing:
        raise MissingInput(*missing)
    path = Path(source.path)
    metadata = None if source.metadata is None else Path(source.metadata)
    described = None
    if metadata is not None:
        with metadata.open("rb") as file:
            described = [hashlib.file_digest(file, "sha256").hexdigest(), metadata.suffix, _prefix(path, metadata)]
    if path.is_file():
        return take_inventory(path, [Listed("", path.stat())], lambda name: True, described)
    return take_inventory(path, list_files(path), _has_picture_name, described)


def read_metadata(path: Path) -> list[dict[str, Any]]:
    """The rows of a metadata file: JSON list, JSON lines, CSV or Parquet, told by its suffix.

    Raises:
        SpecError: another suffix, or a file that cannot be read as what its suffix says.
    """
    try:
        if path.suffix == ".parquet":
            refuse_large(path)
            with open_parquet(path) as file:
                known = [name for name in file.schema_arrow.names if name in ("file_name", *METADATA_COLUMNS)]
                return list(file.read(columns=known).to_pylist())
        if path.suffix == ".csv":
            refuse_large(path)
            with path.open(encoding="utf-8-sig", newline="") as file:
                return [{key: value or None for key, value in row.items() if key} for row in csv.DictReader(file)]
        if path.suffix in (".json", ".jsonl"):
            text = read_document(path)
            # A JSON list, or one object per line: lists of either kind go by the name of .json.
            listed = text.lstrip().startswith("[")
            rows = json.loads(text) if listed else [json.loads(line) for line in text.splitlines() if line.strip()]
            if all(isinstance(row, dict) for row in rows):
                return list(rows)
            raise SpecError(f"{path.name}: expected objects with a file_name, got something else among them")
    except (ValueError, csv.Error, pa.ArrowException, RecursionError) as error:
        raise SpecError(f"{path.name} is not readable as {path.suffix[1:]}, it may be cut off: {error}") from error
    raise SpecError(f"{path.name}: expected metadata as one of {METADATA_SUFFIXES}, got {path.suffix!r}")


@step(
    "index/folder",
    version=2,
    label=lambda source, **_: source.name,
    unkeyed=("path", "metadata"),
)
def index_folder(run: StepRun, *, source: FolderSource, inventory: str, path: str, metadata: str | None) -> Output:
    """Index a folder or a Parquet file: one entry per picture, sorted by relative path (Parquet: by row).

    The group is the metadata's `group_id`, as it stands, so that it can name another source's picture; else a fake's
    prompt, so that one prompt's pictures by several generators stay together; else the picture itself.

    Args:
        run: the step's surroundings.
        source: `unlocated(source)`.
        inventory: the digest of `folder_inventory(source)`.
        path: the directory or Parquet file.
        metadata: the metadata file.

    Raises:
        SpecError: metadata or Parquet file are broken, or `limit_per_class` finds no class.
        InputChanged: this is no longer what the inventory was taken of.
    """
    root, about = Path(path), None if metadata is None else Path(metadata)
    found = folder_inventory(source.model_copy(update={"path": path, "metadata": metadata}))
    found.expect(inventory, source.name)
    described, aside = _described(source.name, root, about)
    listed = _parquet_pictures(root) if root.is_file() else _folder_pictures(root, found.listed, about)
    pictures = []
    seen = set()
    for name, file, known in listed:
        if file is None:
            aside.append(quarantined(source.name, f"{source.name}:{name}", known["reason"], known["detail"]))
            continue
        seen.add(name)
        pictures.append((name, file, {**known, **described.get(name, {})}))
    aside += [
        quarantined(source.name, f"{source.name}:{name}", "missing-file", f"named by {about.name if about else ''}")
        for name in described
        if name not in seen
    ]
    if source.limit_per_class is not None:
        pictures = _limited_per_class(source, pictures, aside)
    rows = [
        _entry(source, position, name, file, known) | {"sha256": found.sha256["" if root.is_file() else file]}
        for position, (name, file, known) in enumerate(pictures[: source.limit])
    ]
    notes = {
        "n": len(rows),
        "quarantined": len(aside),
        "without_metadata": sum(name not in described for name, _, _ in pictures[: source.limit]) if metadata else None,
    }
    return Output({ROWS: pa.Table.from_pylist(rows, schema=ENTRY_SCHEMA), QUARANTINE: quarantine_table(aside)}, notes)


# A picture that was found: its name, its `file` (None: set aside), and what is known of it (or reason and detail).
_Found = tuple[str, str | None, dict[str, Any]]


def _has_picture_name(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _folder_pictures(root: Path, listed: Sequence[Listed], metadata: Path | None) -> Iterator[_Found]:
    for item in listed:
        name = item.name
        if metadata is not None and (root / name).resolve() == metadata.resolve():
            continue
        if item.reason is not None:
            yield name, None, {"reason": item.reason, "detail": item.detail}
        elif not _has_picture_name(name):
            yield name, None, {"reason": "not-an-image", "detail": name}
        elif not is_safe_name(name):
            yield name, None, {"reason": "unsafe-name", "detail": repr(name)}
        else:
            yield name, name, {}


def _parquet_pictures(path: Path) -> Iterator[_Found]:
    """Rows are named by their pictures' paths where these are all there and differ, else by their number."""
    schema = parquet_schema(path)
    _, path_column = image_columns(schema)
    columns = [name for name in schema.names if name in METADATA_COLUMNS]
    try:
        with open_parquet(path) as file:
            count = file.metadata.num_rows
            known = file.read(columns=columns).to_pylist() if columns else [{} for _ in range(count)]
            paths: list[Any] = []
            if path_column is not None:
                column = file.read(columns=[path_column]).column(0).combine_chunks()
                paths = column.field(0).to_pylist()
    except pa.ArrowException as error:
        raise unreadable_parquet(path, error) from error
    if not all(paths) or len(set(paths)) != count:
        paths = [f"row-{row:09d}" for row in range(count)]
    for row in range(count):
        told = {key: value for key, value in known[row].items() if value is not None}
        yield whole_text(paths[row]), row_name(row), told


def _described(
    source: str, root: Path, metadata: Path | None
) -> tuple[dict[str, dict[str, Any]], list[dict[str, str]]]:
    """The metadata rows by picture name, and those that are set aside.

    A row's `file_name` counts from the pictures' directory, or from the metadata file's where the pictures lie below
    that one; rows about other directories there are left alone.
    """
    described: dict[str, dict[str, Any]] = {}
    aside: list[dict[str, str]] = []
    if metadata is None:
        return described, aside
    prefix = _prefix(root, metadata)
    for index, row in enumerate(read_metadata(metadata)):
        name = row.get("file_name")
        if not isinstance(name, str):
            raise SpecError(f"{metadata.name}: row {index}: expected 'file_name' as text, got {name!r}")
        if not is_safe_name(name):
            aside.append(quarantined(source, f"{source}:{name}", "unsafe-name", repr(name)))
            continue
        of_another_folder = prefix and "/" in name and not name.startswith(prefix) and not (root / name).is_file()
        if of_another_folder:
            continue
        name = name.removeprefix(prefix)
        if name in described:
            aside.append(quarantined(source, f"{source}:{name}", "duplicate-id", f"row {index} of {metadata.name}"))
            continue
        described[name] = {key: row[key] for key in METADATA_COLUMNS if row.get(key) is not None}
    return described, aside


def _prefix(root: Path, metadata: Path) -> str:
    """How metadata's own directory names the pictures' directory below it, such as `dalle/`; else empty."""
    above = metadata.resolve().parent
    if not root.is_dir() or root.resolve() == above or not root.resolve().is_relative_to(above):
        return ""
    return f"{root.resolve().relative_to(above).as_posix()}/"


def _limited_per_class(
    source: FolderSource, pictures: Sequence[tuple[str, str, dict[str, Any]]], aside: list[dict[str, str]]
) -> list[tuple[str, str, dict[str, Any]]]:
    taken: Counter[str] = Counter()
    kept = []
    for name, file, known in pictures:
        kind = known.get("class_index", known.get("class_name"))
        if kind is None:
            aside.append(quarantined(source.name, f"{source.name}:{name}", "no-class", "limit_per_class needs one"))
            continue
        taken[str(kind)] += 1
        if taken[str(kind)] <= (source.limit_per_class or 0):
            kept.append((name, file, known))
    if pictures and not taken:
        raise SpecError(f"{source.name}: limit_per_class needs metadata with class_index or class_name")
    return kept


def _entry(source: FolderSource, position: int, name: str, file: str, known: Mapping[str, Any]) -> dict[str, Any]:
    image_id = f"{source.name}:{name}"
    prompt = stated_text(known.get("prompt"))
    group = stated_text(known.get("group_id"))
    if group is None and source.label == "fake" and prompt is not None:
        group = prompt_group(prompt)
    class_name = stated_text(known.get("class_name"))
    return {
        "position": position,
        "image_id": image_id,
        "file": file,
        "group_id": group or image_id,
        "prompt": prompt,
        "caption": stated_text(known.get("caption")),
        "categories": [] if class_name is None else [class_name],
        "licence": stated_text(known.get("licence")),
        "seed": _seed(image_id, known.get("seed")),
    }


def _seed(image_id: str, value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        seed = int(value)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{image_id}: expected a seed as whole number, got {value!r}") from error
    if not -(2**63) <= seed < 2**63:
        raise SpecError(f"{image_id}: expected a seed of 64 bits, got {value!r}")
    return seed
