"""Which metadata files speak of a folder's pictures, among them or above it, and what they say of each."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.errors import SpecError
from tasks.data.entries import is_safe_name, quarantined, reasons_told, stated_text
from tasks.data.file_kinds import IMAGE_SUFFIXES
from tasks.data.inventory import Listed, list_files
from tasks.data.metadata import METADATA_COLUMNS, AmbiguousRow, NamedPictures, read_metadata

# Files that describe the pictures beside and below them, without being named; in any letter case.
FOUND_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet", "metadata.json")
_LEVELS_ABOVE = 2  # of folders in which metadata of a folder are looked for


def metadata_above(root: Path) -> Path | None:
    """The metadata that lie above a directory and speak of it; None where it holds some itself."""
    listed = list_files(root) if root.is_dir() else []
    if not listed or found_metadata(listed):
        return None
    return next((path for path in _metadata_above(root) if _speaks_of(path, root, listed)), None)


def columns_by_file(root: Path, metadata: str | None, listed: Sequence[Listed]) -> dict[str, list[str]]:
    """The columns of the metadata that are named, or else of those among the pictures or above them, by file.

    Raises:
        SpecError: a file is broken.
    """
    named = metadata_above(root) if metadata is None else Path(metadata)
    if named is not None:
        return {named.name: read_metadata(named).columns}
    found = {}
    for name in found_metadata(listed):
        try:
            found[name] = read_metadata(root / name).columns
        except SpecError:
            # Other things than rows about pictures go by this name.
            if not name.lower().endswith(".json"):
                raise
    return found


def _metadata_above(root: Path) -> list[Path]:
    """Files called like metadata in the folders above a directory, the nearest first."""
    found = []
    for folder in root.resolve().parents[:_LEVELS_ABOVE]:
        names = sorted(item.name for item in folder.iterdir()) if os.access(folder, os.R_OK) else []
        for known in FOUND_METADATA:
            found += [folder / name for name in names if name.casefold() == known]
    return [path for path in found if os.access(path, os.R_OK) and path.is_file()]


def _speaks_of(metadata: Path, root: Path, listed: Sequence[Listed]) -> bool:
    """Whether a metadata file above a directory speaks of it.

    It does where a row names the directory by its path from there, as a rule; else where every name is that of one
    picture of the directory, and either names a folder called so or could be no other's, as there is none.
    """
    pictures = NamedPictures((item.name for item in listed if is_picture(item.name)), prefix_of(root, metadata))
    try:
        rows = read_metadata(metadata).rows_about(pictures)
    except SpecError:
        return False
    names = [row["file_name"] for row in rows if row["file_name"] is not None]
    if any(pictures.is_below(name) for name in names):
        return True
    found = [pictures.find(name) for name in names]
    return (
        bool(found)
        and all(found)
        and (all(one is not None and one[0] == 2 for one in found) or _is_alone(root.resolve(), metadata.parent))
    )


def _is_alone(root: Path, above: Path) -> bool:
    """Whether there are no pictures and no folders between a directory and one above it but those that lead there."""
    folder = root
    while folder != above:
        if not os.access(folder.parent, os.R_OK):
            return False
        for item in folder.parent.iterdir():
            if item != folder and not item.name.startswith(".") and (item.is_dir() or is_picture(item.name)):
                return False
        folder = folder.parent
    return True


def _is_folder(path: Path) -> bool:
    """Whether a folder is there; what metadata name may be too long for a name."""
    try:
        return path.is_dir()
    except OSError:
        return False


def not_taken(root: Path, listed: Sequence[Listed]) -> list[str]:
    """A sentence for each metadata file above a directory without any that is not taken and may be about it."""
    told: list[str] = []
    if found_metadata(listed):
        return told
    pictures = [item.name for item in listed if is_picture(item.name)]
    for path in _metadata_above(root):
        named = NamedPictures(pictures, prefix_of(root, path))
        try:
            rows = read_metadata(path).rows_about(named)
        except SpecError as error:
            # Other things than rows about pictures go by the name of `metadata.json`.
            if path.suffix.lower() != ".json" or isinstance(error, AmbiguousRow):
                told.append(f"{path.name} in a folder above is not read: {error}")
            continue
        names = [row["file_name"] for row in rows if row["file_name"] is not None]
        folders = {folder for name in names if (folder := named.folder_elsewhere(name))}
        others = {folder for folder in folders if _is_folder(path.parent / folder)}
        open_names = [name for name in names if named.folder_elsewhere(name) not in others]
        if open_names:
            told.append(
                f"{path.name} in a folder above is not read: its rows name {quoted(open_names)}; name it as metadata "
                "if it is about these pictures"
            )
    return told


def is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


@dataclass
class Told:
    """What metadata say: facts by picture, rows that are set aside, sentences, and the files below the folder.

    `unread` are the columns of each file that are not known, `silent` the files that have no others. `group_by` is the
    column that is read as `group_id`.
    """

    described: dict[str, dict[str, Any]] = field(default_factory=dict)
    aside: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    unread: dict[str, list[str]] = field(default_factory=dict)
    silent: list[str] = field(default_factory=list)
    group_by: str | None = None


def descriptions(
    source: str,
    root: Path,
    metadata: str | None,
    listed: Sequence[Listed],
    pictures: Sequence[str],
    group_by: str | None,
) -> Told:
    """What the metadata say that are named, or that lie among the pictures, `group_by` being read as `group_id`."""
    told = Told(group_by=group_by)
    if metadata is not None:
        about = Path(metadata)
        is_inside = root.is_dir() and about.resolve().is_relative_to(root.resolve())
        told.files.append(about.resolve().relative_to(root.resolve()).as_posix() if is_inside else about.name)
        _describe(told, source, about, NamedPictures(pictures, prefix_of(root, about)))
        return told
    # What lies nearer to a picture knows it better.
    for name in sorted(found_metadata(listed), key=lambda name: -name.count("/")):
        below = "".join(name.rpartition("/")[:2])
        named = NamedPictures((one.removeprefix(below) for one in pictures if one.startswith(below)), "")
        try:
            _describe(told, source, root / name, named, below)
        except SpecError as error:
            if not name.lower().endswith(".json") or isinstance(error, AmbiguousRow):
                raise
            # Other things than rows about pictures go by this name.
            told.warnings.append(f"not read: {error}")
            continue
        told.files.append(name)
    return told


def found_metadata(listed: Iterable[Listed]) -> list[str]:
    """Metadata files below a directory of pictures; `SpecError` where a folder has several, or a link to elsewhere."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for item in listed:
        folder, _, file = item.name.rpartition("/")
        if file.casefold() in FOUND_METADATA:
            by_folder[folder].append(item.name)
            if item.reason == "link-outside":
                raise SpecError(f"{item.name} is {item.detail}: name that file as metadata if it is meant")
    for names in by_folder.values():
        if len(names) > 1:
            raise SpecError(f"{' and '.join(names)} both describe the pictures: name one of them as metadata")
    return [name for names in by_folder.values() for name in names]


