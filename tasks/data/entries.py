"""The entry table: what an index says about each picture of a source, and how a picture's bytes are read by it.

Names come from annotations and are data: nothing here follows one out of its directory.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import BadImage, SpecError
from storage.tables import QUARANTINE_SCHEMA

ENTRY_SCHEMA = pa.schema(
    [
        ("position", pa.int32()),  # rank in the source's order; what explicit ranges of a split speak of
        ("image_id", pa.string()),
        ("file", pa.string()),  # path below the source's directory, or `row:<n>` of a Parquet file
        ("group_id", pa.string()),
        ("prompt", pa.string()),
        ("caption", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("licence", pa.string()),
        ("seed", pa.int64()),
    ]
)

QUARANTINE = "quarantine.parquet"

# The largest picture that is read at all; a picture of MAX_PIXELS as PNG stays below.
MAX_FILE_BYTES = 400_000_000

_ROW = "row:"
_ROWS_AT_ONCE = 64


def quarantined(source: str, image_id: str, reason: str, detail: str = "") -> dict[str, str]:
    """One row of a quarantine table."""
    return {"source": source, "image_id": whole_text(image_id), "reason": reason, "detail": whole_text(detail)}


def quarantine_table(rows: Sequence[Mapping[str, str]]) -> pa.Table:
    """The side table of a step: what was set aside, and why."""
    return pa.Table.from_pylist(list(rows), schema=QUARANTINE_SCHEMA)


def whole_text(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates, which UTF-8 cannot write, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_safe_name(name: str) -> bool:
    """Whether a name stays below the directory that it is joined to, and can be written down as UTF-8."""
    path = PurePosixPath(name)
    stays = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return stays and not any(sign in name for sign in ("\\", "\0")) and whole_text(name) == name


def list_files(root: Path) -> list[tuple[str, int]]:
    """Every file below a directory as (path below it, bytes), sorted; links to directories are not followed."""
    found = []
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as scanned:
            for item in scanned:
                if item.is_dir(follow_symlinks=False):
                    folders.append(Path(item.path))
                elif item.is_file():
                    found.append((Path(item.path).relative_to(root).as_posix(), item.stat().st_size))
    return sorted(found)


def read_entry(root: Path, file: str) -> bytes:
    """The bytes of the picture `file` below the directory `root`.

    Raises:
        BadImage: `unsafe-name` (the name, or a link that it names, leaves `root`), `missing-file`, `unreadable`
            (no permission, or not a plain file) or `too-large` (over `MAX_FILE_BYTES`).
    """
    if not is_safe_name(file):
        raise BadImage("unsafe-name", repr(file))
    path = root / file
    if not path.resolve().is_relative_to(root.resolve()):
        raise BadImage("unsafe-name", f"{file!r} is a link that leads out of its directory")
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BadImage("unreadable", f"{file!r} is not a plain file")
        if facts.st_size > MAX_FILE_BYTES:
            raise BadImage("too-large", f"{file!r} has {facts.st_size} bytes, more than {MAX_FILE_BYTES}")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadImage("missing-file", repr(file)) from error
    except OSError as error:
        # Anything else, such as a network disk that went away, is not the picture's fault and may pass.
        if error.errno in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP):
            raise BadImage("unreadable", f"{file!r}: {error.strerror}") from error
        raise


def read_entries(root: Path, files: Iterable[str]) -> Iterator[tuple[str, bytes | BadImage]]:
    """Each file with its bytes, or with the error for which it is set aside; in the order of `files`.

    `root` is a directory, or a Parquet file, which is opened once and of whose rows (`row:<n>`, ascending) only some
    are in memory at a time.
    """
    if root.is_file():
        yield from _read_rows(root, [int(file.removeprefix(_ROW)) for file in files])
        return
    for file in files:
        try:
            yield file, read_entry(root, file)
        except BadImage as error:
            yield file, error


def row_name(row: int) -> str:
    """What `file` says for a row of a Parquet file, counted from 0."""
    return f"{_ROW}{row}"


def image_columns(schema: pa.Schema) -> tuple[str, str | None]:
    """Where a Parquet file keeps pictures: the column with the bytes and the one with their paths, dotted.

    Known are `image` as struct of `bytes` and `path` (the Hugging Face convention), and `image` or `bytes` as binary.
    """
    for name in ("image", "bytes"):
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and "bytes" in [child.name for child in kind]:
            return f"{name}.bytes", f"{name}.path" if "path" in [child.name for child in kind] else None
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return name, None
    raise SpecError(f"expected a column `image` (struct of bytes and path, or binary) or `bytes`, got {schema.names}")


def _read_rows(path: Path, rows: Sequence[int]) -> Iterator[tuple[str, bytes | BadImage]]:
    if list(rows) != sorted(set(rows)):
        raise ValueError("rows of a Parquet file are read in ascending order, each once")
    wanted = iter(rows)
    row = next(wanted, None)
    with pq.ParquetFile(path) as file:
        column, _ = image_columns(file.schema_arrow)
        first = 0
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if row is None or row >= end:
                first = end
                continue
            for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]):
                values = batch.column(0)
                if pa.types.is_struct(values.type):
                    values = values.field(0)
                while row is not None and row < first + len(values):
                    yield row_name(row), values[row - first].as_py() or BadImage("empty", "no bytes")
                    row = next(wanted, None)
                first += len(values)
    while row is not None:
        yield row_name(row), BadImage("missing-file", f"the Parquet file ends at row {first}")
        row = next(wanted, None)
