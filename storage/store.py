"""A store: keys and bytes on a local disk or in an object store, with create-only writes."""

import errno
import os
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urlsplit

from storage.errors import ObjectExists, ObjectMissing, SpecError, StoreError, StoreNotWritable

STORE_SETTING = "TELLTALE_STORE"
DEFAULT_STORE = ".telltale/store"


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

    def list(self, prefix: str) -> list[str]:
        """All keys below a folder, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove a key; a missing one is no error."""
        ...

    def modified(self, key: str) -> float:
        """Time of the last change in seconds since 1970; `ObjectMissing` if there is none."""
        ...


def store_url() -> str:
    """The address of the configured store (`TELLTALE_STORE`, default a folder of the working directory)."""
    return os.environ.get(STORE_SETTING) or DEFAULT_STORE


def open_store(url: str | None = None) -> Store:
    """Open a store by address: a path, `file://` or `s3://` (through s3fs, with its usual configuration)."""
    url = url or store_url()
    scheme = urlsplit(url).scheme
    if scheme in ("", "file"):
        return LocalStore(Path(url.removeprefix("file://")))
    if scheme == "s3":
        return ObjectStore(url)
    raise SpecError(f"{STORE_SETTING}: expected a path, file:// or s3:// address, got {url!r}")


def checked_key(key: str) -> str:
    """Refuse keys that leave the store."""
    path = PurePosixPath(key)
    if not key or path.is_absolute() or ".." in path.parts or "\\" in key or "\0" in key:
        raise SpecError(f"not a key of a store: {key!r}")
    return str(path)


class LocalStore:
    """A store in a directory. Writes are atomic: a temporary file of the same folder, then link or rename."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def url(self) -> str:
        return f"file://{self.root}"

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
            target.parent.mkdir(parents=True, exist_ok=True)
            # Not mkstemp: its files are private, and workers of other users read the same store.
            temporary = target.parent / f".partial-{os.getpid()}-{os.urandom(6).hex()}"
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
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
        path = self.path(key)
        return path.stat().st_size if path.is_file() else None

    def list(self, prefix: str) -> list[str]:
        folder = self.path(prefix) if prefix else self.root
        found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".partial-"))
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def modified(self, key: str) -> float:
        try:
            return self.path(key).stat().st_mtime
        except FileNotFoundError as error:
            raise ObjectMissing(f"nothing under {key} in {self.url}") from error


class ObjectStore:
    """A store in a bucket, through s3fs. Puts are atomic by nature; create-only is `If-None-Match: *`."""

    def __init__(self, url: str, **options: Any) -> None:
        import s3fs

        self._url = url.rstrip("/")
        self._root = self._url.removeprefix("s3://")
        self._files = s3fs.S3FileSystem(use_listings_cache=False, **options)

    @property
    def url(self) -> str:
        return self._url

    def _path(self, key: str) -> str:
        return f"{self._root}/{checked_key(key)}"

    def read(self, key: str) -> bytes:
        try:
            return bytes(self._files.cat_file(self._path(key)))
        except FileNotFoundError as error:
            raise ObjectMissing(f"nothing under {key} in {self.url}") from error

    def write(self, key: str, data: bytes) -> None:
        self._put(key, data, mode="overwrite")

    def create(self, key: str, data: bytes) -> None:
        self._put(key, data, mode="create")

    def _put(self, key: str, data: bytes, *, mode: str) -> None:
        try:
            self._files.pipe_file(self._path(key), data, mode=mode)
        except FileExistsError as error:
            raise ObjectExists(f"{key} exists in {self.url}") from error
        except PermissionError as error:
            raise StoreNotWritable(f"cannot write {key} to {self.url}: {error}") from error
        except OSError as error:
            # s3fs reports a lost create race (412) as EINVAL with some servers.
            if mode == "create" and self.size(key) is not None:
                raise ObjectExists(f"{key} exists in {self.url}") from error
            raise

    def size(self, key: str) -> int | None:
        try:
            return int(self._files.info(self._path(key))["size"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> list[str]:
        folder = self._path(prefix) if prefix else self._root
        return sorted(path.removeprefix(self._root + "/") for path in self._files.find(folder))

    def delete(self, key: str) -> None:
        try:
            self._files.rm_file(self._path(key))
        except FileNotFoundError:
            return

    def modified(self, key: str) -> float:
        try:
            return float(self._files.modified(self._path(key)).timestamp())
        except FileNotFoundError as error:
            raise ObjectMissing(f"nothing under {key} in {self.url}") from error


def check_writable(store: Store) -> None:
    """Write and remove a probe object; `StoreNotWritable` when the store takes none."""
    key = f"probe/{os.getpid()}-{os.urandom(4).hex()}"
    try:
        store.create(key, b"telltale")
        store.delete(key)
    except StoreError:
        raise
    except Exception as error:  # every library below names its failures differently
        raise StoreNotWritable(f"cannot write to {store.url}: {error}") from error
