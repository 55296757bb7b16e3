"""The entry table: what an index says about each picture of a source, and how a picture's bytes are read by it.

Names come from annotations and are data: nothing here follows one out of its directory.
"""

import bisect
import itertools
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from storage.digest import sha256_hex
from storage.errors import BadImage, SpecError
from storage.tables import QUARANTINE_SCHEMA
from tasks.data.file_headers import MAX_BYTES
from tasks.data.inventory import UNREADABLE

ENTRY_SCHEMA = pa.schema(
    [
        ("position", pa.int32()),  # rank in the source's order; what explicit ranges of a split speak of
        ("image_id", pa.string()),
        # Path below the source's directory, `row:<n>` of a Parquet file, or a cell as `cell_name` writes it.
        ("file", pa.string()),
        # Of the picture's file, or of the Parquet file that holds it; null where it may not be read.
        ("sha256", pa.string()),
        ("group_id", pa.string()),
        ("prompt", pa.string()),
        ("caption", pa.string()),
        ("categories", pa.list_(pa.string())),
        ("licence", pa.string()),
        ("seed", pa.string()),  # provenance, as it is stated: 64 unsigned bits, a text, several
    ]
)

QUARANTINE = "quarantine.parquet"

# The largest picture that is read at all.
MAX_FILE_BYTES = MAX_BYTES

# What a file from outside may claim or have. The annotations of COCO's train2017 have 0.45 GB; a Parquet file of the
# largest published sets has some ten thousand rows, and their footers some megabytes.
MAX_DOCUMENT_BYTES = 2_000_000_000
MAX_ROWS = 5_000_000
MAX_ROW_GROUP_BYTES = 4_000_000_000
MAX_FOOTER_BYTES = 256_000_000
_FOOTER_END = 8  # bytes: the footer's length, little-endian, then `PAR1`

# What published Parquet files call a column of encoded pictures.
PICTURE_COLUMNS = (
    "image",
    "bytes",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "img",
    "picture",
    "image_bytes",
    "image_data",
    "images",
)

PICTURES_READ = "encoded pictures (JPEG, PNG, ...) as binary, or as struct of `bytes` and `path`"

# How a missing value reads once it was made a text: by Python, JSON, pandas, Arrow, SQL and spreadsheets.
_NOTHING = frozenset({"", "nan", "none", "null", "<na>", "nat", "n/a", "#n/a"})

# Letters and marks that show nothing: fillers and variation selectors (Unicode's Default_Ignorable_Code_Point).
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_SIGN = re.compile(r"[\W_]")  # neither letter nor number: Unicode's categories L and N are all others

# What a column of encoded pictures has in its name, and what one has that says something of a picture instead.
_PICTURE_WORDS = frozenset(
    {"image", "images", "img", "picture", "photo", "photograph", "thumbnail", "jpg", "jpeg", "png"} | {"webp", "mask"}
)
_NO_PICTURE_WORDS = frozenset(
    {
        "md5",
        "sha1",
        "sha256",
        "hash",
        "phash",
        "dhash",
        "digest",
        "checksum",
        "id",
        "uuid",
        "key",
        "name",
        "size",
        "exif",
    }
    | {"embedding", "embeddings", "feature", "features", "vector", "latent", "latents", "encoding"}
)

_ROW = "row:"
_ROWS_AT_ONCE = 64
# A picture's file has the suffix of an image format, so no directory of pictures holds one of such a name.
_CELL = re.compile(r"row:(?P<row>\d+)(?::(?P<column>[^:]+)(?::(?P<file>.+\.parquet))?)?", re.DOTALL)


def quarantined(source: str, image_id: str, reason: str, detail: str = "") -> dict[str, str]:
    """One row of a quarantine table."""
    return {"source": source, "image_id": whole_text(image_id), "reason": reason, "detail": whole_text(detail)}


def quarantine_table(rows: Sequence[Mapping[str, str]]) -> pa.Table:
    """The side table of a step: what was set aside, and why."""
    return pa.Table.from_pylist(list(rows), schema=QUARANTINE_SCHEMA)


