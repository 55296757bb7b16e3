"""What lies below a source's directory: every name, and the sha256 of every file's bytes.

Content decides what is computed anew. A file is read again only where it may have changed: digests are remembered in
the cache with size, times and inode of the file, so that an unchanged folder costs one `stat` for each of its files.
"""

import errno
import hashlib
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.digest import digest_of
from storage.errors import InputChanged
from tasks.cache import cache_folder
from tasks.progress import Progress
from tasks.threads import parallel_tasks

logger = logging.getLogger(__name__)

# A file may change within the same tick of its file system's clock (FAT's has two seconds): what was written so shortly
# before it was read is read again the next time. Git calls such entries racy.
SETTLED_NS = 2_000_000_000
SHOWN_FROM = 1_000  # files to read, from which on that is shown as progress

_REMEMBERED = pa.schema(
    [
        ("name", pa.binary()),  # as the file system has it, which may be no UTF-8
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("inode", pa.uint64()),
        ("device", pa.uint64()),  # of the file system: another one may be mounted there
        ("sha256", pa.string()),
    ]
)
# What says that a file is the one that was read. The time of change is there as tools can set that of modification.
_Facts = tuple[int, ...]

# The file's own fault; anything else, such as a network disk that went away, may pass.
UNREADABLE = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP})


@dataclass(frozen=True)
class Listed:
    """What a directory lists: a plain file, or something set aside with a quarantine's `reason` and `detail`."""

    name: str  # below the directory
    facts: os.stat_result | None = field(default=None, compare=False)
    reason: str | None = None
    detail: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a file, or a link to one, wherever that lies."""
        return self.facts is not None and stat.S_ISREG(self.facts.st_mode)

    @property
    def is_folder_outside(self) -> bool:
        """Whether it is a link to a folder that is no part of the directory: nobody knows what is lost with it."""
        return self.reason == "link-outside" and self.facts is not None and stat.S_ISDIR(self.facts.st_mode)


def list_files(root: Path, within: Path | None = None) -> list[Listed]:
    """Everything below a directory but its folders, sorted by name.

    Links to files are followed where these lie in it, or in the directory `within`. Set aside are links out of it
    (`link-outside`), to a folder in it, whose files are listed under their own names (`link-to-folder`; it may lead in
    a circle) and to nothing (`missing-file`), what is neither file nor folder, and folders that may not be read
    (`unreadable`).
    """
    inside = (within or root).resolve()
    found: list[Listed] = []
    folders = [("", os.fspath(root))]
    while folders:
        prefix, path = folders.pop()
        try:
            scanned = os.scandir(path)
        except OSError as error:
            if not prefix or error.errno not in UNREADABLE:
                raise
            found.append(Listed(prefix[:-1], reason="unreadable", detail=f"folder: {error.strerror}"))
            continue
        with scanned:
            for item in scanned:
                if item.is_dir(follow_symlinks=False):
                    folders.append((f"{prefix}{item.name}/", item.path))
                else:
                    found.append(_listed(prefix + item.name, item, inside))
    return sorted(found, key=lambda listed: listed.name)


def outside_folders(listed: Iterable[Listed]) -> str | None:
    """What is said of links to folders outside a source's directory, which it cannot be used with; None without any."""
    links = [item.name for item in listed if item.is_folder_outside]
    if not links:
        return None
    more = f" and {len(links) - 3} more" if links[3:] else ""
    return (
        f"{', '.join(map(repr, links[:3]))}{more}: links to folders outside, whose pictures would be missing; name "
        "these folders as sources of their own, or copy them to where the links are (cp -rL)"
    )


def content_digests(
    root: Path, listed: Sequence[Listed], clock: Callable[[], int] = time.time_ns
) -> dict[str, str | None]:
    """The sha256 of plain files below `root` by their names; None of those that may not be read.

    Args:
        root: the directory, or the file itself, whose name is empty then.
        listed: of `list_files`; what is set aside has no digest.
        clock: nanoseconds since the epoch, as the file system counts them.

    Raises:
        InputChanged: a file was written to while it was read.
    """
    files = {item.name: item.facts for item in listed if item.facts is not None and item.reason is None}
    memory = _Memory(root)
    known = memory.read()
    facts = {name: _facts(found) for name, found in files.items()}
    digests = {name: known[name][1] for name in files if name in known and known[name][0] == facts[name]}
    unknown = [name for name in files if name not in digests]
    settled = clock() - SETTLED_NS
    fresh: dict[str, tuple[_Facts, str]] = {}
    found: dict[str, str | None] = dict(digests)
    for name, sha256 in zip(unknown, _read_all(root, unknown), strict=True):
        found[name] = sha256
        if sha256 is not None and max(files[name].st_mtime_ns, files[name].st_ctime_ns) < settled:
            fresh[name] = (facts[name], sha256)
    if fresh:
        memory.write(known | fresh)
    return found


