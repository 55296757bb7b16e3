"""A JPEG encoding, as nearly every platform makes one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field

from tasks.data.perturbations.base import PerturbationBase, ViewPicture

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels

Quality = Annotated[int, Field(ge=1, le=100)]


class Jpeg(PerturbationBase):
    """One encoding (4:2:0) at a quality of libjpeg's scale."""

    kind: Literal["jpeg"] = "jpeg"
    quality: Quality

    @property
    def name(self) -> str:
        return f"q{self.quality}"

    @property
    def title(self) -> str:
        return f"JPEG (4:2:0) of quality {self.quality}"

    @classmethod
    def named(cls, name: str) -> Self | None:
        match = re.fullmatch(r"q(0|[1-9][0-9]{0,8})", name)
        return cls(quality=int(match[1])) if match else None

    def apply(self, pixels: Pixels) -> ViewPicture:
        from tasks.data.encoding import decode_own_jpeg, encode_jpeg

        encoded = encode_jpeg(pixels, self.quality)
        return ViewPicture(decode_own_jpeg(encoded), encoded)


def jpeg(quality: int | None) -> Jpeg | None:
    """The encoding at a quality; None for none, as grids of qualities have it."""
    return None if quality is None else Jpeg(quality=quality)
