"""A store: keys and bytes on a local disk or in an object store, with create-only writes."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote

from storage.errors import ObjectExists, ObjectMissing, SpecError, StoreError, StoreNotWritable, StoreRefused
from storage.paths import absolute

STORE_SETTING = "TELLTALE_STORE"
DEFAULT_STORE = ".telltale/store"

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


def store_url() -> str:
    """The address of the configured store (`TELLTALE_STORE`, default a folder of the working directory)."""
    return os.environ.get(STORE_SETTING) or DEFAULT_STORE


def open_store(url: str | None = None) -> Store:
    """Open a store by address: a path, `file:///folder`, or `s3://bucket/prefix` with the usual AWS settings.

    In a path `~` is a home folder, and a relative one counts from the working directory. In a `file://` address `%20`
    and its like stand for characters, as in every link; in a path and in a bucket's prefix they stand for themselves.

    Raises:
        SpecError: it is none of these.
        StoreRefused: there can be no folder: a file is in its place, or the path is out of reach.
    """
    url = url or store_url()
    folder = local_folder(url)
    if folder is not None:
        try:
            files = [place for place in (folder, *folder.parents) if place.is_file()]
        except OSError as error:
            raise StoreRefused(f"{STORE_SETTING}: {folder} cannot be a folder of ours ({error.strerror})") from error
        if files:
            raise StoreRefused(f"{STORE_SETTING}: expected a folder, {files[0]} is a file")
        return LocalStore(folder)
    from storage.s3 import ObjectStore

    return ObjectStore(url)


def local_folder(url: str) -> Path | None:
    """The absolute path of a store on the local disk, None for a bucket's address.

    Raises:
        SpecError: it is no address of a store. It is not repeated in the message: it may hold a password.
    """
    # A single letter, too: nobody means a folder `C:` here.
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url)
    if scheme is None:
        return absolute(url)
    name = scheme[1].lower()
    if name == "s3":
        return None
    if name != "file":
        raise SpecError(f"{STORE_SETTING}: expected a path, file:// or s3:// address, got one of {scheme[0]}//")
    place = url[scheme.end() :].removeprefix("//").removeprefix("localhost")
    if not place.startswith("/") or set("?#") & set(place):
        raise SpecError(
            f"{STORE_SETTING}: expected file:///folder, the path with all its slashes, ? as %3F and # as %23"
        )
    return absolute(unquote(place, errors="surrogateescape"))


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


class LocalStore:
    """A store in a directory. Writes are atomic: a temporary file of the same folder, then link or rename."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def url(self) -> str:
        return self.root.as_uri()

    def path(self, key: str) -> Path:
        """Where a key lies on the disk."""
        return self.root / checked_key(key)

    def read(self, key: str) -> bytes:
        try:
            return self.path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissing(f"nothing under {key} in {self.url}") from error

    def write(self, key: str, data: bytes) -> None:
        self._put(key, data, replace=True)

    def create(self, key: str, data: bytes) -> None:
        self._put(key, data, replace=False)

    def _put(self, key: str, data: bytes, *, replace: bool) -> None:
        target = self.path(key)
        try:
            temporary, handle = _new_file(target.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                if replace:
                    temporary.replace(target)
                else:
                    os.link(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError as error:
            raise ObjectExists(f"{key} exists in {self.url}") from error
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR):
                raise StoreNotWritable(f"cannot write {key} to {self.url}: {error.strerror}") from error
            raise

    def size(self, key: str) -> int | None:
        found = self._stat(key)
        return None if found is None else found.st_size

    def scan(self, prefix: str) -> Iterator[Listed]:
        above = len(str(self.root).rstrip("/")) + 1
        folders = [os.fspath(self.path(prefix) if prefix else self.root)]
        while folders:
            # A folder's names are read at once: whoever goes through them may delete what it finds.
            for entry in _entries(folders.pop()):
                if entry.name.startswith(PARTIAL):
                    continue
                # A link to a file is a key, one to a folder is not followed: it may lead round in a circle.
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif (found := _regular(entry.stat)) is not None:
                    # Every write puts a new file in the old one's place, so that the two cannot share a number.
                    yield Listed(entry.path[above:], found.st_size, f"{found.st_mtime_ns}-{found.st_ino}")

    def list(self, prefix: str) -> list[str]:
        return sorted(listed.key for listed in self.scan(prefix))

    def delete(self, key: str) -> None:
        # A folder is no object: like a missing key, it is nothing to remove.
        path = self.path(key)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()
        # Nor is an empty one anything to list. Claims come and go, each in a folder of its own.
        if path.parent != self.root:
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def modified(self, key: str) -> float:
        found = self._stat(key)
        if found is None:
            raise ObjectMissing(f"nothing under {key} in {self.url}")
        return found.st_mtime

    def _stat(self, key: str) -> os.stat_result | None:
        return _regular(self.path(key).stat)

    def is_exclusive(self) -> bool:
        return True


def _new_file(folder: Path) -> tuple[Path, int]:
    """The path and the open descriptor of a new file in a folder, which is made where there is none.

    A delete may take the empty folder away at any moment, also right after it was made.
    """
    for tries_left in reversed(range(100)):
        # Not mkstemp: its files are private, and workers of other users read the same store.
        path = folder / f"{PARTIAL}{os.getpid()}-{os.urandom(6).hex()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise
    raise AssertionError("unreachable")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What a folder holds; nothing where there is no such folder, or no longer."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        # Not left out: whoever takes a listing for the whole would make, or remove, what is there.
        raise StoreRefused(f"the store's folder {folder} cannot be listed ({error.strerror})") from error


def _regular(ask: Callable[[], os.stat_result]) -> os.stat_result | None:
    """What the disk says of a file; None where there is none, no longer, or something else."""
    try:
        found = ask()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    return found if stat.S_ISREG(found.st_mode) else None


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
