"""A store on a local disk."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from storage.errors import ObjectExists, ObjectMissing, StoreNotWritable, StoreRefused
from storage.store import PARTIAL, Listed, checked_key


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
