"""A window of the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from storage.errors import SpecError
from tasks.data.perturbations.base import ViewPicture, hash_of
from tasks.data.perturbations.one_number import OneNumber, part_of

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels

_SHORTEST = 8  # pixels; what is smaller is no picture to `decode_rgb`


class Crop(OneNumber):
    """A window of a `share` of each side, at a place drawn by hash of the pixels: `crop-0.8`.

    The picture gets smaller by it and is not scaled back: a cell's pictures are then smaller than its resolution.
    """

    kind: Literal["crop"] = "crop"
    share: Annotated[float, Field(ge=0.05, lt=1)]

    @property
    def title(self) -> str:
        return f"cropped to {self.share:g} of each side, not scaled back"

    def size(self, height: int, width: int) -> tuple[int, int]:
        return part_of(height, self.share), part_of(width, self.share)

    def apply(self, pixels: Pixels) -> ViewPicture:
        height, width = pixels.shape[:2]
        rows, columns = self.size(height, width)
        if min(rows, columns) < _SHORTEST:
            raise SpecError(
                f"{self.name} leaves {columns}x{rows} of {width}x{height} pixels: expected a larger share, or a larger "
                f"picture, so that {_SHORTEST} are left of each side"
            )
        drawn = hash_of(pixels, "crop")
        top = _below(height - rows + 1, drawn[:8])
        left = _below(width - columns + 1, drawn[8:16])
        return ViewPicture(np.ascontiguousarray(pixels[top : top + rows, left : left + columns]), None)


def _below(limit: int, drawn: bytes) -> int:
    """Eight bytes as a uniform number of 0..limit-1."""
    return (int.from_bytes(drawn, "big") * limit) >> 64