def whole_text(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates, which UTF-8 cannot write, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def stated_text(value: object) -> str | None:
    """What annotations state as text; None where they state nothing.

    Nothing are null, NaN, white space, and what a missing value reads as once it was made a text ("nan", "None", ...).
    Of a list it is the first that says something. Whole numbers have no decimals, whether or not a neighbour that is
    missing made them floats.
    """
    if isinstance(value, list | tuple):
        return next((text for item in value if (text := stated_text(item)) is not None), None)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    text = whole_text(value.decode(errors="replace") if isinstance(value, bytes) else str(value))
    return None if text.strip().casefold() in _NOTHING else text


def prompt_group(prompt: str) -> str:
    """The group of all pictures of one prompt, whichever generators made them.

    Prompts are one that have the same letters, marks and numbers, whatever their case, their Unicode form, and the
    spaces and signs between them. Those without any, such as emoji, are one that differ in white space only. Two that
    are one by mistake share a place and do no harm; two that are torn apart let a detector see its test pictures.
    """
    folded = prompt
    # Caseless matching of compatible texts: The Unicode Standard, D146.
    for form in ("NFD", "NFKD"):
        folded = unicodedata.normalize("NFKD", unicodedata.normalize(form, folded).casefold())
    said = _SIGN.sub(lambda sign: sign[0] if unicodedata.category(sign[0])[0] == "M" else "", _UNSEEN.sub("", folded))
    if not re.search(r"\w", said):
        said = " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", prompt)).split())
    return f"prompt:{sha256_hex(said.encode())[:12]}"


def group_name(text: str) -> str:
    """A stated group as it is compared over sources: a number is the same with and without `.0`.

    A table that lacks some of its whole numbers writes the others as floats.
    """
    return re.sub(r"^(-?[0-9]+)\.0$", r"\1", text.strip())


def reasons_told(aside: Iterable[Mapping[str, str]]) -> str:
    """The rows of a quarantine table in words: each reason with how many there are and the first of them."""
    first: dict[str, Mapping[str, str]] = {}
    counted: Counter[str] = Counter()
    for row in aside:
        first.setdefault(row["reason"], row)
        counted[row["reason"]] += 1
    return ", ".join(
        f"{reason} {count} (first: {': '.join(filter(None, (first[reason]['image_id'], first[reason]['detail'])))})"
        for reason, count in counted.most_common()
    )


def is_safe_name(name: str) -> bool:
    """Whether a name stays below the directory that it is joined to, and can be written down as UTF-8."""
    path = PurePosixPath(name)
    stays = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return stays and not any(sign in name for sign in ("\\", "\0")) and whole_text(name) == name


def read_document(path: Path) -> str:
    """The text of an annotation or metadata file, UTF-8 with or without a mark.

    Raises:
        SpecError: it has more than `MAX_DOCUMENT_BYTES`, of which nothing is read.
        ValueError: it is no UTF-8.
    """
    refuse_large(path)
    return path.read_text(encoding="utf-8-sig")


def refuse_large(path: Path) -> None:
    """Refuse an annotation or metadata file that would not fit into memory: `SpecError`."""
    size = path.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        raise SpecError(f"{path.name} has {size} bytes, more than {MAX_DOCUMENT_BYTES}: split it, or name another file")


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
        if error.errno in UNREADABLE:
            raise BadImage("unreadable", f"{file!r}: {error.strerror}") from error
        raise


def read_entries(root: Path, files: Iterable[str]) -> Iterator[tuple[str, bytes | BadImage]]:
    """Each file with its bytes, or with the error for which it is set aside; in the order of `files`.

    `root` is a directory of pictures, a Parquet file, or a directory of Parquet files. Each Parquet file is opened once
    and only some of its rows are in memory at a time: they are named in ascending order (`row_name`, `cell_name`).
    """
    is_parquet = root.is_file()
    for place, same_place in itertools.groupby(files, key=lambda file: parquet_place(file, is_parquet)):
        named = list(same_place)
        if place is None:
            for file in named:
                try:
                    yield file, read_entry(root, file)
                except BadImage as error:
                    yield file, error
        else:
            path, column = place
            rows = [int(file.split(":", 2)[1]) for file in named]
            yield from zip(named, _read_rows(root / path, rows, column), strict=True)


def row_name(row: int) -> str:
    """What `file` says for a row of a Parquet file, counted from 0."""
    return f"{_ROW}{row}"


def cell_name(row: int, column: str, file: str = "") -> str:
    """What `file` says for one of several pictures in a row of a Parquet file, of `file` below a directory of them."""
    return ":".join((row_name(row), column, *([file] if file else [])))


