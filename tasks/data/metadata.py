"""What a metadata file says of pictures: its rows, the columns that are known, and the picture that a row names.

The usual form is that of Hugging Face's ImageFolder: `metadata.jsonl`, `metadata.csv` or `metadata.parquet` beside the
pictures, with their paths in `file_name`; https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import csv
import io
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from storage.errors import SpecError
from tasks.data.entries import is_safe_name, open_parquet, picture_column, read_document, refuse_large, stated_text

METADATA_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")

# Columns in which a picture's file may be named, in this order; one that ends in `_file_name` comes last.
NAME_COLUMNS = (
    "file_name", "filename", "image_name", "img_name", "image_filename", "image_file", "file_path", "filepath",
    "image_path", "img_path", "image", "file", "path",
)  # fmt: skip
# What a fake was made from, and what is told of a picture: the first of them that says something.
PROMPT_COLUMNS = (
    "prompt", "text", "caption", "captions", "prompts", "prompt_text", "text_prompt", "positive_prompt", "description",
    "txt",
)  # fmt: skip
CAPTION_COLUMNS = ("caption", "captions", "text", "description", "txt")
METADATA_COLUMNS = (
    *PROMPT_COLUMNS, "group_id", "seed", "licence", "license", "class_index", "class_name",
)  # fmt: skip

_DELIMITERS = (",", ";", "\t", "|")
_STATED_DELIMITER = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)  # what Excel understands as a first line
_PROMPT_WORDS = ("prompt", "text", "caption", "description")
_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:/")  # also C:/ and https:/, of which `tidy_path` leaves one stroke


def known_columns(names: Iterable[str], path: Path, group_by: str | None = None) -> dict[str, str]:
    """Which of some columns' names are which of `METADATA_COLUMNS`, whatever their letter case.

    `group_by` is the column of that very name that is `group_id` in place of any other.

    Raises:
        SpecError: two columns have one name.
    """
    listed = list(names)
    found = {}
    for known in METADATA_COLUMNS:
        alike = [name for name in listed if _key(name) == known]
        exact = [name for name in alike if name == known] or alike
        if len(exact) > 1:
            raise SpecError(f"{path.name}: two columns are called {exact[0]!r}: rename one")
        if exact:
            found[known] = exact[0]
    if group_by is not None:
        found.pop("group_id", None)
        if group_by in listed:
            found["group_id"] = group_by
    return found


def called_like_prompts(names: Iterable[str]) -> list[str]:
    """Those of some columns' names that speak of prompts or captions, and of no negative ones."""
    return [
        name for name in names if any(word in _key(name) for word in _PROMPT_WORDS) and "negative" not in _key(name)
    ]


class AmbiguousRow(SpecError):
    """A row of metadata that names two pictures."""


@dataclass(frozen=True)
class Metadata:
    """What a metadata file says, its N rows in order.

    Each of `rows` has `file_name`, a text or None, and those of `METADATA_COLUMNS` that the file has. `names` are (N,)
    what each column states in which pictures may be named, the likeliest first; `unread` are all other ones of its
    `columns`.
    """

    file: str
    rows: list[dict[str, Any]]
    names: dict[str, list[str | None]]
    columns: list[str]
    unread: list[str]

    def rows_about(self, pictures: "NamedPictures") -> list[dict[str, Any]]:
        """The rows, with `file_name` from the first column that names any of these pictures.

        Raises:
            AmbiguousRow: two columns name different pictures in one row: nobody knows which of them it is about.
        """
        if len(self.names) == 1:
            return self.rows
        found = {
            column: [None if name is None else pictures.find(name) for name in names]
            for column, names in self.names.items()
        }
        naming = [column for column, ones in found.items() if any(ones)]
        for first, second in itertools.combinations(naming, 2):
            for row, (one, other) in enumerate(zip(found[first], found[second], strict=True)):
                if one is not None and other is not None and one[1] != other[1]:
                    raise AmbiguousRow(
                        f"{self.file}: the columns {first!r} and {second!r} name different pictures in row {row}, "
                        f"{one[1]!r} and {other[1]!r}: rename the one that does not name the row's own picture"
                    )
        chosen = self.names[naming[0]] if naming else next(iter(self.names.values()))
        return [{**row, "file_name": name} for row, name in zip(self.rows, chosen, strict=True)]


