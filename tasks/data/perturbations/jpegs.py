"""JPEG twice, as a picture that was saved, posted and posted again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, Self

from tasks.data.perturbations.base import PerturbationBase, ViewPicture
from tasks.data.perturbations.jpeg import Jpeg, Quality

if TYPE_CHECKING:
    from tasks.data.pictures import Pixels


class Jpegs(PerturbationBase):
    """Two encodings (4:2:0) on one grid of blocks, at two qualities in their order: `q75-q50`.

    On two grids: a chain with a `crop` between them.
    """

    kind: Literal["jpegs"] = "jpegs"
    qualities: tuple[Quality, Quality]

    @property
    def name(self) -> str:
        return "-".join(f"q{quality}" for quality in self.qualities)

    @property
    def title(self) -> str:
        first, second = self.qualities
        return f"JPEG (4:2:0) of quality {first}, then of {second}"

    @classmethod
    def named(cls, name: str) -> Self | None:
        match = re.fullmatch(r"q(0|[1-9][0-9]{0,8})-q(0|[1-9][0-9]{0,8})", name)
        return cls(qualities=(int(match[1]), int(match[2]))) if match else None

    def apply(self, pixels: Pixels) -> ViewPicture:
        first, second = (Jpeg(quality=quality) for quality in self.qualities)
        return second.apply(first.apply(pixels).pixels)
