"""What telltale asks of a store: keys and bytes, with create-only writes."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from storage.errors import ObjectExists, SpecError, StoreError, StoreNotWritable

STORE_SETTING = "TELLTALE_STORE"

# What file systems and S3 servers can all hold; a prefix of the bucket may come before the key.
LONGEST_NAME = 255
LONGEST_KEY = 800
PARTIAL = ".partial-"

_known: ContextVar[bool] = ContextVar("known", default=False)


@contextlib.contextmanager
def known_store() -> Iterator[None]:
    """Within this block a store that does not answer is away for a while, not misnamed: it has answered to others."""
    token = _known.set(True)
    try:
        yield
    finally:
        _known.reset(token)


def is_known() -> bool:
    """Whether the store has answered to others, so that it is worth waiting for."""
    return _known.get()


@dataclass(frozen=True, slots=True)
class Listed:
    """One key as a listing says it.

    `version` is a text of the store's own, to be compared with another one of the same key: it changes whenever other
    bytes are put under the key. Equal bytes that are written again may keep it.
    """

    key: str
    bytes: int
    version: str


class Store(Protocol):
    """What telltale asks of a store. Keys are relative POSIX paths without `..`."""

    @property
    def url(self) -> str:
        """The store's address, such as `file:///data/store` or `s3://bucket/prefix`."""
        ...

    def read(self, key: str) -> bytes:
        """Return the bytes under a key; `ObjectMissing` if there are none."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put bytes under a key at once, replacing what was there."""
        ...

    def create(self, key: str, data: bytes) -> None:
        """Put bytes under a new key at once; `ObjectExists` if another writer was first."""
        ...

    def size(self, key: str) -> int | None:
        """Number of bytes under a key, or None."""
        ...

    def scan(self, prefix: str) -> Iterator[Listed]:
        """What lies below a folder, as one listing says it, in any order and read as it is asked for.

        What is written or deleted meanwhile may be among it or not. A folder that is not there holds nothing.
        """
        ...

    def list(self, prefix: str) -> list[str]:
        """All keys below a folder, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove a key; a missing one is no error."""
        ...

    def modified(self, key: str) -> float:
        """Time of the last change in seconds since 1970; `ObjectMissing` if there is none."""
        ...

    def is_exclusive(self) -> bool:
        """Whether `create` has exactly one winner among any number of processes, which several workers need."""
        ...


def checked_key(key: str) -> str:
    """The key in its one form; `SpecError` for one that leaves the store or that not every store can hold."""
    path = PurePosixPath(key)
    names = path.parts
    if not names or path.is_absolute() or ".." in names or not key.isprintable() or "\\" in key:
        raise SpecError(f"not a key of a store: {key!r}")
    if any(name.startswith(PARTIAL) for name in names):
        raise SpecError(f"not a key of a store: {key!r} is named like an unfinished write")
    if len(str(path).encode()) > LONGEST_KEY or max(len(name.encode()) for name in names) > LONGEST_NAME:
        raise SpecError(f"not a key of a store: {key!r} is too long ({LONGEST_KEY} bytes, {LONGEST_NAME} for one name)")
    return str(path)


def check_writable(store: Store) -> None:
    """Write and remove a probe object; a `StoreError` that says what to do when the store takes none."""
    key = f"probe/{os.getpid()}-{os.urandom(4).hex()}"
    try:
        store.create(key, b"telltale")
        store.delete(key)
    except StoreError:
        raise
    except Exception as error:  # every library below names its failures differently
        raise StoreNotWritable(f"cannot write to {store.url}: {error}") from error


def create_once(store: Store, key: str, data: bytes) -> None:
    """Create a file whose name says what it holds; one that is there already is the same."""
    with contextlib.suppress(ObjectExists):
        store.create(key, data)
