"""Finished objects: parts, then a manifest written last and create-only. The manifest is the only cache."""

import contextlib
import hashlib
import io
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_serializer

from storage.digest import canonical_json, sha256_hex
from storage.errors import DamagedObject, ObjectExists, ObjectMissing, OtherVersion
from storage.local import LocalStore
from storage.store import Store

OBJECTS = "objects"
MANIFEST = "manifest.json"
# The part that holds an object's rows; other tables beside it (quarantine, losses) have names of their own.
ROWS = "part-0.parquet"

PartContent: TypeAlias = bytes | pa.Table


class Ref(BaseModel):
    """A small frozen pointer to a finished object. `uri` is its place inside the store, `digest` its recipe's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    digest: str
    rows: int
    bytes: int

    @classmethod
    def at(cls, place: str, rows: int, size: int) -> "Ref":
        """The ref of a place, whose last name is the digest, with its counts."""
        return Ref(uri=place, digest=digest_at(place), rows=rows, bytes=size)


def digest_at(place: str) -> str:
    """The digest of the recipe whose object lies at a place: its last name."""
    return place[place.rfind("/") + 1 :]


class LazyRef(Ref):
    """A ref of which only the place is known yet: its counts are asked for when somebody wants to know them.

    `asked` gives the whole ref of a place. Of an object that is still to be made it raises `NotFinished`.
    """

    _asked: Callable[[str], Ref] = PrivateAttr()

    @classmethod
    def of(cls, uri: str, asked: Callable[[str], Ref]) -> "LazyRef":
        """The ref of a place, whose last name is the digest."""
        return cls.maker(asked)(uri)

    @classmethod
    def maker(cls, asked: Callable[[str], Ref]) -> Callable[[str], "LazyRef"]:
        """`of` for many places: a plan has a million, so that none is validated and all share what they can."""
        private, fields, put = {"_asked": asked}, {"uri", "digest"}, object.__setattr__

        def made(uri: str) -> "LazyRef":
            ref = cls.__new__(cls)
            put(ref, "__dict__", {"uri": uri, "digest": digest_at(uri)})
            put(ref, "__pydantic_fields_set__", fields)
            put(ref, "__pydantic_extra__", None)
            put(ref, "__pydantic_private__", private)
            return ref

        return made

    def whole(self) -> Ref:
        """The ref with its counts."""
        return self._asked(self.uri)

    @model_serializer
    def _serialized(self) -> dict[str, Any]:
        return self.whole().model_dump()

    def __hash__(self) -> int:
        return hash(self.uri)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Only what is not there is looked for here.
            return getattr(self.whole(), name) if name in ("rows", "bytes") else super().__getattr__(name)


class Part(BaseModel):
    """One file of an object. `name` is what readers ask for, `file` holds a piece of the content's digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: str
    bytes: int
    sha256: str
    rows: int


