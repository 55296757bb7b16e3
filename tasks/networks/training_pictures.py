"""The pictures that a network is trained, calibrated or checked on: canonical forms in memory, views on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.digest import hash_seed
from storage.errors import SpecError
from storage.objects import Ref, read_table
from storage.store import Store
from storage.tables import REAL
from tasks.data.encoding import decode_own_jpeg, encode_jpeg
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.splits import role
from tasks.data.views import has_window, shown_picture, window_file
from tasks.spec.splits import Splits
from tasks.spec.views import View

# How many windows of a picture random ones are drawn from, and the JPEG qualities that half of them are encoded at.
WINDOWS = 8
LOWEST_QUALITY, HIGHEST_QUALITY = 30, 100
_BLOCK = 8  # of JPEG, pixels: a part that begins elsewhere would have another grid than what networks are asked about


@dataclass(frozen=True)
class Pictures:
    """N pictures on a path, sorted by source and id: ids, sources and groups (N,), class numbers int64 (N,)."""

    ids: tuple[str, ...]
    sources: tuple[str, ...]
    groups: tuple[str, ...]
    classes: npt.NDArray[np.int64]
    canonical: tuple[bytes, ...]  # files: JPEG of the canonical form, or those that windows are cut from
    shown: tuple[Mapping[str, Any], ...] = ()  # on the crop path, what else of their rows decides about windows
    windows: tuple[tuple[bytes, ...], ...] = ()  # JPEG files of the windows that random ones are drawn from

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, index: int, view: View) -> Pixels:
        """One picture in a view of one window: uint8 (h, w, 3)."""
        row = self.shown[index] if self.shown else {}
        return shown_picture(decode_rgb(self.canonical[index]), row, view).pixels

    def random_window(self, index: int, side: int, seed: int) -> Pixels:
        """A part of one of a picture's windows, uint8 (side, side, 3), as `Training.random_windows` says.

        Pictures of one id, such as a photograph and its reconstruction, take the same draws.
        """
        random = np.random.default_rng(hash_seed("random-window", seed, self.ids[index]))
        file = self.windows[index][random.integers(len(self.windows[index]))]
        window = decode_own_jpeg(file)
        if random.random() < 0.5:
            window = decode_own_jpeg(encode_jpeg(window, int(random.integers(LOWEST_QUALITY, HIGHEST_QUALITY + 1))))
        top, left = random.integers(0, (len(window) - side) // _BLOCK + 1, size=2) * _BLOCK
        part = window[top : top + side, left : left + side]
        if random.random() < 0.5:
            part = part[:, ::-1]
        if random.random() < 0.5:
            part = part[::-1]
        return np.ascontiguousarray(part)


def matched_pictures(pictures: Pictures) -> tuple[tuple[int, ...], ...]:
    """Rows that follow one another in training: a photograph and what was made of it, of one id; else each alone.

    So what both show is no noise between them. Versions of a photograph alone do not belong together.
    """
    of_id: dict[str, list[int]] = {}
    for row, name in enumerate(pictures.ids):
        of_id.setdefault(name, []).append(row)
    units: list[tuple[int, ...]] = []
    for rows in of_id.values():
        together = len({bool(pictures.classes[row]) for row in rows}) == 2
        units += [tuple(rows)] if together else [(row,) for row in rows]
    return tuple(units)


def class_of(label: int, source: str, classes: Sequence[str]) -> int | None:
    """The class number of a picture: 0 (`real`) for photographs, else its source's; None for a source without one."""
    name = "real" if label == REAL else source
    return classes.index(name) if name in classes else None


def load_pictures(
    store: Store,
    images: Sequence[Ref],
    wanted: str,
    rotation: int,
    splits: Splits,
    classes: Sequence[str],
    view: View,
    windows: bool = False,
) -> Pictures:
    """The pictures that have a role (`wanted`: train, val or test) in a rotation, and a class.

    Args:
        images: objects of `canonical_pictures`, or for a view of the crop path of `cropped_pictures`, of whose pictures
            those are left out that are smaller than its window.
        windows: whether random ones are drawn.

    Raises:
        SpecError: a class has no picture in this role; val needs photographs and fakes, whoever made them.
    """
    rows: list[tuple[str, str, int, dict[str, Any]]] = []
    for ref in images:
        for row in read_table(store, ref).to_pylist():
            kind = class_of(row["label"], row["source"], classes)
            if kind is None or role(row, rotation, splits) != wanted:
                continue
            if view.path != "crop" or has_window(row["width"], row["height"], view):
                rows.append((row["source"], row["image_id"], kind, row))
    rows.sort(key=lambda row: row[:2])
    numbers = np.array([row[2] for row in rows], dtype=np.int64)
    # A generator of few groups, such as one with three prompts in five folds, has none in some rotation's val.
    needed = np.minimum(numbers, 1) if wanted == "val" else numbers
    for number, name in enumerate(classes if wanted != "val" else ("real", "any generator")):
        if not np.any(needed == number):
            raise SpecError(
                f"class {name} has no {wanted} picture (rotation {rotation}): it needs more pictures, other splits, or "
                "a source that reaches the canonical side, or that of the window"
            )
    found = [row for *_, row in rows]
    return Pictures(
        ids=tuple(row["image_id"] for row in found),
        sources=tuple(row["source"] for row in found),
        groups=tuple(row["group_id"] for row in found),
        classes=numbers,
        canonical=tuple(row["canonical"] for row in found),
        shown=tuple({name: row[name] for name in ("image_id", "quality")} for row in found)
        if view.path == "crop"
        else (),
        windows=tuple(_windows(row, view) for row in found) if windows else (),
    )


def _windows(row: Mapping[str, Any], view: View) -> tuple[bytes, ...]:
    picture = decode_rgb(row["canonical"])
    each = view.model_copy(update={"perturbation": None, "windows": WINDOWS}).each_window
    return tuple(window_file(picture, row, one) for one in each)
