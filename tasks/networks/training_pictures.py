"""The pictures that a network is trained, calibrated or checked on: canonical forms in memory, views on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.errors import SpecError
from storage.objects import Ref, read_table
from storage.store import Store
from storage.tables import REAL
from tasks.data.pictures import Pixels, decode_rgb
from tasks.data.splits import role
from tasks.data.views import apply_view
from tasks.spec.splits import Splits
from tasks.spec.views import View


@dataclass(frozen=True)
class Pictures:
    """N pictures on the fair path, sorted by source and id: ids, sources and groups (N,), class numbers int64 (N,)."""

    ids: tuple[str, ...]
    sources: tuple[str, ...]
    groups: tuple[str, ...]
    classes: npt.NDArray[np.int64]
    canonical: tuple[bytes, ...]  # JPEG files of the canonical form

    def __len__(self) -> int:
        return len(self.ids)

    def pixels(self, index: int, view: View) -> Pixels:
        """One picture in a fair view: uint8 (h, w, 3)."""
        return apply_view(decode_rgb(self.canonical[index]), view).pixels


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
) -> Pictures:
    """The pictures that have a role (`wanted`: train, val or test) in a rotation, and a class.

    `images` are objects of `canonical_pictures`.

    Raises:
        SpecError: a class has no picture in this role.
    """
    rows: list[tuple[str, str, str, int, bytes]] = []
    for ref in images:
        for row in read_table(store, ref).to_pylist():
            kind = class_of(row["label"], row["source"], classes)
            if kind is not None and role(row, rotation, splits) == wanted:
                rows.append((row["source"], row["image_id"], row["group_id"], kind, row["canonical"]))
    rows.sort(key=lambda row: row[:2])
    numbers = np.array([row[3] for row in rows], dtype=np.int64)
    for number, name in enumerate(classes):
        if not np.any(numbers == number):
            raise SpecError(
                f"class {name} has no {wanted} picture (rotation {rotation}): it needs more pictures, other splits, or "
                "a source that reaches the canonical side"
            )
    return Pictures(
        ids=tuple(row[1] for row in rows),
        sources=tuple(row[0] for row in rows),
        groups=tuple(row[2] for row in rows),
        classes=numbers,
        canonical=tuple(row[4] for row in rows),
    )