def read_metadata(path: Path, group_by: str | None = None) -> Metadata:
    """What a metadata file says: JSON list, JSON lines, CSV or Parquet, told by its suffix.

    `group_by` is the column that is read as `group_id` (`known_columns`).

    Raises:
        SpecError: another suffix, a file that cannot be read as what its suffix says, or without a column of names.
    """
    kind = path.suffix[1:].lower()
    if f".{kind}" not in METADATA_SUFFIXES:
        raise SpecError(f"{path.name}: expected metadata as one of {METADATA_SUFFIXES}, got {path.suffix!r}")
    try:
        refuse_large(path)
        if kind == "parquet":
            return _parquet_metadata(path, group_by)
        return _named(path, *(_csv_rows(path) if kind in ("csv", "tsv") else _json_rows(path)), group_by)
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} at {error.start}"
        raise SpecError(f"{path.name} is not readable as {kind}: {byte} is no UTF-8, save it as UTF-8") from error
    except (ValueError, csv.Error, pa.ArrowException, RecursionError) as error:
        raise SpecError(f"{path.name} is not readable as {kind}, it may be cut off: {error}") from error


def first_stated(known: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """The first text that is stated under some of a row's columns."""
    return next((text for name in columns if (text := stated_text(known.get(name))) is not None), None)


def tidy_path(path: str) -> str:
    """A path without `./` and doubled strokes, whose strokes are those of Windows or not."""
    return str(PurePosixPath(path.replace("\\", "/")))


class NamedPictures:
    """Finds the picture that a row of metadata names, where only one can be meant.

    Args:
        names: the pictures, as paths below their folder.
        prefix: how the metadata's own folder names the pictures' folder below it, such as `dalle/`; else empty.
    """

    def __init__(self, names: Iterable[str], prefix: str) -> None:
        self.names = tuple(names)
        self._by_name: dict[str, str | None] = {name: name for name in self.names}
        self._prefix = prefix
        self._folder = PurePosixPath(prefix).name.casefold()

    def find(self, stated: str) -> tuple[int, str] | None:
        """The picture and how loosely it was found, 0 for its very name; None where none or several may be meant.

        In this order: the name; written in another way (`./x`, `dir\\x`, `%20`, Unicode form, letter case, without the
        suffix); what follows the folder's name; an absolute path that ends in it; what its path ends in; the number
        that it is, without the zeros before it.
        """
        tidy = tidy_path(stated)
        plain = unquote(tidy)
        here = [*self._below(stated), *self._below(tidy)]
        for name in here:
            if name in self._by_name:
                return 0, name
        own = [end for path in (tidy, plain) if (end := self._below_folder(path))]
        ends = [end for path in (tidy, plain) if _ABSOLUTE.match(tidy) for end in _ends(path)]
        for rank, candidates in ((1, [*here, *self._below(plain)]), (2, own), (3, ends)):
            found = self._written_otherwise(candidates)
            if found is not None:
                return rank, found
        end = folded(plain)
        found = self._by_end[end] if end in self._by_end else self._by_number.get(_number(plain))
        return None if found is None else (4, found)

    def is_below(self, stated: str) -> bool:
        """Whether a name leads from the metadata's own folder into the pictures' below it."""
        return bool(self._prefix) and tidy_path(stated).startswith(self._prefix)

    def is_elsewhere(self, stated: str) -> bool:
        """Whether a name is one of another folder beside the pictures'."""
        return bool(self.folder_elsewhere(stated))

    def folder_elsewhere(self, stated: str) -> str:
        """The other folder beside the pictures' that a name begins with; empty where it names none."""
        tidy = tidy_path(stated)
        if not self._prefix or not is_safe_name(tidy) or tidy.startswith(self._prefix):
            return ""
        return tidy.rpartition("/")[0]

    def _below(self, path: str) -> list[str]:
        """The path counted from the pictures' folder: as it stands, or without the prefix that leads there."""
        return [path.removeprefix(self._prefix), path] if path.startswith(self._prefix) else [path]

    def _below_folder(self, path: str) -> str:
        """What follows the last part of a path that is called like the pictures' folder."""
        parts = PurePosixPath(path).parts
        places = [index for index, part in enumerate(parts[:-1]) if part.casefold() == self._folder]
        return "/".join(parts[places[-1] + 1 :]) if places else ""

    def _written_otherwise(self, candidates: Sequence[str]) -> str | None:
        for table, key in (
            (self._by_name, str),
            (self._by_form, _composed),
            (self._by_letters, folded),
            (self._by_stem, folded),
        ):
            for one in candidates:
                found = table.get(key(one))
                if found is not None:
                    return found
        return None

    @cached_property
    def _by_form(self) -> dict[str, str | None]:
        return unambiguous((_composed(name), name) for name in self.names)

    @cached_property
    def _by_letters(self) -> dict[str, str | None]:
        return unambiguous((folded(name), name) for name in self.names)

    @cached_property
    def _by_stem(self) -> dict[str, str | None]:
        return unambiguous((folded(str(PurePosixPath(name).with_suffix(""))), name) for name in self.names)

    @cached_property
    def _by_end(self) -> dict[str, str | None]:
        return unambiguous((folded(end), name) for name in self.names for end in _ends(name))

    @cached_property
    def _by_number(self) -> dict[str, str | None]:
        return unambiguous((number, name) for name in self.names if (number := _number(name)))


def unambiguous(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    """Names by key; None for a key of several names."""
    found: dict[str, str | None] = {}
    for key, name in pairs:
        found[key] = name if found.get(key, name) == name else None
    return found


def _ends(path: str) -> Iterator[str]:
    """A path without its first part, without its first two, ..."""
    parts = PurePosixPath(path).parts
    return ("/".join(parts[index:]) for index in range(1, len(parts)))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """A name as it is compared where letter case does not matter."""
    return _composed(_composed(text).casefold())


def _number(name: str) -> str:
    """The number that a file in no folder is called, without leading zeros; empty where it is called otherwise."""
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    # A table that lacks some of its numbers has 7.0 for the others; 7.5 is no file's name.
    is_number = stem.isascii() and stem.isdigit() and "/" not in name and not suffix.strip(".0")[:1].isdigit()
    return (stem.lstrip("0") or "0") if is_number else ""


def _key(column: str) -> str:
    """A column's name as known ones are written: ` File Name`, `file-name` and `fileName` are `file_name`."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[\s_-]+", "_", parted).casefold()


def _named(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], group_by: str | None) -> Metadata:
    """Rows under the known columns' own names."""
    naming = _name_columns(path, columns)
    known = known_columns(columns, path, group_by)
    names = {column: [stated_text(row.get(column)) for row in rows] for column in naming}
    told = [
        {"file_name": name, **{key: row[of] for key, of in known.items() if of in row}}
        for name, row in zip(names[naming[0]], rows, strict=True)
    ]
    unread = [one for one in columns if one not in {*naming, *known.values()}]
    return Metadata(path.name, told, names, list(columns), unread)


def _name_columns(path: Path, columns: Sequence[str]) -> list[str]:
    """The columns that may name pictures, the likeliest first."""
    by_key: dict[str, list[str]] = {}
    for column in columns:
        by_key.setdefault(_key(column), []).append(column)
    usual = [by_key[name] for name in NAME_COLUMNS if name in by_key]
    prefixed = [column for key, alike in by_key.items() if key.endswith("_file_name") for column in alike]
    for found in usual or [prefixed]:
        if len(found) > 1:
            raise SpecError(f"{path.name}: expected one column of file names, got {found}")
    if not usual and not prefixed:
        raise SpecError(f"{path.name}: expected a column 'file_name', got the columns {list(columns)[:20]}")
    return [*itertools.chain(*usual), *prefixed]


def _is_name_column(column: str) -> bool:
    return _key(column) in NAME_COLUMNS or _key(column).endswith("_file_name")


def told_columns(schema: pa.Schema) -> list[str]:
    """The columns of a Parquet file that may say something in words or numbers: none of pictures or other bytes."""
    return [
        name
        for name, field in zip(schema.names, schema, strict=True)
        if picture_column(schema, name) is None
        and not pa.types.is_binary(field.type)
        and not pa.types.is_large_binary(field.type)
    ]


def _parquet_metadata(path: Path, group_by: str | None) -> Metadata:
    with open_parquet(path) as file:
        told = told_columns(file.schema_arrow)
        # Objects name nothing; what is called `image` and has a path in it is a picture.
        structs = {one.name for one in file.schema_arrow if pa.types.is_struct(one.type)}
        flat = [name for name in told if name not in structs]
        wanted = {*known_columns(flat, path, group_by).values(), *_name_columns(path, flat)}
        columns = [name for name in flat if name in wanted]
        found = _named(path, columns, file.read(columns=columns).to_pylist(), group_by)
    return replace(found, columns=told, unread=[name for name in told if name not in wanted])


def _csv_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    text = path.read_bytes().decode("utf-8-sig").lstrip("\r\n")
    stated = _STATED_DELIMITER.match(text)
    text = text[stated.end() :] if stated else text
    delimiter = stated[1] if stated else _delimiter(text.lstrip().partition("\n")[0])
    # Not strict, a quote that is never closed would take in all that follows.
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = next((line for line in lines if line), [])
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise SpecError(f"{path.name}: two columns are called {twice[0]!r}: rename one")
    rows = []
    for line in lines:
        if any(line[len(header) :]):
            raise SpecError(
                f"{path.name}: line {lines.line_num} has {len(line)} fields, the header has {len(header)}: "
                f"put fields that hold {delimiter!r} into quotes"
            )
        if any(line):
            rows.append(dict(zip(header, line, strict=False)))
    return [name for name in header if name], rows


def _delimiter(header: str) -> str:
    """What separates fields: spreadsheets of some languages write semicolons. Told by the columns' names."""
    for delimiter in _DELIMITERS:
        if any(_is_name_column(field.strip().strip('"')) for field in header.split(delimiter)):
            return delimiter
    return _DELIMITERS[0]


def _json_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """A list of objects, one object per line, or one object with an object for each name or the list of them."""
    text = read_document(path)
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    else:
        try:
            # Not splitlines: a text may hold other separators of lines, such as U+2028, as they are.
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        except ValueError as error:
            try:
                rows = [json.loads(text)]
            except ValueError:
                raise error from None
        if len(rows) == 1 and isinstance(rows[0], dict):
            rows = _unwrapped(rows[0])
    if not all(isinstance(row, dict) for row in rows):
        raise SpecError(f"{path.name}: expected objects with a file_name, got something else among them")
    return list(dict.fromkeys(name for row in rows for name in row)), rows


def _unwrapped(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows in an object: an object for each name, the only list of objects (`{"data": [...]}`), or the object."""
    if all(isinstance(row, dict) for row in document.values()):
        return [{"file_name": name, **row} for name, row in document.items()]
    if any(_is_name_column(name) and isinstance(value, str) for name, value in document.items()):
        return [document]
    lists = [value for value in document.values() if isinstance(value, list) and value]
    of_objects = [value for value in lists if all(isinstance(row, dict) for row in value)]
    return of_objects[0] if len(of_objects) == 1 else [document]