class Manifest(BaseModel):
    """What a finished object consists of and from what it was made.

    This is format 1. A version of telltale that writes another one says so in a field `format`, so that this one leaves
    its objects alone.

    `notes` holds counts and facts of the step (quarantined pictures, losses, thresholds); `content` is the digest of
    the parts alone, equal for equal results whatever machine or moment made them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    digest: str
    content: str
    recipe: dict[str, Any]
    parts: tuple[Part, ...]
    rows: int
    bytes: int
    notes: dict[str, Any]
    created: str
    seconds: float
    host: str


def find(store: Store, uri: str) -> Ref | None:
    """The ref of a finished object, or None. A manifest whose parts do not have their sizes is voided."""
    try:
        manifest = read_manifest(store, uri)
    except ObjectMissing:
        return None
    except DamagedObject:
        return None
    for part in manifest.parts:
        if store.size(f"{uri}/{part.file}") != part.bytes:
            void(store, uri)
            return None
    return Ref(uri=uri, digest=manifest.digest, rows=manifest.rows, bytes=manifest.bytes)


def commit(
    store: Store,
    uri: str,
    *,
    step: str,
    digest: str,
    recipe: Mapping[str, Any],
    parts: Mapping[str, PartContent],
    notes: Mapping[str, Any] | None = None,
    seconds: float = 0.0,
) -> Ref:
    """Write parts, then the manifest. Of two writers one wins; the other adopts the winner's object.

    A part's file name carries its content's digest, so that a loser never overwrites a winner's part.
    """
    written = tuple(_write_part(store, uri, name, content) for name, content in parts.items())
    manifest = Manifest(
        step=step,
        digest=digest,
        content=sha256_hex(canonical_json([[part.name, part.sha256] for part in written]).encode()),
        recipe=dict(recipe),
        parts=written,
        rows=sum(part.rows for part in written if part.name == ROWS),
        bytes=sum(part.bytes for part in written),
        notes=dict(notes or {}),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        host=socket.gethostname(),
    )
    try:
        store.create(f"{uri}/{MANIFEST}", canonical_json(manifest.model_dump(mode="json")).encode())
    except ObjectExists:
        winner = find(store, uri)
        if winner is not None:
            return winner
        store.create(f"{uri}/{MANIFEST}", canonical_json(manifest.model_dump(mode="json")).encode())
    # A part that was there already was debris until now, and a sweep may have taken it before the manifest named it.
    for part in written:
        if store.size(f"{uri}/{part.file}") != part.bytes:
            _write_part(store, uri, part.name, parts[part.name])
    return Ref(uri=uri, digest=digest, rows=manifest.rows, bytes=manifest.bytes)


def finished_objects(store: Store) -> list[str]:
    """Where finished objects lie, sorted: one listing of all of them.

    It says what has a manifest. `find` looks at the parts, too.
    """
    end = f"/{MANIFEST}"
    return sorted(listed.key.removesuffix(end) for listed in store.scan(OBJECTS) if listed.key.endswith(end))


def parse_manifest(uri: str, data: bytes) -> Manifest:
    """The manifest of the object at `uri` from its bytes.

    Raises:
        OtherVersion: it is of a newer version of telltale: whole, with fields that this one does not know.
        ValidationError: it is none.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        unknown = [str(one["loc"][-1]) for one in error.errors() if one["type"] == "extra_forbidden"]
        if "format" in unknown or (unknown and len(unknown) == error.error_count()):
            raise OtherVersion(
                f"{uri}: a newer version of telltale finished this object (its manifest has {', '.join(unknown)}): use "
                "that version here, or another store"
            ) from error
        raise


def read_manifest(store: Store, uri: str) -> Manifest:
    """Read an object's manifest; `ObjectMissing` without one, `DamagedObject` (and voided) for an unreadable one.

    Raises:
        OtherVersion: it is a newer version's, and stays.
    """
    try:
        return parse_manifest(uri, store.read(f"{uri}/{MANIFEST}"))
    except (ValidationError, DamagedObject) as error:
        void(store, uri)
        raise DamagedObject(f"{uri}: the manifest is not readable; voided, the step will run again") from error


def manifest_of(store: Store, ref: Ref) -> Manifest:
    """The manifest of an object that was finished; `DamagedObject` where another worker has voided it since.

    Raises:
        NotFinished: an evaluation is being planned, and the object is still to be made.
    """
    if isinstance(ref, LazyRef):
        ref.whole()
    try:
        return read_manifest(store, ref.uri)
    except ObjectMissing as error:
        raise DamagedObject(f"{ref.uri}: was finished, and its manifest is gone; the step will run again") from error


def notes_of(store: Store, ref: Ref) -> dict[str, Any]:
    """The facts that a step noted beside its output."""
    return manifest_of(store, ref).notes


def read_part(store: Store, ref: Ref, name: str) -> bytes:
    """Read one part, verified against its sha256; a damaged one voids the manifest and raises `DamagedObject`."""
    return _verified(store, ref, _part(manifest_of(store, ref), name))


