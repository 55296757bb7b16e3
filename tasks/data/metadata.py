"""What a metadata file says of pictures: its rows, the columns that are known, and the picture that a row names.

The usual form is that of Hugging Face's ImageFolder: `metadata.jsonl`, `metadata.csv` or `metadata.parquet` beside the
pictures, with their paths in `file_name`; https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from storage.errors import SpecError
from tasks.data.entries import is_safe_name, open_parquet, read_document, refuse_large, stated_text

METADATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")

# Columns in which a picture's file may be named, in this order; one that ends in `_file_name` comes second.
NAME_COLUMNS = ("file_name", "filename", "file_path", "filepath", "image_path", "image", "file", "path")
# What a fake was made from, and what is told of a picture: the first of them that says something.
PROMPT_COLUMNS = ("prompt", "text", "caption", "captions")
CAPTION_COLUMNS = ("caption", "captions", "text")
METADATA_COLUMNS = (
    *PROMPT_COLUMNS, "group_id", "seed", "licence", "license", "class_index", "class_name",
)  # fmt: skip

_DELIMITERS = (",", ";", "\t")
_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:/")  # also C:/ and https:/, of which `tidy_path` leaves one stroke


def known_columns(names: Iterable[str], path: Path) -> dict[str, str]:
    """Which of some columns' names are which of `METADATA_COLUMNS`, whatever their letter case.

    Raises:
        SpecError: two columns have one name.
    """
    listed = list(names)
    found = {}
    for known in METADATA_COLUMNS:
        alike = [name for name in listed if name.strip().casefold() == known]
        exact = [name for name in alike if name == known] or alike
        if len(exact) > 1:
            raise SpecError(f"{path.name}: two columns are called {exact[0]!r}: rename one")
        if exact:
            found[known] = exact[0]
    return found


def read_metadata(path: Path) -> list[dict[str, Any]]:
    """The rows of a metadata file: JSON list, JSON lines, CSV or Parquet, told by its suffix.

    Each has `file_name`, a text or None, and those of `METADATA_COLUMNS` that the file has.

    Raises:
        SpecError: another suffix, a file that cannot be read as what its suffix says, or without a column of names.
    """
    if path.suffix not in METADATA_SUFFIXES:
        raise SpecError(f"{path.name}: expected metadata as one of {METADATA_SUFFIXES}, got {path.suffix!r}")
    kind = path.suffix[1:]
    try:
        refuse_large(path)
        if kind == "parquet":
            return _named(path, *_parquet_rows(path))
        return _named(path, *(_csv_rows(path) if kind == "csv" else _json_rows(path)))
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
        suffix); what follows the folder's name; an absolute path that ends in it; what its path ends in.
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
        found = self._by_end.get(_folded(plain))
        return None if found is None else (4, found)

    def is_elsewhere(self, stated: str) -> bool:
        """Whether a name is one of another folder beside the pictures'."""
        tidy = tidy_path(stated)
        return bool(self._prefix) and is_safe_name(tidy) and "/" in tidy and not tidy.startswith(self._prefix)

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
            (self._by_letters, _folded),
            (self._by_stem, _folded),
        ):
            for one in candidates:
                found = table.get(key(one))
                if found is not None:
                    return found
        return None

    @cached_property
    def _by_form(self) -> dict[str, str | None]:
        return _unambiguous((_composed(name), name) for name in self.names)

    @cached_property
    def _by_letters(self) -> dict[str, str | None]:
        return _unambiguous((_folded(name), name) for name in self.names)

    @cached_property
    def _by_stem(self) -> dict[str, str | None]:
        return _unambiguous((_folded(str(PurePosixPath(name).with_suffix(""))), name) for name in self.names)

    @cached_property
    def _by_end(self) -> dict[str, str | None]:
        return _unambiguous((_folded(end), name) for name in self.names for end in _ends(name))


def _unambiguous(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
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


def _folded(text: str) -> str:
    return _composed(_composed(text).casefold())


def _named(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows under the known columns' own names."""
    name = _name_column(path, columns)
    known = known_columns(columns, path)
    return [
        {"file_name": stated_text(row.get(name)), **{key: row[of] for key, of in known.items() if of in row}}
        for row in rows
    ]


def _name_column(path: Path, columns: Sequence[str]) -> str:
    """The column that names pictures."""
    folded: dict[str, list[str]] = {}
    for column in columns:
        folded.setdefault(column.strip().casefold(), []).append(column)
    prefixed = [column for key, alike in folded.items() if key.endswith("_file_name") for column in alike]
    for found in (folded.get("file_name", []), prefixed, *(folded.get(name, []) for name in NAME_COLUMNS[1:])):
        if len(found) > 1:
            raise SpecError(f"{path.name}: expected one column of file names, got {found}")
        if found:
            return found[0]
    raise SpecError(f"{path.name}: expected a column 'file_name', got the columns {list(columns)[:20]}")


def _parquet_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    with open_parquet(path) as file:
        schema = file.schema_arrow
        # A column of pictures is no column of names, whatever it is called.
        names = [name for name in schema.names if not pa.types.is_struct(schema.field(schema.names.index(name)).type)]
        wanted = {*known_columns(names, path).values(), _name_column(path, names)}
        columns = [name for name in names if name in wanted]
        return columns, file.read(columns=columns).to_pylist()


def _csv_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    text = path.read_bytes().decode("utf-8-sig")
    delimiter = _delimiter(text.lstrip().partition("\n")[0])
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
        names = [field.strip().strip('"').casefold() for field in header.split(delimiter)]
        if any(name in NAME_COLUMNS or name.endswith("_file_name") for name in names):
            return delimiter
    return _DELIMITERS[0]


def _json_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """A list of objects, one object per line, or one object with an object for each name."""
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
        if len(rows) == 1 and isinstance(rows[0], dict) and all(isinstance(row, dict) for row in rows[0].values()):
            rows = [{"file_name": name, **row} for name, row in rows[0].items()]
    if not all(isinstance(row, dict) for row in rows):
        raise SpecError(f"{path.name}: expected objects with a file_name, got something else among them")
    return list(dict.fromkeys(name for row in rows for name in row)), rows