def parquet_place(file: str, is_parquet: bool) -> tuple[str, str | None] | None:
    """The Parquet file (below the root, empty for the root itself) and the column of an entry; None for a plain file.

    A column of None means the one that `image_columns` finds.
    """
    cell = _CELL.fullmatch(file)
    if cell is None or (cell["file"] is None) != is_parquet or not is_safe_name(cell["file"] or "root"):
        return None
    return cell["file"] or "", cell["column"]


def image_columns(schema: pa.Schema) -> tuple[str, str | None]:
    """Where a Parquet file keeps pictures: the column with the bytes and the one with their paths, dotted.

    That is a column of `PICTURE_COLUMNS`, in any letter case and perhaps flattened (`image.bytes`), or where none is
    called so the only struct of bytes and path, which is how Hugging Face writes pictures.

    Raises:
        SpecError: there is none, or there are several: a mask or the photograph that a fake was made from are pictures
            as well. Of plain binary columns those count that are called like pictures, a checksum does not.
    """
    usual = [name for name in schema.names if name.split(".")[0].casefold() in PICTURE_COLUMNS]
    holding = [name for name in schema.names if picture_column(schema, name) is not None]
    structs = [name for name in holding if pa.types.is_struct(schema.field(name).type)]
    several = [name for name in holding if name in usual or name in structs or _is_called_like_pictures(name)]
    if len(several) > 1:
        raise SpecError(
            f"several columns hold pictures, {several}: make each a source of `kind: column`, or only the one that is "
            "meant"
        )
    candidates = [name for name in usual if name in holding] if usual else structs
    found = picture_column(schema, candidates[0]) if candidates else None
    if found is not None:
        return found
    got = "; ".join(f"{name!r} is {_kind_told(schema, name)}" for name in usual) or f"the columns {schema.names}"
    others = f"; {holding} can be named in a source of `kind: column`" if holding else ""
    raise SpecError(f"expected a column `image` with {PICTURES_READ}, got {got}{others}")


def _is_called_like_pictures(name: str) -> bool:
    """Whether a binary column's name says that it holds pictures: `generated_image`, `mask.bytes`, not `image_md5`."""
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).casefold()))
    words |= {word.rstrip("0123456789") for word in words}
    return name.endswith(".bytes") or bool(words & _PICTURE_WORDS and not words & _NO_PICTURE_WORDS)


def picture_column(schema: pa.Schema, name: str) -> tuple[str, str | None] | None:
    """Where a column of pictures keeps their bytes and their paths, dotted; None where it holds no pictures."""
    if schema.names.count(name) != 1:
        return None
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        children = {child.name: child.type for child in kind}
        if not _is_binary(children.get("bytes")):
            return None
        return f"{name}.bytes", f"{name}.path" if "path" in children else None
    if not _is_binary(kind):
        return None
    beside = f"{name.removesuffix('.bytes')}.path"
    return name, beside if name.endswith(".bytes") and beside in schema.names else None


def column_problem(schema: pa.Schema, name: str) -> str | None:
    """Why a column holds no pictures, with what is read; None where it holds some."""
    if picture_column(schema, name) is not None:
        return None
    if name not in schema.names:
        return f"expected {PICTURES_READ} in the column {name!r}, got the columns {schema.names}"
    return f"expected {PICTURES_READ} in the column {name!r}, which is {_kind_told(schema, name)}"


def _is_binary(kind: pa.DataType | None) -> bool:
    if kind is not None and pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind is not None and any(
        is_one(kind) for is_one in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    )


def _kind_told(schema: pa.Schema, name: str) -> str:
    """What a column is that holds no pictures, and what to do about it."""
    if schema.names.count(name) > 1:
        return "there twice: rename one"
    kind = schema.field(name).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text: paths are not followed and base64 is not decoded, put the files' bytes there"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"{kind}: pixels and lists of pictures are not read, put one file's bytes into each row"
    return str(kind)


def without_bytes(file: pq.ParquetFile, column: str) -> bool:
    """Whether a Parquet file's footer says that all cells of a column are null; False where it does not say so.

    `column` is dotted, as `image_columns` gives it. Pictures whose bytes were not embedded look like this.
    """
    groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    chunks = [
        group.column(index)
        for group in groups
        for index in range(group.num_columns)
        if group.column(index).path_in_schema == column
    ]
    if not file.metadata.num_rows or len(chunks) != len(groups):
        return False
    stated = [chunk.statistics for chunk in chunks]
    return all(
        one is not None and one.has_null_count and one.null_count == chunk.num_values
        for one, chunk in zip(stated, chunks, strict=True)
    )