@dataclass(frozen=True)
class Inventory:
    """What a source holds: its `digest`, which decides what is computed, and what it is a digest of.

    `sha256` has the digest of every file's bytes by name; a source that is one Parquet file has the empty name.
    """

    digest: str
    listed: Sequence[Listed]
    sha256: Mapping[str, str | None]

    def expect(self, digest: str, source: str) -> None:
        """Raise `InputChanged` unless this is the inventory that a run has begun with."""
        if self.digest != digest:
            raise InputChanged(f"{source}: files have changed since the run began: start it again")


def take_inventory(root: Path, listed: Sequence[Listed], read: Callable[[str], bool], *more: Any) -> Inventory:
    """The inventory of listed files, of which those that `read` names are pictures, and of `more` that decides.

    Of other files the names count: they are set aside.
    """
    sha256 = content_digests(root, [item for item in listed if read(item.name)])
    content = [[item.name, item.reason, sha256.get(item.name)] for item in listed]
    return Inventory(digest_of([content, *more]), listed, sha256)


def _listed(name: str, item: os.DirEntry[str], inside: Path) -> Listed:
    try:
        facts = item.stat()
    except FileNotFoundError:
        return Listed(name, reason="missing-file", detail="a link to nothing")
    except OSError as error:
        if error.errno not in UNREADABLE:
            raise
        return Listed(name, reason="unreadable", detail=str(error.strerror))
    if item.is_symlink():
        target = Path(item.path).resolve()
        if not target.is_relative_to(inside):
            return Listed(name, facts, "link-outside", f"a link to {str(target)!r}, out of its directory")
        if stat.S_ISDIR(facts.st_mode):
            return Listed(name, facts, "link-to-folder", f"{target.name!r} is listed under its own name")
    if not stat.S_ISREG(facts.st_mode):
        return Listed(name, reason="unreadable", detail="neither a file nor a folder")
    return Listed(name, facts)


def _facts(found: os.stat_result) -> _Facts:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev


def _read_all(root: Path, names: Sequence[str]) -> Iterator[str | None]:
    progress = Progress(f"read {root.name}", len(names), unit="files") if len(names) >= SHOWN_FROM else None
    with ThreadPoolExecutor(parallel_tasks()) as threads:
        for sha256 in threads.map(lambda name: _read(root / name), names):
            yield sha256
            if progress is not None:
                progress.advance()


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            before = _facts(os.fstat(file.fileno()))
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            after = _facts(os.fstat(file.fileno()))
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise InputChanged(f"{path} has gone while its folder was read: start the run again") from error
        if error.errno in UNREADABLE:
            return None
        raise
    if before != after:
        raise InputChanged(f"{path} was written to while it was read: start the run again when it is whole")
    return sha256


class _Memory:
    """The remembered digests of one root, in a file of the cache. Of two writers at once one is forgotten."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = f"inventory-{hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:32]}.parquet"

    def read(self) -> dict[str, tuple[_Facts, str]]:
        path = cache_folder() / self._file
        try:
            table = pq.read_table(path, schema=_REMEMBERED) if path.is_file() else _REMEMBERED.empty_table()
        except (OSError, pa.ArrowException):
            return {}  # damaged: as good as lost
        columns = [table[name].to_pylist() for name in _REMEMBERED.names]
        return {os.fsdecode(name): (tuple(facts), sha256) for name, *facts, sha256 in zip(*columns, strict=True)}

    def write(self, known: dict[str, tuple[_Facts, str]]) -> None:
        rows = [(os.fsencode(name), *facts, sha256) for name, (facts, sha256) in known.items()]
        columns = zip(*rows, strict=True)
        table = pa.table(dict(zip(_REMEMBERED.names, map(list, columns), strict=True)), schema=_REMEMBERED)
        try:
            with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="unfinished-") as unfinished:
                pq.write_table(table, f"{unfinished}/{self._file}")
                Path(unfinished, self._file).replace(cache_folder() / self._file)
        except OSError as error:
            logger.warning("the digests of %s cannot be remembered, it is read anew next time: %s", self._root, error)