def _describe(told: Told, source: str, metadata: Path, pictures: NamedPictures, below: str = "") -> None:
    """Add what one metadata file says.

    A row's `file_name` counts from the pictures' directory, or from the metadata file's where the pictures lie below
    that one; rows about other directories there are left alone. See `NamedPictures.find` for how a picture is found.

    Raises:
        SpecError: no row names a picture.
    """
    read = read_metadata(metadata, told.group_by)
    rows = read.rows_about(pictures)
    naming: dict[str, list[tuple[int, int]]] = defaultdict(list)
    unnamed: list[int] = []
    lost: list[tuple[int, str]] = []
    for index, row in enumerate(rows):
        name = row["file_name"]
        found = None if name is None else pictures.find(name)
        if name is None:
            unnamed.append(index)
        elif found is not None:
            naming[found[1]].append((found[0], index))
        elif not pictures.is_elsewhere(name):
            lost.append((index, name))
    taken: dict[str, dict[str, Any]] = {}
    aside: list[dict[str, str]] = []
    for picture, candidates in naming.items():
        aside += _take(taken, source, metadata, rows, below + picture, candidates)
    if not taken:
        raise SpecError(
            f"{metadata.name}: none of its {len(rows)} rows names a picture of {source}: "
            f"they name {quoted(row['file_name'] for row in rows)}; the pictures are {quoted(pictures.names)}"
            + (f"; {reasons_told(aside)}" if aside else "")
        )
    told.unread[below + metadata.name] = read.unread
    if not set(METADATA_COLUMNS) & {key for row in rows for key in row}:
        told.silent.append(below + metadata.name)
    unclear = [row["image_id"] for row in aside if row["reason"] == "ambiguous-name"]
    for names, what in (([name for _, name in lost], "name no picture"), (unclear, "may mean the same picture")):
        if names:
            told.warnings.append(f"{share_of(names, len(rows), f'rows of {metadata.name}')} {what}")
    told.aside += aside
    for picture in sorted(taken.keys() & told.described.keys()):
        told.aside.append(quarantined(source, f"{source}:{picture}", "duplicate-id", f"again in {metadata.name}"))
    told.described = taken | told.described
    for index in unnamed:
        told.aside.append(quarantined(source, f"{source}:row {index} of {metadata.name}", "no-name"))
    for index, name in lost:
        reason = "missing-file" if is_safe_name(name) else "unsafe-name"
        told.aside.append(quarantined(source, f"{source}:{name}", reason, f"row {index} of {metadata.name}"))


def _take(
    taken: dict[str, dict[str, Any]],
    source: str,
    metadata: Path,
    rows: Sequence[dict[str, Any]],
    picture: str,
    candidates: Sequence[tuple[int, int]],
) -> Iterator[dict[str, str]]:
    """Put into `taken` the first of the rows that name a picture best, none where loose ones say different things.

    Yields the others, set aside. `candidates` are (how loosely, row).
    """
    best = min(rank for rank, _ in candidates)
    nearest = [index for rank, index in candidates if rank == best]
    facts = [_facts(rows[index]) for index in nearest]
    is_clear = best == 0 or all(one == facts[0] for one in facts)
    if is_clear:
        taken[picture] = facts[0]
    for _, index in candidates:
        if not is_clear or index != nearest[0]:
            detail = f"row {index} of {metadata.name}, {rows[index]['file_name']!r}"
            yield quarantined(source, f"{source}:{picture}", "duplicate-id" if is_clear else "ambiguous-name", detail)


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "file_name" and stated_text(value) is not None}


def share_of(names: Sequence[str], count: int, what: str) -> str:
    """`3 of 12 rows (25 %, first: a.png)`"""
    return f"{len(names)} of {count} {what} ({100 * len(names) / count:.2g} %, first: {names[0]})"


def quoted(names: Iterable[str | None], count: int = 3) -> str:
    listed = list(names)
    return ", ".join(map(repr, listed[:count])) + (", ..." if len(listed) > count else "") if listed else "nothing"


def prefix_of(root: Path, metadata: Path) -> str:
    """How metadata's own directory names the pictures' directory below it, such as `dalle/`; else empty."""
    above = metadata.resolve().parent
    if not root.is_dir() or root.resolve() == above or not root.resolve().is_relative_to(above):
        return ""
    return f"{root.resolve().relative_to(above).as_posix()}/"