def parquet_schema(path: Path) -> pa.Schema:
    """The schema of a Parquet file; `SpecError` where it cannot be read."""
    with open_parquet(path) as file:
        return file.schema_arrow


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file of which only the footer has been read.

    Raises:
        SpecError: it has no footer, one of more than `MAX_FOOTER_BYTES`, or more than `MAX_ROWS` rows in it.
    """
    try:
        length = _footer_length(path)
        # A longer one than the file is none: the parser says so.
        if MAX_FOOTER_BYTES < length <= path.stat().st_size:
            raise SpecError(f"{path.name} has a footer of {length} bytes, more than {MAX_FOOTER_BYTES}")
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        # What Parquet says of a broken footer is an OSError without a number; a disk that fails has one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise unreadable_parquet(path, error) from error
    if file.metadata.num_rows > MAX_ROWS:
        file.close()
        raise SpecError(f"{path.name} has {file.metadata.num_rows} rows, more than {MAX_ROWS}: split it into files")
    return file


def unreadable_parquet(path: Path, error: Exception) -> SpecError:
    """What is said of a Parquet file that is none, or not a whole one."""
    return SpecError(f"{path.name} is not readable as Parquet, it may be cut off: {error}")


def _footer_length(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _FOOTER_END))
        return int.from_bytes(file.read(4), "little")


def _read_rows(path: Path, rows: Sequence[int], column: str | None) -> Iterator[bytes | BadImage]:
    if list(rows) != sorted(set(rows)):
        raise ValueError("rows of a Parquet file are read in ascending order, each once")
    # Names of Parquet files come from listing their directory, never from annotations: they may be links, as in the
    # cache of a model hub.
    if not path.is_file():
        yield from (BadImage("missing-file", path.name) for _ in rows)
        return
    with open_parquet(path) as file:
        schema = file.schema_arrow
        found = image_columns(schema) if column is None else picture_column(schema, column)
        if found is None:
            raise SpecError(f"{path.name}: expected pictures in the column {column!r}, got {schema.names}")
        end = 0
        for group in range(file.num_row_groups):
            first, end = end, end + file.metadata.row_group(group).num_rows
            wanted = rows[bisect.bisect_left(rows, first) : bisect.bisect_left(rows, end)]
            size = _column_bytes(file.metadata.row_group(group), found[0]) if wanted else 0
            if size > MAX_ROW_GROUP_BYTES:
                # Arrow holds a column of a row group as a whole.
                detail = f"in a row group of {size} bytes, more than {MAX_ROW_GROUP_BYTES}"
                yield from (BadImage("too-large", detail) for _ in wanted)
                continue
            yield from _read_row_group(file, group, found[0], [row - first for row in wanted])
        beyond = rows[bisect.bisect_left(rows, end) :]
        yield from (BadImage("missing-file", f"the Parquet file ends at row {end}") for _ in beyond)


def _column_bytes(group: pq.RowGroupMetaData, column: str) -> int:
    """Bytes of a column in a row group, as the footer states them, unpacked."""
    columns = (group.column(index) for index in range(group.num_columns))
    return sum(one.total_uncompressed_size for one in columns if f"{one.path_in_schema}.".startswith(f"{column}."))


def _read_row_group(file: pq.ParquetFile, group: int, column: str, rows: Sequence[int]) -> Iterator[bytes | BadImage]:
    """Cells of a column at ascending rows of one row group; where its pages are damaged, errors for what is left."""
    done = first = 0
    batches = file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]) if rows else iter(())
    problem = ""
    while done < len(rows):
        try:
            values = next(batches).column(0)
        except (pa.ArrowException, OSError, StopIteration) as error:
            # Damaged pages are an OSError without a number; a disk that fails has one, and may recover.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            problem = f"row group {group} is damaged: {error}"
            break
        if pa.types.is_struct(values.type):
            values = values.field(0)
        while done < len(rows) and rows[done] < first + len(values):
            yield values[rows[done] - first].as_py() or BadImage("empty", "no bytes")
            done += 1
        first += len(values)
    yield from (BadImage("unreadable", problem) for _ in rows[done:])
