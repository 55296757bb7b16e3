"""Which pictures a command is about: files, folders, a list of names, or what another program writes to it."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from storage.errors import BadImage, MissingInput, SpecError
from storage.paths import with_home
from tasks.data.file_kinds import IMAGE_SUFFIXES

# The name of what comes on the standard input.
STANDARD_INPUT = Path("-")
# More bytes than any picture within the limit of 100 million pixels has.
MAX_BYTES = 2**30


def listed_pictures(named: Sequence[Path], files_from: Path | None, *, recursive: bool) -> list[Path]:
    """The pictures that are meant, each time that they are named, those of a folder by name.

    Of a folder all files are taken that are called like pictures, with `recursive` those of its folders as well; hidden
    ones and links to folders are passed over. A list has one name per line; `-` reads it from the standard input.

    Raises:
        SpecError: nothing is named, or the standard input is to be a picture and a list.
        MissingInput: the list cannot be read.
    """
    if STANDARD_INPUT in named and files_from == STANDARD_INPUT:
        raise SpecError("the standard input is either a picture or a list of names, not both")
    found: list[Path] = []
    for path in (*named, *_names(files_from)):
        found += _of_folder(path, recursive=recursive) if path != STANDARD_INPUT and _is_folder(path) else [path]
    if not found:
        raise SpecError("name pictures or folders, or a list of them with --files-from")
    return found


def _is_folder(path: Path) -> bool:
    try:
        return Path(with_home(str(path))).is_dir()
    except (OSError, SpecError):
        # What is wrong with it is said where it is read.
        return False


def _names(files_from: Path | None) -> Iterator[Path]:
    if files_from is None:
        return
    try:
        # Names are bytes: what is no UTF-8 stays what it is.
        data = (
            sys.stdin.buffer.read() if files_from == STANDARD_INPUT else Path(with_home(str(files_from))).read_bytes()
        )
    except OSError as error:
        raise MissingInput(f"the list {files_from} ({error.strerror})") from error
    # Some editors begin a text with a mark that is none of its first name.
    yield from (Path(os.fsdecode(line)) for line in data.removeprefix(codecs.BOM_UTF8).splitlines() if line)


def _of_folder(folder: Path, *, recursive: bool) -> list[Path]:
    # One without pictures is said to be that among the answers.
    return sorted(_files(Path(with_home(str(folder))), recursive=recursive)) or [folder]


def _files(folder: Path, *, recursive: bool) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            if recursive:
                yield from _files(Path(entry.path), recursive=True)
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
            yield Path(entry.path)


def read_picture(path: Path) -> bytes:
    """The bytes of an image file.

    Raises:
        BadImage: `not-found`, `not-a-file` (a folder, a pipe), `too-large` (over 1 GiB), `unreadable` (no permission).
    """
    try:
        if path == STANDARD_INPUT:
            return _standard_input()
        path = Path(with_home(str(path)))
        if path.is_dir():
            raise BadImage(
                "not-a-file",
                "a folder without pictures (files that end in .jpg, .png, .webp or the like); see --recursive",
            )
        if not path.exists():
            raise BadImage("not-found", "no such file")
        if not path.is_file():
            raise BadImage("not-a-file", "neither a file nor a link to one")
        if path.stat().st_size > MAX_BYTES:
            raise BadImage("too-large", f"{path.stat().st_size} bytes, more than {MAX_BYTES}")
        return path.read_bytes()
    except SpecError as error:
        raise BadImage("not-found", str(error)) from error
    except OSError as error:
        raise BadImage("unreadable", error.strerror or str(error)) from error


def _standard_input() -> bytes:
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadImage("too-large", f"more than {MAX_BYTES} bytes")
    return data