@contextmanager
def opened_part(store: Store, ref: Ref, name: str = ROWS) -> Iterator[BinaryIO]:
    """One part as a file, verified as by `read_part`; that of a local store is never in memory as a whole."""
    part = _part(manifest_of(store, ref), name)
    with contextlib.ExitStack() as opened:
        file: BinaryIO | None = None
        if isinstance(store, LocalStore):
            with contextlib.suppress(OSError):
                file = opened.enter_context(store.path(f"{ref.uri}/{part.file}").open("rb"))
        if file is None or hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:  # type: ignore[arg-type]
            # What is missing or altered there is dealt with as everywhere.
            file = io.BytesIO(_verified(store, ref, part))
        file.seek(0)
        yield file


def read_table(store: Store, ref: Ref, columns: Sequence[str] | None = None, name: str = ROWS) -> pa.Table:
    """Read one Parquet part of an object, verified: its rows, or a side table by name."""
    return table_of(read_part(store, ref, name), columns)


def void(store: Store, uri: str) -> None:
    """Take a manifest back, so that the step runs again."""
    store.delete(f"{uri}/{MANIFEST}")


def table_of(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read what `parquet_bytes` made.

    By this thread alone: `pyarrow.parquet.read_table` lets go of Python's bytes in threads of its own, some of them
    after it has returned, and a process that ends in that moment aborts.
    """
    file = pq.ParquetFile(pa.BufferReader(data))
    return file.read(columns=list(columns) if columns else None, use_threads=False)


def parquet_bytes(table: pa.Table) -> bytes:
    """Write a table as Parquet with fixed options, so that equal tables give equal bytes."""
    sink = pa.BufferOutputStream()  # a Python file is written in many small calls
    plain = [field.name for field in table.schema if pa.types.is_fixed_size_binary(field.type)]
    coded = [field.name for field in table.schema if pa.types.is_string(field.type)]
    compression = {name: "none" if name in plain else "zstd" for name in table.column_names}
    pq.write_table(
        table,
        sink,
        compression=compression if not _has_nested(table) else "zstd",
        use_dictionary=coded,
        write_statistics=coded,
        row_group_size=2_000,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _has_nested(table: pa.Table) -> bool:
    return any(pa.types.is_nested(field.type) for field in table.schema)


def _write_part(store: Store, uri: str, name: str, content: PartContent) -> Part:
    data = parquet_bytes(content) if isinstance(content, pa.Table) else content
    sha256 = sha256_hex(data)
    stem, dot, suffix = name.partition(".")
    file = f"{stem}-{sha256[:12]}{dot}{suffix}"
    rows = content.num_rows if isinstance(content, pa.Table) else 0
    if store.size(f"{uri}/{file}") != len(data):
        store.write(f"{uri}/{file}", data)
    return Part(name=name, file=file, bytes=len(data), sha256=sha256, rows=rows)


def _part(manifest: Manifest, name: str) -> Part:
    for part in manifest.parts:
        if part.name == name:
            return part
    raise ObjectMissing(f"{manifest.step} {manifest.digest[:12]} has no part {name!r}")


def _verified(store: Store, ref: Ref, part: Part) -> bytes:
    data: bytes | None
    try:
        data = store.read(f"{ref.uri}/{part.file}")
    except ObjectMissing as error:
        void(store, ref.uri)
        raise DamagedObject(f"{ref.uri}: part {part.name} is missing; voided, the step will run again") from error
    except DamagedObject:
        data = None
    if data is None or sha256_hex(data) != part.sha256:
        # A part of the right size and wrong bytes would be kept by the next writer: remove it as well.
        store.delete(f"{ref.uri}/{part.file}")
        void(store, ref.uri)
        raise DamagedObject(f"{ref.uri}: part {part.name} was altered; voided, the step will run again")
    return data
