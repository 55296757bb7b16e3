"""An experiment from folders of pictures that somebody has: what `telltale check` and `telltale evaluate` take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from storage.digest import sha256_hex
from storage.errors import BadImage, MissingInput, SpecError
from storage.paths import absolute
from tasks.data.pictures import PictureFacts, inspect_picture
from tasks.overrides import override
from tasks.spec.base import LONGEST_NAME
from tasks.spec.views import CLEAN_QUALITY, Cell
from tasks.strict_yaml import read_yaml

_TEMPLATE = Path(__file__).with_suffix(".yaml")
_DEFAULT_DETECTORS = 2  # the first ones of the template
SIDES = (256, 128, 64)
DEFAULT_QUALITIES = (None, 60)
_LOOKED_AT = 300  # pictures of each folder, for the choice of a window
_LARGE_ENOUGH = 0.9
_HIDDEN = re.compile(r"(^|/)\.")
_Seen = Mapping[str, Sequence[PictureFacts]]


def document_of(
    photographs: Sequence[Path],
    fakes: Sequence[str],
    detectors: Sequence[str] = (),
    cells: Sequence[str] = (),
    name: str | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """An experiment of folders of photographs and of generated pictures (`NAME=DIR`, or `DIR` that is its own name).

    The pictures decide the rest: the largest window that nine in ten of each folder have, on the crop path; both
    classes take one history where half of the photographs, and some of each of their folders, are clean enough for
    that, or none of the fakes is a JPEG. What was chosen is said.
    `settings` by dotted names are put over it.

    Returns:
        The document, and sentences that say what was chosen and why.

    Raises:
        SpecError: no folder of one class, one folder twice, an unknown detector or cell.
        MissingInput: a folder is not there, or nothing in it can be read as a picture.
    """
    folders = dict(_sources(photographs, fakes))
    facts = {source: _facts(path) for source, (path, _) in folders.items()}
    of_label = {
        label: {source: facts[source] for source, (_, of) in folders.items() if of == label}
        for label in ("real", "fake")
    }
    sides, perturbations = _grid(cells, facts)
    unmatched = _why_unmatched(of_label["real"], of_label["fake"])
    template = read_yaml(_TEMPLATE)
    chosen = _detectors(template["detectors"], detectors)
    qualities = [cell.jpeg_quality for cell in perturbations if cell.perturbation is None or cell.jpeg_quality]
    document = {
        "name": name or _experiment_name(folders),
        "description": "Folders of pictures, given to the command line.",
        "path": "crop",
        "history": "as-is" if unmatched else "matched",
        "sources": [
            {"kind": "folder", "name": source, "path": str(path), "label": label}
            for source, (path, label) in folders.items()
        ],
        "splits": {"kind": "folds", "count": 5},
        "resolutions": list(sides),
        "qualities": qualities,
        "perturbations": [one.perturbation_name for one in perturbations if one.perturbation and not one.jpeg_quality],
        "detectors": [*chosen, template["probe"]],
        "extractor": template["extractor" if all("extractor" in one for one in chosen) else "content_extractor"],
        "shard_size": 100,
    }
    document["augmented_qualities"] = list(qualities)
    override(document, dict(settings))
    return document, tuple(_said(document, unmatched, _without_a_history(facts, of_label["fake"])))


def _said(document: Mapping[str, Any], unmatched: str, unknown: str) -> Iterator[str]:
    """What the experiment is like, as it is now."""
    sides = document["resolutions"]
    shown = " and ".join(map(str, sides if isinstance(sides, list) else [sides]))
    if document["path"] == "crop":
        yield f"windows of {shown} original pixels (--cells sets others)"
    if document["path"] == "crop" and document["history"] == "matched":
        promised = unknown or "both classes take one encoding first, so that a JPEG's history tells nothing"
        yield f"{promised} (history: matched)"
    elif document["path"] == "crop":
        why = f"{unmatched}: " if unmatched else ""
        yield (
            f"{why}pictures keep the encodings that they came with, and what is told may be a file's history instead "
            "of its maker (history: as-is)"
        )


def _sources(photographs: Sequence[Path], fakes: Sequence[str]) -> Iterator[tuple[str, tuple[Path, str]]]:
    """(name, (folder, label)) of each, photographs first."""
    given = [("", path, "real") for path in photographs]
    given += [(*_named_folder(text), "fake") for text in fakes]
    if not photographs or not fakes:
        raise SpecError("expected folders of both classes: --photographs DIR and --fakes NAME=DIR")
    names: set[str] = set()
    folders: dict[Path, str] = {}
    for name, path, label in given:
        if str(path) in ("", "."):
            raise SpecError(f"a folder has no name: expected --photographs DIR or --fakes NAME=DIR, got {str(path)!r}")
        folder = absolute(path)
        if (known := folders.get(folder.resolve())) is not None:
            both = "" if known == label else ", as photographs and as fakes: one picture cannot be both"
            raise SpecError(f"{path} is given twice{both}")
        folders[folder.resolve()] = label
        if name and _as_name(name) in names:
            raise SpecError(f"two folders are called {name}: put their pictures into one, or name them apart")
        chosen = _as_name(name) if name else _free(_as_name(folder.name), names)
        names.add(chosen)
        yield chosen, (folder, label)


def _named_folder(text: str) -> tuple[str, Path]:
    """Name and folder of `NAME=DIR`, parted at the first equals sign; a folder without a name has none in its path."""
    name, equals, folder = text.partition("=")
    if not equals:
        return "", Path(text)
    if not absolute(folder).exists() and absolute(text).is_dir():
        raise SpecError(
            f"--fakes {text} is read as the folder {folder} of a generator {name}: name a folder that has = in its "
            f"path, as in --fakes NAME={text}"
        )
    return name, Path(folder)


def _as_name(text: str) -> str:
    name = re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")
    return name[:30].strip("-.") or "pictures"


def _free(name: str, taken: set[str]) -> str:
    return next(one for one in (name, *(f"{name}-{number}" for number in range(2, 10_000))) if one not in taken)


def _experiment_name(folders: Mapping[str, tuple[Path, str]]) -> str:
    """Named by its sources; where that is too long, a digest of all of them is at its end."""
    real, fake = ("-".join(name for name, (_, of) in folders.items() if of == label) for label in ("real", "fake"))
    name = f"{fake}-against-{real}"
    return (
        name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9].strip('-.')}-{sha256_hex(name.encode())[:8]}"
    )


def _facts(folder: Path) -> list[PictureFacts]:
    """Of some pictures of a folder, spread over it."""
    if folder.is_file():
        raise SpecError(f"{folder} is a file: expected a folder of pictures")
    if not folder.is_dir():
        raise MissingInput(f"the folder {folder}")
    files = sorted(
        file for file in folder.rglob("*") if file.is_file() and not _HIDDEN.search(str(file.relative_to(folder)))
    )
    found = list(islice(_readable(files[:: max(1, len(files) // _LOOKED_AT)]), _LOOKED_AT)) or list(
        islice(_readable(files), 1)
    )
    if not found:
        raise MissingInput(f"pictures in {folder}: of {len(files)} files none can be read as one")
    return found


def _readable(files: Sequence[Path]) -> Iterator[PictureFacts]:
    for file in files:
        try:
            yield inspect_picture(file.read_bytes())
        except (BadImage, OSError):
            continue


def _grid(
    cells: Sequence[str], facts: Mapping[str, Sequence[PictureFacts]]
) -> tuple[tuple[int, ...], tuple[Cell, ...]]:
    """Sides of windows, and a cell for each thing that happens to a picture."""
    if cells:
        named = [Cell.parse(cell) for cell in cells]
        sides = dict.fromkeys(cell.resolution for cell in named)
        if "native" in sides:
            raise SpecError("on the crop path a cell is named by the side of its window, such as 256/none or 256/q60")
        of_side = {side: [cell.perturbation for cell in named if cell.resolution == side] for side in sides}
        if len({tuple(one) for one in map(tuple, of_side.values())}) > 1:
            raise SpecError("every side of a window needs the same perturbations: the cells are a grid")
        first = [cell for cell in named if cell.resolution == named[0].resolution]
        # Thresholds come from pictures to which nothing happened.
        plain = [] if any(cell.perturbation is None for cell in first) else [Cell(resolution=named[0].resolution)]
        return tuple(int(side) for side in sides), (*plain, *first)
    for side in SIDES:
        if all(_share(side, of) >= _LARGE_ENOUGH for of in facts.values()):
            return (side,), tuple(Cell.parse(f"{side}/{'none' if q is None else f'q{q}'}") for q in DEFAULT_QUALITIES)
    small = min(facts, key=lambda source: _share(SIDES[-1], facts[source]))
    raise SpecError(
        f"most pictures of {small} have no window of {SIDES[-1]} pixels, the smallest that is worth a look: take "
        "larger ones, or write an experiment on the path fair (docs)"
    )


def _share(side: int, of: Sequence[PictureFacts]) -> float:
    return sum(min(one.width, one.height) >= side for one in of) / len(of)


def _why_unmatched(photographs: _Seen, fakes: _Seen) -> str:
    """Why too few photographs are left that can take the fakes' history; fakes without one take the photographs'."""
    if all(one.jpeg_quality is None for of in fakes.values() for one in of):
        return ""
    clean = {
        source: sum(one.jpeg_quality is None or one.jpeg_quality >= CLEAN_QUALITY for one in of)
        for source, of in photographs.items()
    }
    if sum(clean.values()) < sum(map(len, photographs.values())) / 2:
        return f"most photographs are JPEGs below quality {CLEAN_QUALITY}"
    # A source of which nothing takes part cannot be measured.
    if without := [source for source, count in clean.items() if not count]:
        return f"all photographs of {' and '.join(without)} that were looked at are JPEGs below quality {CLEAN_QUALITY}"
    return ""


def _without_a_history(facts: _Seen, fakes: Iterable[str]) -> str:
    """Why a file's history may tell something where it is matched: only JPEGs say how they were saved."""
    others = {source: sum(one.jpeg_quality is None for one in of) for source, of in facts.items()}
    own = [source for source in fakes if any(one.has_own_tables for one in facts[source])]
    if not any(others.values()):
        first = "both classes take one encoding first, but by standard quantisation tables: those of JPEGs of"
        return f"{first} {' and '.join(own)} are others, which may be what is told" if own else ""
    if sum(others.values()) == sum(map(len, facts.values())):
        return "no picture is a JPEG: what each was before cannot be told, is not made equal, and may be what is told"
    named = " and ".join(f"{n} of {len(facts[source])} pictures of {source}" for source, n in others.items() if n)
    return (
        f"both classes take one encoding first, but what files were before that are no JPEGs ({named}) cannot be "
        "told, and may be what is told"
    )


def _detectors(known: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Those of these names; the first ones where none is named."""
    by_name = {one["name"]: one for one in known}
    for name in names:
        if name not in by_name:
            close = get_close_matches(name, by_name, 1)
            meant = f", did you mean {close[0]}?" if close else "."
            raise SpecError(f"no detector {name!r}{meant} There are {', '.join(by_name)}; others go into a YAML file")
    return [by_name[name] for name in names] or list(known[:_DEFAULT_DETECTORS])
